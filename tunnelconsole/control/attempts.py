"""Attempts at hole punches, as they travel over the control socket; see :mod:`tunnelconsole.control.messages`."""

from __future__ import annotations

import msgspec


class CandidateRow(msgspec.Struct, frozen=True, kw_only=True):
    """An address of one side, and what became of it."""

    address: str
    """``host:port``; ``host:*`` stands for many ports that were tried as one."""
    kind: str
    """``host``, ``mapped``, ``predicted``, ``many ports``, ``accepted`` or ``given``."""
    side: str
    """``ours``: the other side may dial it; ``theirs``: we may."""
    fate: str
    """One of ``untried trying refused silent unreachable wrong peer ourselves connected won lost rejected``."""
    reason: str
    """Why it was rejected, that is never dialled; else empty."""
    tries: int
    ms: float | None
    """When that became of it, in milliseconds since the attempt began."""


class MomentRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in an attempt."""

    ms: float
    """Milliseconds since the attempt began."""
    what: str
    """A state that it entered, what became of a candidate, or some words."""
    candidate: str
    """The address that it was about; empty: about all of it."""


class NatRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one side is behind."""

    mapping: str
    """``none``, ``independent``, ``sequential``, ``random`` or ``unknown``."""
    filtering: str
    """``open``, ``address``, ``port`` or ``unknown``."""
    words: str
    """Both for people; empty while nothing is known."""
    address: str
    """Where the rendezvous sees it, ``host:port``, of the other side by its own word; may be empty."""


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a hole punch.

    Updates have neither ``candidates`` nor ``timeline``; ``more_candidates``
    and ``more_moments`` count what is left out.
    """

    id: str
    service: str
    room: str
    """Empty where it is made by hand."""
    peer: str
    """The address that was reached; empty while, and where, there is none."""
    state: str
    """One of ``waiting observing racing``, and in the end ``direct relay failed left``."""
    method: str
    """``relay``, ``host``, ``mapped``, ``predicted``, ``many ports``, ``accepted``, ``given``."""
    reason: str
    """Why it came to that, or what may keep the other side away; empty when there is nothing to say."""
    error: str
    """What broke it off; empty when nothing did."""
    started: float
    """When both sides were there; while one is waited for, since when."""
    waited: float
    """Seconds that the other side was waited for before."""
    seconds: float | None
    """How long it took; None while it goes on."""
    syns: int
    """SYN segments sent."""
    ours: NatRow
    theirs: NatRow
    candidates: list[CandidateRow]
    timeline: list[MomentRow]
    more_candidates: int
    more_moments: int

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self.seconds is not None


class Attempts(msgspec.Struct, frozen=True, tag="attempts"):
    """Attempts, the oldest first."""

    rows: list[AttemptRow]


class GetAttempts(msgspec.Struct, frozen=True, tag="get-attempts"):
    """Answered with :class:`Attempts`, all of each; of one service when named, or one alone by its id."""

    service: str = ""
    id: str = ""


class PunchAgain(msgspec.Struct, frozen=True, tag="punch-again"):
    """Has a punch client that is on the relay look for a direct way at once."""

    service: str
