"""A channel of SSH as a link: what its owner is told, and what becomes of what it writes."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from link_owner import Owner
from ssh_pair import ChannelPair, channel_pair, told
from tunnelconsole.engine.transport.ssh_channel import CUT, WINDOW, ChannelLink
from waiting import until

BULK = bytes(range(256)) * 20_000
"""More than a window."""

READ_AT_ONCE = 64 * 1024


def owned(link: ChannelLink, *, reads: bool = True) -> Owner:
    """An owner of a link."""
    owner = Owner()
    link.owner = owner
    if reads:
        link.resume()
    return owner


async def pour(link: ChannelLink, owner: Owner, data: bytes) -> None:
    """Writes all of it, as the other side takes it."""
    for start in range(0, len(data), READ_AT_ONCE):
        assert link.write(data[start : start + READ_AT_ONCE])
        await until(lambda: not link.blocked)
    owner.news.clear()


def _more_than(owner: Owner, count: int) -> bool:
    return len(owner.got) > count


async def test_bytes_go_both_ways_and_each_half_ends_for_itself() -> None:
    async with channel_pair() as pair:
        near, far = owned(pair.near), owned(pair.far)
        assert pair.near.write(b"ping")
        pair.near.finish()
        await told(far.news, "ended")
        assert far.got == b"ping"
        assert pair.far.write(b"pong")
        pair.far.finish()
        await told(near.news, "ended")
        assert near.got == b"pong"
        assert pair.near.ended
        assert pair.far.ended


async def test_nothing_is_told_before_the_owner_wants_it_and_nothing_is_lost() -> None:
    async with channel_pair() as pair:
        near, far = owned(pair.near), owned(pair.far, reads=False)
        pair.near.write(b"early")
        pair.near.finish()
        link = pair.far
        await pair.all_came()
        assert (far.got, far.news) == (b"", [])
        link.resume()
        await told(far.news, "ended")
        assert far.got == b"early"
        assert near.news == []


async def test_a_paused_link_holds_its_sender_up_and_gets_all_in_the_end() -> None:
    async with channel_pair() as pair:
        near, far = owned(pair.near), owned(pair.far)
        far.pauses = True
        sending = asyncio.gather(pour(pair.near, near, BULK))
        await until(lambda: pair.near.blocked)
        assert len(far.got) <= WINDOW
        while len(far.got) < len(BULK):
            seen = len(far.got)
            pair.far.resume()
            await until(partial(_more_than, far, seen))
        await sending
        assert far.got == BULK


async def test_a_blocked_link_says_when_it_is_drained() -> None:
    async with channel_pair() as pair:
        near, far = owned(pair.near), owned(pair.far, reads=False)
        while not pair.near.blocked:
            pair.near.write(bytes(READ_AT_ONCE))
        pair.far.resume()
        await told(near.news, "drained")
        assert far.news == []


async def test_a_link_that_is_held_for_two_reasons_goes_on_when_both_are_gone() -> None:
    async with channel_pair() as pair:
        near = owned(pair.near)
        pair.near.hold("connection")
        pair.near.hold("channel")
        pair.near.go_on("connection")
        assert near.news == []
        pair.near.go_on("channel")
        assert near.news == ["drained"]


async def test_a_close_lets_what_was_written_arrive_first() -> None:
    async with channel_pair() as pair:
        owned(pair.near)
        far = owned(pair.far)
        pair.near.write(BULK)
        pair.near.finish()
        pair.near.close()
        await told(far.news, "ended", "deaf")
        assert far.got == BULK
        await until(lambda: pair.gone == len((pair.near, pair.far)))


async def test_writing_to_who_has_closed_is_no_break() -> None:
    async with channel_pair() as pair:
        owned(pair.near)
        far = owned(pair.far, reads=False)
        pair.near.write(b"last words")
        pair.near.finish()
        pair.near.close()
        await until(lambda: not pair.far.write(b"too late"))
        assert pair.far.left_in_order
        pair.far.resume()
        await until(lambda: "ended" in far.news)
        assert far.got == b"last words"


async def test_a_channel_that_was_cut_is_broken_and_has_no_end() -> None:
    async with channel_pair() as pair:
        owned(pair.near)
        far = owned(pair.far)
        pair.near.write(b"half of")
        await until(lambda: far.got)
        pair.near.abort()
        await told(far.news, f"broken: {CUT}")


async def test_a_program_that_closes_its_channels_without_an_end_ends_them() -> None:
    async with channel_pair("Go") as pair:
        near = owned(pair.near)
        pair.far.write(b"all of it")
        pair.far.close()
        await told(near.news, "ended", "deaf")
        assert near.got == b"all of it"


async def test_a_lost_connection_breaks_a_link_at_once_even_one_that_is_not_read() -> None:
    async with channel_pair() as pair:
        near = owned(pair.near, reads=False)
        link = pair.near
        pair.far.write(b"not read")
        await pair.all_came()
        pair.lose()
        await told(near.news, "broken: the SSH connection ended")
        assert not link.write(b"anything")
        assert not link.left_in_order


async def test_a_link_without_an_owner_tells_its_break_to_the_first_one() -> None:
    async with channel_pair() as pair:
        pair.lose()
        await until(lambda: pair.near.ended)
        await told(owned(pair.near).news, "broken: the SSH connection ended")


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_who_has_let_go_hears_nothing_more(way: str) -> None:
    async with channel_pair() as pair:
        near, far = owned(pair.near), owned(pair.far)
        link = pair.near
        getattr(link, way)()
        getattr(link, way)()
        pair.far.write(b"anybody there?")
        await until(lambda: far.news)
        link.resume()
        await pair.all_came()
        assert (near.got, near.news, link.reading) == (b"", [], False)


async def test_a_channel_that_is_given_up_while_it_is_opened_is_closed_again() -> None:
    async with channel_pair() as pair:
        await _give_up(pair)
        far = owned(pair.far)
        await until(lambda: far.news)


async def _give_up(pair: ChannelPair) -> None:
    kept = pair.link(pair.client)
    kept.abort()
    await pair.client.create_connection(lambda: kept, "target", 1)


async def test_a_close_that_the_other_side_does_not_take_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.transport.ssh_channel.CLOSE_TIME", 0.05)
    async with channel_pair() as pair:
        owned(pair.near)
        owned(pair.far, reads=False)
        while not pair.near.blocked:
            pair.near.write(bytes(READ_AT_ONCE))
        pair.near.close()
        pair.far.resume()
        await until(lambda: pair.gone == len((pair.near, pair.far)))
