"""The rendezvous, with clients that say line by line what a test tells them, right or wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loopback import BULK, hears, running, told
from ports import split, steady_ports
from rendezvous_lines import OTHER_TAG, ROOM, TAG, Line, Meeting, new_seat, rendezvous
from tunnelconsole.engine.events import ChannelClosed, Crashed, PeerRefused, ServiceRetrying, SessionClosed
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.punch_events import ObserverUnavailable
from tunnelconsole.engine.services.punch import rooms, server
from tunnelconsole.engine.services.punch.rooms import Seat
from tunnelconsole.engine.services.punch.server import PunchServerSettings
from tunnelconsole.engine.settings import ListenAddress, PortRange, TLSSettings
from tunnelconsole.engine.tokens.rights import decode_rights
from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.pump import Pump
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.punch import (
    MAX_LINE,
    Go,
    Join,
    Joined,
    Left,
    Message,
    Notice,
    Observe,
    Observed,
    Peer,
    Ping,
    Pong,
    Probe,
    Probed,
    Reached,
    Ready,
    Refused,
    Relay,
    Said,
    Say,
    encode,
)
from waiting import until

# Rooms


async def test_the_first_of_a_room_is_told_so_and_both_hear_of_each_other() -> None:
    async with rendezvous() as meet:
        one = await meet.lines.connect()
        await one.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
        joined = await one.find(Joined)
        assert (joined.first, joined.address, joined.endpoints) == (True, one.address, meet.observers)
        two = await meet.lines.connect()
        await two.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
        assert not (await two.find(Joined)).first
        await one.find(Peer)
        await two.find(Peer)
        two.close()
        await one.find(Left)


async def test_whoever_stays_is_the_first_for_the_next() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        one.close()
        await two.find(Left)
        three = await meet.lines.connect()
        await three.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
        assert not (await three.find(Joined)).first
        await two.find(Peer)


async def test_what_one_seat_says_the_other_hears_with_where_it_was_seen() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join(host="127.0.0.2")
        await two.send(Say("sealed"))
        said = await one.find(Said)
        assert (said.sealed, said.seen) == ("sealed", ["127.0.0.2"])
        await one.send(Say("answer"))
        assert (await two.find(Said)).sealed == "answer"


async def test_what_is_said_into_an_empty_room_is_not_kept() -> None:
    async with rendezvous() as meet:
        one = await meet.lines.join()
        await one.send(Say("to nobody"))
        two = await meet.lines.join()
        await one.find(Peer)
        await one.send(Say("to you"))
        assert (await two.find(Said)).sealed == "to you"


async def test_many_pairs_meet_and_none_hears_another() -> None:
    async with rendezvous() as meet:

        async def pair(number: int) -> None:
            one, two = await meet.lines.join(f"room {number}"), await meet.lines.join(f"room {number}")
            await one.find(Peer)
            await one.send(Say(f"sealed {number}"))
            assert (await two.find(Said)).sealed == f"sealed {number}"

        await asyncio.gather(*(pair(number) for number in range(40)))
        assert len(meet.service.rooms) == 40
        assert meet.service.notes["rooms"] == "40"
        await meet.lines.aclose()
        await meet.empty()
        assert meet.service.notes["rooms"] == "0"


async def test_a_third_is_refused_and_the_two_are_not_disturbed() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        waits = [asyncio.ensure_future(line.find(Said)) for line in (one, two)]
        assert "room desk is full: two are in it already" in await meet.lines.refused()
        await one.send(Say("still here"))
        await two.send(Say("and me"))
        assert [said.sealed for said in await asyncio.gather(*waits)] == ["and me", "still here"]


async def test_a_silent_occupant_loses_its_seat_to_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "EVICTION_TIME", 0.05)
    async with rendezvous() as meet:
        alive = await meet.lines.join()
        silent = await meet.lines.join(answers=False)
        heard = asyncio.ensure_future(alive.find(Left))
        await meet.lines.refused()
        await heard
        assert (await silent.find(Refused)).reason == "nothing heard of it"
        await meet.lines.join()
        await alive.find(Peer)


async def test_a_silent_occupant_goes_however_often_its_seat_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "EVICTION_TIME", 0.2)
    async with rendezvous() as meet:
        silent = [await meet.lines.join(answers=False) for _ in range(2)]
        asked = 0
        while meet.service.rooms.seats:
            line = await meet.lines.connect()
            await line.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
            answer = await line.next()
            asked += isinstance(answer, Refused)
            line.close()
            if isinstance(answer, Joined):
                break
        assert asked > 2
        for line in silent:
            assert (await line.find(Refused)).reason == "nothing heard of it"


async def test_who_never_answers_a_ping_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "PING_INTERVAL", 0.05)
    async with rendezvous() as meet:
        line = await meet.lines.join(answers=False)
        assert isinstance((await line.rest())[-1], Refused)
        await meet.empty()


async def test_who_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "PING_INTERVAL", 0.05)
    async with rendezvous() as meet:
        line = await meet.lines.join(answers=False)
        for _ in range(4):
            await line.send(Pong((await line.find(Ping)).id))
        assert line.number in meet.service.rooms.seats


async def test_those_with_different_secrets_never_meet_and_are_told_of_each_other() -> None:
    async with rendezvous() as meet:
        one, stranger = await meet.lines.join(), await meet.lines.join(tag=OTHER_TAG)
        for line in (one, stranger):
            assert "with another secret" in (await line.find(Notice)).reason
        two = await meet.lines.join()
        await one.find(Peer)
        await one.send(Say("not for strangers"))
        await two.find(Said)
        stranger.answers = False
        await stranger.send(Say("x"), b"bad\n")
        assert not [said for said in await stranger.rest() if isinstance(said, Said | Peer)]


async def test_notices_to_one_seat_are_few() -> None:
    async with rendezvous() as meet:
        one = await meet.lines.join()
        for _ in range(5):
            (await meet.lines.join(tag=OTHER_TAG, room=ROOM)).close()
            await until(lambda: len(meet.service.rooms.seats) == 1)
        await one.send(b"bad\n")
        assert sum(isinstance(said, Notice) for said in await one.rest()) == 1


async def test_a_seat_s_number_is_nobody_else_s() -> None:
    async with rendezvous() as meet:
        one = await meet.lines.join()
        assert await meet.lines.refused("another", number=one.number) == "its seat's number is taken"


async def test_one_address_has_so_many_seats_and_others_are_not_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "SEATS_PER_SOURCE", 2)
    async with rendezvous() as meet:
        first = await meet.lines.join("one")
        await meet.lines.join("two")
        assert await meet.lines.refused("three") == "its address has 2 seats already"
        await meet.lines.join("three", host="127.0.0.2")
        first.close()
        await until(lambda: len(meet.service.rooms.seats) == 2)
        await meet.lines.join("four")


async def test_the_limit_of_sessions_is_one_of_seats() -> None:
    async with rendezvous(limits=LimitSettings(sessions=1)) as meet:
        await meet.lines.join()
        assert "limit of 1 sessions" in await meet.lines.refused()


# Ready, go


async def test_both_go_once_both_are_ready_for_the_same_step() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        await one.send(Ready("go 1"))
        await two.send(Ready("go 2"), Ready("go 1"))
        gone = await asyncio.gather(one.find(Go), two.find(Go))
        assert [go.step for go in gone] == ["go 1", "go 1"]


async def test_nobody_goes_before_round_trips_are_known_nor_twice() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(answers=False), await meet.lines.join()
        await one.send(Ready("go 1"))
        await two.send(Ready("go 1"), Say("said after"))
        pings = []
        while not isinstance(said := await one.next(), Said):
            assert not isinstance(said, Go)
            pings += [said] if isinstance(said, Ping) else []
        await one.send(Pong(pings[-1].id))
        await asyncio.gather(one.find(Go), two.find(Go))
        await two.send(Ready("go 1"), b"bad\n")
        assert not [said for said in await two.rest() if isinstance(said, Go)]


async def test_the_one_with_the_longer_way_is_sent_off_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rendezvous() as meet:
        near, far = await meet.lines.join(), await meet.lines.join()
        seats = meet.service.rooms.seats
        await asyncio.gather(near.find(Peer), far.find(Peer))
        await until(lambda: all(seat.rtt is not None for seat in seats.values()))
        order: list[Seat] = []
        tell = Seat.tell

        def noting(seat: Seat, message: Message) -> None:
            order.append(seat)
            tell(seat, message)

        monkeypatch.setattr(Seat, "tell", noting)
        one, other = seats[near.number], seats[far.number]
        one.rtt, other.rtt = 0.01, 0.21
        start = meet.engine.node.loop.time()
        await near.send(Ready("go 1"))
        await far.send(Ready("go 1"))
        await asyncio.gather(near.find(Go), far.find(Go))
        assert order == [other, one]
        assert meet.engine.node.loop.time() - start >= 0.09


async def test_a_client_that_claims_a_long_way_keeps_the_other_waiting_no_longer_than_a_moment() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        seats = meet.service.rooms.seats
        await asyncio.gather(one.find(Peer), two.find(Peer))
        await until(lambda: all(seat.rtt is not None for seat in seats.values()))
        seats[one.number].rtt = 3600.0
        await one.send(Ready("go 1"))
        await two.send(Ready("go 1"))
        await asyncio.gather(one.find(Go), two.find(Go))


async def test_who_was_ready_for_one_that_left_is_not_for_the_next() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        await one.find(Peer)
        await one.send(Ready("go 1"))
        await until(lambda: meet.service.rooms.seats[one.number].step)
        two.close()
        await one.find(Left)
        three = await meet.lines.join()
        await three.send(Ready("go 1"), b"bad\n")
        assert not [said for said in await three.rest() if isinstance(said, Go)]


# Relay


async def relayed(meet: Meeting) -> tuple[Line, Line, Line, Line]:
    """Two seats and their relay connections, joined."""
    one, two = await meet.lines.join(), await meet.lines.join()
    left, right = await meet.lines.relay(one, b"early"), await meet.lines.relay(two)
    assert await right.raw(5) == b"early"
    return one, two, left, right


async def test_relay_connections_are_joined_and_what_came_early_is_first() -> None:
    async with rendezvous() as meet:
        one, _, left, right = await relayed(meet)
        await left.send(b" and late")
        await right.send(b"answer")
        assert await right.raw(9) == b" and late"
        assert await left.raw(6) == b"answer"
        left.writer.write_eof()
        assert await right.raw_rest() == b""
        right.writer.write_eof()
        assert await left.raw_rest() == b""
        closed = await hears(meet.engine, ChannelClosed)
        assert (closed.bytes_in, closed.bytes_out, closed.cause) == (14, 6, "")
        assert one.number in meet.service.rooms.seats


async def test_a_relay_is_a_channel_of_both_tokens_and_its_bytes_count_for_both() -> None:
    async with rendezvous(require_token=True) as meet:
        tokens = meet.engine.node.tokens
        rights = decode_rights({"channels": 1, "rate": "1MB/s"})
        alice, bob = await tokens.create("alice", rights), await tokens.create("bob", rights)
        one, two = await meet.lines.join(token=alice), await meet.lines.join(token=bob)
        left, right = await meet.lines.relay(one, b"early"), await meet.lines.relay(two)
        assert await right.raw(5) == b"early"
        both = [tokens.find(name) for name in ("alice", "bob")]
        assert [token.channels for token in both] == [1, 1]
        left.reset()
        await hears(meet.engine, ChannelClosed)
        assert [(token.channels, token.day_bytes) for token in both] == [(0, 5), (0, 5)]


async def test_a_relay_of_one_token_at_both_ends_counts_once_and_has_all_of_its_rate() -> None:
    async with rendezvous(require_token=True) as meet:
        secret = await meet.engine.node.tokens.create("alice", decode_rights({"channels": 1, "rate": "1MB/s"}))
        one, two = await meet.lines.join(token=secret), await meet.lines.join(token=secret)
        await meet.lines.relay(one, b"early")
        assert await (await meet.lines.relay(two)).raw(5) == b"early"
        token = meet.engine.node.tokens.find("alice")
        (channel,) = meet.engine.node.sessions.channels.values()
        assert isinstance(channel.flow, Pump)
        assert isinstance(channel.flow.left_to_right, BufferedHalf)
        assert channel.flow.left_to_right._pace is token.pace
        assert token.channels == 1


async def test_a_relay_carries_bulk_both_ways() -> None:
    async with rendezvous() as meet:
        _, _, left, right = await relayed(meet)
        sent = [left.send(BULK), right.send(BULK)]
        got = await asyncio.gather(right.raw(len(BULK)), left.raw(len(BULK)), *sent)
        assert got[:2] == [BULK, BULK]


async def test_a_relay_connection_may_overtake_its_join() -> None:
    async with rendezvous() as meet:
        one, number = await meet.lines.join(), new_seat()
        left = await meet.lines.relay(one)
        await meet.lines.relay(number, b"early")
        await until(lambda: number in meet.service.rooms._awaited)
        await meet.lines.join(number=number)
        assert await left.raw(5) == b"early"


async def test_a_relay_connection_for_nobody_s_seat_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "OVERTAKING_TIME", 0.05)
    async with rendezvous() as meet:
        line = await meet.lines.relay(new_seat())
        assert (await line.find(Refused)).reason == "it wants to be relayed for a seat that is not taken"
        await meet.empty()


async def test_the_newest_relay_connection_of_a_seat_counts() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        older, newer = await meet.lines.relay(one, b"old"), await meet.lines.relay(one, b"new")
        assert await older.raw_rest() == b""
        right = await meet.lines.relay(two)
        assert await right.raw(3) == b"new"
        await right.send(b"answer")
        assert await newer.raw(6) == b"answer"


async def test_another_relay_takes_the_place_of_the_first() -> None:
    async with rendezvous() as meet:
        one, two, left, right = await relayed(meet)
        newer = await meet.lines.relay(one, b"again"), await meet.lines.relay(two)
        assert await newer[1].raw(5) == b"again"
        for older in (left, right):
            with pytest.raises(ConnectionResetError):
                await older.raw_rest()
        await until(lambda: meet.service.channels == 1)


async def test_a_relay_ends_with_either_seat_and_the_other_seat_stays() -> None:
    async with rendezvous() as meet:
        one, two, left, right = await relayed(meet)
        one.close()
        await two.find(Left)
        for line in (left, right):
            with pytest.raises(ConnectionResetError):
                await line.raw_rest()
        await until(lambda: not meet.service.channels)
        assert two.number in meet.service.rooms.seats


async def test_a_relay_connection_that_waited_for_one_who_left_is_not_the_next_one_s() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        old = await meet.lines.relay(one, b"for two")
        await until(lambda: meet.service.rooms.seats[one.number].waiting)
        two.close()
        await one.find(Left)
        assert await old.raw_rest() == b""
        three = await meet.lines.join()
        right = await meet.lines.relay(three)
        await meet.lines.relay(one, b"for three")
        assert await right.raw(9) == b"for three"


async def test_relays_have_a_limit_and_the_seats_are_told() -> None:
    async with rendezvous(limits=LimitSettings(channels=1)) as meet:
        await relayed(meet)
        others = [await meet.lines.join("attic") for _ in range(2)]
        lines = [await meet.lines.relay(seat) for seat in others]
        for seat, line in zip(others, lines, strict=True):
            assert "there is no relay: the limit of 1 channels" in (await seat.find(Notice)).reason
            assert await line.raw_rest() == b""


# Observers


async def test_an_observer_tells_where_a_connection_comes_from_and_the_other_seat_learns_the_host() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        for address in meet.observers:
            line, seen = await meet.lines.observe(address, one, host="127.0.0.7")
            assert seen == line.address
        await one.send(Say("x"))
        assert (await two.find(Said)).seen == ["127.0.0.1", "127.0.0.7"]


async def test_an_observer_answers_who_has_no_seat() -> None:
    async with rendezvous() as meet:
        line, seen = await meet.lines.observe(meet.observers[0])
        assert seen == line.address


async def test_an_alternate_address_has_the_same_ports() -> None:
    first = steady_ports(3)
    async with rendezvous(listen=ListenAddress("127.0.0.1", first), alternate="127.0.0.2") as meet:
        assert meet.observers == [f"127.0.0.{host}:{first + port}" for host in (1, 2) for port in (1, 2)]
        for address in meet.observers:
            await meet.lines.observe(address)


async def test_a_server_on_all_addresses_names_ports_alone() -> None:
    async with rendezvous(listen=ListenAddress("0.0.0.0", 0)) as meet:
        meet.lines.address = f"127.0.0.1:{split(meet.address)[1]}"
        line = await meet.lines.connect()
        await line.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
        endpoints = (await line.find(Joined)).endpoints
        assert all(endpoint.startswith(":") for endpoint in endpoints)
        await meet.lines.observe(f"127.0.0.1{endpoints[0]}")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv4_clients_of_a_server_for_both_families_are_seen_by_their_ipv4_address() -> None:
    async with rendezvous(listen=ListenAddress("::", 0)) as meet:
        meet.lines.address = f"127.0.0.1:{split(meet.address)[1]}"
        one, two = await meet.lines.join(), await meet.lines.connect()
        await two.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
        assert (await two.find(Joined)).address == two.address
        line, seen = await meet.lines.observe(f"127.0.0.1:{split(meet.observers[0])[1]}", one)
        assert seen == line.address
        assert await meet.lines.probe(line) == Probed(other_address=Reached.UNTRIED, other_port=Reached.REFUSED)
        await one.send(Say("x"))
        assert (await two.find(Said)).seen == ["127.0.0.1"]


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A listener at a port that somebody dials out from."""
    with socket.socket() as sock:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        sock.setblocking(False)
        yield sock


async def observing_from(meet: Meeting, port: int) -> Line:
    """An observing connection from a port that can be listened on as well."""
    sock = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, split(meet.observers[0]))
    reader, writer = await asyncio.open_connection(sock=sock)
    meet.lines.callback(writer.close)
    line = Line(reader, writer)
    await line.send(Observe())
    await line.find(Observed)
    return line


async def test_a_probe_dials_the_port_it_came_from_from_another_address_and_another_port() -> None:
    first = steady_ports(4)
    async with rendezvous(listen=ListenAddress("127.0.0.1", first), alternate="127.0.0.2") as meet:
        line = await observing_from(meet, first + 3)
        with listening(first + 3) as sock:
            assert await meet.lines.probe(line) == Probed(other_address=Reached.OPEN, other_port=Reached.OPEN)
            callers = []
            for _ in range(2):
                near, peer = sock.accept()
                callers.append(peer)
                near.close()
        assert sorted(host for host, _ in callers) == ["127.0.0.1", "127.0.0.2"]
        assert not {port for _, port in callers} & set(range(first, first + 3))


async def test_a_probe_of_who_does_not_listen_is_refused() -> None:
    async with rendezvous() as meet:
        line, _ = await meet.lines.observe(meet.observers[0])
        assert await meet.lines.probe(line) == Probed(other_address=Reached.UNTRIED, other_port=Reached.REFUSED)


@pytest.mark.parametrize(
    "second",
    [encode(Probe()), b'{"op":"probe","address":"127.0.0.9:22"}\n', encode(Observe()), b"GET / HTTP/1.1\r\n\r\n"],
    ids=["again", "another", "observe", "noise"],
)
async def test_a_connection_is_probed_once_and_never_used_again(second: bytes) -> None:
    async with rendezvous() as meet:
        line, _ = await meet.lines.observe(meet.observers[0])
        await meet.lines.probe(line)
        await line.send(second)
        assert await line.rest() == []


async def test_a_probe_names_nobody() -> None:
    async with rendezvous() as meet:
        with socket.create_server(("127.0.0.9", 0)) as decoy:
            decoy.setblocking(False)
            line, _ = await meet.lines.observe(meet.observers[0])
            port = decoy.getsockname()[1]
            await line.send(
                f'{{"op":"probe","address":"127.0.0.9:{port}","host":"127.0.0.9","port":{port}}}\n'.encode()
            )
            await line.find(Probed)
            with pytest.raises(BlockingIOError):
                decoy.accept()


async def test_an_observation_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OBSERVATION_TIME", 0.05)
    async with rendezvous() as meet:
        silent = await meet.lines.connect(meet.observers[0])
        seen, _ = await meet.lines.observe(meet.observers[1])
        assert await silent.rest() == await seen.rest() == []


@pytest.mark.parametrize("first", [Relay("ab" * 16), Join(room=ROOM, tag=TAG, seat="ab" * 16)])
async def test_an_observer_does_nothing_else(first: Join | Relay) -> None:
    async with rendezvous() as meet:
        line = await meet.lines.connect(meet.observers[0])
        await line.send(first)
        assert await line.rest() == []
        await hears(meet.engine, PeerRefused, "something else than to be observed")


async def test_the_port_for_seats_observes_nobody() -> None:
    async with rendezvous() as meet:
        line = await meet.lines.connect()
        await line.send(Observe())
        assert "observed at the port for seats" in (await line.find(Refused)).reason


async def test_an_observer_whose_port_is_taken_is_an_event_and_the_rest_goes_on() -> None:
    first = steady_ports(3)
    with socket.create_server(("127.0.0.1", first + 1)):
        async with rendezvous(listen=ListenAddress("127.0.0.1", first)) as meet:
            await hears(meet.engine, ObserverUnavailable, "in use")
            assert meet.observers == [f"127.0.0.1:{first + 2}"]
            await meet.lines.join()


async def test_observers_wait_for_nobody_while_the_service_cannot_listen() -> None:
    first = steady_ports(3)
    with socket.create_server(("127.0.0.1", first)):
        async with running(meet=PunchServerSettings(listen=ListenAddress("127.0.0.1", first))) as engine:
            await hears(engine, ServiceRetrying)
            with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", first + 1)):
                pass
            await hears(engine, ServiceRetrying)
            assert not told(engine, ObserverUnavailable)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"observe_ports": PortRange(7901, 7903)}, "must be 2 ports"),
        ({"observe_ports": PortRange(7901, 7901)}, "must be 2 ports"),
        ({"alternate": "other.example"}, "is not an IP address"),
        ({"alternate": "127.0.0.1"}, "is the address of listen"),
        ({"alternate": "::1"}, "of the same family"),
        ({"alternate": "127.0.0.2", "listen": ListenAddress("0.0.0.0", 7900)}, "not all of them"),
        ({"alternate": "127.0.0.2", "listen": ListenAddress("localhost", 7900)}, "must then name one address"),
    ],
)
def test_settings_that_cannot_work_are_told(settings: dict[str, object], words: str) -> None:
    made = PunchServerSettings(**{"listen": ListenAddress("127.0.0.1", 7900), **settings})  # type: ignore[arg-type]
    assert any(words in reason for _, reason in made.problems())


# Bad input


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"\n", "none of its meanings"),
        (b"{}\n", "none of its meanings"),
        (b"GET / HTTP/1.1\r\nHost: meet\r\n\r\n", "none of its meanings"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "it spoke TLS"),
        (b"x" * (MAX_LINE + 1), "longer than"),
        (encode(Ready("go")), "none of its meanings"),
        (encode(Join(room=ROOM, tag=TAG, seat="ab" * 16, version=2)), "version 2"),
        (b'{"op":"join","room":"\\u001b]0;x\\u0007","tag":"' + TAG.encode() + b'"}\n', "none of its meanings"),
    ],
)
async def test_a_first_line_that_is_none_is_refused_in_words(first: bytes, words: str) -> None:
    async with rendezvous() as meet:
        line = await meet.lines.connect()
        await line.send(first)
        assert words in (await line.find(Refused)).reason
        await meet.empty()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (b"noise\n", "none of its meanings"),
        (b"x" * MAX_LINE, "longer than"),
        (encode(Join(room=ROOM, tag=TAG, seat="ab" * 16)), "none of its meanings"),
        (encode(Say("x" * 8192))[:-2] + b'y"}\n', "none of its meanings"),
        (encode(Ready("s" * 33)), "none of its meanings"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
async def test_what_no_seat_says_costs_the_seat(what: bytes, words: str, at_once: bool) -> None:
    async with rendezvous() as meet:
        other = await meet.lines.join()
        line = await meet.lines.connect()
        join = encode(Join(room=ROOM, tag=TAG, seat=new_seat()))
        if at_once:
            await line.send(join + what)
        else:
            await line.send(join)
            await line.find(Joined)
            await line.send(what)
        assert words in (await line.find(Refused)).reason
        other.close()
        await meet.empty()
        assert not told(meet.engine, Crashed)


async def test_a_seat_that_goes_wrong_with_its_first_words_leaves_nothing() -> None:
    async with rendezvous() as meet:
        line = await meet.lines.connect()
        await line.send(Join(room=ROOM, tag=TAG, seat=new_seat()), b"bad\n")
        await line.rest()
        await meet.empty()
        assert not told(meet.engine, Crashed)


async def test_who_resets_with_its_first_words_leaves_nothing() -> None:
    async with rendezvous() as meet:
        for _ in range(5):
            line = await meet.lines.connect()
            await line.send(Join(room=ROOM, tag=TAG, seat=new_seat()))
            line.reset()
        await meet.empty()
        assert not told(meet.engine, Crashed)


async def test_both_of_a_room_that_go_at_once_leave_nothing() -> None:
    async with rendezvous() as meet:
        for _ in range(10):
            lines = [await meet.lines.join() for _ in range(2)]
            for line in lines:
                line.reset()
            await meet.empty()
        assert not told(meet.engine, Crashed)


async def test_who_says_too_much_loses_its_seat() -> None:
    async with rendezvous() as meet:
        one, two = await meet.lines.join(), await meet.lines.join()
        await one.send(*[Say("x")] * 100)
        assert "more than 20 things a second" in (await one.find(Refused)).reason
        said = 0
        while not isinstance(message := await two.next(), Left):
            said += isinstance(message, Said)
        assert 40 <= said < 100


async def test_who_does_not_read_loses_its_seat_and_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAYS_AT_ONCE", "SAYS_PER_SECOND"):
        monkeypatch.setattr(rooms, name, 1e9)
    async with rendezvous() as meet:
        reader, one = await meet.lines.join(), await meet.lines.join()
        seat = meet.service.rooms.seats[reader.number]
        seat._link._end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
        reader.writer.transport.pause_reading()  # type: ignore[attr-defined]
        meet.service.rooms.seats[one.number]._says = 1e9
        while not seat.over:
            await one.send(*[Say("x" * 8000)] * 10)
        await one.find(Left)
        closed = await hears(meet.engine, SessionClosed)
        assert closed.cause == "it does not read what it is told"


async def test_a_newcomer_that_says_nothing_is_turned_away() -> None:
    async with rendezvous(limits=LimitSettings(handshake_timeout=Duration(0.05))) as meet:
        line = await meet.lines.connect()
        assert "no handshake within" in (await line.find(Refused)).reason


# TLS, and the end


async def test_seats_and_relays_go_through_tls_and_observers_do_without() -> None:
    async with rendezvous(tls=TLSSettings()) as meet:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        lines = []
        for _ in range(2):
            line = await meet.lines.connect(ssl=context)
            line.number = new_seat()
            await line.send(Join(room=ROOM, tag=TAG, seat=line.number))
            await line.find(Joined)
            lines.append(line)
        relays = []
        for line in lines:
            relay = await meet.lines.connect(ssl=context)
            await relay.send(Relay(line.number), b"early")
            relays.append(relay)
        assert [await relay.raw(5) for relay in relays] == [b"early", b"early"]
        _, seen = await meet.lines.observe(meet.observers[0], lines[0])
        assert seen.startswith("127.0.0.1:")


async def test_a_plain_client_of_a_tls_rendezvous_is_turned_away() -> None:
    async with rendezvous(tls=TLSSettings()) as meet:
        line = await meet.lines.connect()
        await line.send(Join(room=ROOM, tag=TAG, seat=new_seat()), b"x" * 100)
        await hears(meet.engine, PeerRefused, "to a TLS listener")


async def test_a_seat_that_is_kicked_is_told_why() -> None:
    async with rendezvous() as meet:
        line = await meet.lines.join()
        (session,) = meet.service.attached
        meet.engine.kick(session.id, "that will do")
        assert (await line.find(Refused)).reason == "that will do"
        await meet.empty()


async def test_a_rendezvous_that_stops_closes_everything() -> None:
    async with rendezvous() as meet:
        one, two, left, _ = await relayed(meet)
        waiting = await meet.lines.relay(one)
        newcomer, observing = await meet.lines.connect(), await meet.lines.connect(meet.observers[0])
        await until(lambda: len(meet.service._newcomers) == 2)
        await meet.engine.stop_service("meet")
        for line in (one, two):
            assert isinstance((await line.rest())[-1], Refused)
        with pytest.raises(ConnectionResetError):
            await left.raw_rest()
        for line in (waiting, newcomer, observing):
            assert await line.next() is None
        await meet.empty()


async def test_a_rendezvous_that_drains_lets_relays_finish_and_takes_nobody() -> None:
    async with rendezvous() as meet:
        one, two, left, right = await relayed(meet)
        stopping = asyncio.ensure_future(meet.engine.stop(drain=5))
        await until(lambda: meet.engine.draining)
        with pytest.raises(ConnectionRefusedError):
            await meet.lines.connect()
        await left.send(b"to the end")
        left.writer.write_eof()
        assert await right.raw_rest() == b"to the end"
        right.writer.write_eof()
        await stopping
        for line in (one, two):
            assert isinstance((await line.rest())[-1], Refused)
