"""A real ssh and a real sshd, with a punched connection between them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator

import pytest

from installed import Daemon, Program
from ports import steady_port, steady_ports
from sshd import TOOLS, Sshd

pytestmark = [pytest.mark.e2e, pytest.mark.system(*TOOLS)]

SECRET = "only the two of us know"

MEET = """
[service.meet]
kind = "punch-server"
listen = "127.0.0.1:{port}"
"""

HOME = """
[service.home]
kind = "punch-client"
server = "127.0.0.1:{port}"
room = "desk"
secret = "{secret}"
target = "{target}"
"""


class Host:
    """An SSH server behind NAT, the punch client beside it, and the rendezvous."""

    def __init__(self, program: Program) -> None:
        self.program = program
        port = steady_ports(3)
        self.meet = f"127.0.0.1:{port}"
        self.sshd = Sshd(program, steady_port())
        self.server: Daemon = program.daemon(MEET.format(port=port))
        self.home: Daemon = program.daemon(HOME.format(port=port, secret=SECRET, target=self.sshd.address))

    def ssh(self, *arguments: str, options: str = "", stdin: bytes = b"") -> bytes:
        """What ssh prints, once it has done what it should."""
        proxy = f"ProxyCommand={self.program.path} punch desk --server {self.meet} {options}"
        return self.program.run_bytes(
            self.sshd.command("ssh", "-o", proxy, "127.0.0.1", *arguments),
            stdin=stdin,
            env={"TUNNELCONSOLE_SECRET": SECRET},
        )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    program = Program(tmp_path_factory.mktemp("e"))
    try:
        yield Host(program)
    finally:
        program.close()


@pytest.mark.parametrize("options", ["", "--relay-only"], ids=["direct", "relay"])
def test_one_command_after_the_other_runs_through_the_room(host: Host, options: str) -> None:
    for word in ("through", "and", "again"):
        assert host.ssh("echo", word, options=options) == f"{word}\n".encode()


@pytest.mark.parametrize("options", ["", "--relay-only"], ids=["direct", "relay"])
def test_twenty_megabytes_go_in_intact_while_the_path_changes(host: Host, options: str) -> None:
    content = secrets.token_bytes(1024 * 1024) * 20 + b"the end"
    digest = host.ssh("sha256sum", options=options, stdin=content)
    assert digest.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_twenty_megabytes_come_out_intact(host: Host) -> None:
    content = host.ssh("head -c 20000000 /dev/zero | tr '\\0' x; echo the end")
    assert content == b"x" * 20_000_000 + b"the end\n"
