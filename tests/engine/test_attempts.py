"""The register of attempts."""

from __future__ import annotations

from typing import Literal

import pytest

from tunnelconsole.engine.attempts import ATTEMPTS_KEPT, CANDIDATES_SHOWN, MOMENTS_KEPT, Attempt, Attempts
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.punch_events import AttemptEnded

THERE = "203.0.113.2:40000"


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def register(bus: Bus) -> Attempts:
    return Attempts(bus)


def ended(bus: Bus) -> list[AttemptEnded]:
    return [record.event for record in bus.recent() if isinstance(record.event, AttemptEnded)]


def whats(attempt: Attempt) -> list[str]:
    return [moment.what for moment in attempt.timeline]


def test_an_attempt_goes_through_its_states_and_ends_once(register: Attempts, bus: Bus) -> None:
    attempt = register.begin("home", "desk")
    attempt.enter("observing")
    attempt.enter("racing")
    attempt.peer = THERE
    attempt.end("direct", method="host")
    attempt.end("failed", error="too late")
    assert whats(attempt) == ["observing", "racing", "direct"]
    assert (attempt.state, attempt.method, attempt.error, attempt.over) == ("direct", "host", "", True)
    (event,) = ended(bus)
    assert (event.attempt, event.service, event.room, event.peer) == (attempt.id, "home", "desk", THERE)
    assert event.text().startswith(f"room desk: {THERE} reached directly (host) in ")


@pytest.mark.parametrize(
    ("state", "words"),
    [("relay", "stays on the relay"), ("failed", "failed"), ("left", "broken off")],
)
def test_what_an_attempt_came_to_is_told_with_the_reason(
    register: Attempts, bus: Bus, state: Literal["relay", "failed", "left"], words: str
) -> None:
    register.begin("", "").end(state, reason="no way")
    (event,) = ended(bus)
    assert event.text().startswith(f"by hand: {words} after ")
    assert event.text().endswith(": no way")


def test_an_error_is_told_before_a_reason(register: Attempts, bus: Bus) -> None:
    register.begin("home", "desk").end("failed", reason="a reason", error="an error")
    assert ended(bus)[0].reason == "an error"


def test_the_clock_starts_when_the_other_side_is_there(register: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tunnelconsole.engine.attempts.time.perf_counter", lambda: now)
    attempt = Attempt("p1", "home", "desk", lambda _: None, _began=now)
    now = 160.0
    attempt.enter("observing")
    now = 160.5
    attempt.end("direct")
    assert (attempt.waited, attempt.seconds) == (60.0, 0.5)
    assert [moment.ms for moment in attempt.timeline] == [0.0, 500.0]


def test_candidates_have_fates_and_each_is_noted_once(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    attempt.candidate(THERE, "mapped", "theirs")
    for _ in range(3):
        attempt.dialled(THERE, "mapped")
        attempt.fate(THERE, "refused")
    attempt.fate(THERE, "won")
    tried = attempt.candidates["theirs", THERE]
    assert (tried.kind, tried.fate, tried.tries) == ("mapped", "won", 3)
    assert whats(attempt) == ["trying", "refused", "won"]


def test_a_rejected_candidate_says_why(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    attempt.rejected("10.0.0.1:22", "host", "a port below 1024 belongs to a system service")
    tried = attempt.candidates["theirs", "10.0.0.1:22"]
    assert (tried.fate, tried.reason) == ("rejected", "a port below 1024 belongs to a system service")


def test_the_same_address_at_both_sides_is_two(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    attempt.candidate(THERE, "host", "ours")
    attempt.candidate(THERE, "host", "theirs")
    attempt.fate(THERE, "silent")
    assert [(tried.side, tried.fate) for tried in attempt.candidates.values()] == [
        ("ours", "untried"),
        ("theirs", "silent"),
    ]


def test_those_still_tried_at_the_end_are_silent_and_no_others(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    for port, fate in ((1, "trying"), (2, "refused"), (3, "untried")):
        attempt.candidate(f"203.0.113.2:{port}", "host", "theirs")
        attempt.candidates["theirs", f"203.0.113.2:{port}"].fate = fate
    attempt.unanswered()
    assert [tried.fate for tried in attempt.candidates.values()] == ["silent", "refused", "untried"]


def test_what_nobody_has_heard_of_has_no_fate(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    attempt.fate(THERE, "won")
    assert not attempt.candidates
    assert not attempt.timeline


def test_an_attempt_keeps_so_much_and_what_decides_it_besides(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    for port in range(1, 2 * MOMENTS_KEPT):
        attempt.accepted(f"203.0.113.2:{port}")
    attempt.enter("racing")
    attempt.note("verified")
    attempt.end("direct")
    assert len(attempt.candidates) == CANDIDATES_SHOWN
    assert len(attempt.timeline) == MOMENTS_KEPT + 2
    assert whats(attempt)[-2:] == ["racing", "direct"]


def test_so_many_attempts_are_kept_and_the_oldest_that_is_over_goes_first(register: Attempts) -> None:
    waiting = register.begin("home", "desk")
    over = [register.begin("home", "desk") for _ in range(ATTEMPTS_KEPT)]
    for attempt in over:
        attempt.end("relay")
    last = register.begin("home", "desk")
    kept = list(register)
    assert len(register) == ATTEMPTS_KEPT
    assert kept[0] is waiting
    assert kept[-1] is last
    assert over[0] not in kept


def test_attempts_that_all_go_on_are_no_more_than_are_kept(register: Attempts) -> None:
    first = register.begin("home", "desk")
    for _ in range(2 * ATTEMPTS_KEPT):
        register.begin("home", "desk")
    assert len(register) == ATTEMPTS_KEPT
    assert next(iter(register)) is first


def test_one_that_has_only_waited_can_be_withdrawn_and_is_told_of_to_nobody(register: Attempts, bus: Bus) -> None:
    attempt = register.begin("home", "desk")
    register.withdraw(attempt)
    register.withdraw(attempt)
    assert not list(register)
    assert not ended(bus)


def test_what_kept_it_waiting_is_forgotten_when_it_goes_on(register: Attempts) -> None:
    attempt = register.begin("home", "desk")
    attempt.reason = "somebody else is in room desk with another secret"
    attempt.enter("observing")
    assert attempt.reason == ""


def test_numbers_are_given_once(register: Attempts) -> None:
    assert len({register.begin("home", "desk").id for _ in range(3 * ATTEMPTS_KEPT)}) == 3 * ATTEMPTS_KEPT
