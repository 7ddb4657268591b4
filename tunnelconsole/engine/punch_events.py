"""The events of the punch system."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level
from tunnelconsole.engine.floods import Cause


class RoomEntered(Event, frozen=True, kw_only=True):
    """A punch client has taken a seat in a room."""

    type: ClassVar[str] = "room-entered"
    level: ClassVar[Level] = "debug"
    peer: str
    room: str
    seats: int
    """Taken in the room now."""

    def text(self) -> str:
        return f"{self.peer} is in room {self.room}, {'with another' if self.seats > 1 else 'alone'}"


class AttemptEnded(Event, frozen=True, kw_only=True):
    """A try of a hole punch has come to something."""

    type: ClassVar[str] = "attempt-ended"
    level: ClassVar[Level] = "info"
    attempt: str
    room: str
    peer: str
    state: str
    method: str
    reason: str
    seconds: float

    def text(self) -> str:
        where = f"room {self.room}" if self.room else "by hand"
        because = f": {self.reason}" if self.reason else ""
        if self.state == "direct":
            return f"{where}: {self.peer} reached directly ({self.method}) in {self.seconds:.2f} s"
        outcome = {"relay": "stays on the relay", "failed": "failed", "left": "broken off"}.get(self.state, self.state)
        return f"{where}: {outcome} after {self.seconds:.2f} s{because}"


class PathChanged(Event, frozen=True, kw_only=True):
    """A punched link goes another way, or has none for the moment."""

    type: ClassVar[str] = "path-changed"
    level: ClassVar[Level] = "info"
    peer: str
    path: str
    """``direct``, ``relay``, or empty."""

    def text(self) -> str:
        if not self.path:
            return f"no way to {self.peer} for the moment; what is sent waits"
        return f"{self.peer} is reached {'directly' if self.path == 'direct' else 'through the relay'}"


class PunchWarning(Event, frozen=True, kw_only=True):
    """Something in a room is not as it should be."""

    type: ClassVar[str] = "punch-warning"
    level: ClassVar[Level] = "warning"
    room: str
    reason: str

    def text(self) -> str:
        return f"room {self.room}: {self.reason}"

    def flooded_by(self) -> Cause:
        return Cause(f"room {self.room}", self.reason)


class ObserverUnavailable(Event, frozen=True, kw_only=True):
    """A rendezvous cannot tell clients all that they should know of their NAT."""

    type: ClassVar[str] = "observer-unavailable"
    level: ClassVar[Level] = "warning"
    reason: str

    def text(self) -> str:
        return f"{self.reason}; without it, less shows of what a client's NAT does"
