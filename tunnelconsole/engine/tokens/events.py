"""The events of tokens."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level


class TokenChanged(Event, frozen=True, kw_only=True):
    """A token was created, changed, rotated, disabled, enabled or revoked."""

    type: ClassVar[str] = "token-changed"
    level: ClassVar[Level] = "info"
    token: str
    what: str
    """What was done, in the past: ``created``."""

    def text(self) -> str:
        return f"token {self.token} {self.what}"


class TokenOver(Event, frozen=True, kw_only=True):
    """A token has become good for nothing by itself, and whoever was in with it is out."""

    type: ClassVar[str] = "token-over"
    level: ClassVar[Level] = "warning"
    token: str
    reason: str
    sessions: int
    """How many were ended."""

    def text(self) -> str:
        ended = f"; {self.sessions} sessions ended" if self.sessions else ""
        return f"token {self.token}: {self.reason}{ended}"


class TokensUnreadable(Event, frozen=True, kw_only=True):
    """Tokens that are kept cannot be used."""

    type: ClassVar[str] = "tokens-unreadable"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return self.reason
