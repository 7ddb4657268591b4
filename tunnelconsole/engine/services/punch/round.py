"""One round of a punch: where each side is seen, what stands in between, and the race that follows from it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tunnelconsole.engine.attempts import Attempt, Behind
from tunnelconsole.engine.services.punch.contacts import Hello, Reached
from tunnelconsole.engine.services.punch.identity import RoomIdentity
from tunnelconsole.engine.services.punch.observe import Observation, observe, probe_filter
from tunnelconsole.engine.services.punch.port import PunchingPort, own_addresses
from tunnelconsole.engine.services.punch.race import RACE_TIME, Race
from tunnelconsole.engine.services.punch.seat import Offered, Seat
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.dialer import Address
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.punch import Probed
from tunnelconsole.engine.wire.punch_nat import Filtering, Nat, Plan, filtering_of, plan
from tunnelconsole.engine.wire.punch_offer import Candidate, Kind, Mode, Offer, Surroundings, judge
from tunnelconsole.engine.wire.punch_room import NONCE_LENGTH, Role, RoomKey, role_of
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

OFFER_TIME: Final = 5.0
"""Seconds that the other side has for its offer: it must be observed first, and perhaps dialled in vain."""

GO_TIME: Final = 3.0
"""Seconds until both are ready, once both have offered."""

TLS_TIME: Final = 2.0
"""Seconds for TLS on the connection that was nominated."""

FILTER_LIFETIME: Final = 300.0
"""Seconds for which what a NAT does with strangers is believed: a laptop changes its network less often."""


@dataclass(slots=True)
class KnownNat:
    """What a client's NAT does with strangers, as it was found last."""

    probed: Probed | None = None
    local: str = ""
    """Our own address on that network."""
    at: float = 0.0

    def still(self, local: str) -> Probed | None:
        """What was found, if it holds for this address now."""
        fresh = time.monotonic() - self.at < FILTER_LIFETIME
        return self.probed if fresh and local == self.local else None


@dataclass(frozen=True, slots=True)
class Ours:
    """What an end brings to each of its rounds."""

    key: RoomKey
    identity: RoomIdentity
    mode: Mode
    known: KnownNat
    endpoints: Sequence[Address]
    """Where it may be observed."""
    seen: str
    """From where the rendezvous sees its seat."""


class Round:
    """One round, from the first observation to the direct connection, or to why there is none.

    :param number: the same at both ends.
    :param attempt: where it is written down; ended by the caller.
    """

    def __init__(self, seat: Seat, number: int, ours: Ours, attempt: Attempt, tasks: Tasks) -> None:
        self.number = number
        self.attempt = attempt
        self._seat = seat
        self._ours = ours
        self._tasks = tasks
        loop = asyncio.get_running_loop()
        self._nonce = secrets.token_bytes(NONCE_LENGTH)
        self._theirs: Offered | None = None
        self._offered = asyncio.Event()
        self._go: asyncio.Future[None] = loop.create_future()
        self.reason = ""
        """Why there is no direct connection."""

    def offered(self, theirs: Offered) -> None:
        """The other side has offered; what it offers last counts."""
        self._theirs = theirs
        self._offered.set()

    def go(self, step: str) -> None:
        """Both are ready."""
        if step == self._step and not self._go.done():
            self._go.set_result(None)

    @property
    def _step(self) -> str:
        return f"go {self.number}"

    async def run(self) -> TLSEnd | None:
        """Plays the round; returns the direct connection, or None and leaves why in :attr:`reason`.

        :raises ConnectFailed: the rendezvous is gone.
        """
        port = PunchingPort()
        observation = Observation()
        try:
            self.attempt.enter("observing")
            # At once, and not behind the observation: where a NAT counts its ports up, it takes one.
            probing = self._tasks.start(self._probe(), "dials of strangers")
            try:
                observation = await observe(port, self._ours.endpoints, self._seat.number)
                return await self._race(port, observation, probing)
            finally:
                probing.cancel()
        finally:
            observation.close()
            port.close()

    async def _probe(self) -> Probed | None:
        """What the NAT does with strangers, found now or not long ago."""
        known, local = self._ours.known, self._seat.local
        if (probed := known.still(local)) is None and self._ours.endpoints:
            probed = await probe_filter(self._ours.endpoints[0], self._seat.number)
            known.probed, known.local, known.at = probed, local, time.monotonic()
        return probed

    async def _race(
        self, port: PunchingPort, observation: Observation, probing: asyncio.Task[Probed | None]
    ) -> TLSEnd | None:
        offer = self._offer(port, observation)
        if probing.done():
            offer = await self._complete(offer, probing)
        await self._say(offer)
        theirs = await self._their_offer(lambda _: True)
        if theirs is None:
            return None
        if theirs.offer.nat.moves and offer.nat.filtering is Filtering.UNKNOWN:
            offer = await self._complete(offer, probing)
            await self._say(offer)
        if offer.nat.moves and theirs.offer.nat.filtering is Filtering.UNKNOWN:
            theirs = await self._their_offer(lambda again: again.offer.nat.filtering is not Filtering.UNKNOWN)
            if theirs is None:
                return None
        return await self._race_against(port, offer, theirs)

    def _offer(self, port: PunchingPort, observation: Observation) -> Offer:
        """What we offer, as far as it is known at once."""
        hosts, _ = own_addresses()
        candidates = [Candidate.of(Kind.HOST, host, port.number) for host in hosts]
        if observation.last is not None:
            mapped = Candidate.of(Kind.MAPPED, *observation.last)
            if mapped.address not in [candidate.address for candidate in candidates]:
                candidates.append(mapped)
            else:  # there is no NAT: the same address, known to be seen
                candidates = [mapped if candidate.address == mapped.address else candidate for candidate in candidates]
        return Offer(
            nonce=self._nonce.hex(),
            mode=self._ours.mode,
            nat=observation.nat,
            candidates=tuple(candidates),
            round=self.number,
        )

    async def _complete(self, offer: Offer, probing: asyncio.Task[Probed | None]) -> Offer:
        """The offer with what the NAT does with strangers."""
        probed = await probing
        filtering, refuses = filtering_of(probed)
        if filtering is Filtering.UNKNOWN:
            filtering = Filtering.PORT  # what most do, and what the other side waits to hear
        return msgspec.structs.replace(
            offer, nat=msgspec.structs.replace(offer.nat, filtering=filtering, refuses=refuses)
        )

    async def _say(self, offer: Offer) -> None:
        for candidate in offer.candidates:
            self.attempt.candidate(candidate.address, candidate.kind.value, "ours")
        mapped = next((each.address for each in offer.candidates if each.kind is Kind.MAPPED), "")
        self.attempt.ours = _behind(offer.nat, mapped)
        await self._seat.say(offer)
        self.attempt.note("offered")

    async def _their_offer(self, enough: Callable[[Offered], bool]) -> Offered | None:
        """The other side's offer, once it says enough."""
        try:
            async with asyncio.timeout(OFFER_TIME):
                while True:
                    await self._offered.wait()
                    self._offered.clear()
                    theirs = self._theirs
                    if theirs is not None and enough(theirs):
                        return theirs
        except TimeoutError:
            self.reason = f"the other side offered nothing within {OFFER_TIME:g} s"
            return None

    async def _race_against(self, port: PunchingPort, offer: Offer, theirs: Offered) -> TLSEnd | None:
        their_nonce = bytes.fromhex(theirs.offer.nonce)
        try:
            role = role_of(self._nonce, their_nonce)
        except ProtocolError as error:
            self.reason = str(error)
            return None
        around = self._surroundings(offer, theirs)
        their_mapped = next((each.address for each in theirs.offer.candidates if each.kind is Kind.MAPPED), "")
        self.attempt.theirs = _behind(theirs.offer.nat, their_mapped)
        chosen = plan(offer.nat, theirs.offer.nat, same_network=around.same_network)
        candidates = self._judged(theirs.offer.candidates, around)
        if chosen.hopeless:
            # That is about IPv4: where both have IPv6, whose firewalls know no ports of NATs, there is still a way.
            candidates = [candidate for candidate in candidates if ":" in candidate.host_port[0]]
            if not candidates:
                self.reason = chosen.hopeless
                return None
            chosen = Plan(mapped=False)
        if not candidates:
            self.reason = "none of the addresses that the other side offers may be dialled"
            return None
        nonces = (self._nonce, their_nonce) if role is Role.A else (their_nonce, self._nonce)
        hello = Hello(
            role,
            self._ours.key.hello(role, nonces, self.number),
            self._ours.key.hello(role.other, nonces, self.number),
        )
        self.attempt.note(_words_for(chosen))
        race = Race(asyncio.get_running_loop(), port, candidates, chosen, hello, self.attempt)
        await self._seat.ready(self._step)
        try:
            async with asyncio.timeout(GO_TIME):
                await self._go
        except TimeoutError:
            self.reason = f"the other side was not ready within {GO_TIME:g} s"
            return None
        self.attempt.enter("racing")
        reached = await race.run()
        if reached is None:
            self.reason = _why_nobody_came(same_network=around.same_network)
            return None
        return await self._secure(reached, role)

    def _surroundings(self, offer: Offer, theirs: Offered) -> Surroundings:
        _, networks = own_addresses()
        mapped = {each.host_port[0] for each in offer.candidates if each.kind is Kind.MAPPED}
        return Surroundings(
            seen_theirs=theirs.seen,
            seen_ours={self._ours.seen, *mapped},
            networks=networks,
            ours=[candidate.address for candidate in offer.candidates],
            rendezvous={endpoint.host for endpoint in self._ours.endpoints},
        )

    def _judged(self, offered: Sequence[Candidate], around: Surroundings) -> list[Candidate]:
        """Those that are dialled; the others are written down with why they are not."""
        kept = []
        for judged in judge(offered, around):
            candidate = judged.candidate
            if judged.rejected:
                self.attempt.rejected(candidate.address, candidate.kind.value, judged.rejected)
            else:
                self.attempt.candidate(candidate.address, candidate.kind.value, "theirs")
                kept.append(candidate)
        return kept

    async def _secure(self, reached: Reached, role: Role) -> TLSEnd | None:
        """TLS on the connection that was nominated; ``a`` is its client."""
        end = self._ours.identity.end(reached.sock, server_side=role is Role.B)
        try:
            async with asyncio.timeout(TLS_TIME):
                await self._ours.identity.complete(end)
        except TimeoutError:
            self.reason = f"TLS with {reached.address} took longer than {TLS_TIME:g} s"
        except (ConnectFailed, CredentialsRefused) as error:
            self.reason = error.message
        except BaseException:
            end.abort()
            raise
        else:
            self.attempt.peer = reached.address
            self.attempt.note("secured", reached.label)
            self.attempt.method = reached.method
            return end
        end.abort()
        return None


def _behind(nat: Nat, address: str) -> Behind:
    return Behind(nat.mapping.value, nat.filtering.value, str(nat), address)


def _words_for(chosen: Plan) -> str:
    """What a plan comes to, for the timeline."""
    if chosen.many_ports:
        return f"plans to try {chosen.many_ports:,} ports of its NAT"
    if chosen.many_sockets:
        return f"plans to dial from {chosen.many_sockets} ports"
    if chosen.ahead:
        return f"plans to try the next {chosen.ahead} ports of its NAT"
    return "plans to dial its addresses"


def _why_nobody_came(*, same_network: bool) -> str:
    """In few words: what both sides are behind stands beside it in the attempt."""
    if same_network:
        return (
            "both are behind one NAT that does not lead back inside (no hairpin), and their own networks do not reach "
            "each other"
        )
    return f"no connection came through within {RACE_TIME:g} s"
