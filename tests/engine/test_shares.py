"""What each address and each identity has: nobody takes all, and little is remembered of those who have nothing."""

from __future__ import annotations

import gc
import heapq
from typing import Any
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnelconsole.engine import shares as shares_module
from tunnelconsole.engine.identities import ANONYMOUS, Identity, holder_of
from tunnelconsole.engine.limits import Gate, LimitSettings
from tunnelconsole.engine.shares import REMEMBERED, Lately, Shares
from tunnelconsole.engine.transport.pacing import Pace, together
from tunnelconsole.engine.units import Rate

SECONDS = 5.0
"""Over which a rate is to be kept."""

TOLERANCE = 0.05
"""By how much it may be missed then."""


def gate(**limits: Any) -> Gate:
    return Gate(LimitSettings(**limits), lambda: (0, 0))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"sessions_per_address": 1}, "the limit of 1 sessions for each address is reached"),
        ({"channels_per_address": 1}, "the limit of 1 channels for each address is reached"),
        ({"sessions_per_identity": 1}, "the limit of 1 sessions for each identity is reached"),
        ({"channels_per_identity": 1}, "the limit of 1 channels for each identity is reached"),
    ],
)
def test_who_has_as_much_as_each_may_have_gets_no_more_and_others_do(limits: dict[str, int], reason: str) -> None:
    made = gate(**limits)
    made.count_session("192.0.2.1:1", "alice", 1)
    made.count_channel("192.0.2.1:1", "alice", 1)
    assert made.refuses_to("192.0.2.1:2", "alice", new_session=True, new_channel=True) == reason
    assert not made.refuses_to("192.0.2.2:1", "bob", new_session=True, new_channel=True)
    made.count_session("192.0.2.1:1", "alice", -1)
    made.count_channel("192.0.2.1:1", "alice", -1)
    assert not made.refuses_to("192.0.2.1:2", "alice", new_session=True, new_channel=True)


def test_one_network_of_ipv6_is_one_address() -> None:
    made = gate(sessions_per_address=1)
    made.count_session("[2001:db8::1]:1", "", 1)
    assert made.refuses_to("[2001:db8::2]:1", "", new_session=True, new_channel=False)
    assert not made.refuses_to("[2001:db8:0:1::1]:1", "", new_session=True, new_channel=False)


def test_those_who_have_proved_nothing_are_no_identity() -> None:
    made = gate(sessions_per_identity=1)
    made.count_session("192.0.2.1:1", "", 1)
    assert not made.refuses_to("192.0.2.1:1", "", new_session=True, new_channel=False)


def test_nothing_is_remembered_of_those_who_have_gone() -> None:
    shares = Shares("address", 1, 1, 1000.0)
    for number in range(1000):
        shares.count_sessions(str(number), 1)
        shares.count_channels(str(number), 1)
        shares.count_sessions(str(number), -1)
        shares.count_channels(str(number), -1)
    assert (len(shares._sessions), len(shares._channels)) == (0, 0)


@pytest.mark.parametrize("what", ["sessions", "channels"])
def test_a_rate_that_was_held_for_long_is_remembered_from_when_it_was_let_go(what: str) -> None:
    now = 0.0
    shares = Shares("address", 0, 0, 1000.0, lambda: now)
    count = getattr(shares, f"count_{what}")
    held = shares.pace("alice")
    assert held is not None
    count("alice", 1)
    now = 10 * REMEMBERED
    shares.pace("bob")
    count("alice", -1)
    was = ref(held)
    del held
    now += REMEMBERED / 2
    assert was() is not None
    assert shares.pace("alice") is was()


def test_who_comes_anew_each_time_has_the_same_rate_and_is_forgotten_after_a_while() -> None:
    now = 0.0
    paces = Lately(lambda: Pace(1000.0), lambda: now)
    waited = []
    for _ in range(10):
        waited.append(paces.of("192.0.2.1").take(200, 1.0))
        gc.collect()
    assert waited[-1] == pytest.approx(1.8)
    now += REMEMBERED
    paces.of("192.0.2.2")
    gc.collect()
    assert len(paces) == 1


def test_there_is_an_end_to_the_rates_that_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares_module, "MAX_REMEMBERED", 10)
    paces = Lately(lambda: Pace(1000.0))
    held = paces.of("held")
    for number in range(100):
        paces.of(number)
    gc.collect()
    assert len(paces) == 10 + 1
    assert paces.of("held") is held


def test_all_flows_of_one_share_its_pace_and_another_has_its_own() -> None:
    made = gate(rate_per_address=Rate(1000.0))
    one, again, other = (made.pace_for(peer, "") for peer in ("192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"))
    assert one is again
    assert one is not other


def test_without_a_limit_there_is_no_pace_so_that_flows_can_be_spliced() -> None:
    assert gate().pace_for("192.0.2.1:1", "alice") is None


def test_several_rates_hold_together_and_the_lowest_counts() -> None:
    made = gate(rate=Rate(1_000_000.0), rate_per_identity=Rate(1000.0))
    pace = made.pace_for("192.0.2.1:1", "alice")
    assert pace is not None
    assert pace.take(1200, 10.0) == pytest.approx(1.0)


def flow(pace: Pace, flows: int, seconds: float) -> list[int]:
    """What each of so many greedy flows moves under one pace, each reading as much at once as it may."""
    moved = [0] * flows
    due = [(0.0, number) for number in range(flows)]
    heapq.heapify(due)
    while due[0][0] < seconds:
        now, number = heapq.heappop(due)
        wait = pace.take(pace.read_size, 1000.0 + now)
        moved[number] += pace.read_size
        heapq.heappush(due, (now + wait if wait else now + 1e-6, number))
    return moved


@settings(max_examples=30)
@given(st.floats(100_000, 1e7), st.integers(1, 50))
def test_greedy_flows_move_what_the_rate_says_within_five_percent_over_five_seconds(rate: float, flows: int) -> None:
    pace = Pace(rate)
    moved = sum(flow(pace, flows, SECONDS))
    reads_ahead = flows * pace.read_size
    assert moved <= rate * SECONDS * (1 + TOLERANCE) + reads_ahead
    assert moved >= rate * SECONDS * (1 - TOLERANCE)


@settings(max_examples=30)
@given(st.floats(1e6, 1e7), st.integers(2, 20))
def test_greedy_flows_get_equal_shares(rate: float, flows: int) -> None:
    pace = Pace(rate)
    moved = flow(pace, flows, SECONDS)
    assert max(moved) - min(moved) <= 2 * pace.read_size + 0.05 * max(moved)


def test_no_rate_is_no_pace() -> None:
    assert together([None, None]) is None
    pace = Pace(1.0)
    assert together([None, pace]) is pace


def test_identities_of_one_name_with_other_proofs_share_no_limit() -> None:
    made = Gate(LimitSettings(sessions_per_identity=1), lambda: (0, 0))
    made.count_session("192.0.2.1:1", holder_of(Identity("alice", "certificate")), 1)
    for whose, full in ((Identity("alice", "certificate"), True), ("alice", False), (ANONYMOUS, False)):
        refusal = made.refuses_to("192.0.2.1:2", holder_of(whose), new_session=True, new_channel=True)
        assert bool(refusal) == full
