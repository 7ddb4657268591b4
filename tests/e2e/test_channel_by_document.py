"""Who knows docs/protocols.md and not our code joins an encrypted channel server, and whoever listens in does not."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from channel_by_document import TIMEOUT, EncryptedHandshake, RefusedByServer
from installed import Daemon, Program
from ports import steady_port

pytestmark = pytest.mark.e2e

PASSWORD = "nür wer dies weiß"  # in UTF-8, as the document says

HUB = """
[service.hub]
kind = "channel-server"
listen = "127.0.0.1:{port}"
handshake_password = "{password}"
"""


class Hub:
    """A channel server whose handshakes are encrypted."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.port = steady_port()
        self.daemon: Daemon = program.daemon(HUB.format(port=self.port, password=PASSWORD))

    def joins(self, chid: str, *receivers: str, password: str = PASSWORD) -> EncryptedHandshake:
        return EncryptedHandshake(self.port, password, chid, list(receivers))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    program = Program(tmp_path_factory.mktemp("e"))
    try:
        yield Hub(program)
    finally:
        program.close()


def test_two_clients_by_the_document_reach_each_other(hub: Hub) -> None:
    with hub.joins("two") as two, hub.joins("", "two") as nameless:
        assert nameless.chid
        nameless.socket.sendall(b"hello")
        assert two.socket.recv(99) == b"hello"
        two.socket.sendall(b"hello yourself")
        assert nameless.socket.recv(99) == b"hello yourself"


def test_a_client_by_the_document_and_the_command_reach_each_other(hub: Hub) -> None:
    password = str(hub.program.write("hub.password", PASSWORD))
    server = ["--server", f"127.0.0.1:{hub.port}", "--password-file", password]
    with hub.joins("desk", "laptop") as desk:
        laptop = hub.program.start("channel", "laptop", "--to", "desk", *server, stdin=subprocess.PIPE)
        assert laptop.popen.stdin is not None
        laptop.popen.stdin.write(b"from the command\n")
        laptop.popen.stdin.flush()
        assert desk.socket.recv(99) == b"from the command\n"
        desk.socket.sendall(b"from the document\n")
        laptop.says("from the document\n")


def test_a_wrong_password_is_told_in_the_clear_and_a_taken_chid_is_not(hub: Hub) -> None:
    with pytest.raises(RefusedByServer, match="wrong handshake password") as wrong:
        hub.joins("x", password="another")
    assert not wrong.value.sealed
    with pytest.raises(RefusedByServer, match="printable characters") as refused:
        hub.joins("a chid with blanks")
    assert refused.value.sealed


def test_what_an_eavesdropper_plays_again_does_not_open(hub: Hub) -> None:
    with hub.joins("victim") as client:
        assert b"victim" not in b"".join(client.said)
    for recorded in (client.said, client.said[:1]):
        with (
            socket.create_connection(("127.0.0.1", hub.port), TIMEOUT) as attacker,
            attacker.makefile("rb") as answers,
        ):
            answers.readline()
            attacker.sendall(b"".join(recorded))
            assert b"wrong handshake password" in answers.readline()
            assert answers.read() == b""
