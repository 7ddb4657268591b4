"""The relay server: a public port for each backend that attaches, and a way from each visitor to its backend.

A connection that begins like yamux is a backend; one that begins with the key of a backend is a data connection, which
our own client dials so that a visitor's bytes can be spliced (:mod:`tunnelconsole.engine.wire.relay`).
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.refusals import kind_of
from tunnelconsole.engine.rules import Rule, own_host
from tunnelconsole.engine.services.listening import ListeningService, ListeningSettings
from tunnelconsole.engine.services.native import KEEPALIVE, KEEPALIVE_RULE
from tunnelconsole.engine.services.ports import PortPool
from tunnelconsole.engine.services.relay.backend import Backend
from tunnelconsole.engine.services.token_door import TokenBarred, TokenRefused, begins_with_token, hear_token, let_pass
from tunnelconsole.engine.settings import PortRange
from tunnelconsole.engine.transport.ends import End, receive
from tunnelconsole.engine.transport.tls import TLSEnd, complete_handshake
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.errors import NotAllowed, ProtocolError
from tunnelconsole.engine.wire.relay import MAX_PUBLIC_ADDRESS, DataHello, is_native
from tunnelconsole.engine.wire.token_proof import MAGIC
from tunnelconsole.errors import ListenFailed

FIRST_READ = 4096
"""Bytes read at once until it is clear who a newcomer is."""

LONGEST_PUBLIC_HOST = MAX_PUBLIC_ADDRESS - len(":65535")
"""Bytes of the host that backends are told: an original takes no longer address."""


class RelayServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "relay-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        own_host("bind"),
        own_host("public_host", LONGEST_PUBLIC_HOST),
        KEEPALIVE_RULE,
    )

    ports: PortRange = PortRange(0, 0)
    """Public ports to choose from; any free ones by default."""
    bind: str = "127.0.0.1"
    """The address on which public ports are opened."""
    public_host: str = "localhost"
    """The host that backends are told, before the port."""
    native: bool = True
    """Whether our own clients may bring visitors over data connections of their own; False leaves yamux only."""
    keepalive: Duration = Duration(KEEPALIVE)
    """Seconds between two keepalives."""


class RelayServer(ListeningService[RelayServerSettings]):
    """Serves relay clients, those of the original program included."""

    kind = "relay-server"
    system = "relay"

    def __init__(self, name: str, settings: RelayServerSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.ports = PortPool(settings.bind, settings.ports)
        self.backends: dict[bytes, Backend] = {}
        """Backends that are attached or about to be, by the key of their data connections."""

    async def prepare(self) -> None:
        try:
            await self.ports.check()
        except ListenFailed as error:
            raise self.blame("bind", error) from error

    def stop_accepting(self) -> None:
        super().stop_accepting()
        for backend in list(self.backends.values()):
            backend.stop_accepting()

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        self.receive_newcomer(self._greet(end, peer), end, peer, place)

    def _count(self) -> tuple[int, int]:
        sessions, channels = super()._count()
        return sessions, channels + sum(backend.waiting for backend in self.backends.values())

    async def _greet(self, end: End, peer: str) -> None:
        """Finds out who a newcomer is, and lets it in or turns it away."""
        backend: Backend | None = None  # once there is one, the end is its own to close
        first = b""
        try:
            async with asyncio.timeout(self.settings.limits.handshake_timeout):
                if isinstance(end, TLSEnd):
                    await complete_handshake(end)
                first = await receive(end, FIRST_READ)
                if not first:
                    raise ProtocolError("it closed before it said anything")
                first = await self._as_much_as_tells(end, first)
                if begins_with_token(first):
                    grant, handshake = await hear_token(end, self.node.tokens, first)
                    backend = Backend(self, end, peer, await let_pass(end, handshake), grant)
                    await backend.attach()
                elif is_native(first[0]):
                    await self._attach_data(end, first)
                else:
                    backend = Backend(self, end, peer, first, None)
                    await backend.attach()
        except (TokenBarred, TokenRefused) as error:
            self.refused(peer, str(error), kind_of(error))
            self.node.farewells.bid(end, b"")
        except (ProtocolError, OSError) as error:
            mistake = self.mistaken(first)
            self.refused(peer, mistake or self.explain(error), "tls" if mistake else kind_of(error))
            if backend is None:
                end.close()

    async def _as_much_as_tells(self, end: End, first: bytes) -> bytes:
        """What somebody has said, as far as it takes to tell a token from a data connection."""
        while is_native(first[0]) and len(first) < len(MAGIC):
            data = await receive(end, FIRST_READ)
            if not data:
                raise ProtocolError("it closed before it had said what it is")
            first += data
        return first

    async def _attach_data(self, end: End, first: bytes) -> None:
        hello = DataHello()
        key = hello.receive_data(first)
        while key is None:
            data = await receive(end, FIRST_READ)
            if not data:
                hello.receive_eof()
            key = hello.receive_data(data)
        backend = self.backends.get(key)  # 256 random bits: a guess tells an attacker nothing by its timing
        if backend is None:
            raise NotAllowed("its key belongs to no backend that is here")
        if hello.leftover:
            raise ProtocolError("a data connection said something before it had a visitor")
        backend.add_data_connection(end)
