"""A service under the engine's eyes."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from tunnelconsole.engine.services.service import Service, State
from tunnelconsole.errors import ConnectFailed

LONGEST_DRAIN = 7 * 86400.0
"""Seconds that a drain may be given: whoever has begun one has forgotten it by then."""


class Supervised:
    """A service, the task that keeps it running, and how that went."""

    def __init__(self, service: Service[Any]) -> None:
        self.service = service
        self.task: asyncio.Task[None] | None = None
        self.restarts = 0
        self.retry_at: float | None = None
        self.error: Exception | None = None
        """What ended the last run; None while there was none."""
        self.ending = False
        """Whether it shall not be started again: what it carries may finish, or has been cut."""
        self.drain: asyncio.Task[None] | None = None
        """What stops it once it carries nothing more; None unless it is draining."""
        self.drain_ends: float | None = None
        """Unix time at which that is done whatever it carries."""

    @property
    def state(self) -> State | Literal["draining"]:
        """As it is told: that of the service, unless that has been told to take nothing new."""
        return self.service.state if self.drain is None else "draining"

    def leave_drain(self) -> None:
        """Has nothing stop it any more but whoever calls."""
        drain, self.drain, self.drain_ends = self.drain, None, None
        if drain is not None and drain is not asyncio.current_task():
            drain.cancel()


async def until_set(events: Iterable[asyncio.Event], seconds: float) -> None:
    """Waits until all are set, or so many seconds have passed; :data:`math.inf` for as long as it takes."""
    with contextlib.suppress(TimeoutError):  # what is left then is the caller's affair
        async with asyncio.timeout(None if math.isinf(seconds) else seconds):
            for event in events:
                await event.wait()


async def failing(found: Sequence[Supervised], within: float) -> list[str]:
    """Why those of these do not run that cannot; see :meth:`~tunnelconsole.engine.engine.Engine.failing`."""
    await until_set([each.service.settled for each in found if each.task is not None], within)
    return [
        f"service {each.service.name}: {each.service.error}"
        for each in found
        if each.service.state in ("backoff", "failed") and not isinstance(each.error, ConnectFailed)
    ]
