"""The listener for metrics: three paths, and bounds for whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from loopback import FREE
from measured import get, measured, parsed, say, split, value
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.settings import ListenAddress, Secret
from tunnelconsole.errors import ListenFailed
from tunnelconsole.metrics import server as server_module
from tunnelconsole.metrics.events import MetricsListening
from tunnelconsole.metrics.server import MAX_CONNECTIONS, MAX_HEAD, MetricsServer
from waiting import until

HOME = JumpServerSettings(listen=FREE, secret=Secret("only for this test"))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine({"home": HOME}) as started:
        await started.settled()
        yield started


@pytest_asyncio.fixture
async def address(engine: Engine) -> AsyncIterator[str]:
    async with measured(engine):
        yield engine.node.metrics


async def test_the_metrics_are_prometheus_text_of_its_own_type(address: str) -> None:
    answer = await say(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert value(parsed(body.decode()), "tunnelconsole_info", version="1.2.3") == 1


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
async def test_a_head_request_gets_the_same_without_the_body(address: str, path: str) -> None:
    (status, body), (same, none) = await get(address, path), await get(address, path, method="HEAD")
    assert status == same
    assert body
    assert none == ""


async def test_a_query_changes_nothing(address: str) -> None:
    assert await get(address, "/healthz?verbose=1") == (200, "ok\n")


async def test_any_other_path_is_told_which_there_are(address: str) -> None:
    status, body = await get(address, "/debug/pprof")
    assert status == 404
    assert "/metrics, /healthz, /readyz" in body


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:9520", "localhost.example", "127.0.0.1.example"])
async def test_on_loopback_a_name_that_a_page_could_have_is_refused(address: str, path: str, host: str) -> None:
    answer = await say(address, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    status, body = split(answer)
    assert status == 403
    assert "localhost" in body
    assert "tunnelconsole_" not in body


@pytest.mark.parametrize(
    "field",
    [
        "Host: localhost:9520",
        "Host: LocalHost.",
        "Host: 127.0.0.1",
        "Host: [::1]:9520",
        "Host: a.localhost",
        "Host: ip6-localhost",
        "",
    ],
)
async def test_on_loopback_this_machine_s_own_names_are_answered(address: str, field: str) -> None:
    line = f"GET /healthz HTTP/1.{1 if field else 0}\r\n"
    answer = await say(address, (line + (f"{field}\r\n" if field else "") + "\r\n").encode())
    assert split(answer) == (200, "ok\n")


async def test_on_loopback_the_machine_s_name_is_answered(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Desk")
    assert split(await say(address, b"GET /healthz HTTP/1.1\r\nHost: desk:9520\r\n\r\n")) == (200, "ok\n")


async def test_beyond_loopback_any_name_is_answered(engine: Engine) -> None:
    server = MetricsServer(engine, "1")
    await server.bind(ListenAddress("0.0.0.0", 0))
    address = server.serve().replace("0.0.0.0", "127.0.0.1")
    assert split(await say(address, b"GET /healthz HTTP/1.1\r\nHost: metrics.example\r\n\r\n")) == (200, "ok\n")
    await server.close()


async def test_whoever_would_change_something_is_told_that_nothing_can_be(address: str) -> None:
    answer = await say(address, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
    assert split(answer)[0] == 405
    assert b"Allow: GET, HEAD" in answer


async def test_a_request_may_come_in_pieces(address: str) -> None:
    answer = await say(address, b"GET /heal", b"thz HTTP/1.1\r\nHo", b"st: localhost\r\n\r", b"\n")
    assert split(answer) == (200, "ok\n")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /metrics HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * MAX_HEAD + b"\r\n\r\n", 431),
        (b"GET /metrics HTTP/1.1\nHost: localhost\n\n", 400),
    ],
)
async def test_what_is_no_request_is_refused(address: str, said: bytes, status: int) -> None:
    assert split(await say(address, said))[0] == status


async def test_a_second_request_on_a_connection_is_not_answered(address: str) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await say(address, one + one)).count(b"HTTP/1.1 200 OK") == 1


async def test_those_who_say_nothing_keep_no_scraper_out(address: str) -> None:
    host, _, port = address.rpartition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CONNECTIONS + 5)]
    try:
        assert await get(address, "/healthz") == (200, "ok\n")
    finally:
        for _, writer in silent:
            writer.close()


async def test_who_says_nothing_is_cut_in_the_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_TIME", 0.05)
    async with measured(engine):
        with suppress(ConnectionResetError):
            assert await say(engine.node.metrics, b"GET /metrics HTTP/1.1\r\n") == b""


async def test_who_does_not_stop_talking_after_the_answer_is_cut(address: str) -> None:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))

    async def talk() -> None:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while True:
            writer.write(b"x" * MAX_HEAD)
            await writer.drain()

    with pytest.raises(OSError, match=r"[Rr]eset|[Pp]ipe|lost"):
        async with asyncio.timeout(30):
            await talk()
    writer.close()


async def test_where_it_listens_is_told_and_forgotten_at_the_end(engine: Engine) -> None:
    async with measured(engine):
        (told,) = [each.event for each in engine.node.bus.recent() if isinstance(each.event, MetricsListening)]
        assert told.address == engine.node.metrics != ""
        assert not told.exposed
    assert engine.node.metrics == ""


async def test_beyond_loopback_it_is_told_as_exposed(engine: Engine) -> None:
    server = MetricsServer(engine, "1")
    await server.bind(ListenAddress("0.0.0.0", 0))
    server.serve()
    (told,) = [each.event for each in engine.node.bus.recent() if isinstance(each.event, MetricsListening)]
    assert told.text().endswith("beyond loopback")
    await server.close()


async def test_a_port_that_is_taken_is_blamed_on_its_key(engine: Engine, address: str) -> None:
    host, _, port = address.rpartition(":")
    with pytest.raises(ListenFailed, match=r"already in use.*engine\.metrics"):
        await MetricsServer(engine, "1").bind(ListenAddress(host, int(port)))


async def test_metrics_that_cannot_be_read_are_an_error_and_an_event(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with measured(engine) as server:
        monkeypatch.setattr(server._families, "read", lambda: 1 / 0)
        status, body = await get(engine.node.metrics, "/metrics")
        assert (status, "see the log" in body) == (500, True)
        assert "crashed" in [record.event.type for record in engine.node.bus.recent()]
        assert await get(engine.node.metrics, "/healthz") == (200, "ok\n")


async def test_an_answer_that_is_on_its_way_arrives_whoever_else_comes(address: str) -> None:
    host, _, port = address.rpartition(":")
    slow, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    for _ in range(2 * MAX_CONNECTIONS):
        assert await get(address, "/healthz") == (200, "ok\n")
    others = [await asyncio.open_connection(host, int(port)) for _ in range(MAX_CONNECTIONS)]
    assert await get(address, "/healthz") == (200, "ok\n")
    assert split(await slow.read()) == (200, "ok\n")
    for _, other in [*others, (slow, writer)]:
        other.close()


async def test_those_who_ask_at_once_share_what_is_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with measured(engine) as server:
        monkeypatch.setattr(server_module, "AGE", 60.0)
        texts = await asyncio.gather(*(server.text() for _ in range(5)))
        assert all(text is texts[0] for text in texts)


class TestReady:
    async def test_an_engine_whose_services_have_come_up_is(self, address: str) -> None:
        assert await get(address, "/readyz") == (200, "ready\n")

    async def test_one_that_never_has_is_named(self) -> None:
        taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        listen = ListenAddress("127.0.0.1", taken.sockets[0].getsockname()[1])
        async with Engine({"home": HOME, "second": JumpServerSettings(listen=listen, secret=HOME.secret)}) as engine:
            await engine.settled()
            async with measured(engine):
                status, body = await get(engine.node.metrics, "/readyz")
        taken.close()
        assert status == 503
        assert body == "service second: backoff, and has never listened or connected\n"

    async def test_a_server_that_has_lost_its_place_is_named(self, engine: Engine, address: str) -> None:
        engine.services["home"].enter("backoff", "cannot listen")
        status, body = await get(address, "/readyz")
        assert (status, body) == (503, "service home: backoff, and does not listen any more\n")

    async def test_a_client_that_has_lost_its_server_is_not(self, engine: Engine, address: str) -> None:
        service = engine.services["home"]
        service.enter("connected")
        service.enter("backoff", "the server left")
        assert (await get(address, "/readyz"))[0] == 200

    async def test_one_that_was_stopped_by_hand_keeps_nobody_waiting(self, engine: Engine, address: str) -> None:
        await engine.stop_service("home")
        assert (await get(address, "/readyz"))[0] == 200

    async def test_an_engine_that_stops_is_not_but_is_alive(self, engine: Engine, address: str) -> None:
        engine.draining = True
        assert await get(address, "/readyz") == (503, "the engine is stopping\n")
        assert await get(address, "/healthz") == (200, "ok\n")


async def test_nothing_is_counted_any_more_once_it_is_closed(engine: Engine) -> None:
    async with measured(engine):
        assert vars(engine.node)["request_times"]
        assert engine.node.bus._counters
    assert vars(engine.node)["request_times"] is None
    assert not engine.node.bus._counters


async def test_the_loops_lag_is_seen(engine: Engine) -> None:
    async with measured(engine) as server:
        lag = server._lag
        lag._due -= 3.0
        lag._timer.cancel()
        lag._look()
        assert lag.last == pytest.approx(2.5, abs=0.5)
        assert lag.worst == lag.last
        await until(lambda: lag.last < 1.0)
        assert lag.worst > 1.0
