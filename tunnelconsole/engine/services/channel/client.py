"""The channel client: joins a channel server, and bridges that to a TCP connection that it dials or accepts.

In ``mode = "chan"`` it joins as a chid; a server in ``mode = "broadcast"`` has none, and no handshake.

One local end after the other is bridged over one connection to the server. What the server brings while there is none
waits in it, so that nothing is lost; with a ``key`` only what the present other end has sealed counts.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

from tunnelconsole.engine.backoff import STABLE_AFTER, Backoff
from tunnelconsole.engine.events import SealBroken, ServiceListening, TargetFailed
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.services.channel.bridge import LocalBridge
from tunnelconsole.engine.services.channel.connection import (
    BROADCAST,
    Connection,
    Membership,
    Password,
    reach,
    reach_broadcast,
)
from tunnelconsole.engine.services.channel.uplink import Bridging, PlainBridging, Uplink
from tunnelconsole.engine.services.server_dialer import ClientService, ClientSettings, ServerDialer, ssh_rules
from tunnelconsole.engine.services.token_door import TOKEN_RULE
from tunnelconsole.engine.settings import HostPort, ListenAddress, Secret, ServerAddress
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.listener import Listener, is_loopback
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.channel_lines import check_chid, check_receivers, check_timeout
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

BROADCAST_LASTS = 20.0
"""Seconds after which it is no failure that a server in broadcast mode closes: the original's does after 30, whatever
it sends, when nothing was sent to it, and ours when nothing was sent at all."""

_OTHER_MODE = 'if it has chids, set mode = "chan" here'

MAX_WAITING = 16
"""Local programs that may wait for their turn: a burst of one browser; who comes later is turned away."""


def _one_local_end(target: HostPort | None, listen: ListenAddress | None) -> list[Problem]:
    if target is None and listen is None:
        return [("target", "missing; give target to dial one, or listen to accept one")]
    if target is not None and listen is not None:
        return [("listen", "a target that is dialled and a listener exclude each other; leave one out")]
    return []


def _possible_chid(chid: str) -> list[Problem]:
    try:
        if chid:
            check_chid(chid)
    except ValueError as error:
        return [("chid", str(error))]
    return []


def _possible_receivers(chid: str, receivers: tuple[str, ...]) -> list[Problem]:
    try:
        check_receivers(receivers)
    except ValueError as error:
        return [("receivers", str(error))]
    return [("receivers", f"only {chid} itself, which never gets its own bytes")] if receivers == (chid,) else []


def _possible_timeout(timeout: float) -> list[Problem]:
    try:
        check_timeout(timeout)
    except ValueError as error:
        return [("timeout", str(error))]
    return []


def _dial_of_a_target(target: HostPort | None, dial: str | None) -> list[Problem]:
    if dial is not None and target is None:
        return [("dial", "says when the target is dialled, and there is none")]
    return []


def _only_with_a_handshake(key: str, reason: str) -> Rule:
    """A rule for a key that means something in ``chan`` mode alone."""

    def find(mode: str, value: object) -> list[Problem]:
        if mode == BROADCAST and value:
            return [(key, f'{reason} in broadcast mode; leave it out, or set mode = "chan" if the server has that')]
        return []

    return Rule(("mode", key), find)


class ChannelClientSettings(ClientSettings, frozen=True, kw_only=True):
    """``kind = "channel-client"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("target", "listen"), _one_local_end),
        Rule(("chid",), _possible_chid),
        Rule(("chid", "receivers"), _possible_receivers),
        Rule(("timeout",), _possible_timeout),
        Rule(("target", "dial"), _dial_of_a_target),
        _only_with_a_handshake("chid", "nobody has a chid"),
        _only_with_a_handshake("receivers", "what we send goes to everybody else"),
        _only_with_a_handshake("handshake_password", "there is no handshake"),
        _only_with_a_handshake("timeout", "there is no handshake to ask for it"),
        TOKEN_RULE,
        *ssh_rules(),
    )

    server: ServerAddress | HostPort
    mode: Literal["chan", "broadcast"] = "chan"
    """The server's: whether we say who we are and to whom we send, or everything goes to everybody."""
    chid: str = ""
    """Who we are at the server; empty leaves it to the server."""
    receivers: tuple[str, ...] = ()
    """Who gets what we send; all others when there are none."""
    target: HostPort | None = None
    """What is dialled and bridged."""
    listen: ListenAddress | None = None
    """Where local programs connect that are bridged, in place of a ``target``."""
    dial: Literal["at-once", "on-data"] | None = None
    """When the target is dialled; ``at-once``, or with a ``key`` when the other end begins."""
    key: Secret | None = None
    """Encrypts the payload, end to end; None or empty: no encryption."""
    token: Secret | None = None
    """What we prove to the server, one of ours; None: nothing."""
    handshake_password: Secret | None = None
    """The server's; None or empty: it has none."""
    timeout: Duration = Duration(0)
    """Seconds without a byte either way after which the server shall close; 0 for what the server has."""


class LocalEnd(NamedTuple):
    """What is bridged."""

    end: End
    peer: str


class Waiting(NamedTuple):
    """A local program that waits for its turn."""

    local: LocalEnd
    timer: asyncio.TimerHandle


class ChannelClient(ClientService[ChannelClientSettings]):
    """Bridges a channel server, the original program included, to a TCP connection."""

    kind = "channel-client"

    def __init__(self, name: str, settings: ChannelClientSettings, node: Node) -> None:
        super().__init__(name, settings, node, settings.server)
        self._who = Membership(settings.chid, settings.receivers, settings.timeout, settings.token or "")
        self._password = Password(settings.handshake_password) if settings.handshake_password else None
        self._bridging: Bridging = _sealed(settings.key) if settings.key else PlainBridging(node.plane)
        self._dials_on_data = settings.dial == "on-data" or (settings.dial is None and bool(settings.key))
        self._broadcasts = settings.mode == BROADCAST
        self._lasts = BROADCAST_LASTS if self._broadcasts else STABLE_AFTER
        self._listener: Listener | None = None
        self._waiting: deque[Waiting] = deque()
        self._somebody_waits = asyncio.Event()
        self._stopping = False
        self._life: asyncio.Timeout | None = None
        self._why_lost = ""

    @property
    def target(self) -> str:
        settings = self.settings
        bridged = f", bridged to {settings.target}" if settings.target else ""
        return f"{self._label} at {settings.server}{self.through}{bridged}"

    @property
    def _label(self) -> str:
        """Who we are, and to whom we send."""
        return BROADCAST if self._broadcasts else self._who.label

    async def run(self) -> None:
        settings = self.settings
        await self._open_listener()
        timeout = settings.limits.handshake_timeout
        dialer = ServerDialer(settings.server, settings.connect, settings.tls, timeout, way=self.way)
        self.enter("connecting")
        while True:
            await self._wait_if_stopping()
            try:
                if self._broadcasts:
                    connection = await reach_broadcast(dialer, self._who.token, timeout)
                else:
                    connection = await reach(dialer, self._who, self._password, timeout)
                self._joined(connection.chid)
                with dialer.judging():
                    await self._serve(connection)
            except CredentialsRefused:
                self.stop_accepting()
                raise

    def stop_accepting(self) -> None:
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        while self._waiting:
            waiting = self._waiting.popleft()
            waiting.timer.cancel()
            waiting.local.end.abort()

    async def _wait_if_stopping(self) -> None:
        """What ends while the service drains is not followed by another: the engine cancels the run."""
        if self._stopping:
            await self.node.loop.create_future()

    # The connection to the server.

    def _joined(self, chid: str) -> None:
        self._who = replace(self._who, chid=chid)
        self.notes |= {"mode": BROADCAST} if self._broadcasts else {"chid": chid}
        if self.state != "connected":
            # In broadcast mode whoever comes to the server comes to our target.
            reached_at = self._listener.address if self._listener is not None else chid or str(self.settings.server)
            self.connected(self.settings.server, reached_at)

    async def _serve(self, connection: Connection) -> None:
        """Bridges one local end after the other.

        Returns when the server has closed a connection that lasted and was idle, or in broadcast mode just lasted: that
        is no failure, and coming back at once is all there is to do.

        :raises ConnectFailed: the connection was lost otherwise.
        """
        server, loop = self.settings.server, self.node.loop
        joined = loop.time()
        life = self._life = asyncio.timeout(None)
        try:
            async with life:
                uplink = Uplink(connection.end, connection.early, self._bridging, self.node.farewells, self)
                try:
                    lost = await self._bridge_all(uplink)
                finally:
                    uplink.close()
        except OSError as error:
            if not life.expired():
                raise ConnectFailed(f"{server}: the connection broke: {error.strerror or error}") from error
            if loop.time() - joined < self._lasts:
                raise self._failed(self._why_lost) from None
        else:
            if not self._broadcasts or loop.time() - joined < self._lasts:
                raise self._failed(lost)
        finally:
            self._life = None

    def _failed(self, reason: str) -> ConnectFailed:
        hint = f"is that server in broadcast mode? {_OTHER_MODE}" if self._broadcasts else ""
        return ConnectFailed(f"{self.settings.server}: {reason}", hint)

    def lost(self, reason: str) -> None:
        """Part of :class:`~tunnelconsole.engine.services.channel.uplink.Owner`."""
        self._why_lost = reason
        if self._life is not None:
            self._life.reschedule(self.node.loop.time())

    def garbage(self) -> None:
        """Part of :class:`~tunnelconsole.engine.services.channel.uplink.Owner`."""
        self._broken_seal("what comes was not sealed for us; has its sender a key, and the same?")

    def _broken_seal(self, reason: str) -> None:
        self.node.bus.publish(SealBroken(service=self.name, peer=str(self.settings.server), reason=reason))

    # Local ends.

    async def _bridge_all(self, uplink: Uplink) -> str:
        """Bridges one local end after the other until the connection to the server is lost; returns why it was."""
        loop, backoff = self.node.loop, Backoff()
        while True:
            local = await self._next_local(uplink, backoff)
            began = loop.time()
            self.carry_alone(local.peer, self._label, partial(self._bridge, uplink, local))
            outcome = await uplink.settle()
            if outcome.hub_lost:
                return outcome.reason
            if outcome.fault:
                self._broken_seal(outcome.reason)
            if outcome.fault or (self.settings.target is not None and not self._dials_on_data):
                backoff.worked_for(loop.time() - began)
                await asyncio.sleep(backoff.next())

    def _bridge(self, uplink: Uplink, local: LocalEnd, finished: Finished) -> LocalBridge:
        others = self._others_wait if self.settings.target is None else None
        return uplink.bridge(local.end, self.pace_for(local.peer), lambda outcome: finished(outcome.reason), others)

    def _others_wait(self) -> bool:
        return bool(self._waiting)

    async def _next_local(self, uplink: Uplink, backoff: Backoff) -> LocalEnd:
        """The next local end, dialled or accepted."""
        while True:
            await self._wait_if_stopping()
            if self.settings.target is None:
                await self._somebody_waits.wait()
                local = self._next_waiting()
            else:
                local = await self._dial(self.settings.target, uplink, backoff)
            if local is not None:
                return local

    async def _dial(self, target: HostPort, uplink: Uplink, backoff: Backoff) -> LocalEnd | None:
        """A connection to the target, once it is wanted; None, and an event, when there was none to be had."""
        if self._dials_on_data:
            await uplink.something_came()
            await self._wait_if_stopping()
        try:
            return LocalEnd(await dial(target.host, target.port), str(target))
        except ConnectFailed as error:
            failed = TargetFailed(service=self.name, peer=self._label, target=str(target), reason=error.message)
        self.node.bus.publish(failed)
        await uplink.refuse()
        await asyncio.sleep(backoff.next())
        uplink.forget_callers()
        return None

    async def _open_listener(self) -> None:
        listen = self.settings.listen
        if listen is None or self._listener is not None:
            return
        self._listener = await self.listen(listen, self._accepted)
        self.exposed = not is_loopback(self._listener.host)
        self.node.bus.publish(
            ServiceListening(service=self.name, kind=self.kind, address=self._listener.address, exposed=self.exposed)
        )

    def _accepted(self, sock: socket.socket, peer: str) -> None:
        place = self.admit(sock, peer)
        if place is None:
            return
        place.leave()  # it has nothing to say before its turn
        full = self.gate.refuses(new_session=True, new_channel=True)
        if not full and len(self._waiting) >= MAX_WAITING:
            full = f"{MAX_WAITING} programs wait for their turn already"
        if full:
            self.refused(peer, full, "limit")
            sock.close()
            return
        local = LocalEnd(SocketEnd(sock), peer)
        timer = self.node.loop.call_later(self.settings.limits.handshake_timeout, self._too_late, local)
        self._waiting.append(Waiting(local, timer))
        self._somebody_waits.set()

    def _next_waiting(self) -> LocalEnd | None:
        if not self._waiting:
            self._somebody_waits.clear()
            return None
        waiting = self._waiting.popleft()
        waiting.timer.cancel()
        return waiting.local

    def _too_late(self, local: LocalEnd) -> None:
        self._waiting = deque(waiting for waiting in self._waiting if waiting.local is not local)
        seconds = self.settings.limits.handshake_timeout
        cause = "another program has the channel" if self.attached else "the channel server is not connected"
        self.refused(local.peer, f"it has waited {seconds:g} s for its turn: {cause}", "timeout")
        local.end.abort()


def _sealed(key: Secret) -> Bridging:
    # Only where there is a key: cryptography costs 10 MiB and a tenth of a second.
    from tunnelconsole.engine.services.channel.sealed_bridging import SealedBridging  # noqa: PLC0415

    return SealedBridging(key)
