"""Limits that are changed while a service runs: open channels keep to them at once, and not a byte is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from functools import partial
from typing import TypeVar

import pytest

from channel_client_peers import ends
from channel_peers import hub
from jump_peers import ask, home, jump_server
from loopback import hears
from relay_peers import edge, shop, shop_at
from tunnel_peers import HOST, app, ok
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.live_limits import LimitChange
from tunnelconsole.engine.sessions import Flow
from tunnelconsole.engine.settings import Secret
from tunnelconsole.engine.steering_events import LimitsChanged
from tunnelconsole.engine.tokens.rights import decode_rights
from tunnelconsole.engine.transport.plane import CAN_SPLICE
from tunnelconsole.engine.units import Rate
from tunnelconsole.errors import RequestRefused
from waiting import until

T = TypeVar("T")

SPLICED = "splice" if CAN_SPLICE else "tcp"

SLOW = 20_000.0
"""Bytes per second at which :data:`SOME` would take minutes, which no test waits."""

FAST = 1e9

FREE = LimitChange(lifted=("rate",))

SOME = random.Random(7).randbytes(3 << 20)


def flow_at(engine: Engine, service: str) -> Flow:
    """The flow of a service's one channel."""
    (flow,) = [channel.flow for channel in engine.node.sessions.channels.values() if channel.session.service == service]
    return flow


async def while_rates_change(
    engine: Engine, target: str, service: str, moving: Awaitable[T], whole: int = 2 * len(SOME)
) -> T:
    """Has a flow go on from rate to rate: each time it has moved something, and in the end it is free.

    :param whole: bytes after which nothing more comes.
    """
    flow = flow_at(engine, service)

    def moved_on(before: int) -> bool:
        return flow.bytes_in + flow.bytes_out > before or before >= whole

    async def change() -> None:
        for rate in (SLOW, None, FAST, SLOW, FAST, None, SLOW):
            before = flow.bytes_in + flow.bytes_out
            engine.set_limits(target, FREE if rate is None else LimitChange(rate=rate))
            await until(partial(moved_on, before))
        engine.set_limits(target, FREE)

    answer, _ = await asyncio.gather(moving, change())
    return answer


async def test_a_spliced_channel_is_held_to_a_rate_and_freed_without_losing_a_byte() -> None:
    async with home() as at, at.through() as caller:
        flow = flow_at(at.engine, "home")
        assert flow.path == SPLICED
        done = at.engine.set_limits("home", LimitChange(rate=SLOW))
        assert done.startswith("service home has at most 20,000 B/s, until it is started anew")
        assert flow.path == "tcp"
        assert await while_rates_change(at.engine, "home", "home", caller.exchange(SOME)) == SOME
        assert (flow.bytes_in, flow.bytes_out) == (len(SOME), len(SOME))


async def test_a_channel_that_comes_under_a_rate_pays_for_what_it_moves() -> None:
    async with home() as at, at.through() as caller:
        at.engine.set_limits("home", LimitChange(rate=SLOW))
        pace = at.service.gate.pace
        assert pace is not None
        await caller.send(SOME[:20_000])
        await until(lambda: pace.take(0, at.engine.node.loop.time()) > 0)
        at.engine.set_limits("home", FREE)
        assert await caller.read(20_000) == SOME[:20_000]


async def test_a_session_has_a_rate_of_its_own_and_others_have_none() -> None:
    async with home() as at, at.through() as caller, at.through() as other:
        first, second = at.engine.node.sessions.channels.values()
        done = at.engine.set_limits(first.session.id, LimitChange(rate=SLOW))
        assert done.endswith("has at most 20,000 B/s of its own, until it ends")
        assert (first.flow.path, second.flow.path) == ("tcp", SPLICED)
        assert await other.exchange(SOME) == SOME
        target = first.session.id
        assert (await hears(at.engine, LimitsChanged)).session == target
        at.engine.set_limits(target, FREE)
        assert await caller.exchange(SOME) == SOME


async def test_a_limit_of_channels_holds_for_whoever_comes_from_now_on() -> None:
    async with home() as at, at.through() as caller:
        at.engine.set_limits("home", LimitChange(channels=1))
        async with at.calling() as newcomer:
            assert "limit of 1 channels" in await ask(newcomer, at.far.address)
        assert await caller.exchange(b"still here") == b"still here"
        at.engine.set_limits("home", LimitChange(lifted=("channels",)))
        await at.serves()


async def test_a_reload_that_changes_the_rate_holds_open_channels_to_it_and_undoes_what_was_set_by_hand() -> None:
    async with home() as at, at.through() as caller:
        at.engine.set_limits("home", LimitChange(rate=FAST, sessions=1))
        await at.engine.apply({"home": jump_server()})
        assert flow_at(at.engine, "home").path == "tcp"  # nothing has changed in its settings
        done = await at.engine.apply({"home": jump_server(limits=LimitSettings(rate=Rate(SLOW)))})
        assert done.endswith("in place: home")
        assert at.service.gate.rate == SLOW
        assert at.service.gate.settings.sessions == 0
        await at.engine.apply({"home": jump_server()})
        assert flow_at(at.engine, "home").path == SPLICED
        assert await caller.exchange(SOME) == SOME


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (LimitChange(), "no limit is named"),
        (LimitChange(rate=0.0), "a limit of 0 for rate is not possible"),
        (LimitChange(sessions=-1), "a limit of -1 for sessions is not possible"),
        (LimitChange(rate=1e300), "for rate is not possible"),
        (LimitChange(lifted=("speed",)), "there is no limit speed"),
        (LimitChange(rate=1.0, lifted=("rate",)), "rate cannot be set and lifted at once"),
    ],
)
async def test_limits_that_cannot_be_are_refused(change: LimitChange, why: str) -> None:
    async with home() as at:
        with pytest.raises(RequestRefused, match=why):
            at.engine.set_limits("home", change)


async def test_a_session_has_no_sessions_and_nobody_has_no_limits() -> None:
    async with home() as at, at.through():
        (session,) = at.engine.node.sessions.sessions
        with pytest.raises(RequestRefused, match="a session has no limits but a rate"):
            at.engine.set_limits(session, LimitChange(channels=1))
        with pytest.raises(RequestRefused, match="there is no service and no session s99"):
            at.engine.set_limits("s99", LimitChange(rate=1.0))


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
@pytest.mark.parametrize("service", ["edge", "shop"])
async def test_a_visitor_through_relay_goes_on_from_rate_to_rate(native: bool, service: str) -> None:
    async with shop(native=native) as at, at.visiting() as visitor:
        engine = at.engine if service == "shop" else at.edge.engine
        await until(lambda: list(engine.node.sessions.channels))
        assert await while_rates_change(engine, service, service, visitor.exchange(SOME)) == SOME


@pytest.mark.parametrize("key", [None, Secret("only the two of us know")], ids=["plain", "sealed"])
async def test_a_channel_client_goes_on_from_rate_to_rate(key: Secret | None) -> None:
    async with ends(key=key) as (both, _), both.calling() as caller:
        await caller.send(b"first")
        assert await caller.read(5) == b"first"
        moving = asyncio.gather(caller.send(SOME), caller.read(len(SOME)))
        _, received = await while_rates_change(both.engine, "laptop", "laptop", moving)
        assert received == SOME


@pytest.mark.parametrize("service", ["web", "app"])
async def test_a_long_answer_through_a_tunnel_goes_on_from_rate_to_rate(service: str) -> None:
    async with app(lambda _: ok(SOME), server={"inspect": False}, inspect=False) as at, at.visiting() as visitor:
        engine = at.engine if service == "app" else at.web.engine
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await until(lambda: list(engine.node.sessions.channels))
        got = await while_rates_change(engine, service, service, visitor.response(), len(SOME))
        assert got.body == SOME


async def test_one_to_one_at_a_channel_server_comes_under_a_rate_and_gets_free() -> None:
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]) as b:
        (name,) = at.engine.services
        await at.engine.settled()
        assert at.party("a").path == SPLICED
        at.engine.set_limits(name, LimitChange(rate=SLOW))
        assert at.party("a").path == "tcp"
        sending = asyncio.gather(a.send(SOME), b.read(len(SOME)))
        await until(lambda: at.party("a").bytes_in > 0)
        at.engine.set_limits(name, FREE)
        assert (await sending)[1] == SOME
        await until(lambda: at.party("a").path == SPLICED)


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_a_token_that_is_given_a_rate_holds_open_channels_to_it_and_frees_them(native: bool) -> None:
    async with edge(require_token=True) as at:
        tokens = at.engine.tokens
        secret = Secret(await tokens.create("alice", decode_rights({})))
        async with shop_at(at, token=secret, native=native) as made, made.visiting() as visitor:
            await until(lambda: list(at.engine.node.sessions.channels))
            flow = flow_at(at.engine, "edge")
            await tokens.change("alice", rights=decode_rights({"rate": "20kB/s"}))
            pace = tokens.find("alice").pace
            assert pace is not None
            moving = asyncio.gather(visitor.exchange(SOME))
            await until(lambda: pace.take(0, at.engine.node.loop.time()) > 0)
            assert flow.path == ("tcp" if native else "yamux")
            await tokens.change("alice", rights=decode_rights({}))
            (answer,) = await moving
            assert answer == SOME
