"""The keys of SSH hosts that are known, as OpenSSH keeps them; and what to say of one that is not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from tunnelconsole.engine.services.ssh.algorithms import HOST_KEYS
from tunnelconsole.engine.services.ssh.public_keys import damage_told
from tunnelconsole.engine.settings import SSHHost
from tunnelconsole.engine.wire.ssh_url import DEFAULT_PORT
from tunnelconsole.errors import ConnectFailed, HostKeyRejected

OWN = Path("~/.ssh/known_hosts")
"""Where OpenSSH writes down what a user has come to know."""

SYSTEMS = Path("/etc/ssh/ssh_known_hosts")
"""What all users of this machine know."""

LARGEST = 16 * 1024 * 1024
"""Bytes read of a file at the most: some hundred thousand hosts."""

Match = Sequence[Any]
"""What asyncssh finds: keys of the host, of authorities, and revoked ones; and four more that are about X.509."""

_CERTIFICATE = "-cert-v01@openssh.com"

_STAND_IN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGEdrhmrVOMiDNFtF9TT5J2ZUFhzYn10HHS55FDYdO1b"
"""A key in place of one that cannot be read, to see of which host it is said to be."""


class KnownHosts:
    """What is known of one SSH host. A file that is missing knows nothing.

    :param host: the SSH host.
    :param given: the file, where the settings name one.
    :raises ConnectFailed: a file cannot be read.
    """

    def __init__(self, host: SSHHost, given: Path | None) -> None:
        self._host = host
        self._file = given or OWN.expanduser()
        self._damaged = ""
        """The last line that is about the host and cannot be read; "" where there is none."""
        found = asyncssh.SSHKnownHosts()
        for file in (given,) if given is not None else (self._file, SYSTEMS):
            self._load(found, file)
        # By its name alone: an address that is known as another host's proves nothing of this one.
        exact = found.match(self._name, "", None)
        self._keys: list[asyncssh.SSHKey] = list(exact[0])
        self.match: Match = exact
        """For this host and port; or, as OpenSSH does it, for the host with any port where that has none."""
        if host.port != DEFAULT_PORT and not (exact[0] or exact[1]):
            loose = found.match(host.host, "", None)
            self.match = (*loose[:2], [*exact[2], *loose[2]], *loose[3:])

    @property
    def _name(self) -> str:
        """The host as it is called in these files."""
        return self._host.host if self._host.port == DEFAULT_PORT else f"[{self._host.host}]:{self._host.port}"

    @property
    def algorithms(self) -> list[str]:
        """Kinds of keys to ask the host for, those first of which one is known: so an honest host shows that one."""
        known = {algorithm.decode() for key in self.match[0] for algorithm in key.sig_algorithms}
        plain = sorted(HOST_KEYS, key=lambda algorithm: algorithm not in known)
        return [*(f"{algorithm}{_CERTIFICATE}" for algorithm in HOST_KEYS if self.match[1]), *plain]

    def rejection(self, key: asyncssh.SSHKey) -> HostKeyRejected:
        """Why a key that the host has shown is not taken for its own."""
        shown = f"{key.get_fingerprint()} ({key.get_algorithm()})"
        file = shlex.quote(str(self._file))
        if self._keys:
            known = ", ".join(sorted({known.get_fingerprint() for known in self._keys}))
            return HostKeyRejected(
                f"the SSH host {self._host.address} has shown another key than the known one: {shown}, not {known}",
                "somebody may be in between; if the host was given a new key on purpose, forget the old one with: "
                f"ssh-keygen -R {shlex.quote(self._name)} -f {file}",
            )
        if self._damaged:
            return HostKeyRejected(
                f"the SSH host {self._host.address} is not known: it has shown the key {shown}, and the known one "
                f"cannot be read ({self._damaged})",
                "compare the key with the host's own, and write it in place of the damaged one",
            )
        port = f"-p {self._host.port} " if self._host.port != DEFAULT_PORT else ""
        scan = f"ssh-keyscan {port}{shlex.quote(self._host.host)} >> {file}"
        once = "; or connect to it with ssh once" if self._file == OWN.expanduser() else ""
        return HostKeyRejected(
            f"the SSH host {self._host.address} is not known: it has shown the key {shown}, and {self._file} has none",
            f"compare that with the host's own, then run: {scan}{once}",
        )

    def _load(self, into: asyncssh.SSHKnownHosts, file: Path) -> None:
        """Reads a file. What cannot be read in it is left out, as OpenSSH does it."""
        for number, line in _lines(file):
            try:
                with damage_told():
                    into.load(line)
            except ValueError:
                if self._is_about_it(line):
                    self._damaged = f"line {number} of {file}"

    def _is_about_it(self, line: str) -> bool:
        """Whether a line that cannot be read begins with the name of the host."""
        before = line.split(None, 2 if line.startswith("@") else 1)[:-1]
        sample = asyncssh.SSHKnownHosts()
        try:
            sample.load(" ".join([*before, _STAND_IN]))
        except ValueError:
            return False
        return any(any(sample.match(name, "", None)) for name in (self._name, self._host.host))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers; none where it is missing.

    :raises ConnectFailed: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(LARGEST).decode("utf-8", "replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConnectFailed(f"the known hosts in {file} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if stripped := line.strip():
            yield number, stripped
