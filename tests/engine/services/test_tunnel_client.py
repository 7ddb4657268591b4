"""The tunnel client at servers by hand, the original's and others, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loopback import hears, listen_only, nobody, running, target, told
from tunnel_peers import (
    ESTABLISHED,
    HOST,
    Answer,
    Seen,
    Service,
    TunnelHost,
    ok,
    say_where,
    stream_of_visitor,
    tunnel_client,
    visit_over,
)
from tunnelconsole.config import load
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ServiceConnected,
    ServiceFailed,
    ServiceRetrying,
    TargetFailed,
    TunnelDisconnected,
)
from tunnelconsole.engine.services.tunnel import client as client_module
from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
from tunnelconsole.engine.services.tunnel.target import Target as TunnelTarget
from tunnelconsole.engine.services.tunnel.target import TunnelURL
from tunnelconsole.engine.settings import HostPort, Secret
from tunnelconsole.engine.units import Duration
from tunnelconsole.errors import ConfigError, HostTaken
from waiting import until
from yamux_frames import DATA, FIN, GO_AWAY, RST, WINDOW, data, frame

GET = f"GET /a HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n".encode()


@asynccontextmanager
async def attached(
    answer: Answer = say_where, said: bytes = ESTABLISHED, **changes: Any
) -> AsyncIterator[tuple[TunnelHost, Engine, Service]]:
    """A client of a server by hand, which says ``said``, and its service."""
    host, local = TunnelHost(said), Service(answer)
    async with target(host.serve) as server, target(local.serve) as far:
        where = changes.pop("where", far.address)
        async with running(app=tunnel_client(server.address, where, **changes)) as engine:
            try:
                yield host, engine, local
            finally:
                host.released.set()


async def test_a_client_asks_as_the_originals_does_and_tells_its_public_url() -> None:
    async with attached() as (host, engine, _):
        connected = await hears(engine, ServiceConnected)
        assert connected.address.startswith(f"http://{HOST}:")
        (asked,) = host.asked
        assert (asked.method, asked.target) == ("CONNECT", "/_connectPath")
        assert asked.values["host"] == connected.address.removeprefix("http://")


async def test_requests_reach_the_service_as_they_came() -> None:
    async with attached() as (host, _, local):
        peer = await host.client()
        answer = await visit_over(peer, GET)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"GET /a of 0")
        assert local.seen[0].head.fields == (("Host", HOST), ("X-Forwarded-For", "192.0.2.7"))


async def test_the_host_header_is_rewritten_where_that_is_wanted() -> None:
    async with attached(host_header="localhost:3000") as (host, _, local):
        await visit_over(await host.client(), GET)
        assert local.seen[0].value("Host") == "localhost:3000"
        assert local.seen[0].value("X-Forwarded-For") == "192.0.2.7"


async def test_where_the_visitor_came_to_is_told_by_the_server_and_else_by_the_public_url() -> None:
    def elsewhere(_: Seen) -> bytes:
        return ok(b"", "Location: http://localhost:3000/b")

    by_https = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Proto: https\r\n\r\n")
    nonsense = by_https.replace(b"https", b"gopher")
    nameless = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    async with attached(elsewhere, host_header="localhost:3000") as (host, _, _):
        peer = await host.client()
        for request, place in (
            (GET, f"http://{HOST}/b"),
            (by_https, f"https://{HOST}/b"),
            (nonsense, f"http://{HOST}/b"),
            (nameless, "http://localhost:3000/b"),
        ):
            assert f"\r\nLocation: {place}\r\n".encode() in await visit_over(peer, request)


async def test_a_service_that_refuses_is_502_and_told() -> None:
    async with attached(where=nobody()) as (host, engine, _):
        answer = await visit_over(await host.client(), GET)
        assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"its local service refuses connections" in answer
        failed = await hears(engine, TargetFailed)
        assert (failed.peer, "connection refused" in failed.reason) == ("192.0.2.7", True)


async def test_a_service_that_is_silent_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SWEEP", 0.02)
    async with (
        target(listen_only) as silent,
        attached(where=silent.address, response_timeout=Duration(0.1)) as (host, _, _),
    ):
        answer = await visit_over(await host.client(), GET)
        assert answer.startswith(b"HTTP/1.1 504 ")


async def test_a_visitor_that_leaves_takes_its_connection_to_the_service_with_it() -> None:
    async with target(listen_only) as silent, attached(where=silent.address) as (host, engine, _):
        peer = await host.client()
        stream_id = await stream_of_visitor(peer)
        await peer.send(data(stream_id, GET))
        await until(lambda: silent.open)
        await peer.send(frame(WINDOW, RST, stream_id))
        await until(lambda: not silent.open)
        await until(lambda: not engine.services["app"].channels)


async def test_a_websocket_is_raw_both_ways() -> None:
    async def upgrade(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        while piece := await reader.read(100):
            writer.write(piece.upper())

    async with target(upgrade) as service, attached(where=service.address) as (host, engine, _):
        peer = await host.client()
        stream_id = await stream_of_visitor(peer, websocket=True)
        fields = f"Host: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        await peer.send(data(stream_id, f"GET /ws HTTP/1.1\r\n{fields}\r\n".encode()))
        answer = b""
        while not answer.endswith(b"\r\n\r\nhi"):
            answer += (await peer.find(DATA, stream_id)).payload
        assert answer.startswith(b"HTTP/1.1 101 ")
        await peer.send(data(stream_id, b"raw"))
        assert await peer.read(stream_id, 3) == b"RAW"
        await peer.send(frame(WINDOW, FIN, stream_id))
        await peer.find(WINDOW, stream_id, FIN)
        await until(lambda: not engine.services["app"].channels)


def refusal(status: int, reason: str) -> bytes:
    text = reason.encode()
    return b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)


@pytest.mark.parametrize(
    "said",
    [
        refusal(401, "the token is not known here"),
        refusal(403, "no"),
        refusal(400, "host not allowed"),
        refusal(404, "no"),
    ],
)
async def test_a_refusal_is_final(said: bytes) -> None:
    async with attached(said=said) as (host, engine, _):
        failed = await hears(engine, ServiceFailed)
        assert said.rpartition(b"\r\n")[2].decode() in failed.error
        assert engine.services["app"].state == "failed"
        assert len(host.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        refusal(409, "a tunnel for it exists already"),
        refusal(400, "tunnel exists already"),
        refusal(503, "full"),
        b"SSH-2.0",
    ],
)
async def test_what_may_pass_is_tried_again(said: bytes) -> None:
    async with attached(said=said) as (_, engine, _):
        await hears(engine, ServiceRetrying)
        assert told(engine, TunnelDisconnected)
        assert engine.services["app"].state == "backoff"


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (refusal(409, "a tunnel for it exists already"), True),
        (refusal(400, "tunnel exists already"), True),
        (refusal(503, "full"), False),
    ],
)
async def test_a_host_that_is_taken_is_told_from_other_refusals(said: bytes, taken: bool) -> None:
    async with attached(said=said) as (_, engine, _):
        await hears(engine, ServiceRetrying)
        assert isinstance(engine.supervised["app"].error, HostTaken) is taken


async def test_a_server_that_leaves_is_told_and_tried_again() -> None:
    async with attached() as (host, engine, _):
        peer = await host.client()
        peer.reset()
        assert (await hears(engine, TunnelDisconnected)).url.startswith(f"http://{HOST}")
        await hears(engine, ServiceRetrying)


async def test_a_client_that_stops_finishes_what_is_under_way() -> None:
    async with attached(lambda _: [ok(b"x" * 10)[:-1], b"x"]) as (host, engine, _):
        peer = await host.client()
        await visit_over(peer, GET)
        stopping = asyncio.gather(engine.stop(drain=5))
        await peer.find(GO_AWAY)
        peer.writer.write_eof()
        await stopping


async def test_lines_that_mean_nothing_end_the_session() -> None:
    async with attached() as (host, engine, _):
        peer = await host.client()
        await peer.send(data(1, b'{"Type":9,"Action":5}\n'))
        assert "none of its meanings" in (await hears(engine, TunnelDisconnected)).reason


async def test_nobody_who_listens_is_tried_again() -> None:
    async with running(app=tunnel_client(nobody(), "3000")) as engine:
        assert "connection refused" in (await hears(engine, ServiceRetrying)).error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3000", "localhost:3000"),
        ("example.net:80", "example.net:80"),
        ("[::1]:80", "[::1]:80"),
        ("./public", "./public"),
        ("/srv/www", "/srv/www"),
    ],
)
def test_a_target_is_a_port_an_address_or_a_folder(text: str, shown: str) -> None:
    assert str(TunnelTarget.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "public", "70000", "host:", "http://localhost:3000/x y"])
def test_what_is_no_target_is_told(text: str) -> None:
    if "/" in text:
        assert TunnelTarget.parse(text).folder
    else:
        with pytest.raises(ValueError, match="a target is a port"):
            TunnelTarget.parse(text)


@pytest.mark.parametrize(
    ("text", "host", "address"),
    [
        ("http://App.example.net", "App.example.net", HostPort("App.example.net", 80)),
        ("https://app.example.net/", "app.example.net", HostPort("app.example.net", 443)),
        ("http://app.example.net:8080", "app.example.net:8080", HostPort("app.example.net", 8080)),
        ("HTTPS://[::1]:8443", "[::1]:8443", HostPort("::1", 8443)),
    ],
)
def test_a_public_url_names_the_host_and_where_to_dial(text: str, host: str, address: HostPort) -> None:
    url = TunnelURL.parse(text)
    assert (url.host, str(url.address)) == (host, str(address))


@pytest.mark.parametrize(
    "text",
    [
        "app.example.net",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://user@a",
        "http://a:0",
        "http://a_.test",
        "http://0x7f.1",
    ],
)
def test_what_is_no_public_url_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a tunnel"):
        TunnelURL.parse(text)


CONFIG = """
version = 1
[service.app]
kind = "tunnel-client"
server = "{server}"
token = "abc"
target = "./public"
{more}
"""


def test_a_configuration_makes_a_client_whose_folder_starts_at_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(server="https://app.example.net", more=""))
    settings = load(file).services["app"]
    assert isinstance(settings, TunnelClientSettings)
    assert settings.target.folder == str(tmp_path / "public")
    assert settings.token == Secret("abc")


def test_a_configuration_with_mistakes_names_them_all(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(server="http://a", more='host_header = "a b"\nspare_connections = 1000\n'))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "service.app.host_header",
        "service.app.spare_connections",
    ]
