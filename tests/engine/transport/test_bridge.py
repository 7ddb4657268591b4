"""Bridges: an end over a link that has no descriptor, which ends and breaks as the link does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from link_owner import Owner
from ssh_pair import ChannelPair, channel_pair
from tunnelconsole.engine.transport import bridge as bridge_module
from tunnelconsole.engine.transport.bridge import Bridge, BridgedEnd
from tunnelconsole.engine.transport.ends import receive, send_all
from tunnelconsole.engine.transport.ssh_channel import CUT, ChannelLink
from waiting import until

BULK = bytes(range(256)) * 8_000


class Far:
    """Whoever is at the far end of the channel."""

    def __init__(self, link: ChannelLink) -> None:
        self.link = link
        self.owner = Owner()
        link.owner = self.owner
        link.resume()


@asynccontextmanager
async def bridged() -> AsyncIterator[tuple[BridgedEnd, Far, ChannelPair]]:
    """An end, who is at the other side, and the channel between them."""
    async with channel_pair() as pair:
        end = Bridge(asyncio.get_running_loop(), pair.near).end
        try:
            yield end, Far(pair.far), pair
        finally:
            end.close()
            pair.far.abort()
            await until(lambda: pair.gone >= len((pair.near, pair.far)))


async def rest(end: BridgedEnd) -> bytes:
    """All until the end."""
    pieces = []
    async with asyncio.timeout(30):
        while piece := await receive(end):
            pieces.append(piece)
    return b"".join(pieces)


async def test_bytes_and_both_halves_ends_go_through() -> None:
    async with bridged() as (end, far, _):
        assert end.path == "ssh"
        await send_all(end, BULK)
        end.send_eof()
        await until(lambda: far.owner.news == ["ended"])
        assert far.owner.got == BULK
        far.link.write(BULK[::-1])
        far.link.finish()
        assert await rest(end) == BULK[::-1]
        assert await rest(end) == b""


async def test_what_was_sent_before_a_close_arrives_with_its_end() -> None:
    async with bridged() as (end, far, _):
        await send_all(end, BULK)
        end.close()
        end.close()
        await until(lambda: "ended" in far.owner.news)
        assert far.owner.got == BULK


async def test_an_end_that_is_broken_off_breaks_the_link() -> None:
    async with bridged() as (end, far, _):
        await send_all(end, b"half of")
        await until(lambda: far.owner.got)
        end.abort()
        await until(lambda: far.owner.news == [f"broken: {CUT}"])


async def test_a_break_is_shown_behind_the_last_byte() -> None:
    async with bridged() as (end, far, pair):
        far.link.write(b"half of")
        await pair.all_came()
        pair.lose()
        await until(lambda: end.broken)
        assert await receive(end) == b"half of"
        with pytest.raises(ConnectionResetError, match="the SSH connection ended"):
            await receive(end)
        with pytest.raises(ConnectionResetError):
            await send_all(end, b"anything")


async def test_a_break_behind_the_end_of_what_came_is_an_end_and_a_closed_pipe() -> None:
    async with bridged() as (end, far, pair):
        far.link.write(b"all of it")
        far.link.finish()
        await until(lambda: end.complete)
        pair.lose()
        await until(lambda: end.broken)
        assert await rest(end) == b"all of it"
        with pytest.raises(BrokenPipeError):
            await send_all(end, b"anything")


async def test_nothing_is_read_that_cannot_be_delivered() -> None:
    async with bridged() as (end, far, _):
        while not far.link.blocked:
            far.link.write(bytes(64 * 1024))
        far.link.finish()
        assert set(await rest(end)) == {0}


async def test_a_closed_end_whose_bytes_nobody_takes_is_cut_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "DELIVERY_TIME", 0.05)
    async with bridged() as (end, far, pair):
        far.link.pause()
        with suppress(BlockingIOError):
            while end.send(BULK):
                pass
        end.close()
        await until(lambda: pair.near.closed)


async def test_closing_an_end_whose_bridge_is_over_leaves_no_timer() -> None:
    async with channel_pair() as pair:
        bridge = Bridge(asyncio.get_running_loop(), pair.near)
        end, far = bridge.end, Far(pair.far)
        far.link.finish()
        end.send_eof()
        await until(lambda: "ended" in far.owner.news and bridge._pump.over)
        assert await rest(end) == b""
        end.close()
        assert bridge._timer is None
        await until(lambda: pair.gone >= len((pair.near, pair.far)))


async def test_the_time_to_deliver_ends_with_the_delivery() -> None:
    async with channel_pair() as pair:
        bridge = Bridge(asyncio.get_running_loop(), pair.near)
        far = Far(pair.far)
        await send_all(bridge.end, BULK)
        bridge.end.close()
        timer = bridge._timer
        assert timer is not None
        await until(lambda: "ended" in far.owner.news)
        await until(timer.cancelled)
        far.link.abort()
        await until(lambda: pair.gone >= len((pair.near, pair.far)))
