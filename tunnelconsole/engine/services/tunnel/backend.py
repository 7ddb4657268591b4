"""Whoever serves a host at the tunnel server: what its visitors need of it, however they are led there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from tunnelconsole.engine.services.tunnel.health_events import BackendHealthy, BackendUnhealthy
from tunnelconsole.engine.services.tunnel.routes import DOWN_TIME, Tunnel
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.transport.link import Link, LinkOwner

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.server import TunnelServer
    from tunnelconsole.engine.tokens.grants import Grant


class Caller(LinkOwner, Protocol):
    """Whoever wants a link for a request."""

    deadline: float
    peer: str
    """``host:port`` of the visitor."""

    @property
    def label(self) -> str:
        """What the request asks for: its method and path."""

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again where nobody has answered it: on a link that may be closed by now."""

    def got_link(self, link: Link) -> None:
        """Here it is."""

    def no_link(self, status: int, reason: str) -> None:
        """There is none, and why."""

    def backend_left(self, backend: Backend, reason: str) -> None:
        """The backend is gone, with every link to it."""


class Backend(ABC):
    """A session of the tunnel server.

    :param tunnel: what it serves; :meth:`~tunnelconsole.engine.services.tunnel.admission.Admission.enter` enters it
        there.
    :param peer: ``host:port`` of who serves it.
    """

    key: bytes | None = None
    """Of its data connections; None when it makes none."""
    token_identity = ""
    """Whose token it has brought; "" where it has proved itself in another way, and has the rights of no token."""
    grant: Grant | None = None
    """What it has proved, if that was a token of this node."""

    def __init__(self, server: TunnelServer, tunnel: Tunnel, peer: str) -> None:
        self._server = server
        self._loop = server.node.loop
        self.tunnel = tunnel
        self.peer = peer
        self.session: Session | None = None
        self.address = ""
        """The public URL, once visitors may come."""
        self.callers: set[Caller] = set()
        """Visitors that are led here, whether something is under way for them or not."""
        self.load = 0
        """Requests under way."""
        self.down_until = 0.0
        """Until when its service counts as out of reach, by the loop's clock."""
        self.healthy = True
        """Whether it may be given visitors, as it says itself."""
        self.leaving = False
        """Whether it takes no more visitors."""

    # -- for visitors ----------------------------------------------------------------------------------------------

    @abstractmethod
    def take(self, caller: Caller, *, websocket: bool) -> Link | None:
        """A link for a request; None when ``caller`` will get one, or hear that there is none."""

    @abstractmethod
    def impatient(self, caller: Caller) -> bool:
        """The caller's time is over; False when all ways have been tried."""

    def give_up(self, caller: Caller) -> None:
        """The caller wants no link any more; call instead of :meth:`give_back`."""
        self.load -= 1
        self.close_if_done()

    def give_back(self, link: Link, *, reusable: bool) -> None:
        """A request is over; the link may serve another if it is ``reusable``, and else is closed."""
        self.load -= 1
        link.close()
        self.close_if_done()

    def lost(self, link: Link | None) -> None:
        """A request is over, and its link is too."""
        self.load -= 1
        if link is not None:
            link.abort()
        self.close_if_done()

    def is_down(self) -> None:
        """Its service could not be reached."""
        self.down_until = self._loop.time() + DOWN_TIME

    def show_health(self) -> None:
        """Has others see whether the service works; before the client is let in, there is nobody to see it."""
        session = self.session
        if session is None:
            return
        session.note = "" if self.healthy else "unhealthy"
        sort = BackendHealthy if self.healthy else BackendUnhealthy
        name = self._server.name
        self._server.node.bus.publish(sort(service=name, session=session.id, peer=self.peer, address=self.address))

    # -- the session -----------------------------------------------------------------------------------------------

    @abstractmethod
    def close(self, reason: str) -> None:
        """Ends the session with everything in it."""

    @abstractmethod
    def retire(self) -> None:
        """Takes no new visitors; what is under way goes on, and the session ends with the last of it."""

    @abstractmethod
    def close_if_done(self) -> None:
        """Ends the session where it takes no more visitors and the last has gone."""

    def left(self, reason: str, cause: str) -> None:
        """The session is over, and with it everything: the host is free at once.

        :param reason: for its visitors.
        :param cause: for the record; "" where it ended in order.
        """
        self.leaving = True
        self._server.backend_closed(self, cause)
        for caller in list(self.callers):
            caller.backend_left(self, reason)
        self.callers.clear()
        if self.session is not None:
            self._server.close_session(self.session, cause)
