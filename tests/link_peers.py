"""Two ends of a punched link on loopback, and the paths between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from tcp import Program, connected
from tls_programs import shake_hands
from tunnelconsole.engine.services.punch.carrier import Carrier
from tunnelconsole.engine.services.punch.identity import RoomIdentity
from tunnelconsole.engine.services.punch.path import LinkTimes, PathKind
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Pump
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.wire.punch_link import Role
from waiting import until

LINK = b"L" * 16
NONCE = {"a": b"A" * 16, "b": b"B" * 16}

NEVER = 3600.0
UNHURRIED = LinkTimes(ping=NEVER, silence=NEVER, move=NEVER, patience=NEVER)
"""Times that no test lives to see."""


@cache
def room() -> RoomIdentity:
    """The identity of a room, the same one in every test."""
    return RoomIdentity(bytes(32))


class LinkSide:
    """One end of a link, its user, and what its owner was told."""

    def __init__(self, role: Role, times: LinkTimes = UNHURRIED, *, link: bytes = LINK) -> None:
        peer = "b" if role == "a" else "a"
        self.farewells = Farewells(asyncio.get_running_loop())
        self.moves: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.ends: list[str] = []
        self.carrier = Carrier(
            asyncio.get_running_loop(),
            link,
            role,
            NONCE[role],
            NONCE[peer],
            farewells=self.farewells,
            moved=self.moves.append,
            path_lost=lambda kind, reason: self.lost.append((kind, reason)),
            ended=self.ends.append,
            times=times,
        )
        self.user = Program(self.carrier.end.socket)

    async def ended(self) -> str:
        """Waits until the link is over at this end; returns why."""
        await until(lambda: self.ends)
        assert len(self.ends) == 1
        return self.ends[0]

    async def read_until_broken(self) -> tuple[bytes, str]:
        """All that the user gets, and the reason of the break behind it; "" for an orderly end."""
        pieces = []
        end = self.carrier.end
        while True:
            try:
                pieces.append(end.receive(1 << 16))
            except BlockingIOError:
                await until(lambda: _readable(end.socket))
            except ConnectionResetError as error:
                return b"".join(pieces), error.strerror or "unknown"
            else:
                if not pieces[-1]:
                    return b"".join(pieces), ""


def _readable(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


class Relay:
    """Something in between that carries a path's bytes, and can vanish, with or without a word."""

    def __init__(self, plane: Plane) -> None:
        self.near, left = connected()
        right, self.far = connected()
        self._sides = left, right
        self._pump = Pump(plane, SocketEnd(left), SocketEnd(right), lambda _: None)

    @property
    def carried(self) -> int:
        """Bytes, both ways."""
        return self._pump.bytes_in + self._pump.bytes_out

    @property
    def left(self) -> bool:
        """Whether both ends have closed the path."""
        return self.near.fileno() < 0 and self.far.fileno() < 0

    def cut(self) -> None:
        """Breaks the path off, in the middle of whatever is on its way."""
        self._pump.abort("cut")

    def fall_silent(self) -> None:
        """Carries nothing any more, and says nothing about it."""
        self._pump.left_to_right.cut()
        self._pump.right_to_left.cut()

    def close(self) -> None:
        """Closes all there is of it."""
        self.cut()
        for sock in (self.near, self.far):
            sock.close()


class LinkPair:
    """Both ends of a link."""

    def __init__(self, times: LinkTimes = UNHURRIED) -> None:
        self.plane = Plane(asyncio.get_running_loop())
        self.a, self.b = LinkSide("a", times), LinkSide("b", times)
        self.relays: list[Relay] = []

    @property
    def sides(self) -> tuple[LinkSide, LinkSide]:
        return self.a, self.b

    async def path(self, kind: PathKind = "direct", *, tls: bool = False, attach: str = "ab") -> Relay:
        """A new path through something in between that can break it."""
        relay = Relay(self.plane)
        self.relays.append(relay)
        ends: tuple[TLSEnd | SocketEnd, TLSEnd | SocketEnd] = SocketEnd(relay.near), SocketEnd(relay.far)
        if tls:
            ends = secure = room().end(relay.near, server_side=False), room().end(relay.far, server_side=True)
            await shake_hands(*secure)
        for role, side, end in zip("ab", self.sides, ends, strict=True):
            if role in attach:
                side.carrier.attach(end, kind)
        return relay

    async def moved(self, kind: PathKind, times: int = 1) -> None:
        """Waits until both ends have been told so often that the link runs on a path of this kind."""
        await until(lambda: all(side.moves.count(kind) >= times for side in self.sides))


@asynccontextmanager
async def link_pair(times: LinkTimes = UNHURRIED) -> AsyncIterator[LinkPair]:
    """A pair, which is broken off at the end where it has not ended."""
    pair = LinkPair(times)
    try:
        yield pair
    finally:
        for side in pair.sides:
            side.carrier.close("the test is over")
            side.carrier.end.close()
            await side.ended()
        for relay in pair.relays:
            relay.close()
        pair.plane.close()
        for side in pair.sides:
            side.farewells.close()
            await side.farewells.over.wait()
