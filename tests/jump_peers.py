"""Jump clients and servers by hand, and the settings of ours on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from loopback import FREE, Caller, Handler, Target, address_of, calling, echo, running, target
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.jump.client import JumpClient, JumpClientSettings
from tunnelconsole.engine.services.jump.server import JumpServer, JumpServerSettings
from tunnelconsole.engine.settings import DestinationPattern, HostPort, Secret
from tunnelconsole.engine.wire.jump import answer
from tunnelconsole.engine.wire.socks5 import Reply

SECRET = "superBigSecret"
YES = b"\x00"

_SERVER = JumpServerSettings(
    listen=FREE, secret=Secret(SECRET), allow=(DestinationPattern("127.0.0.0/8:*"), DestinationPattern("[::1]:*"))
)


def jump_server(**changes: Any) -> JumpServerSettings:
    """A jump server that may dial loopback only."""
    return msgspec.structs.replace(_SERVER, **changes)


def jump_client(server: str | HostPort, **changes: Any) -> JumpClientSettings:
    """A SOCKS5 client of ``server``."""
    where = HostPort.parse(server) if isinstance(server, str) else server
    settings = JumpClientSettings(server=where, secret=Secret(SECRET), listen=FREE)
    return msgspec.structs.replace(settings, **changes)


def framed(data: bytes) -> bytes:
    """One length byte and the data."""
    return bytes([len(data)]) + data


async def read_frame(caller: Caller) -> bytes:
    """The content of the next frame."""
    return await caller.read((await caller.read(1))[0])


async def proof(caller: Caller, secret: str = SECRET) -> bytes:
    """Reads the challenge and returns the frame that answers it."""
    return framed(answer(await read_frame(caller), secret.encode()))


async def ask(caller: Caller, where: object, secret: str = SECRET) -> str:
    """Goes through a server's handshake; returns "" once connected, and the server's reason otherwise."""
    await caller.send(await proof(caller, secret))
    if await caller.read(1) != YES:
        return (await read_frame(caller)).decode()
    await caller.send(framed(str(where).encode()))
    if await caller.read(1) != YES:
        return (await read_frame(caller)).decode()
    return ""


@asynccontextmanager
async def through(server: str, where: object, secret: str = SECRET) -> AsyncIterator[Caller]:
    """A caller that a jump server has connected to ``where``."""
    async with calling(server) as caller:
        refusal = await ask(caller, where, secret)
        assert not refusal, refusal
        yield caller


@dataclass
class Home:
    """A running jump server named ``home``, and a program that it may lead to."""

    engine: Engine
    address: str
    far: Target

    @property
    def service(self) -> JumpServer:
        service = self.engine.services["home"]
        assert isinstance(service, JumpServer)
        return service

    def calling(self, from_host: str = "127.0.0.1") -> AbstractAsyncContextManager[Caller]:
        """A raw client of the server."""
        return calling(self.address, from_host)

    def through(self, where: object = None, secret: str = SECRET) -> AbstractAsyncContextManager[Caller]:
        """A caller who was led to ``where``, the program unless it is given."""
        return through(self.address, where or self.far.address, secret)

    async def serves(self) -> None:
        """Proves that a newcomer is led to the program, an echo."""
        async with self.through() as caller:
            assert await caller.exchange(b"ping") == b"ping"


@asynccontextmanager
async def home(handler: Handler = echo, **changes: Any) -> AsyncIterator[Home]:
    """A jump server with these settings changed, and a target beside it."""
    async with target(handler) as far, running(home=jump_server(**changes)) as engine:
        yield Home(engine, address_of(engine, "home"), far)


@asynccontextmanager
async def scripted_server(*pieces: bytes, close: bool = True) -> AsyncIterator[Target]:
    """A server that says its pieces one after the other, each once the client has said something since the last.

    :param close: closes after the last; else it stays silent.
    """

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, piece in enumerate(pieces):
            if number and not await reader.read(1 << 16):
                return
            writer.write(piece)
            await writer.drain()
        if close:
            writer.write_eof()
        await reader.read()

    async with target(handler) as made:
        yield made


@dataclass
class Office:
    """A running jump client named ``office``, and where it leads to: a program at a :class:`Home`."""

    engine: Engine
    address: str
    home: Home

    @property
    def service(self) -> JumpClient:
        service = self.engine.services["office"]
        assert isinstance(service, JumpClient)
        return service

    @property
    def far(self) -> HostPort:
        """Where the program is."""
        return self.home.far.address

    def calling(self, from_host: str = "127.0.0.1") -> AbstractAsyncContextManager[Caller]:
        """A local program that has connected to the client, and said nothing yet."""
        return calling(self.address, from_host)

    @asynccontextmanager
    async def by_socks(self, host: str = "", port: int = 0) -> AsyncIterator[Caller]:
        """A local program that SOCKS5 has connected to the program, or elsewhere."""
        async with self.calling() as caller:
            assert await socks(caller, host or self.far.host, port or self.far.port) == Reply.SUCCEEDED
            yield caller


@asynccontextmanager
async def office(
    handler: Handler = echo, server: Mapping[str, Any] = MappingProxyType({}), **changes: Any
) -> AsyncIterator[Office]:
    """A jump client with these settings changed, a server with ``server`` changed, and a target beside it.

    ``target=True`` makes that target the client's one destination.
    """
    async with home(handler, **server) as at:
        if changes.get("target") is True:
            changes["target"] = at.far.address
        async with running(office=jump_client(at.address, **changes)) as engine:
            yield Office(engine, address_of(engine, "office"), at)


@asynccontextmanager
async def office_at(server: str | HostPort, **changes: Any) -> AsyncIterator[tuple[Engine, str]]:
    """A jump client of ``server``: its engine, and where it listens."""
    async with running(office=jump_client(server, **changes)) as engine:
        yield engine, address_of(engine, "office")


def socks_request(host: str, port: int) -> bytes:
    """A SOCKS5 CONNECT request, by address where ``host`` is one, by name otherwise."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        where = b"\x03" + framed(host.encode())
    else:
        where = (b"\x01" if address.version == 4 else b"\x04") + address.packed
    return b"\x05\x01\x00" + where + port.to_bytes(2, "big")


async def socks(caller: Caller, host: str, port: int) -> int:
    """Asks a SOCKS5 proxy for a connection; returns its reply."""
    await caller.send(b"\x05\x01\x00")
    assert await caller.read(2) == b"\x05\x00"
    await caller.send(socks_request(host, port))
    return await read_reply(caller)


async def read_reply(caller: Caller) -> int:
    """The code of a SOCKS5 reply."""
    reply = await caller.read(10)
    assert (reply[:1], reply[2:]) == (b"\x05", b"\x00\x01\0\0\0\0\0\0"), reply
    return reply[1]
