"""The PROXY protocol, versions 1 and 2: what a proxy says before all else of whose bytes come behind.

https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, Literal, NamedTuple

from tunnelconsole.engine.wire.errors import ProtocolError

Version = Literal["v1", "v2"]
"""A line of text that people can read, or a binary block."""

MAX_V1: Final = 107
"""Bytes of a header of version 1 at most, its line's end included (section 2.1)."""

MAX_V2: Final = 4096
"""Bytes of a header of version 2 at most: nginx's. The protocol would allow 65,551; what proxies add to the addresses
(names, ids, certificates' subjects) takes some hundred."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_HEAD: Final = struct.Struct(">12sBBH")
_TCP4: Final = struct.Struct(">4s4sHH")
_TCP6: Final = struct.Struct(">16s16sHH")
_LOCAL, _PROXY = 0x20, 0x21
_STREAM_IPV4, _STREAM_IPV6 = 0x11, 0x21
_HIGHEST_FAMILY, _HIGHEST_TRANSPORT = 3, 2
_HIGHEST_PORT = 65535


class Endpoint(NamedTuple):
    """One end of a TCP connection."""

    host: str
    """A numeric address, without brackets and without an IPv6 scope; read off a header, IPv4 inside IPv6 is IPv4.

    That is how proxies that listen to both at once tell of IPv4."""
    port: int
    """0 where it is not known."""


class Told(NamedTuple):
    """What a header tells of the connection that the proxy took."""

    source: Endpoint | None
    """Who made it; None where the header does not say: the proxy speaks for itself, or does not know."""
    destination: Endpoint | None
    """Where to."""


_NOTHING = Told(None, None)


class ProxyHeader:
    """Reads one header, of either version."""

    __slots__ = ("_buffer", "told")

    def __init__(self) -> None:
        self._buffer = bytearray()
        #: What the header tells, once it is complete.
        self.told: Told | None = None

    @property
    def begun(self) -> bool:
        """Whether a part of a header has come."""
        return bool(self._buffer)

    def receive_data(self, data: bytes) -> int:
        """Take bytes, split anywhere; return how many of them belong to the header; once that is complete, 0.

        :raises ProtocolError: they are no header, or it is longer than :data:`MAX_V1` or :data:`MAX_V2` allow.
        """
        if self.told is not None:
            return 0
        before = len(self._buffer)
        self._buffer += data
        if _V2.startswith(self._buffer[: len(_V2)]):
            end = self._read_v2()
        elif _V1.startswith(self._buffer[: len(_V1)]):
            end = self._read_v1()
        else:
            raise ProtocolError("it did not begin with a header of the PROXY protocol")
        if not end:
            return len(data)
        del self._buffer[end:]
        return end - before

    def receive_eof(self) -> None:
        """Take the end of the proxy's bytes.

        :raises ProtocolError: it came before the header was complete.
        """
        if self.told is None:
            raise ProtocolError("it closed before its PROXY header was complete")

    def _read_v1(self) -> int:
        """Where the header ends; 0 while it is not complete."""
        line, ended, _ = self._buffer[:MAX_V1].partition(b"\n")
        if not ended:
            if len(line) >= MAX_V1:
                raise ProtocolError(f"its PROXY header has no end within {MAX_V1} bytes")
            return 0
        if not line.endswith(b"\r"):
            raise ProtocolError("its PROXY header ends in LF alone")
        self.told = _parse_v1(bytes(line[:-1]))
        return len(line) + 1

    def _read_v2(self) -> int:
        """Where the header ends; 0 while it is not complete."""
        if len(self._buffer) < _HEAD.size:
            return 0
        _, command, family, length = _HEAD.unpack_from(self._buffer)
        end: int = _HEAD.size + length
        if command not in (_LOCAL, _PROXY):
            raise ProtocolError(f"its PROXY header has version and command {command:#04x}, which do not exist")
        if family >> 4 > _HIGHEST_FAMILY or family & 0xF > _HIGHEST_TRANSPORT:
            raise ProtocolError(f"its PROXY header has address family {family:#04x}, which does not exist")
        if end > MAX_V2:
            raise ProtocolError(f"its PROXY header has {end} bytes; at most {MAX_V2} are taken")
        if len(self._buffer) < end:
            return 0
        told = _parse_v2(family, bytes(self._buffer[_HEAD.size : end]))
        self.told = told if command == _PROXY else _NOTHING
        return end


def _parse_v1(line: bytes) -> Told:
    try:
        fields = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProtocolError("its PROXY header is not ASCII") from None
    if fields[1] == "UNKNOWN":  # whatever stands behind it is to be ignored
        return _NOTHING
    if fields[1] not in ("TCP4", "TCP6") or len(fields) != 6:
        raise ProtocolError("its PROXY header is not a protocol, two addresses and two ports")
    wanted = 4 if fields[1] == "TCP4" else 6
    source, destination = (_parse_host(text, wanted) for text in fields[2:4])
    source_port, destination_port = map(_parse_port, fields[4:])
    return Told(Endpoint(source, source_port), Endpoint(destination, destination_port))


def _parse_host(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "%" in text:
        raise ProtocolError(f"its PROXY header has an address that is none of IPv{version}")
    return str(_plain(address))


def _parse_port(text: str) -> int:
    if not (text.isdecimal() and len(text) <= len(str(_HIGHEST_PORT)) and int(text) <= _HIGHEST_PORT):
        raise ProtocolError("its PROXY header has a port that is no number from 0 to 65535")
    if text != str(int(text)):
        raise ProtocolError("its PROXY header has a port that begins with 0")
    return int(text)


def _parse_v2(family: int, body: bytes) -> Told:
    """What stands behind the first 16 bytes; more than the addresses (section 2.2) is passed over."""
    if family not in (_STREAM_IPV4, _STREAM_IPV6):
        return _NOTHING
    form = _TCP4 if family == _STREAM_IPV4 else _TCP6
    if len(body) < form.size:
        raise ProtocolError(f"its PROXY header has {len(body)} bytes for two addresses that take {form.size}")
    source, destination, source_port, destination_port = form.unpack_from(body)
    return Told(
        Endpoint(str(_plain(ipaddress.ip_address(source))), source_port),
        Endpoint(str(_plain(ipaddress.ip_address(destination))), destination_port),
    )


def encode_proxy_header(version: Version, source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """Return the header for a connection.

    An IPv4 address inside IPv6 is told as IPv4. A destination of another family than the source cannot be told: in its
    place stands the unspecified address, with its port.

    :param source: who made it; None where that is not known: ``UNKNOWN`` in version 1, ``LOCAL`` in version 2, which
        every receiver has to accept.
    :param destination: where to; None where that is not known.
    :raises ValueError: a host is no address, or a port none.
    """
    if source is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else _HEAD.pack(_V2, _LOCAL, 0, 0)
    from_host = _plain(_address_of(source))
    to_host = _plain(_address_of(destination)) if destination is not None else None
    if to_host is None or to_host.version != from_host.version:
        to_host = ipaddress.ip_address("0.0.0.0" if from_host.version == 4 else "::")  # noqa: S104 - told, not bound
    to_port = destination.port if destination is not None else 0
    for port in (source.port, to_port):
        if not 0 <= port <= _HIGHEST_PORT:
            raise ValueError(f"{port} is no port")
    if version == "v1":
        return f"PROXY TCP{from_host.version} {from_host} {to_host} {source.port} {to_port}\r\n".encode("ascii")
    form, family = (_TCP4, _STREAM_IPV4) if from_host.version == 4 else (_TCP6, _STREAM_IPV6)
    head = _HEAD.pack(_V2, _PROXY, family, form.size)
    return head + form.pack(from_host.packed, to_host.packed, source.port, to_port)


def _address_of(endpoint: Endpoint) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """:raises ValueError: its host is no address."""
    return ipaddress.ip_address(endpoint.host.partition("%")[0])


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
