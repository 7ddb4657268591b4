"""OpenSSH's own client, as everybody has it: its defaults, but for what tells it where the keys of this run are."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, Program, running
from bench.route import ADMIN_PATH

KEYGEN_TIME = 30.0
"""Seconds ssh-keygen may take."""

NEEDS = ("ssh", "ssh-keygen")
"""The programs without which nothing is measured over SSH."""


def program(name: str) -> str:
    """Where a program is.

    :raises BenchError: it is not installed.
    """
    path = shutil.which(name, path=ADMIN_PATH)
    if path is None:
        raise BenchError(f"{name} is not installed")
    return path


@dataclass(frozen=True)
class Keys:
    """Two keys that are made for a run and go with it: the server's and the user's, who may come in."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Keys:
        """Makes them, in a folder of their own."""
        home = folder / f"ssh-{secrets.token_hex(4)}"
        home.mkdir(mode=0o700)
        for key in ("host", "user"):
            command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(home / key)]
            subprocess.run(command, check=True, timeout=KEYGEN_TIME, capture_output=True)
        keys = cls(home)
        keys.authorized.write_text((home / "user.pub").read_text())
        keys.authorized.chmod(0o600)
        return keys

    @property
    def host(self) -> Path:
        """The server's key."""
        return self.folder / "host"

    @property
    def authorized(self) -> Path:
        """The file of those who may come in."""
        return self.folder / "authorized_keys"

    def client(self, port: int, *arguments: str) -> list[str]:
        """The client's command line to a server on a port of loopback; ciphers and all else are its defaults."""
        known = self.folder / f"known_hosts-{port}"
        known.write_text(f"[127.0.0.1]:{port} {(self.folder / 'host.pub').read_text()}")
        options = (
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={known}",
            "GlobalKnownHostsFile=none",
            "ExitOnForwardFailure=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        )
        return [
            *(program("ssh"), "-F", "none", "-i", str(self.folder / "user"), "-p", str(port)),
            *(word for option in options for word in ("-o", option)),
            *arguments,
            "127.0.0.1",
        ]


def remote_forward(stack: ExitStack, keys: Keys, server: int, public: int, target: int) -> Program:
    """``ssh -R``: ``public`` at the server leads to ``target`` here. The same for whichever server."""
    forward = f"127.0.0.1:{public}:127.0.0.1:{target}"
    return stack.enter_context(running(keys.client(server, "-N", "-R", forward), keys.folder))
