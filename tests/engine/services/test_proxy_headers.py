"""Servers behind a proxy that says with the PROXY protocol who comes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from jump_peers import Home, ask, framed, home, read_frame
from loopback import Caller, calling, echo, hears, steady, target, told
from relay_peers import edge, shop
from ssh_peers import line_of, ssh_desk
from tls_programs import certificate
from tunnel_peers import HOST, app, say_where, visiting, web
from tunnelconsole.engine import limits
from tunnelconsole.engine.events import ChannelOpened, PeerRefused, SessionOpened
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import FilePath, HostPort, NetworkPattern, ProxyNetwork, TLSSettings
from tunnelconsole.engine.units import Duration
from waiting import until

PROXY = "127.0.0.3"
"""Where the proxy is that is trusted; everybody else comes from 127.0.0.1."""

TRUSTING: dict[str, Any] = {"proxy_protocol_from": (ProxyNetwork(PROXY),)}
HURRIED = LimitSettings(handshake_timeout=Duration(0.2))

VISITOR = "203.0.113.7:56324"
HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.2 56324 443\r\n"
BINARY = b"\r\n\r\n\x00\r\nQUIT\n" + bytes.fromhex("2111000c cb007107 c6336402 dc04 01bb")
OF_ITSELF = b"\r\n\r\n\x00\r\nQUIT\n" + b"\x20\x00\x00\x00"
NO_PORT = b"PROXY TCP4 203.0.113.7 198.51.100.2 0 443\r\n"


@asynccontextmanager
async def proxied(address: str, header: bytes = HEADER) -> AsyncIterator[Caller]:
    """A connection that the trusted proxy makes."""
    async with calling(address, PROXY) as caller:
        await caller.send(header)
        yield caller


async def is_served(at: Home, caller: Caller) -> None:
    """Goes through a jump server's handshake, and to the program behind it."""
    assert not await ask(caller, at.far.address)
    assert await caller.exchange(b"ping") == b"ping"


@pytest.mark.parametrize("header", [HEADER, BINARY], ids=["v1", "v2"])
async def test_whom_the_proxy_names_is_the_peer_of_the_session(header: bytes) -> None:
    async with home(**TRUSTING) as at, proxied(at.address, header) as caller:
        await is_served(at, caller)
        assert (await hears(at.engine, SessionOpened)).peer == VISITOR


async def test_a_header_may_come_byte_by_byte_and_keeps_the_loop_at_rest_meanwhile() -> None:
    async with home(**TRUSTING) as at, calling(at.address, PROXY) as caller:
        for offset in range(len(HEADER)):
            await caller.send(HEADER[offset : offset + 1])
        await is_served(at, caller)
    async with home(**TRUSTING) as at, proxied(at.address, HEADER[:20]) as caller:
        headers = at.service._headers
        assert headers is not None
        (reading,) = await until(lambda: headers.reading)
        await until(lambda: reading._header.begun)
        with pytest.raises(BlockingIOError):  # nothing is left by which the descriptor would stay readable
            reading._socket.recv(1, socket.MSG_PEEK)


async def test_tls_begins_behind_the_header_even_in_the_same_packet() -> None:
    crt, key = certificate("localhost")
    tls = TLSSettings(certificate=FilePath(str(crt)), key=FilePath(str(key)))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(crt))
    program = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with home(tls=tls, **TRUSTING) as at, calling(at.address, PROXY) as caller:
        to_say, challenge = HEADER, b""
        while not challenge:
            try:
                challenge = program.read(64)
            except ssl.SSLWantReadError:
                to_say += outgoing.read()
                await caller.send(to_say)
                to_say = b""
                incoming.write(await caller.read(1))
        program.write(framed(b"wrong"))
        await caller.send(outgoing.read())
        assert (await hears(at.engine, PeerRefused, "wrong secret")).peer == VISITOR


async def test_from_anywhere_else_a_header_is_not_believed_and_none_is_needed() -> None:
    async with home(**TRUSTING) as at:
        async with at.calling() as stranger:
            await read_frame(stranger)  # the server speaks first, without waiting for a header
            await stranger.send(HEADER * 2)  # to this server the first letter is the length of a frame
            assert await stranger.read_to_end()
        refused = await hears(at.engine, PeerRefused, "wrong secret")
        assert refused.peer == stranger.name
        await at.serves()


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "did not begin with a header of the PROXY protocol"),
        (b"PROXY TCP4 203.0.113.7\r\n", "two addresses"),
        (b"PROXY " + b"a" * 200, "no end within 107 bytes"),
        (BINARY[:14] + b"\xff\xff", "65551 bytes; at most 4096"),
    ],
    ids=["no header", "a broken one", "an endless one", "a huge one"],
)
async def test_a_trusted_proxy_that_brings_no_good_header_hears_nothing_and_is_an_event(
    said: bytes, wrong: str
) -> None:
    async with home(**TRUSTING) as at:
        async with proxied(at.address, said) as caller:
            await caller.broken()
        refused = await hears(at.engine, PeerRefused, wrong)
        assert refused.peer == caller.name
        assert "it is in proxy_protocol_from" in refused.reason
        await at.serves()


@pytest.mark.parametrize("said", [b"", b"P", HEADER[:-1], BINARY[:-1]], ids=["nothing", "a byte", "v1", "v2"])
async def test_cve_2021_23351_a_header_that_does_not_come_is_not_waited_for_longer_than_a_handshake(
    said: bytes,
) -> None:
    async with home(limits=HURRIED, **TRUSTING) as at:
        async with proxied(at.address, said) as caller:
            assert await caller.read_to_end() == b""
        refused = await hears(at.engine, PeerRefused, "no complete PROXY header within 0.2 s")
        assert refused.peer == caller.name


async def test_cve_2021_23351_a_silent_crowd_of_the_proxys_fills_its_own_places_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    async with home(**TRUSTING) as at:
        async with proxied(at.address, b"") as one, proxied(at.address, b"PROXY") as two:
            headers = at.service._headers
            assert headers is not None
            await until(lambda: len(headers.reading) == 2)
            async with proxied(at.address) as third:
                await third.broken()
            await hears(at.engine, PeerRefused, "too many connections are inside their handshake")
            await at.serves()  # it takes the place of the oldest
            assert await one.read_to_end() == b""
            two.half_close()
        await until(lambda: not headers.reading)


async def test_a_check_whether_somebody_listens_is_no_event_and_half_a_header_is() -> None:
    async with home(**TRUSTING) as at:
        async with proxied(at.address, b"") as check:
            check.half_close()
            assert await check.read_to_end() == b""
        async with proxied(at.address, b"") as check:
            check.reset()  # as HAProxy ends such a check
        async with proxied(at.address, HEADER[:9]) as half:
            half.half_close()
            assert await half.read_to_end() == b""
        await hears(at.engine, PeerRefused, "it closed before its PROXY header was complete")
        assert [event.peer for event in told(at.engine, PeerRefused)] == [half.name]


async def test_a_proxys_check_of_a_web_server_is_no_event_either() -> None:
    async with web(**TRUSTING) as at:
        async with proxied(at.address, OF_ITSELF) as check:
            arrival = (await until(lambda: list(at.service.arrivals)))[0]
            check.reset()
            await until(lambda: arrival not in at.service.arrivals)
        async with proxied(at.address, b"GET ") as wrong:
            await wrong.broken()
        await hears(at.engine, PeerRefused, "did not begin")
        assert [event.peer for event in told(at.engine, PeerRefused)] == [wrong.name]


async def test_who_breaks_off_before_its_header_is_complete_is_an_event() -> None:
    async with home(**TRUSTING) as at, proxied(at.address, HEADER[:9]) as caller:
        headers = at.service._headers
        assert headers is not None
        (reading,) = await until(lambda: headers.reading)
        await until(lambda: reading._header.begun)
        caller.reset()
        await hears(at.engine, PeerRefused, "it broke off before its PROXY header was complete")


async def test_a_service_that_stops_waits_for_no_header() -> None:
    async with home(**TRUSTING) as at, proxied(at.address, HEADER[:9]) as caller:
        headers = at.service._headers
        assert headers is not None
        await until(lambda: headers.reading)
        at.service.stop_accepting()
        assert not headers.reading
        await caller.broken()


async def test_networks_of_clients_are_those_of_the_visitors_and_not_of_the_proxy() -> None:
    only: dict[str, Any] = {
        "clients_allow": (NetworkPattern("203.0.113.0/24"),),
        "clients_deny": (NetworkPattern("203.0.113.66"),),
    }
    async with home(**only, **TRUSTING) as at:
        async with proxied(at.address) as allowed:
            await is_served(at, allowed)
        for header, peer in (
            (HEADER.replace(b"203.0.113.7", b"203.0.113.66"), "203.0.113.66:56324"),
            (HEADER.replace(b"203.0.113.7", b"192.0.2.1"), "192.0.2.1:56324"),
        ):
            async with proxied(at.address, header) as denied:
                assert await denied.read_to_end() == b""
            assert (await hears(at.engine, PeerRefused, peer)).reason.startswith("its address is not in clients_allow")


async def test_a_proxy_that_speaks_for_itself_comes_as_itself_and_is_judged_so() -> None:
    async with home(**TRUSTING) as at, proxied(at.address, OF_ITSELF) as caller:
        await is_served(at, caller)
        assert (await hears(at.engine, SessionOpened)).peer == caller.name
    async with home(clients_deny=(NetworkPattern(PROXY),), **TRUSTING) as at:
        for header in (OF_ITSELF, b"PROXY UNKNOWN\r\n"):
            async with proxied(at.address, header) as caller:
                assert await caller.read_to_end() == b""
            await hears(at.engine, PeerRefused, caller.name)


# -- the systems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False], ids=["native", "yamux"])
@pytest.mark.parametrize(("header", "peer"), [(HEADER, VISITOR), (NO_PORT, "203.0.113.7:0")], ids=["port", "no port"])
async def test_a_relays_visitors_are_whom_the_proxy_names(native: bool, header: bytes, peer: str) -> None:
    async with shop(server=TRUSTING, native=native) as at:
        async with proxied(at.address, header) as visitor:
            assert await visitor.exchange(b"ping") == b"ping"
        assert (await hears(at.edge.engine, ChannelOpened)).visitor == peer
        if native:
            assert (await hears(at.engine, ChannelOpened)).visitor == peer
        await at.serves()


async def test_a_visitor_whose_port_was_closed_before_it_was_named_is_turned_away() -> None:
    async with edge(**TRUSTING) as at, at.backend() as (_, address), proxied(address, HEADER[:9]) as visitor:
        headers = at.service._headers
        assert headers is not None
        (reading,) = await until(lambda: headers.reading)
        await until(lambda: reading._header.begun)
        for backend in at.service.backends.values():
            backend.stop_accepting()
        await visitor.send(HEADER[9:])
        assert await visitor.read_to_end() == b""
        refused = await hears(at.engine, PeerRefused, "its public port is closed")
        assert refused.peer == VISITOR


async def test_a_web_service_is_told_whom_the_proxy_names() -> None:
    crt, key = certificate(HOST)
    files = {"certificate": FilePath(str(crt)), "key": FilePath(str(key))}
    async with app(say_where, {"listen_http": steady(), **files, **TRUSTING}, native=False, **secure(crt)) as at:
        plain = at.web.service.notes["http"]
        async with proxied(plain, HEADER + b"GET /a HTTP/1.1\r\nHost: %s\r\n\r\n" % HOST.encode()) as visitor:
            assert (await visitor.read(15)) == b"HTTP/1.1 200 OK"
        async with visiting(plain) as other:
            assert (await other.get("/b")).status == 200
        assert [seen.value("x-forwarded-for") for seen in at.local.seen] == ["203.0.113.7", "127.0.0.1"]


def secure(crt: Path) -> dict[str, Any]:
    """Settings of a client at a server with this certificate."""
    return {"scheme": "https", "tls": TLSSettings(ca=FilePath(str(crt)))}


async def test_a_key_that_is_for_some_addresses_opens_by_whom_the_proxy_names(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, forward=True, **TRUSTING) as desk, target(echo) as far:
        desk.write_keys(f'from="203.0.113.0/24" {line_of(desk.alice)}')
        where = HostPort.parse(desk.server.address)
        with pytest.raises(asyncssh.PermissionDenied):
            async with desk.connect(desk.alice):
                pass
        sock = socket.create_connection((where.host, where.port), source_address=(PROXY, 0))
        sock.sendall(HEADER)
        sock.setblocking(False)
        async with desk.connect(desk.alice, sock=sock) as connection:
            listener = await connection.forward_remote_port("", 0, far.address.host, far.address.port)
            address = f"127.0.0.1:{listener.get_port()}"
            async with proxied(address, NO_PORT) as visitor:
                assert await visitor.exchange(b"ping") == b"ping"
            opened = await hears(desk.engine, ChannelOpened, "203.0.113.7:0")
            assert opened.visitor == "203.0.113.7:0"


# -- the configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_the_whole_internet_cannot_be_trusted(text: str) -> None:
    with pytest.raises(ValueError, match="would let everybody say to be anybody"):
        ProxyNetwork.parse(text)
    assert ProxyNetwork.parse("10.0.0.0/8") == "10.0.0.0/8"
