"""Ends, and waiting for them in a coroutine."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from tcp import Program, connected
from tunnelconsole.engine.transport.ends import (
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_PROBES,
    SocketEnd,
    receive,
    reset,
    send_all,
    tune,
    wait_readable,
    wait_writable,
)
from waiting import until


async def test_receiving_waits_for_bytes_and_for_the_end() -> None:
    near, far = connected()
    remote, end = Program(near), SocketEnd(far)
    waiting = asyncio.ensure_future(receive(end))
    await remote.send(b"hello")
    assert await waiting == b"hello"
    waiting = asyncio.ensure_future(receive(end, 3))
    await remote.send(b"again")
    await remote.half_close()
    assert await waiting == b"aga"
    assert await receive(end) == b"in"
    assert await receive(end) == b""
    assert await receive(end) == b""
    end.close()
    remote.close()


async def test_sending_waits_until_the_far_side_has_taken_all() -> None:
    near, far = connected(4096)
    remote, end = Program(near), SocketEnd(far)
    sending = asyncio.ensure_future(send_all(end, bytes(range(256)) * 10_000))
    heard = await remote.read_exactly(2_560_000)
    await sending
    assert heard == bytes(range(256)) * 10_000
    end.close()
    remote.close()


async def test_a_break_is_an_error_for_whoever_waits() -> None:
    near, far = connected(4096)
    remote, end = Program(near), SocketEnd(far)
    receiving = asyncio.ensure_future(receive(end))
    sending = asyncio.ensure_future(send_all(end, bytes(10_000_000)))
    await remote.read(1)
    remote.reset()
    for task in (receiving, sending):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await task
    end.close()


async def test_a_wait_that_is_given_up_leaves_the_loop_alone() -> None:
    near, far = connected(4096)
    remote, end = Program(near), SocketEnd(far)
    await until(lambda: not Program(far).fill())
    waits = [asyncio.ensure_future(wait_readable(end)), asyncio.ensure_future(wait_writable(end))]
    await asyncio.wait(waits, timeout=0.01)
    for waiting in waits:
        assert not waiting.done()
        waiting.cancel()
    await asyncio.wait(waits)
    loop = asyncio.get_running_loop()
    assert not loop.remove_reader(far)
    assert not loop.remove_writer(far)
    end.close()
    remote.close()


async def test_a_plain_end_hands_over_at_once_and_holds_nothing_back() -> None:
    near, far = connected()
    end = SocketEnd(far)
    assert end.path == "tcp"
    assert end.fileno() == far.fileno()
    assert end.flush()
    assert not end.holds_input()
    end.close()
    end.close()
    assert end.fileno() == -1
    near.close()


async def test_an_end_that_is_sent_leaves_receiving_open() -> None:
    near, far = connected()
    remote, end = Program(near), SocketEnd(far)
    end.send_eof()
    assert await remote.read_to_end() == b""
    await remote.send(b"still here")
    assert await receive(end) == b"still here"
    end.close()
    remote.close()


async def test_a_reset_is_seen_as_one_and_does_nothing_to_a_closed_socket() -> None:
    near, far = connected()
    reset(far)
    reset(far)
    SocketEnd(far).abort()
    with pytest.raises(ConnectionResetError):
        await Program(near).read()
    near.close()


async def test_a_socket_that_was_never_connected_can_be_reset() -> None:
    sock = socket.socket()
    reset(sock)
    assert sock.fileno() == -1


async def test_a_tuned_socket_sends_at_once_and_notices_a_dead_peer_in_two_minutes() -> None:
    near, far = connected()
    tune(far)
    assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES == 120
    if sys.platform == "linux":
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [far.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [
            KEEPALIVE_IDLE,
            KEEPALIVE_INTERVAL,
            KEEPALIVE_PROBES,
        ]
    near.close()
    far.close()
