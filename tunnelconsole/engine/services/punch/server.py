"""The rendezvous: brings the two of a room together, tells them where they are seen from, and carries what they cannot.

Clients come to ``listen`` for a seat and for their way through the server. Observations come to ports of their own,
always without TLS: what counts there is where a connection comes from.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from typing import ClassVar, Final

from tunnelconsole.engine.identities import ANONYMOUS
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.punch_events import ObserverUnavailable, RoomEntered
from tunnelconsole.engine.refusals import kind_of
from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.services.listening import ListeningService, ListeningSettings
from tunnelconsole.engine.services.punch.observer import probe, seen_as
from tunnelconsole.engine.services.punch.rooms import Room, Rooms, Seat
from tunnelconsole.engine.sessions import Channel
from tunnelconsole.engine.settings import ListenAddress, PortRange, ProxyNetwork
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.transport.ends import End, SocketEnd, receive, send_all
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.listener import Listener
from tunnelconsole.engine.transport.pacing import together
from tunnelconsole.engine.transport.pump import Finished, Pump
from tunnelconsole.engine.transport.tls import TLSEnd, complete_handshake
from tunnelconsole.engine.wire.errors import NoRoom, NotAllowed, ProtocolError, WrongCredentials
from tunnelconsole.engine.wire.hostport import format_host_port, parse_host_port
from tunnelconsole.engine.wire.punch import (
    MAX_LINE,
    Challenge,
    Join,
    Joined,
    LineReader,
    Observe,
    Observed,
    Refused,
    encode,
    parse_first,
    parse_observing,
    parse_proving,
)
from tunnelconsole.engine.wire.token_proof import NONCE_LENGTH, NOT_KNOWN, Proof
from tunnelconsole.errors import ListenFailed

OBSERVERS: Final = 2
"""Ports for observations on each address: a NAT's kind shows from two."""

OBSERVATION_TIME: Final = 10.0
"""Seconds that an observing connection may stay: a race, which it precedes, takes three."""

FIRST_READ: Final = 4096
"""Bytes read at once until it is clear what a connection is for."""


def _usable_ports(ports: PortRange | None) -> list[Problem]:
    if ports is None or not ports.first or ports.last - ports.first + 1 == OBSERVERS:
        return []
    return [("observe_ports", f'must be {OBSERVERS} ports, as in "7901-7902", or "0" for any free ones')]


def _usable_alternate(listen: ListenAddress, alternate: str) -> list[Problem]:
    if not alternate:
        return []
    try:
        other = ipaddress.ip_address(alternate)
    except ValueError:
        return [("alternate", f"{alternate!r} is not an IP address; name a second one of this machine")]
    try:
        main = ipaddress.ip_address(listen.host)
    except ValueError:
        main = None
    if main is None or main.is_unspecified or main.version != other.version:
        return [("alternate", "listen must then name one address of the same family, and not all of them")]
    return [("alternate", "is the address of listen; name another one of this machine")] if main == other else []


def _sees_for_itself(proxy_protocol_from: tuple[ProxyNetwork, ...]) -> list[Problem]:
    if not proxy_protocol_from:
        return []
    return [("proxy_protocol_from", "a rendezvous has to be reached directly: it finds out what clients are behind")]


class PunchServerSettings(ListeningSettings, frozen=True, kw_only=True):
    """``kind = "punch-server"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("observe_ports",), _usable_ports),
        Rule(("listen", "alternate"), _usable_alternate),
        Rule(("proxy_protocol_from",), _sees_for_itself),
    )

    alternate: str = ""
    """A second address of this machine: with it the kind of a client's NAT shows in full."""
    observe_ports: PortRange | None = None
    """Two ports for observations, on the address of ``listen`` and on ``alternate``; by default those after its own."""


class PunchServer(ListeningService[PunchServerSettings]):
    """Serves punch clients."""

    kind = "punch-server"
    system = "punch"

    def __init__(self, name: str, settings: PunchServerSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.rooms = Rooms(node.loop, self._relay)
        self._observers: list[Listener] = []

    async def prepare(self) -> None:
        for host in filter(None, (self.settings.listen.host, self.settings.alternate)):
            for port in self._observe_ports():
                await self._observe_at(host, port)

    def _observe_ports(self) -> list[int]:
        ports, main = self.settings.observe_ports, self.settings.listen.port
        if ports is not None:
            return [ports.first + number if ports.first else 0 for number in range(OBSERVERS)]
        return [main + number if main else 0 for number in range(1, OBSERVERS + 1)]

    async def _observe_at(self, host: str, port: int) -> None:
        """Listens for observations; without one of the ports a punch may still succeed."""
        try:
            observer = await self.listen(ListenAddress(host, port), self._observed)
        except (ListenFailed, OverflowError) as error:
            reason = error.message if isinstance(error, ListenFailed) else f"there is no port {port}"
            self.node.bus.publish(ObserverUnavailable(service=self.name, reason=reason))
        else:
            self._observers.append(observer)

    async def run(self) -> None:
        try:
            await super().run()
        finally:  # also where the observers could listen and the service could not
            self.stop_accepting()

    def repace_channel(self, channel: Channel) -> None:
        if isinstance(channel.flow, Pump):
            other = channel.other.token.pace if channel.other is not None else None
            channel.flow.set_pace(together((self.pace_in(channel.session), other)))

    def stop_accepting(self) -> None:
        super().stop_accepting()
        observers, self._observers = self._observers, []
        for observer in observers:
            observer.close()

    def newcomer(self, end: End, peer: str, place: Place) -> None:
        self.receive_newcomer(self._greet(end, peer), end, peer, place)

    def _observed(self, sock: socket.socket, peer: str) -> None:
        place = self.admit(sock, peer)
        if place is not None:
            end = SocketEnd(sock)
            self.receive_newcomer(self._observe(end, peer), end, peer, place)

    async def _greet(self, end: End, peer: str) -> None:
        """Finds out what a connection is for, and gives it a seat or its place in the relay."""
        try:
            async with asyncio.timeout(self.settings.limits.handshake_timeout):
                if isinstance(end, TLSEnd):
                    await complete_handshake(end)
                line, rest = await self._first_line(end)
                message = parse_first(line)
                grant: Grant | None = None
                if isinstance(message, Join) and message.token is not None:
                    grant, rest = await self._hear_token(end, message, rest)
            match message:
                case Join():
                    self._join(end, peer, message, rest, grant)
                case Observe():
                    raise ProtocolError("it wants to be observed at the port for seats")
                case _:
                    seat = await self.rooms.awaited(message.seat)
                    self._wait_for_other(end, seat, rest)
        except (ProtocolError, OSError) as error:
            self._turn_away(end, peer, error)

    async def _hear_token(self, end: End, join: Join, early: bytes) -> tuple[Grant, bytes]:
        """What somebody proves who has named a token, and what came behind that.

        :raises ProtocolError: it proves nothing.
        """
        if join.token is None or join.nonce is None:
            raise ProtocolError("it names a token without a nonce")
        nonce = secrets.token_bytes(NONCE_LENGTH)
        await send_all(end, encode(Challenge(nonce.hex())))
        line, rest = await self._first_line(end, early)
        proof = parse_proving(line).proof
        claimed, client_nonce = bytes.fromhex(join.token), bytes.fromhex(join.nonce)
        grant = self.node.tokens.prove(Proof(claimed, client_nonce, nonce, bytes.fromhex(proof)))
        if grant is None:
            raise WrongCredentials(NOT_KNOWN)
        return grant, rest

    async def _first_line(self, end: End, early: bytes = b"") -> tuple[bytes, bytes]:
        """The next line of a connection, and what came behind it.

        :param early: what has come of it already.
        :raises ProtocolError: there is none, or it has no end.
        """
        data = bytearray(early)
        while b"\n" not in data:
            more = await receive(end, FIRST_READ)
            if not more:
                raise ProtocolError("it closed before it said what it wants")
            if not data and (mistake := self.mistaken(more)):
                raise ProtocolError(mistake)
            data += more
            if len(data) > MAX_LINE:
                raise ProtocolError(f"its first line is longer than {MAX_LINE} bytes")
        line, _, rest = bytes(data).partition(b"\n")
        return line, rest

    def _turn_away(self, end: End, peer: str, error: ProtocolError | OSError) -> None:
        reason = self.explain(error)
        self.refused(peer, reason, kind_of(error))
        if isinstance(error, ProtocolError | TimeoutError) and not (isinstance(end, TLSEnd) and not end.established):
            self.node.farewells.bid(end, encode(Refused(reason)))
        else:
            end.close()

    def _join(self, end: End, peer: str, join: Join, early: bytes, grant: Grant | None) -> None:
        """Gives somebody a seat.

        :raises ProtocolError: there is none, or it may not have it.
        """
        if barred := self.barred(grant, peer):
            raise NotAllowed(barred)
        if grant is not None and not grant.rights.grants_room(join.room):
            raise NotAllowed("the token is not for this room")
        proven = self.identity_of(end, grant=grant)
        identity = proven if proven != ANONYMOUS else join.room
        full = self.no_room(peer, identity, grant, new_session=True, new_channel=False)
        if full:
            raise NoRoom(full)
        room = self.rooms.find(join, peer)
        seat = Seat(self.node.loop, EndLink(self.node.loop, end), join, peer, self._left)
        self.rooms.add(room, seat)
        seat.session = self.open_session(peer, seat.dismiss, identity=identity, grant=grant)
        self.notes["rooms"] = str(len(self.rooms))
        self.node.bus.publish(
            RoomEntered(service=self.name, session=seat.session.id, peer=peer, room=room.name, seats=len(room.seats))
        )
        seat.tell(Joined(first=len(room.seats) == 1, address=seen_as(peer), endpoints=self._endpoints()))
        seat.begin(early)
        self._warn_of_other_secret(room, seat)
        room.introduce()

    def _endpoints(self) -> list[str]:
        """Where clients may be observed, as they can dial it."""
        everywhere = ipaddress.ip_address(self._observers[0].host).is_unspecified if self._observers else False
        return [
            f":{observer.port}" if everywhere else format_host_port(observer.host, observer.port)
            for observer in self._observers
        ]

    def _warn_of_other_secret(self, room: Room, seat: Seat) -> None:
        for stranger in self.rooms.strangers(room):
            for told in (stranger, seat):
                told.notice(f"somebody else is in room {room.name} with another secret: one of you has a wrong one")

    def _left(self, seat: Seat, reason: str) -> None:
        self.rooms.remove(seat)
        self.notes["rooms"] = str(len(self.rooms))
        if seat.session is not None:
            self.node.loop.call_soon(self.close_session, seat.session, reason)  # its relay is over by then

    def _wait_for_other(self, end: End, seat: Seat, early: bytes) -> None:
        """Keeps a relay connection until the other seat has one too; the newest of a seat counts.

        :raises ProtocolError: the seat has been left meanwhile.
        """
        if seat.over:
            raise ProtocolError("it wants to be relayed for a seat that has been left")
        if seat.waiting is not None:
            seat.waiting[0].close()
        seat.waiting = (end, early)
        seat.room.relay_when_both_wait()

    def _relay(self, first: Seat, second: Seat) -> None:
        """Joins the relay connections of two seats, as a channel of the one that came first."""
        if first.waiting is None or second.waiting is None or first.session is None:
            raise RuntimeError("a relay was to begin before both were there")
        (left, early_left), (right, early_right) = first.waiting, second.waiting
        first.waiting = second.waiting = None
        full = self.no_channel(first.session)
        other = second.session.grant if second.session is not None else None
        if other is not None and first.session.grant is not None and other.token is first.session.grant.token:
            other = None  # one token for both: it has one channel, and each byte counts once
        if not full and other is not None:
            full = other.no_room(new_session=False, new_channel=True)
        if full:
            for seat, end in ((first, left), (second, right)):
                end.close()
                seat.notice(f"there is no relay: {full}")
            return

        pace = together((self.pace_in(first.session), other.token.pace if other is not None else None))

        def start(finished: Finished) -> Pump:
            return Pump(
                self.node.plane,
                left,
                right,
                finished,
                early_left=early_left,
                early_right=early_right,
                pace=pace,
            )

        def ended(_: str) -> None:
            for seat in (first, second):
                if seat.cut_relay is cut:
                    seat.cut_relay = None

        for seat in (first, second):
            if seat.cut_relay is not None:
                seat.cut_relay("another relay takes its place")
        flow = self.carry(first.session, f"room {first.room.name}", start, ended, second.peer, other)
        first.cut_relay = second.cut_relay = cut = flow.abort

    async def _observe(self, end: SocketEnd, peer: str) -> None:
        """Tells a client where it is seen from, and dials it where it asks for that."""
        lines = LineReader()
        asked = False
        try:
            async with asyncio.timeout(OBSERVATION_TIME):
                line, rest = await self._first_line(end)
                self._take_note(line, peer)
                await send_all(end, encode(Observed(seen_as(peer))))
                while True:
                    for line in lines.feed(rest):
                        parse_observing(line)
                        if asked:
                            raise ProtocolError("it wants to be dialled again on one connection")
                        asked = True
                        await send_all(end, encode(await probe(end, peer, self.settings.alternate)))
                    rest = await receive(end, FIRST_READ)
                    if not rest:
                        break
        except ProtocolError as error:
            self.refused(peer, str(error), kind_of(error))
        except OSError:
            pass  # it has seen enough, or has had its time: either is how an observation ends
        end.close()

    def _take_note(self, line: bytes, peer: str) -> None:
        """Adds where a client is seen from to what is known of its seat.

        :raises ProtocolError: it does not want to be observed.
        """
        message = parse_first(line)
        if not isinstance(message, Observe):
            raise ProtocolError("it wants something else than to be observed at a port for that")
        seat = self.rooms.seats.get(message.seat or "")
        if seat is not None:
            seat.see(parse_host_port(seen_as(peer))[0])
