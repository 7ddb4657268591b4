"""Relay backends and servers by hand, frame by frame, and ours on loopback."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from loopback import (
    FREE,
    PATIENCE,
    Caller,
    Handler,
    Target,
    address_of,
    calling,
    echo,
    reset,
    running,
    target,
)
from ports import steady_port
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.relay.client import RelayClient, RelayClientSettings
from tunnelconsole.engine.services.relay.server import RelayServer, RelayServerSettings
from tunnelconsole.engine.settings import HostPort, PortRange
from tunnelconsole.engine.wire.relay import (
    DATA_MAGIC,
    KEY_LENGTH,
    NATIVE_WINDOW,
    NativeHello,
    NativeKey,
    encode_message,
    parse_message,
)
from waiting import until
from yamux_frames import ACK, DATA, FIN, SYN, WINDOW, data, frame

HEADER = struct.Struct(">BBHII")


class Frame(NamedTuple):
    """One yamux frame; ``payload`` is empty but for data."""

    kind: int
    flags: int
    stream_id: int
    length: int
    payload: bytes = b""


class YamuxPeer:
    """One end of a yamux session that does what a test tells it, right or wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def next(self) -> Frame | None:
        """The other end's next frame; None at its end or when it broke off."""
        async with asyncio.timeout(PATIENCE):
            try:
                _, kind, flags, stream_id, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                payload = await self._reader.readexactly(length) if kind == DATA else b""
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return Frame(kind, flags, stream_id, length, payload)

    async def find(self, kind: int, stream_id: int | None = None, flags: int = 0) -> Frame:
        """The next frame of this kind, on this stream, with these flags among its own."""
        while (found := await self.next()) is not None:
            if found.kind == kind and stream_id in (None, found.stream_id) and found.flags & flags == flags:
                return found
        raise AssertionError(f"the other end closed without a frame of type {kind} for stream {stream_id}")

    async def rest(self) -> list[Frame]:
        """All frames until the other end closes or breaks off."""
        frames = []
        while (found := await self.next()) is not None:
            frames.append(found)
        return frames

    async def read(self, stream_id: int, count: int) -> bytes:
        """So many bytes of a stream."""
        received = b""
        while len(received) < count:
            received += (await self.find(DATA, stream_id)).payload
        return received

    async def visitor(self) -> int:
        """The id of the stream that the relay opens for its next visitor, acknowledged."""
        stream_id = (await self.find(WINDOW, flags=SYN)).stream_id
        await self.send(frame(WINDOW, ACK, stream_id))
        return stream_id

    def reset(self) -> None:
        reset(self.writer)


@dataclass
class Edge:
    """A running relay server named ``edge``."""

    engine: Engine
    address: str

    @property
    def service(self) -> RelayServer:
        service = self.engine.services["edge"]
        assert isinstance(service, RelayServer)
        return service

    def calling(self, from_host: str = "127.0.0.1") -> AbstractAsyncContextManager[Caller]:
        """A newcomer who has said nothing yet."""
        return calling(self.address, from_host)

    @asynccontextmanager
    async def newcomer(self) -> AsyncIterator[YamuxPeer]:
        """A newcomer who will speak yamux."""
        where = HostPort.parse(self.address)
        reader, writer = await asyncio.open_connection(where.host, where.port)
        try:
            yield YamuxPeer(reader, writer)
        finally:
            writer.close()

    @asynccontextmanager
    async def backend(self) -> AsyncIterator[tuple[YamuxPeer, str]]:
        """An attached backend that speaks plain yamux, and its public address."""
        async with self.newcomer() as peer:
            yield peer, await ask_for_port(peer)


def one_port() -> PortRange:
    """A pool of one port that is free now."""
    port = steady_port()
    return PortRange(port, port)


async def ask_for_port(peer: YamuxPeer) -> str:
    """Opens stream 1 and returns what the relay writes there, as the original's client does."""
    await peer.send(frame(WINDOW, SYN, 1))
    text = (await peer.find(DATA, 1)).payload.decode()
    await peer.find(WINDOW, 1, FIN)
    await peer.send(frame(WINDOW, FIN, 1))
    return text


async def attaches(at: Edge) -> str:
    """Proves that a newcomer gets a public port, and returns it."""
    async with at.backend() as (_, address):
        return address


async def ask_for_key(peer: YamuxPeer, spare: int | None = None) -> bytes:
    """Opens stream 3 and returns the key for data connections, as our client does that keeps ``spare`` waiting."""
    await peer.send(frame(WINDOW, SYN, 3), data(3, encode_message(NativeHello(spare))))
    message = parse_message((await peer.find(DATA, 3)).payload)
    assert isinstance(message, NativeKey)
    return message.key


def relay_server(**changes: Any) -> RelayServerSettings:
    """A relay server on loopback."""
    return RelayServerSettings(**{"listen": FREE, "public_host": "127.0.0.1", **changes})


@asynccontextmanager
async def edge(**changes: Any) -> AsyncIterator[Edge]:
    """A relay server with these settings changed."""
    async with running(edge=relay_server(**changes)) as engine:
        yield Edge(engine, address_of(engine, "edge"))


def relay_client(server: str | HostPort, where: HostPort, **changes: Any) -> RelayClientSettings:
    """A backend of ``server`` that leads its visitors to ``where``."""
    at = HostPort.parse(server) if isinstance(server, str) else server
    return RelayClientSettings(**{"server": at, "target": where, **changes})


@dataclass
class Shop:
    """A running relay client named ``shop``, the program it leads to, and the relay that gave it a public port."""

    engine: Engine
    edge: Edge
    far: Target

    @property
    def service(self) -> RelayClient:
        service = self.engine.services["shop"]
        assert isinstance(service, RelayClient)
        return service

    @property
    def address(self) -> str:
        """Where visitors come."""
        return address_of(self.engine, "shop")

    def visiting(self) -> AbstractAsyncContextManager[Caller]:
        """A visitor."""
        return calling(self.address)

    async def serves(self) -> None:
        """Proves that a visitor reaches the program, an echo."""
        async with self.visiting() as visitor:
            assert await visitor.exchange(b"ping") == b"ping"


@asynccontextmanager
async def shop_at(at: Edge, handler: Handler = echo, **changes: Any) -> AsyncIterator[Shop]:
    """A relay client of a relay that runs already, connected, with these settings changed."""
    async with target(handler) as far, running(shop=relay_client(at.address, far.address, **changes)) as engine:
        shop = Shop(engine, at, far)
        assert shop.service.state == "connected", shop.service.error
        if shop.service.settings.native and at.service.settings.native and shop.service.settings.spare_connections:
            await until(lambda: any(backend._spare for backend in at.service.backends.values()))
        yield shop


@asynccontextmanager
async def shop(
    handler: Handler = echo, server: Mapping[str, Any] = MappingProxyType({}), **changes: Any
) -> AsyncIterator[Shop]:
    """A relay client with these settings changed, at a server with ``server`` changed."""
    async with edge(**server) as at, shop_at(at, handler, **changes) as made:
        yield made


def answer(text: bytes, window: int = 0) -> bytes:
    """What a server says to a backend that asks for a port.

    :param text: its public address.
    :param window: bytes by which stream 1 is acknowledged; ours says by that who it is.
    """
    return frame(WINDOW, ACK, 1, window) + data(1, text) + frame(WINDOW, FIN, 1)


class RelayHost:
    """A relay server by hand.

    :param answer: what it says to every backend that asks for a port.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._backends: asyncio.Queue[YamuxPeer] = asyncio.Queue()
        self._data_connections: asyncio.Queue[Caller] = asyncio.Queue()
        self.released = asyncio.Event()
        self.address = HostPort("127.0.0.1", 1)
        self.data_connections = 0
        """Data connections there have been."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(HEADER.size)
        if first.startswith(DATA_MAGIC):
            self.data_connections += 1
            await reader.readexactly(len(DATA_MAGIC) + KEY_LENGTH - len(first))
            self._data_connections.put_nowait(Caller(reader, writer))
        else:
            assert first == frame(WINDOW, SYN, 1)
            peer = YamuxPeer(reader, writer)
            await peer.send(self._answer)
            self._backends.put_nowait(peer)
        await self.released.wait()

    async def backend(self) -> YamuxPeer:
        """The next backend that has asked for a port."""
        async with asyncio.timeout(PATIENCE):
            return await self._backends.get()

    async def native_backend(self) -> YamuxPeer:
        """The next backend, which has been told a key for data connections."""
        peer = await self.backend()
        await peer.find(WINDOW, 3, SYN)
        await peer.send(frame(WINDOW, ACK, 3))
        assert isinstance(parse_message((await peer.find(DATA, 3)).payload), NativeHello)
        await peer.send(data(3, encode_message(NativeKey(bytes(KEY_LENGTH)))))
        return peer

    async def data_connection(self) -> Caller:
        """The next data connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._data_connections.get()


@asynccontextmanager
async def relay_host(said: bytes | None = None, *, native: bool = False) -> AsyncIterator[RelayHost]:
    """A running :class:`RelayHost`.

    :param said: what it says to a backend, an address unless it is given.
    """
    host = RelayHost(answer(b"localhost:7101", NATIVE_WINDOW if native else 0) if said is None else said)
    async with target(host.serve) as listening:
        host.address = listening.address
        try:
            yield host
        finally:
            host.released.set()


@asynccontextmanager
async def attached(host: RelayHost, handler: Handler = echo, **changes: Any) -> AsyncIterator[tuple[Engine, Target]]:
    """A relay client of ``host`` with these settings changed, and the program it leads to."""
    async with target(handler) as far, running(shop=relay_client(host.address, far.address, **changes)) as engine:
        yield engine, far
