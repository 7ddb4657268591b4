"""Our tunnel client at our tunnel server: requests over data connections, on real sockets."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import pytest

from loopback import BULK, Target, echo, hears, nobody, reset, running, sha256, steady, target, told
from tunnel_peers import HOST, Seen, Service, app, app_at, ok, say_where, tunnel_client, tunnel_server, web
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ChannelClosed,
    ChannelOpened,
    ServiceRetrying,
    TargetFailed,
    TunnelConnected,
    TunnelConnecting,
    TunnelDisconnected,
)
from tunnelconsole.engine.services.tunnel.client_backend import ClientBackend
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.wire.http.head import MAX_FIELDS, MAX_HEAD
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
@pytest.mark.parametrize("inspect", [True, False])
@pytest.mark.parametrize("first", ["GET / HTTP/1.1", f"GET http://{HOST}:80/ HTTP/1.1", "GET / HTTP/1.0"])
async def test_what_the_server_adds_to_a_head_that_just_fits_does_no_harm(
    native: bool, inspect: bool, first: str
) -> None:
    lines = [first, f"Host:{HOST}", "Connection:close", *["X:a"] * (MAX_FIELDS - 3)]
    room = MAX_HEAD - len("\r\n".join([*lines, "X:", "", ""]))
    request = "\r\n".join([*lines, f"X:{'b' * room}", "", ""]).encode()
    assert len(request) == MAX_HEAD
    async with app(say_where, {"inspect": inspect}, native=native, inspect=inspect) as at:
        async with at.visiting() as visitor:
            await visitor.send(request)
            assert (await visitor.response()).status == 200
        (seen,) = at.local.seen
        assert seen.head.values["x"] == ", ".join(["a"] * (MAX_FIELDS - 3) + ["b" * room])


@pytest.mark.parametrize("native", [True, False])
async def test_a_request_that_our_client_refuses_ends_the_visitors_connection(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.wire.http.service.MAX_SERVICE_FIELDS", 8)
    async with app(native=native) as at, at.visiting() as visitor:
        assert (await visitor.get("/")).status == 200
        refused = await visitor.get("/", *["X: y"] * 10)
        assert (refused.status, refused.head.values["connection"]) == (431, "close")
        assert await visitor.ends() == b""
        async with at.visiting() as other:
            assert (await other.get("/")).status == 200


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("status", "stays"), [(400, False), (431, False), (404, True), (500, True)])
async def test_a_service_that_closes_because_the_request_was_wrong_has_the_visitors_connection_closed(
    native: bool, status: int, stays: bool
) -> None:
    def refuse(_: Seen) -> bytes:
        return b"HTTP/1.1 %d No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno" % status

    async with app(refuse, native=native) as at, at.visiting() as visitor:
        got = await visitor.get("/")
        assert (got.status, "connection" not in got.head.values) == (status, stays)
        if stays:
            assert (await visitor.get("/")).status == status
        else:
            assert await visitor.ends() == b""


@pytest.mark.parametrize("native", [True, False])
async def test_a_service_that_is_told_another_host_leads_visitors_on_at_the_public_one(native: bool) -> None:
    def elsewhere(seen: Seen) -> bytes:
        host = seen.value("Host")
        return ok(
            b"",
            f"Location: http://{host}/b",
            f"Content-Location: http://{host}/c",
            "Set-Cookie: a=b; Domain=shop.local",
        )

    async with app(elsewhere, native=native, host_header="shop.local") as at, at.visiting() as visitor:
        for _ in range(2):
            values = (await visitor.get("/")).head.values
            assert values["location"] == f"http://{HOST}/b"
            assert values["content-location"] == f"http://{HOST}/c"
            assert values["set-cookie"] == f"a=b; Domain={HOST}"
        assert at.local.seen[0].value("Host") == "shop.local"


async def test_a_service_that_is_told_the_visitors_host_may_lead_visitors_wherever_it_likes() -> None:
    there = "http://127.0.0.1:3000/"
    async with app(lambda _: ok(b"", f"Location: {there}")) as at, at.visiting() as visitor:
        assert (await visitor.get("/")).head.values["location"] == there


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


async def test_channels_say_what_is_asked_for_without_its_query_and_who_asks() -> None:
    async with app() as at, at.visiting() as visitor:
        await visitor.get("/a?token=secret")
        for engine, who in ((at.web.engine, "127.0.0.1:"), (at.engine, "127.0.0.1")):
            (channel,) = engine.node.sessions.channels.values()
            assert (channel.label, channel.peer[: len(who)]) == ("GET /a", who)
            assert told(engine, ChannelOpened)[0].label == "GET /a"


async def test_channels_count_what_passes() -> None:
    async with app(lambda _: ok(b"x" * 1000)) as at:
        async with at.visiting() as visitor:
            await visitor.get("/", "X-Pad: 1")
        closed = await hears(at.web.engine, ChannelClosed)
        assert closed.bytes_in > 1000
        assert 0 < closed.bytes_out < 1000
        assert told(at.engine, ChannelOpened)
        assert not told(at.engine, TargetFailed)


@pytest.mark.parametrize("native", [True, False])
async def test_chunked_bodies_with_trailers_pass_both_ways(native: bool) -> None:
    def chunks(seen: Seen) -> list[bytes]:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        return [head, b"5\r\nhello\r\n", b"%x\r\n%b\r\n" % (len(seen.body), seen.body), b"0\r\nX-Sum: 7\r\n\r\n"]

    async with app(chunks, native=native) as at, at.visiting() as visitor:
        for _ in range(3):
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            await visitor.send(head + b"3\r\nabc\r\n")
            await visitor.send(b"4;ext=1\r\ndefg\r\n0\r\n\r\n")
            assert (await visitor.response()).body == b"helloabcdefg"
        assert at.local.seen[0].body == b"abcdefg"


async def test_a_visitor_that_expects_100_is_told_to_go_on() -> None:
    async def careful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(ok(await reader.readexactly(5)))
        await reader.read()

    async with app(handler=careful) as at, at.visiting() as visitor:
        head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        await visitor.send(head.encode())
        assert await visitor.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await visitor.send(b"hello")
        assert (await visitor.response()).body == b"hello"


async def test_a_service_of_http_1_0_does_not_cost_the_data_connection() -> None:
    def old(_: Seen) -> bytes:
        return b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end"

    async with app(old, spare_connections=1) as at, at.visiting() as visitor:
        for number in range(5):
            assert (await visitor.get("/")).body == b"until the end"
            assert at.local.connections == number + 1
        assert len(at.web.engine.node.sessions.channels) == 1
        assert len(at.engine.node.sessions.channels) == 1


async def test_a_service_that_closes_between_requests_costs_none_of_them() -> None:
    async with app() as at, at.visiting() as visitor:
        for number in range(5):
            assert (await visitor.get("/")).status == 200
            assert (await visitor.get("/", method="POST", body=b"x")).status == 200
            at.far.reset_all()
            await until(lambda: not at.far.open)
            assert at.local.connections >= number


async def test_a_service_that_refuses_is_502_and_is_reached_as_soon_as_it_listens() -> None:
    where = nobody()
    async with web() as at, running(app=tunnel_client(at.address, where)) as engine, at.visiting() as visitor:
        for _ in range(3):
            got = await visitor.get("/", method="POST")
            assert (got.status, b"its local service refuses connections" in got.body) == (502, True)
            assert "tunnel-service" not in got.head.values
        await hears(engine, TargetFailed)
        local = Target(Service().serve)
        server = await asyncio.start_server(local.serve, where.host, where.port)
        assert (await visitor.get("/")).status == 200
        server.close()
        local.reset_all()
        await until(lambda: not local.open)


async def test_a_client_whose_service_refuses_loses_no_request_where_another_can_take_it() -> None:
    async with (
        web(shared=True) as at,
        app_at(at, token="same") as good,
        running(app=tunnel_client(at.address, nobody(), token="same")),
        at.visiting() as visitor,
    ):
        await until(lambda: len(at.service.attached) == 2)
        for _ in range(10):
            assert (await visitor.get("/")).status == 200
        assert len(good.local.seen) == 10


async def test_requests_go_through_yamux_where_no_data_connection_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.tunnel.client_backend.DATA_CONNECTION_PATIENCE", 0.05)
    monkeypatch.setattr("tunnelconsole.engine.services.tunnel.server.SWEEP", 0.02)
    monkeypatch.setattr("tunnelconsole.engine.services.tunnel.client.Attachment.dial", lambda _self, _count: None)
    async with app(spare_connections=0) as at, at.visiting() as visitor:
        for _ in range(3):
            assert (await visitor.get("/")).status == 200


async def test_a_websocket_is_raw_both_ways_and_spliced() -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await echo(reader, writer)

    async with app(handler=upgrade) as at, at.visiting() as visitor:
        fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        await visitor.send(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode())
        assert (await visitor.response()).status == 101
        received, _ = await asyncio.gather(visitor.read(len(BULK)), visitor.send(BULK))
        assert received == BULK
        assert {channel.flow.path for channel in at.web.engine.node.sessions.channels.values()} == {"splice"}
        visitor.writer.write_eof()
        assert await visitor.ends() == b""
        await until(lambda: not at.web.engine.node.sessions.channels)
        await until(lambda: not at.engine.node.sessions.channels)


async def test_a_client_that_dies_in_the_middle_of_an_answer_cuts_its_visitor() -> None:
    async with web() as at, at.visiting() as visitor:
        async with app_at(at, lambda _: [ok(b"x" * 100)[:-1]]):
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert await visitor.read(4) == b"HTTP"
        assert await visitor.is_cut()


async def test_a_client_comes_back_to_a_server_that_was_restarted() -> None:
    listen = steady()
    async with target(Service().serve) as far:
        async with running(web=tunnel_server(listen=listen)):
            engine = await _client(str(listen), far.address)
        try:
            async with running(web=tunnel_server(listen=listen)) as server:
                await engine.restart_service("app")
                await until(lambda: server.services["web"].attached)
        finally:
            await engine.stop(drain=0)


async def _client(server: str, where: HostPort) -> Engine:
    engine = Engine({"app": tunnel_client(server, where)})
    await engine.start()
    await engine.settled()
    return engine


async def test_data_connections_that_a_burst_leaves_idle_are_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.spare.SPARE_IDLE_TIME", 0.1)
    async with app(spare_connections=2) as at:
        (backend,) = at.web.service.backends
        async with AsyncExitStack() as stack:
            visitors = [await stack.enter_async_context(at.visiting()) for _ in range(10)]
            await asyncio.gather(*(visitor.get("/") for visitor in visitors))
        assert isinstance(backend, ClientBackend)
        await until(lambda: len(backend._spare) == 2)
        async with at.visiting() as visitor:
            assert (await visitor.get("/")).status == 200


async def test_a_client_that_takes_its_own_place_leads_the_visitors_on() -> None:
    async with web() as at, app_at(at, lambda _: ok(b"old"), token="t") as old, at.visiting() as visitor:
        assert (await visitor.get("/")).body == b"old"
        await old.engine.stop(drain=0)
        async with app_at(at, lambda _: ok(b"new"), token="t"):
            assert (await visitor.get("/")).body == b"new"


async def test_a_client_whose_place_another_takes_is_told_so() -> None:
    async with web() as at, app_at(at, token="t") as first, app_at(at, token="t"):
        told = await hears(first.engine, TunnelDisconnected)
        assert "the same identity came back and took its place" in told.reason


async def test_a_host_that_another_client_has_is_asked_for_again_until_it_is_free() -> None:
    async with web() as at:
        async with app_at(at):
            client = Engine({"app": tunnel_client(at.address, nobody())})
            await client.start()
            assert "exists already" in (await hears(client, ServiceRetrying)).error
        try:
            await client.start_service("app")
            await until(lambda: at.service.attached)
        finally:
            await client.stop(drain=0)


async def test_a_client_that_stops_closes_idle_connections_and_finishes_the_others() -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(ok(b"the last"))
        await reader.read()

    async with app(handler=slow) as at, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await until(lambda: at.engine.node.sessions.channels)
        stopping = asyncio.gather(at.engine.stop(drain=10))
        await until(lambda: at.web.service.routes.find(HOST) is None)
        release.set()
        assert (await visitor.response()).body == b"the last"
        await stopping
        assert (await visitor.get("/")).status == 404


async def test_visitors_that_come_and_go_leave_nothing_behind() -> None:
    async with app() as at:
        for _ in range(5):
            async with at.visiting() as visitor:
                for _ in range(40):
                    await visitor.get("/")
            async with at.visiting() as visitor:
                await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                reset(visitor.writer)
        await until(lambda: not at.web.service.visitors)
        await until(lambda: not at.web.engine.node.sessions.channels)
        assert [backend.load for backend in at.web.service.backends] == [0]
        assert all(not backend.callers for backend in at.web.service.backends)
