"""Health checks: whether a service works, and that visitors go where one does, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loopback import Target, hears, listen_only, nobody, running, target, told
from tunnel_peers import HOST, Seen, Service, TunnelHost, app, app_at, ok, say_where, tunnel_client, visit_over, web
from tunnelconsole.config import load
from tunnelconsole.control.snapshot import session_row
from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.tunnel import health as health_module
from tunnelconsole.engine.services.tunnel.health import Health
from tunnelconsole.engine.services.tunnel.health_events import (
    BackendHealthy,
    BackendUnhealthy,
    TargetHealthy,
    TargetUnhealthy,
)
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.units import Duration
from tunnelconsole.errors import ConfigError
from waiting import until
from yamux_frames import DATA

SOON = Duration(0.02)
LATER = Duration(3600.0)
"""Between two checks of a service whose first one is all that a test is about."""

GET = f"GET /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


class Switch:
    """A service that says on ``/health`` what a test has it say."""

    def __init__(self) -> None:
        self.status = 200

    def __call__(self, seen: Seen) -> bytes:
        if seen.head.target == "/health":
            return b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % self.status
        return say_where(seen)


def checked(**changes: Any) -> dict[str, Any]:
    """The settings of a client whose service is asked for ``/health`` without a pause."""
    return {"health_check": "http", "health_path": "/health", "health_interval": SOON, **changes}


@asynccontextmanager
async def watched(
    where: HostPort, path: str | None = None, *, timeout: float = 5.0, failures: int = 1
) -> AsyncIterator[tuple[Health, list[tuple[bool, str]]]]:
    """A health that is watched without a pause, and what it told."""
    found: list[tuple[bool, str]] = []
    health = Health(
        where,
        path,
        host="app",
        interval=SOON,
        timeout=timeout,
        failures=failures,
        changed=lambda healthy, reason: found.append((healthy, reason)),
    )
    task = asyncio.get_running_loop().create_task(health.watch())
    try:
        yield health, found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_service_that_takes_no_connection_is_unhealthy_and_healthy_once_it_does() -> None:
    where = nobody()
    async with watched(where) as (health, found):
        assert health.healthy
        await until(lambda: not health.healthy)
        assert "connection refused" in found[0][1]
        server = await asyncio.start_server(Target(listen_only).serve, where.host, where.port)
        await until(lambda: health.healthy)
        assert found[1:] == [(True, "")]
        server.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ok(), ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "it answered 404"),
        (b"HTTP/1.1 503 No\r\n\r\n", "it answered 503"),
        (b"SSH-2.0-OpenSSH\r\n", "it closed without an answer"),
        (b"", "it closed without an answer"),
        (b"HTTP/1.1 200\n\n", "a line of the head ends in LF alone"),
    ],
)
async def test_what_a_service_answers_tells_whether_it_is_healthy(answer: bytes, why: str) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)

    async with target(serve) as far, watched(far.address, "/health?deep=1") as (health, found):
        if why:
            await until(lambda: found)
            assert (found[0][0], why in found[0][1]) == (False, True), found
        else:
            await until(lambda: len(asked) > 2)
            assert health.healthy
        assert asked[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\nHost: app\r\n")


async def test_a_service_that_is_silent_is_unhealthy_and_not_kept_connected() -> None:
    async with target(listen_only) as silent, watched(silent.address, "/", timeout=0.05) as (_, found):
        await until(lambda: found)
        assert "no answer within 0.05 s" in found[0][1]
    await until(lambda: not silent.open)


async def test_so_many_failures_in_a_row_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    switch, local = Switch(), Service()
    statuses = iter([500, 500, 200, 500, 500, 500])

    def answer(seen: Seen) -> bytes:
        switch.status = next(statuses, 200)
        return switch(seen)

    local.answer_with(answer)
    async with target(local.serve) as far, watched(far.address, "/health", failures=3) as (_, found):
        await until(lambda: len(found) == 2)
        assert found == [(False, "it answered 500"), (True, "")]
        assert len(local.seen) >= 7


async def test_a_failed_check_is_soon_repeated_and_a_doubt_makes_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "AGAIN", SOON)
    switch = Switch()
    local = Service(switch)
    found: list[bool] = []
    async with target(local.serve) as far:
        health = Health(
            far.address,
            "/health",
            host="app",
            interval=LATER,
            timeout=5.0,
            failures=1,
            changed=lambda healthy, _: found.append(healthy),
        )
        task = asyncio.get_running_loop().create_task(health.watch())
        await until(lambda: local.seen)
        switch.status = 500
        health.doubt()
        await until(lambda: not health.healthy)
        switch.status = 200
        await until(lambda: health.healthy)
        assert found == [False, True]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("told_by_line", [True, False])
async def test_visitors_go_to_the_client_whose_service_is_healthy(native: bool, told_by_line: bool) -> None:
    switch = Switch()
    async with (
        web(shared=True, native=told_by_line) as at,
        app_at(at, switch, token="same", native=native, **checked()) as one,
        app_at(at, lambda _: ok(b"other"), token="same", native=native) as other,
        at.visiting() as visitor,
    ):
        switch.status = 500
        unhealthy = await hears(one.engine, TargetUnhealthy)
        assert unhealthy.reason == "it answered 500"
        if native and told_by_line:
            await hears(at.engine, BackendUnhealthy)
        for _ in range(10):
            assert (await visitor.get("/")).body == b"other"
        assert all(seen.head.target == "/health" for seen in one.local.seen)
        switch.status = 200
        await hears(one.engine, TargetHealthy)
        if native and told_by_line:
            await hears(at.engine, BackendHealthy)
        await other.engine.stop(drain=0)
        await until(lambda: len(at.service.attached) == 1)
        assert (await visitor.get("/x")).body == b"GET /x of 0"


@pytest.mark.parametrize("native", [True, False])
async def test_where_no_service_is_healthy_visitors_are_told_so_and_it_is_not_asked(native: bool) -> None:
    switch = Switch()
    async with app(switch, native=native, **checked()) as at, at.visiting() as visitor, at.visiting() as other:
        switch.status = 500
        await hears(at.engine, TargetUnhealthy)
        for who, method in ((visitor, "GET"), (visitor, "GET"), (other, "POST")):
            got = await who.get("/", method=method)
            assert (got.status, b"its local service is not healthy" in got.body) == (502, True)
            assert "tunnel-service" not in got.head.values
        assert not [seen for seen in at.local.seen if seen.head.target == "/"]
        switch.status = 200
        await hears(at.engine, TargetHealthy)
        if native:
            await hears(at.web.engine, BackendHealthy)
        assert (await visitor.get("/")).status == 200


async def test_a_request_that_is_under_way_when_its_service_becomes_unhealthy_goes_on() -> None:
    switch, release = Switch(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /health"):
            writer.write(b"HTTP/1.1 %d Said\r\n\r\n" % switch.status)
            return
        await release.wait()
        writer.write(ok(b"the last"))
        await reader.read()

    async with app(handler=slow, **checked()) as at, at.visiting() as visitor:
        await visitor.send(GET)
        await until(lambda: at.engine.node.sessions.channels)
        switch.status = 500
        await hears(at.web.engine, BackendUnhealthy)
        release.set()
        assert (await visitor.response()).body == b"the last"


async def test_a_service_that_a_visitor_finds_out_of_reach_is_checked_at_once() -> None:
    where = nobody()
    listening = Target(Service().serve)
    server = await asyncio.start_server(listening.serve, where.host, where.port)
    async with web() as at:
        client = tunnel_client(at.address, where, health_check="tcp", health_interval=LATER)
        async with running(app=client) as engine, at.visiting() as visitor:
            assert (await visitor.get("/")).status == 200
            server.close()
            listening.reset_all()
            await until(lambda: not listening.open)
            assert (await visitor.get("/")).status == 502
            assert "connection refused" in (await hears(engine, TargetUnhealthy)).reason
            assert told(engine, TargetFailed)


async def test_the_state_is_seen_at_both_ends() -> None:
    switch = Switch()
    async with app(switch, **checked()) as at:
        (session,) = at.web.service.attached
        assert (at.service.notes["health"], session_row(session).note) == ("healthy", "")
        switch.status = 500
        await hears(at.web.engine, BackendUnhealthy)
        assert (at.service.notes["health"], session_row(session).note) == ("unhealthy: it answered 500", "unhealthy")
        assert told(at.web.engine, BackendUnhealthy)[0].session == session.id
        switch.status = 200
        await hears(at.web.engine, BackendHealthy)
        assert (at.service.notes["health"], session_row(session).note) == ("healthy", "")


async def test_a_client_that_comes_back_says_again_that_its_service_is_unhealthy() -> None:
    switch = Switch()
    async with app(switch, **checked()) as at:
        switch.status = 500
        await hears(at.web.engine, BackendUnhealthy)
        (session,) = at.web.service.attached
        session.end("try again")
        await until(lambda: len(told(at.web.engine, BackendUnhealthy)) == 2)
        (backend,) = at.web.service.backends
        assert not backend.healthy


async def test_an_original_server_hears_nothing_of_it_and_its_visitors_are_told() -> None:
    switch, host = Switch(), TunnelHost()
    switch.status = 500
    local = Service(switch)
    async with (
        target(host.serve) as server,
        target(local.serve) as far,
        running(app=tunnel_client(server.address, far.address, **checked())) as engine,
    ):
        await hears(engine, TargetUnhealthy)
        peer = await host.client()
        assert b"its local service is not healthy" in await visit_over(peer, GET)
        switch.status = 200
        await hears(engine, TargetHealthy)
        await engine.stop(drain=0)
        assert not [found for found in await peer.rest() if (found.kind, found.stream_id) == (DATA, 1)]
        host.released.set()


async def test_a_request_that_a_dead_client_was_to_serve_goes_to_another() -> None:
    async with (
        web(shared=True, keepalive=Duration(0.5)) as at,
        at.original(fields=("Authorization: Bearer same",)),
        at.visiting() as visitor,
    ):
        (dead,) = at.service.attached
        async with app_at(at, token="same"):
            await visitor.send(GET)
            assert (await visitor.response()).status == 200
            await until(lambda: dead not in at.service.attached)


async def test_a_service_without_a_check_is_never_asked() -> None:
    async with app() as at:
        assert "health" not in at.service.notes
        assert at.local.connections == 0


CONFIG = """
version = 1
[service.app]
kind = "tunnel-client"
server = "http://a"
target = "{target}"
{more}
"""


@pytest.mark.parametrize(
    ("where", "more", "key"),
    [
        ("./public", 'health_check = "tcp"', "health_check"),
        ("3000", 'health_check = "icmp"', "health_check"),
        ("3000", 'health_path = "health"', "health_path"),
        ("3000", 'health_path = "/a b"', "health_path"),
        ("3000", 'health_path = "/a\\r\\nX: y"', "health_path"),
        ("3000", 'health_interval = "0s"', "health_interval"),
        ("3000", 'health_timeout = "0s"', "health_timeout"),
        ("3000", "health_failures = 0", "health_failures"),
    ],
)
def test_what_cannot_be_checked_is_told(tmp_path: Path, where: str, more: str, key: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(target=where, more=more))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"service.app.{key}"]
