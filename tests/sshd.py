"""A real OpenSSH server on loopback, with keys that are thrown away."""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

import system_tools
from installed import Process, Program
from waiting import until_true

TOOLS = ("ssh", "sshd", "ssh-keygen", "scp")
"""What a test needs that uses this."""

SEPARATION = Path("/run/sshd")
"""Where sshd, run as root, locks up those who have not logged in; Debian's package leaves the folder to systemd."""

SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""

CLIENT = """\
Host *
    User {user}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile none
    HostKeyAlias throw-away
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 10
    LogLevel ERROR
"""


class Sshd:
    """An SSH server, and the configuration with which ssh and scp reach it and trust it.

    :param program: in whose folder its keys are, and which ends it.
    :param settings: more lines of its configuration.
    """

    def __init__(self, program: Program, port: int, settings: str = "") -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        folder = self.folder = Path(tempfile.mkdtemp(prefix="sshd", dir=program.folder))
        self._program = program
        for name in ("host", "user"):
            keygen = [system_tools.path_of("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True)
        self.identity, self.known_hosts = folder / "user", folder / "known_hosts"
        key = (folder / "host.pub").read_text()
        self.known_hosts.write_text(f"throw-away {key}[127.0.0.1]:{port} {key}")
        (folder / "sshd_config").write_text(SERVER.format(folder=folder, port=port) + settings)
        self.client_config = folder / "ssh_config"
        self.client_config.write_text(CLIENT.format(folder=folder, user=getpass.getuser()))
        if os.getuid() == 0:
            SEPARATION.mkdir(exist_ok=True)
        self._process: Process
        self.start()

    @property
    def fingerprint(self) -> str:
        """Of its key, as people compare it."""
        blob = base64.b64decode((self.folder / "host.pub").read_text().split()[1])
        return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        command = [system_tools.path_of("sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self._process = self._program.start_other(command)
        until_true(lambda: "Server listening" in self._process.err or not self._process.running)
        assert self._process.running, self._process.said

    @property
    def pid(self) -> int:
        """The process that listens."""
        return self._process.popen.pid

    @property
    def connections(self) -> list[psutil.Process]:
        """A process for each connection, or two."""
        return psutil.Process(self.pid).children(recursive=True)

    def is_killed(self) -> None:
        """Ends it and every connection of it, as a power cut does."""
        connections = self.connections
        self._process.end()
        for process in connections:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(connections)

    def connections_are_killed(self) -> None:
        """Ends every connection of it, and lets it listen on."""
        connections = self.connections
        for process in connections:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(connections)

    def command(self, tool: str, *arguments: str) -> list[str]:
        """A command line for ssh or scp."""
        return [system_tools.path_of(tool), "-F", str(self.client_config), *arguments]
