"""What waits in the channel server's hub: outboxes and held bytes, and how losses are told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.services.channel import drops as drops_module
from tunnelconsole.engine.services.channel import hold as hold_module
from tunnelconsole.engine.services.channel.drops import Drops, Loss
from tunnelconsole.engine.services.channel.hold import Hold
from tunnelconsole.engine.services.channel.outbox import GROUP, SMALL_PIECE, Outbox
from waiting import until

PIECES = st.lists(st.binary(max_size=20_000).map(lambda data: data * 3), max_size=12)
LOSS = Loss("s1", "c1", "ch0", "it reads too slowly")


class Taking:
    """An end that takes so many bytes at once, and so many in all until it is told more."""

    path = "tcp"

    def __init__(self, at_once: int, in_all: int = 2**40) -> None:
        self.at_once = at_once
        self.in_all = in_all
        self.taken = bytearray()

    def fileno(self) -> int:
        return -1

    def receive(self, size: int) -> bytes:
        raise BlockingIOError

    def send(self, data: bytes | memoryview) -> int:
        count = min(len(data), self.at_once, self.in_all)
        if not count:
            raise BlockingIOError
        self.in_all -= count
        self.taken += data[:count]
        return count

    def flush(self) -> bool:
        return True

    def holds_input(self) -> bool:
        return False

    def send_eof(self) -> None:
        return

    def close(self) -> None:
        return

    def abort(self) -> None:
        return


class Broken(Taking):
    """An end that takes some bytes and breaks."""

    def send(self, data: bytes | memoryview) -> int:
        try:
            return super().send(data)
        except BlockingIOError:
            raise ConnectionResetError from None


@given(PIECES, st.integers(1, 70_000), st.lists(st.integers(0, 100_000), max_size=8))
def test_what_is_queued_comes_out_whole_and_in_order(pieces: list[bytes], at_once: int, portions: list[int]) -> None:
    outbox, end = Outbox(10**9), Taking(at_once, 0)
    queued = b"".join(pieces)
    for number, piece in enumerate(pieces):
        outbox.add(memoryview(piece))
        end.in_all = portions[number] if number < len(portions) else 0
        outbox.send_to(end)
        assert outbox.waiting + len(end.taken) == sum(map(len, pieces[: number + 1]))
    end.in_all = len(queued)
    outbox.send_to(end)
    assert end.taken == queued
    assert outbox.waiting == 0


def test_the_room_is_what_the_capacity_leaves() -> None:
    outbox = Outbox(100)
    outbox.add(b"x" * 60)
    assert outbox.room == 40
    outbox.send_to(Taking(10, 30))
    assert outbox.room == 70


def test_what_comes_first_does_not_count_against_the_capacity_while_it_waits() -> None:
    outbox = Outbox(100)
    outbox.add_first(b"f" * 1000)
    assert outbox.room == 100
    outbox.add(b"x" * 40)
    assert outbox.room == 60
    end = Taking(2000, 990)
    outbox.send_to(end)
    assert (outbox.waiting, outbox.room) == (50, 60)
    end.in_all = 30
    outbox.send_to(end)
    assert (outbox.waiting, outbox.room) == (20, 80)
    with pytest.raises(RuntimeError):
        outbox.add_first(b"too late")


def test_what_a_broken_end_took_before_is_not_waiting_any_more() -> None:
    outbox = Outbox(100)
    outbox.add(b"x" * 60)
    with pytest.raises(ConnectionResetError):
        outbox.send_to(Broken(10, 20))
    assert outbox.clear() == 40
    assert (outbox.waiting, outbox.room) == (0, 100)


def test_many_small_pieces_are_kept_together() -> None:
    outbox = Outbox(10**6)
    for _ in range(10 * SMALL_PIECE):
        outbox.add(b"x")
    assert len(outbox._pieces) <= 10 * SMALL_PIECE // GROUP + 1


def test_large_pieces_are_not_copied() -> None:
    outbox, data = Outbox(10**6), b"x" * SMALL_PIECE
    outbox.add(data)
    assert outbox._pieces[0] is data


async def test_held_bytes_are_given_up_once_and_in_order() -> None:
    hold = Hold(asyncio.get_running_loop(), 10, lambda _size, _reason: None)
    assert [hold.keep("b", b"123"), hold.keep("c", b"4"), hold.keep("b", b"5678")] == [3, 1, 4]
    assert hold.total == 8
    assert [hold.take("b"), hold.take("b"), hold.take("c")] == [b"1235678", b"", b"4"]
    assert hold.total == 0


async def test_exactly_the_capacity_is_held_for_each_chid() -> None:
    hold = Hold(asyncio.get_running_loop(), 10, lambda _size, _reason: None)
    assert [hold.keep("b", data) for data in (b"1234567", b"89012", b"3")] == [7, 3, 0]
    assert hold.keep("c", bytes(11)) == hold.total - 10 == 10
    assert [hold.take("b"), hold.take("c")] == [b"1234567890", bytes(10)]
    assert hold.total == 0


async def test_without_capacity_nothing_is_held() -> None:
    hold = Hold(asyncio.get_running_loop(), 0, lambda _size, _reason: None)
    assert not hold.keep("b", b"1")
    assert hold.total == 0


async def test_bytes_are_held_for_only_so_many_chids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "MAX_HELD_CHIDS", 3)
    forgotten: list[tuple[int, str]] = []
    hold = Hold(asyncio.get_running_loop(), 10, lambda size, reason: forgotten.append((size, reason)))
    for size in range(1, 6):
        assert hold.keep(f"chid{size}", bytes(size))
    assert [size for size, _ in forgotten] == [1, 2]
    assert hold.total == 3 + 4 + 5
    hold.clear()
    assert sum(size for size, _ in forgotten) == 15


async def test_a_loss_is_told_at_once_then_as_a_sum_and_the_rest_when_its_session_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drops_module, "REPORT_INTERVAL", 0.05)
    told: list[tuple[Loss, int]] = []
    drops = Drops(asyncio.get_running_loop(), lambda loss, size: told.append((loss, size)))
    for size in (5, 6, 7, 0):
        drops.count(LOSS, size)
    assert told == [(LOSS, 5)]
    await until(lambda: len(told) == 2)
    assert told[1] == (LOSS, 13)
    drops.count(LOSS, 1)
    other = LOSS._replace(session="s2")
    drops.count(other, 2)
    drops.settle("s1")
    assert told[2:] == [(other, 2), (LOSS, 1)]
    await until(lambda: not drops._timers)
    assert len(told) == 4
