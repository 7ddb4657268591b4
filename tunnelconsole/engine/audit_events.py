"""The events of the audit trail."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level


class Audited(Event, frozen=True, kw_only=True):
    """Somebody had the engine change something, or was refused it."""

    type: ClassVar[str] = "audited"
    level: ClassVar[Level] = "info"
    who: str
    via: str
    action: str
    object: str
    outcome: str
    sentence: str
    """What came of it; may be empty."""

    def text(self) -> str:
        asked = f"{self.action} {self.object}".rstrip()
        came = f"{self.outcome}: {self.sentence}" if self.sentence else self.outcome
        through = "" if self.who.startswith(self.via) else f" by {self.via}"  # who says ssh, signal or engine already
        return f"{self.who}{through}: {asked}: {came}"


class AuditLost(Event, frozen=True, kw_only=True):
    """Entries of the audit trail could not be written into the state file for so long that they never will be."""

    type: ClassVar[str] = "audit-lost"
    level: ClassVar[Level] = "error"
    count: int

    def text(self) -> str:
        entries = "1 entry" if self.count == 1 else f"{self.count:,} entries"
        return f"{entries} of the audit trail cannot be kept, because state is not being saved; the log has them"
