"""Pipes of the adaptive pump: who gets one, when it is given back, and what happens where there is none."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loopback import open_descriptors
from tcp import Program, connected
from tunnelconsole.engine.transport import plane as plane_module
from tunnelconsole.engine.transport.adaptive import FULL_READ, FULL_READS_TO_SPLICE, AdaptiveHalf
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.plane import BUFFER_SIZE, Plane
from tunnelconsole.engine.transport.pump import Pump
from waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice")

LARGE = 4 * 1024 * 1024
"""Bytes of a kernel buffer that holds several full reads at once."""


class Channel:
    """A client and a target with a pump between them."""

    def __init__(self, plane: Plane, buffer: int | None) -> None:
        near, left = connected(buffer)
        right, far = connected(buffer)
        self.client, self.target = Program(near), Program(far)
        self.finished: list[str] = []
        self.pump = Pump(plane, SocketEnd(left), SocketEnd(right), self.finished.append)

    @property
    def half(self) -> AdaptiveHalf:
        """The direction from the client to the target."""
        half = self.pump.left_to_right
        assert isinstance(half, AdaptiveHalf)
        return half

    async def carry(self, data: bytes) -> None:
        """Sends ``data`` to the target, and reads it there."""
        sending = asyncio.ensure_future(self.client.send(data))
        assert await self.target.read_exactly(len(data)) == data
        await sending

    async def ended(self) -> None:
        await until(lambda: self.finished)


@contextmanager
def channels(plane: Plane, count: int = 1, buffer: int | None = None) -> Iterator[list[Channel]]:
    made = [Channel(plane, buffer) for _ in range(count)]
    try:
        yield made
    finally:
        for channel in made:
            channel.pump.abort("the test is over")
            channel.client.close()
            channel.target.close()


@pytest.fixture(scope="module")
def bulk() -> bytes:
    """More than the direction keeps in the buffer before it borrows a pipe."""
    return random.Random(1).randbytes(2 * FULL_READS_TO_SPLICE * BUFFER_SIZE)


async def test_small_traffic_borrows_no_pipe(plane: Plane) -> None:
    with channels(plane) as [channel]:
        for _ in range(100):
            await channel.carry(bytes(FULL_READ // 2))
        assert plane.pipes == 0


async def test_one_large_answer_borrows_no_pipe(plane: Plane) -> None:
    with channels(plane, buffer=LARGE) as [channel]:
        await channel.carry(bytes(FULL_READS_TO_SPLICE * FULL_READ))
        assert plane.pipes == 0


async def test_after_several_full_reads_in_a_row_a_direction_borrows_a_pipe_of_its_own(
    plane: Plane, bulk: bytes
) -> None:
    with channels(plane, buffer=LARGE) as [channel]:
        await channel.carry(bulk)
        assert plane.pipes == 1


async def test_an_idle_direction_gives_its_pipe_back_and_the_next_gets_the_same(plane: Plane, bulk: bytes) -> None:
    with channels(plane, 2, LARGE) as [first, second]:
        await first.carry(bulk)
        pipe = first.half._pipe
        plane._sweep_idle()
        assert first.half._pipe == pipe  # it moved something until now
        plane._sweep_idle()
        assert first.half._pipe is None
        await second.carry(bulk)
        assert second.half._pipe == pipe
        await first.carry(b"and on through the buffer")
        assert plane.pipes == 1


async def test_the_sweep_runs_by_itself_and_only_while_pipes_are_borrowed(
    plane: Plane, bulk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane_module, "IDLE_SWEEP", 0.01)
    with channels(plane, buffer=LARGE) as [channel]:
        await channel.carry(bulk)
        await until(lambda: channel.half._pipe is None)
        await until(lambda: plane._sweep is None)


async def get_stuck(channel: Channel) -> int:
    """Sends until the target, which does not read, has bytes of a borrowed pipe waiting; returns how many were sent."""
    sent = 0

    def stuck() -> bool:
        nonlocal sent
        taken = channel.client.fill()
        sent += taken
        return not taken and bool(channel.half._in_pipe)

    await until(stuck)
    return sent


async def test_a_direction_whose_receiver_is_stuck_keeps_what_is_in_its_pipe(plane: Plane, bulk: bytes) -> None:
    with channels(plane, buffer=LARGE) as [channel]:
        await channel.carry(bulk)
        sent = await get_stuck(channel)
        plane._sweep_idle()
        plane._sweep_idle()
        await channel.client.half_close()
        assert len(await channel.target.read_to_end()) == sent


async def test_there_are_never_more_pipes_than_allowed_and_whoever_gets_none_goes_on(
    plane: Plane, bulk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane_module, "MAX_PIPES", 2)
    with channels(plane, 4, LARGE) as made:
        await asyncio.gather(*(channel.carry(bulk) for channel in made))
        assert plane.pipes == 2


async def test_while_stuck_receivers_hold_every_pipe_others_go_on_through_the_buffer_and_get_one_later(
    plane: Plane, bulk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane_module, "MAX_PIPES", 1)
    with channels(plane, 2, LARGE) as [stuck, other]:
        await stuck.carry(bulk)
        sent = await get_stuck(stuck)
        plane._sweep_idle()
        plane._sweep_idle()
        await other.carry(bulk)
        assert plane._borrowed == {stuck.half}
        await stuck.target.read_exactly(sent)
        plane._sweep_idle()
        plane._sweep_idle()
        await other.carry(bulk)
        assert plane._borrowed == {other.half}
        assert plane.pipes == 1


async def test_a_pipe_of_the_default_size_will_do(plane: Plane, bulk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "beyond the user's share of pipe pages")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    with channels(plane, buffer=LARGE) as [channel]:
        await channel.carry(bulk)
        assert plane.pipes == 1


async def test_without_a_descriptor_for_a_pipe_the_bytes_go_through_the_buffer(
    plane: Plane, bulk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refused)
    with channels(plane, buffer=LARGE) as [channel]:
        await channel.carry(bulk)
        assert plane.pipes == 0


async def test_bytes_left_in_a_pipe_by_one_channel_never_reach_another(plane: Plane, bulk: bytes) -> None:
    with channels(plane, 2, LARGE) as [first, second]:
        await first.carry(bulk)
        await until(lambda: not first.client.fill(b"secret" * 10_000) and bool(first.half._in_pipe))
        first.pump.abort("kicked")
        assert plane.pipes == 0
        await second.carry(bulk)
        assert plane.pipes == 1


async def test_both_ends_of_a_channel_in_bulk_borrow_a_pipe_for_each_direction(plane: Plane, bulk: bytes) -> None:
    with channels(plane, buffer=LARGE) as [channel]:
        asking, answering = (asyncio.ensure_future(program.send(bulk)) for program in (channel.client, channel.target))
        asked, answered = await asyncio.gather(
            channel.target.read_exactly(len(bulk)), channel.client.read_exactly(len(bulk))
        )
        await asyncio.gather(asking, answering)
        assert asked == answered == bulk
        assert plane.pipes == 2


async def test_a_pipe_that_comes_back_after_the_plane_was_closed_is_closed(bulk: bytes) -> None:
    plane = Plane(asyncio.get_running_loop())
    with channels(plane, 2, LARGE) as made:
        for channel in made:
            await channel.carry(bulk)
        before = open_descriptors()
        made[0].half.release_if_idle()
        made[0].half.release_if_idle()
        plane.close()
        assert open_descriptors() == before - 2
        made[1].half.release_if_idle()
        made[1].half.release_if_idle()
        assert open_descriptors() == before - 4


async def test_a_unix_socket_is_pumped_as_well(plane: Plane, bulk: bytes) -> None:
    near, left = socket.socketpair()
    right, far = connected(LARGE)
    for sock in (near, left):
        sock.setblocking(False)
    finished: list[str] = []
    client, target = Program(near), Program(far)
    Pump(plane, SocketEnd(left), SocketEnd(right), finished.append)
    sending = asyncio.ensure_future(client.send(bulk))
    assert await target.read_exactly(len(bulk)) == bulk
    await sending
    await client.half_close()
    assert await target.read_to_end() == b""
    await target.half_close()
    await until(lambda: finished == [""])
    client.close()
    target.close()
