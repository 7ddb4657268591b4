"""The channel protocol, both ends: lines of JSON until the handshake is done, then raw bytes.

1. client: ``{"req":"hs1","chid":"ch0"}``; ``chid`` may be missing or empty, the server makes one then
2. server: ``{"rsp":"hs2","chid":"ch0"}``
3. client: ``{"req":"hs3","recvers":["ch1"],"timeout":3600}``; no ``recvers``, or an empty list: to all others;
   ``timeout``, optional: seconds without a byte either way after which the server closes
4. server: ``{"rsp":"hs4","result":"OK"}``; or ``{"rsp":"hs4","result":"FAIL","desc":"..."}`` instead of any answer,
   then it closes
5. raw bytes: what the client sends goes to its receivers, what it gets came from those whose receiver it is

Each line is ended by LF; keys that are not known are ignored, and null is the same as nothing. With a handshake
password the lines travel sealed: see :mod:`tunnelconsole.engine.wire.sealed_handshake`, which is not imported here, so
that only who has a password pays for the ciphers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

import msgspec

from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import ProtocolError

#: Bytes of a chid in UTF-8: as long as a host name in practice, short enough for a table.
MAX_CHID = 128
#: Receivers that one client may name; who has more sends to all.
MAX_RECEIVERS = 1024
#: Seconds that a client may ask for as its timeout: 30 days, beyond which nobody means it.
MAX_TIMEOUT = 30 * 24 * 3600
#: Bytes in the first line: a chid with every character escaped, and whatever else a client may add.
MAX_FIRST_LINE = 4096
#: Bytes in any later line: as many receivers as there may be, each as long as it may be, in quotes and in base64.
MAX_LINE = 192 * 1024
#: Characters of a reason told to the other end, or taken from it: a sentence or two.
MAX_REASON = 512

_OK = b'{"result":"OK","rsp":"hs4"}'
_encode = msgspec.json.Encoder().encode


def check_chid(chid: str) -> None:
    """Accept a chid: 1 to :data:`MAX_CHID` bytes of UTF-8, printable, without spaces.

    :raises ValueError: it is not one; the text says why.
    """
    if not chid:
        raise ValueError("a chid is not empty")
    if not chid.isprintable() or " " in chid:
        raise ValueError("a chid is made of printable characters without spaces")
    if len(chid.encode("utf-8")) > MAX_CHID:
        raise ValueError(f"a chid has at most {MAX_CHID} bytes")


def check_receivers(receivers: Sequence[str]) -> tuple[str, ...]:
    """Return the receivers, each once, in their order.

    :raises ValueError: one of them is no chid, or there are more than :data:`MAX_RECEIVERS`.
    """
    if len(receivers) > MAX_RECEIVERS:
        raise ValueError(f"there are more than {MAX_RECEIVERS} receivers; name none to send to all")
    for receiver in receivers:
        check_chid(receiver)
    return tuple(dict.fromkeys(receivers))


def check_timeout(seconds: float) -> None:
    """Accept a timeout: 0, for none, to :data:`MAX_TIMEOUT` seconds.

    :raises ValueError: it is none.
    """
    if not 0 <= seconds <= MAX_TIMEOUT:
        raise ValueError(f"a timeout is 0 to {MAX_TIMEOUT} seconds")


class WrongPassword(ProtocolError):
    """The first sealed line was sealed with no password that is known here."""


class Sealing(Protocol):
    """Seals and opens the lines of one end."""

    def seal(self, text: bytes) -> bytes:
        """Return what travels in place of ``text``, without LF."""

    def open(self, line: bytes) -> bytes:
        """Return the text that ``line`` carries.

        :raises WrongPassword: it is the first, and sealed with an unknown password.
        :raises ProtocolError: it was changed, or is no sealed line.
        """


class ServerSealing(Sealing, Protocol):
    """The server's end of a sealed handshake, fresh for each connection."""

    @property
    def greeting(self) -> bytes:
        """The line with which the server begins, without LF."""

    @property
    def identity(self) -> str | None:
        """Whose password sealed the first line; None before it has come."""


class ClientSealing(Sealing, Protocol):
    """The client's end of a sealed handshake, fresh for each connection."""

    def receive_greeting(self, line: bytes) -> bytes:
        """Return the salt that ``line`` tells.

        :raises ProtocolError: it is no greeting.
        """

    def use_key(self, key: bytes) -> None:
        """Take the key that password and salt make."""


class _Lines:
    """Cuts the lines of a handshake out of its bytes; each is taken when whoever reads is ready for it."""

    __slots__ = ("_buffer", "_searched", "who")

    def __init__(self, who: str) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self.who = who

    def __len__(self) -> int:
        return len(self._buffer)

    def add(self, data: bytes) -> None:
        self._buffer += data

    def take(self, limit: int) -> bytes | None:
        """Remove the next line and return it without its LF; None while it is incomplete.

        :raises ProtocolError: it is longer than ``limit`` bytes.
        """
        end = self._buffer.find(b"\n", self._searched)
        if end >= limit or (end < 0 and len(self._buffer) >= limit):
            raise ProtocolError(f"the {self.who} sent a line of more than {limit} bytes; is it a channel {self.who}?")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def take_rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


class _Request(msgspec.Struct):
    """A line of the client's."""

    req: str
    chid: str | None = None
    recvers: list[str] | None = None
    timeout: int | float | None = None


class _Response(msgspec.Struct):
    """A line of the server's."""

    rsp: str
    chid: str | None = None
    result: str | None = None
    desc: str | None = None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_response = msgspec.json.Decoder(_Response).decode


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client sealed its first line with the password that belongs to ``identity``."""

    identity: str


@dataclass(frozen=True, slots=True)
class JoinAsked:
    """The client wants to be ``chid`` and to send to ``receivers``, or to all when there are none.

    Answer with ``accept`` or ``refuse``. ``timeout`` is in seconds, 0 for none.
    """

    chid: str
    receivers: tuple[str, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client broke the protocol or knows no password. Its refusal is queued; send it and close."""

    reason: str


ServerEvent = Authenticated | JoinAsked | Rejected


class _ServerStep(Enum):
    NAME = "before it said which chid it wants to be"
    RECEIVERS = "before it named its receivers"
    JOINING = "while it was let in"
    OPEN = "after the handshake"
    CLOSED = "after it was refused"


class ChannelServerHandshake:
    """The server's end: one for each connection.

    :param make_chid: returns a chid that is free, for a client that brings none.
    :param sealing: when the handshake is encrypted.
    """

    __slots__ = ("_chid", "_early", "_lines", "_make_chid", "_output", "_sealing", "_step")

    def __init__(self, make_chid: Callable[[], str], sealing: ServerSealing | None = None) -> None:
        self._make_chid = make_chid
        self._sealing = sealing
        self._chid = ""
        self._lines = _Lines("client")
        self._early = EarlyData()
        self._output = bytearray(b"" if sealing is None else sealing.greeting + b"\n")
        self._step = _ServerStep.NAME

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the last line; it goes to the receivers before anything else."""
        return bytes(self._early)

    @property
    def held(self) -> int:
        """Bytes of a line that is not complete yet."""
        return len(self._lines)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[ServerEvent]:
        """Take bytes from the client, split anywhere, and return what they caused.

        :raises ProtocolError: too much payload came before the client was let in.
        """
        events: list[ServerEvent] = []
        if self._step in (_ServerStep.JOINING, _ServerStep.OPEN):
            self._early.add(data)
            return events
        if self._step is _ServerStep.CLOSED:
            return events
        self._lines.add(data)
        try:
            if self._step is _ServerStep.NAME and (line := self._lines.take(MAX_FIRST_LINE)) is not None:
                self._read_name(line, events)
            if self._step is _ServerStep.RECEIVERS and (line := self._lines.take(MAX_LINE)) is not None:
                events.append(self._read_receivers(line))
        except ProtocolError as error:
            self.refuse(str(error))
            events.append(Rejected(str(error)))
            return events
        if events and isinstance(events[-1], JoinAsked):
            self._early.add(self._lines.take_rest())
        return events

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before the handshake was done; the message says at which step.
        """
        if self._step in (_ServerStep.NAME, _ServerStep.RECEIVERS):
            raise ProtocolError(f"the client closed {self._step.value}")

    def accept(self) -> None:
        """Say that the client is in; raw bytes follow.

        :raises RuntimeError: it has not asked, or was answered already.
        """
        if self._step is not _ServerStep.JOINING:
            raise RuntimeError("accept() without a client that asked to be let in")
        self._say(_OK)
        self._step = _ServerStep.OPEN

    def refuse(self, reason: str) -> None:
        """Say no, with the reason; send it and close. Possible at each step until :meth:`accept`.

        :param reason: for the client's user; cut to :data:`MAX_REASON` characters.
        :raises RuntimeError: the handshake is over.
        """
        if self._step in (_ServerStep.OPEN, _ServerStep.CLOSED):
            raise RuntimeError("refuse() after the handshake was over")
        self._say(_encode({"desc": reason[:MAX_REASON], "result": "FAIL", "rsp": "hs4"}))
        self._lines.take_rest()
        self._step = _ServerStep.CLOSED

    def _say(self, text: bytes) -> None:
        """Queue a line: sealed once the client has proved that it can open it."""
        if self._sealing is not None and self._sealing.identity is not None:
            text = self._sealing.seal(text)
        self._output += text + b"\n"

    def _read_name(self, line: bytes, events: list[ServerEvent]) -> None:
        if self._sealing is not None:
            if line.startswith(b"{"):
                raise WrongPassword("this channel server encrypts its handshake: a handshake password is needed")
            line = self._sealing.open(line)
            events.append(Authenticated(self._sealing.identity or ""))
        request = _read_request(line, "hs1")
        if request.chid:
            _check(check_chid, request.chid)
        self._chid = request.chid or self._make_chid()
        self._say(_encode({"chid": self._chid, "rsp": "hs2"}))
        self._step = _ServerStep.RECEIVERS

    def _read_receivers(self, line: bytes) -> JoinAsked:
        if self._sealing is not None:
            line = self._sealing.open(line)
        request = _read_request(line, "hs3")
        receivers = _check(check_receivers, request.recvers or ())
        timeout = request.timeout or 0
        _check(check_timeout, timeout)
        self._step = _ServerStep.JOINING
        return JoinAsked(self._chid, receivers, float(timeout))


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The server told the salt; make the key of password and salt, in a thread, and call ``use_key``."""

    salt: bytes


@dataclass(frozen=True, slots=True)
class PasswordRefused:
    """The server does not know our password, or wants one and we have none. It closes."""

    reason: str


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """The server did not let us in. It closes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """We are in, as ``chid``; raw bytes follow, beginning with ``leftover``."""

    chid: str


ClientEvent = KeyWanted | PasswordRefused | JoinRefused | Joined


class _ClientStep(Enum):
    GREETING = "before it said how its handshake is encrypted; does it have a handshake password?"
    KEY = "while the key was made"
    NAME = "before it answered the chid"
    RESULT = "before it said whether we are in"
    OPEN = "after the handshake"
    CLOSED = "after it refused"


class ChannelClientHandshake:
    """The client's end: one for each connection.

    :param chid: who we want to be; empty leaves it to the server.
    :param receivers: who gets what we send; empty for all others.
    :param timeout: seconds without a byte either way after which the server shall close; 0 for none.
    :param sealing: when there is a handshake password.
    :raises ValueError: one of these is not possible.
    """

    __slots__ = ("_chid", "_early", "_lines", "_output", "_receivers", "_sealing", "_step", "_timeout")

    def __init__(
        self,
        chid: str = "",
        receivers: Sequence[str] = (),
        timeout: float = 0.0,
        sealing: ClientSealing | None = None,
    ) -> None:
        if chid:
            check_chid(chid)
        check_timeout(timeout)
        self._chid = chid
        self._receivers = check_receivers(receivers)
        self._timeout = math.ceil(timeout)
        self._sealing = sealing
        self._lines = _Lines("server")
        self._early = EarlyData()
        self._output = bytearray()
        self._step = _ClientStep.GREETING
        if sealing is None:
            self._ask_for_name()

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the server's last line; empty until :class:`Joined`."""
        return bytes(self._early)

    @property
    def awaits_greeting(self) -> bool:
        """True while a server that encrypts would have to speak; one that stays silent has no password."""
        return self._step is _ClientStep.GREETING

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the server, split anywhere, and return what they caused.

        After :class:`Joined`, take ``leftover`` and read from the connection itself.

        :raises ProtocolError: the server speaks something else, or too much payload came at once.
        """
        events: list[ClientEvent] = []
        if self._step is _ClientStep.OPEN:
            self._early.add(data)
            return events
        if self._step is _ClientStep.CLOSED:
            return events
        self._lines.add(data)
        waiting = (_ClientStep.GREETING, _ClientStep.NAME, _ClientStep.RESULT)
        while self._step in waiting and (line := self._lines.take(MAX_LINE)) is not None:
            self._read(line, events)
        if events and isinstance(events[-1], Joined):
            self._early.add(self._lines.take_rest())
        elif self._step is _ClientStep.KEY and len(self._lines) > MAX_LINE:
            raise ProtocolError("the channel server sent more before we could answer its greeting")
        return events

    def use_key(self, key: bytes) -> None:
        """Go on with the key that the password and the salt of :class:`KeyWanted` make.

        :raises RuntimeError: none was wanted.
        """
        if self._step is not _ClientStep.KEY or self._sealing is None:
            raise RuntimeError("use_key() without a key that was wanted")
        self._sealing.use_key(key)
        self._ask_for_name()

    def receive_eof(self) -> None:
        """Take the end of the server's bytes.

        :raises ProtocolError: it came before the handshake was done; the message says at which step.
        """
        if self._step not in (_ClientStep.OPEN, _ClientStep.CLOSED):
            raise ProtocolError(f"the channel server closed {self._step.value}")

    def _ask_for_name(self) -> None:
        self._say({"req": "hs1", "chid": self._chid})
        self._step = _ClientStep.NAME

    def _say(self, fields: dict[str, object]) -> None:
        text = _encode(fields)
        self._output += (text if self._sealing is None else self._sealing.seal(text)) + b"\n"

    def _read(self, line: bytes, events: list[ClientEvent]) -> None:
        sealed = not line.startswith(b"{")
        if sealed and self._sealing is None:
            self._close(events, PasswordRefused("the channel server encrypts its handshake: a password is needed"))
            return
        if sealed and self._sealing is not None:
            if self._step is _ClientStep.GREETING:
                events.append(KeyWanted(self._sealing.receive_greeting(line)))
                self._step = _ClientStep.KEY
                return
            line = self._sealing.open(line)
        response = _read_response(line)
        if response.rsp == "hs4" and response.result == "FAIL":
            reason = (response.desc or "the channel server gave no reason")[:MAX_REASON]
            # In the clear it answers what it could not open; anybody could have said it, and no more than close.
            plain = self._sealing is not None and not sealed and self._step is _ClientStep.NAME
            self._close(events, PasswordRefused(reason) if plain else JoinRefused(reason))
        elif sealed is (self._sealing is None):
            raise ProtocolError("the channel server answered a sealed handshake in the clear")
        elif self._step is _ClientStep.NAME and response.rsp == "hs2":
            self._chid = response.chid or self._chid
            fields: dict[str, object] = {"req": "hs3", "recvers": self._receivers}
            self._say(fields | ({"timeout": self._timeout} if self._timeout else {}))
            self._step = _ClientStep.RESULT
        elif self._step is _ClientStep.RESULT and response.rsp == "hs4" and response.result == "OK":
            self._step = _ClientStep.OPEN
            events.append(Joined(self._chid))
        else:
            raise ProtocolError("the channel server sent another answer than the one that was due")

    def _close(self, events: list[ClientEvent], event: ClientEvent) -> None:
        self._lines.take_rest()
        self._step = _ClientStep.CLOSED
        events.append(event)


def _read_request(line: bytes, due: str) -> _Request:
    try:
        request = _decode_request(line)
    except (ValueError, RecursionError):  # msgspec's errors, and UnicodeDecodeError, are ValueErrors
        raise ProtocolError(f"the {due} line is not the JSON that a channel client sends") from None
    if request.req != due:
        raise ProtocolError(f'the {due} line is something else; its "req" must be "{due}"')
    return request


def _read_response(line: bytes) -> _Response:
    try:
        response = _decode_response(line)
    except (ValueError, RecursionError):
        raise ProtocolError("the channel server's line is not the JSON that one sends; is it one?") from None
    return response


_Given = TypeVar("_Given")
_Checked = TypeVar("_Checked")


def _check(check: Callable[[_Given], _Checked], given: _Given) -> _Checked:
    """Turn a mistake of the client's into the error that is told to it."""
    try:
        return check(given)
    except ValueError as error:
        raise ProtocolError(str(error)) from None
