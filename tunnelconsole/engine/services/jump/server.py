"""The jump server: lets in who knows a secret, and dials what they ask for.

A connection's life is one small state machine driven by callbacks, without a task: accepted, TLS where it is on, the
handshake of :mod:`tunnelconsole.engine.wire.jump`, the name resolved (the one step that needs a task, and only for
names), every address judged by ``allow`` and ``deny``, the dial, and then the pump.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Hashable, Iterable, Mapping
from functools import partial
from typing import ClassVar

import msgspec

from tunnelconsole.engine.access import Destinations
from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.refusals import RefusalKind, kind_of
from tunnelconsole.engine.rules import Problem, Rule, above_zero
from tunnelconsole.engine.services.listening import TLS_ON, ListeningService, ListeningSettings
from tunnelconsole.engine.services.service import proved
from tunnelconsole.engine.sessions import ANONYMOUS
from tunnelconsole.engine.settings import DestinationPattern, Secret
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.tokens.register import NOT_READABLE
from tunnelconsole.engine.transport.dialer import DIAL_TIMEOUT, Address, Dial, numeric, resolve
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.pump import Finished, Pump
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.jump import (
    Authenticated,
    BadSecret,
    BadTarget,
    JumpServerHandshake,
    ServerEvent,
    TargetAsked,
    make_challenge,
)
from tunnelconsole.errors import ConnectFailed

HANDSHAKE_READ = 512
"""Bytes read at once during the handshake: both of the client's frames, and a little more."""

EMPTY_SECRET = "an empty secret would let everybody in"  # noqa: S105 - a sentence
"""What is wrong with it."""


def _some_secret(secret: Secret | None, secrets: Mapping[str, Secret], require_token: bool) -> list[Problem]:
    if secret is None and not secrets and not require_token:
        wanted = "set secret, secret_file, a secrets table, or require_token"
        return [("secret", f"a jump server needs a secret: {wanted}")]
    return []


def _one_way_in(secret: Secret | None, secrets: Mapping[str, Secret], require_token: bool) -> list[Problem]:
    if require_token and (secret is not None or secrets):
        return [("require_token", "the secrets in this table would let others in; leave them out, or this")]
    return []


def _no_empty_secret(secret: Secret | None) -> list[Problem]:
    return [("secret", EMPTY_SECRET)] if secret == "" else []


def _usable_secrets(secrets: Mapping[str, Secret]) -> list[Problem]:
    found = [(f"secrets.{name}", EMPTY_SECRET) for name, secret in secrets.items() if not secret]
    if len(set(secrets.values())) < len(secrets):
        found.append(("secrets", "two identities have the same secret, so nobody could tell them apart"))
    return found


class JumpServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "jump-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("secret", "secrets", "require_token"), _some_secret),
        Rule(("secret", "secrets", "require_token"), _one_way_in),
        Rule(("secret",), _no_empty_secret),
        Rule(("secrets",), _usable_secrets),
        above_zero("dial_timeout", "no address could answer in no time"),
    )

    secret: Secret | None = None
    """One secret for everybody, whose identity is then ``anonymous``."""
    secrets: dict[str, Secret] = msgspec.field(default_factory=dict)
    """A secret for each identity."""
    allow: tuple[DestinationPattern, ...] = ()
    """Where it may dial; by default anything but this host's own addresses, link-local and multicast."""
    deny: tuple[DestinationPattern, ...] = ()
    """Where it may not; wins over ``allow``."""
    dial_timeout: Duration = Duration(DIAL_TIMEOUT)
    """Seconds for each address of a target to answer."""


class JumpServer(ListeningService[JumpServerSettings]):
    """Serves jump clients, those of the original program included."""

    kind = "jump-server"
    system = "jump"

    def __init__(self, name: str, settings: JumpServerSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self._secrets: dict[Hashable, bytes] = {who: secret.encode() for who, secret in settings.secrets.items()}
        if settings.secret is not None:
            self._secrets.setdefault(ANONYMOUS, settings.secret.encode())
        self._of_tokens: Mapping[Hashable, bytes] | None = None
        self._all_secrets: Mapping[Hashable, bytes] = self._secrets
        if not (self._secrets or settings.require_token) or not all(self._secrets.values()):
            raise ValueError("a jump server needs at least one secret, and none may be empty")
        self.destinations = Destinations(settings.allow, settings.deny)
        self.admissions: set[Admission] = set()

    def leave_newcomers(self) -> None:
        super().leave_newcomers()
        for admission in list(self.admissions):
            admission.cancel()

    async def prepare(self) -> None:
        await self.node.tokens.keyring.open_sealed()

    @property
    def secrets(self) -> Mapping[Hashable, bytes]:
        """What a newcomer may prove: by identity those of the settings, by grant those of tokens."""
        of_tokens = self.node.tokens.keyring.jump_secrets
        if of_tokens is not self._of_tokens:  # one table for all newcomers: with many tokens it is no small one
            self._of_tokens, self._all_secrets = of_tokens, {**self._secrets, **of_tokens}
        return self._all_secrets

    def permitted(
        self, host: str, port: int, addresses: Iterable[Address], grant: Grant | None = None
    ) -> list[Address]:
        """Those of the addresses that ``host`` has which may be dialled on ``port``, with this token if with any."""
        return [
            address
            for address in addresses
            if self.destinations.permit(host, address.host, port)
            and (grant is None or grant.rights.grants_destination(host, address.host, port))
        ]

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        Admission(self, end, peer, place)


class Admission:
    """One newcomer, from its first byte until its channel is piped or it is turned away."""

    __slots__ = (
        "_destinations",
        "_dial",
        "_end",
        "_grant",
        "_handshake",
        "_identity",
        "_input",
        "_peer",
        "_place",
        "_server",
        "_target",
        "_task",
        "_timer",
    )

    def __init__(self, server: JumpServer, end: End, peer: str, place: Place) -> None:
        self._server = server
        self._end = end
        self._peer = peer
        self._place = place
        place.lost = partial(self._turn_away, kind="limit")
        self._identity = ANONYMOUS
        self._grant: Grant | None = None
        self._destinations: tuple[str, ...] = ()
        """Those of its token by which the target was judged."""
        self._target = ("", 0)
        self._dial: Dial | None = None
        self._task: asyncio.Task[None] | None = None
        self._handshake = JumpServerHandshake(make_challenge(secrets.token_bytes), server.secrets)
        loop = server.node.loop
        self._timer = loop.call_later(server.settings.limits.handshake_timeout, self._late)
        self._input = InputWatch(loop, end.fileno(), self._readable)
        self._input.start()
        server.admissions.add(self)
        if not isinstance(end, TLSEnd):
            self._send_pending()

    def cancel(self) -> None:
        """Turns the newcomer away without a word, because the service stops."""
        self._leave()
        self._end.abort()

    def _late(self) -> None:
        reason = self._server.explain(TimeoutError())
        if isinstance(self._end, TLSEnd) and not self._end.heard:  # we would have to speak first, without TLS
            reason += f", and not a byte, which is how a client without TLS waits; if it is one, {TLS_ON}"
        self._turn_away(reason, "timeout")

    def _readable(self) -> None:
        try:
            if isinstance(self._end, TLSEnd) and not self._end.established:
                self._end.handshake()
                if not self._send_pending():
                    return
            data = self._end.receive(HANDSHAKE_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._turn_away(self._server.explain(error), kind_of(error))
            return
        try:
            if data:
                for event in self._handshake.receive_data(data):
                    if self in self._server.admissions:  # the answer to the one before may have found the client gone
                        self._on(event, data)
            else:
                self._handshake.receive_eof()
        except ProtocolError as error:
            self._turn_away(str(error), kind_of(error))

    def _on(self, event: ServerEvent, data: bytes) -> None:
        """Acts on what the client did, with the last of its bytes that it took."""
        match event:
            case Authenticated(Grant() as grant):
                self._identity, self._grant = self._server.identity_of(self._end, grant=grant), grant
                self._send_pending()
            case Authenticated(identity):
                self._identity = self._server.identity_of(self._end, str(identity))
                self._send_pending()
            case TargetAsked(host, port):
                self._ask_for(host, port)
            case BadSecret() if not self._server.node.tokens.readable:
                self._turn_away(NOT_READABLE, "not_allowed")  # without the answer that would have it give up
            case BadSecret():
                mistake = self._server.mistaken(data)
                self._server.refused(self._peer, mistake or "wrong secret", "tls" if mistake else "credentials")
                self._part()
            case BadTarget(text):
                self._fail(text, "target must be host:port", told=True)

    def _ask_for(self, host: str, port: int) -> None:
        self._target = (host, port)
        full = self._no_room()
        if full:
            self._fail(format_host_port(host, port), full)
            return
        self._timer.cancel()
        address = numeric(host, port)
        if address is not None:
            self._dial_permitted([address])
        else:
            self._input.stop()
            self._task = self._server.tasks.start(self._resolve(host, port), f"resolve for {self._peer}")

    async def _resolve(self, host: str, port: int) -> None:
        try:
            addresses = await resolve(host, port, self._server.settings.dial_timeout)
        except ConnectFailed as error:
            self._fail(format_host_port(host, port), error.message)
        else:
            self._dial_permitted(addresses)

    def _dial_permitted(self, addresses: list[Address]) -> None:
        host, port = self._target
        if self._grant is not None:
            self._destinations = self._grant.rights.destinations
        permitted = self._server.permitted(host, port, addresses, self._grant)
        if not permitted:
            self._fail(format_host_port(host, port), f"dial tcp {format_host_port(host, port)}: not allowed here")
            return
        self._dial = Dial(self._server.node.loop, permitted, self._server.settings.dial_timeout, self._dialled)
        self._dial.start()
        if self._dial is not None:  # not connected at once: what the client sends meanwhile stays in the kernel
            self._input.stop()

    def _dialled(self, sock: socket.socket | None, error: str) -> None:
        self._dial = None
        if sock is None:
            self._fail(format_host_port(*self._target), error)
            return
        full = self._no_room()
        if not full and self._grant is not None and self._grant.rights.destinations != self._destinations:
            full = "the destinations of the token changed"
        if full:  # others were let in during the dial
            sock.close()
            self._fail(format_host_port(*self._target), full)
            return
        self._handshake.accept()
        if not self._send_pending():
            sock.close()
            return
        early = self._handshake.leftover
        # Where the pump reads this socket at once, it takes over the reader in place, which is cheaper than a new one.
        server, client = self._server, self._end
        pace = server.pace_for(self._peer, self._identity, self._grant)
        adopted = not early and pace is None and isinstance(client, SocketEnd)
        self._leave(keep_reader=adopted)

        def start(finished: Finished) -> Pump:
            return Pump(server.node.plane, client, SocketEnd(sock), finished, early_left=early, pace=pace)

        label = format_host_port(*self._target)
        server.carry_alone(self._peer, label, start, identity=self._identity, grant=self._grant)

    def _no_room(self) -> str:
        """Why it cannot be led on now; "" when it can."""
        barred = self._server.barred(self._grant, self._peer)
        return barred or self._server.no_room(
            self._peer, self._identity, self._grant, new_session=True, new_channel=True
        )

    def _send_pending(self) -> bool:
        output = self._handshake.data_to_send()
        try:
            if not output or self._end.send(output) == len(output):
                return True
            self._turn_away("it does not read its side of the handshake", "protocol")
        except OSError as error:
            self._turn_away(self._server.explain(error), kind_of(error))
        return False

    def _fail(self, target: str, reason: str, *, told: bool = False) -> None:
        """Turns down a target, to the client and in an event."""
        if not told:
            self._handshake.refuse(reason)
        self._server.node.bus.publish(
            TargetFailed(
                service=self._server.name,
                peer=self._peer,
                target=target,
                reason=reason,
                identity=proved(self._identity),
            )
        )
        self._part()

    def _part(self) -> None:
        self._leave()
        self._server.node.farewells.bid(self._end, self._handshake.data_to_send())

    def _turn_away(self, reason: str, kind: RefusalKind) -> None:
        self._server.refused(self._peer, reason, kind)
        self._leave()
        self._end.close()

    def _leave(self, *, keep_reader: bool = False) -> None:
        """Ends the admission, whatever became of the newcomer."""
        self._timer.cancel()
        if keep_reader:
            self._input.hand_over()
        else:
            self._input.stop()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self in self._server.admissions:
            self._server.admissions.discard(self)
            self._place.leave()
