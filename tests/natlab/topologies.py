"""The networks between two clients in which punching was measured, and what a good engine reaches in each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from natlab.nat_rules import Kind, Nat, Unsolicited

LONGEST_MS = 4000.0
"""Milliseconds to the final path, in any topology and at any skew."""

SLACK = 1.3
"""How much longer than measured a median may be: another machine, and a client that does more than the sketch did."""


class Way(Enum):
    """How the two clients end up connected, and when that is settled."""

    DIRECT = "direct"
    RELAY_AT_ONCE = "relay, at once"
    RELAY_AT_DEADLINE = "relay, at the deadline"
    EITHER = "direct, or relay"
    """It is a matter of chance."""

    @property
    def is_direct(self) -> bool:
        return self is Way.DIRECT


@dataclass(frozen=True)
class Expected:
    """What a good engine reaches.

    :param median_ms: from the starting shot to the verified path, measured over 10 tries in which one client began up
        to 100 ms late; None where the deadline alone decides.
    """

    way: Way
    median_ms: float | None = None

    @property
    def most_ms(self) -> float:
        """Milliseconds that a median may take."""
        return LONGEST_MS if self.median_ms is None else self.median_ms * SLACK


class Nearness(Enum):
    """What the two clients share."""

    APART = "nothing but the internet"
    ONE_CGN = "a carrier-grade NAT"
    ONE_LAN = "a LAN"


@dataclass(frozen=True)
class Topology:
    """A network between two clients.

    :param a: the NAT box of the first client; its LAN has a second host, ``a2``.
    :param b: the NAT box of the other; without a meaning where they share a LAN.
    :param cgn_a: a carrier-grade NAT before it; shared by both where ``nearness`` says so.
    :param isolated: hosts of a LAN cannot reach each other.
    :param overlapping: both LANs have the same network, and each a stranger with the address of the other client.
    :param ipv6: clients have IPv6 addresses behind stateful firewalls.
    :param reachable: clients that a plain dial to their observed address reaches.
    """

    name: str
    a: Nat
    b: Nat
    expected: Expected
    cgn_a: Nat | None = None
    cgn_b: Nat | None = None
    nearness: Nearness = Nearness.APART
    isolated: bool = False
    overlapping: bool = False
    ipv6: bool = False
    reachable: frozenset[str] = frozenset()

    @property
    def clients(self) -> tuple[str, str]:
        """The two namespaces of clients."""
        return ("a", "a2") if self.nearness is Nearness.ONE_LAN else ("a", "b")

    @property
    def strangers(self) -> tuple[str, ...]:
        """Hosts that have the other client's address in the LAN of one."""
        return ("a2", "b2") if self.overlapping else ()


MASQUERADE = Nat(Kind.MASQUERADE)
RANDOM = Nat(Kind.RANDOM)
SEQUENTIAL = Nat(Kind.SEQUENTIAL)
PORT_NOT_KEPT = Nat(Kind.PORT_NOT_KEPT)
FULL_CONE = Nat(Kind.FULL_CONE)
ADDRESS_DEPENDENT = Nat(Kind.ADDRESS_DEPENDENT)
FORWARDED = Nat(Kind.FORWARDED)
MASQUERADE_RESET = Nat(Kind.MASQUERADE, Unsolicited.RESET)
MASQUERADE_ICMP = Nat(Kind.MASQUERADE, Unsolicited.ICMP)
MASQUERADE_KERNEL = Nat(Kind.MASQUERADE, Unsolicited.KERNEL)
PUBLIC_OPEN = Nat(Kind.PUBLIC, Unsolicited.KERNEL)
PUBLIC_FIREWALLED = Nat(Kind.PUBLIC)
NO_BARE_SYN = Nat(Kind.MASQUERADE, drops_bare_syn=True)

_AT_DEADLINE = Expected(Way.RELAY_AT_DEADLINE)


def _direct(median_ms: float) -> Expected:
    return Expected(Way.DIRECT, median_ms)


def _either(median_ms: float) -> Expected:
    return Expected(Way.EITHER, median_ms)


def _relay_at_once(median_ms: float) -> Expected:
    return Expected(Way.RELAY_AT_ONCE, median_ms)


TOPOLOGIES = (
    Topology("masquerade x masquerade, drop", MASQUERADE, MASQUERADE, _direct(132)),
    Topology("masquerade x masquerade, reset", MASQUERADE_RESET, MASQUERADE_RESET, _direct(132)),
    Topology("masquerade x masquerade, icmp", MASQUERADE_ICMP, MASQUERADE_ICMP, _direct(132)),
    Topology("masquerade x masquerade, kernel", MASQUERADE_KERNEL, MASQUERADE_KERNEL, _direct(132)),
    Topology("port not kept x port not kept", PORT_NOT_KEPT, PORT_NOT_KEPT, _direct(115)),
    Topology(
        "port not kept, reset x masquerade, kernel",
        Nat(Kind.PORT_NOT_KEPT, Unsolicited.RESET),
        MASQUERADE_KERNEL,
        _direct(115),
    ),
    Topology("public, open x masquerade", PUBLIC_OPEN, MASQUERADE, _direct(111), reachable=frozenset({"a"})),
    Topology("public, firewalled x masquerade", PUBLIC_FIREWALLED, MASQUERADE, _direct(111)),
    Topology("full cone x random", FULL_CONE, RANDOM, _direct(134), reachable=frozenset({"a"})),
    Topology("address-dependent x random", ADDRESS_DEPENDENT, RANDOM, _direct(134)),
    Topology("forwarded x random", FORWARDED, RANDOM, _direct(134), reachable=frozenset({"a"})),
    Topology("sequential x masquerade", SEQUENTIAL, MASQUERADE, _direct(120)),
    Topology("sequential x sequential", SEQUENTIAL, SEQUENTIAL, _direct(95)),
    Topology("random x masquerade", RANDOM, MASQUERADE, _direct(128)),
    # The sketches tried this one, without a figure of its own: it has that of the row above.
    # Each refusal closes a hole after one round trip, so that few of a thousand tries meet one where a side is late.
    Topology("random x masquerade, reset", Nat(Kind.RANDOM, Unsolicited.RESET), MASQUERADE_RESET, _either(128)),
    Topology("random x random", RANDOM, RANDOM, _relay_at_once(130)),
    Topology("sequential x random", SEQUENTIAL, RANDOM, _relay_at_once(130)),
    Topology("carrier-grade on both sides", MASQUERADE, MASQUERADE, _direct(119), cgn_a=MASQUERADE, cgn_b=MASQUERADE),
    Topology("carrier-grade random x masquerade", MASQUERADE, MASQUERADE, _direct(119), cgn_a=RANDOM),
    Topology(
        "carrier-grade reset x carrier-grade kernel, port not kept",
        MASQUERADE,
        MASQUERADE,
        _direct(119),
        cgn_a=MASQUERADE_RESET,
        cgn_b=Nat(Kind.PORT_NOT_KEPT, Unsolicited.KERNEL),
    ),
    Topology(
        "one carrier-grade, no hairpin",
        MASQUERADE,
        MASQUERADE,
        _AT_DEADLINE,
        cgn_a=MASQUERADE,
        nearness=Nearness.ONE_CGN,
    ),
    Topology(
        "one carrier-grade, hairpin", MASQUERADE, MASQUERADE, _direct(54), cgn_a=FULL_CONE, nearness=Nearness.ONE_CGN
    ),
    Topology("one LAN", MASQUERADE, MASQUERADE, _direct(46), nearness=Nearness.ONE_LAN),
    Topology("one LAN, isolated hosts", MASQUERADE, MASQUERADE, _AT_DEADLINE, nearness=Nearness.ONE_LAN, isolated=True),
    Topology("overlapping LANs", MASQUERADE, MASQUERADE, _direct(105), overlapping=True),
    Topology("one side drops bare SYNs", NO_BARE_SYN, MASQUERADE, _direct(1078)),
    Topology("both sides drop bare SYNs", NO_BARE_SYN, NO_BARE_SYN, _AT_DEADLINE),
    # Between these IPv4 alone would end at the relay, so that what is direct is IPv6.
    Topology("IPv6 beside random x random, drop", RANDOM, RANDOM, _direct(163), ipv6=True),
    Topology(
        "IPv6 beside random x random, reset",
        Nat(Kind.RANDOM, Unsolicited.RESET),
        Nat(Kind.RANDOM, Unsolicited.RESET),
        _direct(163),
        ipv6=True,
    ),
)


def named(name: str) -> Topology:
    """The topology with this name.

    :raises KeyError: there is none.
    """
    return {topology.name: topology for topology in TOPOLOGIES}[name]
