"""The audit trail, as it travels over the control socket; see :mod:`tunnelconsole.control.messages`."""

from __future__ import annotations

from typing import Literal

import msgspec

Means = Literal["command", "console"]
"""Through what somebody asks, as they say themselves."""


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One change that was asked of the engine."""

    id: int
    """Rises by one with every entry; negative for those from before the engine's last start."""
    time: float
    """Unix seconds."""
    who: str
    """``user NAME (uid N)``, ``ssh IDENTITY SHA256:...``, ``signal``, or ``engine``."""
    via: str
    """``command``, ``console``, ``ssh``, ``signal``, ``api`` (a program that embeds the engine) or ``engine``."""
    action: str
    """The name of the request, such as ``stop-service``."""
    object: str
    """What it was done to; may be empty."""
    outcome: str
    """``done``, ``refused`` or ``broken off``."""
    text: str
    """What was done, or why not, in one sentence; may be empty."""


class Audit(msgspec.Struct, frozen=True, tag="audit"):
    """Entries of the audit trail, the oldest first."""

    rows: list[AuditRow]


class GetAudit(msgspec.Struct, frozen=True, tag="get-audit"):
    """Answered with :class:`Audit`: the last ``limit`` entries from ``since`` (Unix seconds) on."""

    limit: int = 500
    since: float = 0.0
