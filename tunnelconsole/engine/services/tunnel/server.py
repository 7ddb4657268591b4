"""The tunnel server: a public hostname for each client that attaches, and a way from each visitor to its client.

All come to one port. A connection that begins like a tunnel client's request is one, or a data connection of one, which
our own client dials so that visitors' bytes can be spliced (:mod:`tunnelconsole.engine.wire.tunnel`); any other is a
visitor.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import socket
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from tunnelconsole.engine.access import Clients
from tunnelconsole.engine.events import CertificateUnusable
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rules import Problem, Rule, above_zero
from tunnelconsole.engine.services.listening import ListeningService, ListeningSettings
from tunnelconsole.engine.services.native import KEEPALIVE, KEEPALIVE_RULE
from tunnelconsole.engine.services.tunnel.arrival import Arrival
from tunnelconsole.engine.services.tunnel.backend import Backend
from tunnelconsole.engine.services.tunnel.certificates import Certificates, CertificateSettings
from tunnelconsole.engine.services.tunnel.hooks import NOT_JUDGED, Hooks, Request
from tunnelconsole.engine.services.tunnel.inspector import Inspector
from tunnelconsole.engine.services.tunnel.rates import Allowance, RateSettings
from tunnelconsole.engine.services.tunnel.routes import HostPattern, HostRules, Routes, Tunnel
from tunnelconsole.engine.services.tunnel.visitor import Visitor
from tunnelconsole.engine.sessions import ANONYMOUS
from tunnelconsole.engine.settings import FilePath, ListenAddress, NetworkPattern, Secret
from tunnelconsole.engine.transport.ends import End, SocketEnd, receive, send_all
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.listener import Listener
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.tunnel import KEY_LENGTH, DataOffered, Rejected, TunnelAsked, TunnelServerHandshake

KEEP_ALIVE: Final = 75.0
"""Seconds for which a visitor's connection waits for another request: nginx's."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds a service has to begin its answer: what reverse proxies commonly wait."""

SWEEP: Final = 0.5
"""Seconds between two looks at whose time is over; what is timed here is timed in seconds."""

FIRST_READ: Final = 4096
"""Bytes read at once of a tunnel client's request."""


def _together(certificate: FilePath | None, key: FilePath | None) -> list[Problem]:
    if certificate is not None and key is None:
        return [("key", "missing; a certificate needs its private key")]
    if key is not None and certificate is None:
        return [("certificate", "missing; a private key needs its certificate")]
    return []


def _secure(
    listen_http: ListenAddress | None, certificate: FilePath | None, certificates: Mapping[str, CertificateSettings]
) -> list[Problem]:
    if listen_http is not None and certificate is None and not certificates:
        return [("listen_http", "is for visitors without TLS, and listen is without TLS already; set a certificate")]
    return []


def _hosts(reserved: Mapping[str, str], certificates: Mapping[str, CertificateSettings]) -> list[Problem]:
    found = []
    for key, names in (("reserved", reserved), ("certificates", certificates)):
        for name in names:
            try:
                HostPattern.parse(name)
            except ValueError as error:
                found.append((key, str(error)))
    return found


def _usable_tokens(tokens: Mapping[str, Secret]) -> list[Problem]:
    found = [
        (f"tokens.{name}", "an empty token would let everybody in") for name, secret in tokens.items() if not secret
    ]
    if len(set(tokens.values())) < len(tokens):
        found.append(("tokens", "two identities have the same token, so nobody could tell them apart"))
    return found


def _known_owners(reserved: Mapping[str, str], tokens: Mapping[str, Secret]) -> list[Problem]:
    return [
        ("reserved", f'"{host}" is reserved for {identity}, who has no token')
        for host, identity in reserved.items()
        if identity not in tokens
    ]


class TunnelServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "tunnel-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("certificate", "key"), _together),
        Rule(("listen_http", "certificate", "certificates"), _secure),
        Rule(("reserved", "certificates"), _hosts),
        Rule(("tokens",), _usable_tokens),
        Rule(("reserved", "tokens"), _known_owners),
        KEEPALIVE_RULE,
        above_zero("keep_alive", "no connection could bring a second request"),
        above_zero("response_timeout", "no service could answer in no time"),
    )

    listen_http: ListenAddress | None = None
    """Where visitors and clients without TLS come to, besides those with TLS at ``listen``."""
    certificate: FilePath | None = None
    """PEM file with the certificate chain; with ``key``, ``listen`` is HTTPS."""
    key: FilePath | None = None
    """PEM file with the private key."""
    certificates: dict[str, CertificateSettings] = msgspec.field(default_factory=dict)
    """More of them, by host, or by a pattern such as ``*.example.com``."""
    hosts_allow: tuple[HostPattern, ...] = ()
    """Hosts that clients may have; any when empty."""
    hosts_deny: tuple[HostPattern, ...] = ()
    """Hosts that they may not have; wins over all else."""
    reserved: dict[str, str] = msgspec.field(default_factory=dict)
    """Hosts or patterns that are for one identity alone."""
    tokens: dict[str, Secret] = msgspec.field(default_factory=dict)
    """A token for each identity; when empty, everybody may have a tunnel."""
    shared: bool = False
    """Whether several clients of one identity share a host; otherwise the last one replaces those before it."""
    trusted_proxies: tuple[NetworkPattern, ...] = ()
    """Networks of proxies in front of us, whose word on their visitors' addresses is taken."""
    per_connection: RateSettings | None = None
    """What one visitor's connection may use."""
    per_tunnel: RateSettings | None = None
    """What the visitors of one host may use together."""
    per_identity: RateSettings | None = None
    """What the visitors of all hosts of one identity may use together."""
    native: bool = True
    """Whether our own clients may bring visitors over data connections of their own; False leaves yamux only."""
    inspect: bool = True
    """Whether the last exchanges of each tunnel are kept in memory to be looked at."""
    keep_alive: Duration = Duration(KEEP_ALIVE)
    """Seconds for which a visitor's connection waits for another request."""
    response_timeout: Duration = Duration(RESPONSE_TIMEOUT)
    """Seconds a service has to begin its answer."""
    keepalive: Duration = Duration(KEEPALIVE)
    """Seconds between two questions whether a client lives; unanswered, it is gone after twice that."""


class TunnelServer(ListeningService[TunnelServerSettings]):
    """Serves tunnel clients, those of the original program included, and their visitors."""

    kind = "tunnel-server"

    def __init__(self, name: str, settings: TunnelServerSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.hooks = Hooks()
        self.routes = Routes()
        self.inspector = Inspector()
        self.backends: set[Backend] = set()
        """Clients that are attached or about to be."""
        self._keys: dict[bytes, Backend] = {}
        """Those that make data connections, by the key of these."""
        self.visitors: set[Visitor] = set()
        self.arrivals: set[Arrival] = set()
        self._rules = HostRules(settings.hosts_allow, settings.hosts_deny, settings.reserved)
        self._tokens = {identity: token.encode() for identity, token in settings.tokens.items()}
        self._proxies = Clients(settings.trusted_proxies, []) if settings.trusted_proxies else None
        self._allowances: dict[object, Allowance] = {}
        self._plain_listener: Listener | None = None
        self._certificates: Certificates | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        limits = (settings.per_connection, settings.per_tunnel, settings.per_identity)
        self.limits_rates = self.gate.pace is not None or any(limit is not None for limit in limits)
        """Whether visitors are held to a rate."""

    async def prepare(self) -> None:
        settings = self.settings
        default = None
        if settings.certificate is not None and settings.key is not None:
            default = CertificateSettings(certificate=settings.certificate, key=settings.key)
        if default is not None or settings.certificates:
            self._certificates = Certificates(default, settings.certificates, self._certificate_failed)
        if settings.listen_http is not None:
            self._plain_listener = await self.listen(settings.listen_http, self._accepted_plain)

    async def run(self) -> None:
        self._sweeping = self.node.loop.call_later(SWEEP, self._sweep)
        try:
            await super().run()
        finally:
            self.stop_accepting()
            self._sweeping.cancel()
            for visitor in list(self.visitors):
                visitor.abort("the service stopped")

    def stop_accepting(self) -> None:
        super().stop_accepting()
        if self._plain_listener is not None:
            self._plain_listener.close()
        for arrival in list(self.arrivals):
            arrival.leave()
        for visitor in list(self.visitors):
            visitor.finish()
        for backend in list(self.backends):
            backend.retire()

    def refresh(self) -> None:
        super().refresh()
        if self._certificates is not None:
            self._certificates.refresh()

    def _certificate_failed(self, reason: str) -> None:
        self.node.bus.publish(CertificateUnusable(service=self.name, reason=reason))

    def _sweep(self) -> None:
        """Looks whose time is over: cheaper than a timer for each request."""
        now = self.node.loop.time()
        for arrival in list(self.arrivals):
            if now >= arrival.deadline:
                arrival.late()
        for visitor in list(self.visitors):
            if now >= visitor.deadline:
                with self.node.contain("a visitor whose time is over", self.name):
                    visitor.late(now)
        self._sweeping = self.node.loop.call_later(SWEEP, self._sweep)

    # -- who comes -------------------------------------------------------------------------------------------------

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        if self._certificates is not None and isinstance(end, SocketEnd):
            end = TLSEnd(end.socket, self._certificates.context, server_side=True)
        Arrival(self, end, peer, place)

    def _accepted_plain(self, sock: socket.socket, peer: str) -> None:
        place = self.admit(sock, peer)
        if place is not None:
            Arrival(self, SocketEnd(sock), peer, place)

    def visit(self, end: End, peer: str, place: Place, first: bytes) -> None:
        """A visitor has come."""
        link = EndLink(self.node.loop, end)
        visitor = Visitor(self, link, peer, "https" if isinstance(end, TLSEnd) else "http", place)
        link.resume()
        visitor.begin(first)

    def visitor_left(self, visitor: Visitor) -> None:
        """A visitor's connection is over."""
        self.visitors.discard(visitor)

    def trusts(self, peer: str) -> bool:
        """Whether ``peer`` is a proxy in front of us whose word is taken."""
        return self._proxies is not None and self._proxies.permit(peer)

    def allowance_of(self, tunnel: Tunnel) -> Allowance | None:
        """What the identity that has the tunnel has left; None when that is not limited."""
        settings = self.settings.per_identity
        if settings is None:
            return None
        allowance = self._allowances.get(tunnel.owner)
        if allowance is None:
            allowance = self._allowances[tunnel.owner] = Allowance(settings)
        return allowance

    def greet(self, end: End, peer: str, place: Place, first: bytes) -> None:
        """A tunnel's client has come, or one of its data connections."""
        self.receive_newcomer(self._greet(end, peer, first), end, peer, place)

    async def _greet(self, end: End, peer: str, first: bytes) -> None:
        handshake = TunnelServerHandshake()
        try:
            async with asyncio.timeout(self.settings.limits.handshake_timeout):
                events = handshake.receive_data(first)
                while not events:
                    data = await receive(end, FIRST_READ)
                    if not data:
                        handshake.receive_eof()
                    events = handshake.receive_data(data)
                match events[0]:
                    case TunnelAsked() as asked:
                        await self._attach(end, peer, handshake, asked)
                    case DataOffered(key):
                        await self._attach_data(end, peer, handshake, key)
                    case Rejected(_, reason):
                        self._turn_away(end, peer, handshake, reason)
        except (ProtocolError, OSError) as error:
            self.refused(peer, self.explain(error))
            end.close()

    def _turn_away(self, end: End, peer: str, handshake: TunnelServerHandshake, reason: str) -> None:
        self.refused(peer, reason)
        self.node.farewells.bid(end, handshake.data_to_send())

    # -- a client --------------------------------------------------------------------------------------------------

    async def _attach(self, end: End, peer: str, handshake: TunnelServerHandshake, asked: TunnelAsked) -> None:
        identity, owner = self._identify(asked.token)
        status, reason = await self._judge(asked, peer, identity, owner)
        if status:
            # An original knows 400 and nothing else.
            handshake.refuse(status if asked.native else 400, reason)
            self._turn_away(end, peer, handshake, reason)
            return
        key = secrets.token_bytes(KEY_LENGTH) if asked.native and self.settings.native else None
        handshake.accept(key)
        answer = handshake.data_to_send()
        if end.send(answer) != len(answer) or not end.flush():
            raise ProtocolError("it does not read its side of the handshake")
        tunnel = self._tunnel_of(asked.name, owner)
        backend = Backend(self, tunnel, asked, key, end, peer, handshake.leftover)
        self.backends.add(backend)
        if key is not None:
            self._keys[key] = backend  # data connections may come before the client has greeted
        try:
            await backend.greeted
        except BaseException as error:
            backend.close(str(error) or "it left during the handshake")
            raise
        url = f"{'https' if isinstance(end, TLSEnd) else 'http'}://{asked.host}"
        self._enter(backend, owner, identity, url)

    def _identify(self, token: str) -> tuple[str, object]:
        """Who brings a token, "" for nobody that is known; and what tells one owner of a host from another."""
        given = token.encode()
        if not self._tokens:  # everybody may come, and is told from others by the token that it made up
            return ANONYMOUS, hashlib.sha256(given).digest() if token else object()
        known = ""
        for identity, secret in self._tokens.items():
            if hmac.compare_digest(secret, given):
                known = identity
        return known, known

    async def _judge(self, asked: TunnelAsked, peer: str, identity: str, owner: object) -> tuple[int, str]:
        """The status and the reason with which a tunnel is refused; 0 and "" when it is not."""
        if not identity:
            return 401, "the token is not known here" if asked.token else "a tunnel needs a token here"
        if reason := self._rules.refuses(asked.name, identity):
            return 403, reason
        if reason := self._taken(asked.name, owner):
            return 409, reason
        if reason := self.gate.refuses(new_session=True, new_channel=False):
            return 503, reason
        if self.hooks.authenticate is not None:
            request = Request(asked.name, peer, asked.head.method, asked.head.target, asked.head.fields)
            verdict: str | None = NOT_JUDGED
            with self.node.contain("the authenticate callback", self.name):
                answer = self.hooks.authenticate(request)
                verdict = answer if answer is None or isinstance(answer, str) else await answer
            if verdict:
                return 403, verdict
        return 0, ""

    def _taken(self, host: str, owner: object) -> str:
        tunnel = self.routes.find(host)
        return f"a tunnel for {host} exists already" if tunnel is not None and tunnel.owner != owner else ""

    def _tunnel_of(self, host: str, owner: object) -> Tunnel:
        tunnel = self.routes.find(host)
        if tunnel is not None and tunnel.owner == owner:
            return tunnel
        settings = self.settings
        allowance = Allowance(settings.per_tunnel) if settings.per_tunnel is not None else None
        return Tunnel(host, owner, allowance, self.inspector.log(host) if settings.inspect else None)

    def _enter(self, backend: Backend, owner: object, identity: str, url: str) -> None:
        """From now on the client's visitors may come."""
        host = backend.tunnel.host
        full = self._taken(host, owner) or self.gate.refuses(new_session=True, new_channel=False)
        if full:  # others have come meanwhile
            backend.close(full)
            raise ProtocolError(full)
        tunnel = backend.tunnel = self.routes.find(host) or backend.tunnel
        older = [] if self.settings.shared else list(tunnel.backends)
        tunnel.backends = [backend] if not self.settings.shared else [*tunnel.backends, backend]
        self.routes.add(tunnel)
        backend.session = self.open_session(backend.peer, backend.close, identity=identity, address=url)
        for other in older:
            other.close("the same identity came back and took its place")
        if self.hooks.on_connection is not None:
            with self.node.contain("the on_connection callback", self.name):
                self.hooks.on_connection(url, backend.peer)

    def backend_closed(self, backend: Backend, reason: str) -> None:
        """A client's session is over."""
        self.backends.discard(backend)
        if backend.key is not None:
            self._keys.pop(backend.key, None)
        self.routes.leave(backend.tunnel, backend)
        if backend.tunnel.log is not None and not backend.tunnel.backends:
            self.inspector.forget(backend.tunnel.host)
        if backend.session is not None and self.hooks.on_disconnection is not None:
            with self.node.contain("the on_disconnection callback", self.name):
                self.hooks.on_disconnection(backend.session.address, backend.peer, reason)

    async def _attach_data(self, end: End, peer: str, handshake: TunnelServerHandshake, key: bytes) -> None:
        backend = self._keys.get(key)  # 256 random bits: a guess tells an attacker nothing by its timing
        if backend is None or backend.leaving:
            reason = "its key belongs to no client that is here"
            handshake.refuse(403, reason)
            self._turn_away(end, peer, handshake, reason)
            return
        handshake.accept()
        await send_all(end, handshake.data_to_send())
        if handshake.leftover:
            raise ProtocolError("a data connection said something before it had a visitor")
        backend.add_data_connection(end)
