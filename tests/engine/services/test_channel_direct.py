"""One to one at the channel server: spliced while it lasts, and not a byte lost or out of order when it changes."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from channel_peers import ALL, OK, At, hs1, hs2, hs3, hub
from loopback import BULK, hears, open_descriptors, told
from tunnelconsole.engine.events import BytesDropped, ChannelClosed, Crashed, SessionClosed
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import HostPort, TLSSettings
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.plane import CAN_SPLICE
from tunnelconsole.engine.units import Rate, Size
from waiting import until

SPLICED = "splice" if CAN_SPLICE else "tcp"

SCHEDULES = 20
"""Random schedules in one test; there are :data:`SEEDS` of them for each loop."""

SEEDS = 10

NARROW = 4096
"""Bytes of a kernel's buffer that is soon full."""

STEPS = 14
"""Steps of a schedule."""


async def test_two_who_name_each_other_are_spliced_both_ways() -> None:
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
        assert {at.party(chid).path for chid in "ab"} == {SPLICED}
        sends = a.send(BULK), b.send(BULK[::-1])
        _, _, *read = await asyncio.gather(*sends, a.read(len(BULK)), b.read(len(BULK)))
        assert read == [BULK[::-1], BULK]


async def test_two_who_send_to_all_are_spliced_until_a_third_comes() -> None:
    async with hub() as at, at.client("a") as a, at.client("b") as b:
        assert at.party("a").direct_out is not None
        await a.send(b"two, ")
        assert await b.read(5) == b"two, "
        async with at.client("c") as c:
            assert at.party("a").direct_out is None
            await a.send(b"three, ")
            assert await b.read(7) == await c.read(7) == b"three, "
            c.reset()
        await until(lambda: at.party("a").direct_out is not None)
        await a.send(b"two again")
        assert await b.read(9) == b"two again"


@pytest.mark.parametrize(
    "changes",
    [
        {"tls": TLSSettings()},
        {"limits": LimitSettings(rate=Rate(10**9))},
        {"on_slow": "drop"},
        {"on_slow": "disconnect"},
    ],
    ids=["tls", "rate", "drop", "disconnect"],
)
async def test_where_something_stands_in_the_way_nothing_is_spliced(changes: dict[str, Any]) -> None:
    async with hub(**changes) as at:
        client = at.tls_client if "tls" in changes else at.client
        async with client("a", ["b"]) as a, client("b", ["a"]) as b:
            await a.send(b"hello")
            assert await b.read(5) == b"hello"
            assert at.party("a").direct_out is None


async def test_who_names_more_than_one_is_not_spliced_also_when_only_one_is_there() -> None:
    async with hub() as at, at.client("a", ["b", "c"]) as a, at.client("b", ["a"]) as b:
        await a.send(b"hello")
        assert await b.read(5) == b"hello"
        assert at.party("a").direct_out is None
        await until(lambda: at.party("a").undelivered == 5)
        assert at.party("b").direct_out is not None


async def test_a_third_who_sends_to_the_receiver_ends_the_splice_and_his_leaving_begins_it_again() -> None:
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
        async with at.client("c", ["b"]) as c:
            assert at.party("a").direct_out is None
            assert at.party("b").direct_out is not None
            await c.send(b"from c")
            assert await b.read(6) == b"from c"
        await until(lambda: at.party("a").direct_out is not None)
        await a.send(b"from a")
        assert await b.read(6) == b"from a"


async def test_what_sits_in_a_pipe_is_delivered_first_when_the_splice_ends() -> None:
    stream = BULK.replace(b"c", b"a") * 4
    async with hub() as at, at.client("b", ["x"]) as b, at.client("a", ["b"]) as a, asyncio.TaskGroup() as tasks:
        sent = tasks.create_task(a.send(stream))
        direct = at.party("a").direct_out
        assert direct is not None
        await until(lambda: direct.half.undelivered)
        async with at.client("c", ["b"]) as c:
            assert at.party("a").direct_out is None
            assert at.party("b").waiting
            await c.send(b"c")
            got = await b.read(len(stream) + 1)
        await sent
        assert got.count(b"c") == 1  # anywhere
        assert got.replace(b"c", b"") == stream


async def test_what_waits_for_a_receiver_goes_out_before_a_splice_begins() -> None:
    async with (
        hub() as at,
        at.client("b", ["x"]) as b,
        at.client("a", ["b", "nobody"]) as a,
        asyncio.TaskGroup() as tasks,
    ):
        party = at.party("a")
        sent = tasks.create_task(a.send(BULK * 4))
        await until(lambda: at.party("b").blocking)
        assert party.session is not None
        at.service.set_receivers(party.session, ["b"])
        assert party.direct_out is None
        assert await b.read(4 * len(BULK)) == BULK * 4
        await sent
        await until(lambda: party.direct_out is not None)


class Reluctant(SocketEnd):
    """An end that takes some of what comes next, and then nothing until it is willing again."""

    willing = True
    takes = 1000

    def send(self, data: bytes | memoryview) -> int:
        if self.willing:
            return super().send(data)
        taken, self.takes = super().send(data[: self.takes]) if self.takes else 0, 0
        if not taken:
            raise BlockingIOError
        return taken


async def test_a_splice_that_begins_because_another_receiver_broke_off_comes_behind_what_was_read() -> None:
    piece = 32 * 1024
    async with hub() as at, AsyncExitStack() as stack:
        async with at.client("gone", ["x"]):
            b = await stack.enter_async_context(at.client("b", ["x"]))
            a = await stack.enter_async_context(at.client("a", ALL))
        await until(lambda: at.party("gone").ended)  # and more than that, which shows at the second thing sent to it
        at.party("b").end = reluctant = Reluctant(socket_of(at, "b"))
        party, number = at.party("a"), 0
        while "gone" in at.chids:
            reluctant.willing, reluctant.takes = False, 1000
            number += 1
            await a.send(bytes([number]) * piece)
            await until(lambda number=number: party.bytes_in == number * piece)  # type: ignore[misc]
            assert number < 100
            if "gone" in at.chids:
                reluctant.willing = True
                assert await b.read(piece) == bytes([number]) * piece
        await a.send(b"\xff")
        await until(lambda: party.bytes_in == number * piece + 1)
        reluctant.willing = True
        assert await b.read(piece + 1) == bytes([number]) * piece + b"\xff"


async def test_a_spliced_sender_that_ends_its_side_leaves_its_receiver_open() -> None:
    async with hub() as at, at.client("b", ["a"]) as b:
        async with at.client("a", ["b"]) as a:
            _, got = await asyncio.gather(a.send(BULK), b.read(len(BULK)))
            assert got == BULK
            a.half_close()
            await until(lambda: at.party("a").ended)
            await b.send(b"the answer")
            assert await a.read(10) == b"the answer"
        async with at.client("c", ["b"]) as c:
            await c.send(b"next")
            assert await b.read(4) == b"next"


async def test_a_spliced_receiver_that_breaks_off_is_forgotten_and_its_sender_stays() -> None:
    async with hub() as at, at.client("a", ["b"]) as a:
        async with at.client("b", ["a"]) as b, asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(a.send(BULK * 4))
            await until(lambda: at.party("a").bytes_in > 1024 * 1024)
            b.reset()
            await sent
        await until(lambda: at.party("a").bytes_in == 4 * len(BULK))
        closed = await hears(at.engine, ChannelClosed, "b -> a: connection reset")
        lost = sum(event.count for event in told(at.engine, BytesDropped) if event.chid == "b")
        assert closed.bytes_out + lost + at.party("a").undelivered == 4 * len(BULK)
        async with at.client("b", ["a"]) as b:
            await a.send(b"again")
            assert await b.read(5) == b"again"


async def test_a_spliced_sender_that_breaks_off_is_forgotten_and_what_it_sent_arrives() -> None:
    async with hub() as at, at.client("b", ["a"]) as b:
        async with at.client("a", ["b"]) as a:
            _, got = await asyncio.gather(a.send(BULK), b.read(len(BULK)))
            assert got == BULK
            a.reset()
            await hears(at.engine, SessionClosed, "connection reset")
        assert at.chids == ["b"]
        await at.serves()


async def test_pipes_come_back_when_splices_end() -> None:
    async with hub() as at:
        for _ in range(3):
            async with at.client("b", ["x"]) as b, at.client("a", ["b"]) as a:
                _, got = await asyncio.gather(a.send(BULK), b.read(len(BULK)))
                assert got == BULK
        await until(lambda: not at.chids)
        assert at.engine.node.plane.pipes <= 1


@dataclass
class Peer(asyncio.Protocol):
    """A client of a schedule. What it sends can be told from what others send: three bits of each byte say whose.

    :param number: 0 to 7.
    """

    number: int
    receivers: tuple[str, ...]
    received: bytearray = field(default_factory=bytearray)
    sent: int = 0
    ended: bool = False
    lost: bool = False
    at_end: bool = False
    expected: dict[int, bytearray] = field(default_factory=dict)
    """By sender, all that this one should get."""
    transport: asyncio.Transport = field(init=False)

    @property
    def chid(self) -> str:
        return f"p{self.number}"

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.at_end = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def sends_to(self, other: Peer) -> bool:
        return other is not self and (not self.receivers or other.chid in self.receivers)

    def wanted(self) -> dict[int, bytes]:
        """By sender, what is to come."""
        return {number: bytes(data) for number, data in self.expected.items() if data}

    def got(self) -> dict[int, bytes]:
        """By sender, what has come, in its order."""
        found = {number: bytes(self.received.translate(None, others)) for number, others in enumerate(_OTHERS)}
        return {number: data for number, data in found.items() if data}


class Schedule:
    """Random clients that come, send, change their receivers, pause and leave, at a server of ours.

    A change that matters to a pair waits until what the one has sent so far has been read, so that it is known who is
    to get what; everything else happens while bytes are on their way.
    """

    def __init__(self, at: At, seed: int) -> None:
        self.at = at
        self.random = random.Random(seed)
        self.peers: list[Peer] = []

    async def run(self) -> None:
        for _ in range(3):
            await self.come()
        for _ in range(STEPS):
            if not self.peers:
                await self.come()
            await self.random.choices(
                [self.send, self.change, self.come, self.leave, self.half_close, self.pause], [10, 4, 3, 2, 1, 3]
            )[0]()
            await self.forget_who_was_let_go()
        for peer in self.peers:
            peer.transport.resume_reading()
        await self.all_delivered()
        for peer in self.peers:
            peer.transport.abort()
        self.peers.clear()
        await turns(lambda: not self.at.chids)

    async def forget_who_was_let_go(self) -> None:
        """Whoever has closed its sending side goes, with all that it should get, once nobody may send to it."""
        for peer in [peer for peer in self.peers if peer.ended]:
            if not any(other.sends_to(peer) and not other.ended for other in self.peers):
                peer.transport.resume_reading()
                await turns(lambda peer=peer: peer.lost or peer.at_end)  # type: ignore[misc]
                assert peer.got() == peer.wanted()
                peer.transport.abort()
                self.peers.remove(peer)

    def some_receivers(self) -> tuple[str, ...]:
        count = self.random.choice([0, 1, 1, 1, 2, 3])
        return tuple(f"p{number}" for number in self.random.sample(range(8), count))

    async def come(self) -> None:
        free = sorted(set(range(8)) - {peer.number for peer in self.peers})
        if not free:
            return
        newcomer = Peer(self.random.choice(free), self.some_receivers())
        for peer in self.peers:
            if peer.sends_to(newcomer):
                await self.read_all_of(peer)
        where = HostPort.parse(self.at.address)
        loop, sock = asyncio.get_running_loop(), socket.socket()
        narrow = self.random.random() < 0.6
        if narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        sock.setblocking(False)
        await loop.sock_connect(sock, (where.host, where.port))
        newcomer.transport, _ = await loop.create_connection(lambda: newcomer, sock=sock)
        newcomer.transport.write(hs1(newcomer.chid) + hs3(*newcomer.receivers))
        answer = hs2(newcomer.chid) + OK
        await turns(lambda: newcomer.received == answer)
        newcomer.received.clear()
        if narrow:
            narrow_down(self.at, newcomer.chid)
        self.peers.append(newcomer)

    async def send(self) -> None:
        senders = [peer for peer in self.peers if not peer.ended]
        if not senders:
            return
        sender = self.random.choice(senders)
        size = self.random.choice([1, 7, 100, 5000, 70_000, 300_000])
        drawn = self.random.randbytes(min(size, 997))
        data = (drawn * (size // len(drawn) + 1))[:size].translate(_MARKED[sender.number])
        sender.transport.write(data)
        sender.sent += size
        for peer in self.peers:
            if sender.sends_to(peer):
                peer.expected.setdefault(sender.number, bytearray()).extend(data)

    async def change(self) -> None:
        senders = [peer for peer in self.peers if not peer.ended]
        if not senders:
            return
        sender = self.random.choice(senders)
        changed = Peer(sender.number, self.some_receivers())
        if any(sender.sends_to(peer) != changed.sends_to(peer) for peer in self.peers if peer is not sender):
            await self.read_all_of(sender)
        sender.receivers = changed.receivers
        session = self.at.party(sender.chid).session
        assert session is not None
        self.at.service.set_receivers(session, sender.receivers)

    async def leave(self) -> None:
        if len(self.peers) < 2:
            return
        peer = self.random.choice(self.peers)
        await self.read_all_of(peer)
        for sender in self.peers:
            if sender.sends_to(peer):
                await self.read_all_of(sender)
        self.peers.remove(peer)
        party = self.at.party(peer.chid)
        if peer.ended:  # nothing is read of it any more, so that its reset would not be noticed
            assert party.session is not None
            self.at.engine.kick(party.session.id)
        else:
            peer.reset()
        await turns(lambda: party.over)
        for number, data in peer.got().items():
            assert bytes(peer.expected[number]).startswith(data)

    async def half_close(self) -> None:
        peer = self.random.choice(self.peers)
        if peer.ended:
            return
        # One to whom nobody may send is let go at once, which leave() has already.
        if not any(other.sends_to(peer) and not other.ended for other in self.peers):
            return
        peer.ended = True
        peer.transport.write_eof()
        party = self.at.party(peer.chid)
        await self.read_all_of(peer)
        await turns(lambda: party.ended)
        peer.receivers = (peer.chid,)

    async def pause(self) -> None:
        peer = self.random.choice(self.peers)
        if self.random.random() < 0.3:
            peer.transport.pause_reading()
        else:
            peer.transport.resume_reading()

    async def read_all_of(self, sender: Peer) -> None:
        """Waits until the server has read what ``sender`` has sent; whoever holds it up reads on."""
        party = self.at.service.hub.routes.present.get(sender.chid)
        if party is None:
            return
        for peer in self.peers:
            if not peer.lost:
                peer.transport.resume_reading()
        await turns(lambda: party.bytes_in >= sender.sent)

    async def all_delivered(self) -> None:
        for peer in self.peers:
            wanted = sum(map(len, peer.expected.values()))
            await turns(lambda peer=peer, wanted=wanted: len(peer.received) >= wanted)  # type: ignore[misc]
            assert peer.got() == peer.wanted()


def narrow_down(at: At, chid: str) -> None:
    """Has the server's kernel hold little for a client, so that more waits in its outbox."""
    socket_of(at, chid).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)


def socket_of(at: At, chid: str) -> socket.socket:
    """The server's end of a client's connection."""
    end = at.party(chid).end
    assert isinstance(end, SocketEnd)
    return end.socket


_MARKED = [bytes((number << 5) | (byte & 0x1F) for byte in range(256)) for number in range(8)]


_OTHERS = [bytes(byte for byte in range(256) if byte >> 5 != number) for number in range(8)]


async def turns(condition: Callable[[], object]) -> None:
    """As :func:`until`, without a pause: the loop turns until the condition holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 10
    while not condition():
        assert loop.time() < deadline, "stuck"
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_in_random_schedules_everybody_gets_exactly_what_was_sent_to_them(seed: int) -> None:
    before = open_descriptors()
    async with hub(buffer=Size(64 * 1024)) as at:
        for number in range(SCHEDULES):
            await Schedule(at, seed * SCHEDULES + number).run()
        assert not told(at.engine, Crashed)
        assert not at.service.hub.parties
    await until(lambda: open_descriptors() <= before)
