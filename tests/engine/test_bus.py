"""The bus: events in order, bounded, and nobody waits for a slow reader."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine import bus as bus_module
from tunnelconsole.engine.bus import READER_BACKLOG, RECENT, RECENT_NOTABLE, Bus, Record
from tunnelconsole.engine.events import (
    ConfigRefused,
    ConfigReloaded,
    Crashed,
    Event,
    PeerRefused,
    Repeated,
    TargetFailed,
)
from tunnelconsole.engine.floods import INTERVAL, NAMED, OTHERS, TOLD_AT_ONCE, TOLD_EACH, VARIOUS


def common(number: int) -> Event:
    return ConfigReloaded(summary=str(number))


def notable(number: int) -> Event:
    return ConfigRefused(reason=str(number))


def ids(bus: Bus) -> list[int]:
    return [record.id for record in bus.recent()]


def test_events_are_numbered_from_one_and_timed() -> None:
    bus = Bus()
    for number in range(3):
        bus.publish(common(number))
    records = list(bus.recent())
    assert [(record.id, record.event) for record in records] == [(1, common(0)), (2, common(1)), (3, common(2))]
    times = [record.time for record in records]
    assert times == sorted(times)


def test_the_last_events_are_kept_and_the_oldest_go() -> None:
    bus = Bus()
    for number in range(RECENT + 10):
        bus.publish(common(number))
    assert ids(bus) == list(range(11, RECENT + 11))


def test_warnings_and_errors_outlive_a_burst_of_others() -> None:
    bus = Bus()
    bus.publish(notable(0))
    bus.publish(common(0))
    bus.publish(notable(1))
    for number in range(RECENT):
        bus.publish(common(number))
    assert ids(bus)[:3] == [1, 3, 4]


def test_warnings_and_errors_are_bounded_too() -> None:
    bus = Bus()
    for number in range(RECENT_NOTABLE + 10):
        bus.publish(notable(number))
    for number in range(RECENT):
        bus.publish(common(number))
    assert ids(bus)[:RECENT_NOTABLE] == list(range(11, RECENT_NOTABLE + 11))
    assert len(ids(bus)) == RECENT_NOTABLE + RECENT


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=40))
def test_what_is_kept_is_in_order_and_each_event_once(bursts: list[tuple[bool, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus_module, "RECENT", 30)
        patch.setattr(bus_module, "RECENT_NOTABLE", 10)
        bus, published = Bus(), []
        for is_notable, count in bursts:
            for number in range(count):
                published.append(notable(number) if is_notable else common(number))
                bus.publish(published[-1])
    kept = list(bus.recent())
    numbered = list(enumerate(published, 1))
    expected = {number for number, event in numbered if event.level == "error"}
    expected = set(sorted(expected)[-10:]) | {number for number, _ in numbered[-30:]}
    assert [record.id for record in kept] == sorted(expected)
    assert all(record.event is published[record.id - 1] for record in kept)


def test_a_listener_hears_every_event_at_once_from_when_it_listens() -> None:
    bus, heard = Bus(), list[Record]()
    bus.publish(common(1))
    bus.listen(heard.append)
    bus.publish(common(2))
    assert [record.event for record in heard] == [common(2)]


def test_a_listener_that_fails_hears_no_more_and_neither_publishers_nor_others_suffer() -> None:
    bus, heard, calls = Bus(), list[Record](), list[Record]()

    def faulty(record: Record) -> None:
        calls.append(record)
        raise OSError("nobody reads the log")

    bus.listen(faulty)
    bus.listen(heard.append)
    bus.publish(common(1))
    bus.publish(common(2))
    assert len(calls) == 1
    crash = next(record.event for record in heard if isinstance(record.event, Crashed))
    assert crash.text().startswith("a listener of events, which hears no more of them, failed unexpectedly: OSError")
    assert [record.event for record in heard if record.event != crash] == [common(1), common(2)]


def test_a_reader_takes_what_came_since_the_last_time() -> None:
    bus = Bus()
    bus.publish(common(1))
    reader = bus.reader()
    assert reader.take() == ([], 0)
    bus.publish(common(2))
    bus.publish(notable(3))
    records, dropped = reader.take()
    assert ([record.id for record in records], dropped) == ([2, 3], 0)
    assert reader.take() == ([], 0)


def test_a_slow_reader_loses_its_oldest_events_and_is_told_how_many() -> None:
    bus = Bus()
    reader = bus.reader()
    for number in range(READER_BACKLOG + 25):
        bus.publish(common(number))
    records, dropped = reader.take()
    assert dropped == 25
    assert [record.id for record in records] == list(range(26, READER_BACKLOG + 26))
    bus.publish(common(0))
    assert reader.take()[1] == 0


def test_readers_do_not_take_events_from_each_other() -> None:
    bus = Bus()
    slow, quick = bus.reader(), bus.reader()
    for number in range(READER_BACKLOG + 1):
        bus.publish(common(number))
        assert len(quick.take()[0]) == 1
    assert slow.take()[1] == 1


def test_a_closed_reader_hears_no_more_and_may_be_closed_again() -> None:
    bus = Bus()
    reader, other = bus.reader(), bus.reader()
    reader.close()
    reader.close()
    bus.publish(common(1))
    assert reader.take() == ([], 0)
    assert len(other.take()[0]) == 1


class Crowd:
    """Peers who are refused, on a bus whose clock is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bus = Bus()
        self.time = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.time)

    def refused(self, times: int, host: str = "192.0.2.7", reason: str = "wrong secret", service: str = "home") -> None:
        for port in range(times):
            self.bus.publish(PeerRefused(service=service, peer=f"{host}:{40_000 + port}", reason=reason))

    def passes(self, seconds: float) -> None:
        self.time += seconds
        self.bus.tell_repeated()

    @property
    def told(self) -> list[PeerRefused]:
        """What was told one by one."""
        return [record.event for record in self.bus.recent() if isinstance(record.event, PeerRefused)]

    @property
    def counted(self) -> list[Repeated]:
        """What was told as counts."""
        return [record.event for record in self.bus.recent() if isinstance(record.event, Repeated)]

    @property
    def total(self) -> int:
        """How many refusals can be learnt of."""
        return len(self.told) + sum(event.count for event in self.counted)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    return Crowd(monkeypatch)


class TestFloods:
    def test_one_address_is_told_of_some_times_and_then_counted(self, crowd: Crowd) -> None:
        crowd.refused(1239)
        assert [event.peer for event in crowd.told] == [f"192.0.2.7:{40_000 + number}" for number in range(TOLD_EACH)]
        crowd.passes(INTERVAL - 0.1)
        assert not crowd.counted
        crowd.passes(0.1)
        (event,) = crowd.counted
        assert event.service == "home"
        assert event.text() == "1,234 more peer-refused in 10 s from 192.0.2.7: wrong secret"
        assert crowd.total == 1239

    def test_the_next_interval_tells_some_again(self, crowd: Crowd) -> None:
        crowd.refused(50)
        crowd.passes(INTERVAL)
        crowd.refused(50)
        crowd.passes(INTERVAL)
        assert len(crowd.told) == 2 * TOLD_EACH
        assert crowd.total == 100

    def test_a_few_are_all_told_and_nothing_is_counted(self, crowd: Crowd) -> None:
        for number in range(20):
            crowd.refused(TOLD_EACH, host=f"192.0.2.{number}")
        crowd.passes(INTERVAL)
        assert len(crowd.told) == 20 * TOLD_EACH
        assert not crowd.counted

    def test_a_flood_hides_no_other_service_reason_or_kind_of_event(self, crowd: Crowd) -> None:
        crowd.refused(1000)
        crowd.refused(1, reason="the handshake took longer than 10 s")
        crowd.refused(1, service="edge")
        crowd.bus.publish(TargetFailed(service="home", peer="192.0.2.7:1", target="a:1", reason="wrong secret"))
        assert [(event.service, event.reason) for event in crowd.told[TOLD_EACH:]] == [
            ("home", "the handshake took longer than 10 s"),
            ("edge", "wrong secret"),
        ]
        assert list(crowd.bus.recent())[-1].event.type == "target-failed"

    def test_a_reason_that_differs_in_figures_only_is_the_same(self, crowd: Crowd) -> None:
        for number in range(100):
            crowd.refused(1, reason=f"a frame of version {number}")
        crowd.passes(INTERVAL)
        assert len(crowd.told) == TOLD_EACH
        assert crowd.counted[0].reason == "a frame of version 99"
        assert crowd.total == 100

    def test_many_addresses_are_named_as_far_as_can_be_read_and_counted_to_the_last(self, crowd: Crowd) -> None:
        for number in range(3000):
            crowd.refused(2, host=f"10.0.{number // 256}.{number % 256}")
        crowd.refused(40, host="10.0.0.0")
        crowd.passes(INTERVAL)
        assert len(crowd.told) == TOLD_AT_ONCE
        assert len(crowd.counted) == NAMED + 1
        assert (crowd.counted[0].who, crowd.counted[0].count) == ("10.0.0.0", 40)
        assert crowd.counted[-1].who == OTHERS
        assert crowd.total == 6040

    def test_the_others_have_their_reason_when_it_is_one(self, crowd: Crowd) -> None:
        for number in range(200):
            crowd.refused(1, host=f"10.0.0.{number}")
        crowd.passes(INTERVAL)
        assert crowd.counted[-1].text() == "90 more peer-refused in 10 s from others: wrong secret"

    def test_who_invents_reasons_gains_nothing(self, crowd: Crowd) -> None:
        for number in range(5000):
            crowd.refused(1, reason="".join(chr(97 + int(digit)) for digit in str(number)))
        crowd.passes(INTERVAL)
        assert len(crowd.told) == TOLD_AT_ONCE
        assert (crowd.counted[-1].who, crowd.counted[-1].reason) == (OTHERS, VARIOUS)
        assert crowd.total == 5000

    @pytest.mark.parametrize(
        ("peer", "who"),
        [("[2001:db8::7]:40001", "[2001:db8::7]"), ("a console", "a console"), ("user 54321", "user 54321")],
    )
    def test_an_address_is_counted_without_its_port(self, crowd: Crowd, peer: str, who: str) -> None:
        for _ in range(TOLD_EACH + 1):
            crowd.bus.publish(PeerRefused(peer=peer, reason="no"))
        crowd.passes(INTERVAL)
        assert crowd.counted[0].who == who

    def test_streams_are_counted_together_for_each_has_another_number(self, crowd: Crowd) -> None:
        for number in range(100):
            crowd.bus.publish(TargetFailed(peer=f"stream {number}", target="a:1", reason="no"))
        crowd.passes(INTERVAL)
        assert [(event.who, event.count) for event in crowd.counted] == [("streams", 100 - TOLD_EACH)]

    def test_what_is_counted_is_told_early_when_nothing_comes_any_more(self, crowd: Crowd) -> None:
        crowd.refused(10)
        crowd.bus.tell_repeated(early=True)
        assert crowd.total == 10
        crowd.bus.tell_repeated(early=True)
        assert crowd.total == 10

    def test_what_is_no_strangers_doing_is_told_each_time(self) -> None:
        bus = Bus()
        for number in range(1000):
            bus.publish(common(number))
        assert len(ids(bus)) == 1000


def test_a_counter_gets_each_of_a_flood_and_none_of_its_sums() -> None:
    bus, counted = Bus(), list[Event]()
    bus.count(counted.append)
    refused = PeerRefused(service="home", peer="192.0.2.1:1", reason="wrong secret")
    for _ in range(1000):
        bus.publish(refused)
    bus.tell_repeated(early=True)
    assert counted == [refused] * 1000


def test_a_counter_that_was_stopped_hears_no_more() -> None:
    bus, counted = Bus(), list[Event]()
    bus.count(counted.append)
    bus.stop_counting(counted.append)
    bus.publish(common(1))
    assert counted == []
