"""What happens because an operator steers a service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tunnelconsole.engine.events import Event, Level

NAMED = 3
"""Parties that an event names; more of them would hide what it says."""


def named(parties: Iterable[str]) -> str:
    """Some parties in a few words: the first of them by name."""
    found = list(parties)
    more = len(found) - NAMED
    return ", ".join(found[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


class ServiceDraining(Event, frozen=True, kw_only=True):
    """A service takes nothing new and stops once what it carries is over."""

    type: ClassVar[str] = "service-draining"
    level: ClassVar[Level] = "info"
    channels: int
    """What it carries when that begins."""
    seconds: float

    def text(self) -> str:
        if not self.channels:
            return "takes nothing new; it carries nothing, and stops"
        channels = "1 channel" if self.channels == 1 else f"{self.channels:,} channels"
        return f"takes nothing new; {channels} may finish within {self.seconds:g} s, then it stops"


class LimitsChanged(Event, frozen=True, kw_only=True):
    """An operator changed the limits of a service or a session while it runs."""

    type: ClassVar[str] = "limits-changed"
    level: ClassVar[Level] = "info"
    limits: str
    """Those in force, in a few words."""

    def text(self) -> str:
        return f"{'the session' if self.session else 'the service'} now has {self.limits}"


class DrainCut(Event, frozen=True, kw_only=True):
    """The time of a drain is over, and what was left has been cut."""

    type: ClassVar[str] = "drain-cut"
    level: ClassVar[Level] = "warning"
    channels: int
    seconds: float
    who: str
    """Whose they were, in a few words."""

    def text(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels:,} channels"
        cut = "was cut" if self.channels == 1 else "were cut"
        return f"{channels}{f' of {self.who}' if self.who else ''} did not finish within {self.seconds:g} s and {cut}"
