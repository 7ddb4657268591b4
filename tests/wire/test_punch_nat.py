"""What observations say of a NAT, and what follows from two of them for a race."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.punch import Probed, Reached
from tunnelconsole.engine.wire.punch_nat import (
    MANY_PORTS,
    MANY_SOCKETS,
    MAX_STRIDE,
    WINDOW,
    WINDOW_BOTH,
    Filtering,
    Mapping,
    Nat,
    Plan,
    classify,
    filtering_of,
    plan,
)

LOCAL = ("10.1.0.2", 40000)
ALL = [Nat(mapping=mapping, filtering=filtering) for mapping in Mapping for filtering in Filtering]

Seen = tuple[str, int] | None


def out(port: int, host: str = "198.51.100.2") -> Seen:
    """Where an observer sees us."""
    return host, port


@pytest.mark.parametrize(
    ("mapped", "mapping", "keeps_port"),
    [
        ([], Mapping.UNKNOWN, False),
        ([None, None, None], Mapping.UNKNOWN, False),
        ([LOCAL] * 3, Mapping.NONE, True),
        ([LOCAL], Mapping.NONE, True),
        ([out(40000)], Mapping.UNKNOWN, True),
        ([out(20000), None, None], Mapping.UNKNOWN, False),
        ([out(40000)] * 3, Mapping.INDEPENDENT, True),
        ([out(20000)] * 3, Mapping.INDEPENDENT, False),
        ([out(20000), None, out(20000)], Mapping.INDEPENDENT, False),
        ([out(20000), out(20001), out(20002)], Mapping.SEQUENTIAL, False),
        ([out(20000), out(20000 + MAX_STRIDE), out(20000 + 2 * MAX_STRIDE)], Mapping.SEQUENTIAL, False),
        ([out(20000), None, out(20002)], Mapping.SEQUENTIAL, False),
        ([out(20000), out(20001 + MAX_STRIDE)], Mapping.RANDOM, False),
        ([out(20002), out(20001), out(20000)], Mapping.RANDOM, False),
        ([out(20000), out(20000), out(20001)], Mapping.RANDOM, False),
        ([out(51234), out(20871), out(33333)], Mapping.RANDOM, False),
        ([out(20000), out(20001, "198.51.100.3")], Mapping.RANDOM, False),
    ],
)
def test_a_mapping_is_what_the_observers_saw(mapped: list[Seen], mapping: Mapping, keeps_port: bool) -> None:
    nat = classify(LOCAL, mapped)
    assert (nat.mapping, nat.keeps_port) == (mapping, keeps_port)


@pytest.mark.parametrize(
    ("other_address", "other_port", "filtering", "refuses"),
    [
        (Reached.OPEN, Reached.OPEN, Filtering.OPEN, False),
        (Reached.OPEN, Reached.SILENT, Filtering.OPEN, False),
        (Reached.SILENT, Reached.OPEN, Filtering.ADDRESS, False),
        (Reached.REFUSED, Reached.OPEN, Filtering.ADDRESS, True),
        (Reached.UNTRIED, Reached.OPEN, Filtering.ADDRESS, False),
        (Reached.SILENT, Reached.SILENT, Filtering.PORT, False),
        (Reached.REFUSED, Reached.REFUSED, Filtering.PORT, True),
        (Reached.UNTRIED, Reached.SILENT, Filtering.PORT, False),
        (Reached.UNTRIED, Reached.UNTRIED, Filtering.UNKNOWN, False),
    ],
)
def test_a_filter_is_what_strangers_met(
    other_address: Reached, other_port: Reached, filtering: Filtering, refuses: bool
) -> None:
    assert filtering_of(Probed(other_address=other_address, other_port=other_port)) == (filtering, refuses)


def test_a_filter_that_nobody_tried_is_not_known() -> None:
    assert filtering_of(None) == (Filtering.UNKNOWN, False)


INDEPENDENT = Nat(mapping=Mapping.INDEPENDENT, filtering=Filtering.PORT)
CONE = Nat(mapping=Mapping.INDEPENDENT, filtering=Filtering.OPEN)
BY_ADDRESS = Nat(mapping=Mapping.INDEPENDENT, filtering=Filtering.ADDRESS)
SEQUENTIAL = Nat(mapping=Mapping.SEQUENTIAL, filtering=Filtering.PORT)
RANDOM = Nat(mapping=Mapping.RANDOM, filtering=Filtering.PORT)
PUBLIC = Nat(mapping=Mapping.NONE, filtering=Filtering.OPEN)
FIREWALLED = Nat(mapping=Mapping.NONE, filtering=Filtering.PORT)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (INDEPENDENT, INDEPENDENT, Plan()),
        (PUBLIC, INDEPENDENT, Plan()),
        (FIREWALLED, INDEPENDENT, Plan()),
        (CONE, RANDOM, Plan()),
        (RANDOM, CONE, Plan()),
        (BY_ADDRESS, RANDOM, Plan()),
        (RANDOM, BY_ADDRESS, Plan()),
        (INDEPENDENT, SEQUENTIAL, Plan(ahead=WINDOW)),
        (SEQUENTIAL, INDEPENDENT, Plan(hosts=False)),
        (SEQUENTIAL, SEQUENTIAL, Plan(hosts=False, mapped=False, ahead=WINDOW_BOTH)),
        (INDEPENDENT, RANDOM, Plan(many_ports=MANY_PORTS)),
        (FIREWALLED, RANDOM, Plan(many_ports=MANY_PORTS)),
        (RANDOM, INDEPENDENT, Plan(hosts=False, many_sockets=MANY_SOCKETS)),
    ],
)
def test_a_plan_follows_from_both_kinds(ours: Nat, theirs: Nat, expected: Plan) -> None:
    assert plan(ours, theirs) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (RANDOM, RANDOM, "both NATs pick random ports"),
        (RANDOM, SEQUENTIAL, "one NAT picks random ports, and the other's ports change too"),
        (SEQUENTIAL, RANDOM, "one NAT picks random ports, and the other's ports change too"),
    ],
)
def test_where_nobody_can_know_a_port_there_is_no_race(ours: Nat, theirs: Nat, words: str) -> None:
    assert plan(ours, theirs).hopeless == words


def test_behind_one_nat_of_random_ports_the_hosts_own_addresses_are_still_tried() -> None:
    assert plan(RANDOM, RANDOM, same_network=True) == Plan(mapped=False)


@given(st.sampled_from(ALL), st.sampled_from(ALL), st.booleans())
def test_both_ends_agree_whether_there_is_a_race(ours: Nat, theirs: Nat, same_network: bool) -> None:
    one = plan(ours, theirs, same_network=same_network)
    other = plan(theirs, ours, same_network=same_network)
    assert one.hopeless == other.hopeless


@given(st.sampled_from(ALL), st.sampled_from(ALL), st.booleans())
def test_many_ports_meet_many_sockets_and_never_both_at_one_end(ours: Nat, theirs: Nat, same_network: bool) -> None:
    one = plan(ours, theirs, same_network=same_network)
    other = plan(theirs, ours, same_network=same_network)
    assert bool(one.many_ports) == bool(other.many_sockets)
    assert not (one.many_ports and one.many_sockets)


@given(st.sampled_from(ALL), st.sampled_from(ALL), st.booleans())
def test_a_race_tries_something(ours: Nat, theirs: Nat, same_network: bool) -> None:
    made = plan(ours, theirs, same_network=same_network)
    tries = made.mapped or made.ahead or made.many_ports or made.many_sockets or made.hosts
    assert made.hopeless or tries


@pytest.mark.parametrize("nat", ALL)
def test_each_kind_has_words_for_its_user(nat: Nat) -> None:
    mapping, _, filtering = str(nat).partition("; ")
    assert "NAT" in mapping
    assert bool(filtering) is (nat.filtering is not Filtering.UNKNOWN)
    assert nat.prospects()
