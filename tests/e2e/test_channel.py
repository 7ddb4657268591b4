"""Two programs and a channel server, all of them installed: files both ways, curl, and ssh through it."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import Daemon, Process, Program
from origins import HELLO, WebOrigin, web_origin
from ports import steady_port
from sshd import TOOLS, Sshd
from waiting import until_true

pytestmark = pytest.mark.e2e

PASSWORD = "only those who may join know this"

MIB = 1024 * 1024

HUB = """
[service.hub]
kind = "channel-server"
listen = "127.0.0.1:{plain}"

[service.sealed]
kind = "channel-server"
listen = "127.0.0.1:{sealed}"
handshake_password = "{password}"
[service.sealed.tls]
"""

DESK = """
[service.web-{name}]
kind = "channel-client"
server = "127.0.0.1:{port}"
chid = "web"
receivers = ["browser"]
target = "{web}"
{more}

[service.ssh-{name}]
kind = "channel-client"
server = "127.0.0.1:{port}"
chid = "ssh"
receivers = ["me"]
target = "{ssh}"
{more}
"""

LAPTOP = """
[service.browser-{name}]
kind = "channel-client"
server = "127.0.0.1:{port}"
chid = "browser"
receivers = ["web"]
listen = "127.0.0.1:0"
{more}
"""


class Between:
    """A daemon with two channel servers, and the files that who uses them needs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ports = {"plain": steady_port(), "sealed": steady_port()}
        self.hub: Daemon = program.daemon(HUB.format(password=PASSWORD, **self.ports))
        self.fingerprint: str = self.hub.service("sealed")["notes"]["fingerprint"]
        self.key = str(program.write("pair.key", secrets.token_urlsafe()))
        self.password = str(program.write("hub.password", PASSWORD))

    def options(self, way: str) -> list[str]:
        """What the command needs: ``plain``, with a ``key``, or ``sealed`` in every way there is."""
        if way == "sealed":
            secure = ["--fingerprint", self.fingerprint, "--password-file", self.password]
            return ["--server", f"127.0.0.1:{self.ports['sealed']}", "--key-file", self.key, *secure]
        server = ["--server", f"127.0.0.1:{self.ports['plain']}"]
        return [*server, "--key-file", self.key] if way == "key" else server

    def settings(self, way: str) -> dict[str, object]:
        """The same for a service."""
        if way == "sealed":
            tls = f'tls = {{ fingerprint = "{self.fingerprint}" }}'
            more = f'key_file = "{self.key}"\nhandshake_password_file = "{self.password}"\n{tls}'
            return {"name": way, "port": self.ports["sealed"], "more": more}
        more = f'key_file = "{self.key}"' if way == "key" else ""
        return {"name": way, "port": self.ports["plain"], "more": more}

    def start(self, way: str, chid: str, other: str) -> Process:
        """A program at one end, which has been let in."""
        process = self.program.start("channel", chid, "--to", other, *self.options(way), stdin=subprocess.PIPE)
        service = "sealed" if way == "sealed" else "hub"
        label = f"{chid} -> {other}"
        until_true(lambda: any(row["label"] == label for row in self.hub.json("channels", "--service", service)))
        return process


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    program = Program(tmp_path_factory.mktemp("e"))
    try:
        yield Between(program)
    finally:
        program.close()


@pytest.fixture(params=["plain", "key", "sealed"])
def way(request: pytest.FixtureRequest) -> str:
    """In the clear, sealed end to end, or that and TLS and an encrypted handshake."""
    return str(request.param)


@pytest.fixture(scope="module")
def content() -> bytes:
    """Bytes that no compression makes fewer, more than every buffer on the way holds."""
    return secrets.token_bytes(MIB) * 20 + b"the end"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for large files, gone with the test: pytest would keep them for three runs."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def feed(process: Process, data: bytes) -> None:
    """Writes to its standard input, and closes it."""
    assert process.popen.stdin is not None
    with process.popen.stdin as stdin:
        stdin.write(data)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_go_both_ways_at_once_and_arrive_intact(between: Between, way: str, content: bytes) -> None:
    here, there = between.start(way, "here", "there"), between.start(way, "there", "here")
    files = [content, content[::-1]]
    feeding = [threading.Thread(target=feed, args=each) for each in zip((here, there), files, strict=True)]
    for thread in feeding:
        thread.start()
    for thread in feeding:
        thread.join()
    assert (here.returns(), there.returns()) == (0, 0), here.said + there.said
    received = [digest(process.stdout) for process in (there, here)]
    assert received == [hashlib.sha256(file).hexdigest() for file in files]
    assert (here.err, there.err) == ("", "")


def test_with_a_key_a_file_goes_to_somebody_who_comes_later(between: Between, content: bytes) -> None:
    sender = between.program.start("channel", "early", *between.options("key"), stdin=subprocess.PIPE)
    feeding = threading.Thread(target=feed, args=(sender, content))
    feeding.start()
    until_true(lambda: any(row["label"] == "early -> all" for row in between.hub.json("channels")))
    receiver = between.program.start("channel", "late", *between.options("key"))
    feeding.join()
    assert (sender.returns(), receiver.returns()) == (0, 0), sender.said + receiver.said
    assert digest(receiver.stdout) == hashlib.sha256(content).hexdigest()


class Bridged:
    """Daemons at both ends, with a web server and an SSH server behind one of them, in each way."""

    def __init__(self, between: Between, web: WebOrigin) -> None:
        self.program = between.program
        self.web = web
        self.sshd = Sshd(self.program, steady_port())
        served = {"web": web.address, "ssh": self.sshd.address}
        ways = [between.settings(way) for way in ("plain", "sealed")]
        ways[0]["more"] = 'dial = "on-data"'
        self.desk: Daemon = self.program.daemon("".join(DESK.format(**served, **settings) for settings in ways))
        self.laptop: Daemon = self.program.daemon(
            "".join(
                LAPTOP.format(**settings | ({"more": ""} if settings["name"] == "plain" else {})) for settings in ways
            )
        )


@pytest.fixture(scope="module")
def bridged(between: Between, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridged]:
    with web_origin(tmp_path_factory.mktemp("o")) as web:
        yield Bridged(between, web)


@pytest.mark.system("curl", *TOOLS)
@pytest.mark.parametrize("bridge", ["plain", "sealed"])
def test_pages_come_through_the_services_one_after_the_other(bridged: Bridged, bridge: str) -> None:
    url = f"http://{bridged.laptop.address(f'browser-{bridge}')}"
    curl = ["curl", "--silent", "--show-error", "--max-time", "15"]
    for _ in range(3):
        assert bridged.program.run_other([*curl, f"{url}/hello"]).ok() == HELLO
    with tempfile.TemporaryDirectory() as folder:
        bridged.program.run_other([*curl, "--output", f"{folder}/big", f"{url}/big"]).ok()
        assert digest(Path(folder, "big")) == bridged.web.digest


@pytest.mark.system(*TOOLS)
@pytest.mark.parametrize("bridge", ["plain", "sealed"])
def test_ssh_and_scp_go_through_it_with_a_proxy_command(
    between: Between, bridged: Bridged, bridge: str, content: bytes, scratch: Path
) -> None:
    program, sshd = bridged.program, bridged.sshd
    command = " ".join([program.path, "channel", "me", "--to", "ssh", *between.options(bridge)])
    proxy = ["-o", f"ProxyCommand={command}"]
    for _ in range(2):
        assert program.run_bytes(sshd.command("ssh", *proxy, "desk", "echo", "through")) == b"through\n"
    assert program.run_other(sshd.command("ssh", *proxy, "desk", "exit", "7")).code == 7
    received = program.run_bytes(sshd.command("ssh", *proxy, "desk", "sha256sum"), stdin=content)
    assert received.split()[0].decode() == hashlib.sha256(content).hexdigest()
    sent, kept = scratch / "sent", scratch / "kept"
    sent.write_bytes(content)
    program.run_bytes(sshd.command("scp", "-q", *proxy, str(sent), f"desk:{kept}"))
    assert digest(kept) == digest(sent)
