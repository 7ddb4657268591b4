"""A public TCP port of an SSH client (``ssh -R 0:localhost:22``)."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.ssh.public_place import MOST_OPENING, OPEN_PATIENCE, PublicPlace
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.listener import Listener
from tunnelconsole.engine.transport.ssh_channel import ChannelLink
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.errors import RequestRefused

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.public_places import PublicPlaces


class PublicPort(PublicPlace):
    """The port; a session of the SSH server, whose channels are its visitors."""

    def __init__(self, places: PublicPlaces, host: str, port: int) -> None:
        super().__init__(places, host, port)
        self._listener: Listener | None = None
        self._session: Session | None = None
        self._waiting: dict[SocketEnd, tuple[ChannelLink, asyncio.TimerHandle]] = {}
        """Visitors for whom a channel is being opened."""
        self._cause = ""

    async def open(self) -> None:
        server, port = self._server, self.asked[1]
        if port:
            server.give_way(port, self.login)
            self._listener = await server.ports.open_port(port, self._visited, server.exhausted)
        else:
            self._listener = await server.ports.open(self._visited, server.exhausted)
        if full := server.gate.refuses(new_session=True, new_channel=False):  # others have come meanwhile
            self._release()
            raise RequestRefused(full)
        self.asked = (self.asked[0], self._listener.port)
        self.address = format_host_port(server.settings.public_host, self._listener.port)
        self._session = server.open_session(
            self.login.peer, self.end, identity=self.login.entry.identity, address=self.address
        )
        server.public_ports[self._listener.port] = self

    def _visited(self, sock: socket.socket, peer: str) -> None:
        server, end = self._server, SocketEnd(sock)
        full = server.gate.refuses(new_session=False, new_channel=True)
        if not full and len(self._waiting) >= MOST_OPENING:
            full = "too many visitors wait for the client"
        if full:
            server.refused(peer, full)
            end.close()
            return
        self._places.tell_visit(peer, self.address)
        link = self.login.channels.bring(
            self.asked, peer, partial(self._got, end, peer), partial(self._failed, end, peer)
        )
        self._waiting[end] = link, server.node.loop.call_later(OPEN_PATIENCE, self._late, end, peer)

    def _got(self, end: SocketEnd, peer: str, link: ChannelLink) -> None:
        self._stop_waiting(end)
        if self._session is None:
            link.abort()
            end.abort()
            return
        self.login.channels.carry(link, end, self._session, self.login.peer, self._channel_over, peer)

    def _late(self, end: SocketEnd, peer: str) -> None:
        link, _ = self._waiting[end]
        link.abort()
        self._failed(end, peer, f"the client opened no channel within {OPEN_PATIENCE:g} s")

    def _failed(self, end: SocketEnd, peer: str, reason: str) -> None:
        self._stop_waiting(end)
        self._server.node.bus.publish(
            TargetFailed(service=self._server.name, peer=peer, target=self.login.peer, reason=reason)
        )
        end.abort()
        self._close_session_when_empty()

    def _stop_waiting(self, end: SocketEnd) -> None:
        _, timer = self._waiting.pop(end)
        timer.cancel()

    def _channel_over(self, reason: str) -> None:
        self._close_session_when_empty()

    def end(self, reason: str) -> None:
        """Ends it with all its visitors."""
        self._cause = reason
        self._release()
        for end, (link, _) in list(self._waiting.items()):
            link.abort()
            self._stop_waiting(end)
            end.abort()
        session = self._session
        if session is not None:
            for channel in list(self._server.node.sessions.channels.values()):
                if channel.session is session:
                    channel.flow.abort(reason)
        self._places.is_over(self, reason)
        self._close_session_when_empty()

    def close(self) -> None:
        self._release()
        self._places.closed(self)
        self._close_session_when_empty()

    def _release(self) -> None:
        if self._listener is not None:
            self._server.public_ports.pop(self._listener.port, None)
            self._server.ports.release(self._listener)
            self._listener = None

    def _close_session_when_empty(self) -> None:
        session = self._session
        if session is not None and self._listener is None and not session.channels and not self._waiting:
            self._session = None
            self._server.close_session(session, self._cause)
