"""The pool of data connections that wait for a visitor, at the relay server."""

from __future__ import annotations

import asyncio
from collections import deque

from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.wire.relay import MAX_WANTED

MAX_SPARE = MAX_WANTED
"""Data connections that may wait for a visitor: as many as one line of the protocol can ask for."""

SPARE_IDLE_TIME = 30.0
"""Seconds after which connections that no visitor needed are closed, beyond those that the backend keeps ready: a burst
may leave hundreds, of a descriptor each at both ends, and the next one seldom comes later."""


class SparePool:
    """One backend's data connections without a visitor, the longest waiting first.

    The server closes those that are too many, and not the backend which dialled them: only so no visitor can be on its
    way to one of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends: deque[End] = deque()
        self._fewest = 0
        """How many were left when there were fewest since the timer was set."""
        self._timer: asyncio.TimerHandle | None = None
        self.kept = MAX_SPARE
        """How many the backend wants to have waiting."""

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, end: End) -> bool:
        """Keeps a connection, and owns it from here on; False when there are enough."""
        if len(self._ends) >= MAX_SPARE:
            return False
        self._ends.append(end)
        self._loop.add_reader(end.fileno(), self._spoke, end)
        self._watch()
        return True

    def take(self) -> End | None:
        """The connection that has waited longest; None when there is none."""
        if not self._ends:
            return None
        end = self._ends.popleft()
        self._fewest = min(self._fewest, len(self._ends))
        self._loop.remove_reader(end.fileno())
        return end

    def close(self) -> None:
        """Closes all of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._ends:
            self._drop(self._ends[-1])

    def _spoke(self, end: End) -> None:
        """A connection without a visitor that becomes readable has ended, or breaks the protocol: it is no use."""
        self._drop(end)

    def _drop(self, end: End) -> None:
        self._loop.remove_reader(end.fileno())
        self._ends.remove(end)
        self._fewest = min(self._fewest, len(self._ends))
        end.close()

    def _watch(self) -> None:
        if self._timer is None and len(self._ends) > self.kept:
            self._fewest = len(self._ends)
            self._timer = self._loop.call_later(SPARE_IDLE_TIME, self._shrink)

    def _shrink(self) -> None:
        self._timer = None
        for _ in range(self._fewest - self.kept):
            self._drop(self._ends[-1])
        self._watch()
