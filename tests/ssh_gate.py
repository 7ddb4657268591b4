"""A real sshd as the SSH host on the way, and what a client says to be led through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from installed import Program
from ports import steady_port
from sshd import Sshd
from tunnelconsole.engine.settings import FilePath, HostPort, ServerAddress, SSHSettings


class Gate:
    """An SSH host.

    :param program: in whose folder its keys are, and which ends it.
    :param settings: more lines of its sshd's configuration.
    """

    def __init__(self, program: Program, settings: str = "") -> None:
        self.sshd = Sshd(program, steady_port(), settings)
        self.url = f"ssh://{self.sshd.address}"

    def to(self, server: str | HostPort) -> ServerAddress:
        """A server, as it is reached through here."""
        return ServerAddress.parse(f"{self.url}/{server}")

    def settings(self, identity: Path | None = None, known_hosts: Path | None = None) -> SSHSettings:
        """With what a client is let in, unless something else is given."""
        return SSHSettings(
            identity=FilePath(identity or self.sshd.identity),
            known_hosts=FilePath(known_hosts or self.sshd.known_hosts),
        )

    @property
    def table(self) -> str:
        """The same as a table of a configuration, behind its name."""
        return f'identity = "{self.sshd.identity}"\nknown_hosts = "{self.sshd.known_hosts}"\n'


@contextmanager
def gate_in(folder: Path, settings: str = "") -> Iterator[Gate]:
    """A gate with a folder of its own."""
    program = Program(folder)
    try:
        yield Gate(program, settings)
    finally:
        program.close()
