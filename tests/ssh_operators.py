"""Operators who come to an engine with OpenSSH's programs: their keys, and how these programs find the engine."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import system_tools
from installed import Done, Program
from ports import steady_port

CONFIG = """\
Host host
    HostName 127.0.0.1
    Port {port}
    User ops
    UserKnownHostsFile {folder}/known_hosts
    {more}

Host *
    IdentitiesOnly yes
    GlobalKnownHostsFile none
    StrictHostKeyChecking accept-new
    BatchMode yes
    ConnectTimeout 10
    LogLevel {level}
    SendEnv COLORTERM
"""


class Operators:
    """Their keys, and a configuration in which the engine is named ``host``.

    :param program: in whose folder all of it is.
    :param names: of the operators, and of the files with their keys.
    :param more: a line about the engine.
    :param level: how much ssh tells (``LogLevel``).
    """

    def __init__(self, program: Program, *names: str, more: str = "", level: str = "ERROR") -> None:
        self.program = program
        self.folder = program.folder
        self.port = steady_port()
        """Where the engine is to listen for them."""
        for name in names:
            keygen = [system_tools.path_of("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", name]
            subprocess.run([*keygen, "-f", str(self.folder / name)], check=True)
        self.ssh_config = self.folder / "ssh_config"
        self.ssh_config.write_text(CONFIG.format(port=self.port, folder=self.folder, more=more, level=level))

    def line(self, name: str) -> str:
        """The line that lets an operator in."""
        return (self.folder / f"{name}.pub").read_text()

    def let_in(self, folder: Path, lines: str) -> None:
        """Writes the file ``operators``, which the engine's settings name, beside these."""
        operators = folder / "operators"
        operators.write_text(lines)
        operators.chmod(0o600)

    def command(self, tool: str, who: str, *arguments: str) -> list[str]:
        """A command line for ssh and its like."""
        options = ["-F", str(self.ssh_config), "-i", str(self.folder / who)]
        return [system_tools.path_of(tool), *options, *arguments]

    def run(
        self, who: str, *arguments: str, tool: str = "ssh", stdin: str = "", env: Mapping[str, str] | None = None
    ) -> Done:
        """Runs it to its end."""
        return self.program.run_other(self.command(tool, who, *arguments), stdin=stdin, env=env)
