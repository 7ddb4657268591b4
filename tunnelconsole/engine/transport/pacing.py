"""Keeping many channels together under one rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BURST_SECONDS = 0.2
"""Seconds' worth of bytes that may go at once after a silence: 4 % of what may go within 5 s, and a loop late by
less loses nothing."""

MIN_READ = 1024
"""Bytes read at once at the least, so that a low rate does not become a storm of tiny reads."""

MAX_READ = 64 * 1024
"""Bytes read at once at the most under a rate."""


class Pace:
    """A token bucket shared by every direction that must stay under ``rate`` together.

    A reader takes what it read and then waits as long as :meth:`take` says: nothing is dropped, the sender is slowed.

    :param rate: bytes per second, above 0.
    """

    __slots__ = ("__weakref__", "_rate", "_tokens", "_updated", "read_size")

    def __init__(self, rate: float) -> None:
        self._updated = 0.0
        self._tokens = rate * BURST_SECONDS
        self.set_rate(rate)

    @property
    def rate(self) -> float:
        """Bytes per second that it holds to."""
        return self._rate

    def set_rate(self, rate: float) -> None:
        """Holds to another rate from now on, in bytes per second, above 0."""
        self._rate = rate
        self._tokens = min(self._tokens, rate * BURST_SECONDS)
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


def together(paces: Iterable[Pace | None]) -> Pace | None:
    """What keeps to all of these; None where there is none."""
    found = [pace for pace in paces if pace is not None]
    if len(found) > 1:
        return Together(found)
    return found[0] if found else None
