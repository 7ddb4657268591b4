"""SOCKS5, the server's end (RFC 1928): CONNECT, by name or address, without authentication."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum, IntEnum

from tunnelconsole.engine.wire.early_data import EarlyData
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import check_host

_VERSION = 5
_NO_AUTHENTICATION = 0x00
_NO_ACCEPTABLE_METHOD = 0xFF
_CONNECT = 1
_IPV4, _DOMAIN, _IPV6 = 1, 3, 4
# A TLS connection begins with a record of type "handshake" (RFC 8446, section 5.1).
_TLS_HANDSHAKE = 0x16
# What a reply names as the bound address when there is none, or nobody knows it.
_UNSPECIFIED = str(ipaddress.IPv4Address(0))


class Reply(IntEnum):
    """What the server answers to a request (RFC 1928, section 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


@dataclass(frozen=True, slots=True)
class ConnectAsked:
    """The client wants to be connected there. Answer with ``accept`` or ``refuse``."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The client asked for something that we don't do. Its refusal is queued; send it and close."""

    reason: str


Event = ConnectAsked | Refused


class _Step(Enum):
    GREETING = "before its greeting was complete"
    REQUEST = "before its request was complete"
    DIALLING = "while its target was dialled"
    OPEN = "after the handshake"
    CLOSED = "after it was refused"


class Socks5Handshake:
    """One for each connection.

    After :class:`ConnectAsked`, whoever feeds it should stop reading until the dial is done: what arrives earlier is
    kept as :attr:`leftover`, up to ``MAX_EARLY_DATA`` bytes.
    """

    __slots__ = ("_buffer", "_early", "_output", "_step")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._early = EarlyData()
        self._output = bytearray()
        self._step = _Step.GREETING

    @property
    def leftover(self) -> bytes:
        """The payload that came behind the request; it goes to the target before anything else."""
        return bytes(self._early)

    def data_to_send(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes from the client, split anywhere, and return what they caused.

        :raises ProtocolError: the client speaks something else, or too much payload came before the answer.
        """
        events: list[Event] = []
        if self._step in (_Step.DIALLING, _Step.OPEN):
            self._early.add(data)
            return events
        if self._step is _Step.CLOSED:
            return events
        self._buffer += data
        if self._step is _Step.GREETING:
            self._read_greeting(events)
        if self._step is _Step.REQUEST:
            self._read_request(events)
        return events

    def receive_eof(self) -> None:
        """Take the end of the client's bytes.

        :raises ProtocolError: it came before the request was complete; the message says at which step.
        """
        if self._step in (_Step.GREETING, _Step.REQUEST):
            raise ProtocolError(f"the client closed {self._step.value}")

    def accept(self, bound_host: str = _UNSPECIFIED, bound_port: int = 0) -> None:
        """Say that the target is connected; raw bytes follow.

        :param bound_host: the address from which the target was dialled; all zeros when nobody knows.
        :param bound_port: its port, 0 when nobody knows.
        :raises RuntimeError: no target was asked for.
        """
        if self._step is not _Step.DIALLING:
            raise RuntimeError("accept() without a target that was asked for")
        self._output += _encode_reply(Reply.SUCCEEDED, bound_host, bound_port)
        self._step = _Step.OPEN

    def refuse(self, reply: Reply) -> None:
        """Answer the request with a failure; send it and close.

        :raises RuntimeError: no target was asked for.
        """
        if self._step is not _Step.DIALLING:
            raise RuntimeError("refuse() without a target that was asked for")
        self._output += _encode_reply(reply)
        self._step = _Step.CLOSED

    def _read_greeting(self, events: list[Event]) -> None:
        buffer = self._buffer
        if not buffer:
            return
        if buffer[0] != _VERSION:
            raise ProtocolError(f"the client speaks {_name_protocol(buffer[0])}, this listener is SOCKS5")
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return
        end = 2 + buffer[1]
        methods = buffer[2:end]
        del buffer[:end]
        if _NO_AUTHENTICATION in methods:
            self._output += bytes((_VERSION, _NO_AUTHENTICATION))
            self._step = _Step.REQUEST
            return
        self._output += bytes((_VERSION, _NO_ACCEPTABLE_METHOD))
        self._close(events, "the client offers no connection without authentication, the only kind this listener has")

    def _read_request(self, events: list[Event]) -> None:
        buffer = self._buffer
        if buffer and buffer[0] != _VERSION:
            raise ProtocolError(f"the client's SOCKS5 request has version {buffer[0]}")
        if len(buffer) > 1 and buffer[1] != _CONNECT:
            reason = f"the client asked for SOCKS5 command {buffer[1]}; only CONNECT is served"
            self._reject(events, Reply.COMMAND_NOT_SUPPORTED, reason)
            return
        if len(buffer) < 5:
            return
        kind = buffer[3]
        if kind not in (_IPV4, _DOMAIN, _IPV6):
            self._reject(events, Reply.ADDRESS_TYPE_NOT_SUPPORTED, f"the client used the unknown address type {kind}")
            return
        start = 5 if kind == _DOMAIN else 4
        end = start + {_IPV4: 4, _DOMAIN: buffer[4], _IPV6: 16}[kind]
        if len(buffer) < end + 2:
            return
        address = bytes(buffer[start:end])
        port = int.from_bytes(buffer[end : end + 2], "big")
        try:
            # UnicodeDecodeError is a ValueError.
            host = check_host(address.decode("utf-8")) if kind == _DOMAIN else str(ipaddress.ip_address(address))
            if port == 0:
                raise ValueError("port 0 cannot be dialled")
        except ValueError as error:
            self._reject(events, Reply.GENERAL_FAILURE, f"the client asked for an impossible target: {error}")
            return
        self._step = _Step.DIALLING
        self._early.add(buffer[end + 2 :])
        buffer.clear()
        events.append(ConnectAsked(host, port))

    def _reject(self, events: list[Event], reply: Reply, reason: str) -> None:
        self._output += _encode_reply(reply)
        self._close(events, reason)

    def _close(self, events: list[Event], reason: str) -> None:
        self._buffer.clear()
        self._step = _Step.CLOSED
        events.append(Refused(reason))


def _encode_reply(reply: Reply, host: str = _UNSPECIFIED, port: int = 0) -> bytes:
    address = ipaddress.ip_address(host.partition("%")[0])
    kind = _IPV4 if address.version == 4 else _IPV6
    return bytes((_VERSION, reply, 0, kind)) + address.packed + port.to_bytes(2, "big")


def _name_protocol(first_byte: int) -> str:
    """Return what a connection that begins with this byte most likely speaks."""
    if first_byte == 4:
        return "SOCKS4"
    if first_byte == _TLS_HANDSHAKE:
        return "TLS"
    if chr(first_byte) in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        return "HTTP"
    return "an unknown protocol"
