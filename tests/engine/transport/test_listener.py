"""Listening: in batches, on any address of this machine, through a lack of descriptors; with advice when it fails."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tunnelconsole.engine.transport import listener as listener_module
from tunnelconsole.engine.transport.listener import ACCEPT_BATCH, Listener, _first_bound, is_loopback, listen
from tunnelconsole.errors import ListenFailed
from waiting import until


class Door:
    """A listener, and who came."""

    def __init__(self) -> None:
        self.came: list[tuple[socket.socket, str]] = []
        self.exhausted: list[OSError] = []
        self.listener: Listener

    def accepted(self, sock: socket.socket, peer: str) -> None:
        self.came.append((sock, peer))

    def call(self) -> socket.socket:
        """Somebody connects."""
        return socket.create_connection((self.listener.host, self.listener.port))


@asynccontextmanager
async def door(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Door]:
    made = Door()
    made.listener = await listen(host, port, made.accepted, made.exhausted.append)
    try:
        yield made
    finally:
        made.listener.close()
        for sock, _ in made.came:
            sock.close()


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("localhost", None)])
async def test_port_0_takes_a_free_one_and_says_which(host: str, shown: str | None) -> None:
    async with door(host) as at:
        assert at.listener.port > 0
        if shown is not None:
            assert at.listener.address == f"{shown}:{at.listener.port}"
        assert is_loopback(at.listener.host)
        with at.call() as caller:
            await until(lambda: at.came)
            name, port = caller.getsockname()[:2]
            assert at.came[0][1] == (f"[{name}]:{port}" if ":" in name else f"{name}:{port}")


async def test_what_is_accepted_is_tuned_and_does_not_block() -> None:
    async with door() as at:
        with at.call():
            await until(lambda: at.came)
            sock = at.came[0][0]
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_a_crowd_is_accepted_in_batches_and_nobody_is_left_out() -> None:
    async with door() as at:
        callers = [at.call() for _ in range(3 * ACCEPT_BATCH + 1)]
        at.listener._accept()
        assert len(at.came) == ACCEPT_BATCH
        await until(lambda: len(at.came) == len(callers))
        for caller in callers:
            caller.close()


async def test_a_closed_listener_refuses_and_keeps_whom_it_accepted() -> None:
    async with door() as at:
        with at.call() as caller:
            await until(lambda: at.came)
            at.listener.close()
            at.listener.close()
            with pytest.raises(ConnectionRefusedError):
                at.call()
            at.came[0][0].send(b"still here")
            assert await asyncio.to_thread(caller.recv, 100) == b"still here"


async def test_its_port_can_be_taken_again_at_once_although_connections_live_on() -> None:
    async with door() as first:
        with first.call():
            await until(lambda: first.came)
            first.listener.close()
            async with door(port=first.listener.port) as second:
                with second.call():
                    await until(lambda: second.came)


async def test_a_listener_that_is_closed_by_whom_it_tells_stops_there() -> None:
    async with door() as at:
        callers = [at.call() for _ in range(3)]

        def accepted(sock: socket.socket, peer: str) -> None:
            at.accepted(sock, peer)
            at.listener.close()

        at.listener._accepted = accepted
        at.listener._accept()
        assert len(at.came) == 1
        for caller in callers:
            caller.close()


async def test_a_visitor_that_left_before_it_was_accepted_keeps_nobody_out() -> None:
    async with door() as at:
        real = at.listener._socket
        raised: list[OSError] = []

        class Hasty:
            """The listening socket, whose first visitor has left already."""

            fileno = real.fileno
            close = real.close

            def accept(self) -> tuple[socket.socket, tuple[str, int]]:
                if not raised:
                    raised.append(ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort"))
                    raise raised[0]
                return real.accept()

        at.listener._socket = Hasty()  # type: ignore[assignment]
        with at.call():
            await until(lambda: at.came)


async def test_out_of_descriptors_it_says_so_once_and_accepts_when_there_are_some_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "EXHAUSTED_PAUSE", 0.01)
    async with door() as at:
        real, exhausted = at.listener._socket, True
        tries: list[None] = []

        class Exhausted:
            """The listening socket in a process without descriptors."""

            fileno = real.fileno
            close = real.close

            def accept(self) -> tuple[socket.socket, tuple[str, int]]:
                tries.append(None)
                if exhausted:
                    raise OSError(errno.EMFILE, "Too many open files")
                return real.accept()

        at.listener._socket = Exhausted()  # type: ignore[assignment]
        with at.call():
            await until(lambda: len(tries) >= 5)
            assert [error.errno for error in at.exhausted] == [errno.EMFILE]
            assert not at.came
            exhausted = False
            await until(lambda: at.came)
            exhausted = True
            with at.call():
                await until(lambda: len(at.exhausted) == 2)
            exhausted = False
            await until(lambda: len(at.came) == 2)


async def test_closed_while_it_waits_for_descriptors_it_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with door() as at:
        at.listener._wait_for_resources(OSError(errno.EMFILE, "Too many open files"))
        pause = at.listener._pause
        at.listener.close()
        assert pause is not None
        assert pause.cancelled()


OUT_OF_DESCRIPTORS = """
import asyncio, os, resource, socket, sys
from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.listener import listen

async def main():
    came, exhausted = [], []
    listener = await listen("127.0.0.1", 0, lambda sock, peer: came.append(sock), exhausted.append)
    held = len(os.listdir("/dev/fd"))
    callers = [socket.create_connection((listener.host, listener.port)) for _ in range(8)]
    allowed = (held + 8 + 3) * 4 // 3  # a quarter of which is the reserve
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    while not exhausted:
        await asyncio.sleep(0.01)
    before = len(came)
    for caller in callers[:5]:
        caller.close()
    while len(came) < 8:
        await asyncio.sleep(0.01)
    highest = max(int(number) for number in os.listdir("/dev/fd"))
    print(before < 8, len(exhausted), exhausted[0].errno, highest <= descriptors.ceiling())

async def limited():
    async with asyncio.timeout(20):
        await main()

asyncio.run(limited())
"""


def test_a_process_that_really_runs_out_of_descriptors_recovers() -> None:
    answer = subprocess.run([sys.executable, "-c", OUT_OF_DESCRIPTORS], capture_output=True, text=True, check=False)
    assert answer.stdout.split() == ["True", "1", str(errno.EMFILE), "True"], answer.stderr


async def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    async with door() as at:
        with pytest.raises(ListenFailed) as failure:
            await listen("127.0.0.1", at.listener.port, at.accepted, at.exhausted.append)
        assert str(failure.value) == (
            f"cannot listen on {at.listener.address}: Address already in use; "
            "another program has this port; stop it or choose another port"
        )


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("192.0.2.1", "this machine does not have that address; choose one that it has"),
        ("no-such-host.invalid", "check the host name"),
        ("x" * 64 + ".example", "check the host name"),
    ],
)
async def test_an_address_that_is_not_ours_is_refused_with_what_to_do(host: str, advice: str) -> None:
    nobody = Door()
    with pytest.raises(ListenFailed) as failure:
        await listen(host, 0, nobody.accepted, nobody.exhausted.append)
    assert host in failure.value.message
    assert failure.value.hint == advice


def test_of_several_addresses_the_first_that_this_machine_has_is_taken() -> None:
    addresses = [(socket.AF_INET, (host, 0)) for host in ("192.0.2.1", "127.0.0.2", "127.0.0.1")]
    with _first_bound(addresses) as sock:
        assert sock.getsockname()[0] == "127.0.0.2"
    with pytest.raises(OSError, match="Cannot assign"):
        _first_bound(addresses[:1])


def test_an_address_in_use_is_not_passed_over_for_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = (socket.AF_INET, server.getsockname())
        with pytest.raises(OSError, match="in use"):
            _first_bound([taken, (socket.AF_INET, ("127.0.0.2", taken[1][1]))])


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
