"""Kinds of NAT, and the nftables rules that make a Linux box behave as each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SEQUENTIAL_PORTS = range(20000, 22000)
"""Ports of a sequential NAT; it begins again after the last."""

FORWARDED_PORTS = "1024-65535"
"""Ports of the public address that a forwarding NAT gives to its first host."""

MAPPING_TIME = 300
"""Seconds that a cone remembers a mapping: longer than any test."""


class Kind(Enum):
    """How a NAT maps a connection from inside to a public address and port."""

    PUBLIC = "public"
    """No NAT: hosts have public addresses, behind a firewall or none."""
    MASQUERADE = "masquerade"
    """Keeps the port while it is free: the same for all destinations. Lets in what belongs to a connection."""
    PORT_NOT_KEPT = "port not kept"
    """The same mapping for all destinations, with another port than the host's own."""
    RANDOM = "random"
    """Another random port for each destination (symmetric)."""
    SEQUENTIAL = "sequential"
    """The next port for each new connection."""
    FULL_CONE = "full cone"
    """Keeps the port, and lets anyone in to a mapped one; also from inside (hairpin)."""
    ADDRESS_DEPENDENT = "address-dependent"
    """Keeps the port, and lets in to a mapped one any port of an address that was dialled from it."""
    FORWARDED = "forwarded"
    """Keeps the port, and gives every port to the first host, as a port forwarding or UPnP does; hairpin too."""


class Unsolicited(Enum):
    """What a SYN gets that nobody asked for."""

    DROP = "drop"
    RESET = "reset"
    ICMP = "icmp"
    KERNEL = "kernel"
    """No filter: the box's own kernel answers, with RST, as nobody listens there."""


@dataclass(frozen=True)
class Nat:
    """A NAT box.

    :param drops_bare_syn: even one that belongs to a mapping; so it never takes part in a simultaneous open that begins
        outside.
    """

    kind: Kind
    unsolicited: Unsolicited = Unsolicited.DROP
    drops_bare_syn: bool = False


@dataclass(frozen=True)
class Place:
    """Where a NAT box stands.

    :param address: its public IPv4 address.
    :param inside: its network, as ``10.1.0.0/24``.
    :param first_host: the address of the host that ports are forwarded to.
    """

    address: str
    inside: str
    first_host: str
    wan: str = "wan"
    lan: str = "br0"


_PLAIN = "masquerade"

_MASQUERADE = {
    Kind.MASQUERADE: _PLAIN,
    Kind.PORT_NOT_KEPT: "masquerade to :10000-30000",
    Kind.RANDOM: "masquerade fully-random",
    # The map is needed: a bare numgen has the wrong byte order.
    Kind.SEQUENTIAL: "masquerade to :numgen inc mod {} map {{ {} }}".format(
        len(SEQUENTIAL_PORTS), ", ".join(f"{index} : {port}" for index, port in enumerate(SEQUENTIAL_PORTS))
    ),
    Kind.FULL_CONE: _PLAIN,
    Kind.ADDRESS_DEPENDENT: _PLAIN,
    Kind.FORWARDED: _PLAIN,
}

_ACTION = {
    Unsolicited.DROP: "drop",
    Unsolicited.RESET: "meta l4proto tcp reject with tcp reset",
    Unsolicited.ICMP: "reject with {icmp} type port-unreachable",
    Unsolicited.KERNEL: "accept",
}

_BARE_SYN = "tcp flags & (syn | ack) == syn"


@dataclass(frozen=True)
class _Cone:
    """How mappings are learned from outgoing SYNs, and what a SYN from outside is looked up by."""

    kind: str
    learned: str
    looked_up: str


_CONES = {
    Kind.FULL_CONE: _Cone("inet_service", "tcp sport", "tcp dport"),
    Kind.ADDRESS_DEPENDENT: _Cone("ipv4_addr . inet_service", "ip daddr . tcp sport", "ip saddr . tcp dport"),
}


def rules(nat: Nat, place: Place) -> str:
    """The nftables file of a NAT box: the NAT and filter of IPv4, and the stateful firewall of IPv6."""
    action = _ACTION[nat.unsolicited]
    wan = f'iifname "{place.wan}"'
    lets_in = []
    if nat.kind in {*_CONES, Kind.FORWARDED}:
        lets_in = ["ct status dnat accept"]
    elif nat.kind is Kind.PUBLIC and nat.unsolicited is Unsolicited.KERNEL:
        lets_in = ["accept"]
    forward = [
        *([f"{wan} {_BARE_SYN} drop"] if nat.drops_bare_syn else []),
        "ct state established,related accept",
        *lets_in,
        f"{wan} {action.format(icmp='icmp')}",
    ]
    own = [
        f"{wan} ct state established,related accept",
        f"{wan} ip protocol icmp accept",
        f"{wan} {action.format(icmp='icmp')}",
    ]
    forward6 = [
        "ct state established,related accept",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, echo-request } accept",
        f"{wan} {action.format(icmp='icmpv6')}",
    ]
    return "\n".join(
        [
            "table ip nat_box {",
            *_translation(nat, place),
            _chain("own", "filter hook input priority 0", own),
            _chain("forwarded", "filter hook forward priority 0", forward),
            "}",
            "table ip6 nat_box {",
            _chain("forwarded", "filter hook forward priority 0", forward6),
            "}",
        ]
    )


def _translation(nat: Nat, place: Place) -> list[str]:
    """The map, if any, and the chains that change addresses."""
    if nat.kind is Kind.PUBLIC:
        return []
    out = f'oifname "{place.wan}"'
    hairpin = [f'oifname "{place.lan}" ip saddr {place.inside} ct status dnat snat to {place.address}']
    declared: list[str] = []
    before: list[str] = []
    after = [f"{out} ip protocol tcp {_MASQUERADE[nat.kind]}", f"{out} masquerade"]
    if cone := _CONES.get(nat.kind):
        declared = [f"map cone {{ type {cone.kind} : ipv4_addr; flags dynamic,timeout; timeout {MAPPING_TIME}s; }}"]
        before = [f"ip daddr {place.address} dnat to {cone.looked_up} map @cone"]
        after = [*hairpin, f"{out} {_BARE_SYN} update @cone {{ {cone.learned} : ip saddr }}", *after]
    elif nat.kind is Kind.FORWARDED:
        before = [f"ip daddr {place.address} tcp dport {FORWARDED_PORTS} dnat to {place.first_host}"]
        after = [*hairpin, *after]
    return [
        *declared,
        _chain("before", "nat hook prerouting priority -100", before),
        _chain("after", "nat hook postrouting priority 100", after),
    ]


def _chain(name: str, hook: str, lines: list[str]) -> str:
    return f"chain {name} {{ type {hook};\n" + "".join(f"  {line};\n" for line in lines) + "}"
