"""What every service is: settings, a state that others can see, and a run that ends only when it is told or fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import msgspec

from tunnelconsole.engine.access import Clients
from tunnelconsole.engine.bans import HandshakeRate, Policy
from tunnelconsole.engine.events import PeerRefused, ResourcesExhausted, ServiceConnected, ServiceListening
from tunnelconsole.engine.grants import Grant
from tunnelconsole.engine.limits import Gate, LimitSettings, Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.private_files import private_folder
from tunnelconsole.engine.refusals import RefusalKind
from tunnelconsole.engine.rules import Problem, Rule, broken
from tunnelconsole.engine.services.certificate_pair import CertificatePair, reason_of
from tunnelconsole.engine.sessions import ANONYMOUS, Channel, Flow, Session
from tunnelconsole.engine.settings import ListenAddress, NetworkPattern, TLSSettings
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

        They hold for whoever comes from now on; nobody is cut because of them.
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
        self.gate.count_session(peer, proved(session.identity), 1)
        return session

    def close_session(self, session: Session, cause: str = "") -> None:
        """Forgets a session whose channels are closed; safe to call twice."""
        if session in self.attached:
            self.attached.discard(session)
            self.gate.count_session(session.peer, proved(session.identity), -1)
        self.node.sessions.close_session(session, cause)

    def open_channel(self, session: Session, label: str, flow: Flow, visitor: str = "") -> Channel:
        """Registers a byte stream of ``session``, under the service's idle timeout.

        :param visitor: see :meth:`Sessions.open_channel`.
        """
        self.channels += 1
        self.drained.clear()
        self.gate.count_channel(visitor or session.peer, proved(session.identity), 1)
        return self.node.sessions.open_channel(session, label, flow, self.settings.limits.idle_timeout, visitor)

    def close_channel(self, channel: Channel, cause: str = "") -> None:
        """Counts a channel's last bytes and forgets it; call once."""
        self.channels -= 1
        if not self.channels:
            self.drained.set()
        self.gate.count_channel(channel.peer, proved(channel.session.identity), -1)
        self.node.sessions.close_channel(channel, cause)

    def carry(
        self,
        session: Session,
        label: str,
        start: Start,
        ended: Callable[[str], None],
        visitor: str = "",
        other_pace: Pace | None = None,
    ) -> Flow:
        """Starts a flow and keeps it registered as a channel of ``session`` until it ends; then calls ``ended``.

        :param other_pace: what the flow keeps to besides what the session has to.
        """

        def finished(reason: str) -> None:
            self.close_channel(channel, reason)
            ended(reason)

        flow = start(finished)
        channel = self.open_channel(session, label, flow, visitor)
        channel.other_pace = other_pace
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
        full = self.gate.refuses_to(peer, proved(identity), new_session=new_session, new_channel=new_channel)
        if full or grant is None:
            return full
        return grant.no_room(new_session=new_session, new_channel=new_channel)

    def no_channel(self, session: Session, visitor: str = "") -> str:
        """Why there can be no further channel in a session now; "" when there can.

        :param visitor: whose it is, where that is not the session's peer.
        """
        peer = visitor or session.peer
        return self.no_room(peer, session.identity, session.grant, new_session=False, new_channel=True)

    def pace_for(self, peer: str, identity: str = ANONYMOUS, grant: Grant | None = None) -> Pace | None:
        """What a flow of somebody has to keep to; None for no limit. The parameters are those of :meth:`no_room`."""
        own = grant.token.pace if grant is not None else None
        return together((self.gate.pace_for(peer, proved(identity)), own))

    def pace_in(self, session: Session, visitor: str = "") -> Pace | None:
        """What a flow of a session has to keep to; None for no limit.

        :param visitor: whose it is, where that is not the session's peer.
        """
        own = self.gate.pace
        if self.shares_rates:
            own = self.pace_for(visitor or session.peer, session.identity, session.grant)
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
            channel.flow.set_pace(together((self.pace_in(channel.session, channel.peer), channel.other_pace)))

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
        """Cancels every greeting that is still under way, because the service takes nobody any more."""
        for task in self._newcomers:
            task.cancel()

    def cut_all(self, reason: str) -> None:
        """Ends every session that is still attached."""
        for session in list(self.attached):
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
    return "" if identity == ANONYMOUS else identity


class ServerTLS:
    """A server's side of ``[service.NAME.tls]``: its context, from given files or a self-signed certificate.

    :raises ListenFailed: a file cannot be read or made, or the key does not fit the certificate.
    :raises NotPrivate: others could put another key in the place of the one that is made.
    """

    def __init__(self, settings: TLSSettings, name: str, state_dir: Path) -> None:
        # Only where TLS is on: cryptography costs 10 MiB and a tenth of a second, which other servers need not pay.
        from tunnelconsole.engine.transport.certificates import (  # noqa: PLC0415
            certificate_fingerprint,
            make_self_signed,
        )

        self._read_fingerprint = certificate_fingerprint
        trust = None
        if settings.asks_clients:
            from tunnelconsole.engine.transport.client_trust import ClientTrust  # noqa: PLC0415 - as above

            trust = ClientTrust(Path(settings.client_ca) if settings.client_ca else None, settings.client_keys or {})
        self.identify = trust.identify if trust is not None else None
        """Tells who a client is, where one has to bring a certificate."""
        own = settings.certificate is None or settings.key is None
        if settings.certificate is not None and settings.key is not None:
            certificate, key = Path(settings.certificate), Path(settings.key)
        else:
            folder = state_dir / "tls"
            certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        try:
            if own:
                private_folder(key.parent)
                make_self_signed(certificate, key, name)
            self.pair = CertificatePair(certificate, key, trust)
            self.fingerprint = self._read_fingerprint(certificate)
        except (OSError, ValueError) as error:
            raise ListenFailed(
                f"the certificate {certificate} with key {key} cannot be used: {reason_of(error)}",
                "both must be PEM files that belong together"
                + (f", and {settings.client_ca} one of authorities" if settings.client_ca else ""),
            ) from error

    @property
    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now."""
        return self.pair.context

    def refresh(self) -> None:
        """Reads the files again for handshakes to come.

        :raises OSError: they cannot be used; the old certificate stays.
        """
        if self.pair.refresh():
            self.renewed()

    def renewed(self) -> None:
        """Takes the fingerprint of a certificate that has been read again."""
        self.fingerprint = self._read_fingerprint(self.pair.certificate)
