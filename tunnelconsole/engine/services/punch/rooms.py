"""The rooms of a rendezvous: who sits in which, what the two of a room are told, and their way through the server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

from tunnelconsole.engine.access import source_of
from tunnelconsole.engine.services.punch.observer import seen_as
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.link import EndLink, Link
from tunnelconsole.engine.wire.errors import NoRoom, NotAllowed, ProtocolError
from tunnelconsole.engine.wire.hostport import parse_host_port
from tunnelconsole.engine.wire.punch import (
    MAX_REASON,
    MAX_SEEN,
    Go,
    Join,
    Left,
    LineReader,
    Message,
    Notice,
    Peer,
    Ping,
    Pong,
    Ready,
    Refused,
    Said,
    Say,
    SeatLine,
    encode,
    parse_seat,
)

SEATS: Final = 2
"""Seats of a room: a punch is between two."""

SEATS_PER_SOURCE: Final = 256
"""Seats that one address, or one IPv6 site, may have: an office behind one NAT, and not all that there is room for."""

PING_INTERVAL: Final = 10.0
"""Seconds between two pings to a seat; one that has said nothing since the last is given up."""

EVICTION_TIME: Final = 2.0
"""Seconds that a seat has to answer when somebody else wants it: twice the longest round trip that anybody bears."""

SAYS_PER_SECOND: Final = 20.0
"""What a seat may say to the other, on average: a race takes three or four."""

SAYS_AT_ONCE: Final = 40.0
"""What it may say in one go."""

OVERTAKING_TIME: Final = 2.0
"""Seconds that a relay connection may be here before its seat is taken: both are dialled at once."""

LONGEST_LEAD: Final = 0.5
"""Seconds by which one of the two may be sent off before the other: half the longest round trip that anybody bears."""

NOTICE_INTERVAL: Final = 5.0
"""Seconds between two notices to one seat: whoever knows the room's name can bring them about."""


class Seat:
    """One client's place in a room, from its :class:`~tunnelconsole.engine.wire.punch.Join` on.

    :param gone: told once, when the seat is empty again, and why.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: EndLink,
        join: Join,
        peer: str,
        gone: Callable[[Seat, str], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._gone = gone
        self._lines = LineReader()
        self._pings: dict[int, float] = {}
        self._ping_ids = itertools.count()
        self._heard = True
        self._wanted = False
        """Whether somebody else waits for the seat."""
        self._says = SAYS_AT_ONCE
        self._said_at = loop.time()
        self._noticed_at = -NOTICE_INTERVAL
        self.number = join.seat
        self.peer = peer
        self.source = source_of(peer)
        self.room: Room
        """Set by :meth:`Room.seat`."""
        self.session: Session | None = None
        self.step = ""
        """The step that it is ready for."""
        self.rtt: float | None = None
        """Seconds of its last round trip."""
        self.seen: dict[str, None] = {parse_host_port(seen_as(peer))[0]: None}
        """Hosts from which it was seen."""
        self.waiting: tuple[End, bytes] | None = None
        """Its relay connection, until there is one of the other seat's, and what came on it."""
        self.cut_relay: Callable[[str], None] | None = None
        """Ends the relay that it is joined to."""
        self.over = False
        self._timer = loop.call_later(PING_INTERVAL, self._check)
        link.owner = self

    def begin(self, early: bytes) -> None:
        """Takes what came behind its first line, and listens from then on."""
        self._link.resume()
        self.ping()
        if early:
            self.link_received(self._link, early)

    def tell(self, message: Message) -> None:
        """Says something to the client; one that does not read what little it is told is gone."""
        if self.over:
            return
        if self._link.blocked:
            self.leave("it does not read what it is told")
        elif not self._link.write(encode(message)):
            self.leave("connection lost")

    def notice(self, reason: str) -> None:
        """Tells the client something that its user should know, unless it has been told just now."""
        now = self._loop.time()
        if now - self._noticed_at >= NOTICE_INTERVAL:
            self._noticed_at = now
            self.tell(Notice(reason))

    def ping(self) -> None:
        """Measures its round trip."""
        number = next(self._ping_ids)
        self._pings = {number: self._loop.time()}
        self.tell(Ping(number))

    def must_answer(self) -> None:
        """Gives the seat up unless something is heard of it soon."""
        if not self._wanted:  # else its time runs already, however often the seat is asked for
            self._wanted = True
            self._ask(EVICTION_TIME)

    def _ask(self, patience: float) -> None:
        """Wants to hear something within so many seconds."""
        self._timer.cancel()
        self._heard = False
        self.ping()
        if not self.over:
            self._timer = self._loop.call_later(patience, self._check)

    def see(self, host: str) -> None:
        """Takes note of a host from which the client was seen."""
        if len(self.seen) < MAX_SEEN:
            self.seen[host] = None

    def dismiss(self, reason: str) -> None:
        """Empties the seat and tells the client why; safe to call twice."""
        self.leave(reason, encode(Refused(reason[:MAX_REASON])))

    def leave(self, reason: str, last: bytes = b"") -> None:
        """Empties the seat; safe to call twice.

        :param last: said to the client before.
        """
        if self.over:
            return
        self.over = True
        self._timer.cancel()
        if last:
            self._link.write(last)
        self._link.close()
        self.stop_waiting()
        if self.cut_relay is not None:
            self.cut_relay(reason)
        self.room.leave(self)
        self._gone(self, reason)

    def stop_waiting(self) -> None:
        """Closes its relay connection, if that is not joined."""
        if self.waiting is not None:
            self.waiting[0].close()
            self.waiting = None

    def _check(self) -> None:
        if not self._heard:
            self.dismiss("nothing heard of it")
            return
        self._wanted = False
        self._ask(PING_INTERVAL)

    def link_received(self, link: Link, data: bytes) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.link.LinkOwner`."""
        self._heard = True
        try:
            for line in self._lines.feed(data):
                if not self.over:
                    self._take(parse_seat(line))
        except ProtocolError as error:
            self.dismiss(str(error))

    def _take(self, message: SeatLine) -> None:
        match message:
            case Pong(number):
                asked = self._pings.pop(number, None)
                if asked is not None:
                    self.rtt = self._loop.time() - asked
                    self.room.go_when_ready()
            case Say(sealed):
                self._count_say()
                self.room.pass_on(self, sealed)
            case Ready(step):
                self.step = step
                self.room.go_when_ready()

    def _count_say(self) -> None:
        now = self._loop.time()
        self._says = min(SAYS_AT_ONCE, self._says + (now - self._said_at) * SAYS_PER_SECOND) - 1
        self._said_at = now
        if self._says < 0:
            raise NoRoom(f"it says more than {SAYS_PER_SECOND:g} things a second")

    def link_ended(self, link: Link) -> None:
        """See :meth:`link_received`."""
        self.leave("")

    def link_broken(self, link: Link, reason: str) -> None:
        """See :meth:`link_received`."""
        self.leave(f"connection lost: {reason}")

    def link_deaf(self, link: Link) -> None:
        """See :meth:`link_received`."""
        self.leave("connection lost")

    def link_drained(self, link: Link) -> None:
        """See :meth:`link_received`."""


class Room:
    """Two seats of clients that have the same secret.

    :param joined: joins the relay connections of both seats, that of the longer one first.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        joined: Callable[[Seat, Seat], None],
        emptied: Callable[[Room], None],
    ) -> None:
        self._loop = loop
        self.name = name
        self._joined = joined
        self._emptied = emptied
        self.seats: list[Seat] = []
        """Those taken, the longest first."""

    def other(self, seat: Seat) -> Seat | None:
        """The other seat, if it is taken."""
        return next((other for other in self.seats if other is not seat), None)

    def take(self, seat: Seat) -> None:
        """Gives somebody a seat; there must be one."""
        seat.room = self
        self.seats.append(seat)

    def introduce(self) -> None:
        """Tells both that they are there, once they are."""
        for seat in list(self.seats):
            if len(self.seats) == SEATS:  # still: whom it cannot be told is gone
                seat.tell(Peer())

    def leave(self, seat: Seat) -> None:
        """Takes note that a seat is empty."""
        self.seats.remove(seat)
        if not self.seats:
            self._emptied(self)
        for other in list(self.seats):
            other.step = ""
            other.stop_waiting()  # it was for the one that has left; there is another for the next
            other.tell(Left())

    def pass_on(self, seat: Seat, sealed: str) -> None:
        """Tells the other seat what this one says; nobody where it is empty."""
        other = self.other(seat)
        if other is not None:
            other.tell(Said(sealed=sealed, seen=list(seat.seen)))

    def go_when_ready(self) -> None:
        """Sends both off once they are ready for the same, so that the word reaches them at the same time."""
        if len(self.seats) < SEATS:
            return
        one, two = self.seats
        if not one.step or one.step != two.step or one.rtt is None or two.rtt is None:
            return
        slowest = max(one.rtt, two.rtt)
        for seat, rtt in ((one, one.rtt), (two, two.rtt)):
            message = Go(step=seat.step, rtt=rtt)
            seat.step = ""
            ahead = min(LONGEST_LEAD, (slowest - rtt) / 2)
            if ahead > 0:
                self._loop.call_later(ahead, seat.tell, message)
            else:
                seat.tell(message)

    def relay_when_both_wait(self) -> None:
        """Joins the seats' relay connections once both are there."""
        if len(self.seats) == SEATS and all(seat.waiting is not None for seat in self.seats):
            self._joined(*self.seats)


class Rooms:
    """All rooms of one rendezvous.

    :param joined: see :class:`Room`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, joined: Callable[[Seat, Seat], None]) -> None:
        self._loop = loop
        self._joined = joined
        self._rooms: dict[str, dict[str, Room]] = {}
        """By name, and then by tag: those with different secrets are different rooms."""
        self.seats: dict[str, Seat] = {}
        """Those taken, by number."""
        self._sources: dict[str, int] = {}
        self._awaited: dict[str, asyncio.Future[Seat]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._rooms.values()))

    def find(self, join: Join, peer: str) -> Room:
        """The room that somebody asks for.

        :raises ProtocolError: there is no seat for it.
        """
        if join.seat in self.seats:
            raise NotAllowed("its seat's number is taken")
        if self._sources.get(source_of(peer), 0) >= SEATS_PER_SOURCE:
            raise NoRoom(f"its address has {SEATS_PER_SOURCE} seats already")
        same_name = self._rooms.setdefault(join.room, {})
        room = same_name.get(join.tag)
        if room is None:

            def emptied(room: Room) -> None:
                del same_name[join.tag]
                if not same_name:
                    del self._rooms[room.name]

            room = same_name[join.tag] = Room(self._loop, join.room, self._joined, emptied)
        if len(room.seats) >= SEATS:
            for seat in list(room.seats):
                seat.must_answer()
            raise NoRoom(f"room {join.room} is full: two are in it already")
        return room

    def strangers(self, room: Room) -> list[Seat]:
        """Those in rooms of the same name with another secret."""
        same_name = self._rooms.get(room.name, {})
        return [seat for other in same_name.values() if other is not room for seat in other.seats]

    def add(self, room: Room, seat: Seat) -> None:
        """Gives somebody a seat in a room that :meth:`find` returned just now."""
        room.take(seat)
        self.seats[seat.number] = seat
        awaited = self._awaited.pop(seat.number, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(seat)
        self._sources[seat.source] = self._sources.get(seat.source, 0) + 1

    async def awaited(self, number: str) -> Seat:
        """The seat with this number, which may be taken in a moment: its client's connections overtake each other.

        :raises ProtocolError: it is not taken in time.
        """
        if number in self.seats:
            return self.seats[number]
        taken = self._awaited.setdefault(number, self._loop.create_future())
        try:
            async with asyncio.timeout(OVERTAKING_TIME):
                return await asyncio.shield(taken)
        except TimeoutError:
            if number in self.seats:  # another connection for the same seat ended the wait for it just before
                return self.seats[number]
            raise ProtocolError("it wants to be relayed for a seat that is not taken") from None
        finally:
            if self._awaited.get(number) is taken:
                del self._awaited[number]

    def remove(self, seat: Seat) -> None:
        """Takes note that a seat is empty."""
        del self.seats[seat.number]
        self._sources[seat.source] -= 1
        if not self._sources[seat.source]:
            del self._sources[seat.source]
