"""yamux over a connection: many streams that do not disturb each other, and sessions that end with a reason."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import yamux_frames as frames
from mux_pair import NEVER, Heard, Side, sessions
from tcp import Program, connected
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.mux import HIGH_WATER, QuietUser
from tunnelconsole.engine.wire.yamux import INITIAL_WINDOW
from waiting import until

SOON = 0.2
"""Seconds of keepalive where a test waits for it to run out."""


@pytest.fixture(params=["tcp", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    """Whether the session travels in TLS."""
    return bool(request.param == "tls")


@pytest_asyncio.fixture
async def remote() -> AsyncIterator[tuple[Side, Program]]:
    """A server's session whose client is written by hand."""
    near, far = connected()
    side, program = Side(SocketEnd(far), client=False), Program(near)
    yield side, program
    program.close()
    side.mux.close("the test is over")
    await side.ended()


async def send_all(side: Side, user: Heard, data: bytes) -> None:
    """Sends on a stream as far as its window and the session allow, and waits for the rest."""
    rest = memoryview(data)
    while rest:
        again = user.room_again
        size = side.mux.room(user.stream_id)
        if size:
            side.mux.send(user.stream_id, bytes(rest[:size]))
            rest = rest[size:]
        else:
            await until(lambda known=again: user.room_again > known)  # type: ignore[misc]


async def test_many_streams_carry_their_own_bytes_both_ways(tls: bool) -> None:
    chance = random.Random(1)
    async with sessions(tls=tls) as (client, server):
        users = [client.open() for _ in range(20)]
        peers = [await server.peer_of(user) for user in users]
        said = {user.stream_id: chance.randbytes(chance.randrange(2 * INITIAL_WINDOW)) for user in users}
        await asyncio.gather(
            *(send_all(client, user, said[user.stream_id]) for user in users),
            *(send_all(server, peer, said[peer.stream_id][::-1]) for peer in peers),
        )
        for side, user in ((client, users), (server, peers)):
            for one in user:
                side.mux.send_eof(one.stream_id)
        await until(lambda: all(user.ended for user in [*users, *peers]))
        assert [bytes(peer.bytes) for peer in peers] == [said[peer.stream_id] for peer in peers]
        assert [bytes(user.bytes) for user in users] == [said[user.stream_id][::-1] for user in users]


async def test_a_stream_that_nobody_reads_is_given_one_window_and_stalls_no_other(tls: bool) -> None:
    async with sessions(tls=tls) as (client, server):
        slow, quick = client.open(), client.open()
        server.slow.add(slow.stream_id)
        slow_peer, quick_peer = await server.peer_of(slow), await server.peer_of(quick)
        stuck = asyncio.ensure_future(send_all(client, slow, bytes(2 * INITIAL_WINDOW)))
        await send_all(client, quick, bytes(10 * INITIAL_WINDOW))
        await until(lambda: len(quick_peer.bytes) == 10 * INITIAL_WINDOW)
        assert not stuck.done()
        assert len(slow_peer.bytes) == INITIAL_WINDOW
        server.mux.consumed(slow.stream_id, INITIAL_WINDOW)
        await stuck
        await until(lambda: len(slow_peer.bytes) == 2 * INITIAL_WINDOW)


async def test_a_larger_window_is_granted_with_the_acceptance() -> None:
    async with sessions() as (client, server):
        server.extra_window = 1000
        user = client.open()
        await until(lambda: user.extra_window == 1000)
        assert client.mux.room(user.stream_id) == INITIAL_WINDOW + 1000


async def test_while_a_remote_reads_nothing_only_so_much_waits_to_be_sent(remote: tuple[Side, Program]) -> None:
    side, program = remote
    users = [side.open() for _ in range(100)]

    def send_what_fits() -> bool:
        for user in users:
            if size := side.mux.room(user.stream_id):
                side.mux.send(user.stream_id, bytes(min(size, 10_000)))
        return side.mux.congested

    await until(send_what_fits)
    assert all(not side.mux.room(user.stream_id) for user in users)
    assert HIGH_WATER < len(side.mux._unsent) + side.mux._session.pending_bytes < HIGH_WATER + 20_000 + 100 * 24
    assert not any(user.room_again for user in users)

    async def read() -> None:
        while not all(user.room_again for user in users):
            await program.read()

    await read()


async def test_however_many_streams_are_held_up_each_is_told_and_the_longest_waiting_first(
    monkeypatch: pytest.MonkeyPatch, remote: tuple[Side, Program]
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.wire.yamux.MAX_UNACKNOWLEDGED", 2000)
    side, program = remote
    told: list[int] = []

    class Chatty(QuietUser):
        """Sends a word whenever it can."""

        stream_id = 0

        def can_send(self) -> None:
            told.append(self.stream_id)
            if side.mux.room(self.stream_id):
                side.mux.send(self.stream_id, b"word")

    bulk = side.open()
    chatty = [Chatty() for _ in range(1000)]
    for user in chatty:
        user.stream_id = side.mux.open(user) or 0
    other = [side.open() for _ in range(20)]
    await until(lambda: all(_sent_window(side, user) for user in [bulk, *other]) or side.mux.congested)
    assert side.mux.congested
    for user in reversed(chatty):
        assert not side.mux.room(user.stream_id)

    async def read() -> None:
        while len(told) < len(chatty):
            await program.read()

    await read()
    assert told == [user.stream_id for user in reversed(chatty)]


def _sent_window(side: Side, user: Heard) -> bool:
    if size := side.mux.room(user.stream_id):
        side.mux.send(user.stream_id, bytes(size))
    return not side.mux._session.send_window(user.stream_id)


async def test_a_reset_by_one_side_is_heard_by_the_other_and_by_nobody_else(tls: bool) -> None:
    async with sessions(tls=tls) as (client, server):
        users = [client.open() for _ in range(3)]
        peers = [await server.peer_of(user) for user in users]
        server.mux.reject(peers[1].stream_id)
        await until(lambda: users[1].losses == ["reset by the other side"])
        client.mux.send(users[2].stream_id, b"still here")
        await until(lambda: peers[2].bytes == b"still here")
        assert not users[0].losses
        assert not users[2].losses


async def test_a_stream_turned_away_is_lost_to_its_opener() -> None:
    async with sessions() as (client, server):
        server.turned_away.add(1)
        user = client.open()
        await until(lambda: user.losses)
        assert not server.mux.adopt(user.stream_id, Heard())
        assert not client.mux.adopt(user.stream_id, Heard())


async def test_who_wants_a_stream_while_the_remote_is_behind_is_told_when_it_has_caught_up(
    monkeypatch: pytest.MonkeyPatch, remote: tuple[Side, Program]
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.wire.yamux.MAX_UNACKNOWLEDGED", 1)
    side, program = remote
    user = side.open()
    assert side.mux.open(Heard()) is None
    await program.send(frames.frame(frames.WINDOW, frames.ACK, user.stream_id))
    await until(lambda: side.caught_up)
    assert not side.mux.behind
    assert side.open().stream_id


async def test_when_the_remote_leaves_in_order_the_session_ends_without_a_reason(tls: bool) -> None:
    async with sessions(tls=tls) as (client, server):
        user = client.open()
        peer = await server.peer_of(user)
        client.mux.close()
        assert await server.ended() == await client.ended() == ""
        assert (user.losses, peer.losses) == (["the session ended"], ["the session ended"])
        assert client.mux.open(Heard()) is None


async def test_what_was_sent_before_an_orderly_close_still_arrives(tls: bool) -> None:
    async with sessions(tls=tls, buffer=4096) as (client, server):
        user = client.open()
        peer = await server.peer_of(user)
        said = random.Random(2).randbytes(INITIAL_WINDOW)
        client.mux.send(user.stream_id, said)
        assert not client.mux.flushed
        client.mux.close()
        await until(lambda: peer.losses)
        assert peer.bytes == said
        assert await client.ended() == ""


async def test_a_close_with_a_reason_ends_every_stream_with_it_and_twice_is_once(tls: bool) -> None:
    async with sessions(tls=tls) as (client, _):
        user = client.open()
        client.mux.close("kicked")
        client.mux.close("again")
        assert user.losses == ["kicked"]
        assert not client.closed
        assert await client.ended() == "kicked"


async def test_a_broken_connection_ends_the_session_even_behind_unread_frames(remote: tuple[Side, Program]) -> None:
    side, program = remote
    await until(lambda: side.mux._starting is None)
    words = b"w" * 200_000
    opening = frames.frame(frames.WINDOW, frames.SYN, 1) + frames.data(1, words)
    program.socket.sendall(opening)
    await until(lambda: not program.unacknowledged)
    program.reset()
    assert (await side.ended()).startswith("connection lost: ")


async def test_a_remote_that_answers_keepalives_lives_and_one_that_does_not_is_dead() -> None:
    near, far = connected()
    side, program = Side(SocketEnd(far), client=False, keepalive=SOON), Program(near)
    for _ in range(3):
        header = await program.read_exactly(12)
        assert header[:8] == frames.frame(frames.PING, frames.SYN, 0)[:8]
        assert not side.mux.over
        await program.send(frames.frame(frames.PING, frames.ACK, 0, int.from_bytes(header[8:], "big")))
    assert await side.ended() == "nothing heard for 0.2 s after a keepalive"
    program.close()


async def test_a_remote_that_has_stopped_altogether_is_dead_although_much_waits_for_it() -> None:
    near, far = connected(4096)
    side = Side(SocketEnd(far), client=False, keepalive=SOON)
    users = [side.open() for _ in range(10)]
    await until(lambda: all(_sent_window(side, user) for user in users) or side.mux.congested)
    assert (await side.ended()).startswith("nothing heard for")
    assert all(user.losses for user in users)
    near.close()


VIOLATIONS = {
    "a frame of version 1": b"\1" + bytes(11),
    "an unknown type": frames.frame(9, 0, 0),
    "data on a stream never opened": frames.data(7, b"x"),
    "more than the window": frames.frame(frames.WINDOW, frames.SYN, 1)
    + frames.frame(frames.DATA, 0, 1, INITIAL_WINDOW + 1),
}


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS.keys())
async def test_a_broken_protocol_ends_the_session_with_a_reason_and_a_go_away(
    remote: tuple[Side, Program], violation: bytes
) -> None:
    side, program = remote
    user = side.open()
    await program.send(violation)
    heard = await program.read_to_end()
    assert heard.endswith(frames.frame(frames.GO_AWAY, 0, 0, 1))
    program.close()
    reason = await side.ended()
    assert reason.startswith("protocol error: the remote")
    assert user.losses == [reason]


async def test_a_go_away_stops_new_streams_and_lets_the_others_go_on(tls: bool) -> None:
    async with sessions(tls=tls) as (client, server):
        user = client.open()
        peer = await server.peer_of(user)
        server.mux.go_away()
        await until(lambda: client.mux.remote_leaving)
        assert client.mux.open(Heard()) is None
        client.mux.send(user.stream_id, b"still here")
        await until(lambda: peer.bytes == b"still here")


async def test_a_go_away_with_an_error_ends_the_session(remote: tuple[Side, Program]) -> None:
    side, program = remote
    await program.send(frames.frame(frames.GO_AWAY, 0, 0, 2))
    assert await side.ended() == "the other side ended the session with code 2"


async def test_what_came_before_the_session_began_is_read_first() -> None:
    near, far = connected()
    opening = frames.frame(frames.WINDOW, frames.SYN, 1) + frames.data(1, b"early")
    side = Side(SocketEnd(far), client=False, early=opening[:20])
    await Program(near).send(opening[20:])
    await until(lambda: side.peers[1].bytes == b"early" if side.peers else False)
    side.mux.close("the test is over")
    await side.ended()
    near.close()


async def test_a_fault_in_one_streams_user_ends_the_session_instead_of_losing_the_others_bytes() -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))

    class Faulty(QuietUser):
        def received(self, data: bytes) -> None:
            raise RuntimeError("a fault of ours")

    async with sessions() as (client, server):
        users = [client.open(), client.open()]
        peer = await server.peer_of(users[1])
        server.mux.adopt(users[0].stream_id, Faulty())
        for user in users:
            client.mux.send(user.stream_id, b"in one read")
        assert await server.ended() == "internal fault: RuntimeError: a fault of ours"
        assert peer.losses
        assert [str(context["exception"]) for context in raised] == ["a fault of ours"]


async def test_a_session_tells_nobody_anything_from_within_its_constructor() -> None:
    near, far = connected()
    near.close()
    side = Side(SocketEnd(far), client=True, keepalive=NEVER)
    assert not side.closed
    assert await side.ended() == ""
