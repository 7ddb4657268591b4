"""The tunnel server: clients by hand as the original's, and their visitors, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, Self

import pytest

from loopback import BULK, FREE, hears, target, told
from tunnel_peers import HOST, Original, Service, Visitor, Web, ok, web
from tunnelconsole.engine import rates
from tunnelconsole.engine.events import BackendAttached, BackendLeft, ChannelClosed, ChannelOpened, PeerRefused
from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.rates import RateSettings
from tunnelconsole.engine.services.tunnel import client_backend
from tunnelconsole.engine.services.tunnel import server as server_module
from tunnelconsole.engine.services.tunnel.server import TunnelServerSettings
from tunnelconsole.engine.settings import NetworkPattern, Secret
from tunnelconsole.engine.units import Duration, Rate
from waiting import until
from yamux_frames import DATA, FIN, GO_AWAY, RST, SYN, WINDOW, data, frame

NATIVE = "TunnelConsole-Native: 1"

ALICE = ("Authorization: Bearer a",)
BOB = ("Authorization: Bearer b",)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is late is found out at once."""
    monkeypatch.setattr(server_module, "SWEEP", 0.02)


async def answer(client: Original, response: bytes = b"", path: str = "/") -> int:
    """Takes one request for ``path`` at a client by hand, and answers it; returns its stream."""
    stream_id = await client.visitor()
    request = (await client.peer.find(DATA, stream_id)).payload
    assert request.startswith(f"GET {path} HTTP/1.1\r\n".encode()), request
    await client.peer.send(data(stream_id, response or ok()), frame(WINDOW, FIN, stream_id))
    return stream_id


async def test_streams_that_a_client_leaves_open_leave_room_for_further_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.wire.yamux.MAX_STREAMS", 16)
    monkeypatch.setattr("tunnelconsole.engine.transport.mux.MAX_STREAMS", 16)
    async with web() as at, at.original() as client, at.visiting() as visitor:
        for number in range(50):
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            stream_id = await client.visitor()
            await client.peer.find(DATA, stream_id)
            await client.peer.send(data(stream_id, ok(b"%d" % number)))
            assert (await visitor.response()).body == b"%d" % number


async def test_an_originals_client_gets_a_tunnel_and_its_visitors_requests() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET /a?b=c HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await answer(client, ok(b"from behind"), "/a?b=c")
        got = await visitor.response()
        assert (got.status, got.body) == (200, b"from behind")
        await client.peer.find(WINDOW, stream_id, FIN)
        (attached,) = told(at.engine, BackendAttached)
        assert attached.address == f"http://{HOST}"


@pytest.mark.parametrize("host", [HOST.upper(), f"{HOST}:80", f"{HOST}.", f"{HOST}:"])
async def test_a_host_is_the_same_in_any_case_and_with_any_port(host: str) -> None:
    async with web() as at, at.original(), at.visiting(host) as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await hears(at.engine, BackendAttached)
        await until(lambda: at.engine.node.sessions.channels)


async def test_a_host_without_a_tunnel_is_404_with_a_plain_page_and_the_connection_goes_on() -> None:
    async with web() as at, at.visiting() as visitor:
        for _ in range(2):
            got = await visitor.get("/")
            assert got.status == 404
            assert got.body == b"404 Not Found\n\nthere is no tunnel for this host\n"
            assert got.head.values["content-type"].startswith("text/plain")
            assert "server" not in got.head.values


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /_connectPath HTTP/1.1", b"404"),
        (b"CONNECT /_nothing HTTP/1.1", b"404"),
        (b"CONNECT a:80 HTTP/1.1", b"405"),
    ],
)
async def test_what_only_looks_like_a_clients_request_is_answered_as_http(request_line: bytes, status: bytes) -> None:
    async with web() as at, at.calling() as caller:
        await caller.send(request_line + b"\r\nHost: app.example.net\r\n\r\n")
        assert await caller.read(12) == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    ("settings", "host", "reason"),
    [
        ({"hosts_allow": ("*.example.org",)}, "app.example.net", "is not allowed here"),
        ({"hosts_deny": ("app.*",)}, "APP.example.net:8080", "is not allowed here"),
        (
            {"reserved": {"app.*": "alice"}, "tokens": {"alice": Secret("a")}},
            "app.example.net",
            "a token is needed here",
        ),
        ({"limits": LimitSettings(sessions=1)}, "other.example.net", "limit of 1 sessions"),
        ({}, "app.example.net", "exists already"),
    ],
)
async def test_a_tunnel_that_may_not_be_is_refused_with_the_reason(
    settings: dict[str, object], host: str, reason: str
) -> None:
    for key in ("hosts_allow", "hosts_deny"):
        if key in settings:
            settings[key] = tuple(HostPattern.parse(text) for text in settings[key])  # type: ignore[attr-defined]
    async with web(**settings) as at:
        if not settings or "limits" in settings:
            async with at.original(), at.asking(host) as (caller, first):
                assert first == b"HTTP/1.1 400"
                assert reason.encode() in await caller.read_to_end()
        else:
            async with at.asking(host) as (caller, first):
                assert first == b"HTTP/1.1 400"
                assert reason.encode() in await caller.read_to_end()
        assert reason in (await hears(at.engine, PeerRefused)).reason


async def test_of_two_who_ask_for_a_host_at_once_the_later_is_told_before_it_is_let_in() -> None:
    async with web() as at:
        async with at.asking(HOST, NATIVE) as (_, first), at.asking(HOST, NATIVE) as (later, second):
            assert (first, second) == (b"HTTP/1.1 200", b"HTTP/1.1 409")
            assert b"exists already" in await later.read_to_end()
        await until(lambda: not at.service.backends)
        async with at.asking(HOST, NATIVE) as (_, first):
            assert first == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    ("token", "host", "status"),
    [
        ("", HOST, b"401"),
        ("wrong", HOST, b"401"),
        ("secret-b", "app.example.org", b"403"),
        ("secret-a", "app.example.org", b"200"),
        ("secret-b", HOST, b"200"),
    ],
)
async def test_our_own_clients_are_told_by_the_status_whether_asking_again_can_help(
    token: str, host: str, status: bytes
) -> None:
    tokens = {"alice": Secret("secret-a"), "bob": Secret("secret-b")}
    async with web(tokens=tokens, reserved={"*.org": "alice"}) as at:
        fields = [NATIVE, f"Authorization: Bearer {token}"] if token else [NATIVE]
        async with at.asking(host, *fields) as (_, first):
            assert first == b"HTTP/1.1 " + status


async def test_the_host_is_free_as_soon_as_its_client_has_left() -> None:
    async with web() as at, at.visiting() as visitor:
        async with at.original():
            pass
        left = await hears(at.engine, BackendLeft)
        assert left.address == f"http://{HOST}"
        assert (await visitor.get("/")).status == 404
        async with at.original():
            pass


async def test_the_same_identity_takes_its_own_place_at_once() -> None:
    async with (
        web(tokens={"alice": Secret("a")}) as at,
        at.original(fields=ALICE) as dead,
        at.original(fields=ALICE) as client,
        at.visiting() as visitor,
    ):
        assert len(at.service.attached) == 1
        assert "took its place" in (await hears(at.engine, BackendLeft)).cause
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await answer(client)
        assert (await visitor.response()).status == 200
        assert await dead.peer.rest() == []


async def test_a_client_that_is_silent_is_found_dead_and_its_host_is_free() -> None:
    async with web(keepalive=Duration(0.05)) as at, at.original():
        assert "nothing heard" in (await hears(at.engine, BackendLeft)).cause
        assert at.service.routes.find(HOST) is None


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with Piped() as at:
        for number in range(5):
            await at.visitor.send(f"GET /{number} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        for number in range(5):
            assert (await at.visitor.response()).body == f"GET /{number} of 0".encode()


class Piped:
    """A server, an original's client with a real service, and a visitor."""

    def __init__(self, **settings: object) -> None:
        self._settings = settings
        self.service = Service()

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        far = await self._stack.enter_async_context(target(self.service.serve))
        self.web: Web = await self._stack.enter_async_context(web(**self._settings))
        await self._stack.enter_async_context(self.web.original(far.address))
        self.visitor: Visitor = await self._stack.enter_async_context(self.web.visiting())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()


async def test_a_client_that_answers_nothing_and_closes_is_502() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nhi".encode())
        stream_id = await client.visitor()
        await client.peer.find(DATA, stream_id)
        await client.peer.send(frame(WINDOW, FIN, stream_id))
        got = await visitor.response()
        assert (got.status, b"without an answer" in got.body) == (502, True)


async def test_a_get_that_is_not_answered_is_tried_again_before_it_is_502() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await client.visitor()
        await client.peer.send(frame(WINDOW, RST, stream_id))
        await answer(client)
        assert (await visitor.response()).status == 200


@pytest.mark.usefixtures("quick")
async def test_a_service_that_is_too_slow_is_504() -> None:
    async with web(response_timeout=Duration(0.1)) as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await client.visitor()
        got = await visitor.response()
        assert (got.status, got.body) == (
            504,
            b"504 Gateway Timeout\n\nthe local service did not answer within 0.1 s\n",
        )
        await client.peer.find(WINDOW, stream_id, RST)


@pytest.mark.usefixtures("quick")
async def test_a_client_that_opens_no_stream_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_backend, "STREAM_PATIENCE", 0.1)
    async with web() as at, at.original(), at.visiting() as visitor:
        got = await visitor.get("/")
        assert (got.status, b"did not take the request in time" in got.body) == (504, True)
        assert [backend.load for backend in at.service.backends] == [0]


async def test_a_visitor_that_leaves_midway_takes_its_stream_with_it() -> None:
    async with web() as at, at.original() as client:
        async with at.calling() as caller:
            await caller.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            stream_id = await client.visitor()
            caller.reset()
        await client.peer.find(WINDOW, stream_id, RST)
        await until(lambda: not at.service.visitors)


async def test_an_answer_that_breaks_off_cuts_the_visitor_and_never_looks_complete() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await client.visitor()
        await client.peer.send(data(stream_id, ok(b"x" * 100)[:-1]), frame(WINDOW, FIN, stream_id))
        with pytest.raises(ConnectionResetError):
            await visitor.response()


async def test_a_body_streams_as_it_comes() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await client.visitor()
        await client.peer.send(data(stream_id, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"))
        for number in range(3):
            event = f"data: {number}\n\n".encode()
            await client.peer.send(data(stream_id, event))
            seen = b""
            while not seen.endswith(event + b"\r\n"):
                seen += await visitor.read(1)
        await client.peer.send(frame(WINDOW, FIN, stream_id))
        assert await visitor.read(5) == b"0\r\n\r\n"


@pytest.mark.usefixtures("quick")
async def test_a_visitor_that_left_a_stream_of_events_in_silence_is_found_out() -> None:
    async with web(keep_alive=Duration(0.1)) as at, at.original() as client:
        async with at.visiting() as visitor:
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            stream_id = await client.visitor()
            await client.peer.send(data(stream_id, b"HTTP/1.1 200 OK\r\n\r\nevent"))
            assert await visitor.read(4) == b"HTTP"
        await client.peer.find(WINDOW, stream_id, RST)


@pytest.mark.usefixtures("quick")
async def test_a_visitor_that_only_says_no_more_gets_its_answer_as_long_as_it_comes() -> None:
    # Longer than some rounds of the sweep, so that a busy machine has whole ones more for each byte.
    async with web(keep_alive=Duration(1.5)) as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        visitor.writer.write_eof()
        stream_id = await client.visitor()
        await client.peer.send(data(stream_id, ok(b"xxx")[:-3]))
        await until(lambda: told(at.engine, ChannelOpened))
        (made,) = at.service.visitors
        await until(lambda: made.deadline < at.engine.node.loop.time() + 1)  # it is doubted
        for _ in range(3):
            deadline, now = made.deadline, at.engine.node.loop.time()
            await until(partial(_has_passed, at.engine.node.loop, now))  # the clock counts in milliseconds
            await client.peer.send(data(stream_id, b"x"))
            await until(partial(_is_later, made, deadline))
        assert (await visitor.response()).body == b"xxx"


def _has_passed(loop: asyncio.AbstractEventLoop, moment: float) -> bool:
    return loop.time() > moment


def _is_later(visitor: object, deadline: float) -> bool:
    return getattr(visitor, "deadline", 0.0) > deadline


async def test_an_answer_that_ends_with_its_connection_is_complete_through_an_original_too() -> None:
    # It passes the end of its service on only behind the end of what comes from us.
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello".encode())
        stream_id = await client.visitor()
        await client.peer.send(data(stream_id, b"HTTP/1.0 200 OK\r\n\r\nall of it"))
        await client.peer.find(WINDOW, stream_id, FIN)
        await client.peer.send(frame(WINDOW, FIN, stream_id))
        got = await visitor.response("POST")
        assert (got.status, got.body) == (200, b"all of it")


async def test_a_websocket_is_raw_both_ways_after_its_upgrade() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        fields = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        await visitor.send(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode())
        line = (await client.peer.find(DATA, 1)).payload
        assert line == b'{"Type":3,"Action":5}\n'
        stream_id = await client.open()
        request = (await client.peer.find(DATA, stream_id)).payload
        assert b"\r\nUpgrade: websocket\r\n" in request
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        await client.peer.send(data(stream_id, switch + b"first"))
        assert (await visitor.response()).status == 101
        assert await visitor.read(5) == b"first"
        await visitor.send(b"\x00raw\xff")
        assert await client.peer.read(stream_id, 5) == b"\x00raw\xff"
        await client.peer.send(data(stream_id, b"back"), frame(WINDOW, FIN, stream_id))
        assert await visitor.read(4) == b"back"
        visitor.writer.write_eof()
        await client.peer.find(WINDOW, stream_id, FIN)
        closed = await hears(at.engine, ChannelClosed)
        assert closed.bytes_in == len(switch) + 9
        assert closed.bytes_out == len(request) + 5


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_a_request_that_breaks_the_rules_is_refused_and_the_connection_closed(
    request_bytes: bytes, status: int
) -> None:
    async with web() as at, at.visiting() as visitor:
        await visitor.send(request_bytes)
        got = await visitor.response()
        assert (got.status, got.head.values["connection"]) == (status, "close")
        assert await visitor.ends() == b""
        await hears(at.engine, PeerRefused)


@pytest.mark.usefixtures("quick")
async def test_a_head_that_does_not_come_in_time_is_408() -> None:
    async with web(limits=LimitSettings(handshake_timeout=Duration(0.1))) as at, at.visiting() as visitor:
        await visitor.send(b"GET / HTTP/1.1\r\nHo")
        assert (await visitor.response()).status == 408
        assert await visitor.ends() == b""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("first", "answer"), [(b"G", b"HTTP/1.1 408"), (b"CONNECT /_", b"")])
async def test_there_is_one_deadline_for_all_of_the_first_head(first: bytes, answer: bytes) -> None:
    limits = LimitSettings(handshake_timeout=Duration(3600))
    async with web(limits=limits) as at, at.calling() as caller:
        await until(lambda: at.service.arrivals)
        (arrival,) = at.service.arrivals
        arrival.deadline = at.engine.node.loop.time() + 0.2  # as if it had been silent until then
        await caller.send(first)
        assert (await caller.read_to_end())[: len(answer) or None] == answer
        assert answer or told(at.engine, PeerRefused)


@pytest.mark.parametrize(
    "host", ["denied.test..", ".", "..", "a..b", "-a.test", "0x7f.1", "a" * 64, f"{'a.' * 127}test", "denied_.test"]
)
async def test_what_is_no_host_name_is_400_for_clients_and_visitors(host: str) -> None:
    async with web(hosts_deny=(HostPattern.parse("denied.test"),), reserved={}) as at:
        async with at.asking(host) as (_, status):
            assert status == b"HTTP/1.1 400"
        assert not at.service.backends
        async with at.visiting(host) as visitor:
            assert (await visitor.get("/")).status == 400


@pytest.mark.parametrize("host", ["denied.test", "denied.test.", "DENIED.test.:80"])
async def test_no_spelling_of_a_denied_host_is_let_in(host: str) -> None:
    async with web(hosts_deny=(HostPattern.parse("denied.test"),)) as at, at.asking(host, NATIVE) as (_, status):
        assert status == b"HTTP/1.1 403"


async def test_an_empty_line_before_a_request_is_ignored() -> None:
    async with web() as at, at.visiting() as visitor:
        for _ in range(2):
            await visitor.send(f"\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert (await visitor.response()).status == 404
        await visitor.send(b"\nGET / HTTP/1.1\r\n")
        assert (await visitor.response()).status == 400
        async with at.calling() as caller:
            await caller.send(f"\r\nCONNECT /_connectPath HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert await caller.read(12) == b"HTTP/1.1 200"


@pytest.mark.usefixtures("quick")
async def test_a_visitor_that_says_nothing_is_closed_without_a_word() -> None:
    async with web(limits=LimitSettings(handshake_timeout=Duration(0.1))) as at, at.visiting() as visitor:
        assert await visitor.ends() == b""
        assert not told(at.engine, PeerRefused)


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_is_kept_alive_is_closed_when_it_brings_nothing() -> None:
    async with web(keep_alive=Duration(0.1)) as at, at.visiting() as visitor:
        await visitor.get("/")
        assert await visitor.ends() == b""


async def test_a_session_that_is_kicked_ends_and_its_visitors_are_cut() -> None:
    async with web() as at, at.original() as client, at.visiting() as visitor:
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await client.visitor()
        await client.peer.send(data(stream_id, ok(b"x" * 100)[:-1]))
        assert await visitor.read(4) == b"HTTP"
        (session,) = at.service.attached
        at.engine.kick(session.id)
        assert await visitor.is_cut()
        await until(lambda: not at.service.attached)


async def test_a_server_that_stops_finishes_what_is_under_way_and_takes_nothing_new() -> None:
    async with web() as at, at.original() as client, at.visiting() as busy, at.visiting() as idle:
        await busy.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        stream_id = await client.visitor()
        await client.peer.find(DATA, stream_id)
        stopping = asyncio.gather(at.engine.stop(drain=10))
        assert await idle.ends() == b""
        await client.peer.find(GO_AWAY)
        await client.peer.send(data(stream_id, ok(b"the last")), frame(WINDOW, FIN, stream_id))
        got = await busy.response()
        assert (got.body, got.head.values["connection"]) == (b"the last", "close")
        busy.writer.close()
        client.peer.writer.write_eof()
        await stopping


async def test_requests_beyond_the_rate_of_a_connection_are_429() -> None:
    async with Piped(per_connection=RateSettings(requests=2)) as at:
        statuses = [(await at.visitor.get("/")).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        got = await at.visitor.get("/")
        assert int(got.head.values["retry-after"]) >= 1
        async with at.web.visiting() as other:
            assert (await other.get("/")).status == 200


@pytest.fixture
def two_requests(monkeypatch: pytest.MonkeyPatch) -> RateSettings:
    """A rate by which two requests may come at once, and the next only after a minute."""
    monkeypatch.setattr(rates, "BURST_SECONDS", 120.0)
    return RateSettings(requests=1 / 60)


@pytest.mark.parametrize("limit", ["per_tunnel", "per_identity"])
async def test_requests_beyond_the_rate_of_a_tunnel_or_its_identity_are_429_for_all(
    limit: str, two_requests: RateSettings
) -> None:
    async with Piped(**{limit: two_requests}) as at, at.web.visiting() as other:
        statuses = [(await visitor.get("/")).status for visitor in (at.visitor, other, at.visitor, other)]
        assert statuses == [200, 200, 429, 429]


@pytest.mark.parametrize("limit", ["per_tunnel", "per_identity"])
async def test_a_client_that_leaves_and_comes_again_has_no_more_requests_for_that(
    limit: str, two_requests: RateSettings
) -> None:
    limits: dict[str, Any] = {limit: two_requests}
    async with web(tokens={"alice": Secret("a")}, **limits) as at, target(Service().serve) as far:
        for statuses in ([200, 200, 429], [429]):
            async with at.original(far.address, "one.example.net", ALICE), at.visiting("one.example.net") as visitor:
                assert [(await visitor.get("/")).status for _ in statuses] == statuses
            await until(lambda: not at.service.attached)


async def test_all_hosts_of_an_identity_share_its_rate_and_those_of_another_have_their_own(
    two_requests: RateSettings,
) -> None:
    tokens = {"alice": Secret("a"), "bob": Secret("b")}
    service = Service()
    async with (
        web(tokens=tokens, per_identity=two_requests) as at,
        target(service.serve) as far,
        at.original(far.address, "one.example.net", ALICE),
        at.original(far.address, "two.example.net", ALICE),
        at.original(far.address, "bobs.example.net", BOB),
    ):
        await until(lambda: len(at.service.attached) == 3)
        async with (
            at.visiting("one.example.net") as one,
            at.visiting("two.example.net") as two,
            at.visiting("bobs.example.net") as bobs,
        ):
            assert [(await visitor.get("/")).status for visitor in (one, two, one, two)] == [200, 200, 429, 429]
            assert (await bobs.get("/")).status == 200


@pytest.mark.parametrize("limit", ["per_connection", "per_tunnel", "per_identity"])
async def test_bytes_beyond_the_rate_are_held_back_and_not_lost(limit: str) -> None:
    async with Piped(**{limit: RateSettings(rate=Rate(2_000_000))}) as at:
        at.service.answer_with(lambda _: ok(BULK[:1_000_000]))
        began = asyncio.get_running_loop().time()
        assert (await at.visitor.get("/")).body == BULK[:1_000_000]
        assert asyncio.get_running_loop().time() - began > 0.1


async def test_the_word_of_a_trusted_proxy_is_taken_and_no_other() -> None:
    nobody: tuple[NetworkPattern, ...] = ()
    for trusted, expected in ((nobody, "127.0.0.1"), ((NetworkPattern("127.0.0.0/8"),), "192.0.2.7, 127.0.0.1")):
        async with Piped(trusted_proxies=trusted) as at:
            await at.visitor.get("/", "X-Forwarded-For: 192.0.2.7")
            assert at.service.seen[0].value("X-Forwarded-For") == expected


@pytest.mark.parametrize(
    ("trusted", "told", "visitor"),
    [
        ((), "192.0.2.7", "127.0.0.1:"),
        (("127.0.0.0/8",), "192.0.2.7", "192.0.2.7"),
        (("127.0.0.0/8",), "198.51.100.1, 192.0.2.7", "192.0.2.7"),
        (("127.0.0.0/8", "192.0.2.0/24"), "2001:db8::7, 192.0.2.7", "2001:db8::7"),
        (("127.0.0.0/8",), "nobody", "127.0.0.1:"),
    ],
)
async def test_the_inspector_names_the_visitor_and_not_a_trusted_proxy(
    trusted: tuple[str, ...], told: str, visitor: str
) -> None:
    async with Piped(trusted_proxies=tuple(map(NetworkPattern, trusted))) as at:
        await at.visitor.get("/", f"X-Forwarded-For: {told}")
        await until(lambda: at.web.service.inspector.count)
        (kept,) = at.web.service.inspector
        assert kept.peer.startswith(visitor)


async def test_clients_of_one_identity_share_a_host_and_the_least_busy_one_gets_each_request() -> None:
    async with (
        web(shared=True, tokens={"alice": Secret("a")}) as at,
        at.original(fields=ALICE) as one,
        at.original(fields=ALICE) as two,
        at.visiting() as first,
        at.visiting() as second,
    ):
        for visitor in (first, second):
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await answer(one, ok(b"one"))
        await answer(two, ok(b"two"))
        assert {(await first.response()).body, (await second.response()).body} == {b"one", b"two"}


async def test_clients_share_a_host_only_where_their_token_allows_it() -> None:
    tokens = {"alice": Secret("a"), "bob": Secret("b")}
    async with web(shared_by=("alice",), tokens=tokens) as at:
        async with at.original(fields=ALICE), at.original(fields=ALICE):
            await until(lambda: len(at.service.attached) == 2)
        await until(lambda: not at.service.attached)
        async with at.original(fields=BOB), at.original(fields=BOB):
            await hears(at.engine, BackendLeft, "took its place")
            await until(lambda: len(at.service.attached) == 1)


def test_who_may_share_a_host_must_have_a_token() -> None:
    def problems(**changes: Any) -> list[tuple[str, str]]:
        settings = TunnelServerSettings(listen=FREE, tokens={"alice": Secret("a")}, **changes)
        return settings.problems()

    assert problems(shared_by=("alice",)) == []
    assert problems(shared_by=("bob",)) == [("shared_by", "bob has no token")]
    assert [key for key, _ in problems(shared_by=("alice",), shared=True)] == ["shared_by"]


async def test_a_client_that_leaves_takes_no_request_with_it_that_had_not_begun() -> None:
    async with (
        web(shared=True, tokens={"alice": Secret("a")}) as at,
        at.original(fields=ALICE) as staying,
        at.original(fields=ALICE) as leaving,
        at.visiting() as visitor,
        at.visiting() as other,
    ):
        await other.send(f"GET /other HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await staying.visitor()
        await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await leaving.visitor()
        leaving.peer.reset()
        await answer(staying)
        assert (await visitor.response()).status == 200


async def test_a_client_may_open_some_streams_in_vain_and_no_flood_of_them() -> None:
    async with web() as at, at.original() as client:
        for number in range(client_backend.MAX_REJECTED + 1):
            await client.peer.send(frame(WINDOW, SYN, 3 + 2 * number))
        assert "stream after stream" in (await hears(at.engine, BackendLeft)).cause
