"""SSH at the command line: mistakes are told before anything is dialled, and ssh is given what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from complaint import is_one_line
from installed import Program
from tunnelconsole.cli.over_ssh import ssh_command


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("c"))
    yield program
    program.close()


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("ssh://ops@gate:2222", ["ssh", "-t", "-p", "2222", "--", "ops@gate"]),
        ("ssh://gate", ["ssh", "-t", "--", "gate"]),
        ("ssh://ops@[fe80::1]:2222/", ["ssh", "-t", "-p", "2222", "--", "ops@fe80::1"]),
    ],
)
def test_ssh_is_given_user_host_and_port(url: str, command: list[str]) -> None:
    assert ssh_command(url, None, None) == command


def test_ssh_is_given_the_key_and_the_known_hosts() -> None:
    command = ssh_command("ssh://gate", "a key", "known hosts")
    options = ["-i", "a key", "-o", "IdentitiesOnly=yes", "-o", 'UserKnownHostsFile="known hosts"']
    assert command == ["ssh", "-t", *options, "--", "gate"]


@pytest.mark.parametrize(
    "url", ["ssh://-oProxyCommand=x", "ssh://-l@gate", "ssh://ops:hush@gate", "ssh://gate/x", "gate"]
)
def test_what_could_be_an_option_or_is_no_host_is_refused(url: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        ssh_command(url, None, None)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["attach", "ssh://gate:99999"], "the port 99999 is not between 1 and 65535"),
        (["attach", "ssh://gate", "--role", "view"], "--role is for an engine on this machine"),
        (["attach", "--identity", "key"], "--identity and --known-hosts are for ssh://USER@HOST:PORT"),
        (["tcp", "22", "--server", "ssh://gate"], "names no server behind ssh://gate:22"),
        (["tcp", "22", "--server", "a:1", "--identity", "x"], "--identity is for a server that is reached through ssh"),
        (["tcp", "22", "--server", "ssh://o:hush@gate/a:1"], "takes no password"),
        (["jump", "a:1", "--via", "ssh://gate/a"], "has no port"),
        (["http", "3000", "--server", "ssh://gate/a:1"], "is not the URL of a tunnel"),
        (["http", "3000", "--server", "http://a", "--connect", "ssh://gate"], "names no server behind"),
        (["channel", "me", "--server", "ssh://gate:x/a:1"], "is not a number"),
        (["punch", "room", "--server", "ssh://gate/a:1"], "a rendezvous is not reached through ssh://"),
        (["nat", "--server", "ssh://gate/a:1"], "a rendezvous is not reached through ssh://"),
    ],
)
def test_a_mistake_is_told_as_wrong_usage(program: Program, arguments: list[str], said: str) -> None:
    done = program.run(*arguments, env={"TUNNELCONSOLE_SECRET": "s"})
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "hush" not in done.err
    is_one_line(done.err)


def test_a_key_that_others_can_read_is_refused(program: Program) -> None:
    key: Path = program.write("open.key", "", 0o644)
    done = program.run("tcp", "22", "--server", "ssh://gate/a:1", "--identity", str(key))
    assert done.code == 1
    assert f"--identity: others can read {key} (mode 0644); run: chmod 600 {key}" in done.err


def test_a_console_elsewhere_needs_a_terminal(program: Program) -> None:
    done = program.run("attach", "ssh://ops@gate:2222")
    assert done.code == 1
    assert "the console needs a terminal" in done.err
