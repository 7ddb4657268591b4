"""Clients that tell their target who the visitor is, by the PROXY protocol."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from loopback import calling, hears, running, target
from relay_peers import attached, relay_host, shop
from tunnel_peers import ESTABLISHED, HOST, Service, TunnelHost, app, ok, say_where, tunnel_client, visit_over
from tunnelconsole.config import load
from tunnelconsole.engine.events import ChannelOpened, PeerRefused, TargetFailed
from tunnelconsole.engine.services import send_proxy
from tunnelconsole.engine.settings import ProxyNetwork
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.proxy_protocol import Endpoint, ProxyHeader, Told, Version
from tunnelconsole.engine.wire.relay import NativeHello, VisitorStream, Want, encode_message, parse_message
from tunnelconsole.errors import ConfigError
from waiting import until
from yamux_frames import ACK, DATA, SYN, WINDOW, data, frame

NOBODY = Told(None, None)


async def read_header(reader: asyncio.StreamReader) -> Told:
    """Takes a header off the front of a connection."""
    header = ProxyHeader()
    while header.told is None:
        header.receive_data(await reader.readexactly(1))
    return header.told


async def say_who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back whom the header names, and then what comes."""
    told = await read_header(reader)
    writer.write(f"{format_host_port(*told.source) if told.source else 'nobody'} ".encode())
    while data := await reader.read(1 << 16):
        writer.write(data)


VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


@VERSIONS
async def test_a_relays_target_is_told_who_comes_and_where_to_before_the_first_byte(version: Version) -> None:
    heads: list[Told] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_header(reader))
        writer.write(await reader.read(100))

    async with shop(service, send_proxy=version) as at, at.visiting() as visitor:
        assert await visitor.exchange(b"ping") == b"ping"
        host, _, port = visitor.name.rpartition(":")
        public_host, _, public_port = at.address.rpartition(":")
        assert heads == [Told(Endpoint(host, int(port)), Endpoint(public_host, int(public_port)))]


async def test_where_the_public_address_is_a_name_the_targets_own_is_told() -> None:
    heads: list[Told] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_header(reader))

    async with shop(service, {"public_host": "localhost"}, send_proxy="v1") as at, at.visiting() as visitor:
        assert await visitor.read_to_end() == b""
        assert heads[0].destination == Endpoint(at.far.address.host, at.far.address.port)


@VERSIONS
@pytest.mark.parametrize("where", ["at the relay", "at the client"])
async def test_a_visitor_who_comes_through_yamux_is_known_unless_the_relay_has_yamux_alone(
    version: Version, where: str
) -> None:
    server, client = ({"native": False}, {}) if where == "at the relay" else ({}, {"native": False})
    async with shop(say_who, server, send_proxy=version, **client) as at:
        if not server:
            await until(lambda: all(backend._told_stream for backend in at.edge.service.backends.values()))
        async with at.visiting() as visitor:
            known = visitor.name if where == "at the client" else "nobody"
            assert await visitor.exchange(b"ping") == f"{known} ping".encode()
            if not server:
                assert (await hears(at.engine, ChannelOpened)).visitor == visitor.name


async def test_an_original_relays_visitors_are_known_to_nobody() -> None:
    async with relay_host() as host, attached(host, say_who, send_proxy="v1"):
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2), data(2, b"ping"))
        assert await peer.read(2, 11) == b"nobody ping"


async def test_a_relay_says_on_which_stream_whom_it_brings_and_what_it_said_of_another_does_not_count() -> None:
    async with relay_host(native=True) as host, attached(host, say_who, send_proxy="v1", native=False):
        peer = await host.backend()
        await peer.find(WINDOW, 3, SYN)
        await peer.send(frame(WINDOW, ACK, 3))
        hello = parse_message((await peer.find(DATA, 3)).payload)
        assert hello == NativeHello(visitors=True, data=False)
        visitor = "203.0.113.7:56324"
        announced = data(3, encode_message(VisitorStream(2, visitor)))
        for said, stream_id, who in (
            (announced, 2, visitor.encode()),
            (announced, 4, b"nobody"),
            (b"", 6, b"nobody"),
        ):
            await peer.send(said, frame(WINDOW, SYN, stream_id), data(stream_id, b"ping"))
            assert await peer.read(stream_id, len(who) + 5) == who + b" ping"


async def test_a_client_without_data_connections_takes_no_key_even_from_a_relay_that_gives_one() -> None:
    async with relay_host(native=True) as host, attached(host, say_who, send_proxy="v1", native=False):
        peer = await host.native_backend()
        await peer.send(data(3, encode_message(Want(1))), frame(WINDOW, SYN, 2), data(2, b"ping"))
        assert await peer.read(2, 11) == b"nobody ping"
        assert not host.data_connections


async def test_a_visitor_of_whom_the_backend_cannot_be_told_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop(say_who, native=False, send_proxy="v1") as at:
        (backend,) = at.edge.service.backends.values()
        await until(lambda: backend._told_stream)
        monkeypatch.setattr(backend, "_say", lambda *_: False)
        with suppress(ConnectionResetError):
            async with at.visiting() as visitor:
                await visitor.broken()
        await hears(at.edge.engine, PeerRefused, "its backend is too far behind to be told who comes")


@pytest.mark.parametrize("port", [56324, 0])
async def test_whom_a_proxy_names_at_the_relay_is_whom_the_target_is_told(port: int) -> None:
    trusting = {"proxy_protocol_from": (ProxyNetwork("127.0.0.3"),)}
    async with shop(say_who, trusting, send_proxy="v2") as at, calling(at.address, "127.0.0.3") as visitor:
        answer = await visitor.exchange(f"PROXY TCP4 203.0.113.7 198.51.100.2 {port} 443\r\nping".encode())
        assert answer == f"203.0.113.7:{port} ping".encode()


async def test_a_target_that_cannot_be_told_is_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(104, "Connection reset by peer")

    monkeypatch.setattr(send_proxy, "encode_proxy_header", broken)
    async with shop(say_who, send_proxy="v1") as at:
        async with at.visiting() as visitor:
            assert await visitor.broken()
        await hears(at.engine, TargetFailed, "Connection reset by peer")
    async with app(send_proxy="v1") as web, web.visiting() as visitor:
        assert (await visitor.get()).status == 502
        await hears(web.engine, TargetFailed, "Connection reset by peer")


# -- tunnels -----------------------------------------------------------------------------------------------------------


class Knowing:
    """A web service that wants a header first, and answers whom it named, and on which connection it is asked."""

    def __init__(self) -> None:
        self.heads: list[Told] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_header(reader)
        self.heads.append(head)
        answer = f"{head.source.host if head.source else 'nobody'} on {len(self.heads)}".encode()
        await Service(lambda _: ok(answer)).serve(reader, writer)


@VERSIONS
async def test_a_web_service_is_told_who_comes_and_no_two_visitors_share_a_connection_to_it(version: Version) -> None:
    local = Knowing()
    async with app(handler=local.serve, send_proxy=version, spare_connections=1) as at:
        async with at.visiting() as one, at.visiting(from_host="127.0.0.2") as other:
            answers = [(await visitor.get()).body for visitor in (one, one, other, one)]
        assert answers == [b"127.0.0.1 on 1", b"127.0.0.1 on 1", b"127.0.0.2 on 2", b"127.0.0.1 on 3"]
        where = Endpoint(at.far.address.host, at.far.address.port)
        assert local.heads[0] == Told(Endpoint("127.0.0.1", 0), where)


async def test_without_it_visitors_share_the_connection_to_a_web_service() -> None:
    async with app(say_where, spare_connections=1) as at:
        async with at.visiting() as one, at.visiting(from_host="127.0.0.2") as other:
            for visitor in (one, other, one):
                assert (await visitor.get()).status == 200
        assert at.far.served == 1


async def test_an_originals_word_on_visitors_is_not_passed_on_since_it_may_be_the_visitors_own() -> None:
    host, local = TunnelHost(ESTABLISHED), Knowing()
    async with target(host.serve) as at, target(local.serve) as far:
        try:
            async with running(app=tunnel_client(at.address, far.address, send_proxy="v2")):
                peer = await host.client()
                request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n".encode()
                assert (await visit_over(peer, request)).endswith(b"nobody on 1")
        finally:
            host.released.set()


@VERSIONS
async def test_a_health_check_says_that_no_visitor_comes(version: Version) -> None:
    local = Knowing()
    async with app(handler=local.serve, send_proxy=version, health_check="http") as at:
        await until(lambda: local.heads)
        assert local.heads == [NOBODY]
        assert at.service.healthy


# -- the configuration -------------------------------------------------------------------------------------------------


def problems(folder: Path, text: str) -> list[str]:
    """What is wrong with a configuration of one service."""
    file = folder / "config.toml"
    file.write_text(f"version = 1\n[service.it]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            'kind = "tunnel-client"\nserver = "http://a.example.net"\ntarget = "./public"\nsend_proxy = "v1"',
            "service.it.send_proxy: is for services, and target is a folder",
        ),
        (
            'kind = "relay-client"\nserver = "127.0.0.1:1"\ntarget = "127.0.0.1:2"\nsend_proxy = "v3"',
            "service.it.send_proxy:",
        ),
        (
            'kind = "jump-server"\nlisten = "127.0.0.1:1"\nsecret = "a"\nsend_proxy = "v1"',
            "service.it.send_proxy: unknown key",
        ),
        (
            'kind = "punch-server"\nlisten = "127.0.0.1:1"\nproxy_protocol_from = ["127.0.0.1"]',
            "service.it.proxy_protocol_from: a rendezvous has to be reached directly",
        ),
        (
            'kind = "relay-server"\nlisten = "127.0.0.1:1"\nproxy_protocol_from = ["0.0.0.0/0"]',
            "would let everybody say to be anybody",
        ),
        (
            'kind = "jump-server"\nlisten = "127.0.0.1:1"\nsecret = "a"\nproxy_protocol_from = ["gate.example.net"]',
            "is not a network",
        ),
    ],
    ids=["folder", "version", "elsewhere", "rendezvous", "everybody", "name"],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, wrong: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert wrong in problem
