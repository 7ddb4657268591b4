"""What every service is: settings, a state that others can see, and a run that ends only when it is told or fails."""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import msgspec

from tunnelconsole.engine.access import Clients
from tunnelconsole.engine.bans import HandshakeRate, Policy
from tunnelconsole.engine.events import PeerRefused, ResourcesExhausted, ServiceConnected, ServiceListening
from tunnelconsole.engine.identities import holder_of
from tunnelconsole.engine.limits import Gate, LimitSettings, Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.refusals import RefusalKind
from tunnelconsole.engine.rules import Problem, Rule, broken
from tunnelconsole.engine.services.certificate_pair import CertificatePair
from tunnelconsole.engine.sessions import ANONYMOUS, Channel, Flow, Session
from tunnelconsole.engine.settings import ListenAddress, NetworkPattern, TLSSettings
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.listener import Accepted, Listener, is_loopback, listen
from tunnelconsole.engine.transport.pacing import Pace, together
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.repacing import Paced
from tunnelconsole.errors import ListenFailed, RequestRefused

Start = Callable[[Finished], Flow]
"""Starts a flow that will call what it is given once it has ended, and not before it has been returned."""

State = Literal["starting", "listening", "connecting", "connected", "backoff", "stopped", "failed"]


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every ``[service.NAME]`` may have besides its own keys."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold of a kind's own keys beyond their types."""

    enabled: bool = True
    """False keeps the service stopped until it is started by hand."""
    tls: TLSSettings | None = None
    limits: LimitSettings = LimitSettings()
    clients_allow: tuple[NetworkPattern, ...] = ()
    """Networks whose peers may connect; all when empty."""
    clients_deny: tuple[NetworkPattern, ...] = ()
    """Networks whose peers may not; wins over ``clients_allow``."""

    @final
    def problems(self) -> list[Problem]:
        """What is wrong by the kind's own rules."""
        return broken(self.rules, msgspec.structs.asdict(self))


S = TypeVar("S", bound=ServiceSettings)


class Service(ABC, Generic[S]):
    """One configured thing that runs.

    The engine calls :meth:`run` and starts it again when it raises. A subclass reports what it reached with
    :meth:`listening` and :meth:`connected`, and opens sessions and channels in the node's register.
    """

    kind: ClassVar[str]
    shares_rates: ClassVar[bool] = True
    """Whether each address and identity may have a rate of its own here; else the service has one alone."""
    live_keys: ClassVar[frozenset[str]] = frozenset(
        {"clients_allow", "clients_deny", "limits.sessions", "limits.channels", "limits.rate", "limits.idle_timeout"}
    )
    """Settings that :meth:`take` can change while the service runs, without ending anything."""

    def __init__(self, name: str, settings: S, node: Node) -> None:
        self.name = name
        self.settings = settings
        self.node = node
        self.tasks = node.tasks_of(f"service {name}", name)
        self.clients = Clients(settings.clients_allow, settings.clients_deny)
        self._bans = Policy(settings.limits)
        frequency = settings.limits.handshakes_per_address
        self._handshake_rate = HandshakeRate(frequency) if frequency is not None else None
        self.gate = Gate(settings.limits, self._count)
        self.state: State = "stopped"
        self.since = time.time()
        self.reached: Literal["", "listening", "connected"] = ""
        """What it has come to before, in this run or an earlier one; empty while it never has."""
        self.address = ""
        self.error: str | None = None
        self.exposed = False
        self.notes: dict[str, str] = {}
        self._newcomers: set[asyncio.Task[None]] = set()
        self.attached: set[Session] = set()
        """Sessions that this run of the service has let in."""
        self.channels = 0
        """Channels open in them."""
        self.drained = asyncio.Event()
        """Set while there are none."""
        self.drained.set()
        self.settled = asyncio.Event()
        """Set once the first start has come to something: listening, connected, in backoff or failed."""

    @abstractmethod
    async def run(self) -> None:
        """Runs until cancelled.

        :raises CredentialsRefused: the other end does not want us; not tried again.
        :raises Exception: anything else; tried again after a while.
        """

    @abstractmethod
    def stop_accepting(self) -> None:
        """Takes no new sessions or channels, while those there are go on."""

    @property
    def target(self) -> str:
        """Where the service leads, in a few words, for people."""
        return ""

    def refresh(self) -> None:
        """Reads again what may have changed outside the settings, such as certificate files.

        :raises OSError: a file cannot be read; what was in use stays in use.
        """

    def take(self, settings: S) -> None:
        """Goes on with other settings, that differ in :attr:`live_keys` alone.

        They hold for whoever comes from now on; who is cut because of them is told by :meth:`cut_by`.
        """
        before, self.settings = self.settings, settings
        self.clients = Clients(settings.clients_allow, settings.clients_deny)
        self.gate.settings = settings.limits
        if self.gate.rate != settings.limits.rate:
            self.gate.set_rate(settings.limits.rate)
            self.repace()
        for channel in self.node.sessions.channels.values():
            if channel.session in self.attached and channel.idle_timeout == before.limits.idle_timeout:
                channel.idle_timeout = settings.limits.idle_timeout

    def cut_by(self, settings: ServiceSettings) -> Sequence[Session]:
        """Sessions that other settings end at once, whether they are taken in place or by a successor."""
        return ()

    def part_by(self, settings: ServiceSettings) -> None:
        """Ends the sessions that other settings end."""
        self.end_sessions(self.cut_by(settings), "the settings do not let it in any more")

    @property
    def certificates(self) -> Sequence[CertificatePair]:
        """Those that it shows to whoever connects; their files are looked at again and again."""
        return ()

    def renewed(self) -> None:
        """Told that one of :attr:`certificates` was replaced, and has been read again."""

    def enter(self, state: State, error: str | None = None) -> None:
        """Changes the state, as seen from outside."""
        self.state = state
        self.error = error
        self.since = time.time()
        if state in ("listening", "connected"):
            self.reached = state
        if state not in ("starting", "connecting", "stopped"):
            self.settled.set()

    def listening(self, listener: Listener, address: str = "") -> None:
        """Reports that the service listens, and where."""
        self.address = address or listener.address
        self.exposed = not is_loopback(listener.host)
        self.enter("listening")
        self.node.bus.publish(
            ServiceListening(service=self.name, kind=self.kind, address=self.address, exposed=self.exposed)
        )

    def connected(self, server: object, address: str) -> None:
        """Reports that the service is connected to its server, and where it can be reached.

        :param server: as it is to be told.
        """
        self.address = address
        self.enter("connected")
        self.node.bus.publish(ServiceConnected(service=self.name, kind=self.kind, address=address, server=str(server)))

    def open_session(
        self,
        peer: str,
        end: Callable[[str], None],
        *,
        identity: str = ANONYMOUS,
        address: str = "",
        grant: Grant | None = None,
    ) -> Session:
        """Registers a remote party that has been let in; see :meth:`Sessions.open_session`."""
        session = self.node.sessions.open_session(
            self.name, self.kind, peer, identity, end, address=address, grant=grant
        )
        if grant is not None:
            self.node.tokens.used(grant)
        self.attached.add(session)
        self.gate.count_session(peer, session.holder, 1)
        return session

    def close_session(self, session: Session, cause: str = "") -> None:
        """Forgets a session whose channels are closed; safe to call twice."""
        if session in self.attached:
            self.attached.discard(session)
            self.gate.count_session(session.peer, session.holder, -1)
        self.node.sessions.close_session(session, cause)

    def open_channel(
        self, session: Session, label: str, flow: Flow, visitor: str = "", other: Grant | None = None
    ) -> Channel:
        """Registers a byte stream of ``session``, under the service's idle timeout.

        :param visitor: see :meth:`Sessions.open_channel`.
        """
        self.channels += 1
        self.drained.clear()
        self.gate.count_channel(visitor or session.peer, session.holder, 1)
        return self.node.sessions.open_channel(session, label, flow, self.settings.limits.idle_timeout, visitor, other)

    def close_channel(self, channel: Channel, cause: str = "") -> None:
        """Counts a channel's last bytes and forgets it; call once."""
        self.channels -= 1
        if not self.channels:
            self.drained.set()
        self.gate.count_channel(channel.opened_for, channel.session.holder, -1)
        self.node.sessions.close_channel(channel, cause)

    def carry(
        self,
        session: Session,
        label: str,
        start: Start,
        ended: Callable[[str], None],
        visitor: str = "",
        other: Grant | None = None,
    ) -> Flow:
        """Starts a flow and keeps it registered as a channel of ``session`` until it ends; then calls ``ended``.

        :param other: see :attr:`~tunnelconsole.engine.sessions.Channel.other`.
        """

        def finished(reason: str) -> None:
            self.close_channel(channel, reason)
            ended(reason)

        flow = start(finished)
        channel = self.open_channel(session, label, flow, visitor, other)
        return flow

    def carry_alone(
        self, peer: str, label: str, start: Start, *, identity: str = ANONYMOUS, grant: Grant | None = None
    ) -> None:
        """Starts a flow that is the one channel of a session of its own, and keeps both registered until it ends."""

        def finished(reason: str) -> None:
            self.close_channel(channel, reason)
            self.close_session(session, reason)

        flow = start(finished)
        session = self.open_session(peer, flow.abort, identity=identity, grant=grant)
        channel = self.open_channel(session, label, flow)

    def no_room(self, peer: str, identity: str, grant: Grant | None, *, new_session: bool, new_channel: bool) -> str:
        """Why there can be no further session or channel for somebody now; "" when there can.

        :param peer: numeric ``host:port``, or what stands for one that is not known.
        :param grant: what it proved, if that was a token.
        """
        holder = holder_of(identity, grant)
        full = self.gate.refuses_to(peer, holder, new_session=new_session, new_channel=new_channel)
        return full or (grant.no_room(new_session=new_session, new_channel=new_channel) if grant is not None else "")

    def no_channel(self, session: Session, visitor: str = "") -> str:
        """Why there can be no further channel in a session now; "" when there can.

        :param visitor: whose it is, where that is not the session's peer.
        """
        grant, peer = session.grant, visitor or session.peer
        full = self.gate.refuses_to(peer, session.holder, new_session=False, new_channel=True)
        return full or (grant.no_room(new_session=False, new_channel=True) if grant is not None else "")

    def pace_for(self, peer: str, identity: str = ANONYMOUS, grant: Grant | None = None) -> Pace | None:
        """What a flow of somebody has to keep to; None for no limit. The parameters are those of :meth:`no_room`."""
        own = grant.token.pace if grant is not None else None
        return together((self.gate.pace_for(peer, holder_of(identity, grant)), own))

    def pace_in(self, session: Session, visitor: str = "") -> Pace | None:
        """What a flow of a session has to keep to; None for no limit.

        :param visitor: whose it is, where that is not the session's peer.
        """
        own = self.gate.pace
        if self.shares_rates:
            own = self.gate.pace_for(visitor or session.peer, session.holder)
            if session.grant is not None:
                own = together((own, session.grant.token.pace))
        return together((own, session.pace)) if session.pace is not None else own

    def repace(self, session: Session | None = None) -> None:
        """Has every open channel keep to the rates that hold now, of one session when given.

        Nobody is cut: a flow that has had no rate is copied under one from the next byte on, and one without any
        more goes on through the kernel.
        """
        for channel in list(self.node.sessions.channels.values()):
            if channel.session in self.attached and session in (None, channel.session):
                with self.node.contain(f"another rate for channel {channel.id}", self.name):
                    self.repace_channel(channel)

    def repace_channel(self, channel: Channel) -> None:
        """The same for one channel."""
        if isinstance(channel.flow, Paced):
            other = channel.other.token.pace if channel.other is not None else None
            channel.flow.set_pace(together((self.pace_in(channel.session, channel.peer), other)))

    def admit(self, sock: socket.socket, peer: str) -> Place | None:
        """A place for whoever has connected, to be held until its handshake is done; None once it is turned away."""
        kind: RefusalKind
        if not self.clients.permit(peer):
            kind, reason = "address", "its address is not in clients_allow, or is in clients_deny"
        elif self._handshake_rate is not None and not self._handshake_rate.admits(peer):
            kind, reason = "rate", "its address begins more handshakes than handshakes_per_address lets it"
        elif place := self.gate.enter_handshake(peer):
            return place
        else:
            kind, reason = "limit", "too many connections are inside their handshake"
        self.refused(peer, reason, kind)
        sock.close()
        return None

    def set_receivers(self, session: Session, receivers: Sequence[str]) -> str:
        """Has a session send to others from now on, where its kind has that; returns what was done, in one sentence.

        :param session: one that is attached.
        :param receivers: their chids; none for all.
        :raises RequestRefused: there is nothing like it here, or it cannot be.
        """
        raise RequestRefused(f"session {session.id} is of a {self.kind}, which has no receivers")

    def punch_again(self) -> str:
        """Looks for a direct way to the other end now, where its kind does such; returns what was done, in a sentence.

        :raises RequestRefused: there is nothing like it here, or it would be of no use now.
        """
        raise RequestRefused(f"{self.name} is a {self.kind}, which punches nothing", "name a punch-client")

    def receive_newcomer(self, greeting: Coroutine[Any, Any, None], end: End, peer: str, place: Place) -> None:
        """Runs ``greeting`` as a task that lets a newcomer in or turns it away, and holds its place meanwhile.

        :param end: belongs to the greeting; it is reset when that is cancelled or fails.
        """
        task = self.tasks.start(greeting, f"newcomer {peer}")

        def lost(reason: str) -> None:
            if task.cancel():
                self.refused(peer, reason, "limit")

        def ended(_: object) -> None:
            self._newcomers.discard(task)
            place.leave()
            if task.cancelled() or task.exception() is not None:
                end.abort()  # here, because a task that is cancelled before its first step never runs

        place.lost = lost
        self._newcomers.add(task)
        task.add_done_callback(ended)

    def leave_newcomers(self) -> None:
        """Cancels every greeting that is still under way: of those whom the service has not taken."""
        for task in self._newcomers:
            task.cancel()

    def cut_all(self, reason: str) -> None:
        """Ends every session that is still attached."""
        self.end_sessions(self.attached, reason)

    def end_sessions(self, sessions: Iterable[Session], reason: str) -> None:
        """Ends some sessions."""
        for session in list(sessions):
            with self.node.contain(f"ending session {session.id}", self.name):
                session.end(reason)

    def refused(self, peer: str, reason: str, kind: RefusalKind = "other") -> None:
        """Reports that somebody was turned away.

        :param kind: the reason as one of a few words.
        """
        self.node.bus.publish(PeerRefused(service=self.name, peer=peer, reason=reason, kind=kind))
        if kind == "credentials":
            self.node.bans.failed(peer, self.name, reason, self._bans)

    def unless_banned(self, accepted: Accepted) -> Accepted:
        """What is to be told of connections in place of ``accepted``, which then does not hear of who is banned."""

        def arrived(sock: socket.socket, peer: str) -> None:
            if self.node.bans.turns_away(peer, self._bans):
                self.refused(peer, "its address is banned", "banned")
                sock.close()
            else:
                accepted(sock, peer)

        return arrived

    def exhausted(self, error: OSError) -> None:
        """Reports that accepting pauses because the process has no descriptors or memory left."""
        self.node.bus.publish(ResourcesExhausted(service=self.name, reason=error.strerror or str(error)))

    def judged(self, accepted: Accepted) -> Accepted:
        """What a listener of this service calls, so that ``accepted`` is told of those who may come."""
        return self.unless_banned(accepted)

    async def listen(self, address: ListenAddress, accepted: Accepted) -> Listener:
        """Listens for this service.

        :raises ListenFailed: the address cannot be listened on.
        """
        try:
            return await listen(address.host, address.port, self.judged(accepted), self.exhausted)
        except ListenFailed as error:
            raise self.blame("listen", error) from error

    def blame(self, key: str, error: ListenFailed) -> ListenFailed:
        """``error`` with the key path of what to change."""
        return ListenFailed(error.message, f"{error.hint} in service.{self.name}.{key}")

    def _count(self) -> tuple[int, int]:
        return len(self.attached), self.channels


def proved(identity: str) -> str:
    """An identity that somebody has proved; "" for that of those who were not asked."""
    return "" if identity == ANONYMOUS else str(identity)
