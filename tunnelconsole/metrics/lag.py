"""The loop's lag: by how much a timer is late, which is how long whatever else is due has to wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

INTERVAL: Final = 0.5
"""Seconds between two looks: twice a second costs nothing, and what holds the loop up for longer is met for certain."""

WINDOW: Final = 60.0
"""Seconds of which the worst is kept: longer than the usual time between two scrapes, so that none is missed."""


class LoopLag:
    """Measures from when it is made until it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._seen: deque[float] = deque([0.0], maxlen=round(WINDOW / INTERVAL))
        self._arm()

    @property
    def last(self) -> float:
        """Seconds by which the loop was late when it was last looked at."""
        return self._seen[-1]

    @property
    def worst(self) -> float:
        """Seconds by which it was late at most, over the last :data:`WINDOW`."""
        return max(self._seen)

    def _arm(self) -> None:
        # By a clock of our own: uvloop's stands still while a callback runs.
        self._due = time.monotonic() + INTERVAL
        self._timer = self._loop.call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._seen.append(max(0.0, time.monotonic() - self._due))
        self._arm()

    def close(self) -> None:
        """Measures no more."""
        self._timer.cancel()
