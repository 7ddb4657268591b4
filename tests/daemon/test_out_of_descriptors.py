"""An engine with as many visitors as it has descriptors for can be looked after, and goes on when some leave."""

from __future__ import annotations

import resource
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Program
from ports import steady_port
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not Path("/proc").exists(), reason="counts through /proc")]

ALLOWED = 200
"""Descriptors that the engine may have."""

CEILING = 150
"""Those that visitors may take of them."""

JUMP = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "superBigSecret"
limits = { handshake_timeout = "60s" }
"""

RELAY = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{port}"

[service.edge-echo]
kind = "relay-client"
server = "127.0.0.1:{port}"
target = "{target}"
"""


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    made = Program(tmp_path_factory.mktemp("d"))
    yield made
    made.close()


@pytest.fixture
def visitors() -> Iterator[ExitStack]:
    """Connections of visitors, which may be more than a test usually has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2048)), hard))
    with ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def poor(program: Program, services: str, engine: str = "") -> Daemon:
    """A daemon that may have few descriptors."""
    daemon = Daemon(program, services, engine)
    command = f'ulimit -Sn {ALLOWED}; ulimit -Hn {ALLOWED}; exec "$0" --daemon -c "$1"'
    daemon.process = program.start_other(["/bin/sh", "-c", command, program.path, str(daemon.config)])
    until_true(lambda: daemon.ready or not daemon.process.running)
    assert daemon.ready, daemon.process.said
    return daemon


def taken(daemon: Daemon) -> int:
    return psutil.Process(daemon.process.popen.pid).num_fds()


def greeted(visitor: socket.socket) -> bool:
    """Whether a jump server has spoken to a visitor."""
    try:
        return bool(visitor.recv(1))
    except OSError:
        return False


def exhausted(daemon: Daemon) -> list[str]:
    return [event["text"] for event in daemon.json("events") if event["type"] == "resources-exhausted"]


def test_an_engine_without_descriptors_for_visitors_answers_and_takes_them_when_others_leave(
    program: Program, visitors: ExitStack
) -> None:
    daemon = poor(program, JUMP, 'metrics = "127.0.0.1:0"')
    address = daemon.address("home")
    idle = [visitors.enter_context(connect(address)) for _ in range(300)]
    until_true(lambda: exhausted(daemon))
    late = visitors.enter_context(connect(address))
    for _ in range(5):
        until_true(lambda: taken(daemon) >= CEILING)  # the connection of a command counts while it is there
        assert taken(daemon) <= CEILING + 1
        assert daemon.service("home")["state"] == "listening"
    with urllib.request.urlopen(f"http://{daemon.json('status')['metrics']}/metrics", timeout=10) as answer:
        assert f"process_max_fds {ALLOWED}.0\n" in answer.read().decode()
    (said,) = exhausted(daemon)
    assert said.startswith(f"cannot accept connections: {CEILING} of {ALLOWED} descriptors are in use, ")
    assert "allow more with LimitNOFILE= of the systemd unit, or with ulimit -n" in said
    for visitor in idle:
        visitor.close()
    assert greeted(late)
    assert daemon.stops() == 0


def test_visitors_of_a_relay_leave_descriptors_to_whoever_looks_after_it(program: Program, visitors: ExitStack) -> None:
    echo = EchoServer()
    visitors.callback(echo.close)
    daemon = poor(program, RELAY.format(port=steady_port(), target=echo.address))
    public = daemon.reaches("edge-echo", "connected")["address"]
    carried = [visitor for visitor in (connect(public) for _ in range(5)) if echoed(visitor, b"ping") == b"ping"]
    assert len(carried) == 5
    for visitor in carried:
        visitors.enter_context(visitor)
    crowd = [visitors.enter_context(connect(public)) for _ in range(300)]
    until_true(lambda: exhausted(daemon))
    for _ in range(5):
        assert taken(daemon) <= CEILING + 2
        assert daemon.json("channels")
    assert echoed(carried[0], b"still here") == b"still here"
    for visitor in crowd:
        visitor.close()

    def works() -> bool:
        with connect(public) as visitor:
            try:
                return echoed(visitor, b"ping") == b"ping"
            except OSError:
                return False

    until_true(works)
    for visitor in carried:
        visitor.close()
    assert daemon.stops() == 0


def test_the_limit_is_raised_as_far_as_the_system_lets_it(program: Program) -> None:
    daemon = Daemon(program, JUMP)
    command = 'ulimit -Sn 100; exec "$0" --daemon -c "$1"'
    daemon.process = program.start_other(["/bin/sh", "-c", command, program.path, str(daemon.config)])
    until_true(lambda: daemon.ready)
    soft, hard = resource.prlimit(daemon.process.popen.pid, resource.RLIMIT_NOFILE)
    assert soft == hard > 100
