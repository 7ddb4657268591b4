"""The console over SSH, with the OpenSSH client that everyone has, and what an auditor says to the listener."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

import system_tools
from echo import EchoServer, connect, echoed
from installed import Daemon, Program
from ports import steady_port
from ssh_operators import Operators
from terminal import Terminal
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("ssh", "ssh-keygen", "sftp", "scp", "tmux")]

SERVICES = """
[service.ssh]
kind = "ssh-server"
listen = "127.0.0.1:{port}"
authorized_keys = "operators"
{more}

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:0"
"""

PASTE = 3_000_000
"""Bytes of somebody who pastes the wrong thing: more than the 2 MB that a channel takes before its window has to move.
More takes only longer, for Textual reads a paste letter by letter."""

PASTE_COST = 8_000_000
"""Bytes of memory that it may cost the engine: a window at each side of it, and what the allocator keeps."""


class Host(Operators):
    """An engine with an SSH server, and two operators."""

    def __init__(self, program: Program, more: str = "") -> None:
        super().__init__(program, "alice", "viola")
        self.daemon = Daemon(program, SERVICES.format(port=self.port, more=more))
        self.let_in(self.daemon.folder, f'{self.line("alice")}role="view" {self.line("viola")}')
        self.daemon.start()
        self._terminals: list[Terminal] = []

    def console(self, who: str = "alice", *options: str, columns: int = 120, rows: int = 36) -> Terminal:
        """A terminal in which ssh shows the console."""
        env = self.program.env | {"COLORTERM": "truecolor"}
        terminal = Terminal(self.folder, self.command("ssh", who, *options, "host"), env, columns, rows)
        self._terminals.append(terminal)
        return terminal

    @property
    def processes(self) -> list[psutil.Process]:
        """The consoles and commands that the engine has started, zombies too."""
        return psutil.Process(self.daemon.process.popen.pid).children(recursive=True)

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.__exit__()


@pytest.fixture
def host(program: Program) -> Iterator[Host]:
    made = Host(program)
    yield made
    made.close()


def test_ssh_shows_the_console_and_leaving_it_leaves_nothing(host: Host) -> None:
    terminal = host.console()
    terminal.shows("TunnelConsole", "● running", r"edge\s+● listening")
    terminal.press("3")
    terminal.shows(r"127\.0\.0\.1:\d+\s+alice\s+ssh ")
    (row,) = host.daemon.json("sessions")
    assert (row["identity"], row["kind"]) == ("alice", "ssh-server")
    (channel,) = host.daemon.json("channels")
    assert (channel["label"], channel["path"]) == ("console", "ssh")
    terminal.press("q")
    assert terminal.exit_code() == 0
    until_true(lambda: host.daemon.json("sessions") == [] and host.processes == [])


def test_the_window_the_terminal_and_its_colours_are_passed_on(host: Host) -> None:
    terminal = host.console()
    terminal.shows("● running")
    (process,) = host.processes
    variables = process.environ()
    assert variables["TERM"].startswith(("tmux", "screen"))  # what ssh is told by tmux, not what the engine has
    assert variables["COLORTERM"] == "truecolor"
    assert "PYTHONFAULTHANDLER" not in variables
    assert len(terminal.screen.splitlines()[0]) > 80
    terminal.resize(60, 20)
    terminal.shows(r"(?s)\A[^\n]{1,60}\n.*q leave")
    until_true(lambda: all(len(line) <= 60 for line in terminal.screen.splitlines()))


def test_a_console_gives_way_to_the_engine(host: Host) -> None:
    host.console().shows("● running")
    (process,) = host.processes
    engine = psutil.Process(host.daemon.process.popen.pid)
    assert process.nice() == min(19, engine.nice() + 10)


def test_who_may_only_look_is_told_so_at_a_key_that_steers(host: Host) -> None:
    # Every other key and the commands: tests/screens/test_roles.py; here counts that the role arrives over SSH.
    terminal = host.console("viola")
    terminal.shows("● running", r"edge\s+● listening")
    terminal.press("2")
    terminal.shows("d hides this")
    terminal.press("R")
    terminal.shows("your role is view")
    assert host.daemon.service("edge")["state"] == "listening"


def test_an_operator_steers_from_there(host: Host) -> None:
    terminal = host.console()
    terminal.shows("● running", r"edge\s+● listening")
    terminal.press(":")
    terminal.type("stop edge")
    terminal.press("Enter")
    terminal.shows("Stop service edge")
    terminal.press("y")
    terminal.shows(r"edge\s+○ stopped")
    assert host.daemon.service("edge")["state"] == "stopped"
    last = host.daemon.json("audit")[-1]
    assert last["who"].startswith("ssh alice SHA256:")
    assert (last["via"], last["action"], last["object"], last["outcome"]) == ("ssh", "stop-service", "edge", "done")


def test_nothing_is_saved_on_the_engines_machine(host: Host) -> None:
    terminal = host.console()
    terminal.shows("● running")
    terminal.press(":")
    terminal.type("har /tmp/never")
    terminal.press("Enter")
    terminal.shows("saves no files")
    terminal.press("t")
    terminal.shows("Theme ")
    assert not list(host.folder.rglob("console.json"))


def test_a_kick_gives_the_terminal_back_and_says_why(host: Host) -> None:
    terminal = host.console()
    terminal.shows("● running")
    (row,) = host.daemon.json("sessions")
    host.daemon.ask("kick", row["id"]).ok()
    terminal.shows("tunnelconsole: kicked by an operator")
    terminal.hides("● running")
    assert terminal.exit_code() != 0
    until_true(lambda: host.processes == [])


def test_a_command_runs_in_place_of_the_console(host: Host) -> None:
    status: dict[str, Any] = json.loads(host.run("viola", "host", "status", "--json").ok())
    assert status["pid"] == host.daemon.process.popen.pid
    done = host.run("viola", "host", "stop", "edge")
    assert done.code == 1
    assert "its role is view" in done.err
    assert "edge is stopped" in host.run("alice", "host", "stop edge").ok()
    lines = host.run("viola", "host", "audit", "--export=-").ok().splitlines()
    last = [json.loads(line) for line in lines[-2:]]
    assert [row["who"].split()[1] for row in last] == ["viola", "alice"]
    assert [(row["action"], row["object"], row["outcome"]) for row in last] == [
        ("run-command", "stop edge", "refused"),
        ("stop-service", "edge", "done"),
    ]


def test_there_is_no_shell_no_file_and_no_forward(host: Host) -> None:
    for command in ("sh", "id; status", "status --socket /tmp/x", "check -c /etc/passwd"):
        done = host.run("alice", "host", command)
        assert done.code == 1
        assert "over SSH" in done.err
    files = host.run("alice", "host", tool="sftp")
    assert files.code != 0
    assert "no files" in files.err
    for options in ([], ["-O"]):
        assert host.run("alice", *options, "host:/etc/passwd", str(host.folder / "x"), tool="scp").code != 0
    assert not (host.folder / "x").exists()
    through = host.run("alice", "-o", "LogLevel=INFO", "-W", "127.0.0.1:22", "host")
    assert "forwards nothing" in through.err
    remote = host.run("alice", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", "host")
    assert "remote port forwarding failed" in remote.err
    agent = host.run("alice", "-A", "-X", "host", "status").ok()
    assert agent.startswith("version")


def test_a_key_that_is_not_in_the_file_does_not_come_in_until_it_is(host: Host) -> None:
    operators = host.daemon.folder / "operators"
    before = operators.read_text()
    operators.write_text("# nobody\n")
    done = host.run("alice", "host", "status")
    assert (done.code, "Permission denied (publickey)" in done.err) == (255, True)
    operators.write_text(before)
    host.run("alice", "host", "status").ok()


def test_the_fingerprint_is_shown_and_is_the_same_after_a_restart(host: Host) -> None:
    host.run("alice", "host", "status").ok()
    shown = host.daemon.service("ssh")["notes"]["fingerprint"]
    assert f"fingerprint={shown}" in host.daemon.process.out
    keygen = [system_tools.path_of("ssh-keygen"), "-l", "-f", str(host.folder / "known_hosts")]
    assert shown in host.program.run_other(keygen).ok()
    host.daemon.stops()
    host.daemon.start()
    host.run("alice", "host", "status").ok()


def test_a_host_key_that_others_can_read_is_refused(host: Host) -> None:
    host.daemon.stops()
    (key,) = (host.daemon.folder / "state" / "ssh").glob("*.key")
    key.chmod(0o644)
    host.daemon.launch()
    assert host.daemon.process.returns() == 1
    assert "others can read the host key" in host.daemon.process.err


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (10_000, 10_000)])
def test_a_terminal_of_any_size_gets_a_console(host: Host, columns: int, rows: int) -> None:
    size = ["stty", "cols", str(columns), "rows", str(rows)]
    ssh = host.command("ssh", "alice", "-tt", "host")
    inner = f"{' '.join(size)}; exec {' '.join(ssh)}"
    with Terminal(host.folder, ["sh", "-c", inner], host.program.env) as terminal:
        until_true(lambda: host.daemon.json("channels"))
        until_true(lambda: host.daemon.json("channels")[0]["bytes_out"] > 1000)
        assert host.daemon.service("ssh")["sessions"] == 1
        terminal.press("q")
        until_true(lambda: host.daemon.json("sessions") == [])


def test_megabytes_pasted_into_the_console_cost_the_engine_nothing(host: Host) -> None:
    ssh = host.program.start_other(host.command("ssh", "alice", "-tt", "host"), stdin=subprocess.PIPE)
    assert ssh.popen.stdin is not None
    until_true(lambda: "running" in ssh.out)
    before = host.daemon.json("status")["memory"]
    ssh.popen.stdin.write(b"\x1b[200~")
    for _ in range(PASTE // 100_000):
        ssh.popen.stdin.write(b"paste! " * 14_286)
    ssh.popen.stdin.write(b"\x1b[201~")
    ssh.popen.stdin.flush()
    until_true(lambda: host.daemon.json("channels")[0]["bytes_in"] > PASTE)
    assert host.daemon.json("status")["memory"] - before < PASTE_COST
    ssh.popen.stdin.write(b"q")
    ssh.popen.stdin.flush()
    ssh.returns(30)
    until_true(lambda: host.processes == [])


def test_a_client_that_is_killed_leaves_nothing(host: Host) -> None:
    ssh = [host.program.start_other(host.command("ssh", "alice", "-tt", "host")) for _ in range(3)]
    until_true(lambda: len(host.daemon.json("channels")) == 3)
    for each in ssh:
        each.end()
    until_true(lambda: host.daemon.json("sessions") == [] and host.processes == [])


VISITED = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
secret = "superBigSecret"
allow = ["127.0.0.1:*"]

[service.way]
kind = "jump-client"
listen = "127.0.0.1:0"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
target = "{target}"
"""
"""Services whose visitors are told of in events, six of them for each."""

READ_NOT = 20_000_000
"""Bytes of memory that a client may cost which does not read: ssh's window and what sockets hold are in the kernel."""


A_FLOOD = 1_000_000
"""Bytes that were more than what stood in pipes anyway: ssh takes 2 MB before it has to read."""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_client_that_stops_reading_holds_up_nobody_else(program: Program) -> None:
    echo = EchoServer()
    host = Host(program, VISITED.format(home=steady_port(), target=echo.address))
    try:
        follow = ["host", "events", "--follow", "--json", "--level", "debug"]
        reader = host.program.start_other(host.command("ssh", "alice", *follow))
        until_true(lambda: "logged-in" in reader.out)

        def sent() -> int:
            """Bytes that went to it."""
            rows = host.daemon.json("channels")
            return sum(row["bytes_out"] for row in rows if row["label"].startswith("events"))

        def visits(count: int) -> None:
            for _ in range(count):
                with connect(host.daemon.address("way")) as visitor:
                    assert echoed(visitor, b"hello") == b"hello"

        visits(100)
        reader.popen.send_signal(signal.SIGSTOP)
        before, last, took = host.daemon.json("status")["memory"], 0, 0
        for _ in range(60):
            visits(250)
            last, took = took, sent()
            if last == took > A_FLOOD:
                break
        assert last == took > A_FLOOD, "it is written to without end"
        assert host.daemon.json("status")["memory"] - before < READ_NOT
        assert host.run("viola", "host", "status").ok().startswith("version")
        reader.popen.kill()
        until_true(lambda: host.daemon.json("sessions") == [] and host.processes == [])
    finally:
        echo.close()
        host.close()


SECRET, PASSWORD = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "correct horse"
"""Of the one-time codes of alice, and viola's."""

FACTORS = f"""
one_time_codes = {{ alice_file = "alice.totp" }}
passwords = {{ viola = "{PASSWORD}" }}
"""


def one_time_code() -> str:
    """What an authenticator app shows now."""
    return TOTP(base64.b32decode(SECRET), 6, SHA1(), 30).generate(int(time.time())).decode()


@pytest.fixture
def wary(program: Program) -> Iterator[Host]:
    """A host that asks for a second factor."""
    program.write("alice.totp", f"{SECRET}\n")
    made = Host(program, FACTORS.replace("alice.totp", str(program.folder / "alice.totp")))
    yield made
    made.close()


def test_ssh_asks_for_a_code_after_the_key_and_shows_the_console_then(wary: Host) -> None:
    terminal = wary.console("alice", "-o", "BatchMode=no")
    terminal.shows(r"One-time code:")
    terminal.type("12")
    terminal.press("Enter")
    terminal.shows(r"(?s)One-time code:.*One-time code:")
    given = one_time_code()
    terminal.type(given)
    terminal.press("Enter")
    terminal.shows("● running", r"edge\s+● listening")
    (row,) = wary.daemon.json("sessions")
    assert row["identity"] == "alice"
    terminal.press("q")
    assert terminal.exit_code() == 0
    said = wary.daemon.process.said + json.dumps(wary.daemon.json("events"))
    assert "a wrong one-time code" in said
    for secret in (SECRET, PASSWORD, given):
        assert secret not in said


def test_ssh_gives_a_password_after_the_key_and_neither_alone_is_enough(wary: Host) -> None:
    asker = wary.program.write("ask", f"#!/bin/sh\necho '{PASSWORD}'\n", mode=0o700)
    answering = {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force"}
    command = ["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1", "host", "status"]
    assert wary.run("viola", *command, env=answering).ok().startswith("version")
    alone = wary.run("viola", "host", "status")
    assert "Permission denied (keyboard-interactive)" in alone.err
    wrong = wary.run("alice", *command, env=answering)
    assert "Permission denied (keyboard-interactive)" in wrong.err
    keyless = wary.run("viola", "-o", "PubkeyAuthentication=no", *command, env=answering)
    assert "Permission denied (publickey)" in keyless.err


def test_a_script_comes_in_with_a_key_that_is_enough_alone(wary: Host) -> None:
    operators = wary.daemon.folder / "operators"
    alice, viola = operators.read_text().splitlines(keepends=True)
    operators.write_text(f"{alice}key-only,{viola}")
    assert wary.run("viola", "host", "status").ok().startswith("version")
    assert "Permission denied" in wary.run("alice", "host", "status").err


def audited(port: int) -> tuple[int, str]:
    """What ssh-audit says to a listener: its exit code, and its lines that are not well."""
    tool = shutil.which("ssh-audit", path=sysconfig.get_path("scripts"))
    assert tool is not None, "ssh-audit is not installed beside the Python that runs the tests"
    done = subprocess.run(
        [tool, "--no-colors", "--level=warn", "-p", str(port), "127.0.0.1"], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_an_auditor_finds_nothing_to_warn_of(program: Program) -> None:
    host = Host(program, "post_quantum = true")
    code, said = audited(host.port)
    assert code == 0, said
    assert "[warn]" not in said
    assert "[fail]" not in said
    assert "(nfo)" not in said


def test_for_older_clients_the_one_warning_is_of_quantum_computers(host: Host) -> None:
    _, said = audited(host.port)
    warnings = [line for line in said.splitlines() if "[warn]" in line or "[fail]" in line or "(nfo)" in line]
    assert len(warnings) == 2, said
    assert all("curve25519" in line and "post-quantum" in line for line in warnings)


def test_the_keys_are_for_the_owner_alone(host: Host) -> None:
    (key,) = Path(host.daemon.folder / "state" / "ssh").glob("*.key")
    assert key.stat().st_mode & 0o777 == 0o600
