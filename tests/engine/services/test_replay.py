"""The originals' recordings, replayed over real sockets: their clients at our servers, their servers at our clients.

Each recording is played turn by turn, whole, cut in two at every offset, and byte by byte.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from jump_peers import SECRET, home, office_at
from loopback import Caller, Target, calling, hears, running, target, told
from relay_peers import edge, relay_client
from tunnel_peers import tunnel_client, web
from tunnelconsole import jump
from tunnelconsole.engine.events import ServiceConnected, ServiceRetrying, SessionOpened
from tunnelconsole.engine.services.jump import server as jump_server_module
from tunnelconsole.engine.services.tunnel.target import TunnelURL
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.transport.dialer import Address
from tunnelconsole.engine.wire.frame import encode_frame
from tunnelconsole.engine.wire.jump import answer
from tunnelconsole.errors import CredentialsRefused, TargetRefused
from waiting import until
from wire_transcripts import JUMP_SECRET, WRONG_JUMP_SECRET, Sender, load
from yamux_frames import data

Turn = tuple[Sender, bytes]


def turns(name: str, conn: int = 1) -> list[Turn]:
    """What each end of one connection said before the other answered."""
    reads = [read for read in load(name) if not read.eof and read.conn == conn]
    return [
        (sender, b"".join(read.data for read in group))
        for sender, group in itertools.groupby(reads, lambda read: read.sender)
    ]


ON_ONE_LOOP = pytest.mark.asyncio(loop_factories=["uvloop"])
"""For what takes an engine for each cut; the other recordings show how the loops differ."""


def cuts(recording: Sequence[Turn], sender: Sender) -> Iterator[list[list[bytes]]]:
    """One end's turns, each in pieces: whole, with one cut at each offset, and byte by byte."""
    said = [text for who, text in recording if who == sender]
    yield [[text] for text in said]
    for turn, text in enumerate(said):
        for offset in range(1, len(text)):
            yield [[text[:offset], text[offset:]] if at == turn else [whole] for at, whole in enumerate(said)]
    yield [[bytes([byte]) for byte in text] for text in said]


async def send_apart(send: Callable[[bytes], Awaitable[None]], pieces: Sequence[bytes]) -> None:
    """Sends the pieces so that the other end, on this very loop, reads one after the other."""
    loop = asyncio.get_running_loop()
    for piece in pieces:
        await send(piece)
        for _ in range(2):  # one turn of the loop to find the piece, one to read it
            turn = loop.create_future()
            loop.call_soon(turn.set_result, None)
            await turn


@asynccontextmanager
async def recorded_server(recording: Sequence[Turn], pieces: Sequence[Sequence[bytes]]) -> AsyncIterator[Target]:
    """A server that plays its side of a recording, and insists that the client says exactly the other."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(piece: bytes) -> None:
            writer.write(piece)
            await writer.drain()

        mine = iter(pieces)
        for sender, text in recording:
            if sender == "server":
                await send_apart(send, next(mine))
            else:
                said = await reader.readexactly(len(text))
                differences.extend([] if said == text else [(said, text)])
        played.append(True)
        if not writer.is_closing():  # the client may have left first
            writer.write_eof()
        await reader.read()

    differences: list[tuple[bytes, bytes]] = []
    played: list[bool] = []
    async with target(play) as server:
        yield server
        await until(lambda: played)
    assert not differences


class RecordedClient:
    """A client that plays its side of a recording at our server."""

    def __init__(self, caller: Caller, recording: Sequence[Turn], pieces: Sequence[Sequence[bytes]]) -> None:
        self._caller = caller
        self._recording = recording
        self._mine = iter(pieces)

    async def send(self, replace: bytes | None = None, instead: bytes = b"") -> None:
        """Plays the next turn; ``instead`` stands in for ``replace``, of the same length, at its head."""
        pieces = list(next(self._mine))
        if replace is not None:
            whole = b"".join(pieces)
            assert whole.startswith(replace)
            whole = instead + whole[len(replace) :]
            ends = list(itertools.accumulate(map(len, pieces)))
            pieces = [whole[end - len(piece) : end] for piece, end in zip(pieces, ends, strict=True)]
        await send_apart(self._caller.send, pieces)


async def prove(caller: Caller, client: RecordedClient, recording: Sequence[Turn], secret: bytes) -> None:
    """Reads our challenge, of the recorded one's length, and plays the turn that answers it."""
    (_, recorded_challenge), (_, recorded_proof) = recording[:2]
    challenge = await caller.read(len(recorded_challenge))
    assert challenge[:1] == recorded_challenge[:1]
    assert recorded_proof == encode_frame(answer(recorded_challenge[1:], secret))
    await client.send(recorded_proof, encode_frame(answer(challenge[1:], secret)))


async def test_our_jump_server_answers_the_originals_client_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = turns("jump-ok")
    *_, (_, request), (_, response) = recording
    response = response.removeprefix(b"\x00")

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(request)) == request
        writer.write(response)

    async with home(respond) as at:
        where = Address(socket.AF_INET, ("127.0.0.1", at.far.address.port))
        monkeypatch.setattr(jump_server_module, "numeric", lambda _host, _port: where)
        for pieces in cuts(recording, "client"):
            async with at.calling() as caller:
                client = RecordedClient(caller, recording, pieces)
                await prove(caller, client, recording, JUMP_SECRET)
                assert await caller.read(1) == b"\x00"
                await client.send()
                assert await caller.read(1) == b"\x00"
                await client.send()
                assert await caller.read_to_end() == response
        assert len(told(at.engine, SessionOpened)) == at.far.served


async def test_our_jump_server_refuses_the_originals_client_as_recorded() -> None:
    recording = turns("jump-refused")
    async with home() as at:
        for pieces in cuts(recording, "client"):
            async with at.calling() as caller:
                client = RecordedClient(caller, recording, pieces)
                await prove(caller, client, recording, JUMP_SECRET)
                assert await caller.read(1) == b"\x00"
                await client.send()
                assert await caller.read_to_end() == recording[-1][1]


async def test_our_jump_server_turns_away_the_originals_client_with_a_wrong_secret_as_recorded() -> None:
    recording = turns("jump-bad-secret")
    async with home() as at:
        for pieces in cuts(recording, "client"):
            async with at.calling() as caller:
                client = RecordedClient(caller, recording, pieces)
                await prove(caller, client, recording, WRONG_JUMP_SECRET)
                assert await caller.read_to_end() == recording[-1][1]


async def test_our_jump_client_says_to_the_originals_server_what_was_recorded() -> None:
    recording = turns("jump-ok")
    *_, (_, request), (_, response) = recording
    for pieces in cuts(recording, "server"):
        async with (
            recorded_server(recording, pieces) as server,
            jump.connect(str(server.address), SECRET, "127.0.0.1:8099") as (reader, writer),
        ):
            writer.write(request)
            assert await reader.read() == response


async def test_a_program_gets_through_our_jump_client_what_the_originals_server_brought() -> None:
    recording = turns("jump-ok")
    *_, (_, request), (_, response) = recording
    whole = next(cuts(recording, "server"))
    async with (
        recorded_server(recording, whole) as server,
        office_at(server.address, target=HostPort("127.0.0.1", 8099)) as (_, address),
        calling(address) as caller,
    ):
        await caller.send(request)
        assert await caller.read_to_end() == response


async def test_our_jump_client_tells_the_reason_of_the_originals_server() -> None:
    recording = turns("jump-refused")
    for pieces in cuts(recording, "server"):
        async with recorded_server(recording, pieces) as server:
            with pytest.raises(TargetRefused, match=r"^dial tcp 127\.0\.0\.1:1: connect: connection refused$"):
                async with jump.connect(str(server.address), SECRET, "127.0.0.1:1"):
                    pass


async def test_our_jump_client_takes_the_refusal_of_the_originals_server_for_final() -> None:
    recording = turns("jump-bad-secret")
    for pieces in cuts(recording, "server"):
        async with recorded_server(recording, pieces) as server:
            with pytest.raises(CredentialsRefused, match="challenge failed, check secret"):
                async with jump.connect(str(server.address), WRONG_JUMP_SECRET.decode(), "127.0.0.1:1"):
                    pass


async def test_our_relay_server_answers_the_originals_backend_as_recorded() -> None:
    recording = turns("relay-echo")
    recorded_address, said = b"localhost:7101", b"hello relay\n"
    async with edge(native=False, public_host="localhost") as at:
        for pieces in cuts(recording, "client"):
            async with at.calling() as caller:
                client = RecordedClient(caller, recording, pieces)
                await client.send()
                (session,) = await until(lambda: at.service.attached)
                address = session.address.encode()
                expected = recording[1][1].replace(data(1, recorded_address), data(1, address))
                assert await caller.read(len(expected)) == expected
                await client.send()
                async with calling(session.address) as visitor:
                    await visitor.send(said)
                    assert await caller.read(len(recording[3][1])) == recording[3][1]
                    await client.send()
                    assert await visitor.read(len(said)) == said
                    caller.half_close()
                    assert await visitor.broken()
            await until(lambda: not at.service.attached)


@ON_ONE_LOOP
async def test_our_tunnel_server_answers_the_originals_client_as_recorded() -> None:
    recording = turns("tunnel-http", 2)
    host, line = "t.localhost:9605", data(1, b'{"Type":1,"Action":5}\n')
    (_, yes), (_, told), (_, led), (_, parted) = [turn for turn in recording if turn[0] == "server"]
    acknowledged, _, request = led.partition(data(3, b"")[:8])
    assert told.endswith(line)
    async with web() as at:
        for pieces in cuts(recording, "client"):
            async with at.calling() as caller, at.visiting(host) as visitor:
                client = RecordedClient(caller, recording, pieces)
                await client.send()
                assert await caller.read(len(yes)) == yes
                await client.send()
                assert await caller.read(len(told) - len(line)) == told[: -len(line)]
                await until(lambda: at.service.attached)
                await visitor.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n".encode())
                assert await caller.read(len(line)) == line
                await client.send()
                assert await caller.read(len(acknowledged)) == acknowledged
                header = await caller.read(12)
                asked = await caller.read(int.from_bytes(header[8:], "big"))
                assert asked.startswith(request[4:].partition(b"User-Agent")[0])
                await client.send()
                got = await visitor.response()
                assert (got.status, got.body) == (200, b"hello\n")
                assert await caller.read(len(parted)) == parted
                await client.send()
                caller.half_close()
            await until(lambda: not at.service.attached)


@ON_ONE_LOOP
async def test_our_tunnel_client_says_to_the_originals_server_what_was_recorded() -> None:
    recording = turns("tunnel-http", 2)
    mine = [text for sender, text in recording if sender == "client"]
    response = b"".join(text for text in (mine[3][12:196], mine[3][208:]))

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(piece: bytes) -> None:
            writer.write(piece)
            await writer.drain()

        said = iter(plan.pop())
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"CONNECT /_connectPath HTTP/1.1\r\nHost: t.localhost:9605\r\n")
        await send_apart(send, next(said))
        assert await reader.readexactly(len(mine[1])) == mine[1]
        await send_apart(send, next(said))
        assert await reader.readexactly(len(mine[2])) == mine[2]
        await send_apart(send, next(said))
        answers.append(await reader.readuntil(b"hello\n"))
        await send_apart(send, next(said))
        parted.append(await reader.readexactly(12))
        await reader.read()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response)

    answers: list[bytes] = []
    parted: list[bytes] = []
    heads: list[bytes] = []
    plan: list[list[list[bytes]]] = []
    async with target(serve) as far, target(play) as server:
        settings = tunnel_client(server.address, far.address, native=False)
        url = TunnelURL.parse("http://t.localhost:9605")
        for pieces in cuts(recording, "server"):
            plan.append(pieces)
            async with running(app=msgspec.structs.replace(settings, server=url)):
                await until(lambda: len(parted) == 1)
            assert heads.pop().startswith(b"GET / HTTP/1.1\r\nHost: t.localhost:9605\r\nUser-Agent: curl")
            assert answers.pop()[12:].startswith(b"HTTP/1.1 200 OK\r\nServer: SimpleHTTP")
            assert parted.pop() == mine[4]


async def test_our_relay_client_says_to_the_originals_server_what_was_recorded() -> None:
    recording, said = turns("relay-echo"), b"hello relay\n"

    async def echo_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(said)))
        await reader.read()

    async with target(echo_at_once) as far:
        for pieces in cuts(recording, "server"):
            async with (
                recorded_server(recording, pieces) as server,
                running(shop=relay_client(server.address, far.address)) as engine,
            ):
                connected = await hears(engine, ServiceConnected)
                assert connected.address == "localhost:7101"
                await hears(engine, ServiceRetrying)  # the recording is over
