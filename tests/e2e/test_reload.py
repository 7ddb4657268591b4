"""SIGHUP with traffic under way: only the services whose settings changed are touched, and they finish what they do."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Program
from ports import steady_port
from waiting import until_true

pytestmark = pytest.mark.e2e

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
secret = "superBigSecret"
allow = ["127.0.0.1:*"]

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
ports = "{public}"
public_host = "127.0.0.1"

[service.kept]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
listen = "127.0.0.1:{kept}"
target = "{target}"

[service.changed]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
listen = "127.0.0.1:{changed}"
target = "{target}"

[service.exposed]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"
"""


class Node:
    """A daemon with a server and clients of each system, whose ports are known and stay the same."""

    def __init__(self, program: Program, echo: EchoServer) -> None:
        ports = {name: steady_port() for name in ("home", "edge", "public", "kept", "changed")}
        self.text = SERVICES.format(target=echo.address, **ports)
        self.kept, self.changed = f"127.0.0.1:{ports['kept']}", f"127.0.0.1:{ports['changed']}"
        self.daemon: Daemon = program.daemon(self.text)

    def reload(self, text: str) -> None:
        """Writes another configuration, sends SIGHUP, and waits until it has been read."""
        self.daemon.configure(text)
        before = self.daemon.process.err.count("config-re")
        self.daemon.process.sends(signal.SIGHUP)
        until_true(lambda: self.daemon.process.err.count("config-re") > before)

    def table(self, service: str, line: str) -> str:
        """The configuration with a line more in the table of one service."""
        head = f"[service.{service}]\n"
        assert head in self.text
        return self.text.replace(head, f"{head}{line}\n")


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def node(program: Program, echo: EchoServer) -> Node:
    return Node(program, echo)


def test_a_channel_of_an_unchanged_service_survives(node: Node) -> None:
    with connect(node.kept) as visitor:
        assert echoed(visitor, b"before") == b"before"
        before = [row["id"] for row in node.daemon.json("channels")]
        node.reload(node.table("changed", 'limits = { handshake_timeout = "9s" }'))
        assert "1 changed, 0 removed, 4 untouched" in node.daemon.process.err
        assert echoed(visitor, b"after") == b"after"
        assert [row["id"] for row in node.daemon.json("channels")] == before


def test_a_channel_of_a_changed_service_finishes_while_its_successor_answers(node: Node) -> None:
    with connect(node.changed) as old:
        assert echoed(old, b"before") == b"before"
        node.reload(node.table("changed", 'limits = { handshake_timeout = "9s" }'))
        until_true(lambda: node.daemon.service("changed")["state"] == "listening")
        with connect(node.changed) as new:
            assert echoed(new, b"to the new one") == b"to the new one"
            assert echoed(old, b"still here") == b"still here"


def test_a_changed_jump_server_lets_its_channels_finish_and_judges_newcomers_anew(node: Node, echo: EchoServer) -> None:
    with connect(node.kept) as old:
        assert echoed(old, b"before") == b"before"
        node.reload(node.table("home", f'deny = ["{echo.address}"]'))
        with suppress(ConnectionResetError), connect(node.kept) as new:
            assert new.recv(1) == b""
        node.daemon.process.says("not allowed here")
        assert echoed(old, b"still here") == b"still here"


def test_a_visitor_of_a_changed_relay_client_finishes_while_its_successor_answers_at_the_same_port(node: Node) -> None:
    address = node.daemon.address("exposed")  # the only public port there is
    with connect(address) as old:
        assert echoed(old, b"before") == b"before"
        node.reload(node.table("exposed", "spare_connections = 1"))
        assert node.daemon.reaches("exposed", "connected")["address"] == address
        with connect(address) as new:
            assert echoed(new, b"to the new one") == b"to the new one"
            assert echoed(old, b"still here") == b"still here"


def test_a_changed_relay_server_lets_its_visitors_finish_while_its_clients_come_back(node: Node) -> None:
    address = node.daemon.address("exposed")
    with connect(address) as old:
        assert echoed(old, b"before") == b"before"
        node.reload(node.table("edge", 'keepalive = "5s"'))
        node.daemon.process.says("the server takes no new visitors")
        assert node.daemon.reaches("exposed", "connected")["address"] == address
        with connect(address) as new:
            assert echoed(new, b"through the new one") == b"through the new one"
            assert echoed(old, b"still here") == b"still here"
    until_true(lambda: len(node.daemon.json("sessions", "--service", "exposed")) == 1)


def test_a_removed_service_lets_its_channels_finish_and_takes_nobody_new(node: Node) -> None:
    with connect(node.changed) as old:
        assert echoed(old, b"before") == b"before"
        before, _, rest = node.text.partition("[service.changed]")
        node.reload(before + rest[rest.index("[service.exposed]") :])
        assert "changed" not in [row["name"] for row in node.daemon.json("services")]
        with pytest.raises(ConnectionRefusedError):
            connect(node.changed)
        assert echoed(old, b"still here") == b"still here"


def test_a_wrong_configuration_touches_nothing_and_every_mistake_is_in_the_log(node: Node) -> None:
    with connect(node.changed) as visitor:
        assert echoed(visitor, b"before") == b"before"
        before = [(row["name"], row["since"]) for row in node.daemon.json("services")]
        node.reload(node.table("changed", 'prxy = "http"') + '[service.more]\nkind = "jump-sever"\n')
        log = node.daemon.process.err
        assert "config-refused" in log
        assert "service.changed.prxy: unknown key" in log
        assert "service.more.kind: there is no kind" in log
        assert [(row["name"], row["since"]) for row in node.daemon.json("services")] == before
        assert echoed(visitor, b"after") == b"after"


def test_a_reload_tells_of_a_service_that_cannot_listen_and_fails(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node.daemon.configure(f'{node.text}[service.late]\nkind = "relay-server"\nlisten = "127.0.0.1:{port}"\n')
        answer = node.daemon.ask("reload")
        assert (answer.code, answer.out) == (1, "")
        assert "1 added, 0 changed, 0 removed, 5 untouched; but service late: " in answer.err
        assert f"cannot listen on 127.0.0.1:{port}" in answer.err
        assert "the configuration is in force" in answer.err


def test_a_reload_does_not_fail_for_a_server_that_may_come_yet(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    text = f'[service.late]\nkind = "relay-client"\nserver = "127.0.0.1:{port}"\ntarget = "127.0.0.1:1"\n'
    node.daemon.configure(node.text + text)
    assert "1 added" in node.daemon.ask("reload").ok()
