"""The port that is punched: every connection of a race comes from it or to it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

import psutil

from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.dialer import Address
from tunnelconsole.engine.transport.ends import tune
from tunnelconsole.engine.wire.punch_offer import Network
from tunnelconsole.errors import ConnectFailed

BACKLOG: Final = 64
"""Connections that wait to be accepted: the other side's tries, and few strangers'."""

MAX_HOSTS: Final = 6
"""Own addresses that are offered: a host has few networks, and one with hundreds of containers should name no more."""


class PunchingPort:
    """A free port of all addresses of this host, listened on, from which others are dialled.

    ``SO_REUSEPORT`` on every socket lets a listener and any number of connections share it.

    :param number: which one; 0 takes any free one.
    :raises ConnectFailed: there is none, or another program has it.
    """

    def __init__(self, number: int = 0) -> None:
        self.listeners: list[socket.socket] = []
        self.number = number
        try:
            if number:
                _make_sure_of(number)
            self.listeners.append(self._listening(socket.AF_INET))
            self.number = self.listeners[0].getsockname()[1]
            if socket.has_ipv6:
                self._add_ipv6()
        except OSError as error:
            self.close()
            which = f"port {number}" if number else "no port"
            raise ConnectFailed(
                f"{which} could {'not ' if number else ''}be taken for the punch: {error.strerror or error}"
            ) from error

    def _add_ipv6(self) -> None:
        try:
            self.listeners.append(self._listening(socket.AF_INET6))
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                raise  # else this host has no IPv6, or another program has this port of it: IPv4 must do

    def _listening(self, family: int) -> socket.socket:
        sock = bound(family, self.number)
        try:
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock

    def dialling(self, address: Address) -> socket.socket:
        """A socket from which to dial ``address``.

        :raises OSError: there cannot be one.
        """
        return bound(address.family, self.number)

    def close(self) -> None:
        """Stops listening; connections from and to it live on. Safe to call twice."""
        for sock in self.listeners:
            sock.close()


def _make_sure_of(number: int) -> None:
    """Another program of this user's that shares its port would get half of what comes to us.

    :raises OSError: there is one.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", number))


def bound(family: int, port: int) -> socket.socket:
    """A non-blocking socket bound to ``port`` of all addresses, which others may be bound to as well.

    :param port: 0 takes a free one, and shares it with nobody.
    :raises OSError: it cannot be.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sock.fileno() >= descriptors.ceiling():
            raise descriptors.exhausted()
        sock.setblocking(False)
        tune(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::" if family == socket.AF_INET6 else "", port))
    except BaseException:
        sock.close()
        raise
    return sock


def own_addresses() -> tuple[list[str], list[Network]]:
    """The addresses of this host that others may reach, IPv4 first, and the networks that it is on.

    Loopback and link-local addresses are left out.
    """
    hosts: list[str] = []
    networks: list[Network] = []
    for addresses in psutil.net_if_addrs().values():
        for entry in addresses:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            host = entry.address.partition("%")[0]
            ip = ipaddress.ip_address(host)
            if ip.is_loopback or ip.is_link_local or ip.is_unspecified:
                continue
            hosts.append(host)
            if entry.netmask:
                networks.append(_network(host, entry.netmask))
    hosts.sort(key=lambda host: ":" in host)
    return hosts[:MAX_HOSTS], networks


def _network(host: str, netmask: str) -> Network:
    """The network of an address; psutil writes an IPv6 mask as an address."""
    if ":" in netmask:
        bits = int(ipaddress.IPv6Address(netmask)).bit_count()
        return ipaddress.ip_network(f"{host}/{bits}", strict=False)
    return ipaddress.ip_network(f"{host}/{netmask}", strict=False)
