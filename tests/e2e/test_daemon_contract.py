"""What whoever deploys the daemon counts on, beyond what ``tests/test_daemon.py`` shows of each part."""

from __future__ import annotations

import json
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Program
from ports import split, steady_port

pytestmark = pytest.mark.e2e

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
secret = "superBigSecret"
allow = ["127.0.0.1:*"]

[service.via-home]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
listen = "127.0.0.1:0"
target = "{target}"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"

[service.exposed]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"
"""


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


def refused(daemon: Daemon) -> str:
    """Starts a daemon that must not start, and gives the sentences it says instead."""
    daemon.launch()
    assert daemon.process.returns() == 1
    assert "ready" not in daemon.process.out
    assert "Traceback" not in daemon.process.err
    sentences = daemon.process.err.splitlines()
    assert all(sentence.startswith("tunnelconsole: ") for sentence in sentences)
    return daemon.process.err


def test_every_line_of_a_busy_engine_is_a_document_where_json_is_asked_for(program: Program, echo: EchoServer) -> None:
    services = SERVICES.format(home=steady_port(), edge=steady_port(), target=echo.address)
    daemon = Daemon(program, services, 'log_format = "json"\nlog_level = "debug"')
    daemon.launch()
    daemon.process.says('{"event": "ready"}')
    local = daemon.service("via-home")["address"]
    with connect(local) as visitor:
        assert echoed(visitor, b"hello") == b"hello"
    with connect(daemon.service("home")["address"]) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nX: \x1b[2J\xff\r\n\r\n" * 9)
        daemon.process.says("peer-refused")
    daemon.configure(services.replace("superBigSecret", "", 1))
    assert daemon.ask("reload").code == 1
    assert daemon.stops() == 0
    said = [json.loads(line) for line in daemon.process.out.splitlines()]
    assert [row["event"] for row in said] == ["listening", "listening", "listening", "connected", "ready"]
    log = [json.loads(line) for line in daemon.process.err.splitlines()]
    assert all(isinstance(row[key], str) for row in log for key in ("time", "level", "event", "text"))
    assert {"session-opened", "channel-closed", "peer-refused", "config-refused"} <= {row["event"] for row in log}


def test_the_control_socket_and_the_state_are_for_their_user_alone(program: Program) -> None:
    sealed = '[service.sealed]\nkind = "relay-server"\nlisten = "127.0.0.1:0"\ntls = {}\n'
    daemon = program.daemon(sealed)
    assert stat.S_IMODE(daemon.control.stat().st_mode) == 0o600
    assert stat.S_IMODE((daemon.folder / "state").stat().st_mode) == 0o700
    (key,) = (daemon.folder / "state").rglob("*.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_nothing_listens_beyond_loopback_unless_it_is_asked_for(program: Program, echo: EchoServer) -> None:
    daemon = program.daemon(SERVICES.format(home=steady_port(), edge=steady_port(), target=echo.address))
    connections = psutil.Process(daemon.process.popen.pid).net_connections("inet")
    hosts = {connection.laddr[0] for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert hosts == {"127.0.0.1"}
    assert not any(row["exposed"] for row in daemon.json("services"))


def test_a_service_that_listens_beyond_loopback_is_shown_as_such(program: Program) -> None:
    daemon = program.daemon('[service.open]\nkind = "relay-server"\nlisten = "0.0.0.0:0"\n')
    assert daemon.service("open")["exposed"] is True
    daemon.process.says("beyond loopback")


def test_a_missing_configuration_is_named(program: Program) -> None:
    daemon = Daemon(program, "")
    daemon.config.unlink()
    assert f"{daemon.config}: cannot be read: No such file or directory" in refused(daemon)


def test_a_secret_file_that_everybody_can_read_is_refused_with_what_to_do(program: Program) -> None:
    secret = program.write("open.secret", "superBigSecret\n", mode=0o644)
    daemon = Daemon(
        program, f'[service.home]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\nsecret_file = "{secret}"\n'
    )
    said = refused(daemon)
    assert f"service.home.secret_file: {secret} is open to everyone on this machine; run: chmod 600 {secret}" in said
    assert "superBigSecret" not in said


@pytest.mark.parametrize("what", ["missing", "a folder"])
def test_a_secret_file_that_cannot_be_read_is_named(program: Program, what: str) -> None:
    secret = program.folder / "s.secret"
    if what == "a folder":
        secret.mkdir()
    daemon = Daemon(
        program, f'[service.home]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\nsecret_file = "{secret}"\n'
    )
    assert f"service.home.secret_file: {'cannot read ' if what == 'missing' else ''}{secret}" in refused(daemon)


def test_a_missing_certificate_is_named(program: Program) -> None:
    home = '[service.home]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\nsecret = "superBigSecret"\n'
    daemon = Daemon(program, home + '[service.home.tls]\ncertificate = "site.crt"\nkey = "site.key"\n')
    said = refused(daemon)
    assert f"service.home.tls.certificate: cannot read {daemon.folder / 'site.crt'}" in said
    assert f"service.home.tls.key: cannot read {daemon.folder / 'site.key'}" in said


def test_a_certificate_that_is_none_is_named(program: Program) -> None:
    home = '[service.home]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\nsecret = "superBigSecret"\n'
    daemon = Daemon(program, home + '[service.home.tls]\ncertificate = "site.crt"\nkey = "site.key"\n')
    for name in ("site.crt", "site.key"):
        (daemon.folder / name).write_text("not a certificate\n")
    assert f"service.home.tls.certificate: {daemon.folder / 'site.crt'}" in refused(daemon)


def _turned_away(log: str) -> int:
    """How many peers the log tells of as turned away: a line each, and then the rest as a number."""
    counted = re.findall(r"repeated .*?of=peer-refused .*?count=(\d+)", log)
    return len(re.findall(r"^.{,40}peer-refused ", log, re.MULTILINE)) + sum(map(int, counted))


def _wait_until_turned_away(stranger: socket.socket) -> None:
    with suppress(ConnectionError):
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass


def test_a_flood_of_strangers_disturbs_nobody(program: Program, echo: EchoServer) -> None:
    daemon = program.daemon(SERVICES.format(home=steady_port(), edge=steady_port(), target=echo.address))
    doors = [split(daemon.address("home")), split(daemon.address("edge"))]
    with connect(daemon.address("via-home")) as visitor:
        for number in range(200):
            with socket.create_connection(doors[number % 2]) as stranger:
                stranger.sendall(bytes([number % 256]) * 40)
                _wait_until_turned_away(stranger)
        assert daemon.json("status")["sessions"] == 4  # each end's of the visitor, and of the relay client
        assert echoed(visitor, b"undisturbed") == b"undisturbed"
    daemon.stops()
    assert _turned_away(daemon.process.err) == 200
    assert "crashed" not in daemon.process.err
