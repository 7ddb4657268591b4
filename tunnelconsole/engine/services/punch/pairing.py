"""An end of a pair: keeps its seat in the room, a link to the other end, and the best path for it there is.

The relay carries the link from the first moment. Rounds of punching go on beside it until there is a direct path, and
begin again when that one dies; the link's user notices none of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
from contextlib import suppress
from typing import Final

from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.punch.carrier import Carrier
from tunnelconsole.engine.services.punch.identity import RoomIdentity
from tunnelconsole.engine.services.punch.meeting import Meeting, PairingUser
from tunnelconsole.engine.services.punch.round import KnownNat, Ours, Round
from tunnelconsole.engine.services.punch.seat import Offered, Seat, dial_relay, new_number, take_seat
from tunnelconsole.engine.services.service import ServerDialer
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.pump import Pump
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import parse_host_port
from tunnelconsole.engine.wire.punch import Go, Left, Notice, Peer
from tunnelconsole.engine.wire.punch_offer import Mode, Offer
from tunnelconsole.engine.wire.punch_room import NONCE_LENGTH, Role, RoomKey, role_of, room_key
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, RequestRefused, TunnelConsoleError

RELAY_TIME: Final = 5.0
"""Seconds for TLS through the relay, once both are there."""

FIRST_ROUND_AGAIN: Final = 30.0
"""Seconds on the relay until the next round: what was in the way is often a network that was just changing."""

LAST_ROUND_AGAIN: Final = 600.0
"""Seconds between two rounds in the end: each costs up to 1,300 packets."""

ROUND_AFTER_LOSS: Final = 1.0
"""Seconds from the loss of a direct path to the next round: whoever lost it is on the relay by then."""

WRONG_WAYS: Final = {
    Mode.OPENS: "both ends have listen: one of the two needs a target",
    Mode.ACCEPTS: "both ends have a target: one of the two needs listen",
}
"""What is wrong where both ends are of this mode."""


class Pairing:
    """One end of a pair; :meth:`run` keeps it up.

    :param service: under which attempts are registered.
    :param tasks: who owns what runs here.
    """

    def __init__(self, node: Node, service: str, tasks: Tasks, meeting: Meeting, user: PairingUser) -> None:
        self._node = node
        self._service = service
        self._tasks = tasks
        self.meeting = meeting
        self._user = user
        self._key: RoomKey | None = None
        self._identity: RoomIdentity | None = None
        self._known_nat = KnownNat()
        self.carrier: Carrier | None = None
        self._link = b""
        self._pair: Pair | None = None
        self._attempt: Attempt | None = None
        """The one that waits for the other end."""
        self.address = ""
        """From where the rendezvous sees us, once it does."""
        self.local = ""
        """Our own ``host:port`` on the way to it."""
        self.alone = True
        """Whether nobody else was there when we took our seat."""

    @property
    def path(self) -> str:
        """What carries the link now: ``direct``, ``relay``, or nothing."""
        return (self.carrier.kind or "") if self.carrier is not None else ""

    async def run(self) -> None:
        """Runs until cancelled; a link that has a direct path goes on while the rendezvous is away.

        :raises ConnectFailed: the rendezvous cannot be reached, or does not want us, and there is no link.
        :raises CredentialsRefused: it is not the one that was pinned.
        """
        if self._key is None:
            self._key = await asyncio.to_thread(room_key, self.meeting.room, self.meeting.secret)
            self._identity = RoomIdentity(self._key.certificate_seed)
        backoff = Backoff()
        while True:
            began = self._node.loop.time()
            try:
                await self._sit(self._key, self._identity_made())
            except CredentialsRefused:
                raise
            except ConnectFailed:
                if self.carrier is None:
                    raise
            backoff.worked_for(self._node.loop.time() - began)
            await asyncio.sleep(backoff.next())

    def _identity_made(self) -> RoomIdentity:
        if self._identity is None:
            raise RuntimeError("there is no identity before there is a key")
        return self._identity

    def close(self, reason: str) -> None:
        """Ends the link and leaves the room; safe to call twice."""
        self._part(reason)
        if self.carrier is not None:
            self.carrier.close(reason)

    def race_now(self) -> None:
        """Begins a round at once, in place of waiting for the next.

        :raises RequestRefused: it would be of no use now.
        """
        room = f"room {self.meeting.room}"
        if not self.meeting.direct:
            raise RequestRefused(f"{room} is to stay on the relay", "take direct = false out of the configuration")
        if self.path == "direct":
            raise RequestRefused(f"{room} has a direct path already", "a round begins by itself should it be lost")
        if self._pair is None:
            raise RequestRefused(f"{room} is out of reach, because the rendezvous is", "look at what the events say")
        self._pair.race_now()

    async def _sit(self, key: RoomKey, identity: RoomIdentity) -> None:
        """Takes a seat, and does what is to be done there.

        :raises ConnectFailed: the rendezvous is gone, or was not there.
        """
        meeting, number = self.meeting, new_number()
        dialer = ServerDialer(meeting.server, meeting.connect, meeting.tls, meeting.timeout)
        early = None if self.path else self._tasks.start(dial_relay(dialer, number), "relay")
        seat: Seat | None = None
        try:
            seat = await take_seat(dialer, meeting.room, key, number)
            self.address, self.local, self.alone = seat.address, seat.local_address, seat.first
            self._user.seated()
            self._await_peer()
            endpoints = await seat.endpoints((meeting.connect or meeting.server).host)
            seen, _ = parse_host_port(seat.address)
            ours = Ours(key, identity, meeting.mode, self._known_nat, endpoints, seen)
            pair = self._pair = Pair(self, seat, ours)
            if early is not None:
                pair.relay(early)
                early = None
            while True:
                await self._hear(seat, ours)
        finally:
            self._part("the rendezvous is gone" if seat is not None else "")
            if early is not None:
                await _discard(early)
            if seat is not None:
                seat.close()

    async def _hear(self, seat: Seat, ours: Ours) -> None:
        news = await seat.next()
        pair = self._pair
        match news:
            case Peer() if pair is not None:
                await pair.begin()
            case Left() if pair is not None:
                relaying = pair.part("the other side left")
                self._pair = Pair(self, seat, ours)
                self._await_peer()
                if relaying or not self.path:
                    self._pair.relay()
            case Offered() if pair is not None:
                await pair.offered(news)
            case Go(step=step) if pair is not None:
                pair.go(step)
            case Notice(reason):
                self._user.warned(reason)
            case _:
                pass  # of a pair that is no more

    def _await_peer(self) -> None:
        """Registers an attempt that waits for the other side, where there is to be one."""
        if self._attempt is None and self.meeting.direct:
            self._attempt = self._node.attempts.begin(self._service, self.meeting.room)

    def _part(self, reason: str) -> None:
        if self._pair is not None:
            self._pair.part(reason)
            self._pair = None
        if self._attempt is not None:
            self._attempt.end("left", reason=reason)
            self._attempt = None

    def next_attempt(self) -> Attempt:
        """The attempt of a round that begins."""
        attempt, self._attempt = self._attempt, None
        return attempt or self._node.attempts.begin(self._service, self.meeting.room)

    def link_with(self, pair: Pair, offer: Offer, role: Role, nonces: tuple[bytes, bytes], seen: str) -> Carrier:
        """The link with the other end: the one that both have, or a new one.

        :param nonces: ours and theirs.
        """
        if self.carrier is not None and not self.carrier.over and offer.link == self._link.hex():
            return self.carrier
        if self.carrier is not None:
            self.carrier.close("the other side has begun anew")
        link = hashlib.sha256(b"".join(sorted(nonces))).digest()[:NONCE_LENGTH]

        def moved(kind: str) -> None:
            if self.carrier is carrier:
                self._user.moved(kind)

        def path_lost(kind: str, reason: str) -> None:
            if self.carrier is carrier and self._pair is not None:
                self._pair.path_lost(kind, reason)

        def ended(reason: str) -> None:
            if self.carrier is carrier:
                self.carrier, self._link = None, b""
                self._user.unlinked(reason)

        carrier = Carrier(
            self._node.loop,
            link,
            role.value,
            nonces[0],
            nonces[1],
            farewells=self._node.farewells,
            moved=moved,
            path_lost=path_lost,
            ended=ended,
        )
        self.carrier, self._link = carrier, link
        self._user.linked(carrier, offer, seen, leads=role is Role.A)
        return carrier

    @property
    def link(self) -> str:
        """The link that we have, in hex; empty when we have none."""
        return self._link.hex() if self.carrier is not None and not self.carrier.over else ""

    @property
    def node(self) -> Node:
        """Where it runs."""
        return self._node

    @property
    def tasks(self) -> Tasks:
        """Who owns what runs here."""
        return self._tasks

    def warn(self, reason: str) -> None:
        """Tells the user."""
        self._user.warned(reason)


class Pair:
    """Two seats of one room, for as long as both are taken by the same."""

    def __init__(self, pairing: Pairing, seat: Seat, ours: Ours) -> None:
        self._pairing = pairing
        self._seat = seat
        self._ours = ours
        self._nonce = secrets.token_bytes(NONCE_LENGTH)
        self._met: asyncio.Future[Carrier] = pairing.node.loop.create_future()
        self._begun = False
        self._relaying: asyncio.Task[None] | None = None
        self._round: Round | None = None
        self._racing: asyncio.Task[None] | None = None
        self._rounds = 0
        self._again: asyncio.TimerHandle | None = None
        self._pause = FIRST_ROUND_AGAIN
        self._over = False

    async def begin(self) -> None:
        """The other seat is taken: says who we are.

        :raises ConnectFailed: the rendezvous is gone.
        """
        if not self._begun:
            self._begun = True
            await self._introduce()

    async def _introduce(self) -> None:
        pairing = self._pairing
        needs_relay = not pairing.path
        if needs_relay:
            self.relay()
        offer = Offer(nonce=self._nonce.hex(), link=pairing.link, mode=self._ours.mode, relay=needs_relay)
        await self._seat.say(offer)

    async def offered(self, theirs: Offered) -> None:
        """The other seat has said something.

        :raises ConnectFailed: the rendezvous is gone.
        """
        offer = theirs.offer
        await self.begin()
        if offer.round == 0:
            self._meet(theirs)
            if offer.relay:
                self.relay()
            if not self._rounds:
                self._start_round(1)
        elif offer.round > self._rounds:
            self._start_round(offer.round, asked=True)
        if self._round is not None and offer.round == self._round.number:
            self._round.offered(theirs)

    def go(self, step: str) -> None:
        """Both seats are ready."""
        if self._round is not None:
            self._round.go(step)

    def _meet(self, theirs: Offered) -> None:
        """Makes a link of the two, or goes on with the one that they have."""
        if self._met.done():
            return
        offer, mode = theirs.offer, self._ours.mode
        if offer.mode is mode and mode in WRONG_WAYS:
            self._pairing.warn(WRONG_WAYS[mode])
            return
        their_nonce = bytes.fromhex(offer.nonce)
        try:
            role = role_of(self._nonce, their_nonce)
        except ProtocolError as error:
            self._pairing.warn(str(error))
            return
        seen = next(iter(theirs.seen), "")
        self._met.set_result(self._pairing.link_with(self, offer, role, (self._nonce, their_nonce), seen))

    def relay(self, dialling: asyncio.Task[End] | None = None) -> None:
        """Has the link carried by the relay, once the other end wants that too; does nothing where that is under way.

        :param dialling: brings a connection to the relay, if there is one already.
        """
        if self._relaying is None or self._relaying.done():
            self._relaying = self._pairing.tasks.start(self._relay(dialling), "relay")

    async def _relay(self, dialling: asyncio.Task[End] | None) -> None:
        backoff = Backoff()
        while True:
            try:
                end = await (dialling if dialling is not None else self._seat.relay())
                await self._carry(end)
            except (TunnelConsoleError, TimeoutError) as error:
                if self._over:
                    return
                self._pairing.warn(f"the relay does not work: {str(error) or 'the other side did not answer'}")
            else:
                return
            dialling = None
            await asyncio.sleep(backoff.next())
            if self._pairing.path:
                return
            await self._ask_for_relay()

    async def _ask_for_relay(self) -> None:
        with suppress(ConnectFailed):  # then the seat is gone too, and that is told where it is listened to
            await self._seat.say(
                Offer(nonce=self._nonce.hex(), link=self._pairing.link, mode=self._ours.mode, relay=True)
            )

    async def _carry(self, end: End) -> None:
        """Gives the link the path through the relay.

        :raises ConnectFailed: it broke, or the other side did not prove itself.
        :raises TimeoutError: nothing came of it in time, once both were there.
        """
        identity = self._ours.identity
        # Who was here first is TLS's client, and says its first words at once: they wait at the rendezvous.
        secure = identity.end(_socket_of(end, self._pairing.node), server_side=not self._seat.first)
        try:
            completing = self._pairing.tasks.start(identity.complete(secure), "TLS through the relay")
            try:
                await asyncio.wait([completing, self._met], return_when=asyncio.FIRST_COMPLETED)
                async with asyncio.timeout(RELAY_TIME):
                    await completing
                    carrier = await asyncio.shield(self._met)
            finally:
                completing.cancel()
                with suppress(asyncio.CancelledError, TunnelConsoleError):
                    await completing
        except BaseException:
            secure.abort()
            raise
        carrier.attach(secure, "relay")

    def path_lost(self, kind: str, reason: str) -> None:
        """The link has lost a path: the relay carries it, and the next round looks for another."""
        if self._over:
            return
        self._pairing.warn(f"the {kind} path is lost: {reason}")
        if not self._pairing.path:
            self.relay()
            self._pairing.tasks.start(self._ask_for_relay(), "ask for the relay")
        if kind == "direct":
            self._pause = FIRST_ROUND_AGAIN
            self._schedule(ROUND_AFTER_LOSS)

    def _schedule(self, seconds: float) -> None:
        if self._again is not None:
            self._again.cancel()
        self._again = self._pairing.node.loop.call_later(seconds, self._start_next_round)

    def _start_next_round(self) -> None:
        if self._racing is None or self._racing.done():
            self._start_round(self._rounds + 1)

    def race_now(self) -> None:
        """Begins the next round.

        :raises RequestRefused: there is nobody to race with, or a round is under way.
        """
        if not self._met.done():
            room = self._pairing.meeting.room
            raise RequestRefused(f"nobody else is in room {room}", "a round begins by itself when somebody comes")
        if self._racing is not None and not self._racing.done():
            raise RequestRefused(f"round {self._rounds} is under way", "it is over within seconds; see attempts")
        self._pause = FIRST_ROUND_AGAIN
        self._start_round(self._rounds + 1)

    def _start_round(self, number: int, *, asked: bool = False) -> None:
        """Begins a round, in place of an older one.

        :param asked: the other end wants it, and may know better whether the direct path is alive.
        """
        if self._over or not self._pairing.meeting.direct or not self._met.done():
            return
        if self._pairing.path == "direct" and not asked:
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._racing is not None:
            self._racing.cancel()
        self._rounds = number
        attempt = self._pairing.next_attempt()
        self._round = Round(self._seat, number, self._ours, attempt, self._pairing.tasks)
        self._racing = self._pairing.tasks.start(self._play(self._round), f"round {number}")

    async def _play(self, played: Round) -> None:
        attempt = played.attempt
        try:
            end = await played.run()
            carrier = await asyncio.shield(self._met)
        except ConnectFailed as error:
            attempt.end("failed", error=error.message)
        except asyncio.CancelledError:
            attempt.end("left", reason="the other side left, or another round takes its place")
            raise
        else:
            if end is not None:
                carrier.attach(end, "direct")
                attempt.end("direct", method=attempt.method)
                self._pause = FIRST_ROUND_AGAIN
                return
            relayed = self._pairing.path == "relay"
            attempt.end("relay" if relayed else "failed", method="relay" if relayed else "", reason=played.reason)
        self._schedule(self._pause)
        self._pause = min(LAST_ROUND_AGAIN, 2 * self._pause)

    def part(self, reason: str) -> bool:
        """Ends what is under way here; the link and its paths stay. True when the relay was waited for."""
        self._over = True
        if self._again is not None:
            self._again.cancel()
        relaying = self._relaying is not None and not self._relaying.done()
        for task in (self._relaying, self._racing):
            if task is not None:
                task.cancel()
        self._met.cancel()
        return relaying


def _socket_of(end: End, node: Node) -> socket.socket:
    """The socket of a plain end, or one that leads through ``end``: for TLS inside TLS."""
    if isinstance(end, SocketEnd):
        return end.socket
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    Pump(node.plane, end, SocketEnd(theirs), lambda _: None)
    return ours


async def _discard(dialling: asyncio.Task[End]) -> None:
    """Closes what comes of a dial that nobody wants any more."""
    dialling.cancel()
    with suppress(asyncio.CancelledError, TunnelConsoleError):
        (await dialling).close()
