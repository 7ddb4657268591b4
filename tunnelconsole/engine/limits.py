"""The limits of one service, and the counting that keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import msgspec

from tunnelconsole.engine.rules import Rule, above_zero
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.units import Duration, Rate

MAX_HANDSHAKES = 1024
"""Connections of one service that may be inside their handshake at once. A slow or silent crowd fills these places
and no others; beyond them newcomers are turned away until one is free."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.limits]``."""

    rules: ClassVar[tuple[Rule, ...]] = (above_zero("handshake_timeout", "no newcomer could be done in no time"),)

    sessions: int = 0
    """Sessions at once; 0 for as many as come."""
    channels: int = 0
    """Channels at once, over all sessions; 0 for as many as come."""
    rate: Rate | None = None
    """Bytes per second of the whole service, both ways together; None for no limit."""
    handshake_timeout: Duration = Duration(10)
    """Seconds a newcomer has until its handshake is done: the original jump host's."""
    idle_timeout: Duration = Duration(0)
    """Seconds a channel may move nothing before it is cut; 0 for ever."""


class Gate:
    """Counts one service's handshakes, sessions and channels against its limits.

    :param counts: returns the service's sessions and channels at this moment.
    """

    def __init__(self, settings: LimitSettings, counts: Callable[[], tuple[int, int]]) -> None:
        self.settings = settings
        self.pace = Pace(settings.rate) if settings.rate else None
        self._counts = counts
        self._handshakes = 0

    def enter_handshake(self) -> bool:
        """Takes a place for a newcomer; False when all are taken. Give it back with :meth:`leave_handshake`."""
        if self._handshakes >= MAX_HANDSHAKES:
            return False
        self._handshakes += 1
        return True

    def leave_handshake(self) -> None:
        """Gives a newcomer's place back."""
        self._handshakes -= 1

    def refuses(self, *, new_session: bool, new_channel: bool) -> str:
        """Why there can be no further session or channel now; "" when there can."""
        settings = self.settings
        if not settings.sessions and not settings.channels:
            return ""
        sessions, channels = self._counts()
        if new_session and settings.sessions and sessions >= settings.sessions:
            return f"the limit of {settings.sessions} sessions is reached"
        if new_channel and settings.channels and channels >= settings.channels:
            return f"the limit of {settings.channels} channels is reached"
        return ""
