"""Who may come in, by address, and where a jump may lead, by name and address.

A destination is judged after its name has been resolved, so that a name cannot smuggle in an address. Patterns are
``host:port``: the host a name with wildcards (``*.example.com``), an address, a network (``10.0.0.0/8``,
``[fd00::/8]``), or ``*`` for every host; the port a number, a range (``8000-8999``), or ``*``.
"""

from __future__ import annotations

import fnmatch
import functools
import ipaddress
import time
from collections.abc import Iterable, Sequence

import psutil

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

OWN_ADDRESSES_LIFETIME = 10.0
"""Seconds the list of this host's own addresses is trusted: interfaces come and go, but not per connection."""

REMEMBERED_ADDRESSES = 1024
"""Parsed addresses remembered: a busy server dials few, and parsing one costs as much as a system call."""

_LOOPBACK: dict[int, IPAddress] = {4: ipaddress.IPv4Address("127.0.0.1"), 6: ipaddress.IPv6Address("::1")}
_LOCALHOST = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
_IPV4_INSIDE = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
"""IPv6 networks whose last 32 bits are the IPv4 address they reach: mapped (RFC 4291, section 2.5.5.2) and NAT64 (RFC
6052, section 2.1)."""

_LAST_32_BITS = 0xFFFFFFFF
_HIGHEST_PORT = 65535


class Destination:
    """One pattern of ``allow`` or ``deny``.

    :param text: as in the configuration.
    :raises ValueError: it is not a pattern; the text says how one is written.
    """

    __slots__ = ("_any_host", "_first_port", "_last_port", "_name", "_networks", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        host, colon, ports = text.rpartition(":")
        if not colon or not host or (host.count(":") and not host.startswith("[")):
            raise ValueError(f'"{text}" is not a destination; write one as "*.example.com:443" or "10.0.0.0/8:*"')
        self._first_port, self._last_port = _port_range(ports, text)
        self._any_host = host == "*"
        self._networks: tuple[IPNetwork, ...] = ()
        self._name = ""
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        try:
            self._networks = (_plain_network(host),)
        except ValueError:
            if bracketed or "/" in host or ":" in host or _is_numbers(host):
                raise ValueError(f'"{text}" does not name a network; write one as "10.0.0.0/8:*"') from None
            self._name = _plain_name(host, text)
            if self._name == "localhost":
                self._networks = _LOCALHOST

    def covers_port(self, port: int) -> bool:
        """True when ``port`` is one of the pattern's."""
        return self._first_port <= port <= self._last_port

    def names(self, host: str) -> bool:
        """True when the pattern is about names, and ``host`` is one of them."""
        return bool(self._name) and not self._any_host and fnmatch.fnmatchcase(host.lower().rstrip("."), self._name)

    def contains(self, address: IPAddress) -> bool:
        """True when the pattern is about addresses, and this is one of them."""
        if self._any_host or _is_in(address, self._networks):
            return True
        # Whoever connects to 0.0.0.0 or :: gets this host itself, so that a rule about loopback is about them too.
        return address.is_unspecified and _is_in(_LOOPBACK[address.version], self._networks)


def _is_in(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(network.version == address.version and address in network for network in networks)


def _is_numbers(host: str) -> bool:
    """True for what is meant to be an address, such as ``10.0.*`` or ``10.0.0.256``: it would match no name."""
    return set(host) <= set("0123456789.*?") and any(letter.isdigit() for letter in host)


def _plain_name(host: str, pattern: str) -> str:
    """A pattern of names as hosts are asked for: in lower case, without the last dot, beyond ASCII in IDNA form."""
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    name = name.lower().rstrip(".")
    if not name or any(letter.isspace() for letter in name):
        raise ValueError(f'"{pattern}" does not name a host; write one as "*.example.com:443"')
    return name


def _plain_network(text: str) -> IPNetwork:
    """A network in its plainest form; see :func:`plain_address`.

    :raises ValueError: it is none.
    """
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and any(network.subnet_of(outer) for outer in _IPV4_INSIDE):
        return ipaddress.IPv4Network((int(network.network_address) & _LAST_32_BITS, network.prefixlen - 96))
    return network


def _port_range(text: str, pattern: str) -> tuple[int, int]:
    if text == "*":
        return 1, _HIGHEST_PORT
    first, dash, last = text.partition("-")
    if not text.isascii() or not first.isdecimal() or (dash and not last.isdecimal()):
        raise ValueError(f'"{pattern}" has no port; end it with ":443", ":8000-8999" or ":*"')
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= _HIGHEST_PORT:
        raise ValueError(f'"{pattern}" has a port that does not exist; ports are 1 to 65535')
    return low, high


@functools.lru_cache(maxsize=REMEMBERED_ADDRESSES)
def plain_address(text: str) -> IPAddress:
    """A numeric address in its plainest form: IPv4 inside IPv6 (mapped, NAT64) counts as the IPv4 it reaches.

    :raises ValueError: it is not numeric.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if _is_in(address, _IPV4_INSIDE):
        return ipaddress.IPv4Address(int(address) & _LAST_32_BITS)
    return address


@functools.lru_cache(maxsize=REMEMBERED_ADDRESSES)
def _with_way_points(address: IPAddress) -> tuple[IPAddress, ...]:
    """The address, and those IPv4 ones through which a tunnel leads to it: 6to4 (RFC 3056), Teredo (RFC 4380).

    What lies at the end of a tunnel is not its way point: a rule that opens the one does not open the other.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    return (address, *(address.teredo or ()), *((address.sixtofour,) if address.sixtofour else ()))


def source_of(peer: str) -> str:
    """Whoever ``peer`` (numeric ``host:port``) most likely belongs to: an IPv4 address, or a whole /64 of IPv6.

    One subscriber's line has at least a /64 (RFC 6177), and may use another address of it each time.
    """
    host = peer.rpartition(":")[0]
    return _prefix_of(host) if ":" in host else host


@functools.lru_cache(maxsize=REMEMBERED_ADDRESSES)
def _prefix_of(host: str) -> str:
    address = plain_address(host.strip("[]"))
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))


class OwnAddresses:
    """This host's own addresses, read again from time to time."""

    def __init__(self) -> None:
        self._addresses: frozenset[IPAddress] = frozenset()
        self._read_at = float("-inf")

    def __contains__(self, address: IPAddress) -> bool:
        now = time.monotonic()
        if now - self._read_at > OWN_ADDRESSES_LIFETIME:
            self._addresses = frozenset(self._read())
            self._read_at = now
        return address.is_loopback or address.is_unspecified or address in self._addresses

    @staticmethod
    def _read() -> Iterable[IPAddress]:
        for addresses in psutil.net_if_addrs().values():
            for entry in addresses:
                try:
                    yield plain_address(entry.address)
                except ValueError:
                    continue  # a hardware address


class Destinations:
    """Where a jump may lead.

    ``deny`` wins. Without ``allow``, anything but this host's own addresses, link-local, multicast and reserved ones.
    Both also keep closed what is reached by a tunnel through an address that they keep closed.
    A name pattern in ``allow`` opens names, not what they may be made to point at: an address that the default would
    keep closed needs a pattern of its own (the guard against DNS rebinding).
    """

    def __init__(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._allow = [Destination(text) for text in allow]
        self._deny = [Destination(text) for text in deny]
        self._own = OwnAddresses()

    def permit(self, host: str, address_text: str, port: int) -> bool:
        """True when ``host`` (as asked for), which resolved to ``address_text``, may be dialled on ``port``."""
        address = plain_address(address_text)
        for rule in self._deny:
            if rule.covers_port(port) and (rule.names(host) or any(map(rule.contains, _with_way_points(address)))):
                return False
        if not self._allow:
            return self._ordinary(address)
        for rule in self._allow:
            if rule.covers_port(port) and (rule.contains(address) or (rule.names(host) and self._ordinary(address))):
                return True
        return False

    def _ordinary(self, address: IPAddress) -> bool:
        return not any(map(self._is_special, _with_way_points(address)))

    def _is_special(self, address: IPAddress) -> bool:
        return address in self._own or address.is_link_local or address.is_multicast or address.is_reserved


class Clients:
    """Who may connect, by network: ``deny`` wins, and an empty ``allow`` lets everybody in.

    :raises ValueError: an entry is not an address or a network.
    """

    def __init__(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._allow = [_network(text) for text in allow]
        self._deny = [_network(text) for text in deny]
        self._open = not self._allow and not self._deny

    def permit(self, peer: str) -> bool:
        """True when the peer at ``peer`` (numeric ``host:port``) may connect."""
        if self._open:
            return True
        address = plain_address(peer.rpartition(":")[0].strip("[]"))
        if _is_in(address, self._deny):
            return False
        return not self._allow or _is_in(address, self._allow)


def _network(text: str) -> IPNetwork:
    try:
        return _plain_network(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a network; write one as "192.168.0.0/16" or "2001:db8::1"') from None
