"""Programs of the settings over SSH: a shell and an SFTP server, for operators and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

import system_tools
from installed import Daemon, Program
from ssh_operators import Operators
from terminal import Terminal
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("ssh", "ssh-keygen", "sftp", "scp", "sshd", "tmux", "sh", "cat")]

PLACES = ("/usr/lib/openssh", "/usr/libexec", "/usr/libexec/openssh", "/usr/lib/ssh")
SFTP_SERVER = next((place for place in PLACES if Path(place, "sftp-server").exists()), "") + "/sftp-server"
"""Where OpenSSH's own server for files is, which comes with sshd."""

SERVICES = """
[service.ssh]
kind = "ssh-server"
listen = "127.0.0.1:{port}"
authorized_keys = "operators"

[service.ssh.programs]
shell = ["{sh}", "-i"]
sftp = ["{sftp}"]
cat = ["{cat}"]
gone = ["/no/such/program"]
"""


class Host(Operators):
    """An engine with an SSH server that runs programs."""

    def __init__(self, program: Program) -> None:
        super().__init__(program, "alice", "viola")
        tools = {"sh": system_tools.path_of("sh"), "cat": system_tools.path_of("cat"), "sftp": SFTP_SERVER}
        self.daemon = Daemon(program, SERVICES.format(port=self.port, **tools))
        self.let_in(self.daemon.folder, f'{self.line("alice")}role="view" {self.line("viola")}')
        self.daemon.start()


@pytest.fixture
def host(program: Program) -> Host:
    return Host(program)


def test_a_shell_that_is_named_runs_on_a_terminal(host: Host) -> None:
    with Terminal(host.folder, host.command("ssh", "alice", "-t", "host", "shell"), host.program.env, 80, 24) as shell:
        shell.shows("[$#]")
        shell.type("echo $((6 * 7)); stty size\n")
        shell.shows(r"\b42\n", r"\b24 80\n")
        shell.type("cat\nmeow\n")
        shell.shows(r"\bmeow\n\W*meow\n")  # what comes before it runs does not end it
        shell.press("C-c")  # which its own terminal makes a signal
        shell.type("echo $((7 * 7))\n")
        shell.shows(r"\b49\n")
        (row,) = host.daemon.json("channels")
        assert row["label"] == "shell"
        shell.type("exit 3\n")
        assert shell.exit_code() == 3
    until_true(lambda: host.daemon.json("sessions") == [])


def test_files_go_both_ways_with_scp_and_sftp(host: Host) -> None:
    content = bytes(range(256)) * 20_000
    (host.folder / "out").write_bytes(content)
    assert host.run("alice", str(host.folder / "out"), f"host:{host.folder}/there", tool="scp").code == 0
    assert (host.folder / "there").read_bytes() == content
    assert host.run("alice", f"host:{host.folder}/there", str(host.folder / "back"), tool="scp").code == 0
    assert (host.folder / "back").read_bytes() == content
    listed = host.run("alice", "-b", "-", "host", tool="sftp", stdin=f"ls -1 {host.folder}/there\n")
    assert "there" in listed.out


def test_a_program_on_pipes_gets_what_is_sent_and_its_end(host: Host) -> None:
    for text in ("hello\n", "", "line after line\n" * 20_000):
        assert host.run("alice", "host", "cat", stdin=text).out == text


def test_programs_are_for_operators_and_take_no_arguments(host: Host) -> None:
    for command in ("shell", "cat"):
        done = host.run("viola", "host", command)
        assert done.code == 1
        assert "its role is view" in done.err
    assert host.run("viola", "host", tool="sftp").code != 0
    for command in ("cat /etc/passwd", "shell -c id", "bash"):
        done = host.run("alice", "host", command)
        assert done.code == 1
        assert "over SSH" in done.err


def test_a_program_that_is_not_there_is_told(host: Host) -> None:
    done = host.run("alice", "host", "gone")
    assert done.code == 1
    assert "the program gone cannot be started: No such file or directory" in done.err
