"""An end as the streams of asyncio, for programs that use a tunnel themselves."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from tunnelconsole.engine.transport.bridge import PairEnd
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Finished, Pump

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Joint(Protocol):
    """What joins a local end with one that leads away, as :class:`~tunnelconsole.engine.transport.pump.Pump` does."""

    @property
    def reason(self) -> str:
        """Why it ended, or is about to; empty where it did in order, or has not."""

    @property
    def undelivered(self) -> str | None:
        """Why what the local end has sent may not have arrived; empty where it has, None where nobody can tell."""

    def abort(self, reason: str) -> None:
        """Cuts both directions now."""

    def stop_receiving(self) -> None:
        """Takes no more from what leads away: it ends once what the local end sent has been delivered."""


Join = Callable[[Plane, End, Finished], Joint]
"""Joins a local end with one that leads away."""


@asynccontextmanager
async def streams_of(end: End, early: bytes, timeout: float) -> AsyncIterator[Streams]:
    """The streams of asyncio over ``end``, which they own; the reader begins with ``early``.

    Half-close works (``writer.write_eof()``), with TLS too; a connection that breaks raises from the streams. When the
    block fails, the connection is reset, so that the far side does not take half a message for a whole one.

    :param timeout: seconds at the end of the block for the far side to take what was written and not yet delivered.
    """
    if isinstance(end, SocketEnd):
        async with _streams(end.socket, timeout, early) as streams:
            yield streams
        return

    def join(plane: Plane, near: End, finished: Finished) -> Pump:
        return Pump(plane, near, end, finished, early_right=early)

    async with joined_streams(join, timeout) as streams:
        yield streams


@asynccontextmanager
async def joined_streams(join: Join, timeout: float) -> AsyncIterator[Streams]:
    """As :func:`streams_of`, over one end of a socket pair whose other end ``join`` joins with what leads away.

    For what asyncio has no transport for, or one that cannot half-close.

    :raises ConnectionResetError: at the end of the block, when what was written may not have arrived, where
        ``join`` makes something that can tell.
    """
    near, far = socket.socketpair()
    bridge = _Bridge(far, join)
    try:
        async with _streams(near, timeout, broken=bridge.break_off) as (reader, writer):
            bridge.tells(reader)
            yield reader, writer
        await bridge.deliver(timeout)
    finally:
        await bridge.close()


@asynccontextmanager
async def _streams(
    sock: socket.socket, timeout: float, early: bytes = b"", broken: Callable[[], None] = lambda: None
) -> AsyncIterator[Streams]:
    """The streams over ``sock``.

    :param broken: told when what was written last is thrown away, before ``sock`` is closed.
    """
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    reader = asyncio.StreamReader()
    if early:
        reader.feed_data(early)
    protocol = asyncio.StreamReaderProtocol(reader)
    connect_socket = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    transport, _ = await connect_socket(lambda: protocol, sock=sock)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    def break_off() -> None:
        broken()
        with suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    try:
        yield reader, writer
    except BaseException:
        break_off()
        raise
    writer.close()
    try:
        async with asyncio.timeout(timeout):
            await writer.wait_closed()
    except OSError:  # the far side went first, or it does not read (TimeoutError): half of it is no whole
        break_off()


class _Bridge:
    """Joins what leads away with one end of a socket pair; the streams get the other."""

    def __init__(self, far: socket.socket, join: Join) -> None:
        far.setblocking(False)
        self._far = PairEnd(far, self._tell)
        self._over = asyncio.Event()
        self._reader: asyncio.StreamReader | None = None
        self._untold = False
        """Whether it broke in a way that the streams have not shown."""
        self._plane = Plane(asyncio.get_running_loop())
        self._joint = join(self._plane, self._far, self._ended)

    def tells(self, reader: asyncio.StreamReader) -> None:
        """``reader`` learns when the connection breaks."""
        self._reader = reader

    def _ended(self, reason: str) -> None:
        self._over.set()

    def _tell(self) -> None:
        """Tells the reader that its end, which it sees next, is a break."""
        if self._reader is not None:
            self._untold |= self._reader.at_eof()
            self._reader.set_exception(ConnectionResetError(self._joint.reason))

    def break_off(self) -> None:
        """The streams end, but what was written is not complete."""
        self._untold = True
        self._joint.abort("what was written last was not taken in time")

    async def deliver(self, timeout: float) -> None:
        """Waits until what was written is with the far side; after ``timeout`` seconds no more.

        :raises ConnectionResetError: it may not have arrived.
        """
        self._joint.stop_receiving()
        with suppress(TimeoutError):  # a far side that does not read is cut by close()
            async with asyncio.timeout(timeout):
                await self._over.wait()
        if self._joint.undelivered is None:
            return
        if reason := self._joint.undelivered or (self._untold and self._joint.reason):
            raise ConnectionResetError(reason)

    async def close(self) -> None:
        """Cuts what is not over yet."""
        self._joint.abort("the program is done with it")
        await self._over.wait()
        self._plane.close()
