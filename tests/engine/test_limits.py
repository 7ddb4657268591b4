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


HERE = "192.0.2.1:5"


def test_a_place_in_the_handshake_is_free_again_once_it_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 3)
    door = gate(Service())
    first, *others = (door.enter_handshake(HERE) for _ in range(5))
    assert [place is not None for place in others] == [True, True, False, False]
    assert first is not None
    for _ in range(2):
        first.leave()
    assert [door.enter_handshake(HERE) is not None for _ in range(2)] == [True, False]


class Crowd:
    """Those who are inside their handshake, by the address they come from."""

    def __init__(self, door: Gate) -> None:
        self._door = door
        self.inside: list[str] = []

    def come(self, peer: str) -> bool:
        """Somebody comes; whether there was a place."""
        place = self._door.enter_handshake(peer)
        if place is None:
            return False

        def lost(reason: str) -> None:
            assert "others" in reason
            self.inside.remove(peer)

        place.lost = lost
        self.inside.append(peer)
        return True


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    """Nobody yet, and eight places."""
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 8)
    return Crowd(gate(Service()))


def test_an_address_alone_may_take_every_place_and_then_makes_room_for_others_oldest_first(crowd: Crowd) -> None:
    greedy = [f"192.0.2.1:{port}" for port in range(1, 9)]
    assert all(map(crowd.come, greedy))
    assert not crowd.come("192.0.2.1:9")
    others = [f"192.0.2.2:{port}" for port in range(1, 5)]
    assert all(map(crowd.come, others))
    assert crowd.inside == greedy[4:] + others


def test_nobody_gets_more_than_an_equal_share_at_the_cost_of_others(crowd: Crowd) -> None:
    for port in range(1, 9):
        crowd.come(f"192.0.2.1:{port}")
    for port in range(1, 9):
        crowd.come(f"192.0.2.2:{port}")
    assert sorted(peer.partition(":")[0] for peer in crowd.inside) == ["192.0.2.1"] * 4 + ["192.0.2.2"] * 4
    assert crowd.come("192.0.2.3:1")
    assert not crowd.come("192.0.2.1:9") or not crowd.come("192.0.2.2:9")


def test_when_every_place_is_anothers_nobody_must_leave(crowd: Crowd) -> None:
    everybody = [f"192.0.2.{number}:1" for number in range(1, 9)]
    assert all(map(crowd.come, everybody))
    assert not crowd.come("198.51.100.1:1")
    assert crowd.inside == everybody


def test_a_place_that_was_held_too_long_goes_to_the_next_from_the_same_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    seconds = [0.0]
    door = Gate(LimitSettings(), Service().counts, lambda: seconds[0])
    turned_away: list[str] = []
    silent = door.enter_handshake(HERE)
    assert silent is not None
    silent.lost = turned_away.append
    seconds[0] = limits.HANDSHAKE_GRACE - 0.1
    assert door.enter_handshake(HERE) is not None
    assert door.enter_handshake(HERE) is None
    seconds[0] = limits.HANDSHAKE_GRACE
    assert door.enter_handshake(HERE) is not None
    assert len(turned_away) == 1
    assert door.enter_handshake(HERE) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("[2001:db8::1]:5", "[2001:db8::ffff:0:0:2]:6"), ("[::ffff:192.0.2.1]:5", "192.0.2.1:6"), (HERE, "192.0.2.1:6")],
)
def test_what_is_most_likely_one_party_shares(one: str, other: str, crowd: Crowd) -> None:
    for _ in range(4):
        crowd.come(one)
        crowd.come(other)
    assert not crowd.come(one)
    assert not crowd.come(other)
    assert crowd.come("[2001:db8:0:1::1]:5")
    assert crowd.come("[::ffff:192.0.2.2]:5")


def test_a_rate_gives_one_pace_for_the_whole_service() -> None:
    assert gate(Service()).pace is None
    pace = gate(Service(), rate=Rate(1000.0)).pace
    assert pace is not None
    assert pace.take(200, now=100.0) == 0.0  # a fifth of a second's worth may go at once
    assert pace.take(1000, now=100.0) == pytest.approx(1.0)
    assert pace.take(500, now=101.0) == pytest.approx(0.5)
