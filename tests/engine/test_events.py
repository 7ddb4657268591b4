"""The bus: events in order, bounded, and nobody waits for a slow reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine import events
from tunnelconsole.engine.events import (
    READER_BACKLOG,
    RECENT,
    RECENT_NOTABLE,
    Bus,
    ConfigRefused,
    ConfigReloaded,
    Crashed,
    Event,
    Record,
)


def common(number: int) -> Event:
    return ConfigReloaded(summary=str(number))


def notable(number: int) -> Event:
    return ConfigRefused(reason=str(number))


def kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    """Every class of event there is."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def sample(kind: type[Event]) -> Event:
    """An event of this class, whose every field says something."""
    values: dict[str, Any] = {"str": "something", "float": 1.5, "int": 7, "bool": True}
    return kind(**{field.name: values[str(field.type.__name__)] for field in msgspec.structs.fields(kind)})


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
        patch.setattr(events, "RECENT", 30)
        patch.setattr(events, "RECENT_NOTABLE", 10)
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


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_event_has_a_type_a_level_and_a_sentence(kind: type[Event]) -> None:
    event = sample(kind)
    assert event.level in ("debug", "info", "warning", "error")
    assert event.type == "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)[1:]
    assert event.text().strip() == event.text() != ""
    assert "\n" not in event.text()


def test_no_two_events_have_the_same_type() -> None:
    types = [kind.type for kind in kinds()]
    assert len(set(types)) == len(types)


def test_a_crash_keeps_its_traceback_for_the_log_and_out_of_the_sentence() -> None:
    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault") as caught:
        fail()
    event = Crashed.by(caught.value, "service home", "home")
    assert event.text() == "service home failed unexpectedly: ValueError: a fault"
    assert event.service == "home"
    assert 'raise ValueError("a fault")' in event.trace
