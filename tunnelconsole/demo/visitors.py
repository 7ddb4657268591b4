"""The demonstration's traffic: origins that answer, and visitors that come to them through the tunnels.

Lively enough that every chart moves, gentle enough that nobody's machine notices. A visitor that is cut off, because
somebody tries out ``kick`` or ``stop``, comes back after a moment, as visitors do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from tunnelconsole import channel
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.messages import Watch
from tunnelconsole.demo.credentials import CAMERAS, SENSORS, make_tokens
from tunnelconsole.demo.engine import LEASH
from tunnelconsole.demo.over_ssh import sharing
from tunnelconsole.demo.shop import serve_shop, shop_around
from tunnelconsole.demo.streams import PAYLOAD, Streams, drink, pour, use_desk
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, EngineUnreachable

SHUT_OUT = 15.0
"""Seconds until a visitor comes back whose token was not taken: somebody may have enabled it again."""

COME_BACK = 1.5
"""Seconds until a visitor that was cut off comes back, on average."""

PATIENCE = 10.0
"""Seconds a visitor waits for a connection or an answer."""

LOOK_INTERVAL = 0.5
"""Seconds between two looks at where the services can be reached."""

NOWHERE = "192.0.2.1", 443
"""A destination that the jump server does not allow, from a block that is for examples (RFC 5737)."""

MEMBERS: tuple[tuple[str, tuple[str, ...], str, dict[str, float]], ...] = (
    ("door", ("logger", "board"), SENSORS, {"mean": 30_000, "period": 7}),
    ("lift", ("logger", "board"), SENSORS, {"mean": 45_000, "period": 13}),
    ("roof", ("logger",), SENSORS, {"mean": 20_000, "period": 5}),
    ("camera", ("recorder",), CAMERAS, {"mean": 800_000, "period": 31}),
    ("recorder", ("camera",), CAMERAS, {"mean": 4_000, "period": 9}),
    ("board", ("door", "lift", "roof"), "", {"mean": 2_000, "period": 17}),
    ("logger", ("board",), "", {"mean": 10_000, "period": 19}),
)
"""Members of the channel server, their receivers, the token of who has one, and what they send: see :func:`pour`."""

_dice = secrets.SystemRandom()


class Book:
    """Where the services can be reached, as the engine tells it."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._addresses: dict[str, str] = {}
        self._changed = asyncio.Condition()

    async def keep(self) -> None:
        """Keeps the addresses up to date, for ever."""
        while True:
            try:
                async with await ControlClient.connect(self._control) as client:
                    async for update in client.watch(Watch(["services"], interval=LOOK_INTERVAL)):
                        async with self._changed:
                            self._addresses = {row.name: row.address for row in update.services or []}
                            self._changed.notify_all()
            except EngineUnreachable:
                await asyncio.sleep(COME_BACK)

    async def address_of(self, service: str) -> tuple[str, int]:
        """Host and port of a service, as soon as it has any."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._addresses.get(service))
            host, _, port = self._addresses[service].rpartition(":")
        return host, int(port)


# origins


async def serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one ``GET /SIZE`` with so many bytes."""
    request = await reader.readuntil(b"\r\n\r\n")
    length = int(request.split(b" ")[1][1:])
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % length)
    writer.write(PAYLOAD[:length])
    await writer.drain()


async def serve_desk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a stream, as the first line asks for it: mean bytes per second, seconds of a swing, seconds in all."""
    mean, period, length = (float(word) for word in (await reader.readline()).split())
    await asyncio.gather(pour(writer, mean, period, length), drink(reader))


async def serve_shell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers line by line."""
    while line := await reader.readline():
        writer.write(line.upper() * 3)
        await writer.drain()


ORIGINS = {"pages": serve_page, "desk": serve_desk, "shell": serve_shell, "shop": serve_shop}


# visitors


class Visitors:
    """Those who come through the tunnels.

    :param book: where the services are.
    :param origins: where the origins are, for those who may choose.
    :param folder: the demonstration's, with the keys of those who come by SSH.
    :param tokens: the secrets of tokens by name, for those who come with one.
    """

    def __init__(self, book: Book, origins: dict[str, tuple[str, int]], folder: Path, tokens: dict[str, str]) -> None:
        self._book = book
        self._origins = origins
        self._folder = folder
        self._tokens = tokens

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        """Every visitor; each is one visit, to be made again and again."""
        return [
            *[lambda: self.read_pages("edge-pages")] * 2,
            *[lambda: self.read_pages("socks", "pages")] * 2,
            lambda: self.use_desk("edge-desk", mean=900_000, period=40),
            lambda: self.use_desk("edge-desk", mean=250_000, period=11),
            lambda: self.use_desk("desk-tls", mean=600_000, period=27),
            lambda: self.use_desk("socks", "desk", mean=1_400_000, period=33),
            lambda: self.use_desk("socks", "desk", mean=300_000, period=9),
            *[lambda: self.use_shell("shell")] * 2,
            lambda: self.use_shell("socks", "shell"),
            lambda: self.use_desk("hub-laptop", mean=500_000, period=21),
            lambda: self.use_desk("room-hall", mean=700_000, period=24),
            lambda: self.use_shell("attic"),
            *[lambda: self.go_shopping("shop")] * 4,
            self.share_by_ssh,
            *[lambda: self.stay_idle("shell")] * 3,
            lambda: self.stay_idle("edge-desk"),
            self.go_astray,
            self.knock,
            *[partial(self.join, name, *receivers, token=token, **rates) for name, receivers, token, rates in MEMBERS],
        ]

    async def read_pages(self, service: str, origin: str = "") -> None:
        """One short request, and a pause."""
        async with self._connected(service, origin) as (reader, writer):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: pages.example\r\n\r\n" % int(_dice.lognormvariate(10, 1.3)))
            async with asyncio.timeout(PATIENCE):
                await drink(reader)
        await asyncio.sleep(_dice.expovariate(1 / 0.8))

    async def use_desk(self, service: str, origin: str = "", *, mean: float, period: float) -> None:
        """A long stream, both ways."""
        async with self._connected(service, origin) as streams:
            await use_desk(*streams, mean, period)

    async def use_shell(self, service: str, origin: str = "") -> None:
        """Somebody who types."""
        async with self._connected(service, origin) as (reader, writer):
            for _ in range(_dice.randint(20, 80)):
                writer.write(secrets.token_hex(_dice.randint(4, 40)).encode() + b"\n")
                async with asyncio.timeout(PATIENCE):
                    await reader.readline()
                await asyncio.sleep(_dice.expovariate(1 / 0.6))

    async def go_shopping(self, name: str) -> None:
        """Some requests of a web service, by its public name."""
        _, port = await self._book.address_of("web")
        async with self._connected("web") as (reader, writer):
            await shop_around(reader, writer, f"{name}.localhost:{port}", PATIENCE)

    async def share_by_ssh(self) -> None:
        """Somebody who has nothing but SSH: shares a shop and a desk, and uses another desk from there."""
        server = await self._book.address_of("ssh")
        async with sharing(self._folder, server, self._origins["shop"], self._origins["desk"]) as ports:
            desks = [
                self._use_desk_at(port, mean=mean, period=18)
                for port, mean in zip(ports, (300_000, 150_000), strict=True)
            ]
            await asyncio.gather(*desks, self.go_shopping("garden"), self.go_shopping("garden"))

    async def _use_desk_at(self, port: int, *, mean: float, period: float) -> None:
        async with _connected_to("127.0.0.1", port) as streams:
            await use_desk(*streams, mean, period)

    async def stay_idle(self, service: str) -> None:
        """Somebody who has gone for a coffee."""
        async with self._connected(service) as (reader, _):
            try:
                async with asyncio.timeout(_dice.uniform(100, 300)):
                    await reader.read()
            except TimeoutError:
                return

    async def join(self, chid: str, *receivers: str, token: str, mean: float, period: float) -> None:
        """A member of the channel server that sends to some, and takes what others send to it.

        :param token: the name of the one that it comes with; empty for none.
        """
        host, port = await self._book.address_of("hub")
        length = _dice.uniform(120, 360)
        secret = self._tokens.get(token, "")
        async with channel.connect(f"{host}:{port}", chid, receivers=receivers, token=secret) as (reader, writer):
            tasks = asyncio.gather(pour(writer, mean, period, length), drink(reader))
            try:
                async with asyncio.timeout(length + PATIENCE):
                    await tasks
            except TimeoutError:
                return  # the others go on, and nobody tells it when they are done

    async def go_astray(self) -> None:
        """Somebody who wants to go where the jump server does not let anybody."""
        with suppress(ConnectionRefusedError):
            async with self._connected("socks", "nowhere"):
                pass
        await asyncio.sleep(_dice.uniform(15, 30))

    async def knock(self) -> None:
        """A stranger who does not know the secret, some time after the start."""
        await asyncio.sleep(_dice.uniform(20, 60))
        async with self._connected("jump") as (reader, writer):
            writer.write(bytes([20]) + secrets.token_bytes(20))
            async with asyncio.timeout(PATIENCE):
                await drink(reader)

    @asynccontextmanager
    async def _connected(self, service: str, origin: str = "") -> AsyncIterator[Streams]:
        """A connection through ``service``; with ``origin``, it is a SOCKS5 proxy and is asked for that."""
        async with _connected_to(*await self._book.address_of(service)) as streams:
            if origin:
                async with asyncio.timeout(PATIENCE):
                    await _ask_socks(*streams, *self._origins.get(origin, NOWHERE))
            yield streams


@asynccontextmanager
async def _connected_to(host: str, port: int) -> AsyncIterator[Streams]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):  # cut off by the tunnel, which is what some come for
            await writer.wait_closed()


async def _ask_socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Has a SOCKS5 proxy connect to an IPv4 address (RFC 1928, sections 3 to 6).

    :raises ConnectionRefusedError: it will not, or cannot.
    """
    writer.write(b"\x05\x01\x00")
    await reader.readexactly(2)
    writer.write(b"\x05\x01\x00\x01" + ipaddress.IPv4Address(host).packed + port.to_bytes(2, "big"))
    if (await reader.readexactly(10))[1]:
        raise ConnectionRefusedError


async def again_and_again(visit: Callable[[], Awaitable[None]]) -> None:
    """Makes a visit over and over; one that is cut off is made again after a while."""
    while True:
        try:
            await visit()
        except (OSError, EOFError, ConnectFailed):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return  # it was to end, and what it waited for broke off at that very moment
            await asyncio.sleep(_dice.expovariate(1 / COME_BACK))
        except CredentialsRefused:
            await asyncio.sleep(SHUT_OUT)


# the process


async def run(control: Path, origins: dict[str, socket.socket]) -> None:
    """Serves the origins and sends the visitors, until the leash ends."""
    tasks = Tasks("visitors", _report)
    servers = [await asyncio.start_server(_closing(ORIGINS[name]), sock=sock) for name, sock in origins.items()]
    book = Book(control)
    tasks.start(book.keep(), "book")
    visitors = Visitors(
        book, {name: sock.getsockname() for name, sock in origins.items()}, control.parent, await make_tokens(control)
    )
    for number, visit in enumerate(visitors.all()):
        tasks.start(again_and_again(visit), f"visitor {number}")
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(LEASH, over.set)
    await over.wait()
    await tasks.close()
    for server in servers:
        server.close()


def _report(task: str, error: BaseException) -> None:
    """Into the log, which the demonstration's folder has beside the engine's."""
    sys.stderr.write(f"{task}: {error!r}\n")


def _closing(serve: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """An origin that closes its connection when it is done, or when the visitor has gone without a word."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, EOFError, ValueError):
            writer.transport.abort()
        else:
            writer.close()

    return closing


def main(control: str, *named: str) -> None:
    """The visitors' process.

    :param named: the origins' listening sockets, inherited, as ``name=descriptor``.
    """
    pairs = (pair.split("=") for pair in named)
    asyncio.run(run(Path(control), {name: socket.socket(fileno=int(number)) for name, number in pairs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
