"""The inspector: what passed through a tunnel is kept, counted to the byte and within bounds; and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from loopback import BULK, running
from tunnel_peers import HOST, App, app, ok, tunnel_client, web
from tunnelconsole.engine.services.tunnel import inspector as kept
from tunnelconsole.engine.services.tunnel import replay as replaying
from tunnelconsole.engine.services.tunnel.client import TunnelClient
from tunnelconsole.engine.services.tunnel.inspector import BODY_KEPT, Exchange, Inspector, Log
from tunnelconsole.engine.services.tunnel.replay import replay
from tunnelconsole.engine.services.tunnel.server import TunnelServer
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.wire.http.exchange import Exchanges
from tunnelconsole.engine.wire.http.forward import Peer
from tunnelconsole.engine.wire.http.head import parse_request, parse_response
from tunnelconsole.errors import RequestRefused
from waiting import until

BOTH_ENDS = pytest.mark.parametrize("end", ["server", "client"])


def service_of(at: App, end: str) -> TunnelServer | TunnelClient:
    return at.web.service if end == "server" else at.service


async def over(inspector: Inspector, count: int = 1) -> list[Exchange]:
    """What is kept, once so many exchanges are over."""
    await until(lambda: inspector.count >= count)
    return [exchange for exchange in inspector if exchange.over]


# what is kept


@BOTH_ENDS
@pytest.mark.parametrize("native", [True, False])
async def test_an_exchange_is_kept_with_heads_bodies_sizes_and_times(end: str, native: bool) -> None:
    answer = b"HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\nX-Kind: made\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with app(lambda _: answer, native=native) as at, at.visiting() as visitor:
        await visitor.get("/made?by=me", "X-Color: blue", method="POST", body=b"please")
        (found,) = await over(service_of(at, end).inspector)
        assert (found.host, found.method, found.target) == (HOST, "POST", "/made?by=me")
        assert (found.status, found.error, found.over) == (201, "", True)
        assert found.head.values["x-color"] == "blue"
        assert found.response is not None
        assert found.response.values["x-kind"] == "made"
        assert (found.request_body, found.request_bytes) == (b"please", 6)
        assert (found.response_body, found.response_bytes) == (b"abcde", 5)
        assert 0 < found.seconds_to_answer <= found.seconds
        assert found.peer.startswith("127.0.0.1")


@BOTH_ENDS
async def test_of_a_long_body_the_beginning_is_kept_and_all_is_counted(end: str) -> None:
    async with app(lambda seen: ok(seen.body)) as at, at.visiting() as visitor:
        assert (await visitor.get("/", method="POST", body=BULK)).body == BULK
        (found,) = await over(service_of(at, end).inspector)
        assert (found.request_body, found.request_bytes) == (BULK[:BODY_KEPT], len(BULK))
        assert (found.response_body, found.response_bytes) == (BULK[:BODY_KEPT], len(BULK))


async def test_pipelined_requests_have_each_their_own_bodies_and_sizes() -> None:
    big = BULK[: BODY_KEPT + 7]
    async with app(lambda seen: ok(seen.body * 2)) as at, at.visiting() as visitor:
        bodies = [b"one", b"", big, b"four"]
        await visitor.send(b"".join(
            f"POST /{number} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            for number, body in enumerate(bodies)
        ))  # fmt: skip
        for body in bodies:
            assert (await visitor.response()).body == body * 2
        for end in ("server", "client"):
            found = await over(service_of(at, end).inspector, 4)
            assert [exchange.target for exchange in found] == ["/0", "/1", "/2", "/3"]
            assert [exchange.request_bytes for exchange in found] == [len(body) for body in bodies]
            assert [exchange.response_bytes for exchange in found] == [2 * len(body) for body in bodies]
            assert [exchange.request_body for exchange in found] == [body[:BODY_KEPT] for body in bodies]


async def test_a_request_under_way_is_there_until_it_is_over() -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
        await go_on.wait()
        writer.write(b"b")
        await writer.drain()

    async with app(handler=slow) as at, at.visiting() as visitor:
        await visitor.send(f"GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        inspector = at.web.service.inspector
        await until(lambda: [exchange.status for exchange in inspector] == [200])
        (found,) = inspector
        assert not found.over
        assert found.response_body == b"a"
        assert inspector.find(found.id) is found
        go_on.set()
        await visitor.response()
        assert await over(inspector) == [found]
        assert not inspector.running
        assert found.response_body == b"ab"


async def test_what_we_answer_ourselves_has_a_status_and_a_reason() -> None:
    async with web() as at, running(app=tunnel_client(at.address, HostPort("127.0.0.1", 1))) as engine:
        async with at.visiting() as visitor:
            assert (await visitor.get("/gone")).status == 502
        client = engine.services["app"]
        assert isinstance(client, TunnelClient)
        for inspector in (at.service.inspector, client.inspector):
            (found,) = await over(inspector)
            assert (found.status, found.response) == (502, None)
            assert "refuses connections" in found.error


async def test_an_answer_that_breaks_off_says_so() -> None:
    async with app(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf") as at:
        async with at.visiting() as visitor:
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert await visitor.is_cut()
        (found,) = await over(at.web.service.inspector)
        assert (found.status, found.response_body) == (200, b"half")
        assert found.error


async def test_a_websocket_is_kept_with_its_upgrade_and_what_passes_is_counted() -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        writer.write((await reader.readexactly(5)).upper() + b"!")
        await reader.read()

    async with app(handler=upgrade) as at:
        async with at.visiting() as visitor:
            fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            await visitor.send(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode())
            assert (await visitor.response()).status == 101
            (found,) = at.web.service.inspector
            assert (found.status, found.over) == (101, False)
            await visitor.send(b"hello")
            assert await visitor.read(6) == b"HELLO!"
            assert (found.request_bytes, found.response_bytes) == (5, 6)
        await over(at.web.service.inspector)
        assert (found.request_bytes, found.response_bytes, found.response_body) == (5, 6, b"")
        with pytest.raises(RequestRefused, match="WebSocket"):
            await replay(at.web.service, found)


async def test_nothing_is_kept_where_that_is_not_wanted() -> None:
    async with app(server={"inspect": False}, inspect=False) as at, at.visiting() as visitor:
        await visitor.get("/")
        assert not list(at.web.service.inspector)
        assert not list(at.service.inspector)


# bounds


class Traffic:
    """Requests at an inspector, without sockets."""

    def __init__(self) -> None:
        self.inspector = Inspector()

    def begin(self, host: str = "a", fields: int = 0) -> Exchange:
        lines = ["GET / HTTP/1.1", "Host: x", *(f"X-{number}: {'v' * 90}" for number in range(fields)), "", ""]
        exchanges = Exchanges(Peer("192.0.2.1", "http"))
        return self.inspector.log(host).begin("192.0.2.1:1", parse_request("\r\n".join(lines).encode()), "/", exchanges)

    def whole(self, host: str = "a", body: int = 0) -> Exchange:
        exchange = self.begin(host)
        exchange.answered(parse_response(b"HTTP/1.1 200 OK\r\n\r\n"))
        if body:
            exchange._keep_response(b"x" * body)
        exchange.end("")
        return exchange

    def hosts(self) -> list[str]:
        return [exchange.host for exchange in self.inspector]

    def sizes_add_up(self) -> bool:
        return self.inspector.bytes == sum(exchange.size for exchange in self.inspector)


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    made = Traffic()
    yield made
    assert made.sizes_add_up()


def test_of_each_tunnel_the_last_are_kept(traffic: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT_PER_TUNNEL", 3)
    made = [traffic.whole(host) for host in "abaaaa"]
    assert list(traffic.inspector) == [made[1], *made[3:]]
    assert traffic.inspector.count == 6
    assert traffic.inspector.find(made[0].id) is None
    assert traffic.inspector.find(made[5].id) is made[5]


def test_a_tunnel_takes_no_more_than_its_share(traffic: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BYTES_PER_TUNNEL", 20_000)
    for _ in range(5):
        traffic.whole("quiet", body=100)
    for _ in range(50):
        traffic.whole("busy", body=3000)
        assert traffic.inspector.log("busy").bytes <= 20_000
    assert traffic.hosts().count("quiet") == 5
    assert traffic.hosts().count("busy") == 20_000 // traffic.whole("busy", body=3000).size


def test_all_tunnels_together_take_no_more_than_there_is(traffic: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BYTES_KEPT", 20_000)
    sizes = set()
    for host in "abcdefghij":
        sizes.add(traffic.whole(host, body=3000).size)
        assert traffic.inspector.bytes <= 20_000
    (size,) = sizes
    assert traffic.hosts() == list("abcdefghij")[-(20_000 // size) :]


def test_bodies_of_requests_under_way_count_and_are_not_kept_beyond_the_bounds(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "BYTES_KEPT", 20_000)
    traffic.whole(body=3000)
    running = [traffic.begin(host) for host in "abcd"]
    for exchange in running:
        exchange._keep_response(b"x" * 5000)
    assert [len(exchange.response_body) for exchange in running] == [5000, 5000, 5000, 0]
    assert traffic.inspector.bytes <= 20_000
    assert traffic.hosts() == ["a", "b", "c", "d"]


def test_a_body_in_thousands_of_pieces_is_kept_whole(traffic: Traffic) -> None:
    exchange = traffic.begin()
    for _ in range(BODY_KEPT):
        exchange._keep_response(b"x")
    exchange._keep_response(b"y")
    exchange.end("")
    assert exchange.response_body == b"x" * BODY_KEPT


def test_the_log_of_a_tunnel_that_is_gone_goes_with_its_last_exchange(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "BYTES_KEPT", 10_000)
    for number in range(100):
        traffic.whole(f"host-{number}")
        traffic.inspector.forget(f"host-{number}")
    assert len(traffic.inspector._logs) == len(traffic.hosts()) < 20


def test_a_tunnel_that_comes_back_finds_its_log(traffic: Traffic) -> None:
    traffic.whole()
    log: Log = traffic.inspector.log("a")
    traffic.inspector.forget("a")
    assert traffic.inspector.log("a") is log


def test_only_what_has_ended_since_is_looked_up(traffic: Traffic) -> None:
    first, running = traffic.whole(), traffic.begin()
    assert traffic.inspector.ended_after(0) == [first]
    second = traffic.whole("b")
    assert traffic.inspector.ended_after(first.ended) == [second]
    running.end("")
    assert traffic.inspector.ended_after(first.ended) == [second, running]
    assert traffic.inspector.ended_after(running.ended) == []


def test_ids_go_on_where_a_service_was_restarted() -> None:
    before, after = Traffic(), Traffic()
    assert before.whole().id < after.whole().id


# replaying


@BOTH_ENDS
@pytest.mark.parametrize("native", [True, False])
async def test_a_request_is_sent_again_as_it_was(end: str, native: bool) -> None:
    async with app(lambda seen: ok(b"to " + seen.body), native=native) as at, at.visiting() as visitor:
        await visitor.get("/do?this=1", "Authorization: Bearer abc", "X-A: b", method="POST", body=b"it")
        service = service_of(at, end)
        (first,) = await over(service.inspector)
        second = await replay(service, first)
        assert (second.over, second.status, second.error, second.replay_of) == (True, 200, "", first.id)
        assert (second.response_body, second.response_bytes) == (b"to it", 5)
        before, again = at.local.seen
        assert again.head.values == before.head.values
        assert (again.head.method, again.head.target, again.body) == ("POST", "/do?this=1", b"it")
        assert list(service.inspector) == [first, second]


async def test_a_replayed_request_can_be_replayed_and_leaves_nothing_behind() -> None:
    async with app() as at, at.visiting() as visitor:
        await visitor.get("/once")
        exchange = (await over(at.web.service.inspector))[0]
        for _ in range(20):
            exchange = await replay(at.web.service, exchange)
            assert exchange.status == 200
        assert len(at.local.seen) == 21
        await until(lambda: len(at.web.service.visitors) == 1)
        assert at.local.connections <= 2


async def test_a_chunked_request_is_sent_again_with_its_length() -> None:
    async with app() as at, at.visiting() as visitor:
        await visitor.send(
            f"PUT / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode()
            + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )
        await visitor.response()
        (first,) = await over(at.web.service.inspector)
        await replay(at.web.service, first)
        assert at.local.seen[1].body == b"abc"
        assert at.local.seen[1].value("Content-Length") == "3"


async def test_what_takes_long_is_shown_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "REPLAY_PATIENCE", 0.01)
    go_on = asyncio.Event()
    go_on.set()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await go_on.wait()
                writer.write(ok())

    async with app(handler=slow) as at, at.visiting() as visitor:
        await visitor.get("/")
        (first,) = await over(at.web.service.inspector)
        go_on.clear()
        second = await replay(at.web.service, first)
        assert not second.over
        go_on.set()
        await until(lambda: second.over)
        assert second.status == 200


async def test_a_request_whose_body_is_not_all_kept_is_not_sent_again() -> None:
    async with app() as at, at.visiting() as visitor:
        await visitor.get("/", method="POST", body=BULK)
        (first,) = await over(at.web.service.inspector)
        with pytest.raises(RequestRefused, match=f"body has {len(BULK)} bytes, and not all are kept"):
            await replay(at.web.service, first)


async def test_a_request_to_a_tunnel_that_is_gone_is_not_sent_again() -> None:
    async with web() as at:
        async with at.original(None), at.visiting() as visitor:
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await until(lambda: at.service.inspector.running)
        (first,) = await over(at.service.inspector)
        with pytest.raises(RequestRefused, match=r"there is no tunnel for app\.example\.net now"):
            await replay(at.service, first)


async def test_a_client_without_its_server_sends_nothing_again() -> None:
    async with app() as at:
        async with at.visiting() as visitor:
            await visitor.get("/")
        (first,) = await over(at.service.inspector)
        await at.web.engine.stop_service("web")
        await until(lambda: at.service.attachment is None)
        with pytest.raises(RequestRefused, match="is not connected now"):
            await replay(at.service, first)


async def test_whoever_embeds_the_server_judges_a_replay_too() -> None:
    async with app() as at, at.visiting() as visitor:
        await visitor.get("/")
        (first,) = await over(at.web.service.inspector)

        async def refuse(_: Any) -> str:
            return "not twice"

        at.web.service.hooks.access = refuse
        second = await replay(at.web.service, first)
        assert (second.status, second.error) == (403, "not twice")
