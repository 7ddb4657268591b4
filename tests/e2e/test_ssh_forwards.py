"""Tunnels with the OpenSSH client that everyone has: ``-R`` for hostnames and ports, ``-L``, ``-D``, ``-W``, ``-J``."""

from __future__ import annotations

import hashlib
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import system_tools
from installed import Daemon, Process, Program
from origins import HELLO, WebOrigin, web_origin
from ports import steady_port
from ssh_operators import Operators
from sshd import TOOLS, Sshd
from terminal import Terminal
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("curl", "tmux", *TOOLS)]

SERVICES = """
[service.web]
kind = "tunnel-server"
listen = "127.0.0.1:{web}"

[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
secret = "of no account here"
allow = ["127.0.0.1:{target}", "localhost:{target}", "127.0.0.1:{sshd}"]

[service.ssh]
kind = "ssh-server"
listen = "127.0.0.1:{port}"
authorized_keys = "operators"
forward = true
"""


class Shore(Operators):
    """An engine that forwards for SSH clients, and a web service that it does not know of."""

    def __init__(self, program: Program, origin: WebOrigin) -> None:
        # The key is in the configuration: ssh gives the one of its command line to no host that it jumps through.
        super().__init__(program, "alice", more=f"IdentityFile {program.folder}/alice", level="INFO")
        self.origin = origin
        self.web_port = steady_port()
        self.sshd = Sshd(program, steady_port())
        ports = {"web": self.web_port, "target": origin.port, "port": self.port, "sshd": self.sshd.port}
        self.daemon = Daemon(program, SERVICES.format(**ports))
        self.let_in(self.daemon.folder, self.line("alice"))
        self.daemon.start()

    def ssh(self, *arguments: str) -> list[str]:
        """A command line."""
        return [system_tools.path_of("ssh"), "-F", str(self.ssh_config), *arguments]

    def starts(self, *arguments: str) -> Process:
        """Begins an ssh that goes on."""
        return self.program.start_other(self.ssh(*arguments))

    def remote(self, place: str) -> list[str]:
        """The options for one place of the web service."""
        return ["-R", f"{place}:127.0.0.1:{self.origin.port}"]

    def fetch(self, url: str, *options: str) -> str:
        """What curl gets there; every name of localhost is this machine."""
        command = [system_tools.path_of("curl"), "-sS", "--max-time", "20", *options, url]
        return self.program.run_other(command).out

    def digest(self, url: str, *options: str) -> str:
        """The SHA-256 of the large file there, as it comes through."""
        got = self.program.run_bytes([system_tools.path_of("curl"), "-sS", "--max-time", "30", *options, url])
        return hashlib.sha256(got).hexdigest()


@pytest.fixture
def shore(program: Program, tmp_path: Path) -> Iterator[Shore]:
    with web_origin(tmp_path / "origin") as origin:
        yield Shore(program, origin)


def test_a_hostname_is_printed_on_the_terminal_and_leads_to_the_service(shore: Shore) -> None:
    with Terminal(shore.folder, shore.ssh(*shore.remote("80"), "host"), shore.program.env, 120, 24) as terminal:
        screen = terminal.shows(r"forwarding http://\w+\.localhost:\d+ \(-R 80\)")
        found = re.search(r"http://(\w+\.localhost):(\d+)", screen)
        assert found is not None
        resolve = f"{found[1]}:{found[2]}:127.0.0.1"
        assert HELLO in shore.fetch(f"{found[0]}/hello", "--resolve", resolve)
        terminal.shows(r"\d\d:\d\d:\d\d   127\.0\.0\.1:\d+  GET \w+\.localhost/hello")
        (row,) = [row for row in shore.daemon.json("sessions") if row["service"] == "web"]
        assert (row["identity"], row["kind"]) == ("alice", "tunnel-server")
        (request,) = shore.daemon.json("requests")
        assert request["target"] == "/hello"
        terminal.press("C-c")
        assert terminal.exit_code() == 0
    until_true(lambda: shore.daemon.json("sessions") == [])


def test_a_hostname_can_be_asked_for_and_large_files_arrive_intact(shore: Shore) -> None:
    shore.starts(*shore.remote("myapp:80"), "-N", "host")
    url = f"http://myapp.localhost:{shore.web_port}"
    resolve = ("--resolve", f"myapp.localhost:{shore.web_port}:127.0.0.1")
    until_true(lambda: any(row["service"] == "web" for row in shore.daemon.json("sessions")))
    assert shore.digest(f"{url}/big", *resolve) == shore.origin.digest
    assert "no tunnel for this host" in shore.fetch(f"http://other.localhost:{shore.web_port}/", "--resolve",
                                                    f"other.localhost:{shore.web_port}:127.0.0.1")  # fmt: skip


def test_a_port_is_told_and_its_visitors_are_channels(shore: Shore) -> None:
    client = shore.starts(*shore.remote("0"), "-N", "host")
    client.says("Allocated port")
    port = int(re.findall(r"Allocated port (\d+) ", client.said)[0])
    assert shore.digest(f"http://127.0.0.1:{port}/big") == shore.origin.digest
    with socket.create_connection(("127.0.0.1", port)) as visitor:
        visitor.sendall(b"GET /hello")
        # The channel is there before what came through it is counted.
        (row,) = until_true(lambda: [row for row in shore.daemon.json("channels") if row["bytes_out"]])
        assert (row["service"], row["bytes_out"]) == ("ssh", len(b"GET /hello"))
    assert next(row["address"] for row in shore.daemon.json("sessions") if row["address"]) == f"localhost:{port}"


def test_a_client_that_is_killed_frees_its_places_at_once(shore: Shore) -> None:
    port = steady_port()
    first = shore.starts(*shore.remote(str(port)), *shore.remote("app:80"), "-N", "host")
    until_true(lambda: len(shore.daemon.json("sessions")) == 3)
    first.sends(signal.SIGKILL)
    until_true(lambda: shore.daemon.json("sessions") == [])
    shore.starts(*shore.remote(str(port)), *shore.remote("app:80"), "-N", "host")
    until_true(lambda: len(shore.daemon.json("sessions")) == 3)


def test_a_client_that_is_stopped_loses_its_places_to_the_one_that_comes_back(shore: Shore) -> None:
    port = steady_port()
    stopped = shore.starts(*shore.remote(str(port)), "-N", "host")
    until_true(lambda: len(shore.daemon.json("sessions")) == 2)
    stopped.sends(signal.SIGSTOP)
    try:
        shore.starts(*shore.remote(str(port)), "-N", "-o", "ExitOnForwardFailure=yes", "host")
        until_true(lambda: HELLO in shore.fetch(f"http://127.0.0.1:{port}/hello"))
    finally:
        stopped.sends(signal.SIGCONT)


def test_a_place_that_is_not_to_be_had_is_told_on_the_terminal(shore: Shore) -> None:
    done = shore.program.run_other(shore.ssh("-T", *shore.remote("1"), "host"))
    assert done.code == 1
    assert "refused    -R 1: port 1 is not offered here" in done.out
    assert "remote port forwarding failed for listen port 1" in done.err


def test_local_forwards_lead_where_the_jump_server_allows_and_nowhere_else(shore: Shore) -> None:
    here, there = steady_port(), steady_port()
    client = shore.starts(
        *("-L", f"127.0.0.1:{here}:localhost:{shore.origin.port}"),
        *("-L", f"127.0.0.1:{there}:127.0.0.1:{shore.web_port}"),
        *("-N", "host"),
    )
    until_true(lambda: HELLO in shore.fetch(f"http://127.0.0.1:{here}/hello"))
    assert shore.digest(f"http://127.0.0.1:{here}/big") == shore.origin.digest
    shore.fetch(f"http://127.0.0.1:{there}/hello")
    client.says("not allowed here")


def test_a_socks_proxy_of_the_client_goes_through(shore: Shore) -> None:
    proxy = steady_port()
    shore.starts("-D", f"127.0.0.1:{proxy}", "-N", "host")
    through = ("--proxy", f"socks5h://127.0.0.1:{proxy}")
    until_true(lambda: HELLO in shore.fetch(f"http://localhost:{shore.origin.port}/hello", *through))


def test_another_ssh_server_is_reached_through_it(shore: Shore) -> None:
    inner = shore.sshd.client_config.read_text()
    shore.ssh_config.write_text(f"{shore.ssh_config.read_text()}\n{inner.replace('Host *', 'Host inner')}")
    command = shore.ssh("-J", "host", "-p", str(shore.sshd.port), "-o", "HostName=127.0.0.1", "inner", "echo", "hop")
    assert shore.program.run_other(command).ok() == "hop\n"
    done = shore.program.run_other(shore.ssh("-W", f"127.0.0.1:{shore.web_port}", "host"))
    assert "not allowed here" in done.err
