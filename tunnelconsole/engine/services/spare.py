"""The pool of data connections that wait for a visitor, at a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

SPARE_IDLE_TIME: Final = 30.0
"""Seconds after which connections that no visitor needed are closed, beyond those that the client keeps ready: a burst
may leave hundreds, of a descriptor each at both ends, and the next one seldom comes later."""

C = TypeVar("C")


class SparePool(Generic[C]):
    """One client's data connections without a visitor.

    The server closes those that are too many, and not the client which dialled them: only so no visitor can be on its
    way to one of them.

    :param most: connections it holds at the most.
    :param drop: closes a connection that is too many.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, drop: Callable[[C], None]) -> None:
        self._loop = loop
        self._most = most
        self.drop = drop
        self._idle: dict[C, None] = {}
        self._fewest = 0
        """How many were left when there were fewest since the timer was set."""
        self._timer: asyncio.TimerHandle | None = None
        self.kept = most
        """How many the client wants to have waiting."""

    def __len__(self) -> int:
        return len(self._idle)

    def __contains__(self, connection: object) -> bool:
        return connection in self._idle

    def add(self, connection: C) -> bool:
        """Keeps a connection; False when there are enough."""
        count = len(self._idle)
        if count >= self._most:
            return False
        self._idle[connection] = None
        if count >= self.kept and self._timer is None:
            self._watch()
        return True

    def take(self) -> C | None:
        """The connection that came last, which is the likeliest to live; None when there is none."""
        if not self._idle:
            return None
        connection, _ = self._idle.popitem()
        if self._timer is not None:
            self._fewest = min(self._fewest, len(self._idle))
        return connection

    def remove(self, connection: C) -> None:
        """Forgets a connection that is no use any more; one that is not here is none of ours."""
        if connection in self._idle:
            del self._idle[connection]
            self._fewest = min(self._fewest, len(self._idle))

    def close(self) -> None:
        """Drops all of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            self.drop(self._idle.popitem()[0])

    def _watch(self) -> None:
        self._fewest = len(self._idle)
        self._timer = self._loop.call_later(SPARE_IDLE_TIME, self._shrink)

    def _shrink(self) -> None:
        self._timer = None
        for connection in list(self._idle)[: max(0, self._fewest - self.kept)]:
            del self._idle[connection]
            self.drop(connection)
        if len(self._idle) > self.kept:
            self._watch()
