"""The tunnel protocol, both ends, up to where the bytes of visitors pass.

1. client: ``CONNECT /_connectPath HTTP/1.1`` with the public hostname as ``Host``
2. server: ``HTTP/1.1 200 gotunnel established`` and two bare LF; or an HTTP error with the reason as its body
3. yamux, whose client the tunnel's client is; what is said on its stream 1 is in ``tunnel_lines``
4. for each visitor that the server tells of there, the client opens a stream, dials its service, and passes bytes both
   ways; the server writes the visitor's request on the stream and reads the response

What our server and client add, and an original at either end never meets:

1. Our client's request has ``TunnelConsole-Native: 1`` and ``TunnelConsole-Spare``: how many data connections it keeps
   ready. It may have ``Authorization: Bearer`` with a token.
2. Our server's answer to such a client has ``TunnelConsole-Native: 1`` and ``TunnelConsole-Key``, 64 hex digits: the
   key of this session. It ends its lines in CRLF.
3. With it the client dials data connections to the same address: ``CONNECT /_data HTTP/1.1`` with the key. The server
   answers as to any tunnel client, and the connection then waits for a visitor's request, which the client leads to
   its service. A connection whose exchange was complete may get another request, of any visitor.
4. The server may ask for more of them on stream 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.http.answer import plain_response
from tunnelconsole.engine.wire.http.body import NO_BODY, Decoder, decoder_of, request_framing, response_framing
from tunnelconsole.engine.wire.http.forward import host_name
from tunnelconsole.engine.wire.http.head import (
    HeadReader,
    HttpError,
    RequestHead,
    check_host,
    parse_request,
    parse_response,
    serialize,
)
from tunnelconsole.engine.wire.printable import printable
from tunnelconsole.engine.wire.tunnel_lines import MAX_WANTED

#: What a tunnel's client and one of its data connections ask for.
CONNECT_PATH = "/_connectPath"
DATA_PATH = "/_data"
#: The version of what we add; the number in ``TunnelConsole-Native``.
NATIVE_VERSION = "1"
#: Bytes in the key of a session: 256 bits cannot be guessed.
KEY_LENGTH = 32
#: Bytes of the head of the server's answer: ten times ours, so that one from another web server is still understood.
MAX_ANSWER_HEAD = 4096
#: Bytes of the reason with which a tunnel is refused.
MAX_REASON = 1024

_PREFIX = b"CONNECT /_"
# What the original's client makes of a URL that ends in a slash.
_PREFIX_BEHIND_SLASH = b"CONNECT //_"
_HTTP = b"HTTP/1."
_PHRASE = "gotunnel established"
_ESTABLISHED = f"HTTP/1.1 200 {_PHRASE}\n\n".encode("ascii")
_NATIVE, _SPARE, _KEY = "TunnelConsole-Native", "TunnelConsole-Spare", "TunnelConsole-Key"
# The end of a head, and of a line in it: the original's ends are bare LF.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
# What a bearer token is made of (RFC 6750, section 2.1), and a little more.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_COUNT = re.compile(r"[0-9]{1,3}")
_BEARER = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)


def is_tunnel(first: bytes) -> bool | None:
    """Say whether a connection that begins with ``first`` is a tunnel client's; None while that is open.

    One empty line before it counts for nothing, as before every request (RFC 9112, section 2.2).
    """
    if first == b"\r":
        return None
    first = first.removeprefix(b"\r\n")
    if first.startswith((_PREFIX, _PREFIX_BEHIND_SLASH)):
        return True
    return None if _PREFIX.startswith(first) or _PREFIX_BEHIND_SLASH.startswith(first) else False


# -- the server's end --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TunnelAsked:
    """A client wants a tunnel for ``host``. Answer with ``accept`` or ``refuse``.

    ``host`` is as it came, with its port; ``name`` is in lower case, without it: the one to decide by. ``token`` is
    empty if it brought none. ``native`` says whether it makes data connections, ``spare`` how many it keeps ready.
    """

    host: str
    name: str
    token: str
    native: bool
    spare: int
    head: RequestHead

    def __repr__(self) -> str:
        return f"TunnelAsked(host={self.host!r}, native={self.native})"


@dataclass(frozen=True, slots=True)
class DataOffered:
    """A data connection has come. Compare ``key`` with ``hmac.compare_digest``, then ``accept`` or ``refuse``."""

    key: bytes

    def __repr__(self) -> str:
        return "DataOffered()"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client broke the rules. Its answer is queued; send it and close."""

    status: int
    reason: str


ServerEvent = TunnelAsked | DataOffered | Rejected


class _Step(Enum):
    HEAD = 1
    DECIDING = 2
    OPEN = 3
    CLOSED = 4


class TunnelServerHandshake:
    """The server's end of a connection that :func:`is_tunnel`: one for each.

    After an event, whoever feeds it should stop reading until it has answered: what comes earlier is kept as
    :attr:`leftover`, up to ``MAX_EARLY_DATA`` bytes.
    """

    __slots__ = ("_early", "_native", "_output", "_reader", "_step")

    def __init__(self) -> None:
        self._reader = HeadReader(request=True)
        self._early = EarlyData()
        self._output = b""
        self._native = False
        self._step = _Step.HEAD

    @property
    def leftover(self) -> bytes:
        """What came behind the head. A client waits for its answer, so this is usually empty."""
        return bytes(self._early)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes) -> list[ServerEvent]:
        """Take bytes from the client, split anywhere, and return what they caused.

        :raises ProtocolError: too much came before the answer.
        """
        if self._step in (_Step.DECIDING, _Step.OPEN):
            self._early.add(data)
        elif self._step is _Step.HEAD:
            try:
                if (found := self._reader.receive_data(data)) is not None:
                    event = self._read_head(parse_request(found[0]))
                    self._step = _Step.DECIDING
                    self._early.add(found[1])
                    return [event]
            except HttpError as error:
                self.refuse(error.status, error.reason)
                return [Rejected(error.status, error.reason)]
        return []

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before its request was complete.
        """
        if self._step is _Step.HEAD:
            raise ProtocolError("the client closed before its request for a tunnel was complete")

    def accept(self, key: bytes | None = None) -> None:
        """Say yes. For a tunnel yamux follows, for a data connection raw bytes.

        :param key: of the session, for data connections. One that does not take them is not told.
        :raises RuntimeError: nothing was asked.
        :raises ValueError: the key is not :data:`KEY_LENGTH` bytes.
        """
        if self._step is not _Step.DECIDING:
            raise RuntimeError("accept() without a tunnel or a data connection that was asked for")
        self._output = _ESTABLISHED
        if key is not None and self._native:
            lines = [f"{_NATIVE}: {NATIVE_VERSION}", f"{_KEY}: {_check_key(key).hex()}"]
            self._output = serialize(f"HTTP/1.1 200 {_PHRASE}", lines)
        self._step = _Step.OPEN

    def refuse(self, status: int, reason: str) -> None:
        """Say no; send it and close. Possible until :meth:`accept`.

        :param status: 400 to 599.
        :param reason: one sentence for the client's user.
        :raises RuntimeError: the handshake is over.
        """
        if self._step in (_Step.OPEN, _Step.CLOSED):
            raise RuntimeError("refuse() after the handshake was over")
        self._output = plain_response(status, f"{reason}\n", connection="close")
        self._step = _Step.CLOSED

    def _read_head(self, head: RequestHead) -> ServerEvent:
        if head.method != "CONNECT":
            raise HttpError(405, "a tunnel is asked for by CONNECT")
        if request_framing(head) != NO_BODY:
            raise HttpError(400, "the request for a tunnel has a body")
        if head.target == DATA_PATH:
            key = _parse_key(head.values.get(_KEY.lower(), ""))
            if key is None:
                raise HttpError(403, "the data connection has no key")
            return DataOffered(key)
        if head.target not in (CONNECT_PATH, f"/{CONNECT_PATH}"):
            raise HttpError(404, f"a tunnel is asked for at {CONNECT_PATH}")
        host = head.values.get("host", "")
        check_host(host)
        bearer = _BEARER.fullmatch(head.values.get("authorization", ""))
        self._native = head.values.get(_NATIVE.lower()) == NATIVE_VERSION
        spare = head.values.get(_SPARE.lower(), "0")
        if not _COUNT.fullmatch(spare) or int(spare) > MAX_WANTED:
            raise HttpError(400, f"{_SPARE} is not a number up to {MAX_WANTED}")
        token = bearer[1] if bearer else ""
        return TunnelAsked(host, host_name(host), token, self._native, int(spare), head)


# -- the client's end --------------------------------------------------------------------------------------------------


def tunnel_request(host: str, *, token: str = "", spare: int | None = None) -> bytes:
    """Return the first bytes of a tunnel's client.

    :param host: the public hostname, with its port if the URL has one.
    :param token: proves who we are; empty for none.
    :param spare: data connections that are kept ready, if the server is one of ours, up to :data:`MAX_WANTED`; None:
        yamux only.
    :raises ValueError: one of them cannot stand in a head; the message does not repeat it.
    """
    lines = [f"Host: {_usable_host(host)}"]
    if token:
        check_token(token)
        lines.append(f"Authorization: Bearer {token}")
    if spare is not None:
        lines += [f"{_NATIVE}: {NATIVE_VERSION}", f"{_SPARE}: {spare}"]
    return serialize(f"CONNECT {CONNECT_PATH} HTTP/1.1", lines)


def check_token(token: str) -> None:
    """Accept a token.

    :raises ValueError: it cannot stand in a head; the message does not repeat it.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token holds a blank or a character beyond ASCII")


def data_request(host: str, key: bytes) -> bytes:
    """Return the first bytes of a data connection.

    :param host: as in :func:`tunnel_request`.
    :raises ValueError: the host cannot stand in a head, or the key is not :data:`KEY_LENGTH` bytes.
    """
    lines = [f"Host: {_usable_host(host)}", f"{_KEY}: {_check_key(key).hex()}"]
    return serialize(f"CONNECT {DATA_PATH} HTTP/1.1", lines)


@dataclass(frozen=True, slots=True)
class Established:
    """The server says yes. ``key`` is for data connections; None if it is an original, or takes none."""

    key: bytes | None

    def __repr__(self) -> str:
        return f"Established(native={self.key is not None})"


@dataclass(frozen=True, slots=True)
class Refused:
    """The server says no. It closes."""

    status: int
    reason: str


ClientEvent = Established | Refused


class ConnectAnswer:
    """Reads what the server answers to :func:`tunnel_request` or :func:`data_request`: one for each connection."""

    __slots__ = ("_buffer", "_decoder", "_early", "_event", "_reason", "_status")

    def __init__(self) -> None:
        self._buffer = b""
        self._early = EarlyData()
        self._event: ClientEvent | None = None
        # A refusal whose reason is coming.
        self._status = 0
        self._reason = b""
        self._decoder: Decoder | None = None

    @property
    def leftover(self) -> bytes:
        """What came behind the answer, once it is :class:`Established`: yamux, or a visitor's first bytes."""
        return bytes(self._early)

    def receive_data(self, data: bytes) -> ClientEvent | None:
        """Take bytes from the server, split anywhere; return its answer once that is complete, None before.

        :raises ProtocolError: it is no tunnel server, or too much came behind the answer.
        """
        if isinstance(self._event, Established):
            self._early.add(data)
        elif self._event is None and self._status:
            self._read_reason(data)
        elif self._event is None:
            self._read_head(self._buffer + data)
        return self._event

    def receive_eof(self) -> ClientEvent | None:
        """Take the end of the server's bytes; return its answer, if it is a refusal.

        :raises ProtocolError: it came before the answer.
        """
        if self._event is None and not self._status:
            raise ProtocolError("the tunnel server closed without an answer")
        if self._event is None:
            self._refuse()
        return self._event

    def _read_head(self, data: bytes) -> None:
        if not _HTTP.startswith(data[: len(_HTTP)]):
            raise ProtocolError("the server does not speak HTTP/1; is it a tunnel server, and is TLS set right?")
        end = _HEAD_END.search(data, 0, MAX_ANSWER_HEAD)
        if end is None:
            self._buffer = data
            if len(data) >= MAX_ANSWER_HEAD:
                raise ProtocolError(f"the head of the tunnel server's answer has more than {MAX_ANSWER_HEAD} bytes")
            return
        self._buffer = b""
        head = parse_response(_LINE_END.sub(b"\r\n", data[: end.end()]))
        rest = data[end.end() :]
        if head.status == 200:
            if head.reason != _PHRASE:
                raise ProtocolError("the server answered 200, but not as a tunnel server; is the URL right?")
            native = head.values.get(_NATIVE.lower()) == NATIVE_VERSION
            self._event = Established(_parse_key(head.values.get(_KEY.lower(), "")) if native else None)
            self._early.add(rest)
            return
        self._status = head.status
        self._decoder = decoder_of(response_framing("GET", head), 502)
        self._read_reason(rest)

    def _read_reason(self, data: bytes) -> None:
        done = self._decoder is None
        if self._decoder is not None:
            pieces, done, _ = self._decoder.receive_data(data)
            self._reason += b"".join(pieces)
        if done or len(self._reason) >= MAX_REASON:
            self._refuse()

    def _refuse(self) -> None:
        text = " ".join(self._reason[:MAX_REASON].decode("utf-8", "replace").split())
        self._event = Refused(self._status, printable(text) or f"the tunnel server answered {self._status}")


def _check_key(key: bytes) -> bytes:
    if len(key) != KEY_LENGTH:
        raise ValueError(f"a key has {KEY_LENGTH} bytes, not {len(key)}")
    return key


def _parse_key(text: str) -> bytes | None:
    """Return the key in a field; None when it is none."""
    if len(text) != 2 * KEY_LENGTH:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _usable_host(host: str) -> str:
    try:
        check_host(host)
    except HttpError:
        raise ValueError("the host is not a host name with or without a port") from None
    return host
