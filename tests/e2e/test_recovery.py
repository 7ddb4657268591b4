"""kill -9 of either end: what was cut is told, what remains goes on, and all is well again once the end is back."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from installed import Daemon, Program
from origins import HELLO, WebOrigin
from ports import split, steady_port
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("curl")]

SECRET = "only alice knows this"

RELAY_SERVER = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
ports = "{public}"
public_host = "127.0.0.1"
"""

RELAY_CLIENT = """
[service.web]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"
native = {native}
"""

JUMP_SERVER = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
secret = "{secret}"
allow = ["127.0.0.1:*"]
"""

JUMP_CLIENT = """
[service.via-home]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "{secret}"
listen = "127.0.0.1:0"
target = "{target}"
"""

Fetch = Callable[[str], str]


@pytest.fixture
def fetch(program: Program) -> Fetch:
    """Gets the short page from an address; gives what curl said instead where it cannot."""

    def get(address: str) -> str:
        done = program.run_other(["curl", "--silent", "--show-error", "--max-time", "10", f"http://{address}/hello"])
        return done.out or done.err

    return get


@pytest.fixture(params=["true", "false"], ids=["native", "yamux"])
def native(request: pytest.FixtureRequest) -> str:
    """Whether visitors come over data connections, or inside yamux as with the originals."""
    return str(request.param)


@pytest.fixture
def relay(program: Program, origin: WebOrigin, native: str) -> tuple[Daemon, Daemon]:
    """A relay server with one public port, and a client that has it."""
    edge = steady_port()
    server = program.daemon(RELAY_SERVER.format(edge=edge, public=steady_port()))
    return server, program.daemon(RELAY_CLIENT.format(edge=edge, target=origin.address, native=native))


def is_open(address: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(split(address)) == 0


def test_a_relay_client_comes_back_to_a_relay_server_that_was_killed(
    relay: tuple[Daemon, Daemon], fetch: Fetch
) -> None:
    server, client = relay
    public = client.address("web")
    assert fetch(public) == HELLO
    server.is_killed()
    client.process.says("service-retrying")
    assert client.service("web")["address"] == ""
    server.start()
    client.reaches("web", "connected")
    assert client.service("web")["address"] == public
    assert fetch(public) == HELLO


def test_a_public_port_is_free_within_a_second_of_its_clients_death_and_the_next_client_gets_it(
    relay: tuple[Daemon, Daemon], fetch: Fetch
) -> None:
    server, client = relay
    public = client.address("web")
    assert fetch(public) == HELLO
    client.is_killed()
    until_true(lambda: not is_open(public), within=1.0)
    assert server.json("sessions") == []
    client.start()
    assert client.address("web") == public
    assert fetch(public) == HELLO


def test_a_visitor_is_cut_off_when_the_relay_client_dies(relay: tuple[Daemon, Daemon]) -> None:
    server, client = relay
    with socket.create_connection(split(client.address("web"))) as visitor:
        visitor.settimeout(5)
        until_true(lambda: client.json("channels"))
        client.is_killed()
        with suppress(ConnectionResetError):
            assert visitor.recv(1) == b""
    until_true(lambda: server.json("channels") == [])


def test_a_visitor_is_cut_off_when_the_relay_server_dies_and_so_is_the_target(
    relay: tuple[Daemon, Daemon],
) -> None:
    server, client = relay
    with socket.create_connection(split(client.address("web"))):
        until_true(lambda: client.json("channels"))
        server.is_killed()
        until_true(lambda: client.json("channels") == [])
    assert client.process.running


def test_jumps_go_through_again_once_a_killed_jump_server_is_back(
    program: Program, origin: WebOrigin, fetch: Fetch
) -> None:
    home = steady_port()
    server = program.daemon(JUMP_SERVER.format(home=home, secret=SECRET))
    client = program.daemon(JUMP_CLIENT.format(home=home, secret=SECRET, target=origin.address))
    local = client.address("via-home")
    assert fetch(local) == HELLO
    server.is_killed()
    assert fetch(local).startswith("curl:")  # at once, and the client stays where it listens
    assert client.service("via-home")["state"] == "listening"
    server.start()
    assert fetch(local) == HELLO


def test_a_jump_client_that_was_killed_takes_its_port_again_at_once(
    program: Program, origin: WebOrigin, fetch: Fetch
) -> None:
    home, local = steady_port(), f"127.0.0.1:{steady_port()}"
    program.daemon(JUMP_SERVER.format(home=home, secret=SECRET))
    configuration = JUMP_CLIENT.format(home=home, secret=SECRET, target=origin.address)
    client = program.daemon(configuration.replace('"127.0.0.1:0"', f'"{local}"'))
    with socket.create_connection(split(local)):  # leaves a connection behind that the killed one never closed
        until_true(lambda: client.json("channels"))
        client.is_killed()
        client.start()
    assert fetch(local) == HELLO


def test_totals_and_warnings_outlive_the_engine(program: Program, origin: WebOrigin, fetch: Fetch) -> None:
    home = steady_port()
    client = JUMP_CLIENT.format(home=home, secret=SECRET, target=origin.address)
    daemon = program.daemon(JUMP_SERVER.format(home=home, secret=SECRET) + client)
    assert fetch(daemon.address("via-home")) == HELLO
    with socket.create_connection(split(daemon.address("home"))) as stranger:
        stranger.sendall(b"\x14" + bytes(20))
        daemon.process.says("wrong secret")
    total = daemon.service("home")["bytes_out"]
    assert total > len(HELLO)
    assert daemon.stops() == 0
    daemon.start()
    assert daemon.service("home")["bytes_out"] == total
    (warning,) = [row for row in daemon.json("events") if row["type"] == "peer-refused"]
    assert "wrong secret" in warning["text"]
