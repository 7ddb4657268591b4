"""A plain dial fails in every topology where it must: what connects there later was punched."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from natlab.lab import Lab
from natlab.nat_rules import Kind
from natlab.plain_sockets import PORTS, Fate, dial, observed, punching_port
from natlab.topologies import TOPOLOGIES, Nearness, Topology, named

pytestmark = pytest.mark.natlab

RENDEZVOUS = ("192.0.2.10", PORTS[0])

Build = Callable[[Topology], Lab]


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda topology: topology.name)
def test_a_plain_dial_reaches_only_whom_it_must(natlab: Build, topology: Topology) -> None:
    lab = natlab(topology)
    one, other = lab.clients
    with observed(lab) as observatory, ExitStack() as ports, ThreadPoolExecutor() as at_once:
        by_mapping, by_own_address = {}, {}
        for caller, called in ((one, other), (other, one)):
            mapped, own = (ports.enter_context(punching_port(called.namespace)) for _ in range(2))
            mapping = mapped.mapping(observatory, RENDEZVOUS)
            own_address = (called.address, own.port)
            by_mapping[called.name] = at_once.submit(mapped.is_reached, caller.namespace, mapping)
            by_own_address[called.name] = at_once.submit(own.is_reached, caller.namespace, own_address)
        assert {name for name, dialled in by_mapping.items() if dialled.result()} == topology.reachable
        assert {name for name, dialled in by_own_address.items() if dialled.result()} == within_reach(topology)


def within_reach(topology: Topology) -> set[str]:
    """Clients that the other one reaches by their own addresses: neighbours, and public ones without a firewall."""
    if topology.nearness is Nearness.ONE_LAN:
        return set() if topology.isolated else set(topology.clients)
    return {"a"} & topology.reachable if topology.a.kind is Kind.PUBLIC else set()


@pytest.mark.parametrize("name", ["IPv6 beside random x random, drop", "IPv6 beside random x random, reset"])
def test_a_plain_dial_to_an_ipv6_address_meets_the_firewall(natlab: Build, name: str) -> None:
    topology = named(name)
    lab = natlab(topology)
    expected = Fate.SILENT if name.endswith("drop") else Fate.REFUSED
    one, other = lab.clients
    for caller, called in ((one, other), (other, one)):
        assert called.address6 is not None
        assert dial(caller.namespace, (called.address6, 4711)) is expected


def test_names_are_used_once() -> None:
    names = [topology.name for topology in TOPOLOGIES]
    assert len(set(names)) == len(names)
