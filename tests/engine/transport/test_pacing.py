"""A rate is kept by arithmetic: what was read is paid for, by a wait before more is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.transport.pacing import BURST_SECONDS, MAX_READ, MIN_READ, Pace

RATES = st.floats(1, 1e10)


def test_after_a_silence_a_burst_goes_at_once() -> None:
    pace = Pace(1000.0)
    assert pace.take(200, 10.0) == 0.0
    assert pace.take(1, 10.0) == 0.001


def test_a_wait_is_as_long_as_what_was_taken_too_much() -> None:
    pace = Pace(1000.0)
    assert pace.take(1200, 10.0) == 1.0
    assert pace.take(500, 11.0) == 0.5
    assert pace.take(0, 12.0) == 0.0


def test_a_long_silence_saves_no_more_than_a_burst() -> None:
    pace = Pace(1000.0)
    pace.take(0, 10.0)
    assert pace.take(1200, 10_000.0) == 1.0


def test_all_who_share_it_pay_for_each_other() -> None:
    pace = Pace(1000.0)
    assert pace.take(200, 10.0) == 0.0
    assert pace.take(500, 10.0) == 0.5
    assert pace.take(500, 10.0) == 1.0


def test_a_clock_that_stands_still_or_steps_back_gives_nothing() -> None:
    pace = Pace(1000.0)
    pace.take(200, 10.0)
    assert pace.take(100, 9.0) == 0.1


@given(RATES, st.lists(st.integers(0, 10_000_000), min_size=1, max_size=50))
def test_whoever_waits_as_told_never_exceeds_the_rate_by_more_than_a_burst_and_a_read(
    rate: float, reads: list[int]
) -> None:
    pace, now, taken = Pace(rate), 1_000.0, 0
    for count in reads:
        wait = pace.take(count, now)
        taken += count
        assert taken <= (rate * (now + wait - 1_000.0 + BURST_SECONDS)) * 1.001 + 1
        now += wait


@given(RATES)
def test_reads_are_small_enough_for_a_smooth_flow_and_large_enough_to_be_few(rate: float) -> None:
    size = Pace(rate).read_size
    assert MIN_READ <= size <= MAX_READ
    assert size in (MIN_READ, MAX_READ) or size <= rate * BURST_SECONDS
