"""Two yamux sessions over one connection, and users of their streams that remember what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tcp import connected
from tls_programs import ends_of, shake_hands
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from waiting import until

NEVER = 3600.0
"""Seconds of keepalive that no test lives to see."""


class Heard(QuietUser):
    """A user that remembers everything.

    :param mux: when given, received bytes count as passed on at once.
    """

    def __init__(self, mux: Mux | None = None) -> None:
        self._mux = mux
        self.stream_id = 0
        self.bytes = bytearray()
        self.ended = False
        self.losses: list[str] = []
        self.extra_window: int | None = None
        self.room_again = 0

    def accepted(self, extra_window: int) -> None:
        self.extra_window = extra_window

    def received(self, data: bytes) -> None:
        self.bytes += data
        if self._mux is not None:
            self._mux.consumed(self.stream_id, len(data))

    def can_send(self) -> None:
        self.room_again += 1

    def half_closed(self) -> None:
        self.ended = True

    def lost(self, reason: str) -> None:
        self.losses.append(reason)


class Side:
    """One session, and what it was told.

    :param end: the connection, owned by the session.
    """

    def __init__(self, end: End, *, client: bool, keepalive: float = NEVER, early: bytes = b"") -> None:
        self.slow: set[int] = set()
        """Streams of the other side's whose bytes nobody passes on."""
        self.turned_away: set[int] = set()
        """Streams of the other side's that are not accepted."""
        self.extra_window = 0
        """What is granted with each acceptance."""
        self.peers: dict[int, Heard] = {}
        """The users of the other side's streams."""
        self.closed: list[str] = []
        self.caught_up = 0
        """How often the other side has caught up with the streams of this side's."""
        self.end = end
        self.mux = Mux(
            asyncio.get_running_loop(),
            end,
            client=client,
            opened=self._opened,
            closed=self.closed.append,
            keepalive=keepalive,
            farewells=Farewells(asyncio.get_running_loop()),
            early=early,
            caught_up=self._caught_up,
        )

    def _caught_up(self) -> None:
        self.caught_up += 1

    def _opened(self, stream_id: int) -> None:
        if stream_id in self.turned_away:
            self.mux.reject(stream_id)
            return
        user = self.peers[stream_id] = Heard(None if stream_id in self.slow else self.mux)
        user.stream_id = stream_id
        self.mux.accept(stream_id, user, self.extra_window)

    def open(self) -> Heard:
        """A new stream of this side's."""
        user = Heard(self.mux)
        user.stream_id = self.mux.open(user) or 0
        assert user.stream_id
        return user

    async def peer_of(self, user: Heard) -> Heard:
        """This side's user of a stream that the other side has opened for ``user``."""
        await until(lambda: user.stream_id in self.peers)
        return self.peers[user.stream_id]

    async def ended(self) -> str:
        """Waits until the session has ended, once and with its end closed; returns why."""
        await until(lambda: self.closed)
        await until(lambda: self.end.fileno() == -1)
        assert len(self.closed) == 1
        return self.closed[0]


@asynccontextmanager
async def sessions(*, tls: bool = False, buffer: int | None = None) -> AsyncIterator[tuple[Side, Side]]:
    """A client's and a server's session, joined."""
    near, far = connected(buffer)
    pair: tuple[End, End] = (SocketEnd(near), SocketEnd(far))
    if tls:
        pair = secure = ends_of(near, far)
        await shake_hands(*secure)
    client, server = Side(pair[0], client=True), Side(pair[1], client=False)
    try:
        yield client, server
    finally:
        for side in (client, server):
            side.mux.close("the test is over")
            await side.ended()
