"""The commands that need no running engine: a one-line relay client, and standard input and output through a jump."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
from collections.abc import Iterator

import pytest

from complaint import is_one_line
from echo import EchoServer, connect, echoed
from installed import Daemon, Program, descriptors_allowed, few_descriptors
from ports import steady_port
from waiting import until_true

SECRET = "only for these tests"

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
allow = ["127.0.0.1:*"]
deny = ["127.0.0.1:1"]
secret = "{secret}"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{relay}"
ports = "0"
"""

SEALED = """
[service.sealed]
kind = "{kind}-server"
listen = "127.0.0.1:0"
{keys}
[service.sealed.tls]
"""


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("standalone"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def node(program: Program) -> Daemon:
    """A daemon with the servers that the commands are clients of."""
    return program.daemon(SERVICES.format(relay=steady_port(), secret=SECRET))


# tcp


def test_tcp_prints_the_public_address_and_leads_visitors_to_the_target(
    program: Program, node: Daemon, echo: EchoServer
) -> None:
    command = program.start("tcp", echo.address, "--server", node.service("edge")["address"])
    command.says("forwarding")
    match = re.fullmatch(rf"forwarding tcp://(localhost:\d+) -> {re.escape(echo.address)}\n", command.out)
    assert match, command.said
    with connect(match[1]) as visitor:
        assert echoed(visitor, b"through") == b"through"
    command.sends(signal.SIGINT)
    assert command.returns() == 0
    assert command.err == ""


def test_tcp_takes_a_port_of_this_machine(program: Program, node: Daemon, echo: EchoServer) -> None:
    port = echo.address.rpartition(":")[2]
    command = program.start("tcp", port, "--server", node.service("edge")["address"], "--json")
    command.says("}\n")
    document = json.loads(command.out)
    assert document["target"] == f"127.0.0.1:{port}"
    with connect(document["address"]) as visitor:
        assert echoed(visitor, b"through") == b"through"
    command.sends(signal.SIGTERM)
    assert command.returns() == 0


def test_tcp_connects_again_when_the_server_comes_back(program: Program, node: Daemon, echo: EchoServer) -> None:
    command = program.start("tcp", echo.address, "--server", node.service("edge")["address"])
    command.says("forwarding")
    node.ask("stop", "edge").ok()
    command.says("next try in")
    node.ask("start", "edge").ok()
    until_true(lambda: command.out.count("forwarding") == 2 or "again" in command.err)
    command.sends(signal.SIGTERM)
    assert command.returns() == 0


def test_tcp_gives_up_when_the_servers_certificate_is_not_the_pinned_one(program: Program) -> None:
    sealed = program.daemon(SEALED.format(kind="relay", keys=""))
    answer = program.run("tcp", "22", "--server", sealed.address("sealed"), "--fingerprint", "ab" * 32)
    assert answer.code == 1
    assert answer.out == ""
    assert is_one_line(answer.err)
    assert "not the pinned one" in answer.err


def test_tcp_names_its_own_options_when_the_certificate_is_not_trusted(program: Program) -> None:
    sealed = program.daemon(SEALED.format(kind="relay", keys=""))
    command = program.start("tcp", "22", "--server", sealed.address("sealed"), "--tls")
    command.says("next try in")
    assert "pin a self-signed certificate with --fingerprint, or name its authority with --ca" in command.err
    assert "tls." not in command.err
    command.sends(signal.SIGINT)
    assert command.returns() == 0


@pytest.mark.parametrize("command", [["tcp", "22", "--server"], ["jump", "127.0.0.1:22", "--via"]])
def test_a_file_of_authorities_that_has_none_is_named_with_its_option(program: Program, command: list[str]) -> None:
    file = program.write("authorities.pem", "nobody\n")
    answer = program.run(*command, "127.0.0.1:1", "--ca", str(file), env={"TUNNELCONSOLE_SECRET": SECRET})
    assert answer.code == 1
    assert answer.err == f"tunnelconsole: --ca: {file} cannot be used: it has no certificates in PEM form\n"


def test_tcp_says_that_it_is_the_relay_server_that_cannot_be_reached(program: Program) -> None:
    command = program.start("tcp", "22", "--server", "127.0.0.1:1")
    command.says("cannot reach the relay server 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
    command.sends(signal.SIGINT)
    assert command.returns() == 0


def test_tcp_may_have_as_many_visitors_as_the_system_allows_descriptors_for(program: Program, node: Daemon) -> None:
    edge = node.service("edge")["address"]
    command = program.start_other(few_descriptors(program.path, "tcp", "22", "--server", edge))
    command.says("forwarding")
    assert descriptors_allowed(command) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command.sends(signal.SIGINT)
    assert command.returns() == 0


# jump


def test_jump_joins_standard_input_and_output_with_the_target(program: Program, node: Daemon, echo: EchoServer) -> None:
    via = node.service("home")["address"]
    answer = program.run(
        "jump", echo.address, "--via", via, stdin="all of this comes back", env={"TUNNELCONSOLE_SECRET": SECRET}
    )
    assert (answer.ok(), answer.err) == ("all of this comes back", "")


def test_jump_takes_the_secret_from_a_file_and_goes_through_tls(program: Program, echo: EchoServer) -> None:
    file = program.write("jump.secret", f"{SECRET}\n")
    keys = f'secret = "{SECRET}"\nallow = ["127.0.0.1:*"]'
    sealed = program.daemon(SEALED.format(kind="jump", keys=keys))
    via = ("jump", echo.address, "--via", sealed.address("sealed"), "--secret-file", str(file))
    fingerprint = sealed.service("sealed")["notes"]["fingerprint"]
    assert program.run(*via, "--fingerprint", fingerprint, stdin="sealed").ok() == "sealed"
    distrusted = program.run(*via, "--tls")
    assert distrusted.code == 1
    assert "certificate is not trusted" in distrusted.err
    assert "with --fingerprint, or name its authority with --ca" in distrusted.err


@pytest.mark.parametrize(
    ("target", "secret", "cause"),
    [
        ("127.0.0.1:22", "not the secret", "check the secret"),
        ("127.0.0.1:1", SECRET, "not allowed here"),
        ("192.0.2.1:22", SECRET, "not allowed here"),
    ],
    ids=["wrong secret", "denied", "not allowed"],
)
def test_jump_says_why_it_was_refused(program: Program, node: Daemon, target: str, secret: str, cause: str) -> None:
    via = node.service("home")["address"]
    answer = program.run("jump", target, "--via", via, env={"TUNNELCONSOLE_SECRET": secret})
    assert answer.code == 1
    assert answer.out == ""
    assert is_one_line(answer.err)
    assert cause in answer.err
    assert ("did not connect to" in answer.err) is (cause == "not allowed here")
    assert secret not in answer.err


def test_jump_refuses_a_secret_file_that_everybody_can_read(program: Program) -> None:
    file = program.write("open.secret", SECRET, mode=0o644)
    answer = program.run("jump", "127.0.0.1:22", "--via", "127.0.0.1:1", "--secret-file", str(file))
    assert answer.code == 1
    assert is_one_line(answer.err)
    assert "chmod 600" in answer.err
    assert SECRET not in answer.err


def test_a_jump_server_that_cannot_be_reached_is_told(program: Program) -> None:
    answer = program.run("jump", "127.0.0.1:22", "--via", "127.0.0.1:1", env={"TUNNELCONSOLE_SECRET": SECRET})
    assert answer.code == 1
    assert answer.err == (
        "tunnelconsole: cannot reach the jump server 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused\n"
    )


def test_standard_descriptors_that_were_closed_become_no_sockets_by_chance(
    program: Program, node: Daemon, echo: EchoServer
) -> None:
    command = f"{program.path} jump {echo.address} --via {node.service('home')['address']} <&- 2>&-"
    environment = program.env | {"TUNNELCONSOLE_SECRET": SECRET}
    answer = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, b"")
