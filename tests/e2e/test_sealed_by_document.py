"""Who knows docs/protocols.md and not our code is an end of a sealed channel, whichever end comes first."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from channel_by_document import EncryptedHandshake
from installed import Program
from ports import steady_port
from sealed_by_document import SealedExchange

pytestmark = pytest.mark.e2e

KEY = "nür wir beide"
HUB = '[service.hub]\nkind = "channel-server"\nlisten = "127.0.0.1:{port}"\nhandshake_password = "p"\n'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, int]]:
    program = Program(tmp_path_factory.mktemp("e"))
    port = steady_port()
    try:
        program.daemon(HUB.format(port=port))
        program.write("pair.key", KEY)
        program.write("hub.password", "p")
        yield program, port
    finally:
        program.close()


@pytest.mark.parametrize("first", ["command", "document"])
def test_an_end_by_the_document_and_the_command_are_a_pair(hub: tuple[Program, int], first: str) -> None:
    program, port = hub
    content = secrets.token_bytes(1 << 20)
    command = ["channel", "laptop", "--to", "desk", "--server", f"127.0.0.1:{port}"]
    command += ["--key-file", "pair.key", "--password-file", "hub.password"]
    laptop = program.start(*command, stdin=subprocess.PIPE) if first == "command" else None
    with EncryptedHandshake(port, "p", "desk", ["laptop"]) as desk:
        laptop = laptop or program.start(*command, stdin=subprocess.PIPE)
        exchange = SealedExchange(desk.socket, KEY)
        exchange.send(content)
        exchange.end()
        assert laptop.popen.stdin is not None
        with laptop.popen.stdin as stdin:
            stdin.write(b"hello, desk\n")
        assert exchange.read() == b"hello, desk\n"
        exchange.close()
        assert laptop.returns() == 0
    assert hashlib.sha256(laptop.stdout.read_bytes()).digest() == hashlib.sha256(content).digest()
