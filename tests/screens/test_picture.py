"""What the console gathers from updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from screens.rows import NOW, event, service, status
from tunnelconsole.control.messages import EventRow, Events, ServiceRow, Update
from tunnelconsole.screens.picture import DEBUG_KEPT, EVENTS_KEPT, Gathering


def _update(
    *events: EventRow, pid: int = 1, dropped: int = 0, services: Sequence[ServiceRow] = (), **more: Any
) -> Update:
    return Update(status=status(pid=pid), services=list(services), events=Events(list(events), dropped), **more)


def test_events_that_were_asked_for_and_those_that_came_meanwhile_are_each_kept_once() -> None:
    gathering = Gathering()
    gathering.update(_update(event(5, "five")), NOW)
    gathering.earlier([event(-2, "before the start", time=NOW - 9000), event(4, "four"), event(5, "five")])
    gathering.update(_update(event(5, "five"), event(6, "six")), NOW + 1)
    assert [row.id for row in gathering.picture.events] == [-2, 4, 5, 6]


def test_only_the_newest_events_are_kept() -> None:
    gathering = Gathering()
    for start in range(0, EVENTS_KEPT + 100, 100):
        gathering.update(_update(*(event(start + number, "x") for number in range(100))), NOW)
    assert len(gathering.picture.events) == EVENTS_KEPT
    assert gathering.picture.events[0].id == 100


def test_channels_that_come_and_go_do_not_push_out_what_matters() -> None:
    gathering = Gathering()
    gathering.update(_update(event(0, "it matters")), NOW)
    gathering.update(_update(*(event(number, "x", level="debug") for number in range(1, 5000))), NOW)
    assert len(gathering.picture.events) == DEBUG_KEPT + 1
    assert gathering.picture.events[0].text == "it matters"


def test_another_engine_begins_with_empty_hands() -> None:
    gathering = Gathering()
    gathering.update(_update(event(7, "old"), dropped=3, services=[service("home", rate_in=5.0)]), NOW)
    gathering.update(_update(event(1, "new"), pid=2, services=[service("home")]), NOW + 1)
    assert [row.text for row in gathering.picture.events] == ["new"]
    assert gathering.picture.dropped == 0
    assert gathering.picture.flows["home"].both() == [0.0]


def test_missed_events_add_up() -> None:
    gathering = Gathering()
    gathering.update(_update(dropped=3), NOW)
    gathering.update(_update(dropped=4), NOW + 1)
    assert gathering.picture.dropped == 7


def test_the_rates_of_a_service_are_followed_until_it_is_gone() -> None:
    gathering = Gathering()
    for second in range(3):
        row = service("home", rate_in=float(second), rate_out=1.0)
        gathering.update(_update(services=[row]), NOW + second * 2)
    assert gathering.picture.flows["home"].both() == [1.0, 2.0, 3.0]
    assert gathering.picture.spacing == 2.0
    gathering.update(_update(services=[service("lab")]), NOW + 6)
    assert list(gathering.picture.flows) == ["lab"]


def test_two_updates_at_once_count_as_one_measurement() -> None:
    gathering = Gathering()
    gathering.update(_update(services=[service("home", rate_in=1.0)]), NOW)
    gathering.update(_update(services=[service("home", rate_in=2.0)]), NOW + 0.01)
    assert gathering.picture.flows["home"].rate_in == (2.0,)


def test_what_is_final_comes_before_what_is_tried_again() -> None:
    gathering = Gathering()
    rows = [service("a", state="backoff"), service("b", state="failed"), service("c"), service("d", state="stopped")]
    gathering.update(_update(services=rows), NOW)
    assert [row.name for row in gathering.picture.faults()] == ["b", "a"]


def test_only_recent_warnings_and_errors_are_troubles() -> None:
    gathering = Gathering()
    gathering.update(
        _update(
            event(1, "long ago", level="error", time=NOW - 700),
            event(2, "just now", level="warning", time=NOW - 10),
            event(3, "nothing bad", time=NOW),
        ),
        NOW,
    )
    assert [row.text for row in gathering.picture.troubles(NOW)] == ["just now"]


def test_a_stopped_service_exposes_nothing() -> None:
    gathering = Gathering()
    rows = [service("a", exposed=True), service("b", exposed=True, state="stopped"), service("c")]
    gathering.update(_update(services=rows), NOW)
    assert [row.name for row in gathering.picture.exposed()] == ["a"]
