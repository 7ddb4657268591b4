"""Joins one local end after another with a connection to the channel server that outlives them.

The channel server's protocol has no end of a stream: when a local end has closed its sending side nobody is told, and
the connection stays as it is for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tunnelconsole.engine.transport.adaptive import AdaptiveHalf
from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.half import Half
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.plane import CAN_SPLICE, Plane
from tunnelconsole.engine.transport.repacing import repaced

SILENCE = 5.0
"""Seconds without a byte for it after which a program that has closed its sending side is taken to be gone; nothing
else tells one that waits for an answer from one that has gone."""

SHORT_SILENCE = 1.0
"""The same where other programs wait for their turn."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a bridge."""

    reason: str = ""
    """Why it ended; empty where the local end did in order."""
    left: bytes = b""
    """What the channel server brought and the local end did not get: the next one's."""
    unsent: bytes = b""
    """What is still to be sent to the channel server, before anything of the next one."""
    hub_lost: bool = False
    """Whether the connection to the channel server has ended, or broken."""
    fault: bool = False
    """Whether what came was not what the other end had sealed."""


Ended = Callable[[Outcome], None]
"""Told once, when the local end is closed; never from within a constructor."""


class LocalBridge(Protocol):
    """A bridge, as the client sees it: a flow whose remote party is the local end."""

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the local end."""

    @property
    def bytes_out(self) -> int:
        """Bytes that went to it."""

    @property
    def path(self) -> str:
        """How they travel."""

    def abort(self, reason: str) -> None:
        """Ends it now, with a reset to the local end; what it sent before still goes out."""


class Bridge:
    """Joins ``local`` with ``hub`` until the local end is done, as it is: spliced where both are plain.

    It owns ``local`` and closes it; ``hub`` stays open.

    :param early: what the channel server brought before; delivered first.
    :param pace: limits both directions together to a rate; None for no limit.
    :param others: whether other programs wait for their turn; None where there is a target, which is done once it has
        closed its sending side: what comes later is for the next one.
    """

    __slots__ = (
        "_deaf",
        "_ended",
        "_hub",
        "_left",
        "_local",
        "_loop",
        "_others",
        "_over",
        "_plane",
        "_timer",
        "_to_hub",
        "_to_local",
        "path",
    )

    def __init__(
        self,
        plane: Plane,
        local: End,
        hub: End,
        ended: Ended,
        *,
        early: bytes = b"",
        pace: Pace | None = None,
        others: Callable[[], bool] | None = None,
    ) -> None:
        self._plane = plane
        self._hub = hub
        self._loop = plane.loop
        self._others = others
        self._local = local
        self._ended = ended
        self._over = False
        self._deaf = False
        self._left = b""
        self._timer: asyncio.TimerHandle | None = None
        self._to_hub: Half
        self._to_local: Half
        if pace is None and isinstance(local, SocketEnd) and isinstance(hub, SocketEnd):
            self._to_hub = AdaptiveHalf(self, plane, local.socket, hub.socket, passes_end=False)
            self._to_local = AdaptiveHalf(self, plane, hub.socket, local.socket, passes_end=False)
            self.path = "splice" if CAN_SPLICE else "tcp"
        else:
            self._to_hub = BufferedHalf(self, plane.loop, local, hub, pace, passes_end=False)
            self._to_local = BufferedHalf(self, plane.loop, hub, local, pace, passes_end=False)
            self.path = hub.path
        self._to_hub.start(b"")
        self._to_local.start(early)

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the local end."""
        return self._to_hub.total

    @property
    def bytes_out(self) -> int:
        """Bytes that went to it."""
        return self._to_local.total - len(self._left)

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on; None for no limit."""
        if not self._over:
            local, hub = self._local, self._hub
            self._to_hub = repaced(self._to_hub, self._plane, local, hub, pace, passes_end=False)
            self._to_local = repaced(self._to_local, self._plane, hub, local, pace, passes_end=False)
            spliced = isinstance(self._to_hub, AdaptiveHalf) and CAN_SPLICE
            self.path = "splice" if spliced else "tcp" if isinstance(self._to_hub, AdaptiveHalf) else hub.path

    def abort(self, reason: str) -> None:
        """Ends it now, with a reset to the local end; what it sent before still goes out."""
        self._end(reason)

    def half_ended(self) -> None:
        """One direction delivered its last byte; called by the direction itself."""
        if not self._deaf and self._to_local.over:
            self._end("the channel server closed the connection", hub_lost=True)
        elif self._deaf or self._others is None:
            self._end("")
        else:
            self._wait(self._others, self._to_local.total, 0.0)

    def half_broken(self, half: Half, error: OSError, *, sending: bool) -> None:
        """One direction broke; called by the direction itself."""
        if (half is self._to_hub) == sending:
            cause = error.strerror or str(error)
            self._end(f"the connection to the channel server broke: {cause}", hub_lost=True)
        elif not sending:
            self._end(f"the local end broke off: {error.strerror or error}")
        else:
            # What it sent before it closed may still be on its way to us.
            self._left = self._to_local.take_back()
            self._deaf = True
            if self._to_hub.over:
                self._end("")

    def _wait(self, others: Callable[[], bool], seen: int, silent: float) -> None:
        """Lets a program go that has closed its sending side, once nothing has come for it for a while.

        :param seen: bytes that had come for it when it was looked at last.
        :param silent: seconds without more.
        """
        self._timer = self._loop.call_later(SHORT_SILENCE, self._look, others, seen, silent + SHORT_SILENCE)

    def _look(self, others: Callable[[], bool], seen: int, silent: float) -> None:
        if self._to_local.total != seen:
            self._wait(others, self._to_local.total, 0.0)
        elif silent >= SILENCE or others():
            self._end("")
        else:
            self._wait(others, seen, silent)

    def _end(self, reason: str, *, hub_lost: bool = False) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._to_local.over:
            self._left = self._to_local.take_back()
        unsent = b"" if self._to_hub.over else self._to_hub.take_back()
        if reason:
            self._local.abort()
        else:
            self._local.close()
        self._loop.call_soon(self._ended, Outcome(reason, self._left, unsent, hub_lost))
