"""What was not delivered: counted to the byte, and told in time but not in a flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

REPORT_INTERVAL = 10.0
"""Seconds between two reports about one client and one reason: news, and not one event for each read."""


class Loss(NamedTuple):
    """What losses are added up by."""

    session: str
    """Whose bytes; empty when they are nobody's who is here."""
    channel: str
    chid: str
    reason: str


Report = Callable[[Loss, int], None]
"""Told of a loss, and how many bytes it was."""


class Drops:
    """Adds up losses, and reports the first at once and the others every :data:`REPORT_INTERVAL`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Report) -> None:
        self._loop = loop
        self._report = report
        self._unreported: dict[Loss, int] = {}
        self._timers: dict[Loss, asyncio.TimerHandle] = {}

    def count(self, loss: Loss, size: int) -> None:
        """Adds ``size`` bytes to a loss."""
        if not size:
            return
        if loss in self._timers:
            self._unreported[loss] += size
            return
        self._wait(loss)
        self._report(loss, size)

    def settle(self, session: str) -> None:
        """Reports at once what a session has lost and was not told of yet, because it ends."""
        for loss in [loss for loss in self._timers if loss.session == session]:
            self._timers.pop(loss).cancel()
            self._tell(loss)

    def _wait(self, loss: Loss) -> None:
        self._unreported[loss] = 0
        self._timers[loss] = self._loop.call_later(REPORT_INTERVAL, self._due, loss)

    def _due(self, loss: Loss) -> None:
        del self._timers[loss]
        if self._tell(loss):
            self._wait(loss)

    def _tell(self, loss: Loss) -> bool:
        size = self._unreported.pop(loss)
        if size:
            self._report(loss, size)
        return bool(size)
