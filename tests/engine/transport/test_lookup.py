"""Looking names up: a resolver that does not answer holds up those who asked for it, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tunnelconsole.engine.transport import dialer, listener
from tunnelconsole.engine.transport.dialer import resolve
from tunnelconsole.engine.transport.listener import listen
from tunnelconsole.engine.transport.lookup import Lookups
from tunnelconsole.errors import ConnectFailed
from waiting import until, until_true

MOMENT = 0.05
"""Seconds for an answer that never comes."""

GETADDRINFO = socket.getaddrinfo


class Resolver:
    """In place of the system's: knows loopback, and says nothing about any other name until it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waiting = 0
        self.released = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        with self._lock:
            self.asked.append(host)
        if host == "localhost":
            return GETADDRINFO(host, port, *arguments, **options)
        with self._lock:
            self.waiting += 1
        self.released.wait()
        with self._lock:
            self.waiting -= 1
        return GETADDRINFO("127.0.0.1", port, *arguments, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.released.set()
    until_true(lambda: not made.waiting)


def threads(monkeypatch: pytest.MonkeyPatch, count: int) -> Lookups:
    """Lookups with so many threads, in place of the process's."""
    made = Lookups(count)
    monkeypatch.setattr(dialer, "LOOKUPS", made)
    return made


async def test_names_that_have_no_answer_hold_up_neither_other_threads_nor_other_names(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(monkeypatch, 33)
    stuck = asyncio.gather(*(resolve(f"host{number}.example", 80) for number in range(32)))
    await until(lambda: resolver.waiting == 32)
    async with asyncio.timeout(5.0):
        assert await asyncio.to_thread(str.upper, "file") == "FILE"
        assert {address.host for address in await resolve("localhost", 80)} <= {"127.0.0.1", "::1"}
    resolver.released.set()
    assert {str(address) for (address,) in await stuck} == {"127.0.0.1:80"}


async def test_no_more_names_are_looked_up_at_once_than_there_are_threads(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(monkeypatch, 2)
    before = threading.active_count()
    all_of_them = asyncio.gather(*(resolve(f"host{number}.example", 80) for number in range(5)))
    await until(lambda: resolver.waiting == 2)
    assert len(resolver.asked) == 2
    assert threading.active_count() == before + 2
    resolver.released.set()
    await all_of_them
    assert len(resolver.asked) == 5


async def test_a_name_that_gets_no_thread_in_time_is_told_as_go_programs_do_and_never_asked_for(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(monkeypatch, 1)
    first = asyncio.gather(resolve("first.example", 80))
    await until(lambda: resolver.waiting)
    with pytest.raises(ConnectFailed) as failure:
        await resolve("second.example", 80, MOMENT)
    assert failure.value.message == "dial tcp: lookup second.example: i/o timeout"
    resolver.released.set()
    await first
    await resolve("localhost", 80)
    assert resolver.asked == ["first.example", "localhost"]


async def test_a_name_that_the_resolver_does_not_answer_in_time_is_told_as_go_programs_do(resolver: Resolver) -> None:
    with pytest.raises(ConnectFailed) as failure:
        await dialer.dial("silent.example", 80, MOMENT)
    assert failure.value.message == "dial tcp: lookup silent.example: i/o timeout"


async def test_one_thread_is_enough_for_names_that_are_looked_up_one_after_the_other(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = threads(monkeypatch, 10)
    for _ in range(5):
        await resolve("localhost", 80)
        await until(lambda: not lookups._unanswered)
    assert lookups._threads == 1


async def test_listening_on_an_address_needs_no_resolver(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LOOKUPS", Lookups(0))
    listening = await listen("127.0.0.1", 0, lambda sock, _: sock.close(), lambda _: None)
    listening.close()
    assert not resolver.asked


def test_an_answer_that_comes_when_its_loop_is_closed_is_dropped(resolver: Resolver) -> None:
    lookups = Lookups(1)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(MOMENT):
                await lookups.find("late.example", 80)

    asyncio.run(give_up())
    resolver.released.set()
    until_true(lambda: not lookups._unanswered)


PROGRAM = """
import asyncio, socket, threading
from tunnelconsole.engine.transport.dialer import resolve
from tunnelconsole.errors import ConnectFailed
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
try:
    asyncio.run(resolve("silent.example", 80, 0.01))
except ConnectFailed as error:
    print(error)
"""


def test_a_program_that_ends_does_not_wait_for_the_resolver() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20.0, check=True)
    assert ended.stdout == "dial tcp: lookup silent.example: i/o timeout\n"
