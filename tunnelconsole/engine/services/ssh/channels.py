"""The channels of one SSH client that carry forwards: opened for visitors, and joined with sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import asyncssh

from tunnelconsole.engine.sessions import Flow, Session
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.link_pump import LinkPump
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.ssh_channel import MAX_PACKET, WINDOW, ChannelLink
from tunnelconsole.engine.wire.hostport import parse_peer
from tunnelconsole.engine.wire.printable import printable

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Login

MOST_UNANSWERED: Final = 256
"""Channels that a client may be asked for and not have answered: asyncssh keeps each until it does, whether anybody
waits for it or not. A client that answers has a handful on their way."""

LONGEST_REASON: Final = 200
"""Characters of a client's reason that are told: it may say anything."""


class Channels:
    """Those of one client."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._server = login.server
        self._unanswered = 0

    @property
    def refusal(self) -> str:
        """Why no further channel can be opened now; "" where one can."""
        if self._unanswered >= MOST_UNANSWERED:
            return f"the client has not answered for {MOST_UNANSWERED} visitors before"
        return ""

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
        link = self._login.connection.new_link()
        self._unanswered += 1
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
        reason = ""
        try:
            await self._login.connection.create_connection(
                lambda: link, *asked, *parse_peer(visitor), window=WINDOW, max_pktsize=MAX_PACKET
            )
        except asyncssh.ChannelOpenError as error:
            reason = error.reason or "the client refuses"
        except OSError as error:
            reason = str(error)
        finally:
            self._unanswered -= 1
        if reason:
            self._login.connection.forget(link)
        if link.closed:
            return
        if reason:
            failed(printable(reason[:LONGEST_REASON]))
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
    ) -> Flow:
        """Joins a channel with a socket, and registers both as a channel of ``session`` until they end."""
        loop, pace = self._server.node.loop, self._server.pace_in(session, visitor)

        def start(finished: Finished) -> LinkPump:
            return LinkPump(loop, link, EndLink(loop, end), finished, pace=pace)

        return self._server.carry(session, label, start, ended, visitor)
