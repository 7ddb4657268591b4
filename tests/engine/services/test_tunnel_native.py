"""Our tunnel client at our tunnel server: requests over data connections, on real sockets."""

from __future__ import annotations

import asyncio
import os

import pytest

from loopback import BULK, hears, sha256, told
from tunnel_peers import HOST, Seen, app, ok
from tunnelconsole.engine.events import ChannelClosed, ChannelOpened, TargetFailed, TunnelConnected, TunnelConnecting
from waiting import until

BIG = os.urandom(1024) * 4096 + b"the end"


def digest(seen: Seen) -> bytes:
    return ok(sha256(seen.body))


async def test_requests_of_one_visitor_go_over_one_data_connection() -> None:
    async with app() as at, at.visiting() as visitor:
        for number in range(20):
            got = await visitor.get(f"/{number}")
            assert (got.status, got.body) == (200, f"GET /{number} of 0".encode())
        assert at.local.connections == 1
        assert [channel.label for channel in at.web.engine.node.sessions.channels.values()] == ["GET /19"]


async def test_many_visitors_at_once_get_their_own_answers() -> None:
    async def visit(number: int) -> None:
        async with at.visiting() as visitor:
            for turn in range(10):
                got = await visitor.get(f"/{number}/{turn}")
                assert got.body == f"GET /{number}/{turn} of 0".encode()

    async with app() as at:
        await asyncio.gather(*(visit(number) for number in range(30)))
        assert at.web.service.visitors == set()
        assert all(not backend.load for backend in at.web.service.backends)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("inspect", [True, False])
async def test_large_bodies_come_whole_both_ways(native: bool, inspect: bool) -> None:
    def mirror(seen: Seen) -> bytes:
        return ok(seen.body)

    async with app(mirror, {"inspect": inspect}, native=native, inspect=inspect) as at, at.visiting() as visitor:
        for _ in range(3):
            assert (await visitor.get("/", method="POST", body=BIG)).body == BIG


@pytest.mark.parametrize("native", [True, False])
async def test_a_visitor_that_reads_slowly_gets_all(native: bool) -> None:
    async with app(lambda _: ok(BULK), native=native) as at, at.visiting() as slow, at.visiting() as other:
        await slow.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await until(lambda: at.local.seen)
        for _ in range(5):
            assert len((await other.get("/")).body) == len(BULK)
        assert (await slow.response()).body == BULK


async def test_the_public_url_and_the_tunnels_states_are_told() -> None:
    async with app() as at:
        assert at.service.address == str(at.service.settings.server)
        assert told(at.engine, TunnelConnecting)
        assert told(at.engine, TunnelConnected)[0].url == str(at.service.settings.server)


async def test_channels_count_what_passes() -> None:
    async with app(lambda _: ok(b"x" * 1000)) as at:
        async with at.visiting() as visitor:
            await visitor.get("/", "X-Pad: 1")
        closed = await hears(at.web.engine, ChannelClosed)
        assert closed.bytes_in > 1000
        assert 0 < closed.bytes_out < 1000
        assert told(at.engine, ChannelOpened)
        assert not told(at.engine, TargetFailed)
