"""What the metrics say is what the registers hold and what has happened, to the last one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from loopback import FREE, reset
from measured import Samples, measured, scraped, value
from tunnel_peers import HOST, app
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import BytesDropped, ConfigReloaded, PeerRefused, TargetFailed
from tunnelconsole.engine.identities import OTHERS
from tunnelconsole.engine.punch_events import AttemptEnded
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.punch.server import PunchServerSettings
from tunnelconsole.engine.sessions import SLICE, Session
from tunnelconsole.engine.settings import Secret
from tunnelconsole.metrics import counts as counts_module
from tunnelconsole.metrics.counts import MAX_IDENTITIES
from tunnelconsole.metrics.server import MetricsServer
from waiting import until

HOME = JumpServerSettings(listen=FREE, secret=Secret("only for this test"))


class Flow:
    """Bytes of a channel."""

    path = "splice"

    def __init__(self, bytes_in: int, bytes_out: int) -> None:
        self.bytes_in, self.bytes_out = bytes_in, bytes_out

    def abort(self, reason: str) -> None:
        """Nothing to cut."""


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine({"home": HOME, "meet": PunchServerSettings(listen=FREE)}) as started:
        await started.settled()
        yield started


@pytest_asyncio.fixture
async def server(engine: Engine) -> AsyncIterator[MetricsServer]:
    async with measured(engine) as made:
        yield made


def arrives(engine: Engine, identity: str, service: str = "home") -> Session:
    found = engine.services[service]
    return found.open_session("192.0.2.1:5000", lambda _: None, identity=identity)


def moves(engine: Engine, session: Session, bytes_in: int, bytes_out: int) -> None:
    """A channel that is over at once."""
    service = engine.services[session.service]
    service.close_channel(service.open_channel(session, "www.example.com:443", Flow(bytes_in, bytes_out)))


async def test_each_service_is_in_one_state(server: MetricsServer) -> None:
    samples = await scraped(server)
    states = {
        dict(labels)["state"]: number
        for (name, labels), number in samples.items()
        if name == "tunnelconsole_service_state" and ("service", "home") in labels
    }
    assert states.pop("listening") == 1
    assert set(states) == {"starting", "connecting", "connected", "backoff", "stopped", "failed"}
    assert not any(states.values())


async def test_sessions_channels_and_bytes_are_those_of_the_registers(engine: Engine, server: MetricsServer) -> None:
    session = arrives(engine, "alice")
    channel = engine.services["home"].open_channel(session, "www.example.com:443", Flow(1000, 200))
    samples = await scraped(server)
    assert value(samples, "tunnelconsole_sessions", service="home") == 1
    assert value(samples, "tunnelconsole_channels", service="home") == 1
    assert value(samples, "tunnelconsole_handshakes_total", service="home") == 1
    assert value(samples, "tunnelconsole_channels_opened_total", service="home") == 1
    assert value(samples, "tunnelconsole_bytes_total", service="home", direction="in") == 1000
    assert value(samples, "tunnelconsole_bytes_total", service="home", direction="out") == 200
    engine.services["home"].close_channel(channel)


async def test_bytes_that_turn_out_to_be_lost_make_no_counter_go_back(engine: Engine, server: MetricsServer) -> None:
    flow = Flow(0, 500)
    channel = engine.services["home"].open_channel(arrives(engine, "alice"), "somewhere", flow)
    await scraped(server)
    flow.bytes_out = 400
    samples = await scraped(server)
    assert value(samples, "tunnelconsole_bytes_total", service="home", direction="out") == 500
    named = {"service": "home", "identity": "alice", "direction": "out"}
    assert value(samples, "tunnelconsole_identity_bytes_total", **named) == 500
    engine.services["home"].close_channel(channel)


async def test_a_flood_of_refusals_is_counted_to_the_last(engine: Engine, server: MetricsServer) -> None:
    for number in range(3000):
        peer = f"198.51.100.{number % 250}:{number}"
        engine.node.bus.publish(PeerRefused(service="home", peer=peer, reason="wrong secret", kind="credentials"))
        late = PeerRefused(service="home", peer=peer, reason=f"no handshake within {number} s", kind="timeout")
        engine.node.bus.publish(late)
    engine.node.bus.tell_repeated(early=True)
    samples = await scraped(server)
    assert value(samples, "tunnelconsole_refusals_total", service="home", reason="credentials") == 3000
    assert value(samples, "tunnelconsole_refusals_total", service="home", reason="timeout") == 3000
    assert value(samples, "tunnelconsole_events_total", type="peer-refused", level="warning") == 6000


async def test_no_strangers_text_is_a_label(engine: Engine, server: MetricsServer) -> None:
    engine.node.bus.publish(PeerRefused(service="home", peer="192.0.2.1:1", reason='"marker" is what it said'))
    engine.node.bus.publish(TargetFailed(service="home", peer="192.0.2.1:1", target="marker:1", reason="marker"))
    arrives(engine, "marker", service="meet")  # the name of a room, which anybody may choose
    assert b"marker" not in await server.text()


async def test_targets_punches_and_lost_bytes_are_counted(engine: Engine, server: MetricsServer) -> None:
    publish = engine.node.bus.publish
    publish(TargetFailed(service="home", peer="p", target="t", reason="dial tcp 192.0.2.1:1: connection refused"))
    publish(BytesDropped(service="home", chid="desk", count=70, reason="it was too slow"))
    publish(BytesDropped(service="home", chid="desk", count=7, reason="it was too slow"))
    ended = {"service": "home", "attempt": "p1", "room": "desk", "peer": "", "reason": "", "seconds": 1.0}
    publish(AttemptEnded(**ended, state="direct", method="many ports"))  # type: ignore[arg-type]
    publish(AttemptEnded(**ended, state="failed", method=""))  # type: ignore[arg-type]
    samples = await scraped(server)
    assert value(samples, "tunnelconsole_target_failures_total", service="home", reason="refused") == 1
    assert value(samples, "tunnelconsole_dropped_bytes_total", service="home") == 77
    assert (
        value(samples, "tunnelconsole_punch_results_total", service="home", result="direct", method="many ports") == 1
    )
    assert value(samples, "tunnelconsole_punch_results_total", service="home", result="failed", method="none") == 1


class TestIdentities:
    def moved(self, samples: Samples, identity: str, service: str = "home") -> float | None:
        labels = {"service": service, "identity": identity, "direction": "in"}
        return value(samples, "tunnelconsole_identity_bytes_total", **labels)

    async def test_its_bytes_are_those_of_sessions_there_and_gone(self, engine: Engine, server: MetricsServer) -> None:
        gone, there = arrives(engine, "alice"), arrives(engine, "alice")
        moves(engine, gone, 10, 1)
        engine.services["home"].close_session(gone)
        moves(engine, there, 5, 1)
        samples = await scraped(server)
        assert self.moved(samples, "alice") == 15
        assert value(samples, "tunnelconsole_identity_sessions", service="home", identity="alice") == 1

    async def test_who_has_gone_has_no_sessions_and_keeps_its_bytes(
        self, engine: Engine, server: MetricsServer
    ) -> None:
        session = arrives(engine, "alice")
        moves(engine, session, 10, 1)
        engine.services["home"].close_session(session)
        samples = await scraped(server)
        assert self.moved(samples, "alice") == 10
        assert value(samples, "tunnelconsole_identity_sessions", service="home", identity="alice") == 0

    async def test_beyond_the_limit_they_are_the_others(self, engine: Engine, server: MetricsServer) -> None:
        for number in range(MAX_IDENTITIES + 3):
            moves(engine, arrives(engine, f"user{number}"), 1, 0)
        samples = await scraped(server)
        assert self.moved(samples, f"user{MAX_IDENTITIES - 1}") == 1
        assert self.moved(samples, f"user{MAX_IDENTITIES}") is None
        assert self.moved(samples, OTHERS) == 3

    async def test_what_ends_while_they_are_summed_counts_once(self, engine: Engine, server: MetricsServer) -> None:
        sessions = [arrives(engine, "alice") for _ in range(SLICE + 10)]
        for session in sessions:
            moves(engine, session, 1, 0)
        families = server._families._of_the_identities()
        assert next(families) is None
        for session in (sessions[0], sessions[-1]):
            engine.services["home"].close_session(session)
        _, moved = families
        assert moved is not None
        assert moved.samples[0].value == SLICE + 10

    async def test_those_that_chose_their_name_themselves_have_none(
        self, engine: Engine, server: MetricsServer
    ) -> None:
        moves(engine, arrives(engine, "a room", service="meet"), 3, 0)
        samples = await scraped(server)
        assert self.moved(samples, "a room", "meet") is None
        assert self.moved(samples, OTHERS, "meet") == 3


async def test_a_counter_that_fails_harms_nobody_and_is_told(
    engine: Engine, server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "failure", lambda _: 1 / 0)
    engine.node.bus.publish(TargetFailed(service="home", peer="192.0.2.1:1", target="t", reason="refused"))
    engine.node.bus.publish(ConfigReloaded(summary=""))
    types = [record.event.type for record in engine.node.bus.recent()]
    assert types[-3:] == ["crashed", "target-failed", "config-reloaded"]


async def test_requests_through_a_tunnel_are_timed_at_both_ends() -> None:
    async with app() as made, measured(made.web.engine) as at_server, measured(made.engine) as at_client:
        async with made.visiting() as visitor:
            assert (await visitor.get("/")).status == 200
            assert (await visitor.get("/again")).status == 200
        async with made.visiting(host="nobody.example.net") as visitor:
            assert (await visitor.get("/")).status == 404
        of_server, of_client = await scraped(at_server), await scraped(at_client)
    assert value(of_server, "tunnelconsole_http_requests_total", service="web", code="2xx") == 2
    assert value(of_server, "tunnelconsole_http_requests_total", service="web", code="4xx") == 1
    assert value(of_server, "tunnelconsole_http_request_duration_seconds_count", service="web") == 3
    assert value(of_server, "tunnelconsole_http_request_duration_seconds_bucket", service="web", le="+Inf") == 3
    assert value(of_client, "tunnelconsole_http_requests_total", service="app", code="2xx") == 2
    assert (value(of_client, "tunnelconsole_http_request_duration_seconds_sum", service="app") or 0) > 0


async def test_a_websocket_counts_once_it_has_begun() -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        await reader.read()
        writer.close()

    async with app(handler=upgrade) as made, measured(made.web.engine) as server, made.visiting() as visitor:
        fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        await visitor.send(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode())
        assert (await visitor.response()).status == 101
        assert await visitor.read(2) == b"hi"
        begun = await scraped(server)
        visitor.writer.write_eof()
        await visitor.ends()
        over = await scraped(server)
    for samples in (begun, over):
        assert value(samples, "tunnelconsole_http_requests_total", service="web", code="1xx") == 1
        assert value(samples, "tunnelconsole_http_request_duration_seconds_count", service="web") == 1


async def test_a_visitor_that_leaves_before_there_is_an_answer_counts_as_none() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with app(handler=silent) as made, measured(made.web.engine) as server:
        async with made.visiting() as visitor:
            await visitor.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await until(lambda: made.web.engine.node.sessions.channels)
            reset(visitor.writer)
        await until(lambda: server._times.services)
        samples = await scraped(server)
    assert value(samples, "tunnelconsole_http_requests_total", service="web", code="none") == 1
