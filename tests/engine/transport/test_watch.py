"""Watching for input: called as long as there is any, also where the loop lets go of a descriptor."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from tcp import Program, connected
from tunnelconsole.engine.transport.watch import InputWatch
from waiting import until


class Piecemeal:
    """Reads a byte with each call."""

    def __init__(self) -> None:
        near, self.sock = connected()
        self.remote = Program(near)
        self.calls = 0
        self.heard = b""
        self.ended: list[str] = []
        self.watch = InputWatch(asyncio.get_running_loop(), self.sock.fileno(), self.readable)

    def readable(self) -> None:
        self.calls += 1
        try:
            byte = self.sock.recv(1)
        except OSError as error:
            byte, end = b"", type(error).__name__
        else:
            end = "" if byte else "the end"
        self.heard += byte
        if end:
            self.ended.append(end)
            self.watch.stop()

    def close(self) -> None:
        self.watch.stop()
        self.sock.close()
        self.remote.close()


@pytest.mark.parametrize(
    ("leave", "seen"), [(Program.close, "the end"), (Program.reset, "ConnectionResetError")], ids=["closed", "reset"]
)
async def test_every_byte_and_then_the_end_is_read_however_the_peer_leaves(
    leave: Callable[[Program], None], seen: str
) -> None:
    reader = Piecemeal()
    await reader.remote.send(b"last words")
    await until(lambda: not reader.remote.unacknowledged)
    leave(reader.remote)
    reader.watch.start()
    await until(lambda: reader.ended)
    assert reader.heard == b"last words"
    assert reader.ended == [seen]
    reader.close()


async def test_nothing_is_read_before_the_start_and_after_the_stop() -> None:
    reader = Piecemeal()
    await reader.remote.send(b"0123456789")
    await until(lambda: not reader.remote.unacknowledged)
    reader.watch.stop()
    assert reader.calls == 0
    reader.watch.start()
    reader.watch.start()
    assert reader.watch.active
    await until(lambda: reader.calls)
    reader.watch.stop()
    reader.watch.stop()
    calls = reader.calls
    turns: list[None] = []
    asyncio.get_running_loop().call_soon(turns.append, None)
    await until(lambda: turns)
    assert reader.calls == calls
    reader.watch.start()
    await until(lambda: len(reader.heard) == 10)
    reader.close()


async def test_a_stop_right_after_the_loop_let_go_is_one() -> None:
    reader = Piecemeal()
    await reader.remote.send(b"last words")
    await until(lambda: not reader.remote.unacknowledged)
    reader.remote.reset()
    reader.watch.start()
    await until(lambda: reader.calls)
    reader.watch._let_go(None)
    reader.watch.stop()
    calls = reader.calls
    descriptor = reader.sock.fileno()
    reader.sock.close()
    again = Piecemeal()  # one of its sockets has the old number
    assert descriptor in (again.sock.fileno(), again.remote.socket.fileno())
    await again.remote.send(b"x")
    again.watch.start()
    await until(lambda: again.heard)
    assert reader.calls == calls
    again.close()


async def test_a_watch_that_is_handed_over_goes_on_for_the_next_one() -> None:
    reader = Piecemeal()
    reader.watch.start()
    reader.watch.hand_over()
    assert not reader.watch.active
    following = InputWatch(asyncio.get_running_loop(), reader.sock.fileno(), reader.readable)
    following.start()
    await reader.remote.send(b"x")
    await until(lambda: reader.heard)
    following.stop()
    reader.close()


async def test_a_loop_that_is_closed_is_not_asked_to_watch_again() -> None:
    loop = asyncio.new_event_loop()
    near, far = connected()
    watch = InputWatch(loop, far.fileno(), lambda: None)
    watch.start()
    loop.remove_reader(far.fileno())
    loop.close()
    watch._let_go(None)
    near.close()
    far.close()


def faults_of_the_loop() -> list[BaseException]:
    """Takes what the loop is told that nobody else took."""
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    return told


async def turns(count: int) -> None:
    """Lets the loop go round so many times."""
    loop, gone = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal gone
        gone += 1
        loop.call_soon(turn if gone < count else bool)

    turn()
    await until(lambda: gone == count)


async def test_a_descriptor_that_was_closed_while_it_is_watched_is_given_up_at_once() -> None:
    faults = faults_of_the_loop()
    reader = Piecemeal()
    reader.watch.start()
    asyncio.get_running_loop().remove_reader(reader.sock.fileno())
    reader.sock.close()
    reader.watch._let_go(None)
    await turns(20)
    assert [fault.errno for fault in faults if isinstance(fault, OSError)] == [errno.EBADF]
    assert reader.ended == ["OSError"]
    assert reader.calls == 1
    assert not reader.watch.active
    reader.close()


async def test_a_descriptor_that_cannot_be_watched_is_an_error_of_the_start_and_no_more() -> None:
    faults = faults_of_the_loop()
    near, far = connected()
    number = far.fileno()
    far.close()
    watch = InputWatch(asyncio.get_running_loop(), number, lambda: None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.start()
    await turns(20)
    assert not watch.active
    assert not faults
    near.close()
