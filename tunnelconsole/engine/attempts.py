"""The register of attempts: each try of a hole punch, what it tried, what became of it, and when."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.punch_events import AttemptEnded

ATTEMPTS_KEPT: Final = 200
"""Attempts kept, the oldest that is over goes first: some hours of a service that tries again every few minutes."""

CANDIDATES_SHOWN: Final = 64
"""Candidates of one attempt that are kept: many ports are tried as one, and more than these nobody reads."""

MOMENTS_KEPT: Final = 200
"""Moments of one attempt's timeline: a race of many tries repeats itself. What decides it is kept beyond that."""

AttemptState = Literal["waiting", "observing", "racing", "direct", "relay", "failed", "left"]
"""Waiting for the other side, asking where we are seen from, racing; and what it came to. ``left``: somebody went."""

Fate = Literal[
    "untried", "trying", "refused", "silent", "unreachable", "wrong peer", "ourselves", "connected", "won", "lost"
]
"""What became of a candidate; or ``rejected``, with :attr:`CandidateTried.reason`."""

DECISIVE: Final = frozenset({"observing", "racing", "won", "secured", "direct", "relay", "failed", "left"})
"""Moments that are kept however many there are: strangers that dial us must not push them out."""

OVER: Final = frozenset({"direct", "relay", "failed", "left"})
"""States in which nothing more happens."""


@dataclass(slots=True)
class CandidateTried:
    """An address, and what became of it."""

    address: str
    kind: str
    """``host``, ``mapped``, ``predicted``, ``many ports``, ``accepted``, ``given``."""
    side: Literal["ours", "theirs"]
    fate: str = "untried"
    reason: str = ""
    tries: int = 0
    ms: float | None = None
    """When that became of it, in milliseconds since the attempt began."""


@dataclass(slots=True)
class Moment:
    """Something that happened in an attempt."""

    ms: float
    what: str
    candidate: str = ""
    """The address that it was about."""


@dataclass(slots=True)
class Behind:
    """What one side is behind, as far as it is known."""

    mapping: str = "unknown"
    filtering: str = "unknown"
    words: str = ""
    address: str = ""
    """Where it is seen from."""


@dataclass(slots=True)
class Attempt:
    """One try of a punch. Whoever makes it writes it down here."""

    id: str
    service: str
    room: str
    ended: Callable[[Attempt], None]
    peer: str = ""
    """The address that was reached, once there is one."""
    state: AttemptState = "waiting"
    method: str = ""
    """``relay``, or how it was reached directly: ``host``, ``mapped``, ``predicted``, ``many ports``, ``accepted``."""
    reason: str = ""
    """Why it came to that, in words for whoever runs it; while it waits, what may keep the other side away."""
    error: str = ""
    started: float = field(default_factory=time.time)
    """Unix seconds: when the round began, or while there is nobody, the waiting."""
    waited: float = 0.0
    """Seconds from the seat in the room until the other side was there."""
    seconds: float | None = None
    """How long it took, without the waiting; None while it goes on."""
    candidates: dict[tuple[str, str], CandidateTried] = field(default_factory=dict)
    """By side and address."""
    timeline: list[Moment] = field(default_factory=list)
    ours: Behind = field(default_factory=Behind)
    theirs: Behind = field(default_factory=Behind)
    syns: int = 0
    """SYN segments sent, those that the kernel repeated among them."""
    _began: float = field(default_factory=time.perf_counter)

    @property
    def ms(self) -> float:
        """Milliseconds since it began, and where it waited for the other side, since that was there."""
        return (time.perf_counter() - self._began) * 1000

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self.state in OVER

    def note(self, what: str, candidate: str = "") -> None:
        """Writes down something that happened."""
        if len(self.timeline) < MOMENTS_KEPT or what in DECISIVE:
            self.timeline.append(Moment(self.ms, what, candidate))

    def candidate(self, address: str, kind: str, side: Literal["ours", "theirs"]) -> None:
        """Writes down an address; does nothing when it is there, or there are enough."""
        if len(self.candidates) < CANDIDATES_SHOWN:
            self.candidates.setdefault((side, address), CandidateTried(address, kind, side))

    def rejected(self, address: str, kind: str, reason: str) -> None:
        """Writes down an address of the other side's that is not dialled, and why."""
        self.candidate(address, kind, "theirs")
        tried = self.candidates.get(("theirs", address))
        if tried is not None:
            tried.fate, tried.reason, tried.ms = "rejected", reason, self.ms

    def dialled(self, address: str, kind: str) -> None:
        """Writes down that an address of the other side's is dialled, once more perhaps.

        :param kind: what it is where it was not offered: ``predicted`` or ``many ports``.
        """
        self.candidate(address, kind, "theirs")
        candidate = self.candidates.get(("theirs", address))
        if candidate is not None:
            candidate.tries += 1
            if candidate.fate == "untried":
                self.fate(address, "trying")

    def accepted(self, address: str) -> None:
        """Writes down that somebody has dialled us from this address."""
        self.candidate(address, "accepted", "theirs")
        self.note("accepted", address)

    def fate(self, address: str, fate: Fate) -> None:
        """Writes down what became of an address of the other side's."""
        candidate = self.candidates.get(("theirs", address))
        if candidate is not None and candidate.fate != fate:
            candidate.fate, candidate.ms = fate, self.ms
            self.note(fate, address)

    def unanswered(self) -> None:
        """Writes down that nothing has come back from those that are still tried."""
        for candidate in self.candidates.values():
            if candidate.fate == "trying":
                self.fate(candidate.address, "silent")

    def enter(self, state: AttemptState) -> None:
        """Goes on to ``state``; the clock starts when the other side is there, however long that was waited for."""
        if state == "observing" and self.state == "waiting":
            self.reason = ""  # what kept it waiting
            self.waited = self.ms / 1000
            self.started, self._began = time.time(), time.perf_counter()
        self.state = state
        self.note(state)

    def end(self, state: AttemptState, *, method: str = "", reason: str = "", error: str = "") -> None:
        """Ends the attempt; safe to call twice."""
        if self.over:
            return
        self.enter(state)
        self.method, self.reason, self.error = method, reason, error
        self.seconds = self.ms / 1000
        self.ended(self)


class Attempts:
    """All attempts of the node, those under way and the last that are over."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._begun = 0
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()

    def __iter__(self) -> Iterator[Attempt]:
        """Those kept, the oldest first."""
        return iter(self._attempts.values())

    def __len__(self) -> int:
        return len(self._attempts)

    def begin(self, service: str, room: str) -> Attempt:
        """A new attempt.

        :param room: empty where it is made by hand.
        """
        self._begun += 1
        attempt = Attempt(f"p{self._begun}", service, room, self._ended)
        self._attempts[attempt.id] = attempt
        if len(self._attempts) > ATTEMPTS_KEPT:
            oldest = next((kept.id for kept in self._attempts.values() if kept.over), attempt.id)
            del self._attempts[oldest]
        return attempt

    def withdraw(self, attempt: Attempt) -> None:
        """Forgets an attempt that has only waited: nobody came, so nothing was tried."""
        self._attempts.pop(attempt.id, None)

    def _ended(self, attempt: Attempt) -> None:
        self._bus.publish(
            AttemptEnded(
                service=attempt.service,
                attempt=attempt.id,
                room=attempt.room,
                peer=attempt.peer,
                state=attempt.state,
                method=attempt.method,
                reason=attempt.error or attempt.reason,
                seconds=attempt.seconds or 0.0,
            )
        )
