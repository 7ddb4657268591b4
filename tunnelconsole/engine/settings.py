"""The types that settings are made of, each able to read itself from the text in the configuration."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Self

import msgspec

from tunnelconsole.engine.access import Clients, Destination
from tunnelconsole.engine.transport.tls import plain_fingerprint
from tunnelconsole.engine.wire.hostport import check_host, format_host_port, parse_host_port
from tunnelconsole.engine.wire.ssh_url import DEFAULT_PORT, begins_with_ssh, format_ssh_url, parse_ssh_url

MAX_PORTS = 65535
"""Ports there are."""

DEFAULT_DRAIN = 30.0
"""Seconds channels may take to finish when the engine stops or a service's settings change."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
"""One part of a host's name (RFC 1123, section 2.1), with the underscore that many have all the same."""


def check_own_host(text: str) -> None:
    """Accepts a name or an IP address, without brackets, that this machine may have.

    Nothing is looked up: whether the machine has it shows when it is listened on.

    :raises ValueError: no machine can have it; the text says why.
    """
    if ":" in text:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a host; it takes no scheme, no brackets and no port") from None
    try:
        name = check_host(text)
    except ValueError as error:
        raise ValueError(str(error).removesuffix("; expected host:port")) from None
    if ":" in name:
        return
    if set(name) <= set("0123456789."):
        try:
            socket.inet_aton(name)
        except OSError:
            raise ValueError(f"{text!r} is not an IPv4 address, which has four numbers from 0 to 255") from None
    elif not all(_LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        raise ValueError(f"{text!r} is not a host name, which has letters, digits and dashes between its dots")


class Secret(str):
    """A secret; its ``repr`` hides it, so that no error text or log line can show it by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


class FilePath(str):
    """A file or folder as written; relative ones start at the configuration file's folder."""

    __slots__ = ()

    def resolve(self, base: Path) -> FilePath:
        """The same file as an absolute path."""
        return FilePath(base / Path(self).expanduser())


class HostPort(msgspec.Struct, frozen=True):
    """An address to dial, ``host:port``; IPv6 in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_host_port(self.host, self.port)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``host:port``.

        :raises ValueError: it is not that; the text says what is wrong.
        """
        return cls(*parse_host_port(text))


class SSHHost(msgspec.Struct, frozen=True):
    """A host with an SSH server, through which a server is reached: ``ssh://ops@gate.example.net:22``."""

    host: str
    port: int
    user: str = ""
    """Empty for the local user's name, as OpenSSH has it."""

    def __str__(self) -> str:
        return format_ssh_url(self.user, self.host, self.port)

    @property
    def address(self) -> str:
        """Where its SSH server is, ``host:port``."""
        return format_host_port(self.host, self.port)


def split_ssh(text: str) -> tuple[SSHHost | None, str]:
    """The SSH host through which ``text`` leads, None where it leads through none, and the server as seen from there.

    :raises ValueError: it begins with ``ssh://`` and is not right; the text says what is wrong.
    """
    if not begins_with_ssh(text):
        return None, text
    url = parse_ssh_url(text)
    host = SSHHost(url.host, url.port or DEFAULT_PORT, url.user)
    if not url.behind:
        raise ValueError(f"names no server behind {host}; write {host}/SERVER, as SERVER is called at that host")
    if begins_with_ssh(url.behind):
        raise ValueError("goes through one SSH host, not through several")
    return host, url.behind


class ServerAddress(HostPort, frozen=True):
    """Where a server is: ``host:port``, or ``ssh://user@host:port/host:port`` through an SSH host."""

    via: SSHHost | None = None
    """The SSH host from which it is dialled, and which looks its name up; None where it is dialled from here."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an address, with or without an SSH host before it.

        :raises ValueError: it is not that; the text says what is wrong.
        """
        via, server = split_ssh(text)
        if via is not None and "/" in server:
            raise ValueError(f"{server!r} has a path behind it; after {via}/ comes host:port and nothing else")
        return cls(*parse_host_port(server), via)


class RendezvousAddress(HostPort, frozen=True):
    """Where a punch server is; it has to see us as others on the internet do, so nothing may stand in between."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``host:port``.

        :raises ValueError: it is not that; the text says what is wrong.
        """
        if begins_with_ssh(text):
            raise ValueError("a rendezvous is not reached through ssh://: it has to see our NAT, not the SSH host's")
        return cls(*parse_host_port(text))


def via_of(address: HostPort) -> SSHHost | None:
    """The SSH host through which an address is reached; None for none."""
    return address.via if isinstance(address, ServerAddress) else None


class ListenAddress(msgspec.Struct, frozen=True):
    """An address to listen on, ``host:port``; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_host_port(self.host, self.port)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``host:port``, where the port may be 0.

        :raises ValueError: it is not that, or no machine can have that host; the text says what is wrong.
        """
        any_port = text.endswith(":0")
        host, port = parse_host_port(text[:-1] + "1" if any_port else text)
        check_own_host(host)
        return cls(host, 0 if any_port else port)


class PortRange(msgspec.Struct, frozen=True):
    """Public ports, ``"7001-7020"``, ``"7001"``, or ``"0"`` for any free ones (first and last are 0 then)."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a range.

        :raises ValueError: it is not one; the text says how one is written.
        """
        first, dash, last = text.partition("-")
        if not text.isascii() or not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f'"{text}" is not a range of ports; write one as "7001-7020", or "0" for any free ones')
        low, high = int(first), int(last or first)
        if low == high == 0:
            return cls(0, 0)
        if not 1 <= low <= high <= MAX_PORTS:
            raise ValueError(f'"{text}" is not a range of ports; the first is at least 1, the last at most 65535')
        return cls(low, high)


class DestinationPattern(str):
    """One entry of ``allow`` or ``deny`` of a jump server, such as ``*.example.com:443``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Checks the pattern; see :class:`tunnelconsole.engine.access.Destination`.

        :raises ValueError: it is not one.
        """
        Destination(text)
        return cls(text)


class NetworkPattern(str):
    """One entry of ``clients_allow`` or ``clients_deny``: an address or a network in CIDR form."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Checks the network.

        :raises ValueError: it is not one.
        """
        Clients([text], [])
        return cls(text)


class ProxyNetwork(NetworkPattern):
    """One entry of ``proxy_protocol_from``: an address or a network of proxies, but not the whole internet."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Checks the network.

        :raises ValueError: it is not one, or everybody is in it.
        """
        network = super().parse(text)
        if text.endswith("/0"):
            raise ValueError(f'"{text}" would let everybody say to be anybody; name the addresses of your proxies')
        return network


class Fingerprint(str):
    """The SHA-256 of a certificate, as 64 lower-case hex digits; written with or without colons."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a fingerprint.

        :raises ValueError: it is not one.
        """
        return cls(plain_fingerprint(text))


class TLSSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.tls]``: its presence turns TLS on.

    A server without a certificate makes itself one, once; its fingerprint is in the log and in ``services``.
    """

    certificate: FilePath | None = None
    """A server's PEM file with its certificate chain, or a client's for a server that wants one."""
    key: FilePath | None = None
    """The PEM file with the private key to that."""
    ca: FilePath | None = None
    """A client's PEM file with the authorities to trust; the system's when unset."""
    fingerprint: Fingerprint | None = None
    """Pins the server's certificate for a client; no authority is asked then."""
    client_ca: FilePath | None = None
    """A server's PEM file with the authorities that sign for its clients, who then have to bring a certificate."""
    client_keys: dict[str, Fingerprint] | None = None
    """Public keys (the SHA-256 of the SubjectPublicKeyInfo) of clients that need no authority, by identity."""

    @property
    def asks_clients(self) -> bool:
        """Whether clients have to bring a certificate."""
        return self.client_ca is not None or self.client_keys is not None


class SSHSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.ssh]``: how a client proves itself to the SSH host in its ``ssh://``, and knows it."""

    identity: FilePath | None = None
    """The private key; those of the agent and of ``~/.ssh`` when unset."""
    passphrase: Secret | None = None
    """What the private key is encrypted with."""
    known_hosts: FilePath | None = None
    """The keys of hosts, as OpenSSH keeps them; ``~/.ssh/known_hosts`` and ``/etc/ssh/ssh_known_hosts`` when unset."""
