"""An end of a pair: keeps its seat in the room, a link to the other end, and the best path for it there is.

The relay carries the link from the first moment. Rounds of punching go on beside it until there is a direct path, and
begin again when that one dies; the link's user notices none of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.punch.carrier import Carrier
from tunnelconsole.engine.services.punch.identity import RoomIdentity
from tunnelconsole.engine.services.punch.meeting import Meeting, PairingUser
from tunnelconsole.engine.services.punch.pair import Pair, RelayDial
from tunnelconsole.engine.services.punch.round import KnownNat, Ours
from tunnelconsole.engine.services.punch.seat import Offered, Seat, new_number, take_seat
from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.wire.hostport import parse_host_port
from tunnelconsole.engine.wire.punch import Go, Left, Notice, Peer
from tunnelconsole.engine.wire.punch_offer import Mode, Offer
from tunnelconsole.engine.wire.punch_room import NONCE_LENGTH, Role, RoomKey, room_key
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, RequestRefused

BEGUN_ANEW: Final = "the other side has begun anew"

STOPPED: Final = "this end was stopped"


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
        early = None if self.path else RelayDial(self._tasks, dialer, number)
        seat: Seat | None = None
        parted = STOPPED
        try:
            seat = await take_seat(dialer, meeting.room, key, number, meeting.token or "")
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
        except ConnectFailed as error:
            parted = error.message
            with dialer.judging():
                raise
        finally:
            self._part(parted)
            if early is not None:
                early.discard()
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
                if self._attempt is not None:
                    self._attempt.reason = reason
                self._user.warned(reason)
            case _:
                pass  # of a pair that is no more

    def _await_peer(self) -> None:
        """Registers an attempt that waits for the other side, where there is to be one."""
        if self._attempt is None and self.meeting.direct and self.path != "direct":
            self._attempt = self._node.attempts.begin(self._service, self.meeting.room)

    def _part(self, reason: str) -> None:
        """Ends what is under way in the room; who has only waited there has tried nothing."""
        if self._pair is not None:
            self._pair.part(reason)
            self._pair = None
        if self._attempt is not None:
            self._node.attempts.withdraw(self._attempt)
            self._attempt = None

    def next_attempt(self) -> Attempt:
        """The attempt of a round that begins."""
        attempt, self._attempt = self._attempt, None
        return attempt or self._node.attempts.begin(self._service, self.meeting.room)

    def link_with(self, offer: Offer, role: Role, nonces: tuple[bytes, bytes], seen: str) -> Carrier:
        """The link with the other end: the one that both have, or a new one.

        :param nonces: ours and theirs.
        """
        if self.carrier is not None and not self.carrier.over and offer.link == self._link.hex():
            return self.carrier
        if self.carrier is not None:
            old, self.carrier = self.carrier, None
            old.close(BEGUN_ANEW)
            self._user.unlinked(BEGUN_ANEW)
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
                if self._pair is not None and self.meeting.mode is not Mode.EITHER:
                    self._await_peer()
                    self._pair.link_ended()

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
