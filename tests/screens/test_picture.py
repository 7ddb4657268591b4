"""What the console gathers from updates."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from screens.rows import NOW, event, history, service, status
from tunnelconsole.control.messages import EventRow, Events, ServiceRow, Update
from tunnelconsole.screens.picture import DEBUG_KEPT, EVENTS_KEPT, FLOW_KEPT, Gathering


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


@given(st.lists(st.lists(st.tuples(st.sampled_from(["info", "debug"]), st.integers(0, 5)), max_size=6), max_size=6))
def test_events_are_in_the_order_in_which_they_happened_however_they_come(news: list[list[tuple[str, int]]]) -> None:
    gathering, numbers = Gathering(), count()
    gathering._events = deque(maxlen=4)
    gathering._debug = deque(maxlen=2)
    for batch in news:
        rows = [event(next(numbers), "x", level=level, time=NOW + seconds) for level, seconds in batch]
        gathering.update(_update(*rows), NOW)
        kept = [*gathering._events, *gathering._debug]
        assert gathering.picture.events == tuple(sorted(kept, key=lambda row: (row.time, row.id)))


def test_another_engine_begins_with_empty_hands() -> None:
    gathering = Gathering()
    gathering.update(
        _update(event(7, "old"), dropped=3, services=[service("home")], histories=[history([5], [0], "home")]),
        NOW,
    )
    gathering.update(
        _update(event(1, "new"), pid=2, services=[service("home")], histories=[history([7], [0], "home", first=1)]),
        NOW + 1,
    )
    assert [row.text for row in gathering.picture.events] == ["new"]
    assert gathering.picture.dropped == 0
    assert gathering.picture.flows["home"].rate_in == (7,)


def test_missed_events_add_up() -> None:
    gathering = Gathering()
    gathering.update(_update(dropped=3), NOW)
    gathering.update(_update(dropped=4), NOW + 1)
    assert gathering.picture.dropped == 7


def test_what_a_service_moved_before_the_console_came_is_followed_by_what_it_moves_since() -> None:
    gathering = Gathering()
    home = [service("home")]
    gathering.update(_update(services=home, histories=[history([1, 2, 3], [0, 0, 1], "home", first=7)]), NOW)
    gathering.update(_update(services=home, histories=[]), NOW + 0.5)
    gathering.update(_update(services=home), NOW + 1)
    gathering.update(_update(services=home, histories=[history([4], [0], "home", first=10)]), NOW + 2)
    flow = gathering.picture.flows["home"]
    assert (flow.rate_in, flow.rate_out) == ((1, 2, 3, 4), (0, 0, 1, 0))
    assert flow.both() == [1, 2, 4, 4]
    gathering.update(_update(services=[service("lab")]), NOW + 3)
    assert not gathering.picture.flows


@pytest.mark.parametrize("first", [0, 1, 5, 1000])
def test_a_history_that_does_not_go_on_where_the_last_one_ended_takes_its_place(first: int) -> None:
    gathering = Gathering()
    gathering.update(_update(services=[service("home")], histories=[history([1, 2, 3], [0, 0, 0], "home")]), NOW)
    gathering.update(_update(services=[service("home")], histories=[history([8, 9], [0, 0], "home", first)]), NOW + 1)
    assert gathering.picture.flows["home"].rate_in == (8, 9)


def test_of_a_history_the_last_minutes_are_kept() -> None:
    gathering = Gathering()
    for second in range(FLOW_KEPT + 5):
        more = history([float(second)], [0.0], "home", first=second)
        gathering.update(_update(services=[service("home")], histories=[more]), NOW + second)
    rates = gathering.picture.flows["home"].rate_in
    assert (len(rates), rates[0], rates[-1]) == (FLOW_KEPT, 5.0, FLOW_KEPT + 4.0)


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
