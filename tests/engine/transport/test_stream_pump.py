"""The pump between a yamux stream and an end: as the pump between two ends, and no stream disturbs another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

from loopback import open_descriptors
from mux_pair import Heard, Side, sessions
from tcp import Program, connected
from tls_programs import SecureProgram, ends_of, shake_hands
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.mux import HIGH_WATER
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.stream_pump import StreamPump
from tunnelconsole.engine.wire.yamux import INITIAL_WINDOW
from waiting import until

SMALL = 4096
"""Bytes of a kernel buffer so small that nearly every send is cut short."""

KERNEL = 8 * 1024 * 1024
"""Bytes that the kernel may hold on the way, at the most."""


class Half:
    """A stream joined with a program's connection: the program, and the pump beside it."""

    def __init__(
        self,
        side: Side,
        stream_id: int,
        buffer: int | None,
        pace: Pace | None,
        early: Sequence[bytes] = (),
        early_end: bool = False,
    ) -> None:
        near, far = connected(buffer)
        self.program = Program(near)
        self.end = SocketEnd(far)
        self.finished: list[str] = []
        self.pump = StreamPump(
            asyncio.get_running_loop(),
            side.mux,
            stream_id,
            self.end,
            self.finished.append,
            early=early,
            early_end=early_end,
            pace=pace,
        )
        assert not self.finished

    async def ended(self) -> str:
        """Waits until the pump has ended, once and with its end closed; returns why."""
        await until(lambda: self.finished)
        assert self.end.fileno() == -1
        assert len(self.finished) == 1
        return self.finished[0]


class Relay:
    """A session each for a relay server, which opens the streams, and a backend; with visitors and targets."""

    def __init__(self, backend: Side, server: Side) -> None:
        self.backend = backend
        self.server = server
        self.halves: list[Half] = []

    async def visit(self, buffer: int | None = None, pace: Pace | None = None) -> tuple[Half, Half]:
        """A visitor at the server, and the target at the backend that the visitor is led to."""
        user = self.server.open()
        await self.backend.peer_of(user)
        return self.join(self.server, user.stream_id, buffer, pace), self.join(
            self.backend, user.stream_id, buffer, pace
        )

    def join(
        self,
        side: Side,
        stream_id: int,
        buffer: int | None = None,
        pace: Pace | None = None,
        early: Sequence[bytes] = (),
        early_end: bool = False,
    ) -> Half:
        half = Half(side, stream_id, buffer, pace, early, early_end)
        self.halves.append(half)
        return half


@asynccontextmanager
async def relay(*, tls: bool = False, buffer: int | None = None) -> AsyncIterator[Relay]:
    async with sessions(tls=tls, buffer=buffer) as (backend, server):
        made = Relay(backend, server)
        try:
            yield made
        finally:
            for half in made.halves:
                half.pump.abort("the test is over")
                await half.ended()
                half.program.close()


@pytest.fixture(params=["tcp", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    """Whether the session travels in TLS."""
    return bool(request.param == "tls")


async def send(program: Program, data: bytes, chance: random.Random) -> None:
    """Sends all in pieces of any size, and half-closes."""
    rest = memoryview(data)
    while rest:
        size = chance.choice((1, 1000, 64 * 1024, 300_000))
        await program.send(rest[:size])
        rest = rest[size:]
    await program.half_close()


async def fill(program: Program) -> int:
    """Sends until nothing has been taken for a while; returns how many bytes were."""
    taken = [program.fill()]

    def stuck() -> bool:
        taken.append(program.fill())
        return not any(taken[-10:])

    await until(stuck)
    return sum(taken)


@contextmanager
def cancelled_at_end(*tasks: asyncio.Future[None]) -> Iterator[None]:
    """Ends tasks that are meant to be stuck."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("buffer", [None, SMALL], ids=["usual buffers", "small buffers"])
@pytest.mark.parametrize("paced", [False, True], ids=["unpaced", "paced"])
async def test_many_visitors_exchange_every_byte_with_their_targets(tls: bool, buffer: int | None, paced: bool) -> None:
    chance = random.Random(1)
    pace = Pace(1e12) if paced else None
    async with relay(tls=tls) as joined:
        pairs = [await joined.visit(buffer, pace) for _ in range(8)]
        questions = [chance.randbytes(chance.randrange(300_000)) for _ in pairs]
        answers = [chance.randbytes(chance.randrange(300_000)) for _ in pairs]
        heard = await asyncio.gather(
            *(target.program.read_to_end() for _, target in pairs),
            *(visitor.program.read_to_end() for visitor, _ in pairs),
            *(send(visitor.program, said, chance) for (visitor, _), said in zip(pairs, questions, strict=True)),
            *(send(target.program, said, chance) for (_, target), said in zip(pairs, answers, strict=True)),
        )
        assert heard[: 2 * len(pairs)] == [*questions, *answers]
        for (visitor, target), question, answer in zip(pairs, questions, answers, strict=True):
            assert await visitor.ended() == await target.ended() == ""
            assert (visitor.pump.bytes_out, visitor.pump.bytes_in) == (len(question), len(answer))
            assert (target.pump.bytes_in, target.pump.bytes_out) == (len(question), len(answer))


async def test_a_visitor_that_does_not_read_stalls_its_target_and_no_other_visitor(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        slow_visitor, slow_target = await joined.visit(SMALL)
        visitor, target = await joined.visit()
        sent = await fill(slow_target.program)
        assert sent < 2 * INITIAL_WINDOW + KERNEL
        answer = random.Random(2).randbytes(5_000_000)
        heard, _ = await asyncio.gather(visitor.program.read_to_end(), send(target.program, answer, random.Random(3)))
        assert heard == answer
        await slow_target.program.half_close()
        assert len(await slow_visitor.program.read_to_end()) == sent


async def test_many_visitors_that_do_not_read_stall_nobody_else(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        stuck = [await joined.visit(SMALL) for _ in range(30)]
        filling = [asyncio.ensure_future(target.program.send(bytes(6_000_000))) for _, target in stuck]
        visitor, target = await joined.visit()
        with cancelled_at_end(*filling):
            for number in range(50):
                said = number.to_bytes(1, "big") * 1000
                await target.program.send(said)
                assert await visitor.program.read_exactly(1000) == said
            assert not any(task.done() for task in filling)
        await asyncio.wait(filling)


@pytest.mark.parametrize("first", ["visitor", "target"])
async def test_after_one_sides_end_the_other_side_goes_on_for_long(tls: bool, first: str) -> None:
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit()
        quiet, talking = (visitor, target) if first == "visitor" else (target, visitor)
        await quiet.program.send(b"that is all")
        await quiet.program.half_close()
        assert await talking.program.read_to_end() == b"that is all"
        for number in range(50):
            said = number.to_bytes(2, "big") * 10_000
            await talking.program.send(said)
            assert await quiet.program.read_exactly(len(said)) == said
        assert not visitor.finished
        await talking.program.half_close()
        assert await quiet.program.read_to_end() == b""
        assert await visitor.ended() == await target.ended() == ""


@pytest.mark.parametrize("broken", ["visitor", "target"])
@pytest.mark.parametrize("unread", [0, 100_000])
async def test_a_reset_on_one_side_becomes_a_reset_on_the_other(tls: bool, broken: str, unread: int) -> None:
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit()
        breaking, left = (visitor, target) if broken == "visitor" else (target, visitor)
        await breaking.program.send(b"some of it")
        assert await left.program.read_exactly(10) == b"some of it"
        breaking.program.socket.send(bytes(unread))
        breaking.program.reset()
        assert (await left.program.read_until_broken())[1]
        assert await breaking.ended() == "connection lost: Connection reset by peer"
        assert await left.ended() == "reset by the other side"


async def test_an_answer_given_before_the_question_was_read_is_delivered_in_full(tls: bool) -> None:
    answer = random.Random(4).randbytes(200_000)
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit()
        asking = asyncio.ensure_future(visitor.program.send(bytes(20_000_000)))
        await until(lambda: target.pump.bytes_in > INITIAL_WINDOW)
        sending = asyncio.ensure_future(target.program.send(answer))
        assert await visitor.program.read_exactly(len(answer)) == answer
        await sending
        await target.program.half_close()
        assert await visitor.program.read_to_end() == b""
        target.program.close()  # with the question unread: the kernel answers it with a reset
        await asking  # what nobody reads any more is dropped, so that the answer's end is not lost to a reset
        await visitor.program.half_close()
        assert await target.ended() == await visitor.ended() == ""


async def test_a_reset_that_sending_notices_first_does_not_make_the_answer_look_complete(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit(SMALL)
        await fill(target.program)  # from here on the pump does not read the target
        target.program.reset()
        await visitor.program.send(b"are you there?")
        assert (await visitor.program.read_until_broken())[1]
        assert (await target.ended()).startswith("connection lost: ")


async def test_what_came_while_the_target_was_dialled_is_delivered_first_and_counted(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        user = joined.server.open()
        joined.backend.slow.add(user.stream_id)
        peer = await joined.backend.peer_of(user)
        joined.server.mux.send(user.stream_id, b"early")
        await until(lambda: peer.bytes)
        target = joined.join(joined.backend, user.stream_id, early=[b"ea", b"rly"])
        joined.server.mux.send(user.stream_id, bytes(1_000))
        joined.server.mux.send_eof(user.stream_id)
        assert await target.program.read_to_end() == b"early" + bytes(1_000)
        assert target.pump.bytes_in == 1_005


async def test_a_visitor_that_said_all_while_the_target_was_dialled_still_gets_its_answer(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        user = joined.server.open()
        joined.backend.slow.add(user.stream_id)
        peer = await joined.backend.peer_of(user)
        joined.server.mux.send(user.stream_id, b"all of it")
        joined.server.mux.send_eof(user.stream_id)
        await until(lambda: peer.ended)
        target = joined.join(joined.backend, user.stream_id, early=[b"all of it"], early_end=True)
        assert await target.program.read_to_end() == b"all of it"
        await target.program.send(b"the answer")
        await target.program.half_close()
        await until(lambda: user.ended)
        assert user.bytes == b"the answer"
        assert await target.ended() == ""


async def test_a_stream_that_was_reset_while_the_target_was_dialled_ends_the_pump_at_once(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        user = joined.server.open()
        peer = await joined.backend.peer_of(user)
        joined.server.mux.reject(user.stream_id)
        await until(lambda: peer.losses)
        target = joined.join(joined.backend, user.stream_id)
        assert await target.ended() == "the stream was over before it could be joined"
        assert (await target.program.read_until_broken())[1]


async def test_the_end_of_the_session_cuts_every_pump_with_a_reset(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        pairs = [await joined.visit() for _ in range(5)]
        for visitor, _ in pairs:
            visitor.program.socket.send(bytes(10_000))
        joined.backend.mux.close("the backend is gone")
        for visitor, target in pairs:
            assert await target.ended() == "the backend is gone"
            assert await visitor.ended() == "the session ended" or visitor.finished[0].startswith("connection lost: ")
            assert (await visitor.program.read_until_broken())[1]


async def test_what_a_stream_has_brought_to_its_end_is_delivered_although_the_session_ends(tls: bool) -> None:
    async with relay(tls=tls, buffer=SMALL) as joined:
        visitor, target = await joined.visit(buffer=SMALL)
        data = random.randbytes(100_000)
        await target.program.send(data)
        await target.program.half_close()
        await until(lambda: visitor.pump.bytes_in == len(data) and visitor.pump._stream_over)
        joined.backend.mux.close()
        assert await visitor.program.read_until_broken() == (data, False)
        assert await visitor.ended() == "the session ended"
        assert visitor.pump.brought_all


async def test_a_pump_that_receives_no_more_ends_once_the_rest_is_sent(tls: bool) -> None:
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit()
        await target.program.send(b"nobody wants this any more")
        await visitor.program.send(b"last words")
        visitor.pump.stop_receiving()
        await visitor.program.half_close()
        assert await visitor.ended() == ""
        assert await target.program.read_to_end() == b"last words"


@pytest.mark.parametrize("moment", ["at once", "while idle", "while busy", "when one side has ended"])
async def test_an_abort_resets_both_sides_once(tls: bool, moment: str) -> None:
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit()
        if moment != "at once":
            await visitor.program.send(b"hello")
            assert await target.program.read_exactly(5) == b"hello"
        if moment == "while busy":
            target.program.fill()
        if moment == "when one side has ended":
            await target.program.half_close()
            assert await visitor.program.read_to_end() == b""
        visitor.pump.abort("kicked")
        visitor.pump.abort("and again")
        assert await visitor.ended() == "kicked"
        assert await target.ended() == "reset by the other side"
        if moment != "when one side has ended":
            assert (await visitor.program.read_until_broken())[1]
        assert (await target.program.read_until_broken())[1]


async def test_under_a_rate_a_slow_receiver_gets_every_byte(tls: bool) -> None:
    said = random.Random(5).randbytes(300_000)
    async with relay(tls=tls) as joined:
        visitor, target = await joined.visit(SMALL, Pace(3_000_000))
        sending = asyncio.ensure_future(send(target.program, said, random.Random(6)))
        heard = bytearray()
        while piece := await visitor.program.read(5_000):
            heard += piece
        await sending
        assert heard == said


async def test_a_pump_is_not_over_before_the_session_has_sent_its_last_bytes() -> None:
    near, far = connected(SMALL)
    side, remote = Side(SocketEnd(far), client=False), Program(near)
    bulk = [side.open() for _ in range(8)]
    user = Heard()
    user.stream_id = side.mux.open(user) or 0
    target = Half(side, user.stream_id, None, None, early_end=True)
    await until(lambda: target.pump._input.active)
    for one in bulk:
        if size := side.mux.room(one.stream_id):
            side.mux.send(one.stream_id, bytes(min(size, HIGH_WATER // 9)))
    await target.program.send(b"the last bytes")
    await target.program.half_close()
    assert await target.program.read_to_end() == b""
    await until(lambda: target.pump._end_over)
    assert not side.mux.flushed
    assert target.finished == []
    received = bytearray()
    while not target.finished:
        received += await remote.read()
    waiting = len(side.mux._unsent) + side.mux._session.pending_bytes
    assert not waiting
    while b"the last bytes" not in received:
        received += await remote.read()
    remote.close()
    target.program.close()
    side.mux.close("the test is over")
    await side.ended()


async def test_hundreds_of_channels_cut_at_random_moments_leave_no_descriptor(tls: bool) -> None:
    chance = random.Random(7)
    async with relay(tls=tls) as joined:
        before = open_descriptors()
        for _ in range(50):
            pair = await joined.visit()
            for half in pair:
                if chance.random() < 0.7:
                    half.program.socket.send(bytes(chance.choice((10, 70_000, 2_000_000))))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)  # noqa: TID251 a turn of the loop
            cut = chance.choice(pair)
            match chance.randrange(4):
                case 0:
                    cut.program.reset()
                case 1:
                    cut.program.close()
                case 2:
                    await cut.program.half_close()
            if chance.random() < 0.5:
                await asyncio.sleep(0)  # noqa: TID251 a turn of the loop
            chance.choice(pair).pump.abort("at random")
            for half in pair:
                await half.ended()
                half.program.close()
        assert open_descriptors() == before
        assert not joined.server.closed


@pytest.mark.parametrize("size", [INITIAL_WINDOW - 1, INITIAL_WINDOW, 4 * INITIAL_WINDOW + 1])
async def test_every_byte_of_an_end_with_tls_is_passed_on_without_another_one_to_wake_it(size: int) -> None:
    bulk = random.Random(size).randbytes(size)
    async with sessions() as (backend, server):
        user = server.open()
        heard = await backend.peer_of(user)
        pair = ends_of(*connected())
        await shake_hands(*pair)
        program = SecureProgram(pair[0])
        finished: list[str] = []
        pump = StreamPump(asyncio.get_running_loop(), server.mux, user.stream_id, pair[1], finished.append)
        try:
            await program.send(b"first")
            await until(lambda: heard.bytes == b"first")
            await program.send(bulk)
            await until(lambda: len(heard.bytes) == len(bulk) + 5)
            assert heard.bytes == b"first" + bulk
        finally:
            pump.abort("the test is over")
            await until(lambda: finished)
            program.close()
