"""Programs on loopback: targets that tunnels lead to, callers that come through them, and what they leave behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ports import steady_port
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Event
from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.settings import HostPort, ListenAddress, NetworkPattern
from tunnelconsole.engine.wire.hostport import format_host_port
from waiting import until

FREE = ListenAddress("127.0.0.1", 0)
"""Where a service listens: a free port of loopback."""

LOOPBACK_NETWORK = NetworkPattern("127.0.0.0/8")

PATIENCE = 30.0
"""Seconds until a read counts as stuck."""

BULK = os.urandom(1024 * 1024) * 6 + b"the end"
"""More than every buffer on the way holds, and of no round length."""

E = TypeVar("E", bound=Event)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Caller:
    """A program's end of a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def name(self) -> str:
        """Its own address, as the other end sees it."""
        return format_host_port(*self._writer.get_extra_info("sockname")[:2])

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(count)

    async def read_to_end(self) -> bytes:
        """All until the other end closes its side.

        :raises ConnectionResetError: the connection broke instead.
        """
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    async def exchange(self, data: bytes) -> bytes:
        """Sends all of ``data``, then its end, and returns all that comes back meanwhile and until the end."""

        async def send() -> None:
            await self.send(data)
            self.half_close()

        answer, _ = await asyncio.gather(self.read_to_end(), send())
        return answer

    async def broken(self) -> bool:
        """Waits for the connection's end: True when it was a reset, False when it was orderly."""
        try:
            await self.read_to_end()
        except ConnectionResetError:
            return True
        return False

    def half_close(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        reset(self._writer)

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


def reset(writer: asyncio.StreamWriter) -> None:
    """Breaks a connection."""
    if not writer.transport.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def calling(address: str | HostPort, from_host: str = "127.0.0.1") -> AsyncIterator[Caller]:
    """A connection to ``address`` from one of loopback's addresses."""
    where = HostPort.parse(address) if isinstance(address, str) else address
    host = "127.0.0.1" if where.host == "localhost" else where.host
    local = None if ":" in host else (from_host, 0)
    caller = Caller(*await asyncio.open_connection(host, where.port, local_addr=local))
    try:
        yield caller
    finally:
        await caller.close()


async def refuses(address: str) -> None:
    """Waits until nobody listens at ``address`` any more."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionRefusedError):
            while True:
                with suppress(ConnectionResetError):
                    async with calling(address) as caller:
                        await caller.read_to_end()


class Target:
    """A program that a tunnel leads to.

    :param address: where it listens.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = HostPort("127.0.0.1", 1)
        self.served = 0
        """Connections there have been."""

    @property
    def open(self) -> int:
        """Connections there are."""
        return len(self._writers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served += 1
        self._writers.add(writer)
        try:
            await self._handler(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()
            self._writers.discard(writer)

    def reset_all(self) -> None:
        """Breaks every connection there is."""
        for writer in list(self._writers):
            reset(writer)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes, and closes its side after the other's end."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def digest_at_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing until the other side has closed, then the SHA-256 of what came: needs the half-close."""
    digest = hashlib.sha256()
    while data := await reader.read(1 << 16):
        digest.update(data)
    writer.write(digest.digest())
    await writer.drain()


async def speak_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greets, closes its side at once, and takes what the other has to say."""
    writer.write(b"hello")
    writer.write_eof()
    await reader.read()


async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes and says nothing."""
    await reader.read()


@asynccontextmanager
async def target(handler: Handler = echo, host: str = "127.0.0.1") -> AsyncIterator[Target]:
    """A running :class:`Target`."""
    made = Target(handler)
    server = await asyncio.start_server(made.serve, host, 0, backlog=1024)
    made.address = HostPort(*server.sockets[0].getsockname()[:2])
    try:
        yield made
    finally:
        server.close()
        made.reset_all()
        await until(lambda: not made.open)


@asynccontextmanager
async def running(**services: ServiceSettings) -> AsyncIterator[Engine]:
    """An engine whose services have come to something, listening or not."""
    async with Engine({name.replace("_", "-"): settings for name, settings in services.items()}) as engine:
        await engine.settled()
        yield engine


def address_of(engine: Engine, service: str) -> str:
    """Where a service listens, or can be reached."""
    return str(engine.services[service].address)


def told(engine: Engine, kind: type[E]) -> list[E]:
    """The events of one kind there have been, oldest first."""
    return [record.event for record in engine.node.bus.recent() if isinstance(record.event, kind)]


async def hears(engine: Engine, kind: type[E], text: str = "") -> E:
    """Waits for an event of one kind whose sentence has ``text`` in it."""
    found = await until(lambda: [event for event in told(engine, kind) if text in event.text()])
    return found[0]


def open_descriptors() -> int:
    """Sockets and pipes that this process has open; a loop may keep other files for itself."""
    count = 0
    for path in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the descriptor that listed the folder
            mode = os.fstat(int(path.name)).st_mode
            count += stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)
    return count


@contextmanager
def blackhole() -> Iterator[HostPort]:
    """An address where a connection is neither taken nor refused: a listener whose queue is full."""
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield HostPort(*server.getsockname())


def steady() -> ListenAddress:
    """Where a service listens whose address must not become another's once it has gone."""
    return ListenAddress("127.0.0.1", steady_port())


def nobody() -> HostPort:
    """An address where nobody listens."""
    return HostPort("127.0.0.1", steady_port())


def sha256(data: bytes) -> bytes:
    """The digest that :func:`digest_at_end` answers."""
    return hashlib.sha256(data).digest()
