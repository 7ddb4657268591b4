"""A link over changing paths, with real sockets: to its users one connection."""

from __future__ import annotations

import asyncio
import random

import pytest

from link_peers import LINK, NONCE, UNHURRIED, LinkPair, LinkSide, Relay, link_pair
from loopback import BULK
from tcp import Program, connected
from tunnelconsole.engine.services.punch import carrier as carrier_module
from tunnelconsole.engine.services.punch.path import LinkTimes, PathKind
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.wire.punch_frames import FIN_FRAME, MAX_DATA, SWITCH, SWITCH_BODY, encode_frame
from tunnelconsole.engine.wire.punch_link import LINK_WINDOW
from waiting import until

BRIEF = 0.2
"""Seconds where a test waits for a time to run out."""


def switch(role: bytes, nonce: bytes, turn: int = 1, link: bytes = LINK) -> bytes:
    """A SWITCH as it is on the wire."""
    return encode_frame(SWITCH, SWITCH_BODY.pack(link, role, nonce, turn, 0))


async def converse(pair: LinkPair, said: bytes = BULK) -> None:
    """Both users say all and then their end, and each gets what the other said."""

    async def speak(side: LinkSide, words: bytes) -> None:
        for start in range(0, len(words), 1 << 18):  # a send has a time limit, whatever it sends
            await side.user.send(words[start : start + (1 << 18)])
        await side.user.half_close()

    _, _, at_a, at_b = await asyncio.gather(
        speak(pair.a, said), speak(pair.b, said[::-1]), pair.a.user.read_to_end(), pair.b.user.read_to_end()
    )
    assert at_b == said
    assert at_a == said[::-1]
    assert [await side.ended() for side in pair.sides] == ["", ""]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_link_carries_bulk_both_ways_and_ends_in_order(tls: bool) -> None:
    async with link_pair() as pair:
        await pair.path(tls=tls)
        await converse(pair)
        for side in pair.sides:
            assert (side.carrier.bytes_in, side.carrier.bytes_out) == (len(BULK), len(BULK))
            assert side.moves == ["direct"]
            assert side.lost == []
            assert side.carrier.rtt > 0


async def test_the_end_of_one_stream_is_passed_on_while_the_other_goes_on() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.a.user.half_close()
        assert await pair.b.user.read() == b""
        await pair.b.user.send(b"an answer")
        assert await pair.a.user.read_exactly(9) == b"an answer"
        await pair.b.user.half_close()
        assert await pair.a.user.read() == b""
        assert await pair.a.ended() == await pair.b.ended() == ""


async def test_a_user_may_speak_before_there_is_a_path() -> None:
    async with link_pair() as pair:
        await pair.a.user.send(b"early")
        assert pair.a.carrier.kind is None
        await pair.path("relay")
        assert await pair.b.user.read_exactly(5) == b"early"
        assert pair.a.carrier.kind == pair.b.carrier.kind == "relay"


@pytest.mark.parametrize("tls", [False, True])
async def test_the_link_moves_from_relay_to_direct_under_full_load_and_leaves_the_relay(tls: bool) -> None:
    async with link_pair() as pair:
        relay = await pair.path("relay", tls=tls)
        talk = asyncio.gather(converse(pair, BULK * 3))
        await until(lambda: relay.carried > len(BULK))
        await pair.path("direct", tls=tls)
        await pair.moved("direct")
        await until(lambda: relay.left)
        await talk
        for side in pair.sides:
            assert side.moves == ["relay", "direct"]
            assert side.lost == []


@pytest.mark.parametrize("tls", [False, True])
async def test_the_link_goes_back_to_a_relay_when_the_direct_path_breaks_under_full_load(tls: bool) -> None:
    async with link_pair() as pair:
        direct = await pair.path("direct", tls=tls)
        talk = asyncio.gather(converse(pair, BULK * 3))
        await until(lambda: direct.carried > len(BULK))
        direct.cut()
        await until(lambda: all(side.moves[-1:] == [""] for side in pair.sides))
        assert all(kind == "direct" and "connection" in why for side in pair.sides for kind, why in side.lost)
        await pair.path("relay", tls=tls)
        await talk
        for side in pair.sides:
            assert side.moves == ["direct", "", "relay"]


async def test_a_relay_that_comes_while_a_direct_path_works_is_a_spare_and_takes_over_when_that_breaks() -> None:
    async with link_pair() as pair:
        direct = await pair.path("direct")
        await pair.moved("direct")
        spare = await pair.path("relay")
        await pair.a.user.send(b"one")
        assert await pair.b.user.read_exactly(3) == b"one"
        assert pair.a.carrier.kind == pair.b.carrier.kind == "direct"
        direct.cut()
        await pair.moved("relay")
        assert spare.carried
        await pair.b.user.send(b"two")
        assert await pair.a.user.read_exactly(3) == b"two"


CUT_UP_TO = 6 << 20
"""Bytes, of 8 MiB that both say, up to which paths are cut: a last acknowledgement that is cut off is lost for good."""


@pytest.mark.parametrize("seed", range(6))
async def test_paths_that_are_cut_and_changed_at_random_lose_repeat_and_reorder_nothing(seed: int) -> None:
    chance = random.Random(seed)
    kinds: tuple[PathKind, PathKind] = ("direct", "relay")
    async with link_pair() as pair:
        paths: list[Relay] = [await pair.path("relay", tls=bool(seed % 2))]
        talk = asyncio.gather(converse(pair, chance.randbytes(1 << 20) * 4))
        for _ in range(15):
            goal = _received(pair) + chance.randrange(1 << 18)
            await until(lambda goal=goal: talk.done() or _received(pair) >= goal or not _carried(pair))  # type: ignore[misc]
            if talk.done() or _received(pair) > CUT_UP_TO:
                break
            for path in chance.sample(paths, chance.randrange(len(paths) + 1)):
                path.cut()
                paths.remove(path)
            if chance.random() < 0.8 or not paths:
                paths.append(await pair.path(chance.choice(kinds), tls=bool(seed % 2)))
        await pair.path(tls=bool(seed % 2))
        await talk


def _received(pair: LinkPair) -> int:
    return sum(side.carrier.bytes_in for side in pair.sides)


def _carried(pair: LinkPair) -> bool:
    return all(side.carrier.kind for side in pair.sides)


async def test_a_path_that_never_answers_is_given_up_and_the_old_one_goes_on() -> None:
    times = LinkTimes(ping=3600, silence=3600, move=BRIEF, patience=3600)
    async with link_pair(times) as pair:
        await pair.path("relay")
        await pair.moved("relay")
        mute = await pair.path("direct", attach="a")
        await pair.a.user.send(b"on the old path")
        assert await pair.b.user.read_exactly(15) == b"on the old path"
        assert pair.a.lost == [("direct", f"no answer within {BRIEF:g} s")]
        assert pair.a.carrier.kind == "relay"
        await until(lambda: mute.near.fileno() < 0)


async def test_a_path_that_falls_silent_is_dead_and_the_link_goes_on_elsewhere() -> None:
    times = LinkTimes(ping=BRIEF, silence=3 * BRIEF, move=3600, patience=3600)
    async with link_pair(times) as pair:
        direct = await pair.path("direct")
        await pair.moved("direct")
        await pair.path("relay")
        direct.fall_silent()
        await pair.a.user.send(b"nobody hears this where it was said first")
        await pair.moved("relay")
        assert await pair.b.user.read_exactly(41) == b"nobody hears this where it was said first"
        assert ("direct", f"nothing heard for {3 * BRIEF:g} s") in pair.a.lost + pair.b.lost


async def test_a_user_that_does_not_read_costs_a_window_stops_the_sender_and_no_ping() -> None:
    times = LinkTimes(ping=BRIEF, silence=3 * BRIEF, move=3600, patience=3600)
    async with link_pair(times) as pair:
        relay = await pair.path()
        loop = asyncio.get_running_loop()
        stuck = asyncio.gather(pair.a.user.send(bytes(4 * LINK_WINDOW)))
        await until(lambda: sum(map(len, pair.b.carrier._undelivered)) == LINK_WINDOW)
        before, since = pair.b.carrier.bytes_in, loop.time()
        await until(lambda: loop.time() - since > 4 * times.silence)
        assert pair.b.carrier.bytes_in == before
        assert not pair.a.lost + pair.b.lost
        assert not stuck.done()
        assert len(await pair.b.user.read_exactly(4 * LINK_WINDOW)) == 4 * LINK_WINDOW
        await stuck
        assert relay.carried > 4 * LINK_WINDOW


async def test_many_tiny_pieces_that_wait_for_a_user_are_put_together() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.a.user.send(bytes(16 * MAX_DATA))
        await until(lambda: pair.b.carrier._writing)
        count = len(pair.b.carrier._undelivered)
        for _ in range(500):
            await pair.a.user.send(b"x")
        await until(lambda: pair.b.carrier.bytes_in == 16 * MAX_DATA + 500)
        assert len(pair.b.carrier._undelivered) < count + 20


async def test_a_link_without_a_path_runs_out_of_patience_and_breaks_at_both_ends() -> None:
    times = LinkTimes(ping=3600, silence=3600, move=3600, patience=BRIEF)
    async with link_pair(times) as pair:
        path = await pair.path()
        await pair.a.user.send(b"before the break")
        assert await pair.b.user.read_exactly(16) == b"before the break"
        path.cut()
        why = f"no path to the other end for {BRIEF:g} s"
        for side in pair.sides:
            assert await side.read_until_broken() == (b"", why)
            assert await side.ended() == why


async def test_a_connection_that_a_user_breaks_off_is_broken_at_the_other_user_behind_what_came_before() -> None:
    async with link_pair() as pair:
        await pair.path(tls=True)
        await pair.a.user.send(b"half a")
        await until(lambda: pair.b.carrier.bytes_in)
        pair.a.carrier.end.abort()
        assert await pair.b.read_until_broken() == (b"half a", carrier_module.BROKEN_OFF)
        assert await pair.b.ended() == carrier_module.BROKEN_OFF
        assert await pair.a.ended() == "the connection was broken off"


async def test_a_break_shows_though_the_user_has_ended_its_own_stream() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.b.user.half_close()
        assert await pair.a.user.read() == b""
        pair.a.carrier.end.abort()
        assert await pair.b.read_until_broken() == (b"", carrier_module.BROKEN_OFF)


async def test_what_a_user_sends_to_one_that_has_closed_breaks_the_connection_and_what_that_said_arrives() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.a.user.send(b"goodbye")
        pair.a.carrier.end.close()
        assert await pair.b.user.read_exactly(7) == b"goodbye"
        await pair.b.user.send(b"wait")
        assert await pair.b.ended() == carrier_module.TOOK_NO_MORE
        assert await pair.b.read_until_broken() == (b"", "")
        with pytest.raises(BrokenPipeError):
            pair.b.carrier.end.send(b"more")
        assert await pair.a.ended() == "the program closed before it had taken all"


async def test_a_user_that_closes_with_bytes_unread_has_broken_the_connection_off() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.b.user.send(b"unread")
        await until(lambda: pair.a.carrier.bytes_in == 6)
        pair.a.carrier.end.close()
        assert await pair.b.read_until_broken() == (b"", carrier_module.BROKEN_OFF)


async def test_an_owner_that_closes_a_link_tells_both_users_and_the_other_end_why() -> None:
    async with link_pair() as pair:
        await pair.path(tls=True)
        await pair.moved("direct")
        pair.a.carrier.close("the service stops")
        for side in pair.sides:
            assert await side.ended() == "the service stops"
            assert await side.read_until_broken() == (b"", "the service stops")


async def test_a_break_without_a_reason_is_a_break_all_the_same() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.moved("direct")
        pair.a.carrier.close("")
        for side in pair.sides:
            assert await side.read_until_broken() == (b"", carrier_module.BROKEN_OFF)


async def test_what_came_before_a_break_is_still_delivered_to_a_slow_user() -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.a.user.send(bytes(LINK_WINDOW // 2))
        await until(lambda: pair.b.carrier.bytes_in == LINK_WINDOW // 2)
        pair.a.carrier.close("enough")
        await until(lambda: pair.b.carrier.over)
        assert not pair.b.ends
        data, why = await pair.b.read_until_broken()
        assert (len(data), why) == (LINK_WINDOW // 2, "enough")


async def test_a_path_for_a_link_that_is_over_is_closed() -> None:
    async with link_pair() as pair:
        pair.a.carrier.close("over")
        late = await pair.path()
        await until(lambda: late.near.fileno() < 0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (switch(b"a", NONCE["a"], link=b"M" * 16), "of another link"),
        (switch(b"b", NONCE["b"]), "leads back to this end"),
        (switch(b"b", NONCE["a"]), "a role that is not its own"),
        (switch(b"a", b"C" * 16), "not the one of this link"),
        (switch(b"a", NONCE["a"], turn=1), "of turn 1, and the link is at turn 1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "there is no frame"),
    ],
)
async def test_a_path_of_somebody_else_is_closed_and_the_link_goes_on(words: bytes, why: str) -> None:
    async with link_pair() as pair:
        await pair.path()
        await pair.moved("direct")
        near, far = connected()
        pair.b.carrier.attach(SocketEnd(far), "relay")
        stranger = Program(near)
        await stranger.send(words)
        await stranger.read_until_broken()
        stranger.close()
        ((kind, told),) = pair.b.lost
        assert kind == "relay"
        assert why in told
        await pair.a.user.send(b"still here")
        assert await pair.b.user.read_exactly(10) == b"still here"


async def test_a_path_that_leads_back_to_its_own_end_is_refused() -> None:
    side = LinkSide("a")
    near, far = connected()
    side.carrier.attach(SocketEnd(near), "direct")
    side.carrier.attach(SocketEnd(far), "direct")
    await until(lambda: side.lost)
    assert "leads back to this end" in side.lost[0][1]
    side.carrier.close("the test is over")
    side.carrier.end.close()
    await side.ended()
    side.farewells.close()


async def test_an_end_that_breaks_the_protocol_ends_the_link() -> None:
    side = LinkSide("b")
    near, far = connected()
    peer = Program(near)
    side.carrier.attach(SocketEnd(far), "direct")
    await peer.send(switch(b"a", NONCE["a"]) + FIN_FRAME + FIN_FRAME)
    assert "broke the protocol" in await side.ended()
    heard, _ = await peer.read_until_broken()
    assert b"it went on behind the end of its stream" in heard
    side.carrier.end.close()
    peer.close()
    side.farewells.close()


async def test_no_more_than_a_few_paths_are_kept() -> None:
    side = LinkSide("b", UNHURRIED)
    programs = []
    for _ in range(carrier_module.MAX_PATHS + 3):
        near, far = connected()
        programs.append(Program(near))
        side.carrier.attach(SocketEnd(far), "relay")
    assert len(side.carrier._paths) == carrier_module.MAX_PATHS
    for program in programs[:3]:
        await program.read_until_broken()
    side.carrier.close("the test is over")
    side.carrier.end.close()
    await side.ended()
    for program in programs:
        program.close()
    side.farewells.close()
