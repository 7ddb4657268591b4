"""A public TCP port of an SSH client (``ssh -R 0:localhost:22``)."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.ssh.public_place import OPEN_PATIENCE, PublicPlace
from tunnelconsole.engine.sessions import Flow, Session
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.listener import Listener
from tunnelconsole.engine.transport.ssh_channel import ChannelLink
from tunnelconsole.engine.transport.watch import InputWatch
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
        self._waiting: set[WaitingVisitor] = set()
        """Visitors for whom a channel is being opened."""
        self._flows: set[Flow] = set()
        self._cause = ""

    async def open(self) -> None:
        server, port = self._server, self.asked[1]
        grant = server.check_token(self.login.entry, "relay", self.login.peer)
        if port and grant is not None and not grant.rights.grants_port(port):
            raise RequestRefused(f"the token is not for port {port}")
        visited = server.judged(self._visited)
        if port:
            server.give_way(port, self.login)
            self._listener = await server.ports.open_port(port, visited, server.exhausted)
        else:
            among = grant.rights.ports if grant is not None else ()
            self._listener = await server.ports.open(visited, server.exhausted, among)
        if full := server.no_session(self.login):  # others have come meanwhile
            self._release()
            raise RequestRefused(full)
        self.asked = (self.asked[0], self._listener.port)
        self.address = format_host_port(server.settings.public_host, self._listener.port)
        self._session = server.open_session(
            self.login.peer, self.end, identity=self.login.entry.identity, address=self.address, grant=grant
        )
        server.public_ports[self._listener.port] = self

    def _visited(self, sock: socket.socket, peer: str) -> None:
        server = self._server
        if self._session is None:  # its address is about to be told
            sock.close()
            return
        full = server.no_channel(self._session, peer) or self.login.channels.refusal
        if self._listener is None:  # closed while a proxy said who comes
            full = "its public port is closed"
        if full:
            server.refused(peer, full, "limit")
            sock.close()
            return
        self._places.tell_visit(peer, self.address)
        visitor = WaitingVisitor(self, SocketEnd(sock), peer)
        visitor.link = self.login.channels.bring(self.asked, peer, visitor.got, visitor.failed)
        self._waiting.add(visitor)
        server.opening += 1

    def stop_waiting(self, visitor: WaitingVisitor) -> None:
        """A visitor waits no more."""
        if visitor in self._waiting:
            self._waiting.discard(visitor)
            self._server.opening -= 1

    def lead(self, visitor: WaitingVisitor, link: ChannelLink) -> None:
        """A visitor's channel is open."""
        if self._session is None:
            link.abort()
            visitor.end.abort()
            return
        if full := self._server.no_channel(self._session, visitor.peer):  # others who have waited too were led before
            link.abort()
            visitor.end.abort()
            self._server.refused(visitor.peer, full, "limit")
            self.close_session_when_empty()
            return

        def ended(reason: str) -> None:
            self._flows.discard(flow)
            self.close_session_when_empty()

        flow = self.login.channels.carry(link, visitor.end, self._session, self.login.peer, ended, visitor.peer)
        self._flows.add(flow)

    def lose(self, visitor: WaitingVisitor, reason: str) -> None:
        """A visitor cannot be led to the client."""
        self._server.node.bus.publish(
            TargetFailed(service=self._server.name, peer=visitor.peer, target=self.login.peer, reason=reason)
        )
        self.close_session_when_empty()

    def end(self, reason: str) -> None:
        """Ends it with all its visitors."""
        self._cause = reason
        self._release()
        for visitor in list(self._waiting):
            visitor.give_up()
        for flow in list(self._flows):
            flow.abort(reason)
        self._places.is_over(self, reason)
        self.close_session_when_empty()

    def close(self) -> None:
        self._release()
        self._places.closed(self)
        self.close_session_when_empty()

    def _release(self) -> None:
        if self._listener is not None:
            self._server.public_ports.pop(self._listener.port, None)
            self._server.ports.release(self._listener)
            self._listener = None

    def close_session_when_empty(self) -> None:
        """Forgets the session once the port is closed and the last visitor has gone."""
        session = self._session
        if session is not None and self._listener is None and not (self._flows or self._waiting):
            self._session = None
            self._server.close_session(session, self._cause)


class WaitingVisitor:
    """A visitor for whom a channel is being opened."""

    def __init__(self, port: PublicPort, end: SocketEnd, peer: str) -> None:
        loop = port.login.server.node.loop
        self._port = port
        self.end = end
        self.peer = peer
        self.link: ChannelLink | None = None
        """What is being opened."""
        self._timer = loop.call_later(OPEN_PATIENCE, partial(self._leave, f"no channel within {OPEN_PATIENCE:g} s"))
        self._input = InputWatch(loop, end.fileno(), self._look)
        self._input.start()

    def _look(self) -> None:
        """Whoever has hung up need not be waited for; whoever has said something may have ended its side in order."""
        try:
            self.end.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            self._leave("the visitor left")
        else:
            self._input.stop()

    def _stop(self) -> None:
        self._timer.cancel()
        self._input.stop()
        self._port.stop_waiting(self)

    def got(self, link: ChannelLink) -> None:
        """The channel is open."""
        self._stop()
        self._port.lead(self, link)

    def failed(self, reason: str) -> None:
        """There is none, and why."""
        self._stop()
        self.end.abort()
        self._port.lose(self, reason)

    def give_up(self) -> None:
        """Wants none any more."""
        self._stop()
        if self.link is not None:
            self.link.abort()
        self.end.abort()

    def _leave(self, reason: str) -> None:
        self.give_up()
        self._port.lose(self, reason)
