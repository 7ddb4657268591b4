"""Keeping many channels together under one rate."""

from __future__ import annotations

from collections.abc import Sequence

BURST_SECONDS = 0.25
"""Seconds' worth of bytes that may go at once after a silence: short enough to stay smooth on a chart."""

MIN_READ = 1024
"""Bytes read at once at the least, so that a low rate does not become a storm of tiny reads."""

MAX_READ = 64 * 1024
"""Bytes read at once at the most under a rate."""


class Pace:
    """A token bucket shared by every direction that must stay under ``rate`` together.

    A reader takes what it read and then waits as long as :meth:`take` says: nothing is dropped, the sender is slowed.

    :param rate: bytes per second, above 0.
    """

    __slots__ = ("_rate", "_tokens", "_updated", "read_size")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate * BURST_SECONDS
        self._updated = 0.0
        self.read_size = int(min(MAX_READ, max(MIN_READ, rate * BURST_SECONDS / 4)))

    def take(self, count: int, now: float) -> float:
        """Accounts for ``count`` bytes read at ``now`` (seconds, monotonic); returns the seconds to wait."""
        elapsed = max(0.0, now - self._updated)
        self._updated = now
        self._tokens = min(self._rate * BURST_SECONDS, self._tokens + elapsed * self._rate) - count
        return -self._tokens / self._rate if self._tokens < 0 else 0.0


class Together(Pace):
    """Several rates to be kept at once, each shared with others."""

    __slots__ = ("_paces",)

    def __init__(self, paces: Sequence[Pace]) -> None:
        self._paces = paces
        self.read_size = min(pace.read_size for pace in paces)

    def take(self, count: int, now: float) -> float:
        return max(pace.take(count, now) for pace in self._paces)
