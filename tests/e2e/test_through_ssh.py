"""The installed program, with a real sshd between its clients and their servers; and a console elsewhere."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Iterator

import pytest

import system_tools
from echo import EchoServer, connect, digest_of_echo, echoed
from installed import Daemon, Program
from origins import HELLO, WebOrigin
from ports import steady_port
from ssh_gate import Gate
from sshd import TOOLS
from terminal import Terminal
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system(*TOOLS, "curl")]

SECRET = "only alice knows this"

MIB = 1024 * 1024

SERVERS = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
ports = "0"
public_host = "127.0.0.1"

[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
secret = "{secret}"
allow = ["127.0.0.1:*"]

[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:{web}"

[service.hub]
kind = "channel-server"
listen = "127.0.0.1:{hub}"
"""

CLIENTS = """
[service.public]
kind = "relay-client"
server = "{gate}/127.0.0.1:{edge}"
target = "{echo}"
[service.public.ssh]
{table}

[service.fixed]
kind = "jump-client"
server = "home.example.net:9527"
connect = "{gate}/127.0.0.1:{home}"
secret = "{secret}"
listen = "127.0.0.1:0"
target = "{echo}"
[service.fixed.ssh]
{table}

[service.app]
kind = "tunnel-client"
server = "{gate}/http://127.0.0.1:{web}"
target = "{origin}"
[service.app.ssh]
{table}

[service.desk]
kind = "channel-client"
server = "{gate}/127.0.0.1:{hub}"
chid = "desk"
receivers = ["me"]
target = "{echo}"
[service.desk.ssh]
{table}
"""


class Between:
    """Servers, an SSH host, and clients that go through it."""

    def __init__(self, program: Program, origin: WebOrigin) -> None:
        self.program = program
        self.ports = {name: steady_port() for name in ("edge", "home", "web", "hub")}
        self.gate = Gate(program)
        self.echo = EchoServer()
        self.servers: Daemon = program.daemon(SERVERS.format(secret=SECRET, **self.ports))
        told = {"gate": self.gate.url, "table": self.gate.table, "echo": self.echo.address, "secret": SECRET}
        self.clients: Daemon = program.daemon(CLIENTS.format(origin=origin.address, **told, **self.ports))

    def server(self, name: str) -> str:
        """A server, as it is reached through the SSH host."""
        return f"{self.gate.url}/127.0.0.1:{self.ports[name]}"

    def options(self) -> list[str]:
        """What a command is given to be let in."""
        sshd = self.gate.sshd
        return ["--identity", str(sshd.identity), "--known-hosts", str(sshd.known_hosts)]

    def close(self) -> None:
        self.echo.close()


@pytest.fixture
def between(program: Program, origin: WebOrigin) -> Iterator[Between]:
    made = Between(program, origin)
    yield made
    made.close()


def test_twenty_megabytes_get_through_both_ways(between: Between) -> None:
    content = secrets.token_bytes(MIB) * 20 + b"the end"
    wanted = hashlib.sha256(content).digest()
    public = between.clients.reaches("public", "connected")
    assert digest_of_echo(public["address"], content) == wanted
    assert digest_of_echo(between.clients.address("fixed"), content) == wanted


def test_services_tell_the_way_and_never_how_we_prove_ourselves(between: Between) -> None:
    row = between.clients.reaches("public", "connected")
    assert row["notes"]["via"] == between.gate.url
    assert f"via {between.gate.url}" in between.clients.ask("services").ok()


def test_curl_comes_through_a_tunnel_at_its_public_url(between: Between) -> None:
    row = between.clients.reaches("app", "connected")
    assert row["address"] == f"http://127.0.0.1:{between.ports['web']}"
    assert between.program.run_other(["curl", "-sS", f"{row['address']}/hello"]).ok() == HELLO


def test_a_command_speaks_to_a_channel_client(between: Between) -> None:
    between.clients.reaches("desk", "connected")
    command = ["channel", "me", "--to", "desk", "--server", between.server("hub"), *between.options()]
    process = between.program.start(*command, stdin=subprocess.PIPE)
    assert process.popen.stdin is not None
    process.popen.stdin.write(b"are you there?\n")
    process.popen.stdin.flush()
    process.says("are you there?")


def test_a_command_jumps_through_the_ssh_host_and_all_that_it_was_given_arrives(between: Between) -> None:
    content = secrets.token_bytes(MIB)
    command = [between.program.path, "jump", between.echo.address, "--via", between.server("home"), *between.options()]
    secret = {"TUNNELCONSOLE_SECRET": SECRET}
    assert between.program.run_bytes(command, stdin=content, env=secret) == content


def test_one_line_clients_get_through(between: Between, origin: WebOrigin) -> None:
    tcp = between.program.start("tcp", between.echo.address, "--server", between.server("edge"), *between.options())
    tcp.says("tcp://127.0.0.1:")
    address = tcp.out.split("tcp://")[1].split()[0]
    assert digest_of_echo(address, b"hello") == hashlib.sha256(b"hello").digest()
    url = f"{between.gate.url}/http://localhost:{between.ports['web']}"
    http = between.program.start("http", origin.address, "--server", url, *between.options())
    http.says(f"http://localhost:{between.ports['web']}")
    hello = ["curl", "-sS", f"http://localhost:{between.ports['web']}/hello"]
    assert between.program.run_other(hello).ok() == HELLO


def test_a_command_tells_what_is_wrong_with_the_ssh_host_and_ends(between: Between) -> None:
    known = between.program.folder / "nobody-is-known"
    options = ["--identity", str(between.gate.sshd.identity), "--known-hosts", str(known)]
    done = between.program.run("tcp", "22", "--server", between.server("edge"), *options)
    assert done.code == 1
    assert f"is not known: it has shown the key {between.gate.sshd.fingerprint}" in done.err
    assert f">> {known}" in done.err


def test_clients_come_back_with_their_ssh_host_and_visitors_are_reset_meanwhile(between: Between) -> None:
    row = between.clients.reaches("public", "connected")
    with connect(row["address"]) as visitor:
        assert echoed(visitor, b"are you there?") == b"are you there?"
        between.gate.sshd.is_killed()
        with pytest.raises(ConnectionResetError):
            visitor.recv(1)
    until_true(lambda: "SSH" in (between.clients.reaches("public", "backoff")["error"] or ""))
    between.gate.sshd.start()
    between.clients.ask("start", "public")
    row = between.clients.reaches("public", "connected")
    assert digest_of_echo(row["address"], b"again") == hashlib.sha256(b"again").digest()


SSH_SERVER = """
[service.ssh]
kind = "ssh-server"
listen = "127.0.0.1:{port}"
authorized_keys = "{keys}"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:0"
"""


@pytest.mark.system("tmux")
def test_attach_shows_the_console_of_an_engine_elsewhere(program: Program) -> None:
    port, key = steady_port(), program.folder / "alice"
    keygen = [system_tools.path_of("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", str(key)]
    subprocess.run(keygen, check=True)
    daemon = program.daemon(SSH_SERVER.format(port=port, keys=f"{key}.pub"))
    known = program.folder / "known_hosts"
    scan = [system_tools.path_of("ssh-keyscan"), "-p", str(port), "127.0.0.1"]
    known.write_bytes(program.run_bytes(scan))
    options = ["--identity", str(key), "--known-hosts", str(known)]
    command = [program.path, "attach", f"ssh://ops@127.0.0.1:{port}", *options]
    with Terminal(program.folder, command, program.env) as terminal:
        terminal.shows("TunnelConsole", "● running", r"edge\s+● listening")
        (row,) = daemon.json("sessions")
        assert row["identity"] == "alice"
        terminal.press("q")
        assert terminal.exit_code() == 0
    until_true(lambda: not daemon.json("sessions"))


def test_attach_says_what_to_install_where_there_is_no_ssh(program: Program) -> None:
    bare = program.folder / "bare"
    bare.mkdir()
    command = ["env", f"PATH={bare}", program.path, "attach", "ssh://ops@127.0.0.1:2222"]
    with Terminal(program.folder, command, program.env) as terminal:
        terminal.shows("there is none on the PATH", "install OpenSSH's client")
