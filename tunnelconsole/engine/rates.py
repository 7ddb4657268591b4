"""How much of a tunnel one party may use: requests per second, and bytes per second."""

from __future__ import annotations

from typing import Final

import msgspec

from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.units import Rate

BURST_SECONDS: Final = 1.0
"""Seconds' worth of requests that may come at once after a silence: a page brings its pictures with it."""


class RateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.per_connection]``, ``per_tunnel`` and ``per_identity``."""

    requests: float = 0.0
    """Requests per second; beyond them the answer is 429. 0 for as many as come."""
    rate: Rate | None = None
    """Bytes per second, both ways together; beyond them reading pauses. None for no limit."""


class Allowance:
    """What one connection, tunnel or identity has left."""

    __slots__ = ("__weakref__", "_per_second", "_tokens", "_updated", "pace")

    def __init__(self, settings: RateSettings) -> None:
        self._per_second = settings.requests
        self._tokens = self._most
        self._updated = 0.0
        self.pace = Pace(settings.rate) if settings.rate else None

    @property
    def _most(self) -> float:
        return max(1.0, self._per_second * BURST_SECONDS)

    def take_request(self, now: float) -> float:
        """Takes a request at ``now`` (seconds, monotonic); returns 0, or the seconds until there would be one."""
        if not self._per_second:
            return 0.0
        elapsed = max(0.0, now - self._updated)
        self._updated = now
        self._tokens = min(self._most, self._tokens + elapsed * self._per_second)
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._per_second
        self._tokens -= 1.0
        return 0.0
