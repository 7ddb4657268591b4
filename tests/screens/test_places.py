"""The way through the screens, and back."""

from __future__ import annotations

from tunnelconsole.screens.places import DEEPEST, Place, Trail


def test_going_back_retraces_the_way() -> None:
    trail = Trail(Place("overview"))
    trail.go(Place("sessions", "home"))
    trail.go(Place("channels", "home", "s1"))
    assert trail.back()
    assert trail.here == Place("sessions", "home")
    assert trail.back()
    assert trail.here == Place("overview")
    assert not trail.back()


def test_going_back_clears_the_filter_first() -> None:
    trail = Trail(Place("overview"))
    trail.go(Place("sessions"))
    trail.filter("alice")
    assert trail.back()
    assert trail.here == Place("sessions")


def test_a_place_keeps_its_filter_while_one_is_deeper() -> None:
    trail = Trail(Place("services"))
    trail.filter("jump")
    trail.go(Place("sessions", "home"))
    trail.back()
    assert trail.here.filter.text == "jump"


def test_going_where_one_is_leaves_no_trace() -> None:
    trail = Trail(Place("overview"))
    trail.go(Place("overview"))
    assert trail.depth == 0


def test_the_trail_does_not_grow_for_ever() -> None:
    trail = Trail(Place("overview"))
    for _ in range(DEEPEST):
        trail.go(Place("services"))
        trail.go(Place("events"))
    assert trail.depth == DEEPEST - 1
