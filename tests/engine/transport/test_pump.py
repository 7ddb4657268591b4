"""The pump: every byte, both ways, in order; ends and breaks passed on as what they are; nothing left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loopback import open_descriptors
from tcp import Program, connected
from tls_programs import SecureProgram, ends_of, shake_hands
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.meters import Meters
from tunnelconsole.engine.sessions import ANONYMOUS, Sessions
from tunnelconsole.engine.transport import plane as plane_module
from tunnelconsole.engine.transport import pump as pump_module
from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.ends import READ_SIZE, End, SocketEnd
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.plane import BUFFER_SIZE, PIPE_SIZE, Plane
from tunnelconsole.engine.transport.pump import Pump
from waiting import until

WAYS = ("splice", "tcp", "paced", "tls-client", "tls-target", "tls-both")
"""How bytes travel: by splice, through the shared buffer alone, under a rate, and with TLS on a side."""

UNLIMITED = 1e12
"""Bytes per second that no test comes near."""

SMALL = 4096
"""Bytes of a kernel buffer so small that nearly every send is cut short."""


class Joined:
    """A client and a target, and the pump between them."""

    def __init__(self, client: Program, target: Program, left: End, right: End) -> None:
        self.client = client
        self.target = target
        self.left = left
        self.right = right
        self.finished: list[str] = []
        """What the pump said when it had ended; more than one text is a fault."""
        self.pump: Pump

    def start(self, plane: Plane, way: str, *, early_left: bytes = b"", early_right: bytes = b"") -> Pump:
        self.pump = Pump(
            plane,
            self.left,
            self.right,
            self.finished.append,
            early_left=early_left,
            early_right=early_right,
            pace=Pace(UNLIMITED) if way == "paced" else None,
        )
        assert not self.finished
        return self.pump

    async def ended(self) -> str:
        """Waits until the pump has ended: once, with both ends closed; returns its reason."""
        await until(lambda: self.finished)
        assert (self.left.fileno(), self.right.fileno()) == (-1, -1)
        assert len(self.finished) == 1
        return self.finished[0]


async def _side(secure: bool, buffer: int | None) -> tuple[Program, End]:
    near, far = connected(buffer)
    if not secure:
        return Program(near), SocketEnd(far)
    outer, inner = ends_of(near, far)
    await shake_hands(outer, inner)
    return SecureProgram(outer), inner


@asynccontextmanager
async def joint(way: str, buffer: int | None = None) -> AsyncIterator[Joined]:
    """A client and a target whose pump is still to be started."""
    client, left = await _side(way in ("tls-client", "tls-both"), buffer)
    target, right = await _side(way in ("tls-target", "tls-both"), buffer)
    joined = Joined(client, target, left, right)
    try:
        yield joined
    finally:
        if hasattr(joined, "pump"):
            joined.pump.abort("the test is over")
        for program in (client, target):
            program.socket.close()
        for end in (left, right):
            end.abort()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of moving bytes."""
    if request.param == "tcp":
        monkeypatch.setattr(plane_module, "CAN_SPLICE", False)
        monkeypatch.setattr(pump_module, "CAN_SPLICE", False)
    return str(request.param)


async def send_in_pieces(program: Program, data: bytes, chance: random.Random) -> None:
    """Sends ``data`` in pieces of any size, with and without pauses between them, and half-closes."""
    rest = memoryview(data)
    while rest:
        size = chance.choice((1, 7, 1000, 64 * 1024, 300_000))
        await program.send(rest[:size])
        rest = rest[size:]
        if chance.random() < 0.2:
            await asyncio.sleep(0)  # noqa: TID251 a turn of the loop
    await program.half_close()


async def read_in_pieces(program: Program, chance: random.Random) -> bytes:
    """Reads to the end, in pieces of any size, now and then not for some turns of the loop."""
    pieces = []
    while piece := await program.read(chance.choice((10, 1000, 64 * 1024, 1024 * 1024))):
        pieces.append(piece)
        if chance.random() < 0.1:
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)  # noqa: TID251 a turn of the loop
    return b"".join(pieces)


async def fill(program: Program) -> int:
    """Sends, past any protocol, until nothing has been taken for a while; returns how many bytes were."""
    taken = [program.fill()]

    def stuck() -> bool:
        taken.append(program.fill())
        return not any(taken[-10:])

    await until(stuck)
    return sum(taken)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("buffer", [None, SMALL], ids=["usual buffers", "small buffers"])
async def test_every_byte_arrives_in_order_both_ways(plane: Plane, way: str, seed: int, buffer: int | None) -> None:
    chance = random.Random(seed)
    scale = 1 if buffer else 10
    question, answer = (chance.randbytes(chance.randrange(scale * 200_000)) for _ in range(2))
    async with joint(way, buffer) as joined:
        pump = joined.start(plane, way)
        asked, answered, *_ = await asyncio.gather(
            read_in_pieces(joined.target, chance),
            read_in_pieces(joined.client, chance),
            send_in_pieces(joined.client, question, chance),
            send_in_pieces(joined.target, answer, chance),
        )
        assert asked == question
        assert answered == answer
        assert await joined.ended() == ""
        assert (pump.bytes_in, pump.bytes_out) == (len(question), len(answer))


async def test_what_came_before_the_pump_is_delivered_first_and_counted(plane: Plane, way: str) -> None:
    early, more = random.Random(1).randbytes(200_000), b"and more"
    async with joint(way) as joined:
        await joined.client.send(more)
        pump = joined.start(plane, way, early_left=early, early_right=b"welcome")
        assert await joined.client.read_exactly(7) == b"welcome"
        assert await joined.target.read_exactly(len(early) + len(more)) == early + more
        assert (pump.bytes_in, pump.bytes_out) == (len(early) + len(more), 7)


@pytest.mark.parametrize("first", ["client", "target"])
async def test_after_one_sides_end_the_other_side_goes_on_for_long(plane: Plane, way: str, first: str) -> None:
    async with joint(way) as joined:
        joined.start(plane, way)
        quiet, talking = (joined.client, joined.target) if first == "client" else (joined.target, joined.client)
        await quiet.send(b"that is all")
        await quiet.half_close()
        assert await talking.read_to_end() == b"that is all"
        for number in range(200):
            said = number.to_bytes(2, "big") * 2000
            await talking.send(said)
            assert await quiet.read_exactly(len(said)) == said
        assert not joined.finished
        await talking.half_close()
        assert await quiet.read_to_end() == b""
        assert await joined.ended() == ""


async def test_a_pump_between_two_programs_that_have_left_ends_in_order(plane: Plane, way: str) -> None:
    async with joint(way) as joined:
        for program in (joined.client, joined.target):
            await program.send(b"bye")
            await program.half_close()
        pump = joined.start(plane, way)
        assert await joined.ended() == ""
        assert await joined.client.read_to_end() == await joined.target.read_to_end() == b"bye"
        assert (pump.bytes_in, pump.bytes_out) == (3, 3)


@pytest.mark.parametrize("way", ["splice", "tcp", "paced", "tls-target"], indirect=True)
async def test_a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing(plane: Plane, way: str) -> None:
    async with joint(way, SMALL) as joined:
        pump = joined.start(plane, way)
        sent = await fill(joined.client)
        kernel = 8 * 1024 * 1024  # what the kernel may hold on the way, with buffers that it grows as it likes
        assert sent <= PIPE_SIZE + BUFFER_SIZE + kernel
        assert pump.bytes_in <= sent
        await joined.client.half_close()
        assert len(await joined.target.read_to_end()) == sent
        assert pump.bytes_in == sent


async def test_a_receiver_that_does_not_read_does_not_stop_the_other_direction(plane: Plane, way: str) -> None:
    async with joint(way, SMALL) as joined:
        joined.start(plane, way)
        filling = asyncio.ensure_future(joined.client.send(bytes(8_000_000)))
        said = bytes(range(256)) * 1000
        heard, _ = await asyncio.gather(joined.client.read_exactly(len(said)), joined.target.send(said))
        assert heard == said
        assert not filling.done()
        filling.cancel()
        await asyncio.wait({filling})


@pytest.mark.parametrize("broken", ["client", "target"])
async def test_a_reset_on_one_side_becomes_a_reset_on_the_other(plane: Plane, way: str, broken: str) -> None:
    async with joint(way) as joined:
        joined.start(plane, way)
        breaking, left = (joined.client, joined.target) if broken == "client" else (joined.target, joined.client)
        await breaking.send(b"some of it")
        assert await left.read_exactly(10) == b"some of it"
        breaking.reset()
        assert await left.read_until_broken() == (b"", True)
        assert await joined.ended() == f"{broken}: connection reset"


@pytest.mark.parametrize("size", [1, 1000, READ_SIZE, BUFFER_SIZE, 1_000_000])
@pytest.mark.parametrize("broken", ["client", "target"])
async def test_what_was_sent_before_a_reset_is_delivered_and_then_the_reset(
    plane: Plane, way: str, broken: str, size: int
) -> None:
    async with joint(way, 2_000_000) as joined:
        breaking, left = (joined.client, joined.target) if broken == "client" else (joined.target, joined.client)
        said = random.Random(size).randbytes(size)
        await breaking.send(said)
        await until(lambda: not breaking.unacknowledged)
        breaking.reset()
        joined.start(plane, way)
        assert await left.read_until_broken() == (said, True)
        assert await joined.ended() == f"{broken}: connection reset"


@pytest.mark.parametrize("way", ["splice", "tcp", "paced"], indirect=True)
async def test_a_reset_that_sending_notices_first_does_not_make_the_answer_look_complete(
    plane: Plane, way: str
) -> None:
    async with joint(way, SMALL) as joined:
        joined.start(plane, way)
        sent = await fill(joined.target)  # from here on the pump does not read the target
        joined.target.reset()
        await joined.client.send(b"are you there?")
        received, broken = await joined.client.read_until_broken()
        assert broken
        assert len(received) <= sent
        assert await joined.ended() == "target: connection reset"


async def test_an_answer_given_before_the_question_was_read_is_delivered_in_full(plane: Plane, way: str) -> None:
    answer = random.Random(2).randbytes(500_000)
    async with joint(way) as joined:
        joined.start(plane, way)
        asking = asyncio.ensure_future(joined.client.send(bytes(20_000_000)))
        await until(lambda: joined.pump.bytes_in > 1_000_000)
        sending = asyncio.ensure_future(joined.target.send(answer))
        received = await joined.client.read_exactly(len(answer))
        await sending
        await joined.target.half_close()
        joined.target.socket.close()  # with the question unread: the kernel answers it with a reset
        assert received == answer
        assert await joined.ended() == "target: connection reset"
        await asyncio.wait({asking})
        assert isinstance(asking.exception(), ConnectionError)


@pytest.mark.parametrize("moment", ["at once", "while idle", "while busy", "when one side has ended"])
async def test_an_abort_resets_both_sides_once(plane: Plane, way: str, moment: str) -> None:
    async with joint(way) as joined:
        pump = joined.start(plane, way, early_left=b"early")
        if moment != "at once":
            assert await joined.target.read_exactly(5) == b"early"
        if moment == "while busy":
            joined.client.fill()
        if moment == "when one side has ended":
            await joined.client.half_close()
            assert await joined.target.read_to_end() == b""
        pump.abort("kicked")
        pump.abort("and again")
        assert await joined.ended() == "kicked"
        assert (await joined.client.read_until_broken())[1]
        if moment == "when one side has ended":
            with pytest.raises(ConnectionError):
                await joined.target.send(b"is anybody there?")
        else:
            assert (await joined.target.read_until_broken())[1]
        pump.abort("too late")
        pump.stop_receiving()
        assert await joined.ended() == "kicked"


async def test_once_told_to_stop_receiving_it_ends_when_the_clients_bytes_are_delivered(plane: Plane, way: str) -> None:
    said = random.Random(3).randbytes(3_000_000)
    async with joint(way) as joined:
        joined.start(plane, way)
        sending = asyncio.ensure_future(joined.client.send(said))
        await until(lambda: joined.pump.bytes_in)
        joined.pump.stop_receiving()
        first = await joined.target.read_exactly(len(said))
        await sending
        await joined.client.half_close()
        assert first == said
        assert await joined.target.read_to_end() == b""
        assert await joined.ended() == ""


async def test_under_a_rate_every_byte_is_paid_for_however_slowly_it_is_taken(plane: Plane) -> None:
    paid: list[int] = []

    class Till(Pace):
        """A rate that notes what was paid."""

        def take(self, count: int, now: float) -> float:
            paid.append(count)
            return super().take(count, now)

    said = random.Random(5).randbytes(300_000)
    async with joint("paced", SMALL) as joined:
        joined.pump = Pump(
            plane, joined.left, joined.right, joined.finished.append, early_left=b"early", pace=Till(UNLIMITED)
        )
        sending = asyncio.ensure_future(joined.client.send(said))
        assert await joined.target.read_exactly(len(said) + 5) == b"early" + said
        await sending
        assert sum(paid) == len(said) + 5


async def test_under_a_rate_what_is_not_paid_for_yet_is_not_read(plane: Plane) -> None:
    async with joint("paced") as joined:
        pace = Pace(10.0)
        joined.pump = Pump(plane, joined.left, joined.right, joined.finished.append, pace=pace)
        await joined.client.send(bytes(100_000))
        assert await joined.target.read(pace.read_size) == bytes(pace.read_size)
        half = joined.pump.left_to_right
        assert isinstance(half, BufferedHalf)
        assert half._pause is not None
        assert joined.pump.bytes_in == pace.read_size


async def test_a_channel_that_moves_nothing_for_too_long_is_cut_and_both_sides_see_a_reset(
    plane: Plane, way: str
) -> None:
    register = Sessions(Bus(), Meters())
    session = register.open_session("home", "jump-server", "192.0.2.1:5", ANONYMOUS, lambda _reason: None)
    async with joint(way) as joined:
        pump = joined.start(plane, way)
        channel = register.open_channel(session, "there:80", pump, idle_timeout=1e-6)
        await joined.client.send(b"hello")
        assert await joined.target.read_exactly(5) == b"hello"
        list(register.tick(1.0))
        assert channel.rate_in == 5.0
        assert not joined.finished
        list(register.tick(1.0))
        assert await joined.ended() == "idle for 1e-06 s"
        assert (await joined.client.read_until_broken())[1]
        assert (await joined.target.read_until_broken())[1]


async def test_the_path_says_how_the_bytes_travel(plane: Plane, way: str) -> None:
    async with joint(way) as joined:
        assert joined.start(plane, way).path == {"splice": "splice", "tcp": "tcp", "paced": "tcp"}.get(way, "tls")


async def test_hundreds_of_channels_cut_at_random_moments_leave_no_descriptor(plane: Plane, way: str) -> None:
    chance = random.Random(4)
    rounds = 25 if way.startswith("tls") else 60
    before = open_descriptors()
    for _ in range(rounds):
        async with joint(way) as joined:
            pump = joined.start(plane, way, early_right=b"early" * chance.randrange(2))
            for program in (joined.client, joined.target):
                if chance.random() < 0.7:
                    program.socket.send(bytes(chance.choice((10, 70_000, 400_000, 2_000_000))))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)  # noqa: TID251 a turn of the loop
            match chance.randrange(4):
                case 0:
                    joined.client.reset()
                case 1:
                    joined.target.reset()
                case 2:
                    joined.client.close()
            if chance.random() < 0.5:
                await asyncio.sleep(0)  # noqa: TID251 a turn of the loop
            pump.abort("at random")
            await joined.ended()
    plane.close()
    assert open_descriptors() == before
