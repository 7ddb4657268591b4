"""Stopping in the middle of a transfer: what runs may finish, nothing new comes in, and nobody waits for ever."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from installed import Daemon, Process, Program
from origins import Answer, HeldOrigin
from ports import split, steady_port
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("curl")]

SERVERS = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
ports = "0"
public_host = "127.0.0.1"

[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
secret = "superBigSecret"
allow = ["127.0.0.1:*"]
"""

CLIENTS = """
[service.native]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"

[service.yamux]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"
native = false

[service.jump]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
listen = "127.0.0.1:0"
target = "{target}"
"""

HALF = secrets.token_bytes(64 * 1024)
"""What goes out before and after the signal; little enough to be under way, not stuck in a buffer, when it comes."""

PARTIAL = 18
"""curl's exit code for a transfer that ended too early (CURLE_PARTIAL_FILE)."""

RESET = 56
"""curl's exit code for a connection that broke while it received (CURLE_RECV_ERROR)."""


class Transfer:
    """A download through the tunnel of one service, half of it done."""

    def __init__(self, program: Program, origin: HeldOrigin, address: str) -> None:
        self.file = program.folder / "received"
        self.curl: Process = program.start_other(["curl", "-sSN", "-o", str(self.file), f"http://{address}/"])
        self.answer: Answer = origin.request()
        self.answer.begin(2 * len(HALF))
        self.answer.send(HALF)
        until_true(lambda: self.file.exists() and self.file.stat().st_size == len(HALF))

    def completes(self) -> None:
        """Sends the other half, and makes sure that all of it arrives."""
        self.answer.send(HALF)
        assert self.curl.returns() == 0, self.curl.said
        assert self.file.read_bytes() == HALF + HALF


class Ends:
    """A daemon with servers, one with clients, and a web server whose answer is held back."""

    def __init__(self, program: Program, origin: HeldOrigin, drain: str) -> None:
        ports = {"edge": steady_port(), "home": steady_port()}
        self.servers = program.daemon(SERVERS.format(**ports), engine=f'drain = "{drain}"')
        self.clients = program.daemon(CLIENTS.format(target=origin.address, **ports), engine=f'drain = "{drain}"')
        self._program = program
        self._origin = origin

    def transfer(self, service: str) -> Transfer:
        return Transfer(self._program, self._origin, self.clients.address(service))


Make = Callable[[str], Ends]


@pytest.fixture
def ends(program: Program) -> Iterator[Make]:
    """Makes both ends, with so much time to drain."""
    with HeldOrigin() as origin:
        yield lambda drain: Ends(program, origin, drain)


def is_refused(address: str) -> bool:
    """Whether a newcomer gets nowhere: nobody listens, or they are shut out at once."""
    try:
        with socket.create_connection(split(address), 5) as newcomer:
            return newcomer.recv(1) == b""
    except (ConnectionRefusedError, ConnectionResetError):
        return True


def stop(daemon: Daemon) -> None:
    """Sends SIGTERM, and waits until it is acted upon."""
    daemon.process.sends(signal.SIGTERM)
    daemon.process.says("stopping (by SIGTERM)")


@pytest.mark.parametrize("service", ["native", "yamux", "jump"])
@pytest.mark.parametrize("end", ["servers", "clients"])
def test_a_transfer_completes_while_an_end_stops_and_nobody_new_comes_in(ends: Make, service: str, end: str) -> None:
    both = ends("30s")
    transfer = both.transfer(service)
    stopping: Daemon = getattr(both, end)
    entrance = both.clients.address(service)
    stop(stopping)
    until_true(lambda: is_refused(entrance))
    assert stopping.json("status")["draining"]
    assert stopping.process.running
    transfer.completes()
    transfer.answer.close()
    assert stopping.process.returns() == 0
    assert not stopping.control.exists()


def test_an_engine_with_nothing_to_finish_stops_at_once(ends: Make) -> None:
    both = ends("1h")
    assert both.clients.stops() == 0
    assert both.servers.stops() == 0


def test_a_second_signal_cuts_what_runs(ends: Make) -> None:
    both = ends("1h")
    transfer = both.transfer("jump")
    stop(both.clients)
    both.clients.process.sends(signal.SIGTERM)
    assert both.clients.process.returns() == 0
    assert transfer.curl.returns() in (PARTIAL, RESET)
    assert transfer.answer.is_cut()


def test_what_has_not_finished_when_the_drain_is_over_is_cut(ends: Make) -> None:
    both = ends("300ms")
    transfer = both.transfer("native")
    stop(both.servers)
    assert both.servers.process.returns() == 0
    assert transfer.curl.returns() in (PARTIAL, RESET)
    assert transfer.answer.is_cut()
