"""The punch client: a local listener, or a target, joined with the other end of a room over a punched connection."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, ClassVar, Final

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.punch_events import PathChanged, PunchWarning
from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.services.punch.meeting import Meeting, PairingUser, wrong_with_room
from tunnelconsole.engine.services.punch.streams import Streams
from tunnelconsole.engine.services.service import Service, ServiceSettings
from tunnelconsole.engine.services.token_door import TOKEN_RULE
from tunnelconsole.engine.sessions import Flow, Session
from tunnelconsole.engine.settings import HostPort, ListenAddress, RendezvousAddress, Secret
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.early_stream import EarlyStream
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.listener import Listener
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.stream_pump import StreamPump
from tunnelconsole.engine.wire.punch_offer import Mode, Offer
from tunnelconsole.errors import ConnectFailed, RequestRefused

if TYPE_CHECKING:
    from tunnelconsole.engine.services.punch.carrier import Carrier
    from tunnelconsole.engine.services.punch.pairing import Pairing

LINK_WAIT: Final = 10.0
"""Seconds that a local program waits for a link: it is dialled anew within less, and users have no more patience."""


def _one_local_end(target: HostPort | None, listen: ListenAddress | None) -> list[Problem]:
    if (target is None) == (listen is None):
        return [("target", "set either target, to lead the other end to, or listen, for local programs")]
    return []


def _possible_room(room: str) -> list[Problem]:
    wrong = wrong_with_room(room)
    return [("room", wrong)] if wrong else []


def _some_secret(secret: Secret) -> list[Problem]:
    return [] if secret else [("secret", "an empty secret would let everybody in who knows the room's name")]


class PunchClientSettings(ServiceSettings, frozen=True, kw_only=True):
    """``kind = "punch-client"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("target", "listen"), _one_local_end),
        Rule(("room",), _possible_room),
        Rule(("secret",), _some_secret),
        TOKEN_RULE,
    )

    server: RendezvousAddress | HostPort
    """The rendezvous."""
    connect: RendezvousAddress | HostPort | None = None
    """The address to dial when it is not the one that ``server`` names."""
    room: str
    """Where the other end is met."""
    secret: Secret
    """What both ends know, and the rendezvous does not."""
    token: Secret | None = None
    """What we prove to the rendezvous; None: nothing."""
    target: HostPort | None = None
    """Where what the other end opens is led."""
    listen: ListenAddress | None = None
    """Where local programs connect, each to a stream of its own."""
    direct: bool = True
    """False stays on the relay."""


class PunchClient(Service[PunchClientSettings], PairingUser):
    """One end of a punched connection."""

    kind = "punch-client"
    shares_rates = False

    def __init__(self, name: str, settings: PunchClientSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        mode = Mode.OPENS if settings.listen is not None else Mode.ACCEPTS
        self._meeting = Meeting(
            settings.server,
            settings.room,
            settings.secret,
            mode,
            connect=settings.connect,
            tls=settings.tls,
            direct=settings.direct,
            timeout=settings.limits.handshake_timeout,
            token=settings.token,
        )
        self._pairing: Pairing | None = None
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._listener: Listener | None = None
        self._stopping = False
        self.notes["room"] = settings.room

    @property
    def target(self) -> str:
        where = f"room {self.settings.room} at {self.settings.server}"
        return f"{self.settings.target} from {where}" if self.settings.target is not None else where

    async def run(self) -> None:
        # Only where one runs: cryptography costs 10 MiB and a tenth of a second.
        from tunnelconsole.engine.services.punch.pairing import Pairing  # noqa: PLC0415

        self.enter("connecting")
        pairing = self._pairing = Pairing(self.node, self.name, self.tasks, self._meeting, self)
        try:
            if self.settings.listen is not None:
                self._listener = await self.listen(self.settings.listen, self._accepted)
            await pairing.run()
        finally:
            pairing.close("the service stopped")
            self._pairing = None
            if self._listener is not None:
                self._listener.close()
            self.leave_newcomers()

    def stop_accepting(self) -> None:
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        self.leave_newcomers()

    def punch_again(self) -> str:
        if self._pairing is None:
            raise RequestRefused(f"{self.name} does not run, it is {self.state}", f"tunnelconsole start {self.name}")
        self._pairing.race_now()
        return f"{self.name} looks for a direct way to the other end of room {self.settings.room}"

    def seated(self) -> None:
        if self._link is None:
            self.enter("connecting")
        self.settled.set()  # it has come to what it can come to alone: a daemon is ready then

    def linked(self, carrier: Carrier, offer: Offer, seen: str, *, leads: bool) -> None:
        self._link = Link(self, carrier, seen, leads=leads)
        self._linked.set()

    def moved(self, kind: str) -> None:
        """The link goes another way."""
        self.notes["path"] = kind or "none"
        link, listener = self._link, self._listener
        if link is not None:
            self.node.bus.publish(
                PathChanged(service=self.name, session=link.session.id, path=kind, peer=link.session.peer)
            )
        if kind and self.state != "connected":
            self.connected(self.settings.server, listener.address if listener is not None else "")

    def unlinked(self, reason: str) -> None:
        link, self._link = self._link, None
        self._linked.clear()
        self.notes["path"] = "none"
        if link is not None:
            link.close(reason)
        if self._pairing is not None and not self._stopping:  # else the run is over, and that is its state
            self.enter("connecting", reason or None)

    def warned(self, reason: str) -> None:
        if self.state == "connecting":
            self.error = reason  # until there is a link, this is what to look at
        self.node.bus.publish(PunchWarning(service=self.name, room=self.settings.room, reason=reason))

    def _accepted(self, sock: socket.socket, peer: str) -> None:
        full = self.gate.refuses(new_session=False, new_channel=True)
        if full:
            self.refused(peer, full, "limit")
            sock.close()
            return
        place = self.admit(sock, peer)
        if place is not None:
            local = SocketEnd(sock)
            self.receive_newcomer(self._lead_out(local, peer), local, peer, place)

    async def _lead_out(self, local: SocketEnd, peer: str) -> None:
        """Opens a stream for a local program, once there is a link."""
        try:
            async with asyncio.timeout(LINK_WAIT):
                await self._linked.wait()
        except TimeoutError:
            self.refused(peer, f"nobody else came to room {self.settings.room} within {LINK_WAIT:g} s", "timeout")
            local.abort()
            return
        link = self._link
        if link is None or not link.open(local, peer):
            self.refused(peer, "the link takes no more streams now", "limit")
            local.abort()

    def lead_in(self, link: Link, stream_id: int, stream: EarlyStream) -> None:
        """Leads a stream that the other end has opened to the target."""
        target = self.settings.target
        full = self.gate.refuses(new_session=False, new_channel=True)
        if target is None:
            full = "both ends have listen: one of the two needs a target"
        if full or self._stopping or target is None:
            self.refused(stream.name, full or "the service takes no visitors now", "limit")
            link.streams.reject(stream_id)
            return
        self.tasks.start(self._dial_for(link, stream_id, stream, target), stream.name)

    async def _dial_for(self, link: Link, stream_id: int, stream: EarlyStream, target: HostPort) -> None:
        try:
            end = await dial(target.host, target.port)
        except ConnectFailed as error:
            self.node.bus.publish(
                TargetFailed(service=self.name, peer=stream.name, target=str(target), reason=error.message)
            )
            link.streams.reject(stream_id)
            return
        if stream.gone or link.over:
            end.abort()
            return
        link.pipe(stream_id, end, str(target), stream.name, stream)


class Link:
    """A link and the streams in it, as a session of the service."""

    def __init__(self, client: PunchClient, carrier: Carrier, seen: str, *, leads: bool) -> None:
        self._client = client
        self.over = False
        self._flows: set[Flow] = set()
        self.streams = Streams(client.node, carrier, self._opened, leads=leads)
        self.session: Session = client.open_session(
            seen or str(client.settings.server), carrier.close, identity=client.settings.room
        )

    def _opened(self, stream_id: int, stream: EarlyStream) -> None:
        self._client.lead_in(self, stream_id, stream)

    def open(self, local: SocketEnd, peer: str) -> bool:
        """Opens a stream for a local program; False when there can be none now."""
        stream_id = self.streams.open()
        if stream_id is None:
            return False
        self.pipe(stream_id, local, f"room {self._client.settings.room}", peer, None)
        return True

    def pipe(self, stream_id: int, end: SocketEnd, label: str, visitor: str, early: EarlyStream | None) -> None:
        """Pipes a stream to an end as a channel."""

        def start(finished: Finished) -> StreamPump:
            return self.streams.join(stream_id, end, finished, early=early, pace=self._client.pace_in(self.session))

        def ended(reason: str) -> None:
            self._flows.discard(flow)
            self._close_session_when_empty(reason)

        flow = self._client.carry(self.session, label, start, ended, visitor)
        self._flows.add(flow)

    def close(self, reason: str) -> None:
        """The link is over, and with it what was in it."""
        self.over = True
        self.streams.close(reason or "the link is over")
        self._close_session_when_empty(reason)

    def _close_session_when_empty(self, reason: str) -> None:
        if self.over and not self._flows:
            self._client.close_session(self.session, reason)
