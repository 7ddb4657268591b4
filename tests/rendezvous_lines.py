"""A rendezvous on loopback, and clients of it that say what a test tells them, line by line."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from loopback import FREE, PATIENCE, address_of, reset, running
from ports import split
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.punch.server import PunchServer, PunchServerSettings
from tunnelconsole.engine.wire.punch import (
    Challenge,
    Join,
    Joined,
    LineReader,
    Message,
    Observe,
    Observed,
    Ping,
    Pong,
    Probe,
    Probed,
    Prove,
    Refused,
    Relay,
    ServerLine,
    encode,
    parse_server,
)
from tunnelconsole.engine.wire.token_proof import NONCE_LENGTH, make_proof, secret_id
from waiting import until

M = TypeVar("M", bound=Message)
ROOM = "desk"
TAG = "ab" * 16
OTHER_TAG = "cd" * 16


def new_seat() -> str:
    """A seat's number."""
    return secrets.token_hex(16)


class Line:
    """A connection to a rendezvous.

    :param answers: whether it answers pings by itself.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = True) -> None:
        self._reader = reader
        self.writer = writer
        self._lines = LineReader()
        self._waiting: list[bytes] = []
        self.answers = answers
        self.number = ""

    @property
    def address(self) -> str:
        """Its own ``host:port``."""
        host, port = self.writer.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    async def send(self, *messages: Message | bytes) -> None:
        """Says all of these at once."""
        self.writer.write(b"".join(each if isinstance(each, bytes) else encode(each) for each in messages))
        await self.writer.drain()

    async def next(self) -> ServerLine | None:
        """What is said next, pings left out where they are answered; None at the end, or when it broke."""
        while True:
            async with asyncio.timeout(PATIENCE):
                try:
                    while not self._waiting:
                        data = await self._reader.read(1 << 16)
                        if not data:
                            return None
                        self._waiting += self._lines.feed(data)
                except ConnectionError:
                    return None
            message = parse_server(self._waiting.pop(0))
            if not (isinstance(message, Ping) and self.answers):
                return message
            await self.send(Pong(message.id))

    async def find(self, kind: type[M]) -> M:
        """What is said of this kind next."""
        while (message := await self.next()) is not None:
            if isinstance(message, kind):
                return message
        raise AssertionError(f"it closed without saying {kind.__name__}")

    async def rest(self) -> list[ServerLine]:
        """All that is said until it closes."""
        said = []
        while (message := await self.next()) is not None:
            said.append(message)
        return said

    async def raw(self, count: int) -> bytes:
        """Bytes of a relay connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(count)

    async def raw_rest(self) -> bytes:
        """All of them until the end.

        :raises ConnectionResetError: it broke instead.
        """
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    def reset(self) -> None:
        """Breaks it off."""
        reset(self.writer)

    def close(self) -> None:
        """Closes it in order."""
        self.writer.close()


class Lines(AsyncExitStack):
    """Connections to one rendezvous, closed at the end."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    async def connect(self, address: str = "", *, host: str = "127.0.0.1", answers: bool = True, **how: Any) -> Line:
        """A connection that has said nothing yet.

        :param host: from which of loopback's addresses.
        """
        where, port = split(address or self.address)
        local = None if ":" in where else (host, 0)
        reader, writer = await asyncio.open_connection(where, port, local_addr=local, **how)
        self.callback(writer.close)
        return Line(reader, writer, answers=answers)

    async def join(
        self,
        room: str = ROOM,
        tag: str = TAG,
        *,
        number: str = "",
        host: str = "127.0.0.1",
        answers: bool = True,
        token: str = "",
    ) -> Line:
        """A seat that is taken."""
        line = await self.connect(host=host, answers=answers)
        line.number = number or new_seat()
        join = Join(room=room, tag=tag, seat=line.number)
        if token:
            nonce = bytes(NONCE_LENGTH)
            await line.send(msgspec.structs.replace(join, token=secret_id(token).hex(), nonce=nonce.hex()))
            asked = bytes.fromhex((await line.find(Challenge)).nonce)
            await line.send(Prove(make_proof(token, nonce, asked).hex()))
        else:
            await line.send(join)
        await line.find(Joined)
        return line

    async def refused(self, room: str = ROOM, tag: str = TAG, *, number: str = "") -> str:
        """Why there is no seat."""
        line = await self.connect()
        await line.send(Join(room=room, tag=tag, seat=number or new_seat()))
        return (await line.find(Refused)).reason

    async def relay(self, seat: str | Line, early: bytes = b"") -> Line:
        """A relay connection."""
        line = await self.connect()
        await line.send(Relay(seat if isinstance(seat, str) else seat.number), early)
        return line

    async def observe(self, address: str, seat: Line | None = None, *, host: str = "127.0.0.1") -> tuple[Line, str]:
        """An observing connection, and where it is seen from."""
        line = await self.connect(address, host=host)
        await line.send(Observe(seat.number if seat is not None else None))
        return line, (await line.find(Observed)).address

    async def probe(self, observing: Line) -> Probed:
        """What becomes of strangers' dials."""
        await observing.send(Probe())
        return await observing.find(Probed)


@dataclass
class Meeting:
    """A rendezvous named ``meet``."""

    engine: Engine
    lines: Lines

    @property
    def service(self) -> PunchServer:
        """The service itself."""
        service = self.engine.services["meet"]
        assert isinstance(service, PunchServer)
        return service

    @property
    def address(self) -> str:
        """Where seats are taken."""
        return self.lines.address

    @property
    def observers(self) -> list[str]:
        """Where observations are made."""
        return self.service._endpoints()

    async def empty(self) -> None:
        """Waits until nothing is kept of anybody."""
        rooms = self.service.rooms
        await until(lambda: not (len(rooms) or rooms.seats or rooms._rooms or rooms._sources or rooms._awaited))
        await until(lambda: not (self.service.attached or self.service.channels or self.service._newcomers))


@asynccontextmanager
async def rendezvous(**settings: Any) -> AsyncIterator[Meeting]:
    """A running rendezvous."""
    settings.setdefault("listen", FREE)
    async with running(meet=PunchServerSettings(**settings)) as engine, Lines(address_of(engine, "meet")) as lines:
        yield Meeting(engine, lines)
