"""What was sent to receivers that are not there yet, kept for them: so much for each, so much in all, so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MAX_HELD = 64 * 1024 * 1024
"""Bytes held in all; beyond them the chids that have waited longest lose what is held for them. A few dozen receivers
that each get a large hold; memory that a small host can spare."""

MAX_HELD_CHIDS = 4096
"""Chids for which something is held: each costs some hundred bytes besides, and a client may name any it likes."""

HOLD_TIME = 600.0
"""Seconds for which bytes are held, from the first: time to start the other end by hand."""

Forgot = Callable[[int, str], None]
"""Told how many bytes were forgotten, and why."""


class _Held:
    """What is held for one chid."""

    __slots__ = ("data", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.data = bytearray()
        self.timer = timer


class Hold:
    """Bytes for receivers that are not there yet.

    :param capacity: bytes for each of them; 0 holds nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int, forgot: Forgot) -> None:
        self._loop = loop
        self._forgot = forgot
        self._held: dict[str, _Held] = {}  # the one that has waited longest first
        self.capacity = capacity
        self.total = 0
        """Bytes held now."""

    def keep(self, chid: str, data: bytes) -> int:
        """Holds as much of ``data`` as there is room for behind what is held for ``chid``; returns how many bytes."""
        held = self._held.get(chid)
        size = min(len(data), self.capacity - (len(held.data) if held is not None else 0))
        if not size:
            return 0
        if held is None:
            held = self._held[chid] = _Held(self._loop.call_later(HOLD_TIME, self._expired, chid))
        held.data += memoryview(data)[:size]
        self.total += size
        while self.total > MAX_HELD or len(self._held) > MAX_HELD_CHIDS:
            self._forget(next(iter(self._held)), "more is held for receivers that are not there than may be")
        return size

    def take(self, chid: str) -> bytes:
        """Gives up what is held for ``chid``."""
        held = self._held.pop(chid, None)
        if held is None:
            return b""
        held.timer.cancel()
        self.total -= len(held.data)
        return bytes(held.data)

    def clear(self) -> None:
        """Forgets everything, because nobody comes any more."""
        for chid in list(self._held):
            self._forget(chid, "the service ended before its receiver came")

    def _expired(self, chid: str) -> None:
        self._forget(chid, f"its receiver did not come within {HOLD_TIME:g} s")

    def _forget(self, chid: str, reason: str) -> None:
        self._forgot(len(self.take(chid)), reason)
