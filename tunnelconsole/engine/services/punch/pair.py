"""Two seats of one room, for as long as both are taken by the same: their link, its relay, and their rounds."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.punch.carrier import Carrier
from tunnelconsole.engine.services.punch.round import Ours, Round
from tunnelconsole.engine.services.punch.seat import Offered, Seat, dial_relay
from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.pump import Pump
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.punch_offer import MAX_ROUND, Mode, Offer
from tunnelconsole.engine.wire.punch_room import NONCE_LENGTH, role_of
from tunnelconsole.errors import ConnectFailed, RequestRefused, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.punch.pairing import Pairing

RELAY_TIME: Final = 5.0
"""Seconds for TLS through the relay, once both are there."""

FIRST_ROUND_AGAIN: Final = 30.0
"""Seconds on the relay until the next round: what was in the way is often a network that was just changing."""

LAST_ROUND_AGAIN: Final = 600.0
"""Seconds between two rounds in the end: each costs up to 1,300 packets."""

ROUND_AFTER_LOSS: Final = 1.0
"""Seconds from the loss of a direct path to the next round: whoever lost it is on the relay by then."""

ASKED_AGAIN: Final = 0.5
"""Seconds from one round that the other end asks for to the next: it has no reason to ask sooner, and each has its
packets."""

WRONG_WAYS: Final = {
    Mode.OPENS: "both ends have listen: one of the two needs a target",
    Mode.ACCEPTS: "both ends have a target: one of the two needs listen",
}
"""What is wrong where both ends are of this mode."""


class RelayDial:
    """A connection to the relay that is being dialled; closed where nobody takes it."""

    def __init__(self, tasks: Tasks, dialer: ServerDialer, number: str) -> None:
        self._dialer = dialer
        self._number = number
        self._task = tasks.start(self._dial(), "relay")
        self._taken = False

    async def _dial(self) -> End | TunnelConsoleError:
        try:
            return await dial_relay(self._dialer, self._number)
        except TunnelConsoleError as error:
            return error  # for who takes it; where nobody does, it is told of the seat too

    async def take(self) -> End:
        """The connection, which is the caller's from here on.

        :raises ConnectFailed: there is none.
        :raises CredentialsRefused: what answers is not the rendezvous that was pinned.
        """
        outcome: End | TunnelConsoleError = await asyncio.shield(self._task)
        self._taken = True
        if isinstance(outcome, TunnelConsoleError):
            raise outcome
        return outcome

    def discard(self) -> None:
        """Closes it, now or as soon as it is there, unless it was taken; safe to call twice."""
        if not self._taken:
            self._taken = True
            self._task.cancel()
            self._task.add_done_callback(_close_outcome)


def _close_outcome(task: asyncio.Task[End | TunnelConsoleError]) -> None:
    if not task.cancelled() and task.exception() is None:
        outcome = task.result()
        if not isinstance(outcome, TunnelConsoleError):
            outcome.close()


class Pair:
    """Two seats of one room, for as long as both are taken by the same."""

    def __init__(self, pairing: Pairing, seat: Seat, ours: Ours) -> None:
        self._pairing = pairing
        self._seat = seat
        self._ours = ours
        self._nonce = secrets.token_bytes(NONCE_LENGTH)
        self._their_nonce = b""
        """Of the offer by which we have met."""
        self._met: asyncio.Future[Carrier] = pairing.node.loop.create_future()
        self._begun = False
        self._wrong = False
        """Whether the two can have no link."""
        self._new_links = Backoff()
        self._dialling: RelayDial | None = None
        self._relaying: asyncio.Task[None] | None = None
        self._round: Round | None = None
        self._racing: asyncio.Task[None] | None = None
        self._rounds = 0
        self._asked_at = -ASKED_AGAIN
        self._again: asyncio.TimerHandle | None = None
        self._pause = FIRST_ROUND_AGAIN
        self._over = False
        self._parted = ""
        """Why it is over."""

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
            newly = await self._meet(theirs)
            if offer.relay:
                self.relay()
            if newly:
                self._start_next_round()
        elif offer.round > self._rounds and (now := self._pairing.node.loop.time()) - self._asked_at >= ASKED_AGAIN:
            self._asked_at = now
            self._start_round(offer.round, asked=True)
        if self._round is not None and offer.round == self._round.number:
            self._round.offered(theirs)

    def go(self, step: str) -> None:
        """Both seats are ready."""
        if self._round is not None:
            self._round.go(step)

    async def _meet(self, theirs: Offered) -> bool:
        """Makes a link of the two, or goes on with the one that they have. True where they had not met before.

        :raises ConnectFailed: the rendezvous is gone.
        """
        offer, mode = theirs.offer, self._ours.mode
        their_nonce = bytes.fromhex(offer.nonce)
        if their_nonce == self._their_nonce:
            return False
        try:
            role = role_of(self._nonce, their_nonce)
        except ProtocolError as error:
            self._pairing.warn(str(error))
            return False
        if offer.mode is mode and mode in WRONG_WAYS:
            self._part_ways(WRONG_WAYS[mode])
            return False
        self._their_nonce = their_nonce
        if self._met.done():  # it has begun a new link: it does not know us by that
            self._met = self._pairing.node.loop.create_future()
            await self._introduce()
            if self._over:
                return False
        seen = next(iter(theirs.seen), "")
        self._met.set_result(self._pairing.link_with(offer, role, (self._nonce, their_nonce), seen))
        return True

    def _part_ways(self, reason: str) -> None:
        """The two can have no link."""
        if not self._wrong:
            self._wrong = True
            self._pairing.warn(reason)
            self._stop_relaying()
            if self._pairing.meeting.direct:
                self._pairing.next_attempt().end("failed", reason=reason)

    def link_ended(self) -> None:
        """The link is over, and both are still here: they begin another."""
        if not self._over:
            self._pairing.node.loop.call_later(self._new_links.next(), self._begin_anew)

    def _begin_anew(self) -> None:
        if self._over or not self._met.done() or self._pairing.carrier is not None:
            return  # or the other end was faster
        self._nonce, self._their_nonce = secrets.token_bytes(NONCE_LENGTH), b""
        self._met = self._pairing.node.loop.create_future()
        self._pairing.tasks.start(self._introduce_again(), "another link")

    async def _introduce_again(self) -> None:
        with suppress(ConnectFailed):  # then the seat is gone too, and that is told where it is listened to
            await self._introduce()

    def relay(self, dialling: RelayDial | None = None) -> None:
        """Has the link carried by the relay, once the other end wants that too; does nothing where that is under way.

        :param dialling: brings a connection to the relay, if there is one already.
        """
        if not self._wrong and (self._relaying is None or self._relaying.done()):
            self._dialling = dialling
            self._relaying = self._pairing.tasks.start(self._relay(dialling), "relay")

    def _stop_relaying(self) -> None:
        if self._relaying is not None:
            self._relaying.cancel()
        if self._dialling is not None:
            self._dialling.discard()

    async def _relay(self, dialling: RelayDial | None) -> None:
        backoff = Backoff()
        while True:
            try:
                end = await (dialling.take() if dialling is not None else self._seat.relay())
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
        with suppress(ConnectFailed):  # as above
            await self._seat.say(
                Offer(nonce=self._nonce.hex(), link=self._pairing.link, mode=self._ours.mode, relay=True)
            )

    async def _carry(self, end: End) -> None:
        """Gives the link the path through the relay.

        :raises ConnectFailed: it broke, or the other side did not prove itself.
        :raises TimeoutError: nothing came of it in time, once both were there.
        """
        identity = self._ours.identity
        try:
            sock = _socket_of(end, self._pairing.node)
        except OSError as error:
            end.abort()
            raise ConnectFailed(f"no socket for the relay: {error.strerror or error}") from error
        # Who was here first is TLS's client, and says its first words at once: they wait at the rendezvous.
        secure = identity.end(sock, server_side=not self._seat.first)
        try:
            completing = self._pairing.tasks.start(self._complete(secure), "TLS through the relay")
            try:
                await asyncio.wait([completing, self._met], return_when=asyncio.FIRST_COMPLETED)
                async with asyncio.timeout(RELAY_TIME):
                    failure = await asyncio.shield(completing)
                    if failure is not None:
                        raise failure
                    carrier = await asyncio.shield(self._met)
            finally:
                completing.cancel()
                await asyncio.wait([completing])  # it must have let go of the socket before that is closed
        except BaseException:
            secure.abort()
            raise
        carrier.attach(secure, "relay")

    async def _complete(self, secure: TLSEnd) -> TunnelConsoleError | None:
        try:
            await self._ours.identity.complete(secure)
        except TunnelConsoleError as error:
            return error
        return None

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
        if (self._racing is None or self._racing.done()) and self._rounds <= MAX_ROUND:
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
            carrier = await self._link_for(end)
        except ConnectFailed as error:
            attempt.end("failed", error=error.message)
        except asyncio.CancelledError:
            attempt.end("left", reason=self._parted or "another round takes its place")
            raise
        except Exception as error:
            attempt.end("failed", error=f"{type(error).__name__}: {error}")
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

    async def _link_for(self, end: TLSEnd | None) -> Carrier:
        """The link, which may be a new one by now."""
        try:
            return await asyncio.shield(self._met)
        except asyncio.CancelledError:
            if end is not None:
                end.abort()
            raise

    def part(self, reason: str) -> bool:
        """Ends what is under way here; the link and its paths stay. True when the relay was waited for."""
        self._over = True
        self._parted = self._parted or reason
        if self._again is not None:
            self._again.cancel()
        relaying = self._relaying is not None and not self._relaying.done()
        self._stop_relaying()
        if self._racing is not None:
            self._racing.cancel()
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
