"""The channels of one SSH connection that carry forwards: opened, joined with sockets, held up with the connection."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import asyncssh

from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.link_pump import LinkPump
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.ssh_channel import MAX_PACKET, WINDOW, ChannelLink
from tunnelconsole.engine.wire.hostport import parse_host_port

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Login


class Channels:
    """Those of one connection."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._server = login.server
        self._links: set[ChannelLink] = set()
        self._held = False

    def new_link(self, opened: Callable[[], None] = lambda: None) -> ChannelLink:
        """A link for a channel that is about to be opened; see :class:`ChannelLink`."""
        link = ChannelLink(self._server.node.loop, self._login, opened)
        self._links.add(link)
        if self._held:
            link.hold("connection")
        return link

    def forget(self, link: ChannelLink) -> None:
        """A channel is over."""
        self._links.discard(link)

    def bring(
        self,
        asked: tuple[str, int],
        visitor: str,
        got: Callable[[ChannelLink], None],
        failed: Callable[[str], None],
    ) -> ChannelLink:
        """Opens a channel to the client for a visitor of a public place. Whoever gives up aborts the link.

        :param asked: host and port of the place, as the client knows it.
        :param visitor: its ``host:port``.
        :param got: told when it is open.
        :param failed: told why it is not.
        """
        link = self.new_link()
        self._server.tasks.start(self._bring(link, asked, visitor, got, failed), f"channel for {visitor}")
        return link

    async def _bring(
        self,
        link: ChannelLink,
        asked: tuple[str, int],
        visitor: str,
        got: Callable[[ChannelLink], None],
        failed: Callable[[str], None],
    ) -> None:
        # Not cut short where somebody gives up: the client may be opening it, and only asyncssh can close it then.
        try:
            await self._login.connection.create_connection(
                lambda: link, *asked, *parse_host_port(visitor), window=WINDOW, max_pktsize=MAX_PACKET
            )
        except (asyncssh.ChannelOpenError, OSError) as error:
            self.forget(link)
            if not link.closed:
                failed(error.reason if isinstance(error, asyncssh.ChannelOpenError) else str(error))
            return
        if link.closed:
            self.forget(link)
        else:
            got(link)

    def carry(
        self,
        link: ChannelLink,
        end: SocketEnd,
        session: Session,
        label: str,
        ended: Callable[[str], None],
        visitor: str = "",
    ) -> None:
        """Joins a channel with a socket, and registers both as a channel of ``session`` until they end."""
        loop, pace = self._server.node.loop, self._server.gate.pace

        def start(finished: Finished) -> LinkPump:
            return LinkPump(loop, link, EndLink(loop, end), finished, pace=pace)

        self._server.carry(session, label, start, partial(self._carried, link, ended), visitor)

    def _carried(self, link: ChannelLink, ended: Callable[[str], None], reason: str) -> None:
        self.forget(link)
        ended(reason)

    def hold(self) -> None:
        """The connection takes nothing more now."""
        self._held = True
        for link in self._links:
            link.hold("connection")

    def go_on(self) -> None:
        """The connection takes more."""
        self._held = False
        for link in list(self._links):
            link.go_on("connection")
