"""Links: what their owner is told, and what becomes of what it writes; and stretches past it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from link_owner import Owner
from mux_pair import Heard, Side, sessions
from tcp import Program, connected
from tls_programs import SecureProgram, ends_of, shake_hands
from tunnelconsole.engine.transport import plane as plane_module
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.stream_link import StreamLink
from tunnelconsole.engine.transport.stretch import Stretch
from waiting import until

BULK = bytes(range(256)) * 40_000
"""More than every buffer on the way holds."""


class Joined(Owner):
    """An owner of two links, between which a stretch moves bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0
        self.over = False

    def stretch_moved(self, stretch: Stretch, count: int) -> None:
        self.moved += count
        self.over = stretch.over

    def stretch_source_ended(self, stretch: Stretch) -> None:
        self.news.append("source ended")

    def stretch_source_broken(self, stretch: Stretch, reason: str) -> None:
        self.news.append(f"source broken: {reason}")

    def stretch_destination_broken(self, stretch: Stretch) -> None:
        self.news.append("destination broken")


@asynccontextmanager
async def linked(*, tls: bool = False) -> AsyncIterator[tuple[Program, EndLink, Owner]]:
    """A program, the link at the other end of its connection, and who owns that."""
    near, far = connected()
    owner = Owner()
    program: Program = Program(near)
    link = EndLink(asyncio.get_running_loop(), SocketEnd(far), owner)
    if tls:
        pair = ends_of(near, far)
        await shake_hands(*pair)
        program, link = SecureProgram(pair[0]), EndLink(asyncio.get_running_loop(), pair[1], owner)
    try:
        yield program, link, owner
    finally:
        link.abort()
        program.close()


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@both
async def test_what_comes_and_its_end_are_told(tls: bool) -> None:
    async with linked(tls=tls) as (program, link, owner):
        link.resume()
        await program.send(b"hello")
        await until(lambda: owner.got == b"hello")
        await program.half_close()
        await until(lambda: owner.news == ["ended"])
        assert link.ended
        link.resume()
        assert not link.reading


def _more_than(owner: Owner, count: int) -> bool:
    return len(owner.got) > count


def _holds_more(far: Heard, count: int) -> bool:
    return len(far.bytes) > count


@both
async def test_a_paused_link_tells_nothing_and_loses_nothing(tls: bool) -> None:
    async with linked(tls=tls) as (program, link, owner):
        owner.pauses = True
        link.resume()
        sending = asyncio.gather(program.send(BULK))
        while len(owner.got) < len(BULK):
            await until(partial(_more_than, owner, len(owner.got)))
            link.resume()
        await sending
        assert owner.got == BULK


@both
async def test_what_is_written_arrives_as_the_far_side_takes_it(tls: bool) -> None:
    async with linked(tls=tls) as (program, link, owner):
        waits = []
        for data in (b"first ", BULK):
            assert link.write(data)
            waits.append(link.blocked)
        assert waits == [False, True]
        assert link.write(b" last")
        assert await program.read_exactly(6 + len(BULK) + 5) == b"first " + BULK + b" last"
        await until(lambda: owner.news == ["drained"])
        assert not link.blocked


async def test_a_reset_is_told_with_what_came_before() -> None:
    async with linked() as (program, link, owner):
        await program.send(b"before")
        program.reset()
        link.resume()
        await until(lambda: owner.news == ["broken: connection reset"])
        assert owner.got == b"before"
        assert not link.write(b"too late")


async def test_who_takes_nothing_more_is_told_while_what_it_sent_still_comes() -> None:
    async with linked() as (program, link, owner):
        link.write(BULK)
        await program.send(b"goodbye")
        program.reset()
        await until(lambda: "deaf" in owner.news)
        assert not link.blocked


@both
async def test_a_link_that_is_closed_tells_nothing_more(tls: bool) -> None:
    async with linked(tls=tls) as (program, link, owner):
        link.resume()
        link.close()
        link.close()
        assert await program.read_to_end() == b""
        assert not owner.news


async def test_a_link_that_is_aborted_is_broken_for_the_far_side() -> None:
    async with linked() as (program, link, _):
        link.abort()
        assert await program.read_until_broken() == (b"", True)


async def test_an_end_that_is_released_is_the_takers_alone() -> None:
    async with linked() as (program, link, owner):
        link.resume()
        end = link.release()
        await program.send(b"for the taker")
        await until(lambda: _received(end) == b"for the taker")
        assert not owner.got
        end.close()


def _received(end: object) -> bytes:
    assert isinstance(end, SocketEnd)
    try:
        return end.receive(100)
    except BlockingIOError:
        return b""


# -- streams ----------------------------------------------------------------------------------------------------------


def stream_link(side: Side, owner: Owner) -> tuple[StreamLink, int]:
    link = StreamLink(asyncio.get_running_loop(), side.mux, owner)
    stream_id = side.mux.open(link)
    assert stream_id is not None
    link.bind(stream_id)
    return link, stream_id


async def test_a_stream_is_told_of_like_an_end() -> None:
    async with sessions() as (client, server):
        owner = Owner()
        link, stream_id = stream_link(client, owner)
        link.resume()
        link.write(b"question")
        await until(lambda: stream_id in server.peers)
        far: Heard = server.peers[stream_id]
        await until(lambda: far.bytes == b"question")
        server.mux.send(stream_id, b"answer")
        server.mux.send_eof(stream_id)
        await until(lambda: owner.news == ["ended"])
        assert owner.got == b"answer"
        link.close()
        await until(lambda: far.ended)


async def test_what_a_paused_stream_brings_waits_and_holds_its_window() -> None:
    async with sessions() as (client, server):
        owner = Owner()
        link, stream_id = stream_link(client, owner)
        await until(lambda: stream_id in server.peers)
        window = server.mux.room(stream_id)
        server.mux.send(stream_id, bytes(window))
        server.mux.send_eof(stream_id)
        assert server.mux.room(stream_id) == 0
        assert owner.news == []
        link.resume()
        await until(lambda: owner.news == ["ended"])
        assert len(owner.got) == window


async def test_what_is_written_on_a_stream_waits_for_its_window() -> None:
    async with sessions() as (client, server):
        owner = Owner()
        link, stream_id = stream_link(client, owner)
        server.slow.add(stream_id)
        link.write(BULK)
        await until(lambda: stream_id in server.peers)
        far = server.peers[stream_id]
        passed_on = 0
        while passed_on < len(BULK):
            await until(partial(_holds_more, far, passed_on))
            assert link.blocked or len(far.bytes) == len(BULK)
            server.mux.consumed(stream_id, len(far.bytes) - passed_on)
            passed_on = len(far.bytes)
        assert bytes(far.bytes) == BULK
        await until(lambda: not link.blocked)
        assert "drained" in owner.news


async def test_a_stream_that_is_reset_is_broken_and_one_that_is_aborted_is_reset() -> None:
    async with sessions() as (client, server):
        owner = Owner()
        link, stream_id = stream_link(client, owner)
        await until(lambda: stream_id in server.peers)
        server.mux.reject(stream_id)
        await until(lambda: owner.news == ["broken: reset by the other side"])
        assert not link.write(b"too late")
        other, other_id = stream_link(client, owner)
        await until(lambda: other_id in server.peers)
        other.abort()
        await until(lambda: server.peers[other_id].losses)


async def test_a_stream_whose_far_side_does_not_close_is_reset_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.transport.stream_link.CLOSE_TIME", 0.02)
    async with sessions() as (client, server):
        link, stream_id = stream_link(client, Owner())
        await until(lambda: stream_id in server.peers)
        link.close()
        await until(lambda: server.peers[stream_id].ended)
        await until(lambda: server.peers[stream_id].losses)


# -- stretches --------------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(not plane_module.CAN_SPLICE, reason="only where the kernel splices")


@asynccontextmanager
async def stretched(count: int) -> AsyncIterator[tuple[Program, Program, EndLink, EndLink, Joined, Stretch]]:
    """A sender and a receiver, their links, and a stretch of so many bytes between these that has begun."""
    loop = asyncio.get_running_loop()
    plane, owner = Plane(loop), Joined()
    near, left = connected()
    right, far = connected()
    source, destination = EndLink(loop, SocketEnd(left), owner), EndLink(loop, SocketEnd(right), owner)
    sender, receiver = Program(near), Program(far)
    stretch = Stretch(plane, source, destination, count, owner)
    source.resume()
    assert stretch.begin()
    try:
        yield sender, receiver, source, destination, owner, stretch
    finally:
        stretch.stop()
        for link in (source, destination):
            link.abort()
        sender.close()
        receiver.close()
        plane.close()


@linux
async def test_a_stretch_moves_so_many_bytes_and_what_comes_behind_is_the_owners() -> None:
    async with stretched(len(BULK)) as (sender, receiver, source, _, owner, _stretch):
        received, _ = await asyncio.gather(receiver.read_exactly(len(BULK)), sender.send(BULK + b"behind"))
        assert received == BULK
        await until(lambda: owner.over)
        assert owner.moved == len(BULK)
        source.resume()
        await until(lambda: owner.got == b"behind")
        assert not owner.news


@linux
async def test_a_receiver_that_does_not_read_stops_the_sender_of_a_stretch() -> None:
    async with stretched(sys.maxsize) as (sender, receiver, source, _, owner, _stretch):
        await until(lambda: sender.fill() == 0 and not source.reading)
        moved = owner.moved
        assert moved
        assert len(await receiver.read_exactly(moved)) == moved
        await until(lambda: owner.moved > moved)


@linux
async def test_a_stretch_tells_the_end_of_its_source_behind_the_last_byte() -> None:
    async with stretched(sys.maxsize) as (sender, receiver, source, destination, owner, stretch):
        await sender.send(b"all there is")
        await sender.half_close()
        await until(lambda: owner.news == ["source ended"])
        assert stretch.over
        assert source.ended
        destination.close()
        assert await receiver.read_to_end() == b"all there is"


@linux
@pytest.mark.parametrize("who", ["source", "destination"])
async def test_a_stretch_tells_which_side_broke(who: str) -> None:
    async with stretched(sys.maxsize) as (sender, receiver, _, _, owner, stretch):
        await sender.send(b"x")
        assert await receiver.read_exactly(1) == b"x"
        if who == "source":
            sender.reset()
            await until(lambda: owner.news == ["source broken: connection reset"])
        else:
            receiver.reset()
            sender.fill()
            await until(lambda: owner.news == ["destination broken"])
        assert stretch.over


@linux
async def test_a_stretch_that_rests_has_no_pipe_and_goes_on_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_module, "IDLE_SWEEP", 0.02)
    async with stretched(sys.maxsize) as (sender, receiver, _, _, _, stretch):
        for _ in range(3):
            await sender.send(b"hello")
            assert await receiver.read_exactly(5) == b"hello"
            await until(lambda: stretch._pipe is None)


@linux
async def test_without_a_pipe_a_stretch_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_module, "MAX_PIPES", 0)
    async with linked() as (_, link, _), linked() as (_, other, _):
        joined = Joined()
        stretch = Stretch(Plane(asyncio.get_running_loop()), link, other, 10, joined)
        assert not stretch.begin()
