"""The commands that show a certificate of ours to a server that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client_certificates import Owned, self_signed
from complaint import is_one_line
from echo import EchoServer
from installed import Daemon, Program

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
allow = ["127.0.0.1:*"]
secret = "only here"
tls.client_keys = {{ desk = "{pin}" }}

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:0"
tls.client_keys = {{ desk = "{pin}" }}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("certificates"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return self_signed(tmp_path_factory.mktemp("desk"), "/CN=desk")


@pytest.fixture(scope="module")
def node(program: Program, desk: Owned) -> Daemon:
    return program.daemon(SERVICES.format(pin=desk.pin))


def pinned(node: Daemon, service: str) -> tuple[str, str]:
    return "--fingerprint", node.service(service)["notes"]["fingerprint"]


def test_jump_shows_the_certificate_that_it_is_given(program: Program, node: Daemon, desk: Owned) -> None:
    echo = EchoServer()
    secret = program.folder / "secret"
    secret.write_text("only here")
    secret.chmod(0o600)
    command = ["jump", echo.address, "--via", node.service("home")["address"], "--secret-file", str(secret)]
    command += pinned(node, "home")
    own = ("--certificate", str(desk.certificate), "--key", str(desk.key))
    assert program.run(*command, *own, stdin="through").ok() == "through"
    refused = program.run(*command)
    assert refused.code == 1
    assert is_one_line(refused.err)
    assert "the server wants a client certificate; give --certificate and --key" in refused.err
    echo.close()


def test_tcp_gives_up_when_its_certificate_is_not_taken(program: Program, node: Daemon, tmp_path: Path) -> None:
    other = self_signed(tmp_path, "/CN=desk")
    where = ("tcp", "22", "--server", node.service("edge")["address"], *pinned(node, "edge"))
    refused = program.run(*where, "--certificate", str(other.certificate), "--key", str(other.key))
    assert refused.code == 1
    assert is_one_line(refused.err)
    assert "does not take our client certificate" in refused.err
    assert "--certificate" in refused.err


def test_a_certificate_without_its_key_is_a_mistake(program: Program, desk: Owned) -> None:
    refused = program.run("tcp", "22", "--server", "127.0.0.1:1", "--certificate", str(desk.certificate))
    assert refused.code == 2
    assert "--certificate and --key go together" in refused.err
