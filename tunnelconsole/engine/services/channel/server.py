"""The channel server: lets clients in, each with a chid of its own, and hands them to its hub.

``mode = "chan"``: clients say in a handshake who they are and to whom they send
(:mod:`tunnelconsole.engine.wire.channel`). ``mode = "broadcast"``: there is no handshake, and what one sends goes to
all others. Passwords encrypt the handshake, and tell who somebody is.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from tunnelconsole.engine.events import BytesDropped, ReceiverDisconnected, ReceiversChanged
from tunnelconsole.engine.identities import ANONYMOUS, holder_of
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.refusals import kind_of
from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.services.channel.connection import new_chid
from tunnelconsole.engine.services.channel.drops import Loss
from tunnelconsole.engine.services.channel.hold import MAX_HELD
from tunnelconsole.engine.services.channel.hub import Hub, OnSlow
from tunnelconsole.engine.services.channel.party import Party
from tunnelconsole.engine.services.listening import TOKEN_NEEDED, ListeningService, ListeningSettings
from tunnelconsole.engine.services.token_door import (
    TokenBarred,
    TokenRefused,
    begins_with_token,
    hear_token,
    let_pass,
    turn_down,
)
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.settings import Secret
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.transport.ends import READ_SIZE, End, receive, send_all
from tunnelconsole.engine.transport.tls import TLSEnd, complete_handshake
from tunnelconsole.engine.units import Duration, Size
from tunnelconsole.engine.wire.channel import Authenticated, ChannelServerHandshake, JoinAsked, Rejected
from tunnelconsole.engine.wire.channel_lines import check_receivers
from tunnelconsole.engine.wire.errors import NoRoom, NotAllowed, ProtocolError, WrongCredentials
from tunnelconsole.engine.wire.passphrase import MAX_PASSWORDS, SALT_LENGTH, derive_key
from tunnelconsole.engine.wire.token_proof import NOT_KNOWN
from tunnelconsole.errors import RequestRefused

if TYPE_CHECKING:
    from tunnelconsole.engine.wire.sealed_handshake import ServerSealedLines

IDLE_TIMEOUT = 120.0
"""Seconds without a byte from a client or to it until it is closed: the original's."""

FIRST_BYTE_TIMEOUT = 30.0
"""Seconds that a broadcast client has until the first byte from it or to it: the original's."""

BUFFER = 256 * 1024
"""Bytes that wait for each receiver: a few reads, so that a short pause of one of many stops nobody."""

HANDSHAKE_READ = 16 * 1024
"""Bytes read at once during the handshake: all of it in one go, but for very many receivers."""

MAX_HANDSHAKE_BYTES = 16 * 1024 * 1024
"""Bytes of incomplete lines of all newcomers together: the memory that a crowd which never ends its lines can fill."""

FIRST_BROADCAST_CHID = 1000
"""The chid of the first client in broadcast mode, as the original counts them."""

MAX_BUFFER = 64 * 1024 * 1024
"""Bytes of ``buffer`` at the most: beyond it a slow receiver is not slow but gone."""


def _no_password_of_nobody(mode: str, password: Secret | None, passwords: Mapping[str, Secret]) -> list[Problem]:
    if mode == "broadcast" and (password or passwords):
        key = "handshake_password" if password else "passwords"
        return [(key, "broadcast mode has no handshake; use tls and clients_allow to choose who may come")]
    return []


def _usable_passwords(password: Secret | None, passwords: Mapping[str, Secret]) -> list[Problem]:
    found = [(f"passwords.{name}", "an empty password is none") for name, given in passwords.items() if not given]
    known = [*passwords.values(), *([password] if password else [])]
    if len(set(known)) < len(known):
        found.append(("passwords", "two identities have the same password, so nobody could tell them apart"))
    if len(known) > MAX_PASSWORDS:
        found.append(("passwords", f"every newcomer is tried with each, so there may be {MAX_PASSWORDS} at the most"))
    return found


def _possible_hold(mode: str, hold: int) -> list[Problem]:
    if hold and mode == "broadcast":
        return [("hold", "nobody names a receiver in broadcast mode, so there is nothing to hold")]
    return [("hold", f"at most {MAX_HELD} bytes are held in all")] if hold > MAX_HELD else []


def _possible_buffer(buffer: int) -> list[Problem]:
    if READ_SIZE <= buffer <= MAX_BUFFER:
        return []
    return [("buffer", f"must be {READ_SIZE} to {MAX_BUFFER} bytes, one read to what a memory has room for")]


class ChannelServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "channel-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("mode", "handshake_password", "passwords"), _no_password_of_nobody),
        Rule(("handshake_password", "passwords"), _usable_passwords),
        Rule(("mode", "hold"), _possible_hold),
        Rule(("buffer",), _possible_buffer),
    )

    mode: Literal["chan", "broadcast"] = "chan"
    """Whether clients name their receivers, or everything goes to everybody."""
    handshake_password: Secret | None = None
    """Encrypts the handshake; who knows it is ``anonymous``. None or empty: no encryption, unless by ``passwords``."""
    passwords: dict[str, Secret] = msgspec.field(default_factory=dict)
    """A handshake password for each identity."""
    on_slow: OnSlow = "wait"
    """What becomes of a receiver that does not keep up: its senders wait, its bytes are dropped, or it is closed."""
    buffer: Size = Size(BUFFER)
    """Bytes that wait for each receiver before it counts as slow."""
    hold: Size = Size(0)
    """Bytes kept for each named receiver that is not there, and who closes its sending side leaves; 0 drops them."""
    idle_timeout: Duration = Duration(IDLE_TIMEOUT)
    """Seconds without a byte from a client or to it after which it is closed; 0 for never."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody who wants to be let in."""

    end: End
    peer: str
    identity: str
    chid: str
    receivers: tuple[str, ...] = ()
    timeout: float = 0.0
    early: bytes = b""
    grant: Grant | None = None


class ChannelServer(ListeningService[ChannelServerSettings]):
    """Serves channel clients, those of the original program included."""

    kind = "channel-server"
    system = "channel"

    def __init__(self, name: str, settings: ChannelServerSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.hub = Hub(
            node,
            on_slow=settings.on_slow,
            buffer=settings.buffer,
            hold=settings.hold,
            report=self._report,
            too_slow=self._too_slow,
            gone=self._gone,
        )
        self.notes["mode"] = settings.mode
        self._passwords = {identity: password.encode() for identity, password in settings.passwords.items()}
        if settings.handshake_password:
            self._passwords.setdefault(ANONYMOUS, settings.handshake_password.encode())
        self._salt = secrets.token_bytes(SALT_LENGTH)
        self._keys: dict[str, bytes] = {}
        self._broadcast_chids = itertools.count(FIRST_BROADCAST_CHID)
        self._first_byte_timers: dict[Party, asyncio.TimerHandle] = {}
        self._handshake_bytes = 0

    async def prepare(self) -> None:
        for identity, password in self._passwords.items():
            if identity not in self._keys:
                self._keys[identity] = await asyncio.to_thread(derive_key, password, self._salt)

    def stop_accepting(self) -> None:
        super().stop_accepting()
        self.hub.stop_holding()

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        greeting = self._greet(end, peer) if self.settings.mode == "chan" else self._greet_broadcast(end, peer)
        self.receive_newcomer(greeting, end, peer, place)

    def set_receivers(self, session: Session, receivers: Sequence[str]) -> str:
        party = next(party for party in self.hub.parties if party.session is session)
        if self.settings.mode == "broadcast":
            raise RequestRefused(f"service {self.name} is in broadcast mode", "there everything goes to everybody")
        if party.ended:
            raise RequestRefused(f"{party.chid} has closed its sending side", "it sends to nobody any more")
        try:
            checked = check_receivers(receivers)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        self.hub.set_receivers(party, checked)
        channel_id = ""
        if party.channel is not None:
            channel_id, party.channel.label = party.channel.id, party.label
        changed = ReceiversChanged(
            service=self.name, session=session.id, channel=channel_id, chid=party.chid, receivers=party.receivers_label
        )
        self.node.bus.publish(changed)
        return changed.text()

    async def _greet(self, end: End, peer: str) -> None:
        """Hears who a newcomer is, and lets it in or turns it away."""
        handshake = ChannelServerHandshake(self._free_chid, self._sealing(), secrets.token_bytes)
        try:
            async with asyncio.timeout(self.settings.limits.handshake_timeout):
                if isinstance(end, TLSEnd):
                    await complete_handshake(end)
                identity, asked = await self._hear(end, handshake)
            grant = self._judge(asked, peer)
            identity = self.identity_of(end, identity, grant)
            early = handshake.leftover
            newcomer = Newcomer(end, peer, identity, asked.chid, asked.receivers, asked.timeout, early, grant)
            self._let_in(newcomer, handshake)
        except (ProtocolError, OSError) as error:
            self._turn_away(end, peer, error, handshake)

    def _judge(self, asked: JoinAsked, peer: str) -> Grant | None:
        """What a newcomer has proved, if that was a token.

        :raises ProtocolError: it may not come in with it, or may not be or send to whom it wants.
        """
        grant = None
        if asked.proof is not None:
            grant = self.node.tokens.prove(asked.proof)
            if grant is None:
                raise WrongCredentials(NOT_KNOWN)
        if barred := self.barred(grant, peer):
            raise NotAllowed(barred)
        if grant is not None and grant.rights.chids:
            for chid in (asked.chid, *asked.receivers):
                if not grant.rights.grants_chid(chid):
                    raise NotAllowed(f"the token is not for the chid {chid}")
            if not asked.receivers:
                raise NotAllowed("the token is for some chids only, so the receivers must be named")
        return grant

    async def _greet_broadcast(self, end: End, peer: str) -> None:
        """Lets a newcomer in, who need not say anything unless a token is required."""
        try:
            grant, early = None, b""
            async with asyncio.timeout(self.settings.limits.handshake_timeout):
                if isinstance(end, TLSEnd):
                    await complete_handshake(end)
                if self.settings.require_token:
                    grant, early = await self._hear_broadcast_token(end, peer)
            chid = str(next(self._broadcast_chids))
            identity = self.identity_of(end, grant=grant)
            full = self.no_room(peer, identity, grant, new_session=True, new_channel=True)
            if full:
                raise NoRoom(full)
            party = self._join(Newcomer(end, peer, identity, chid, early=early, grant=grant))
        except (TokenRefused, TokenBarred) as error:
            self.refused(peer, str(error), kind_of(error))
            self.node.farewells.bid(end, b"")
        except (ProtocolError, OSError) as error:
            self.refused(peer, self.explain(error), kind_of(error))
            end.close()
        else:
            self._first_byte_timers[party] = self.node.loop.call_later(FIRST_BYTE_TIMEOUT, self._still_silent, party)

    async def _hear_broadcast_token(self, end: End, peer: str) -> tuple[Grant, bytes]:
        """What a newcomer proves, and what it said behind that.

        :raises ProtocolError: it proves nothing, or may not come in with it.
        """
        first = await receive(end, HANDSHAKE_READ)
        if not begins_with_token(first):
            raise NotAllowed(TOKEN_NEEDED)
        grant, handshake = await hear_token(end, self.node.tokens, first)
        barred = self.barred(grant, peer)
        if not barred and grant.rights.chids:
            barred = "the token is for some chids only, and here everything goes to everybody"
        if barred:
            await turn_down(end, handshake, barred)
            raise TokenBarred(barred)
        return grant, await let_pass(end, handshake)

    async def _hear(self, end: End, handshake: ChannelServerHandshake) -> tuple[str, JoinAsked]:
        """Leads a newcomer through its handshake; returns its identity and what it asked for.

        :raises ProtocolError: it broke the protocol, knows no password, or left.
        """
        identity = ANONYMOUS
        held = 0
        try:
            while True:
                await send_all(end, handshake.data_to_send())
                data = await receive(end, HANDSHAKE_READ)
                if not data:
                    handshake.receive_eof()
                if mistake := self.mistaken(data):
                    raise ProtocolError(mistake)
                for event in handshake.receive_data(data):
                    match event:
                        case Authenticated(identity):
                            pass
                        case JoinAsked():
                            return identity, event
                        case Rejected(reason, wrong):
                            raise wrong or ProtocolError(reason)
                self._handshake_bytes += handshake.held - held
                held = handshake.held
                if self._handshake_bytes > MAX_HANDSHAKE_BYTES:
                    raise NoRoom("too many newcomers are sending long lines")
        finally:
            self._handshake_bytes -= held

    def _let_in(self, newcomer: Newcomer, handshake: ChannelServerHandshake) -> None:
        """Answers a newcomer that asked to be let in; nobody else can take its chid meanwhile.

        :raises ProtocolError: it cannot be.
        :raises OSError: it is gone.
        """
        older = self.hub.routes.present.get(newcomer.chid)
        if older is not None and not self._is_same(older, newcomer):
            raise NotAllowed(f"chid {newcomer.chid} is taken")
        full = ""
        if older is None:
            full = self.no_room(newcomer.peer, newcomer.identity, newcomer.grant, new_session=True, new_channel=True)
        if full:
            raise NoRoom(full)
        handshake.accept()
        answer = handshake.data_to_send()
        try:
            taken = newcomer.end.send(answer)
        except BlockingIOError:
            taken = 0
        if taken != len(answer):
            raise ProtocolError("it does not read its side of the handshake")
        if older is not None:
            older.finish(f"replaced by {newcomer.peer}")
        self._join(newcomer)

    def _is_same(self, older: Party, newcomer: Newcomer) -> bool:
        """Whether somebody comes back who may take the place of who it was."""
        older_token = older.session.grant.token if older.session is not None and older.session.grant else None
        token = newcomer.grant.token if newcomer.grant is not None else None
        holder = holder_of(newcomer.identity, newcomer.grant)
        if older.session is None or older.session.holder != holder or older_token is not token:
            return False  # a token, a password and a certificate may have one name, and are not the same
        return bool(holder) or _host(older.peer) == _host(newcomer.peer)

    def _join(self, newcomer: Newcomer) -> Party:
        grant = newcomer.grant
        party = Party(
            self.hub,
            newcomer.end,
            newcomer.peer,
            str(newcomer.identity),
            newcomer.chid,
            newcomer.receivers,
            newcomer.early,
            self.pace_for(newcomer.peer, newcomer.identity, grant),
        )
        session = party.session = self.open_session(newcomer.peer, party.abort, identity=newcomer.identity, grant=grant)
        channel = party.channel = self.open_channel(session, party.label, party)
        limits = (channel.idle_timeout, self.settings.idle_timeout, newcomer.timeout)
        channel.idle_timeout = min((seconds for seconds in limits if seconds), default=0.0)
        channel.held_up = party.held_up
        self.hub.join(party)
        return party

    def _turn_away(
        self, end: End, peer: str, error: ProtocolError | OSError, handshake: ChannelServerHandshake
    ) -> None:
        reason = self.explain(error)
        self.refused(peer, reason, kind_of(error))
        if isinstance(error, ProtocolError | TimeoutError) and not (isinstance(end, TLSEnd) and not end.established):
            if not handshake.answered:
                handshake.refuse(reason)
            self.node.farewells.bid(end, handshake.data_to_send())
        else:
            end.close()

    def _sealing(self) -> ServerSealedLines | None:
        if not self._keys:
            return None
        # Only where there is a password: cryptography costs 10 MiB and a tenth of a second.
        from tunnelconsole.engine.wire.sealed_handshake import ServerSealedLines  # noqa: PLC0415

        return ServerSealedLines(self._keys, self._salt, secrets.token_bytes)

    def _free_chid(self) -> str:
        """A chid that nobody has, for a client that brings none."""
        while True:
            chid = new_chid()
            if chid not in self.hub.routes.present:
                return chid

    def _still_silent(self, party: Party) -> None:
        del self._first_byte_timers[party]
        if not party.bytes_in and not party.bytes_out:
            party.finish(f"nothing from it or to it within {FIRST_BYTE_TIMEOUT:g} s")

    def _report(self, loss: Loss, size: int) -> None:
        self.node.bus.publish(
            BytesDropped(
                service=self.name,
                session=loss.session,
                channel=loss.channel,
                chid=loss.chid,
                count=size,
                reason=loss.reason,
            )
        )

    def _too_slow(self, party: Party) -> None:
        session, channel = party.session, party.channel
        self.node.bus.publish(
            ReceiverDisconnected(
                service=self.name,
                session=session.id if session is not None else "",
                channel=channel.id if channel is not None else "",
                peer=party.peer,
                chid=party.chid,
                waiting=party.waiting,
            )
        )

    def _gone(self, party: Party, reason: str) -> None:
        timer = self._first_byte_timers.pop(party, None)
        if timer is not None:
            timer.cancel()
        if party.channel is not None:
            self.close_channel(party.channel, reason)
        if party.session is not None:
            self.close_session(party.session, reason)


def _host(peer: str) -> str:
    return peer.rpartition(":")[0]
