"""An SSH server of ours on loopback with its control socket, two keys that may come in, and asyncssh as the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncssh

from controlled import controlled
from loopback import FREE
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Event
from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.services.ssh.server import SSHServer, SSHServerSettings
from tunnelconsole.engine.settings import FilePath, HostPort

NO_OTHERS: Mapping[str, ServiceSettings] = MappingProxyType({})


def new_key(comment: str) -> asyncssh.SSHKey:
    """A key that is thrown away."""
    return asyncssh.generate_private_key("ssh-ed25519", comment)


def line_of(key: asyncssh.SSHKey) -> str:
    """Its line in a file of keys."""
    return key.export_public_key().decode()


class SSHDesk:
    """A running SSH server."""

    def __init__(self, folder: Path, others: Mapping[str, ServiceSettings], **settings: Any) -> None:
        self.alice, self.viola = new_key("alice"), new_key("viola")
        self.keys = folder / "keys"
        self.write_keys(line_of(self.alice), f'role="view" {line_of(self.viola)}')
        given: dict[str, Any] = {"listen": FREE, "authorized_keys": FilePath(str(self.keys))} | settings
        self.engine = Engine({**others, "ssh": SSHServerSettings(**given)}, state_dir=folder / "state")

    def write_keys(self, *lines: str) -> None:
        """Says who may come in."""
        self.keys.write_text("".join(lines))
        self.keys.chmod(0o600)

    @property
    def server(self) -> SSHServer:
        """The service."""
        service = self.engine.services["ssh"]
        assert isinstance(service, SSHServer)
        return service

    @property
    def sessions(self) -> list[str]:
        """Whose sessions there are."""
        return [session.identity for session in self.engine.node.sessions.sessions.values()]

    def told(self, kind: type[Event]) -> list[str]:
        """The sentences of the events of a kind."""
        return [record.event.text() for record in self.engine.node.bus.recent() if isinstance(record.event, kind)]

    @asynccontextmanager
    async def connect(self, key: asyncssh.SSHKey, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection with this key."""
        where = HostPort.parse(self.server.address)
        given: dict[str, Any] = {
            "config": None,
            "username": "ops",
            "client_keys": [key],
            "known_hosts": None,
            "agent_path": None,
            "preferred_auth": "publickey",
        }
        async with asyncssh.connect(where.host, where.port, **(given | options)) as connection:
            yield connection


@asynccontextmanager
async def ssh_desk(
    folder: Path, others: Mapping[str, ServiceSettings] = NO_OTHERS, **settings: Any
) -> AsyncIterator[SSHDesk]:
    """A running SSH server, with the control socket that its consoles use.

    :param others: services besides it, by name.
    """
    desk = SSHDesk(folder, others, **settings)
    async with desk.engine:
        await desk.engine.settled()
        async with controlled(desk.engine, folder):
            yield desk
