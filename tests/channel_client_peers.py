"""Channel clients of ours on loopback, and servers by hand that let them in and then do as a test says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from channel_peers import OK, At, hs2
from channel_peers import hub as running_hub
from loopback import FREE, PATIENCE, Caller, Handler, Target, address_of, calling, echo, running, target
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.channel.client import ChannelClientSettings
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.wire.sealed_beginnings import BEGINNING_LENGTH, MAGIC
from tunnelconsole.engine.wire.sealed_records import HEADER_LENGTH
from waiting import until

NOTHING: Mapping[str, Any] = MappingProxyType({})

LOCAL_ENDS = {"target", "listen"}


def channel_client(server: str | HostPort, **changes: Any) -> ChannelClientSettings:
    """A client of ``server`` that listens, unless it has a target."""
    where = HostPort.parse(server) if isinstance(server, str) else server
    if LOCAL_ENDS.isdisjoint(changes):
        changes["listen"] = FREE
    return msgspec.structs.replace(ChannelClientSettings(server=where), **changes)


def desk(server: str | HostPort, far: HostPort, **changes: Any) -> ChannelClientSettings:
    """The client that leads to a program."""
    return channel_client(server, **{"chid": "desk", "receivers": ("laptop",), "target": far} | changes)


def laptop(server: str | HostPort, **changes: Any) -> ChannelClientSettings:
    """The client that local programs connect to."""
    return channel_client(server, **{"chid": "laptop", "receivers": ("desk",)} | changes)


@dataclass
class Ends:
    """A ``desk`` that leads to a program, a ``laptop`` where local programs connect, and what is in between."""

    engine: Engine
    far: Target

    @property
    def address(self) -> str:
        """Where local programs connect."""
        return address_of(self.engine, "laptop")

    def calling(self) -> AbstractAsyncContextManager[Caller]:
        """A local program that has connected."""
        return calling(self.address)

    async def serves(self) -> None:
        """Proves that a newcomer is led to the program, an echo."""
        async with self.calling() as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"


@asynccontextmanager
async def ends_at(
    server: str | HostPort,
    handler: Handler = echo,
    *,
    desk_changes: Mapping[str, Any] = NOTHING,
    laptop_changes: Mapping[str, Any] = NOTHING,
    **changes: Any,
) -> AsyncIterator[Ends]:
    """Both ends, clients of ``server``, with ``changes`` to the settings of both."""
    async with (
        target(handler) as far,
        running(
            desk=desk(server, far.address, **changes, **desk_changes),
            laptop=laptop(server, **changes, **laptop_changes),
        ) as engine,
    ):
        yield Ends(engine, far)


@asynccontextmanager
async def ends(
    handler: Handler = echo, *, server: Mapping[str, Any] = NOTHING, **changes: Any
) -> AsyncIterator[tuple[Ends, At]]:
    """Both ends, and the channel server between them; see :func:`ends_at`."""
    async with running_hub(**server) as at, ends_at(at.address, handler, **changes) as both:
        yield both, at


@dataclass
class Guest:
    """A client that a server by hand has let in."""

    chid: str
    receivers: Sequence[str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(count)


@dataclass
class HandMadeHub:
    """A server that lets everybody in, or nobody, as the original answers."""

    refusal: str = ""
    address: HostPort = field(default_factory=lambda: HostPort("127.0.0.1", 1))
    guests: list[Guest] = field(default_factory=list)
    """Those there have been."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """What they said in their lines."""

    async def guest(self, number: int = 0) -> Guest:
        """The one that came as the so-manieth, once it has."""
        await until(lambda: len(self.guests) > number)
        return self.guests[number]

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Guest | None:
        """Goes through the handshake."""
        first = json.loads(await reader.readline() or b"{}")
        self.asked.append(first)
        if self.refusal:
            writer.write(json.dumps({"rsp": "hs4", "result": "FAIL", "desc": self.refusal}).encode() + b"\n")
            writer.write_eof()
            return None
        writer.write(hs2(first.get("chid") or "made-up"))
        second = json.loads(await reader.readline() or b"{}")
        self.asked.append(second)
        writer.write(OK)
        await writer.drain()
        guest = Guest(first.get("chid", ""), second.get("recvers", ()), reader, writer)
        self.guests.append(guest)
        return guest


@asynccontextmanager
async def hand_made_hub(refusal: str = "") -> AsyncIterator[HandMadeHub]:
    """A running :class:`HandMadeHub` that leaves its guests to the test."""
    over = asyncio.Event()
    made = HandMadeHub(refusal)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await made.admit(reader, writer) is not None:
            await over.wait()

    async with target(serve) as server:
        made.address = server.address
        try:
            yield made
        finally:
            over.set()


Kind = Literal["beginning", "record"]
Change = Callable[[str, Kind, int, bytes], Sequence[bytes]]
"""Given who sent something, what it is, the how-manieth record since the beginning, and its bytes; what goes on."""


def as_it_is(chid: str, kind: Kind, number: int, data: bytes) -> Sequence[bytes]:
    """Changes nothing."""
    return [data]


@dataclass
class Meddler(HandMadeHub):
    """A server that passes on what each guest sends to every other, and changes what is sealed as it is told."""

    change: Change = as_it_is
    seen: bytearray = field(default_factory=bytearray)
    """All that has come."""
    records: Counter[str] = field(default_factory=Counter)
    """How many have come, by the chid of their sender."""

    async def pass_on(self, guest: Guest) -> None:
        number = 0
        while True:
            head = await guest.reader.readexactly(HEADER_LENGTH)
            kind: Kind = "beginning" if MAGIC.startswith(head) else "record"
            length = int.from_bytes(head, "big") & 0x3FFF_FFFF
            rest = BEGINNING_LENGTH - HEADER_LENGTH if kind == "beginning" else length
            data = head + await guest.reader.readexactly(rest)
            number = 0 if kind == "beginning" else number + 1
            self.seen += data
            self.records[guest.chid] += kind == "record"
            for piece in self.change(guest.chid, kind, number - 1, data):
                await self.send_from(guest, piece)

    async def send_from(self, guest: Guest, data: bytes) -> None:
        """Sends something to all others, as if ``guest`` had."""
        for other in self.guests:
            if other is not guest and not other.writer.is_closing():
                with suppress(ConnectionError):  # who has left is no reason to throw out who sends
                    await other.send(data)


@asynccontextmanager
async def meddler(change: Change = as_it_is, made: Meddler | None = None) -> AsyncIterator[Meddler]:
    """A running :class:`Meddler`, or ``made``."""
    made = made or Meddler(change=change)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = await made.admit(reader, writer)
        if guest is not None:
            try:
                await made.pass_on(guest)
            except asyncio.IncompleteReadError:
                made.guests.remove(guest)

    async with target(serve) as server:
        made.address = server.address
        yield made
