"""How long to wait before trying again."""

from __future__ import annotations

import random

import pytest

from tunnelconsole.engine.backoff import (
    FIRST_DELAY,
    JITTER,
    LONGEST_DELAY,
    LONGEST_DELAY_FOR_A_PLACE,
    STABLE_AFTER,
    Backoff,
)


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


def delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next() for _ in range(count)]


def test_delays_double_from_one_second_to_thirty(no_jitter: None) -> None:
    assert delays(Backoff(), 8) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_whose_place_another_has_asks_again_every_few_seconds(no_jitter: None) -> None:
    backoff = Backoff()
    assert [backoff.next(LONGEST_DELAY_FOR_A_PLACE) for _ in range(6)] == [1, 2, 4, 5, 5, 5]


@pytest.mark.parametrize("share", [-1, 1], ids=["shortest", "longest"])
def test_a_delay_varies_by_a_quarter_and_never_exceeds_the_longest(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low if share < 0 else high)
    expected = [min(LONGEST_DELAY, base * (1 + share * JITTER)) for base in (1, 2, 4, 8, 16, 30, 30)]
    assert delays(Backoff(), 7) == expected


def test_two_that_failed_at_once_do_not_come_back_at_once() -> None:
    first, second = Backoff(), Backoff()
    assert delays(first, 20) != delays(second, 20)


def test_a_stable_minute_starts_over_at_the_first_delay(no_jitter: None) -> None:
    backoff = Backoff()
    delays(backoff, 5)
    backoff.worked_for(STABLE_AFTER)
    assert delays(backoff, 2) == [FIRST_DELAY, 2 * FIRST_DELAY]


def test_less_than_a_stable_minute_does_not(no_jitter: None) -> None:
    backoff = Backoff()
    delays(backoff, 2)
    backoff.worked_for(STABLE_AFTER - 0.1)
    assert backoff.next() == 4 * FIRST_DELAY
