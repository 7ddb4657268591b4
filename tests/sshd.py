"""A real OpenSSH server on loopback, with keys that are thrown away."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

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
    """

    def __init__(self, program: Program, port: int) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        folder = program.folder / "sshd"
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            keygen = [system_tools.path_of("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True)
        (folder / "known_hosts").write_text(f"throw-away {(folder / 'host.pub').read_text()}")
        (folder / "sshd_config").write_text(SERVER.format(folder=folder, port=port))
        self.client_config = folder / "ssh_config"
        self.client_config.write_text(CLIENT.format(folder=folder, user=getpass.getuser()))
        if os.getuid() == 0:
            SEPARATION.mkdir(exist_ok=True)
        self._process: Process = program.start_other(
            [system_tools.path_of("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
        )
        until_true(lambda: "Server listening" in self._process.err or not self._process.running)
        assert self._process.running, self._process.said

    def command(self, tool: str, *arguments: str) -> list[str]:
        """A command line for ssh or scp."""
        return [system_tools.path_of(tool), "-F", str(self.client_config), *arguments]
