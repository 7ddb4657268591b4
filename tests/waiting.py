"""Waiting for a condition: the one place where a test may let time pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds until a condition counts as never met: far beyond what a busy machine needs, well below a test's timeout."""

FIRST_PAUSE, LAST_PAUSE = 0.0005, 0.01
"""Seconds between two looks: at first as few as most things take in this process, then twice as many each time, until
they are enough not to burn a core."""

CALM = 3
"""Turns of a loop with nothing to do after which it is idle: in each it looks at its sockets, which may bring more."""


async def idle(*_: float) -> None:
    """Returns when asyncio's own loop would sleep: what follows from what was done is done, but what timers do."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    calm = 0
    while calm < CALM:
        await asyncio.sleep(0)  # noqa: TID251 no time passes, only the others have their turn
        calm = 0 if ready else calm + 1


class Standstill:
    """True once a count has stopped growing: a condition for :func:`until`, where nothing tells that no more will come.

    :param count: what grows.
    """

    LOOKS = 30

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._last = -1
        self._same = 0

    def __call__(self) -> bool:
        now = self._count()
        self._same = self._same + 1 if now == self._last else 0
        self._last = now
        return self._same >= self.LOOKS


async def until(condition: Callable[[], T], within: float = PATIENCE) -> T:
    """Looks again and again, letting the event loop run, until ``condition`` gives something true, and gives that.

    :raises AssertionError: it did not within ``within`` seconds.
    """
    deadline = time.monotonic() + within
    pause = FIRST_PAUSE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not met within {within:g} seconds: {condition}")
        await asyncio.sleep(pause)  # noqa: TID251 the pause between two looks
        pause = min(2 * pause, LAST_PAUSE)
    return found


def until_true(condition: Callable[[], T], within: float = PATIENCE) -> T:
    """As :func:`until`, for a test without an event loop."""
    deadline = time.monotonic() + within
    pause = FIRST_PAUSE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not met within {within:g} seconds: {condition}")
        time.sleep(pause)  # noqa: TID251 the pause between two looks
        pause = min(2 * pause, LAST_PAUSE)
    return found
