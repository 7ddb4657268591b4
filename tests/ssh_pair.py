"""Both ends of one channel of SSH in this process, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from link_owner import Owner
from tcp import connected
from tunnelconsole.engine.transport.ssh_channel import ChannelLink
from tunnelconsole.engine.transport.ssh_connection import LeanConnection
from waiting import until


class ClientConnection(LeanConnection, asyncssh.SSHClientConnection):
    """The client."""


class ServerConnection(LeanConnection, asyncssh.SSHServerConnection):
    """The server."""


class _Server(asyncssh.SSHServer):
    def __init__(self, pair: ChannelPair) -> None:
        self._pair = pair

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        self._pair.far = self._pair.link(self._pair.server)
        return self._pair.far


class ChannelPair:
    """``near`` at the client, ``far`` at the server.

    :param version: what the server calls itself.
    """

    def __init__(self, version: str) -> None:
        loop = self.loop = asyncio.get_running_loop()
        key = asyncssh.generate_private_key("ssh-ed25519")
        offered = asyncssh.SSHServerConnectionOptions(
            config=None, server_factory=lambda: _Server(self), server_host_keys=[key], server_version=version
        )
        asked = asyncssh.SSHClientConnectionOptions(
            config=None,
            host="host",
            username="ops",
            known_hosts=lambda *_: ([key.convert_to_public()], [], [], [], [], [], []),
            client_keys=None,
            client_version="TunnelConsole",
        )
        self._logged_in = asked.waiter = loop.create_future()
        self.server = ServerConnection(loop, offered)
        self.client = ClientConnection(loop, asked, wait="auth")
        self.far: ChannelLink
        self.near: ChannelLink
        self.gone = 0
        """Channels' ends that are over."""

    def link(self, carrier: LeanConnection) -> ChannelLink:
        """A new end of a channel."""
        return ChannelLink(self.loop, carrier, gone=self._count)

    def _count(self) -> None:
        self.gone += 1

    async def start(self) -> None:
        """Connects both, and opens the channel."""
        one, other = connected()
        await self.loop.connect_accepted_socket(lambda: self.server, one)
        await self.loop.create_connection(lambda: self.client, sock=other)
        await self._logged_in
        await self.open()

    async def open(self) -> tuple[ChannelLink, ChannelLink]:
        """Another channel: its end at the client, and at the server."""
        near = self.near = self.link(self.client)
        await self.client.create_connection(lambda: near, "target", 1)
        return near, self.far

    async def all_came(self) -> None:
        """Waits until everything that was sent before has come, which is what is asked and answered behind it."""
        kept = self.near, self.far
        near, far = await self.open()
        for one, other in ((near, far), (far, near)):
            owner = one.owner = Owner()
            one.resume()
            other.write(b"?")
            await until(lambda owner=owner: owner.got)  # type: ignore[misc]
        near.abort()
        far.abort()
        self.near, self.far = kept

    def lose(self) -> None:
        """Breaks the connection below."""
        self.client.abort()


@asynccontextmanager
async def channel_pair(version: str = "TunnelConsole") -> AsyncIterator[ChannelPair]:
    """A connection with one channel open.

    :param version: what the server calls itself.
    """
    pair = ChannelPair(version)
    await pair.start()
    try:
        yield pair
    finally:
        pair.client.abort()
        await pair.client.wait_closed()
        await pair.server.wait_closed()


async def told(news: list[str], *wanted: str) -> None:
    """Waits until exactly this was told."""
    await until(lambda: news == list(wanted))
