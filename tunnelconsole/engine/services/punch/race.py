"""The race: dials every candidate from the punched port, is dialled there, and ends with the first that proves itself.

Each rule here was measured; the numbers in brackets are those of ``docs/natlab.md``.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import functools
import itertools
import math
import random
import socket
from collections.abc import Iterator
from typing import Final

from tunnelconsole.engine.attempts import Attempt, Fate
from tunnelconsole.engine.services.punch.contacts import (
    ACCEPTED,
    Contacts,
    Hello,
    PlainContacts,
    ProvingContacts,
    Reached,
)
from tunnelconsole.engine.services.punch.port import PunchingPort, bound
from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.dialer import Address, numeric
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.punch_nat import Plan
from tunnelconsole.engine.wire.punch_offer import LOWEST_PORT, SYN_BUDGET, Candidate, Kind

RACE_TIME: Final = 2.5
"""Seconds until a race is given up: time for a SYN that is dropped once, and for the other side being 1.5 s late."""

FIRST_REDIAL: Final = 0.005
"""Seconds from one dial to the next after a refusal, at first: the hole lives for one round trip only (rule 1)."""

LAST_REDIAL: Final = 0.05
"""Seconds from one dial to the next in the end: on a LAN, whose refusals come at once, it would be 500 dials."""

REDIAL_GROWTH: Final = 1.05
"""By which that grows with each refusal: it stays below a long round trip for the first second."""

PAIR_TAKEN_REDIAL: Final = 0.02
"""Seconds until a dial is tried again whose pair of addresses a half-open connection has (rule 4)."""

UNREACHABLE_REDIAL: Final = 0.5
"""Seconds until an address without a route is tried again: interfaces come up while a laptop wakes."""

MANY_REDIAL: Final = 0.25
"""Seconds until one of many sockets dials again after a refusal: there are others."""

FIRST_REPETITION: Final = 1.0
"""Seconds after which the kernel repeats a SYN (RFC 6298, section 2); Linux 6.5 and later do so each time that long."""

PROBE_LIFE: Final = 0.9
"""Seconds that one of many has to answer: with the kernel's repetition they would be two thousand SYNs."""

LIVES: Final = math.ceil(RACE_TIME / PROBE_LIFE)
"""How often each of many sockets is begun in a race that is lost: a new port of the NAT each time, of which one is open
whenever the other end begins, however late that is."""

HALFWAY: Final = PROBE_LIFE / 2
"""Seconds after the first of many sockets until further ones are opened, as many as the budget has room for: 256
against 1,024 of 64,512 ports miss each other in one race of 60, 432 in one of 1,000. Who begins 1.5 s late meets twice
as many. None helps once the other end's are closed: conntrack takes the answer of another for no part of the hole."""

BATCH: Final = 64
"""Dials in one turn of the loop: some 2 ms, so that answers to the first are heard before the last is sent."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PENDING = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)


class Repeats(enum.Enum):
    """What becomes of a dial that is not answered."""

    #: It is held, and the kernel repeats its SYN (rule 2).
    HELD = "held"
    #: It is given up before that, and dialled from another port.
    ANEW = "anew"
    #: It is given up before that.
    NEVER = "never"


class Dial:
    """One address that is dialled, again and again."""

    __slots__ = ("address", "after", "interval", "label", "local_port", "method", "repeats", "sock", "started", "timer")

    def __init__(
        self,
        address: Address,
        method: str,
        label: str,
        local_port: int | None,
        repeats: Repeats = Repeats.HELD,
        after: float = 0.0,
    ) -> None:
        self.address = address
        self.method = method
        self.label = label
        """The address under which it is written down."""
        self.local_port = local_port
        """Another port than the one that is punched; None for that."""
        self.repeats = repeats
        self.after = after
        """Seconds from the start of the race."""
        self.interval = FIRST_REDIAL
        self.sock: socket.socket | None = None
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None


class Race:
    """One race.

    :param port: where the other side dials us, and from where we dial; stays open.
    :param candidates: addresses of the other side's that may be dialled.
    :param plan: which of them, and how.
    :param hello: how the two prove themselves to each other; None where they cannot, and nothing is said.
    :param attempt: where it is written down.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        port: PunchingPort,
        candidates: list[Candidate],
        plan: Plan,
        hello: Hello | None,
        attempt: Attempt,
    ) -> None:
        self._loop = loop
        self._port = port
        self._attempt = attempt
        self._dials = list(_dials(candidates, plan))
        self._waiting: Iterator[Dial] = iter(self._dials)
        self._contacts: Contacts = (
            ProvingContacts(loop, attempt, hello)
            if hello is not None
            else PlainContacts(loop, attempt, {candidate.host_port[0] for candidate in candidates})
        )
        self._listening: list[InputWatch] = []
        self._next_batch: asyncio.Handle | None = None
        self._won = self._contacts.won
        self._syns = 0
        self._held = 0
        """Dials whose SYN the kernel may repeat yet."""
        self._kinds = {candidate.address: candidate.kind.value for candidate in candidates}

    async def run(self, limit: float = RACE_TIME) -> Reached | None:
        """Races.

        :param limit: seconds until it is given up.
        :returns: the connection that was nominated; None when there is none in that time.
        """
        try:
            for sock in self._port.listeners:
                self._listen(sock)
            self._start_batch()
            async with asyncio.timeout(limit):
                return await self._won
        except TimeoutError:
            return None if self._won.cancelled() else self._won.result()  # it may have come in that very moment
        except asyncio.CancelledError:
            if self._won.done() and not self._won.cancelled():
                self._won.result().sock.close()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of everything but the winner, pair by pair, so that none of it resets the winner (rule 12)."""
        if self._next_batch is not None:
            self._next_batch.cancel()
        self._stop_listening()
        for dial in self._dials:
            self._let_go(dial)
        self._contacts.close()
        self._attempt.unanswered()
        self._attempt.syns += self._syns

    def _start_batch(self) -> None:
        self._next_batch = None
        batch = list(itertools.islice(self._waiting, BATCH))
        for dial in batch:
            if self._won.done():
                continue
            if dial.after:
                dial.timer = self._loop.call_later(dial.after, self._start, dial)
            else:
                self._start(dial)
        if len(batch) == BATCH:
            self._next_batch = self._loop.call_soon(self._start_batch)

    def _start(self, dial: Dial) -> None:
        """Dials, unless that would be one too many."""
        dial.timer = None
        if self._syns + self._held > SYN_BUDGET - 2:  # it sends one, and the kernel may repeat it
            return
        dial.started = self._loop.time()
        try:
            sock = (
                self._port.dialling(dial.address)
                if dial.local_port is None
                else bound(dial.address.family, dial.local_port)
            )
        except OSError as error:
            self._failed(dial, error.errno or 0)
            return
        self._syns += 1
        self._attempt.dialled(dial.label, dial.method)
        try:
            code = sock.connect_ex(dial.address.sockaddr)
        except OSError as error:
            code = error.errno or 0
        if code not in _PENDING:
            sock.close()
            self._failed(dial, code)
            return
        dial.sock = sock
        self._held += dial.repeats is Repeats.HELD
        self._loop.add_writer(sock.fileno(), self._answered, dial)
        patience = FIRST_REPETITION if dial.repeats is Repeats.HELD else PROBE_LIFE
        dial.timer = self._loop.call_later(patience, self._unanswered, dial)

    def _unanswered(self, dial: Dial) -> None:
        """Gives a dial up, or begins it anew, or counts the SYN that the kernel has repeated."""
        if dial.repeats is not Repeats.HELD:
            self._let_go(dial)
            if dial.repeats is Repeats.ANEW and not self._won.done():
                self._start(dial)
            return
        self._syns += 1
        if self._syns + self._held > SYN_BUDGET:
            self._let_go(dial)
            return
        dial.timer = self._loop.call_later(FIRST_REPETITION, self._unanswered, dial)

    def _answered(self, dial: Dial) -> None:
        sock = self._release(dial)
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            sock.close()
            self._failed(dial, code)
            return
        try:
            themselves = sock.getsockname()[:2] == sock.getpeername()[:2]
        except OSError as error:
            sock.close()
            self._failed(dial, error.errno or 0)
            return
        if themselves:
            sock.close()
            self._attempt.fate(dial.label, "ourselves")
            return
        self._contacts.meet(sock, dial.method, dial.label)

    def _failed(self, dial: Dial, code: int) -> None:
        """Dials again, as soon as it makes sense."""
        fate: Fate = "refused"
        if code == errno.ECONNREFUSED:
            pause = dial.interval
            dial.interval = min(LAST_REDIAL, dial.interval * REDIAL_GROWTH)
        elif code in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
            fate, pause = "trying", PAIR_TAKEN_REDIAL
        elif code in _UNREACHABLE:
            fate, pause = "unreachable", UNREACHABLE_REDIAL
        else:
            pause = MANY_REDIAL
        self._attempt.fate(dial.label, fate)
        if dial.repeats is not Repeats.NEVER and not self._won.done():
            wait = max(0.0, dial.started + pause - self._loop.time())
            dial.timer = self._loop.call_later(wait, self._start, dial)

    def _release(self, dial: Dial) -> socket.socket | None:
        """Takes a dial's socket off the loop."""
        if dial.timer is not None:
            dial.timer.cancel()
            dial.timer = None
        sock, dial.sock = dial.sock, None
        if sock is not None:
            self._held -= dial.repeats is Repeats.HELD
            self._loop.remove_writer(sock.fileno())
        return sock

    def _let_go(self, dial: Dial) -> None:
        sock = self._release(dial)
        if sock is not None:
            sock.close()

    def _listen(self, sock: socket.socket) -> None:
        watch = InputWatch(self._loop, sock.fileno(), functools.partial(self._accept, sock))
        watch.start()
        self._listening.append(watch)

    def _stop_listening(self) -> None:
        """Without descriptors accepting would fail for ever; what has been dialled goes on."""
        for watch in self._listening:
            watch.stop()

    def _accept(self, listener: socket.socket) -> None:
        while not self._won.done():
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._stop_listening()
                    return
                continue  # it left before it was accepted (accept(2), "Error handling")
            if sock.fileno() >= descriptors.ceiling():
                sock.close()
                self._stop_listening()
                return
            sock.setblocking(False)
            address = format_host_port(peer[0], peer[1])
            self._attempt.accepted(address)
            self._contacts.meet(sock, self._kinds.get(address, ACCEPTED), address)


def _dials(candidates: list[Candidate], plan: Plan) -> Iterator[Dial]:
    """What to dial, in this order."""
    for candidate in candidates:
        if candidate.kind is Kind.HOST and plan.hosts:
            yield from _dial(candidate, candidate.kind.value)
    for candidate in candidates:
        if candidate.kind is Kind.MAPPED:
            yield from _around(candidate, plan)


def _around(mapped: Candidate, plan: Plan) -> Iterator[Dial]:
    """What to dial for the address at which the other side was seen."""
    host, port = mapped.host_port
    address = numeric(host, port)
    if address is None:
        return
    if plan.many_sockets:
        most = min(2 * plan.many_sockets, (SYN_BUDGET - 2) // LIVES)
        for number in range(most):
            after = 0.0 if number < plan.many_sockets else HALFWAY
            yield Dial(address, Kind.MAPPED.value, mapped.address, 0, Repeats.ANEW, after)
        return
    if plan.mapped:
        yield from _dial(mapped, Kind.MAPPED.value)
    for ahead in range(1, plan.ahead + 1):
        if port + ahead < 2**16:
            yield from _dial(Candidate.of(Kind.PREDICTED, host, port + ahead), Kind.PREDICTED.value)
    others = random.sample(range(LOWEST_PORT, 2**16), plan.many_ports)
    for other in others:
        guess = numeric(host, other)
        if guess is not None:
            yield Dial(guess, "many ports", f"{host}:*", None, Repeats.NEVER)


def _dial(candidate: Candidate, method: str) -> Iterator[Dial]:
    address = numeric(*candidate.host_port)
    if address is not None:
        yield Dial(address, method, candidate.address, None)
