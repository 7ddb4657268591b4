"""A real ssh and a real sshd, with a relay or a jump between them."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import Daemon, Program
from ports import split, steady_port
from sshd import TOOLS, Sshd

pytestmark = [pytest.mark.e2e, pytest.mark.system(*TOOLS)]

SECRET = "only alice knows this"

MIB = 1024 * 1024

EDGE = """
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
"""

BACKEND = """
[service.native]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"

[service.yamux]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"
native = false
"""


class Host:
    """An SSH server behind NAT, its relay client, and the relay and jump servers that others can reach."""

    def __init__(self, program: Program) -> None:
        self.program = program
        ports = {"edge": steady_port(), "home": steady_port()}
        self.sshd = Sshd(program, steady_port())
        self.servers: Daemon = program.daemon(EDGE.format(secret=SECRET, **ports))
        self.backend: Daemon = program.daemon(BACKEND.format(target=self.sshd.address, **ports))
        self.jump_server = f"127.0.0.1:{ports['home']}"

    def port(self, path: str) -> str:
        """The public port of the SSH server, by how its bytes travel."""
        host, port = split(self.backend.address(path))
        assert host == "127.0.0.1"
        return str(port)

    def proxy_command(self) -> tuple[str, str]:
        """An option for ssh, which goes through the jump server then."""
        return "-o", f"ProxyCommand={self.program.path} jump %h:%p --via {self.jump_server} --log-level error"

    def run(self, tool: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """What ssh or scp prints, once it has done what it should."""
        return self.program.run_bytes(
            self.sshd.command(tool, *arguments), stdin=stdin, env={"TUNNELCONSOLE_SECRET": SECRET}
        )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    program = Program(tmp_path_factory.mktemp("e"))
    try:
        yield Host(program)
    finally:
        program.close()


@pytest.fixture(params=["native", "yamux"])
def path(request: pytest.FixtureRequest) -> str:
    """How bytes travel between relay server and client: over data connections, or inside yamux as the original's."""
    return str(request.param)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for large files, gone with the test: pytest would keep them for three runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def content() -> bytes:
    """Bytes that no compression makes fewer, more than every window and buffer on the way holds."""
    return secrets.token_bytes(MIB) * 20 + b"the end"


def test_a_command_runs_through_the_relay(host: Host, path: str) -> None:
    assert host.run("ssh", "-p", host.port(path), "127.0.0.1", "echo", "through") == b"through\n"


def test_a_command_that_fails_gives_its_exit_code(host: Host, path: str) -> None:
    done = host.program.run_other(host.sshd.command("ssh", "-p", host.port(path), "127.0.0.1", "exit", "7"))
    assert done.code == 7


def test_twenty_megabytes_go_in_intact(host: Host, path: str, content: bytes) -> None:
    digest = host.run("ssh", "-p", host.port(path), "127.0.0.1", "sha256sum", stdin=content)
    assert digest.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_twenty_megabytes_come_out_intact(host: Host, path: str, content: bytes, scratch: Path) -> None:
    (scratch / "content").write_bytes(content)
    received = host.run("ssh", "-p", host.port(path), "127.0.0.1", "cat", str(scratch / "content"))
    assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()


def test_channels_tell_how_their_bytes_travel(host: Host, path: str) -> None:
    command = host.sshd.command("ssh", "-p", host.port(path), "127.0.0.1", "echo on; exec cat")
    ssh = host.program.start_other(command, stdin=subprocess.PIPE)
    ssh.says("on")
    (channel,) = host.backend.json("channels", "--service", path)
    assert channel["path"] == {"native": "splice", "yamux": "yamux"}[path]


def test_ssh_goes_through_the_jump_server_with_a_proxy_command(host: Host) -> None:
    port = str(host.sshd.port)
    assert host.run("ssh", *host.proxy_command(), "-p", port, "127.0.0.1", "echo", "through") == b"through\n"


def test_scp_goes_through_the_jump_server_both_ways(host: Host, content: bytes, scratch: Path) -> None:
    sent, kept, returned = scratch / "sent", scratch / "kept", scratch / "returned"
    sent.write_bytes(content)
    options = ["-q", *host.proxy_command(), "-P", str(host.sshd.port)]
    host.run("scp", *options, str(sent), f"127.0.0.1:{kept}")
    host.run("scp", *options, f"127.0.0.1:{kept}", str(returned))
    assert kept.read_bytes() == content
    assert returned.read_bytes() == content


def test_scp_goes_through_the_relay_both_ways(host: Host, path: str, content: bytes, scratch: Path) -> None:
    sent, kept, returned = scratch / "sent", scratch / "kept", scratch / "returned"
    sent.write_bytes(content)
    host.run("scp", "-q", "-P", host.port(path), str(sent), f"127.0.0.1:{kept}")
    host.run("scp", "-q", "-P", host.port(path), f"127.0.0.1:{kept}", str(returned))
    assert kept.read_bytes() == content
    assert returned.read_bytes() == content


def test_ssh_is_told_why_the_jump_server_refused_it(host: Host) -> None:
    command = host.sshd.command("ssh", *host.proxy_command(), "-p", "22", "127.0.0.1", "true")
    done = host.program.run_other(command, env={"TUNNELCONSOLE_SECRET": "wrong"})
    assert done.code == 255
    assert "challenge failed, check secret" in done.err
