"""Each kind of NAT, and each filter, behaves as its name says; seen with plain sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from natlab.lab import Lab
from natlab.nat_rules import SEQUENTIAL_PORTS, Kind, Nat, Unsolicited
from natlab.plain_sockets import PORTS, SILENCE, Address, Fate, Observatory, dial, dialled_from, observed, punching_port
from natlab.topologies import MASQUERADE, Expected, Topology, Way, named

pytestmark = pytest.mark.natlab

FIRST, OTHER_PORT, OTHER_ADDRESS = (
    ("192.0.2.10", PORTS[0]),
    ("192.0.2.10", PORTS[1]),
    ("192.0.2.11", PORTS[0]),
)
"""Where a mapping is observed; only the first is contacted before filters are tried."""

UNREACHABLE = 3
PORT_UNREACHABLE = 3
"""Type and code of an ICMP message."""

Build = Callable[[Topology], Lab]


def behind(nat: Nat) -> Topology:
    """A topology whose first client is behind this box."""
    return Topology(f"{nat.kind.value}, {nat.unsolicited.value}", nat, MASQUERADE, Expected(Way.DIRECT))


def mappings(lab: Lab) -> tuple[int, list[Address]]:
    """A client's port, and how it is seen at three of the rendezvous's addresses, in turn."""
    with observed(lab) as observatory, punching_port(lab.hosts["a"].namespace) as port:
        return port.port, [port.mapping(observatory, at) for at in (FIRST, OTHER_PORT, OTHER_ADDRESS)]


@pytest.mark.parametrize("kind", [Kind.MASQUERADE, Kind.FULL_CONE, Kind.ADDRESS_DEPENDENT, Kind.FORWARDED])
def test_it_keeps_the_port_for_every_destination(natlab: Build, kind: Kind) -> None:
    port, seen = mappings(natlab(behind(Nat(kind))))
    assert seen == [("198.51.100.2", port)] * 3


def test_public_hosts_are_seen_as_they_are(natlab: Build) -> None:
    lab = natlab(behind(Nat(Kind.PUBLIC)))
    port, seen = mappings(lab)
    assert seen == [(lab.hosts["a"].address, port)] * 3


def test_it_has_another_port_and_the_same_for_every_destination(natlab: Build) -> None:
    port, seen = mappings(natlab(behind(Nat(Kind.PORT_NOT_KEPT))))
    assert len(set(seen)) == 1
    assert seen[0][1] != port


def test_a_random_one_has_another_port_for_every_destination(natlab: Build) -> None:
    port, seen = mappings(natlab(behind(Nat(Kind.RANDOM))))
    ports = [port, *(mapped for _, mapped in seen)]
    assert len(set(ports)) == 4


def test_a_sequential_one_has_the_next_port_for_every_destination(natlab: Build) -> None:
    _, seen = mappings(natlab(behind(Nat(Kind.SEQUENTIAL))))
    assert [port for _, port in seen] == list(SEQUENTIAL_PORTS[:3])


def test_behind_two_boxes_the_outer_one_is_seen(natlab: Build) -> None:
    port, seen = mappings(natlab(named("carrier-grade on both sides")))
    assert seen == [("198.51.100.2", port)] * 3


LETS_IN = {
    Kind.MASQUERADE: (False, False),
    Kind.PORT_NOT_KEPT: (False, False),
    Kind.RANDOM: (False, False),
    Kind.SEQUENTIAL: (False, False),
    Kind.FULL_CONE: (True, True),
    Kind.ADDRESS_DEPENDENT: (False, True),
    Kind.FORWARDED: (True, True),
    Kind.PUBLIC: (False, False),
}
"""Whether a mapped port can be reached from an address, and from a port of a known address, that was never dialled."""


@pytest.mark.parametrize("kind", Kind)
def test_it_lets_in_whom_its_kind_lets_in(natlab: Build, kind: Kind) -> None:
    lab = natlab(behind(Nat(kind)))
    with observed(lab) as observatory, punching_port(lab.hosts["a"].namespace) as port:
        mapped = port.mapping(observatory, FIRST)
        fates = [dial(lab.srv, mapped, source=(host, 0)) for host in (OTHER_ADDRESS[0], FIRST[0])]
    assert tuple(fate is Fate.CONNECTED for fate in fates) == LETS_IN[kind]
    assert set(fates) <= {Fate.CONNECTED, Fate.SILENT}


@pytest.mark.parametrize(
    ("unsolicited", "fate", "by_icmp"),
    [
        (Unsolicited.DROP, Fate.SILENT, False),
        (Unsolicited.RESET, Fate.REFUSED, False),
        (Unsolicited.ICMP, Fate.REFUSED, True),
        (Unsolicited.KERNEL, Fate.REFUSED, False),
    ],
)
def test_who_is_not_asked_for_gets_what_the_filter_says(
    natlab: Build, unsolicited: Unsolicited, fate: Fate, by_icmp: bool
) -> None:
    lab = natlab(behind(Nat(Kind.MASQUERADE, unsolicited)))
    with (
        lab.srv.socket(kind=socket.SOCK_RAW, protocol=socket.IPPROTO_ICMP) as errors,
        observed(lab) as observatory,
        punching_port(lab.hosts["a"].namespace) as port,
    ):
        mapped = port.mapping(observatory, FIRST)
        assert dial(lab.srv, mapped, source=(OTHER_ADDRESS[0], 0)) is fate
        assert told_by_icmp(errors) == by_icmp


def told_by_icmp(errors: socket.socket) -> bool:
    """Whether a raw socket has got the message that a port cannot be reached."""
    errors.setblocking(False)
    try:
        packet = errors.recv(2048)
    except BlockingIOError:
        return False
    head = (packet[0] & 15) * 4
    return (packet[head], packet[head + 1]) == (UNREACHABLE, PORT_UNREACHABLE)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.PUBLIC])
def test_only_boxes_with_hairpin_let_a_neighbour_in_by_the_public_address(natlab: Build, kind: Kind) -> None:
    lab = natlab(behind(Nat(kind)))
    with observed(lab) as observatory, punching_port(lab.hosts["a"].namespace) as port:
        mapped = port.mapping(observatory, FIRST)
        fate = dial(lab.hosts["a2"].namespace, mapped)
    assert (fate is Fate.CONNECTED) == (kind in {Kind.FULL_CONE, Kind.FORWARDED})


@pytest.mark.parametrize("drops", [False, True])
def test_crossing_syns_connect_unless_bare_ones_are_dropped(natlab: Build, drops: bool) -> None:
    box = Nat(Kind.MASQUERADE, drops_bare_syn=drops)
    lab = natlab(Topology("crossing", box, box, Expected(Way.DIRECT)))
    with observed(lab) as observatory:
        assert cross(lab, observatory) == (not drops)


def cross(lab: Lab, observatory: Observatory) -> bool:
    """Lets both clients dial each other's mapping at the same time, each from the port that has this mapping."""
    with ExitStack() as sockets:
        dialling, mapped = [], []
        for host in lab.clients:
            port = sockets.enter_context(dialled_from(host.namespace, 0))
            port.connect(FIRST)
            mapped.append(observatory.sees(FIRST))
            dialling.append(sockets.enter_context(dialled_from(host.namespace, port.getsockname()[1])))
        one, other = dialling
        one.setblocking(False)
        one.connect_ex(mapped[1])
        other.settimeout(SILENCE)
        try:
            other.connect(mapped[0])
        except TimeoutError:
            return False
        return True
