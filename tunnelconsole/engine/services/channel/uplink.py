"""A client's connection to the channel server, over which one local end after the other is bridged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from tunnelconsole.engine.services.channel.bridge import Bridge, Ended, LocalBridge, Outcome
from tunnelconsole.engine.services.channel.inlet import Inlet, Search
from tunnelconsole.engine.transport.ends import End, send_all
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.plane import Plane

GARBAGE_TIME = 10.0
"""Seconds in which bytes that belong to nothing must be over: what is still on its way of an exchange that is no more
takes no longer, and whoever has the key begins once a second."""

NOTHING_PAUSE = 1.0
"""Seconds between two times that a sender is told that what it sends belongs to nothing: bytes already on their way
are no reason to say it again."""


class Bridging(Protocol):
    """How local ends are bridged: as they are, or sealed."""

    @property
    def search(self) -> Search | None:
        """Finds what is for a local end in what comes while there is none; None when all of it is."""

    def prepare(self) -> None:
        """Does what can be done before there is a local end."""

    def start(
        self, local: End, hub: End, ended: Ended, early: bytes, pace: Pace | None, others: Callable[[], bool] | None
    ) -> LocalBridge:
        """Bridges one.

        :param others: whether other programs wait for their turn; None where there is a target.
        """

    nothing: bytes
    """What tells a sender whose bytes belong to nothing that there is nobody for them, or not any more."""

    async def refusal(self, early: bytes) -> bytes:
        """What tells whoever is behind ``early`` that there is no local end for it."""


class PlainBridging:
    """Everything goes through as it is, and nobody can be told anything."""

    search = None
    nothing = b""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def prepare(self) -> None:
        return None

    def start(
        self, local: End, hub: End, ended: Ended, early: bytes, pace: Pace | None, others: Callable[[], bool] | None
    ) -> LocalBridge:
        return Bridge(self._plane, local, hub, ended, early=early, pace=pace, others=others)

    async def refusal(self, early: bytes) -> bytes:
        return b""


class Owner(Protocol):
    """What the connection tells of itself."""

    def lost(self, reason: str) -> None:
        """It has ended, or broken, while nothing was bridged."""

    def garbage(self) -> None:
        """What comes while nothing is bridged belongs to nothing, and that for a while."""


class Uplink:
    """The connection.

    :param early: what came behind the handshake.
    """

    def __init__(self, end: End, early: bytes, bridging: Bridging, farewells: Farewells, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._bridging = bridging
        self._farewells = farewells
        self._owner = owner
        self._came = asyncio.Event()
        self._flow: LocalBridge | None = None
        self._ended: asyncio.Future[Outcome] | None = None
        self._left = False
        self._saying = False
        self._garbage_since: float | None = None
        self._nothing_said = 0.0
        self._inlet = self._read_ahead(early)
        self._say_nothing()

    async def something_came(self) -> None:
        """Waits until there is something for a local end."""
        await self._came.wait()

    def bridge(
        self, local: End, pace: Pace | None, ended: Ended, others: Callable[[], bool] | None = None
    ) -> LocalBridge:
        """Bridges a local end, and tells when that is over; see :meth:`settle`.

        :param others: whether other programs wait for their turn; None where there is a target.
        """
        ahead = self._inlet.take()
        self._garbage_since = None
        self._ended = self._loop.create_future()
        flow = self._bridging.start(local, self._end, lambda outcome: self._over(outcome, ended), ahead, pace, others)
        self._flow = flow
        return flow

    async def settle(self) -> Outcome:
        """Waits until the bridge is over, and what it had still to say is said."""
        if self._ended is None:
            raise RuntimeError("settle() without a bridge")
        outcome = await self._ended
        self._ended = None
        if not outcome.hub_lost:
            self._inlet = self._read_ahead(outcome.left)
            await self._say(outcome.unsent)
        return outcome

    async def refuse(self) -> None:
        """Tells whoever wants to be bridged that this cannot be, where it can be told."""
        ahead = self._inlet.take()
        words = await self._bridging.refusal(ahead)
        self._inlet = self._read_ahead(ahead)
        await self._say(words)

    def forget_callers(self) -> None:
        """Forgets who wanted to be bridged and has been refused: they call again, unlike what comes as it is."""
        if self._bridging.search is not None:
            self._inlet.take()
            self._inlet = self._read_ahead(b"")

    def close(self) -> None:
        """Closes the connection, and breaks off what is bridged; the other end is told where it can be."""
        if self._flow is not None:
            self._ended = None
            self._flow.abort("the channel client leaves")
        else:
            self._inlet.take()
            self._leave(b"")

    def _over(self, outcome: Outcome, ended: Ended) -> None:
        self._flow = None
        ended(outcome)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(outcome)
        else:
            self._leave(outcome.unsent)

    def _leave(self, words: bytes) -> None:
        if not self._left:
            self._left = True
            # To the server a half-close is no leaving: it would keep us for what others send.
            self._farewells.bid(self._end, words, reset=True)

    def _read_ahead(self, ahead: bytes) -> Inlet:
        self._came.clear()
        self._bridging.prepare()
        return Inlet(
            self._loop,
            self._end,
            ahead,
            self._came.set,
            self._owner.lost,
            search=self._bridging.search,
            garbage=self._garbage,
        )

    def _garbage(self, thrown_away: bytes) -> None:
        """Bytes came that belong to nothing: of an exchange that its other end does not know to be over, perhaps."""
        if not thrown_away.replace(self._bridging.nothing, b""):
            return
        now = self._loop.time()
        if self._garbage_since is None:
            self._garbage_since = now
        elif now - self._garbage_since >= GARBAGE_TIME:
            self._garbage_since = now
            self._owner.garbage()
        if now - self._nothing_said >= NOTHING_PAUSE:
            self._say_nothing()

    async def _say(self, words: bytes) -> None:
        self._saying = True
        try:
            await send_all(self._end, words)
        finally:
            self._saying = False

    def _say_nothing(self) -> None:
        """Tells whoever believes to be in an exchange with us that this is not so."""
        if self._saying:
            return
        self._nothing_said = self._loop.time()
        with suppress(OSError):  # there is no room for it now, or the connection is broken, which others notice
            self._end.send(self._bridging.nothing)
