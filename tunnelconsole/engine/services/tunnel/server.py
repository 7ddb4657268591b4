"""The tunnel server: a public hostname for each client that attaches, and a way from each visitor to its client.

All come to one port. A connection that begins like a tunnel client's request is one, or a data connection of one, which
our own client dials so that visitors' bytes can be spliced (:mod:`tunnelconsole.engine.wire.tunnel`); any other is a
visitor.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import msgspec

from tunnelconsole.engine.access import Clients, source_of
from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rates import Allowance, RateSettings
from tunnelconsole.engine.rules import Problem, Rule, above_zero
from tunnelconsole.engine.services.certificate_pair import CertificatePair
from tunnelconsole.engine.services.listening import ListeningService, ListeningSettings
from tunnelconsole.engine.services.native import KEEPALIVE, KEEPALIVE_RULE
from tunnelconsole.engine.services.tunnel.admission import Admission
from tunnelconsole.engine.services.tunnel.arrival import Arrival
from tunnelconsole.engine.services.tunnel.backend import Backend
from tunnelconsole.engine.services.tunnel.certificates import Certificates, CertificateSettings
from tunnelconsole.engine.services.tunnel.hooks import Hooks
from tunnelconsole.engine.services.tunnel.inspector import Inspector
from tunnelconsole.engine.services.tunnel.routes import Routes, Tunnel
from tunnelconsole.engine.services.tunnel.visitor import Visitor
from tunnelconsole.engine.sessions import Channel
from tunnelconsole.engine.settings import FilePath, ListenAddress, NetworkPattern, Secret, TLSSettings
from tunnelconsole.engine.shares import Lately
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.listener import Listener, is_loopback
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.tunnel import check_token
from tunnelconsole.errors import ListenFailed

KEEP_ALIVE: Final = 75.0
"""Seconds for which a visitor's connection waits for another request: nginx's."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds a service has to begin its answer: what reverse proxies commonly wait."""

SWEEP: Final = 0.5
"""Seconds between two looks at whose time is over; what is timed here is timed in seconds."""


def _together(certificate: FilePath | None, key: FilePath | None) -> list[Problem]:
    if certificate is not None and key is None:
        return [("key", "missing; a certificate needs its private key")]
    if key is not None and certificate is None:
        return [("certificate", "missing; a private key needs its certificate")]
    return []


def _secure(
    listen_http: ListenAddress | None,
    certificate: FilePath | None,
    certificates: Mapping[str, CertificateSettings],
    tls: TLSSettings | None,
) -> list[Problem]:
    if listen_http is not None and certificate is None and not certificates and tls is None:
        return [("listen_http", "is for visitors without TLS, and listen is without TLS already; set a certificate")]
    return []


def _one_tls(
    certificate: FilePath | None, certificates: Mapping[str, CertificateSettings], tls: TLSSettings | None
) -> list[Problem]:
    if tls is not None and (certificate is not None or certificates):
        given = "certificate" if certificate is not None else "certificates"
        return [("tls", f"the service has certificates of its own by the key {given}; leave one of the two out")]
    return []


def _no_client_certificates(tls: TLSSettings | None) -> list[Problem]:
    if tls is None or not tls.asks_clients:
        return []
    return [("tls", "visitors come to the same port, and have no client certificates; use tokens for its clients")]


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
    for name, secret in tokens.items():
        try:
            if secret:
                check_token(secret)
        except ValueError as error:
            found.append((f"tokens.{name}", f"{str(error).removeprefix('the token ')}, so no client could bring it"))
    if len(set(tokens.values())) < len(tokens):
        found.append(("tokens", "two identities have the same token, so nobody could tell them apart"))
    return found


def _known_owners(reserved: Mapping[str, str], tokens: Mapping[str, Secret], require_token: bool) -> list[Problem]:
    if require_token and not tokens:
        return []  # for tokens of the node, which come and go
    return [
        ("reserved", f'"{host}" is reserved for {identity}, who has no token')
        for host, identity in reserved.items()
        if identity not in tokens
    ]


def _known_sharers(shared: bool, shared_by: tuple[str, ...], tokens: Mapping[str, Secret]) -> list[Problem]:
    found = [("shared_by", f"{identity} has no token") for identity in shared_by if identity not in tokens]
    if shared and shared_by:
        found.append(("shared_by", "shared lets all identities share their hosts already; leave one of the two out"))
    return found


def _of_each(limit: RateSettings | None) -> Lately[Allowance] | None:
    """What each of many has left of a limit of its own; None for no limit."""
    return Lately(lambda: Allowance(limit)) if limit is not None else None


class TunnelServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "tunnel-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("certificate", "key"), _together),
        Rule(("listen_http", "certificate", "certificates", "tls"), _secure),
        Rule(("certificate", "certificates", "tls"), _one_tls),
        Rule(("tls",), _no_client_certificates),
        Rule(("reserved", "certificates"), _hosts),
        Rule(("tokens",), _usable_tokens),
        Rule(("reserved", "tokens", "require_token"), _known_owners),
        Rule(("shared", "shared_by", "tokens"), _known_sharers),
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
    shared_by: tuple[str, ...] = ()
    """Identities whose clients do, where not those of all do."""
    trusted_proxies: tuple[NetworkPattern, ...] = ()
    """Networks of proxies in front of us, whose word on their visitors' addresses is taken."""
    per_connection: RateSettings | None = None
    """What one visitor's connection may use."""
    per_tunnel: RateSettings | None = None
    """What the visitors of one host may use together."""
    per_identity: RateSettings | None = None
    """What the visitors of all hosts of one identity may use together."""
    per_address: RateSettings | None = None
    """What all visitors of one address, or of one IPv6 network of 64 bits, may use together."""
    per_service: RateSettings | None = None
    """What all visitors may use together."""
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
    system = "tunnel"

    def __init__(self, name: str, settings: TunnelServerSettings, node: Node) -> None:
        """Makes the service, stopped.

        :raises ValueError: its clients would have to bring certificates, and so would visitors.
        """
        if problems := _no_client_certificates(settings.tls):
            raise ValueError("; ".join(f"{key} {sentence}" for key, sentence in problems))
        super().__init__(name, settings, node)
        self.hooks = Hooks()
        self.routes = Routes()
        self.inspector = Inspector()
        self.backends: set[Backend] = set()
        """Clients that are attached or about to be."""
        self.visitors: set[Visitor] = set()
        self.arrivals: set[Arrival] = set()
        self.admission = Admission(self)
        self._proxies = Clients(settings.trusted_proxies, []) if settings.trusted_proxies else None
        self._plain_listener: Listener | None = None
        self._certificates: Certificates | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._allowance = Allowance(settings.per_service) if settings.per_service is not None else None
        self._of_addresses = _of_each(settings.per_address)
        self._of_owners = _of_each(settings.per_identity)
        self._of_hosts = _of_each(settings.per_tunnel)

    async def prepare(self) -> None:
        settings = self.settings
        default = None
        if settings.certificate is not None and settings.key is not None:
            default = CertificateSettings(certificate=settings.certificate, key=settings.key)
        if default is not None or settings.certificates:
            if settings.tls is not None:
                raise ListenFailed(
                    f"service {self.name} has certificates of its own and a tls table", "leave one of them out"
                )
            self._certificates = Certificates(default, settings.certificates)
        if settings.listen_http is not None:
            self._plain_listener = await self.listen(settings.listen_http, self._accepted_plain)
            self.notes["http"] = self._plain_listener.address

    def listening(self, listener: Listener, address: str = "") -> None:
        super().listening(listener, address)
        if self._plain_listener is not None:
            self.exposed |= not is_loopback(self._plain_listener.host)

    async def run(self) -> None:
        self._sweeping = self.node.loop.call_later(SWEEP, self._sweep)
        try:
            await super().run()
        finally:
            self.stop_accepting()
            self._sweeping.cancel()
            for visitor in list(self.visitors):
                visitor.abort("the service stopped")

    def repace_channel(self, channel: Channel) -> None:
        flow = channel.flow
        if isinstance(flow, Visitor):
            flow.repace()

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

    @property
    def certificates(self) -> Sequence[CertificatePair]:
        return (*super().certificates, *(self._certificates.pairs if self._certificates is not None else ()))

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

    def allowances_of(self, peer: str) -> list[Allowance]:
        """What a visitor has left that it shares with none of the tunnels: its own, its address's, and everybody's."""
        settings, found = self.settings, []
        if settings.per_connection is not None:
            found.append(Allowance(settings.per_connection))
        if self._of_addresses is not None:
            found.append(self._of_addresses.of(source_of(peer)))
        if self._allowance is not None:
            found.append(self._allowance)
        return found

    # -- who comes -------------------------------------------------------------------------------------------------

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        if self._certificates is not None and isinstance(end, SocketEnd):
            end = TLSEnd(end.socket, self._certificates.context, server_side=True)
        Arrival(self, end, peer, place)

    def _accepted_plain(self, sock: socket.socket, peer: str) -> None:
        place = self.admit(sock, peer)
        if place is not None:
            Arrival(self, SocketEnd(sock), peer, place)

    def visit(self, end: End, peer: str, place: Place, first: bytes, deadline: float) -> None:
        """A visitor has come, whose first head is to be complete by the deadline."""
        link = EndLink(self.node.loop, end)
        visitor = Visitor(self, link, peer, "https" if isinstance(end, TLSEnd) else "http", place, deadline)
        link.resume()
        visitor.begin(first)

    def visitor_left(self, visitor: Visitor) -> None:
        """A visitor's connection is over."""
        self.visitors.discard(visitor)
        if self._of_addresses is not None:
            self._of_addresses.of(source_of(visitor.peer))

    def trusts(self, peer: str) -> bool:
        """Whether ``peer`` is a proxy in front of us whose word is taken."""
        return self._proxies is not None and self._proxies.permit(peer)

    def shares(self, identity: str) -> bool:
        """Whether several clients of an identity may share a host."""
        return self.settings.shared or identity in self.settings.shared_by

    def url_of(self, host: str) -> str:
        """The public URL of a host, as visitors reach this server directly."""
        secure = self._certificates is not None or self.settings.tls is not None
        port = self._listener.port if self._listener is not None else 0
        usual = port == (443 if secure else 80)
        return f"{'https' if secure else 'http'}://{host}{'' if usual else f':{port}'}"

    def tunnel_of(self, host: str, owner: object) -> Tunnel:
        """The tunnel for a host, a new one unless ``owner`` has it."""
        tunnel = self.routes.find(host)
        if tunnel is not None and tunnel.owner == owner:
            return tunnel
        allowances = self._allowances_of_tunnel(host, owner)
        return Tunnel(host, owner, allowances, self.inspector.log(host) if self.settings.inspect else None)

    def _allowances_of_tunnel(self, host: str, owner: object) -> list[Allowance]:
        """What the visitors of a host, and of all hosts of its owner, have left; remembered for some time from now."""
        of_both = ((self._of_hosts, host), (self._of_owners, owner))
        return [each.of(who) for each, who in of_both if each is not None]

    def greet(self, end: End, peer: str, place: Place, first: bytes, deadline: float) -> None:
        """A tunnel's client has come, or one of its data connections; it is to be let in by the deadline."""
        self.receive_newcomer(self.admission.greet(end, peer, first, deadline), end, peer, place)

    def entered(self, backend: Backend) -> None:
        """A client's visitors may come."""
        if self.hooks.on_connection is not None:
            with self.node.contain("the on_connection callback", self.name):
                self.hooks.on_connection(backend.address, backend.peer)

    def backend_closed(self, backend: Backend, reason: str) -> None:
        """A client's session is over."""
        self.backends.discard(backend)
        self.admission.forget(backend)
        self.routes.leave(backend.tunnel, backend)
        self._allowances_of_tunnel(backend.tunnel.host, backend.tunnel.owner)
        if backend.tunnel.log is not None and not backend.tunnel.backends:
            self.inspector.forget(backend.tunnel.host)
        if backend.session is not None and self.hooks.on_disconnection is not None:
            with self.node.contain("the on_disconnection callback", self.name):
                self.hooks.on_disconnection(backend.address, backend.peer, reason)
