"""The pool of data connections that wait for a visitor: what is needed is kept, the rest is let go after a while."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tcp import connected
from tunnelconsole.engine.services import spare as spare_module
from tunnelconsole.engine.services.relay.spare import MAX_SPARE, SparePool
from tunnelconsole.engine.transport.ends import SocketEnd
from waiting import until

NEVER = 3600.0
"""Seconds that no test waits for."""


class Backend:
    """Dials data connections into a pool."""

    def __init__(self) -> None:
        self.pool = SparePool(asyncio.get_running_loop())
        self.dialled: list[socket.socket] = []

    def dial(self, count: int) -> None:
        for _ in range(count):
            near, far = connected()
            self.dialled.append(near)
            if not self.pool.add(SocketEnd(far)):
                far.close()

    def take(self) -> bool:
        """A visitor takes a connection; whether there was one."""
        end = self.pool.take()
        if end is not None:
            end.close()
        return end is not None

    def look(self) -> None:
        """The pool looks what it has too many of, before its time."""
        assert self.pool._timer is not None
        self.pool._timer.cancel()
        self.pool._shrink()


@pytest_asyncio.fixture
async def backend(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Backend]:
    monkeypatch.setattr(spare_module, "SPARE_IDLE_TIME", NEVER)
    made = Backend()
    yield made
    made.pool.close()
    for sock in made.dialled:
        sock.close()


async def test_as_many_stay_as_the_backend_keeps_and_visitors_needed(backend: Backend) -> None:
    backend.pool.kept = 2
    backend.dial(10)
    backend.look()
    for _ in range(3):
        assert backend.take()
    backend.dial(3)
    backend.look()
    needed = 3
    assert len(backend.pool) == 2 + needed
    backend.look()
    assert len(backend.pool) == 2
    assert backend.pool._timer is None


async def test_none_are_closed_of_a_backend_that_does_not_say_how_many_it_keeps(backend: Backend) -> None:
    backend.dial(20)
    assert backend.pool._timer is None


async def test_no_more_are_kept_than_may_wait(backend: Backend) -> None:
    backend.dial(MAX_SPARE + 3)
    assert len(backend.pool) == MAX_SPARE


async def test_one_that_ends_is_not_closed_a_second_time_for_being_too_many(backend: Backend) -> None:
    backend.pool.kept = 1
    backend.dial(3)
    for sock in backend.dialled[:2]:
        sock.close()
    await until(lambda: len(backend.pool) == 1)
    backend.look()
    assert len(backend.pool) == 1
    assert backend.take()
    assert not backend.take()


async def test_a_closed_pool_has_no_connection_and_no_timer(backend: Backend) -> None:
    backend.pool.kept = 0
    backend.dial(3)
    timer = backend.pool._timer
    backend.pool.close()
    assert not len(backend.pool)
    assert timer is not None
    assert timer.cancelled()
