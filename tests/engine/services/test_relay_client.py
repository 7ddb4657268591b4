"""The relay client at our own server, over data connections and through yamux."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jump_peers import home, jump_client
from loopback import (
    BULK,
    Handler,
    Target,
    address_of,
    calling,
    digest_at_end,
    echo,
    hears,
    listen_only,
    nobody,
    open_descriptors,
    refuses,
    reset,
    running,
    sha256,
    speak_and_close,
    steady,
    target,
    told,
)
from relay_peers import Edge, Shop, edge, one_port, relay_client, shop, shop_at
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ChannelClosed,
    Crashed,
    PeerRefused,
    ServiceConnected,
    ServiceFailed,
    ServiceRetrying,
    SessionClosed,
    TargetFailed,
)
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services import spare as spare_module
from tunnelconsole.engine.services.relay import backend as backend_module
from tunnelconsole.engine.settings import FilePath, Fingerprint, HostPort, TLSSettings
from tunnelconsole.engine.transport.certificates import make_self_signed
from tunnelconsole.engine.units import Duration, Rate
from tunnelconsole.engine.wire.relay import Want, encode_message
from waiting import until

NOWHERE = HostPort("127.0.0.1", 1)

Shops = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture(params=["native", "native tls", "yamux", "yamux tls"])
def shops(request: pytest.FixtureRequest) -> Shops:
    """A shop, by each way that visitors take."""
    native, secure = "native" in request.param, "tls" in request.param

    @asynccontextmanager
    async def make(handler: Handler = echo, **changes: Any) -> AsyncIterator[Shop]:
        async with edge(tls=TLSSettings() if secure else None) as at:
            if secure:
                changes["tls"] = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"]))
            async with shop_at(at, handler, native=native, **changes) as made:
                yield made

    return make


async def test_a_visitor_reaches_the_target_and_its_half_close_is_passed_on(shops: Shops) -> None:
    async with shops(digest_at_end) as at, at.visiting() as visitor:
        assert await visitor.exchange(BULK) == sha256(BULK)


async def test_the_targets_half_close_reaches_the_visitor_who_can_still_speak(shops: Shops) -> None:
    async with shops(speak_and_close) as at, at.visiting() as visitor:
        assert await visitor.read_to_end() == b"hello"
        await visitor.send(b"still here")
        assert at.far.open == 1


async def test_bulk_goes_both_ways_at_once_and_each_end_counts_it_to_the_byte(shops: Shops) -> None:
    async with shops() as at:
        async with at.visiting() as visitor:
            assert await visitor.exchange(BULK) == BULK
        ours = await hears(at.engine, ChannelClosed)
        theirs = await hears(at.edge.engine, ChannelClosed)
        for ended in (ours, theirs):
            assert (ended.bytes_in, ended.bytes_out, ended.cause) == (len(BULK), len(BULK), "")
        assert (ours.label, theirs.visitor) == (str(at.far.address), visitor.name)


async def test_the_targets_reset_becomes_a_reset_for_its_visitor(shops: Shops) -> None:
    async with shops(listen_only) as at, at.visiting() as visitor:
        await until(lambda: at.far.open)
        at.far.reset_all()
        assert await visitor.broken()


async def test_a_visitor_that_leaves_closes_its_connection_to_the_target(shops: Shops) -> None:
    async with shops(listen_only) as at, at.visiting() as visitor:
        await until(lambda: at.far.open)
        visitor.reset()
        await until(lambda: not at.far.open)
        await until(lambda: not at.engine.node.sessions.channels and not at.edge.engine.node.sessions.channels)


async def test_many_visitors_at_once_are_all_served_and_counted(shops: Shops) -> None:
    sizes = range(1000, 1200)
    async with shops() as at:

        async def one(size: int) -> bool:
            async with at.visiting() as visitor:
                return await visitor.exchange(BULK[:size]) == BULK[:size]

        assert all(await asyncio.gather(*map(one, sizes)))
        await until(lambda: not at.engine.node.sessions.channels and not at.edge.engine.node.sessions.channels)
        for engine, name in ((at.engine, "shop"), (at.edge.engine, "edge")):
            assert engine.node.meters.totals()[name] == (sum(sizes), sum(sizes))
        assert not told(at.engine, Crashed) + told(at.edge.engine, Crashed)


async def test_a_slow_visitor_stalls_nobody_else(shops: Shops) -> None:
    async with shops() as at, at.visiting() as stalled, at.visiting() as other:
        flooding = asyncio.gather(stalled.send(BULK * 4), return_exceptions=True)
        assert await other.exchange(BULK) == BULK
        stalled.reset()
        await flooding


async def test_several_backends_have_ports_of_their_own(shops: Shops) -> None:
    async with (
        shops(speak_and_close) as one,
        shop_at(one.edge, native=one.service.settings.native, tls=one.service.settings.tls) as two,
    ):
        assert one.address != two.address
        await two.serves()
        async with one.visiting() as visitor:
            assert await visitor.read_to_end() == b"hello"


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_what_a_session_shows_while_a_visitor_is_there(native: bool) -> None:
    async with shop(native=native) as at, at.visiting() as visitor:
        await visitor.send(b"ping")
        assert await visitor.read(4) == b"ping"
        (session,) = at.engine.node.sessions.sessions.values()
        (channel,) = at.engine.node.sessions.channels.values()
        assert (session.peer, session.kind) == (at.edge.address, "relay-client")
        assert channel.label == str(at.far.address)
        assert channel.peer == (visitor.name if native else "stream 2")
        (channel,) = at.edge.engine.node.sessions.channels.values()
        assert channel.flow.path == ("splice" if native else "yamux")


async def test_spare_data_connections_are_kept_ready_and_made_up_for() -> None:
    async with shop(spare_connections=3) as at:
        (backend,) = at.edge.service.backends.values()
        await until(lambda: len(backend._spare) == 3)
        async with at.visiting() as one, at.visiting() as two, at.visiting() as three, at.visiting() as four:
            for visitor in (one, two, three, four):
                await visitor.send(b"ping")
                assert await visitor.read(4) == b"ping"
            await until(lambda: len(backend._spare) == 3)


async def test_a_burst_of_visitors_asks_for_no_more_data_connections_than_it_needs() -> None:
    async with shop(spare_connections=0) as at:
        (backend,) = at.edge.service.backends.values()
        await asyncio.gather(*(at.serves() for _ in range(20)))
        assert at.far.served == 20
        assert not backend._spare


async def test_what_a_burst_of_visitors_leaves_idle_shrinks_to_what_the_client_keeps_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with shop(spare_connections=2) as at:
        (backend,) = at.edge.service.backends.values()
        assert backend._native_stream is not None
        backend._say(backend._native_stream, encode_message(Want(30)))
        await until(lambda: len(backend._spare) == 2 + 30)
        monkeypatch.setattr(spare_module, "SPARE_IDLE_TIME", 0.05)
        backend._spare._shrink()
        await until(lambda: len(backend._spare) == 2 and len(at.service.tasks) == 2)
        await at.serves()
        await until(lambda: len(backend._spare) == 2)
        assert not told(at.engine, PeerRefused)


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_a_target_that_refuses_is_an_event_and_a_reset_for_its_visitor(native: bool) -> None:
    closed = nobody()
    async with edge() as at, running(shop=relay_client(at.address, closed, native=native)) as engine:
        for _ in range(3):
            async with calling(address_of(engine, "shop")) as visitor:
                assert await visitor.broken()
        event = await hears(engine, TargetFailed, "connection refused")
        assert event.target == str(closed)
        assert engine.services["shop"].state == "connected"
        await until(lambda: not at.engine.node.sessions.channels)


async def test_data_connections_that_break_at_once_are_one_event_and_visitors_come_through_yamux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "DATA_CONNECTION_PATIENCE", 0.05)
    async with (
        edge() as at,
        target() as far,
        one_connection_to(at) as gate,
        running(shop=relay_client(gate.address, far.address)) as engine,
    ):
        made = Shop(engine, at, far)
        for _ in range(3):
            await made.serves()
        await until(lambda: not len(made.service.tasks))
        lost = [event for event in told(engine, PeerRefused) if "no data connection" in event.reason]
        assert len(lost) == 1
        assert made.service.state == "connected"


@asynccontextmanager
async def one_connection_to(at: Edge) -> AsyncIterator[Target]:
    """A way to a server that takes one connection, and breaks every later one."""
    where = HostPort.parse(at.address)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if gate.served > 1:
            reset(writer)
            return
        far_reader, far_writer = await asyncio.open_connection(where.host, where.port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with target(pass_on) as gate:
        yield gate


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_beyond_the_clients_limit_of_channels_a_visitor_is_reset_with_an_event(native: bool) -> None:
    async with shop(native=native, limits=LimitSettings(channels=1)) as at, at.visiting() as first:
        await first.send(b"ping")
        assert await first.read(4) == b"ping"
        async with at.visiting() as second:
            assert await second.broken()
        await hears(at.engine, PeerRefused, "the limit of 1 channels is reached")
        assert await first.exchange(b"still here") == b"still here"


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_visitors_who_come_at_the_same_time_do_not_exceed_the_limit(native: bool) -> None:
    async with (
        shop(listen_only, native=native, limits=LimitSettings(channels=1)) as at,
        at.visiting() as one,
        at.visiting() as two,
        at.visiting() as three,
    ):
        broken = asyncio.gather(*(visitor.broken() for visitor in (one, two, three)))
        await until(lambda: len(told(at.engine, PeerRefused)) == 2)
        await until(lambda: at.far.open)
        assert at.far.served == 1
        await at.engine.stop_service("shop")
        assert await broken == [True, True, True]


async def test_an_idle_visitor_is_cut_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.ticking.TICK", 0.02)
    async with shop(listen_only, limits=LimitSettings(idle_timeout=Duration(0.1))) as at, at.visiting() as visitor:
        assert await visitor.broken()
        await hears(at.engine, ChannelClosed, "idle for 0.1 s")


async def test_a_rate_holds_a_transfer_back_and_loses_nothing(shops: Shops) -> None:
    rate, size, loop = 2_000_000, 800_000, asyncio.get_running_loop()
    async with shops(digest_at_end, limits=LimitSettings(rate=Rate(rate))) as at, at.visiting() as visitor:
        began = loop.time()
        assert await visitor.exchange(BULK[:size]) == sha256(BULK[:size])
        burst, last_read = rate / 4, 65536
        assert loop.time() - began >= (size - burst - last_read) / rate


@pytest.fixture
def _brief_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)


@pytest.mark.usefixtures("_brief_backoff")
@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_a_server_that_restarts_gets_its_backend_back_with_a_port(native: bool) -> None:
    listen = steady()
    async with shop(server={"listen": listen}, native=native) as at, at.visiting() as visitor:
        await visitor.send(b"ping")
        assert await visitor.read(4) == b"ping"
        await at.edge.engine.restart_service("edge")
        assert await visitor.broken()
        await hears(at.engine, ServiceRetrying, "takes no new visitors")
        await until(lambda: len(told(at.engine, ServiceConnected)) == 2)
        await at.serves()
        assert len(at.engine.node.sessions.sessions) == 1


@pytest.mark.usefixtures("_brief_backoff")
async def test_a_backend_that_finds_no_free_port_says_so_and_gets_one_later() -> None:
    pool = one_port()
    async with (
        edge(ports=pool) as at,
        shop_at(at) as first,
        running(second=relay_client(at.address, first.far.address)) as engine,
    ):
        await hears(engine, ServiceRetrying, f"gave no public port: no public port of {pool.first}-{pool.last} is free")
        await first.engine.stop_service("shop")
        await until(lambda: engine.services["second"].state == "connected")
        assert address_of(engine, "second") == f"127.0.0.1:{pool.first}"


async def test_another_certificate_than_the_pinned_one_is_final() -> None:
    tls = TLSSettings(fingerprint=Fingerprint("ab" * 32))
    async with edge(tls=TLSSettings()) as at, running(shop=relay_client(at.address, NOWHERE, tls=tls)) as engine:
        await hears(engine, ServiceFailed, "not the pinned one")
        assert engine.services["shop"].state == "failed"


async def test_a_certificate_that_nobody_vouches_for_is_told_with_what_to_do() -> None:
    tls = TLSSettings()
    async with edge(tls=tls) as at, running(shop=relay_client(at.address, NOWHERE, tls=tls)) as engine:
        await hears(engine, ServiceRetrying, "pin a self-signed certificate with tls.fingerprint")


async def test_data_connections_to_a_server_whose_certificate_was_replaced_are_an_event_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "DATA_CONNECTION_PATIENCE", 0.05)
    files = tmp_path / "edge.crt", tmp_path / "edge.key"
    make_self_signed(*files, "edge")
    given = TLSSettings(certificate=FilePath(str(files[0])), key=FilePath(str(files[1])))
    async with edge(tls=given) as at:
        pinned = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"]))
        async with shop_at(at, tls=pinned, spare_connections=1) as made:
            for file in files:
                file.unlink()
            make_self_signed(*files, "edge")
            at.service.refresh()
            for _ in range(3):
                await made.serves()
            await hears(made.engine, PeerRefused, "not the pinned one")
            assert not told(made.engine, Crashed)


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_a_stopped_client_cuts_its_visitors_and_gives_its_port_back(native: bool) -> None:
    async with shop(listen_only, {"ports": one_port()}, native=native) as at, at.visiting() as visitor:
        await until(lambda: at.far.open)
        address = at.address
        await at.engine.stop_service("shop")
        assert await visitor.broken()
        await until(lambda: not at.far.open and not at.edge.engine.node.sessions.sessions, within=1.0)
        assert not at.engine.node.sessions.sessions
        await refuses(address)


@pytest.mark.usefixtures("_brief_backoff")
async def test_a_kicked_session_is_cut_with_its_visitors_and_taken_up_again() -> None:
    async with shop() as at, at.visiting() as visitor:
        await visitor.send(b"ping")
        assert await visitor.read(4) == b"ping"
        (session,) = at.service.attached
        at.engine.kick(session.id)
        assert await visitor.broken()
        await hears(at.engine, SessionClosed, "kicked by an operator")
        await until(lambda: len(told(at.engine, ServiceConnected)) == 2)
        await at.serves()


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
async def test_while_the_engine_drains_visitors_finish_and_nobody_new_is_taken(native: bool) -> None:
    async with edge(ports=one_port()) as at, target() as far, home(listen_only) as elsewhere:
        other = jump_client(elsewhere.address, target=elsewhere.far.address)
        engine = Engine({"shop": relay_client(at.address, far.address, native=native), "other": other})
        await engine.start()
        await engine.settled()
        made = Shop(engine, at, far)
        async with made.visiting() as visitor, calling(address_of(engine, "other")) as last:
            await visitor.send(b"ping")
            assert await visitor.read(4) == b"ping"
            await until(lambda: elsewhere.far.open)
            address = made.address

            async def finish() -> None:
                await until(lambda: engine.draining)
                await refuses(address)
                assert await visitor.exchange(BULK) == BULK
                await until(lambda: not at.engine.node.sessions.sessions)
                assert not told(engine, ServiceRetrying)
                last.half_close()
                await until(lambda: not elsewhere.far.open)

            await asyncio.gather(engine.stop(drain=30.0), finish())
        assert [event.cause for event in told(engine, ChannelClosed)] == ["", ""]
        assert len(told(engine, ServiceConnected)) == 1
        assert far.served == 1


async def test_nothing_is_left_of_data_connections_when_their_session_ends() -> None:
    async with shop(spare_connections=4) as at:
        (backend,) = at.edge.service.backends.values()
        await until(lambda: len(backend._spare) == 4)
        before = open_descriptors()
        await at.engine.stop_service("shop")
        connections, public_port = 5, 1
        await until(lambda: open_descriptors() == before - 2 * connections - public_port)
        assert not len(at.service.tasks)
