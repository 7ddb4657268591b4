"""The recordings of the original's clients and server, replayed over real sockets.

Its server's side at our clients, and in broadcast mode its clients' side at our server too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from channel_client_peers import channel_client
from channel_peers import hub
from loopback import Target, address_of, calling, running, target
from tunnelconsole import channel
from waiting import until
from wire_transcripts import Read, every_split, load

RECORDING = "channel-chan"

BROADCAST = "channel-broadcast"
"""Three of the original's clients at its server in broadcast mode, each bridging a program that spoke in its turn."""


def reads_of(conn: int, recording: str = RECORDING) -> list[Read]:
    """What was read on one connection of a recording, without the ends."""
    return [read for read in load(recording) if read.conn == conn and not read.eof]


@asynccontextmanager
async def recorded_server(reads: Sequence[Read], place: int, pieces: Sequence[bytes]) -> AsyncIterator[Target]:
    """A server that plays its side, what it said at ``place`` in pieces, and insists on the client's side."""
    differences: list[tuple[bytes, bytes]] = []
    played: list[bool] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, read in enumerate(reads):
            if read.sender == "client":
                said = await reader.readexactly(len(read.data))
                differences.extend([] if said == read.data else [(said, read.data)])
                continue
            for piece in pieces if number == place else [read.data]:
                writer.write(piece)
                await writer.drain()
        played.append(True)
        await reader.read()

    async with target(play) as server:
        yield server
        await until(lambda: played)
    assert not differences


def payload(conn: int) -> tuple[bytes, bytes]:
    """What the client sent after its handshake, and what it got."""
    sent, received = ([read.data for read in reads_of(conn) if read.sender == who][-1] for who in ("client", "server"))
    return sent, received


@pytest.mark.parametrize("conn", [1, 2])
async def test_our_client_says_to_the_originals_server_what_was_recorded(conn: int) -> None:
    me, other = f"ch{conn - 1}", f"ch{2 - conn}"
    sent, received = payload(conn)
    reads = reads_of(conn)
    for place, read in enumerate(reads):
        for pieces in every_split(read.data) if read.sender == "server" else ():
            async with (
                recorded_server(reads, place, pieces) as server,
                channel.connect(str(server.address), me, receivers=[other]) as (reader, writer),
            ):
                writer.write(sent)
                assert await reader.readexactly(len(received)) == received


@pytest.mark.parametrize("conn", [1, 2])
async def test_a_program_gets_through_our_client_service_what_the_originals_server_brought(conn: int) -> None:
    me, other = f"ch{conn - 1}", f"ch{2 - conn}"
    sent, received = payload(conn)
    reads = reads_of(conn)
    async with recorded_server(reads, -1, ()) as server:
        settings = channel_client(server.address, chid=me, receivers=(other,))
        async with running(bridge=settings) as engine, calling(address_of(engine, "bridge")) as caller:
            await caller.send(sent)
            assert await caller.read(len(received)) == received


# Broadcast mode


@pytest.mark.parametrize("conn", [1, 2, 3])
async def test_our_client_takes_part_in_the_originals_broadcast_as_recorded(conn: int) -> None:
    reads = reads_of(conn, BROADCAST)
    for place, read in enumerate(reads):
        for pieces in every_split(read.data) if read.sender == "server" else ():
            async with (
                recorded_server(reads, place, pieces) as server,
                channel.broadcast(str(server.address)) as (reader, writer),
            ):
                for said in reads:
                    if said.sender == "client":
                        writer.write(said.data)
                    else:
                        assert await reader.readexactly(len(said.data)) == said.data


@pytest.mark.parametrize("conn", [1, 2, 3])
async def test_a_program_takes_part_through_our_client_service_in_the_originals_broadcast(conn: int) -> None:
    reads = reads_of(conn, BROADCAST)
    async with recorded_server(reads, -1, ()) as server:
        settings = channel_client(server.address, mode="broadcast")
        async with running(bridge=settings) as engine, calling(address_of(engine, "bridge")) as caller:
            for said in reads:
                if said.sender == "client":
                    await caller.send(said.data)
                else:
                    assert await caller.read(len(said.data)) == said.data


async def test_our_server_passes_on_in_broadcast_mode_what_the_originals_did() -> None:
    async with hub(mode="broadcast") as at, at.calling() as one, at.calling() as two, at.calling() as three:
        await until(lambda: len(at.chids) == 3)
        callers = {1: one, 2: two, 3: three}
        for read in load(BROADCAST):
            if read.eof:
                continue
            if read.sender == "client":
                await callers[read.conn].send(read.data)
            else:
                assert await callers[read.conn].read(len(read.data)) == read.data
