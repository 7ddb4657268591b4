"""Connections to elsewhere through one SSH connection (``ssh -L``, ``-D``, ``-W`` and ``-J``).

Where they may lead, the key's line and the allow list of a jump server say. Each of them is judged, once its name has
been resolved, as the jump server judges its own clients' (CVE-2026-48113 of a peer: judged at the handshake alone).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

import asyncssh

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.jump.server import JumpServer
from tunnelconsole.engine.services.ssh.forward_rights import shown
from tunnelconsole.engine.transport.dialer import dial_any, resolve
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.ssh_channel import MAX_PACKET, WINDOW, ChannelLink
from tunnelconsole.engine.wire.hostport import check_host, check_port, format_host_port
from tunnelconsole.errors import ConnectFailed, RequestRefused, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Login

MOST_CONNECTIONS: Final = 256
"""Connections to elsewhere through one SSH connection at once, each with up to a window in memory: a browser behind
``ssh -D`` has some dozens."""


class Elsewhere:
    """The connections to elsewhere of one SSH connection."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._server = login.server
        self._connected: set[SocketEnd] = set()
        """Those whose channel is not open yet."""
        self.count = 0
        """Connections that there are, or that are being made."""

    def connect(self, host: str, port: int) -> tuple[asyncssh.SSHTCPChannel[bytes], Awaitable[ChannelLink]]:
        """A channel, and the connection that it is to lead to.

        :raises asyncssh.ChannelOpenError: it is refused.
        """
        try:
            host = _usable(host, port)
            jump = self._judge(host, port)
        except RequestRefused as error:
            self._login.refuse(f"a connection to {shown(host, port)}: {error}")
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, str(error)) from error
        channel = self._login.connection.create_tcp_channel(window=WINDOW, max_pktsize=MAX_PACKET)
        self.count += 1
        self._server.opening += 1
        return channel, self._connect(jump, host, port)

    def _judge(self, host: str, port: int) -> JumpServer:
        """Whose allow list says where connections may lead.

        :raises RequestRefused: this one may not be made, wherever its name leads.
        """
        server = self._server
        server.check_forward(self._login.entry)
        if not self._login.entry.forward.may_open(host, port):
            raise RequestRefused("this key may not go there", "permitopen in its line says where it may")
        server.check_token(self._login.entry, "jump", self._login.peer)
        if self.count >= MOST_CONNECTIONS:
            raise RequestRefused(f"{MOST_CONNECTIONS} connections go through this one already")
        if full := server.no_channel(self._login.session):
            raise RequestRefused(full)
        return server.find_running(JumpServer, "jump", server.settings.jump)

    async def _connect(self, jump: JumpServer, host: str, port: int) -> ChannelLink:
        """:raises asyncssh.ChannelOpenError: it cannot be reached, or may not be."""
        where = format_host_port(host, port)
        try:
            end = await self._dial(jump, host, port)
        except TunnelConsoleError as error:
            self._give_up()
            self._server.node.bus.publish(
                TargetFailed(
                    service=self._server.name,
                    peer=self._login.peer,
                    target=where,
                    reason=error.message,
                    identity=self._login.session.identity,
                )
            )
            prohibited = isinstance(error, RequestRefused)
            code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED if prohibited else asyncssh.OPEN_CONNECT_FAILED
            raise asyncssh.ChannelOpenError(code, error.message) from error
        except BaseException:
            self._give_up()
            raise
        self._connected.add(end)

        def opened() -> None:
            self._connected.discard(end)
            self._server.opening -= 1
            if full := self._server.no_channel(self._login.session):  # others have been opened meanwhile
                self._server.refused(self._login.peer, full, "limit")
                self.count -= 1
                end.close()
                link.abort()
                return
            self._login.channels.carry(link, end, self._login.session, where, self._ended)

        link = self._login.connection.new_link(opened)
        return link

    async def _dial(self, jump: JumpServer, host: str, port: int) -> SocketEnd:
        """:raises TunnelConsoleError: it cannot be reached, or may not be (RequestRefused)."""
        timeout = jump.settings.dial_timeout
        grant = self._server.grant_of(self._login.entry)
        permitted = jump.permitted(host, port, await resolve(host, port, timeout), grant)
        if not permitted:
            raise RequestRefused(f"dial tcp {format_host_port(host, port)}: not allowed here")
        end = await dial_any(permitted, timeout)
        if self._login.over:
            end.close()
            raise ConnectFailed("the SSH connection ended meanwhile")
        return end

    def _give_up(self) -> None:
        self.count -= 1
        self._server.opening -= 1

    def _ended(self, reason: str) -> None:
        self.count -= 1

    def lost(self) -> None:
        """The SSH connection is over."""
        while self._connected:
            self._connected.pop().close()
            self._give_up()


def _usable(host: str, port: int) -> str:
    """The host as it is looked up.

    :raises RequestRefused: there can be no such host, or no such port.
    """
    try:
        check_port(str(port))
        return check_host(host)
    except ValueError as error:
        raise RequestRefused("it is no address", "write one as example.com:443") from error
