"""The gate: how many may come in at once."""

from __future__ import annotations

import pytest

from tunnelconsole.engine import limits
from tunnelconsole.engine.limits import Gate, LimitSettings
from tunnelconsole.engine.units import Rate


class Service:
    """What a gate counts."""

    def __init__(self, sessions: int = 0, channels: int = 0) -> None:
        self.sessions = sessions
        self.channels = channels

    def counts(self) -> tuple[int, int]:
        return self.sessions, self.channels


def gate(service: Service, sessions: int = 0, channels: int = 0, rate: Rate | None = None) -> Gate:
    return Gate(LimitSettings(sessions=sessions, channels=channels, rate=rate), service.counts)


def test_without_limits_as_many_come_in_as_like() -> None:
    assert gate(Service(10**6, 10**6)).refuses(new_session=True, new_channel=True) == ""


def test_a_session_beyond_the_limit_is_refused_until_one_has_gone() -> None:
    service = Service(sessions=2, channels=100)
    door = gate(service, sessions=3)
    assert door.refuses(new_session=True, new_channel=True) == ""
    service.sessions = 3
    assert door.refuses(new_session=True, new_channel=True) == "the limit of 3 sessions is reached"
    assert door.refuses(new_session=False, new_channel=True) == ""
    service.sessions = 2
    assert door.refuses(new_session=True, new_channel=True) == ""


def test_a_channel_beyond_the_limit_is_refused_until_one_has_gone() -> None:
    service = Service(sessions=100, channels=2)
    door = gate(service, channels=3)
    assert door.refuses(new_session=True, new_channel=True) == ""
    service.channels = 3
    assert door.refuses(new_session=False, new_channel=True) == "the limit of 3 channels is reached"
    assert door.refuses(new_session=True, new_channel=False) == ""
    service.channels = 2
    assert door.refuses(new_session=False, new_channel=True) == ""


def test_a_limit_that_was_exceeded_already_refuses_too() -> None:
    assert gate(Service(sessions=9), sessions=3).refuses(new_session=True, new_channel=False) != ""


def test_a_place_in_the_handshake_is_free_again_once_it_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 3)
    door = gate(Service())
    assert [door.enter_handshake() for _ in range(5)] == [True, True, True, False, False]
    door.leave_handshake()
    assert [door.enter_handshake() for _ in range(2)] == [True, False]


def test_a_rate_gives_one_pace_for_the_whole_service() -> None:
    assert gate(Service()).pace is None
    pace = gate(Service(), rate=Rate(1000.0)).pace
    assert pace is not None
    assert pace.take(250, now=100.0) == 0.0  # a quarter of a second's worth may go at once
    assert pace.take(1000, now=100.0) == pytest.approx(1.0)
    assert pace.take(500, now=101.0) == pytest.approx(0.5)
