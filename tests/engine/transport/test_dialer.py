"""Dialling: one address after the other, by name or number, in the words of Go programs, and given up at any time."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from loopback import open_descriptors
from tunnelconsole.engine.transport import dialer
from tunnelconsole.engine.transport.dialer import Address, Dial, dial, numeric, resolve
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.errors import ConnectFailed
from waiting import until

PATIENCE = 30.0
"""Seconds for an address to answer that is there."""

MOMENT = 0.05
"""Seconds for an address to answer that never does."""


class Told:
    """What a dial said: a socket, or an error's text."""

    def __init__(self) -> None:
        self.answers: list[tuple[socket.socket | None, str]] = []

    def __call__(self, sock: socket.socket | None, error: str) -> None:
        self.answers.append((sock, error))

    async def error(self) -> str:
        await until(lambda: self.answers)
        [(sock, error)] = self.answers
        assert sock is None
        return error

    async def socket(self) -> socket.socket:
        await until(lambda: self.answers)
        [(sock, error)] = self.answers
        assert sock is not None
        assert error == ""
        return sock


def address_of(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    address = numeric(host, port)
    assert address is not None
    return address


@contextmanager
def server(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as made:
        yield made


@contextmanager
def silent() -> Iterator[Address]:
    """An address that never answers: a server whose backlog is full, so that the kernel drops the SYN."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        yield address_of(full)


@contextmanager
def nobody() -> Iterator[Address]:
    """An address that is taken, and on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield address_of(bound)


def dialling(addresses: Sequence[Address], timeout: float = PATIENCE) -> tuple[Dial, Told]:
    told = Told()
    attempt = Dial(asyncio.get_running_loop(), addresses, timeout, told)
    attempt.start()
    return attempt, told


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_connection_is_tuned_and_does_not_block(host: str) -> None:
    with server(host) as listening:
        _, told = dialling([address_of(listening)])
        with await told.socket() as sock:
            assert sock.getpeername()[:2] == listening.getsockname()[:2]
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_a_refused_connection_is_told_as_go_programs_do() -> None:
    with nobody() as address:
        _, told = dialling([address])
        assert await told.error() == f"dial tcp {address}: connect: connection refused"


async def test_an_address_that_does_not_answer_in_time_is_told() -> None:
    with silent() as address:
        _, told = dialling([address], MOMENT)
        assert await told.error() == f"dial tcp {address}: i/o timeout"


async def test_an_address_that_cannot_be_reached_is_told() -> None:
    broadcast = Address(socket.AF_INET, ("255.255.255.255", 9))
    _, told = dialling([broadcast])
    assert (await told.error()).startswith("dial tcp 255.255.255.255:9: connect: ")


async def test_without_descriptors_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    address = Address(socket.AF_INET, ("127.0.0.1", 9))
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refused)
        _, told = dialling([address, address])
    assert await told.error() == "dial tcp 127.0.0.1:9: socket: too many open files"


async def test_a_port_where_nobody_listens_is_refused_even_if_the_kernel_takes_it_for_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unlucky(socket.socket):
        """Gets the very port that it dials."""

        def connect_ex(self, address: Any) -> int:
            if not self.getsockname()[1]:
                self.bind(address)
            return super().connect_ex(address)

    with nobody() as address:
        pass
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Unlucky)
        _, told = dialling([address])
    assert await told.error() == f"dial tcp {address}: connect: connection refused"


async def test_dead_addresses_before_a_live_one_only_cost_time() -> None:
    with silent() as dead, nobody() as refusing, server() as listening:
        _, told = dialling([dead, refusing, dead, address_of(listening)], MOMENT)
        with await told.socket() as sock:
            assert sock.getpeername() == listening.getsockname()


async def test_of_several_dead_addresses_the_last_is_told() -> None:
    with silent() as dead, nobody() as refusing:
        _, told = dialling([dead, refusing], MOMENT)
        assert await told.error() == f"dial tcp {refusing}: connect: connection refused"
        _, told = dialling([refusing, dead], MOMENT)
        assert await told.error() == f"dial tcp {dead}: i/o timeout"


async def test_no_address_at_all_is_an_error() -> None:
    _, told = dialling([])
    assert await told.error() == "dial tcp: no address"


async def test_a_dial_that_is_given_up_says_nothing_and_tries_nothing_more() -> None:
    with silent() as dead, server() as listening:
        before = open_descriptors()
        attempt, told = dialling([dead, address_of(listening)])
        timer = attempt._timer
        assert open_descriptors() == before + 1
        attempt.cancel()
        attempt.cancel()
        assert open_descriptors() == before
        assert timer is not None
        assert timer.cancelled()
        assert not told.answers


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("127.0.0.1", socket.AF_INET),
        ("::1", socket.AF_INET6),
        ("::ffff:127.0.0.1", socket.AF_INET6),
        ("localhost", None),
        ("2130706433", None),
        ("0177.0.0.1", None),
        ("127.1", None),
        ("", None),
    ],
)
def test_only_what_is_a_number_in_the_usual_form_needs_no_resolver(host: str, family: int | None) -> None:
    address = numeric(host, 80)
    assert (None if address is None else address.family) == family


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "017700000001"])
async def test_odd_forms_of_a_number_become_the_address_that_they_are(host: str) -> None:
    assert {address.host for address in await resolve(host, 80)} == {"127.0.0.1"}


async def test_a_name_has_the_addresses_that_the_system_gives() -> None:
    found = await resolve("localhost", 80)
    assert {address.host for address in found} <= {"127.0.0.1", "::1"}
    assert str(numeric("::1", 80)) == "[::1]:80"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".example", "a..b"])
async def test_a_name_without_an_address_is_told_as_go_programs_do(host: str) -> None:
    with pytest.raises(ConnectFailed) as failure:
        await resolve(host, 80)
    assert failure.value.message == f"dial tcp: lookup {host}: no such host"


def test_a_scope_is_no_part_of_the_host() -> None:
    assert Address(socket.AF_INET6, ("fe80::1%eth0", 80, 0, 2)).host == "fe80::1"


async def test_a_dial_by_name_connects_or_says_why_not() -> None:
    with server() as listening:
        end = await dial("localhost", listening.getsockname()[1])
        assert end.socket.getpeername() == listening.getsockname()
        end.close()
    with nobody() as address, pytest.raises(ConnectFailed, match="connection refused"):
        await dial(address.host, address.sockaddr[1])


async def test_a_dial_that_is_cancelled_leaves_no_socket() -> None:
    with silent() as address:
        waiting = asyncio.ensure_future(dial(address.host, address.sockaddr[1]))
        await asyncio.wait({waiting}, timeout=MOMENT)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_dial_that_is_cancelled_in_the_moment_of_its_success_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []
    waiting: list[asyncio.Future[SocketEnd]] = []

    class Slow(Dial):
        """Connects on a later turn of the loop, and its caller is given up on the same one."""

        def start(self) -> None:
            self._loop.call_soon(self._succeed)

        def _succeed(self) -> None:
            made.append(socket.socket())
            self._done(made[0], "")
            waiting[0].cancel()

    monkeypatch.setattr(dialer, "Dial", Slow)
    waiting.append(asyncio.ensure_future(dial("127.0.0.1", 9)))
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert made[0].fileno() == -1
