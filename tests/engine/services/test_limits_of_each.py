"""Limits of each address and each identity hold at the servers, over their sessions, channels and requests."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack

from channel_peers import failed, hs1, hs3, hub
from jump_peers import SECRET, ask, home
from loopback import calling, hears, told
from relay_peers import ask_for_key, edge, shop
from tunnel_peers import app, app_at, web
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.rates import RateSettings
from tunnelconsole.engine.settings import Secret
from tunnelconsole.engine.units import Rate
from waiting import until

ELSEWHERE = "127.0.0.2"
SESSIONS = "the limit of 1 sessions for each {} is reached"
CHANNELS = "the limit of 1 channels for each {} is reached"


async def test_an_address_has_so_many_jumps_at_once_and_another_has_its_own() -> None:
    async with home(limits=LimitSettings(sessions_per_address=1)) as at:
        async with at.through(), at.calling() as second, at.calling(ELSEWHERE) as other:
            assert await ask(second, at.far.address) == SESSIONS.format("address")
            assert await ask(other, at.far.address) == ""
        await until(lambda: not at.engine.node.sessions.sessions)
        await at.serves()


async def test_an_identity_has_so_many_jumps_at_once_wherever_it_comes_from() -> None:
    secrets = {"alice": Secret(SECRET), "bob": Secret("another")}
    async with (
        home(secret=None, secrets=secrets, limits=LimitSettings(channels_per_identity=1)) as at,
        at.through(),
        at.calling(ELSEWHERE) as second,
        at.calling() as other,
    ):
        assert await ask(second, at.far.address) == CHANNELS.format("identity")
        assert await ask(other, at.far.address, "another") == ""


async def test_a_visitors_address_has_so_many_channels_of_a_relay() -> None:
    async with shop(server={"limits": LimitSettings(channels_per_address=1)}) as made, made.visiting() as first:
        await first.send(b"ping")
        assert await first.read(4) == b"ping"
        async with calling(made.address) as second:
            await second.broken()
        await hears(made.edge.engine, PeerRefused, CHANNELS.format("address"))
        async with calling(made.address, ELSEWHERE) as other:
            assert await other.exchange(b"ping") == b"ping"


async def test_visitors_who_have_waited_for_a_data_connection_are_no_more_than_the_limit() -> None:
    async with (
        edge(limits=LimitSettings(channels_per_address=1)) as at,
        at.backend() as (peer, address),
        AsyncExitStack() as stack,
    ):
        await ask_for_key(peer)
        for _ in range(3):
            await stack.enter_async_context(calling(address))
        await until(lambda: [backend.waiting for backend in at.service.backends.values()] == [3])
        await until(lambda: len(told(at.engine, PeerRefused)) == 2)  # when none has come in time
        assert {event.reason for event in told(at.engine, PeerRefused)} == {CHANNELS.format("address")}
        assert at.service.channels == 1


async def test_a_client_of_a_named_server_may_have_limits_for_each_address() -> None:
    limits = LimitSettings(sessions_per_address=1, channels_per_address=1)
    async with app(limits=limits) as made:
        gate = made.engine.services["app"].gate
        for host in ("127.0.0.1", ELSEWHERE):  # by the same stream, one after the other
            async with made.visiting(from_host=host) as visitor:
                assert (await visitor.get("/")).status == 200
    assert not gate.addresses._channels


async def test_visitors_of_a_tunnel_are_held_to_the_rate_of_whose_it_is() -> None:
    async with (
        web(tokens={"alice": Secret("s3cret")}, limits=LimitSettings(rate_per_identity=Rate(1e6))) as at,
        app_at(at, token=Secret("s3cret")) as made,
        made.visiting() as visitor,
    ):
        assert (await visitor.get("/")).status == 200
        (served,) = at.service.visitors
        (session,) = at.service.attached
        assert session.holder == ("secret", "alice")
        assert served.pace is not None
        assert served.pace is at.service.gate.identities.pace(session.holder)


async def test_an_address_has_so_many_chids() -> None:
    async with hub(limits=LimitSettings(sessions_per_address=1)) as at, at.client("a"):
        async with at.calling() as second:
            await second.send(hs1("b") + hs3("a"))
            assert failed(await second.read_to_end()) == SESSIONS.format("address")
        async with at.client("c", from_host=ELSEWHERE):
            await until(lambda: at.chids == ["a", "c"])


async def test_visitors_of_one_address_share_its_requests_and_all_share_the_services() -> None:
    for limited in ({"per_address": RateSettings(requests=0.01)}, {"per_service": RateSettings(requests=0.01)}):
        async with app(server=limited) as made, AsyncExitStack() as stack:
            visitors = [await stack.enter_async_context(made.visiting()) for _ in range(3)]
            statuses = [(await visitor.get("/")).status for visitor in visitors]
            assert statuses[0] == 200
            assert 429 in statuses


async def test_visitors_who_come_one_after_the_other_have_no_more_requests_than_those_who_come_together() -> None:
    async with app(server={"per_address": RateSettings(requests=0.1)}) as made:
        statuses = []
        for _ in range(2):
            async with made.visiting() as visitor:
                statuses.append((await visitor.get("/")).status)
            await until(lambda: not made.web.service.visitors)
            gc.collect()
        assert statuses == [200, 429]


async def test_what_an_address_moves_at_a_relay_is_held_to_its_rate_both_ways_together() -> None:
    rate = 1_000_000.0
    async with shop(server={"limits": LimitSettings(rate_per_address=Rate(rate))}) as made:
        loop = asyncio.get_running_loop()
        since = loop.time()
        async with made.visiting() as visitor:
            assert len(await visitor.exchange(bytes(300_000))) == 300_000
        # Both ways together, less what may go at once: it cannot have been faster.
        assert loop.time() - since >= (600_000 / rate) - 0.3


async def test_handshakes_at_once_are_as_many_as_the_limit_says() -> None:
    async with home(limits=LimitSettings(handshakes=2)) as at:
        async with at.calling(), at.calling(), at.calling() as third:
            assert await third.read_to_end() == b""
        await hears(at.engine, PeerRefused, "too many connections are inside their handshake")
        await until(lambda: not at.service.admissions)
        await at.serves()
