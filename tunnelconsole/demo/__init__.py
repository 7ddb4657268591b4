"""The demonstration: servers and clients of every system on loopback, with real traffic through them.

Two processes besides the console's: the engine, an ordinary daemon (:mod:`tunnelconsole.demo.engine`), and the visitors
(:mod:`tunnelconsole.demo.visitors`). Everything lives in a throw-away folder. All of it ends with the process that
started it, however that ends: its children hold one end of a pipe whose other end only it has, and the system closes
that for it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tunnelconsole.background import BackgroundEngine
from tunnelconsole.demo.over_ssh import make_keys

LOOPBACK = "127.0.0.1"

END_TIMEOUT = 5.0
"""Seconds that a child may take to end once it has been told; then it is killed."""

SERVERS = ("jump", "jump_tls", "edge", "hub", "web", "meet")
"""The servers that clients of the same configuration connect to, so that their ports must be known beforehand."""

ORIGINS = ("pages", "desk", "shell", "shop")
"""What the visitors visit, by name: short answers, a long stream, one that answers line by line, and a web service."""

CONFIG = """\
version = 1

[engine]
state_dir = "{folder}"
control = "{folder}/control.sock"
log_level = "info"
drain = "0s"

# jump: out through a host that has the better route

[service.jump]
kind = "jump-server"
listen = "{jump}"
allow = ["{pages}", "{desk}", "{shell}"]
[service.jump.secrets]
alice = "{alice}"
bob = "{bob}"

[service.socks]
kind = "jump-client"
server = "{jump}"
secret = "{alice}"
listen = "127.0.0.1:0"

[service.shell]
kind = "jump-client"
server = "{jump}"
secret = "{bob}"
listen = "127.0.0.1:0"
target = "{shell}"

# the same inside TLS, with the certificate pinned

[service.jump-tls]
kind = "jump-server"
listen = "{jump_tls}"
secret = "{carol}"
allow = ["{desk}"]
[service.jump-tls.tls]
certificate = "{folder}/jump-tls.crt"
key = "{folder}/jump-tls.key"

[service.desk-tls]
kind = "jump-client"
server = "{jump_tls}"
secret = "{carol}"
listen = "127.0.0.1:0"
target = "{desk}"
[service.desk-tls.tls]
fingerprint = "{fingerprint}"

# relay: a public port for a service behind NAT

[service.edge]
kind = "relay-server"
listen = "{edge}"
ports = "0"
public_host = "127.0.0.1"

[service.edge-pages]
kind = "relay-client"
server = "{edge}"
target = "{pages}"

[service.edge-desk]
kind = "relay-client"
server = "{edge}"
target = "{desk}"
native = false               # as the original program speaks it: all visitors in one yamux session

# channel: a stream between programs that find each other by name; the visitors join it by themselves, too

[service.hub]
kind = "channel-server"
listen = "{hub}"

[service.hub-desk]
kind = "channel-client"
server = "{hub}"
chid = "desk"
receivers = ["laptop"]
target = "{desk}"
key = "{dave}"               # the hub sees ciphertext only

[service.hub-laptop]
kind = "channel-client"
server = "{hub}"
chid = "laptop"
receivers = ["desk"]
listen = "127.0.0.1:0"
key = "{dave}"

# tunnel: a public hostname for a web service behind NAT; browsers know that names below localhost are this machine

[service.web]
kind = "tunnel-server"
listen = "{web}"
[service.web.tokens]
erin = "{erin}"

[service.web-shop]
kind = "tunnel-client"
server = "http://shop.localhost:{web_port}"
connect = "{web}"
token = "{erin}"
target = "{shop}"

# punch: two ends that meet in a room; the relay joins them at once, and a direct connection as soon as there is one

[service.meet]
kind = "punch-server"
listen = "{meet}"
observe_ports = "0"

[service.room-desk]
kind = "punch-client"
server = "{meet}"
room = "desk"
secret = "{frank}"
target = "{desk}"

[service.room-hall]
kind = "punch-client"
server = "{meet}"
room = "desk"
secret = "{frank}"
listen = "127.0.0.1:0"

[service.attic-shell]
kind = "punch-client"
server = "{meet}"
room = "attic"
secret = "{grace}"
target = "{shell}"
direct = false               # as where no punch succeeds

[service.attic]
kind = "punch-client"
server = "{meet}"
room = "attic"
secret = "{grace}"
listen = "127.0.0.1:0"
direct = false

# ssh: the console from anywhere, and tunnels with the client that everyone has

[service.ssh]
kind = "ssh-server"
listen = "127.0.0.1:0"
authorized_keys = "{folder}/operators"
forward = true
tunnel = "web"
jump = "jump"
"""


@contextmanager
def running(meanwhile: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Runs the demonstration inside the block, and gives the engine's control socket.

    :param meanwhile: called while the engine starts, for what takes its time too.
    :raises StartFailed: the engine does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="tunnelconsole-demo-"))
    try:
        with ExitStack() as stack:
            leash = stack.enter_context(_Leash())
            servers = {name: stack.enter_context(_reserved_port()) for name in SERVERS}
            origins = {name: stack.enter_context(_reserved_port()) for name in ORIGINS}
            _write_config(folder, servers | origins)
            if sys.platform != "linux":  # elsewhere nobody can listen where another socket is bound
                for server in servers.values():
                    server.close()
            for origin in origins.values():
                origin.listen()
            engine = leash.start_engine(folder)
            meanwhile()
            engine.wait_until_ready()
            leash.start_visitors(folder, origins)
            yield folder / "control.sock"
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what the engine has left, or all where it was killed


def _reserved_port() -> socket.socket:
    """A socket bound to a free port, so that the port is given to nobody else while it is named in a configuration.

    With SO_REUSEADDR on both, Linux lets a server of ours listen there all the same, as long as this one does not.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, 0))
    return sock


def _write_config(folder: Path, ports: dict[str, socket.socket]) -> None:
    from tunnelconsole.engine.transport import certificates  # noqa: PLC0415 - slow to load, and the engine need not

    certificate = folder / "jump-tls.crt"
    certificates.make_self_signed(certificate, folder / "jump-tls.key", "jump-tls")
    make_keys(folder)
    config = folder / "config.toml"
    config.touch(mode=0o600)
    config.write_text(
        CONFIG.format(
            folder=folder,
            fingerprint=certificates.certificate_fingerprint(certificate),
            **{name: f"{LOOPBACK}:{sock.getsockname()[1]}" for name, sock in ports.items()},
            web_port=ports["web"].getsockname()[1],
            **{name: secrets.token_urlsafe() for name in ("alice", "bob", "carol", "dave", "erin", "frank", "grace")},
        )
    )


class _Leash:
    """The pipe that ends the children with us, and the children."""

    def __enter__(self) -> Self:
        self._theirs, self._ours = os.pipe()  # neither is inherited unless it is given as a standard input
        self._children: list[subprocess.Popen[bytes]] = []
        return self

    def start_engine(self, folder: Path) -> BackgroundEngine:
        """Starts the engine."""
        command = [sys.executable, "-P", "-m", "tunnelconsole.demo.engine", str(folder)]
        engine = BackgroundEngine(command, folder / "engine.log", stdin=self._theirs)
        self._children.append(engine.process)
        return engine

    def start_visitors(self, folder: Path, origins: dict[str, socket.socket]) -> None:
        """Starts the visitors, and leaves the origins' sockets to them."""
        numbers = {name: origin.fileno() for name, origin in origins.items()}
        named = [f"{name}={number}" for name, number in numbers.items()]
        with (folder / "visitors.log").open("wb") as log:
            visitors = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", "tunnelconsole.demo.visitors", str(folder / "control.sock"), *named],
                stdin=self._theirs,
                stdout=log,
                stderr=log,
                pass_fds=list(numbers.values()),
                start_new_session=True,
            )
        self._children.append(visitors)
        for origin in origins.values():
            origin.close()

    def __exit__(self, *error: object) -> None:
        os.close(self._ours)
        os.close(self._theirs)
        for child in self._children:
            try:
                child.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
