"""The HTTP CONNECT proxy, the server's end (RFC 9110, section 9.3.6). h11 reads the head."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

import h11

from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import parse_host_port

#: Bytes in the request line and the headers at most: what browsers and servers commonly allow.
MAX_HEAD = 16 * 1024

#: Why a head is refused, by h11's words for it. Its other words may quote a header line, which may hold a credential.
_REASONS = {
    "Missing mandatory Host: header": "an HTTP/1.1 request needs a Host header (RFC 9112, section 3.2)",
    "Found multiple Host: headers": "the request has more than one Host header (RFC 9112, section 3.2)",
}

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ConnectAsked:
    """The client wants to be connected there. Answer with ``accept`` or ``refuse``."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The client sent what is no CONNECT request. Its refusal is queued; send it and close."""

    status: int
    reason: str


Event = ConnectAsked | Refused


class _Step(Enum):
    HEAD = 1
    DIALLING = 2
    OPEN = 3
    CLOSED = 4


class HttpConnectHandshake:
    """One for each connection.

    After :class:`ConnectAsked`, whoever feeds it should stop reading until the dial is done: what arrives earlier is
    kept as :attr:`leftover`, up to ``MAX_EARLY_DATA`` bytes.
    """

    __slots__ = ("_early", "_http", "_output", "_received", "_step")

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._early = EarlyData()
        self._output = b""
        self._received = 0
        self._step = _Step.HEAD

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the head; it goes to the target before anything else."""
        return bytes(self._early)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the client, split anywhere, and return what they caused.

        :raises ProtocolError: the client speaks SOCKS, or too much payload came before the answer.
        """
        if self._step in (_Step.DIALLING, _Step.OPEN):
            self._early.add(data)
            return []
        if self._step is _Step.CLOSED or not data:
            return []
        if self._received == 0 and data[0] in (4, 5):
            raise ProtocolError(f"the client speaks SOCKS{data[0]}, this listener is an HTTP proxy")
        self._received += len(data)
        self._http.receive_data(data)
        try:
            request = self._http.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                return [self._reject_long_head()]
            return [self._reject(400, _REASONS.get(str(error), "the request is not valid HTTP/1.1"))]
        if not isinstance(request, h11.Request):
            return []
        # h11 checks the size only while the head is incomplete.
        if self._received - len(self._http.trailing_data[0]) > MAX_HEAD:
            return [self._reject_long_head()]
        return [self._read_request(request)]

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before the head was complete.
        """
        if self._step is _Step.HEAD:
            raise ProtocolError("the client closed before its HTTP request was complete")

    def accept(self) -> None:
        """Say that the target is connected; raw bytes follow.

        :raises RuntimeError: no target was asked for.
        """
        if self._step is not _Step.DIALLING:
            raise RuntimeError("accept() without a target that was asked for")
        self._output += _ESTABLISHED
        self._step = _Step.OPEN

    def refuse(self, status: int, reason: str) -> None:
        """Answer with an error; send it and close. Possible until :meth:`accept`.

        :param status: an HTTP status, 400 to 599.
        :param reason: the body, one sentence for the client's user.
        :raises RuntimeError: the handshake is over.
        """
        if self._step in (_Step.OPEN, _Step.CLOSED):
            raise RuntimeError("refuse() after the handshake was over")
        self._respond(status, reason, has_body=True)

    def _read_request(self, request: h11.Request) -> Event:
        method = request.method.decode("ascii")
        if method != "CONNECT":
            reason = f"this listener is a proxy for CONNECT only, not for {method[:20]}"
            return self._reject(405, reason, "Allow: CONNECT\r\n", has_body=method != "HEAD")
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers):
            return self._reject(400, "a CONNECT request has no body")
        try:
            host, port = parse_host_port(request.target.decode("ascii"))
        except ValueError as error:
            return self._reject(400, f"bad target: {error}")
        self._step = _Step.DIALLING
        self._early.add(self._http.trailing_data[0])
        return ConnectAsked(host, port)

    def _reject_long_head(self) -> Refused:
        return self._reject(431, f"the head of the request has more than {MAX_HEAD} bytes")

    def _reject(self, status: int, reason: str, headers: str = "", *, has_body: bool = True) -> Refused:
        self._respond(status, reason, headers, has_body=has_body)
        return Refused(status, reason)

    def _respond(self, status: int, reason: str, headers: str = "", *, has_body: bool) -> None:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Error"
        body = f"{reason}\n".encode("utf-8", "replace")
        head = (
            f"HTTP/1.1 {status} {phrase}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._output += head.encode("ascii") + (body if has_body else b"")
        self._step = _Step.CLOSED
