"""Many streams over one link: none notices that the paths beneath them are changed and cut."""

from __future__ import annotations

import asyncio
import random

import pytest

from link_peers import LinkPair, Relay, link_pair
from mux_pair import Heard, Side
from tunnelconsole.engine.services.punch.path import PathKind
from waiting import until

STREAMS = 8

KINDS: tuple[PathKind, PathKind] = ("direct", "relay")


async def say(side: Side, user: Heard, data: bytes) -> None:
    """Sends all of ``data`` on a stream as its window allows, and then its end."""
    rest = memoryview(data)
    while rest:
        again = user.room_again
        if size := side.mux.room(user.stream_id):
            piece = bytes(rest[: min(size, 20_000)])
            side.mux.send(user.stream_id, piece)
            rest = rest[len(piece) :]
        else:
            await until(lambda known=again: user.room_again > known)  # type: ignore[misc]
    side.mux.send_eof(user.stream_id)


async def disturb(pair: LinkPair, chance: random.Random, talk: asyncio.Future[list[None]]) -> int:
    """Brings and cuts paths while the talk goes on; returns how often."""
    paths: list[Relay] = []
    changes = 0
    while not talk.done() and changes < 25:
        for path in chance.sample(paths, chance.randrange(len(paths) + 1)):
            path.cut()
            paths.remove(path)
        paths.append(await pair.path(chance.choice(KINDS), tls=True))
        changes += 1
        goal = sum(side.carrier.bytes_in for side in pair.sides) + chance.randrange(1 << 18)
        await until(
            lambda goal=goal: (  # type: ignore[misc]
                talk.done()
                or sum(side.carrier.bytes_in for side in pair.sides) >= goal
                or not all(side.carrier.kind for side in pair.sides)
            )
        )
    await pair.path(tls=True)
    return changes


@pytest.mark.parametrize("seed", range(3))
async def test_streams_of_a_link_whose_paths_are_changed_and_cut_at_random_lose_nothing(seed: int) -> None:
    chance = random.Random(seed)
    async with link_pair() as pair:
        a, b = Side(pair.a.carrier.end, client=True), Side(pair.b.carrier.end, client=False)
        users = [a.open() for _ in range(STREAMS)]
        asked = {user.stream_id: chance.randbytes(chance.randrange(1 << 20)) for user in users}

        async def answer(user: Heard) -> None:
            peer = await b.peer_of(user)
            await say(b, peer, asked[user.stream_id][::-1])

        talk = asyncio.gather(
            *(say(a, user, asked[user.stream_id]) for user in users), *(answer(user) for user in users)
        )
        assert await disturb(pair, chance, talk) > 1
        await talk
        await until(lambda: all(user.ended for user in [*users, *b.peers.values()]))
        assert {user.stream_id: bytes(user.bytes[::-1]) for user in users} == asked
        assert {peer.stream_id: bytes(peer.bytes) for peer in b.peers.values()} == asked
        a.mux.close()
        assert [await side.ended() for side in (a, b)] == ["", ""]
        assert [await side.ended() for side in pair.sides] == ["", ""]


async def test_a_link_that_breaks_loses_its_streams_with_a_reason_and_none_looks_complete() -> None:
    async with link_pair() as pair:
        await pair.path()
        a, b = Side(pair.a.carrier.end, client=True), Side(pair.b.carrier.end, client=False)
        user = a.open()
        peer = await b.peer_of(user)
        pair.a.carrier.close("the service stops")
        assert [await side.ended() for side in (a, b)] == ["connection lost: the service stops"] * 2
        for one in (user, peer):
            assert one.losses == ["connection lost: the service stops"]
            assert not one.ended
