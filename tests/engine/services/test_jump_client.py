"""The jump client: local programs come by SOCKS5, HTTP CONNECT or a fixed target, and leave through a jump server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jump_peers import (
    YES,
    framed,
    home,
    jump_client,
    office,
    office_at,
    read_reply,
    scripted_server,
    socks,
    socks_request,
)
from loopback import (
    BULK,
    address_of,
    blackhole,
    calling,
    digest_at_end,
    hears,
    listen_only,
    nobody,
    refuses,
    sha256,
    speak_and_close,
    steady,
    target,
    told,
)
from tunnelconsole.engine import limits
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ChannelClosed, PeerRefused, ServiceFailed, SessionOpened, TargetFailed
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import HostPort, NetworkPattern, Secret
from tunnelconsole.engine.units import Duration, Rate
from tunnelconsole.engine.wire.socks5 import Reply
from waiting import until

NO = b"\x01"
CHALLENGE = framed(b"a" * 32)
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
BRIEF = LimitSettings(handshake_timeout=Duration(0.3))


async def connect_by_http(address: str, where: object, payload: bytes = b"") -> bytes:
    """Sends a CONNECT request and what is to follow it, then the end; returns all that comes back."""
    async with calling(address) as caller:
        return await caller.exchange(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode() + payload)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_socks_leads_to_a_target_by_ipv4_address_and_by_name(host: str) -> None:
    async with office() as at, at.by_socks(host) as caller:
        assert await caller.exchange(b"ping") == b"ping"


async def test_socks_leads_to_a_target_by_ipv6_address() -> None:
    async with target(host="::1") as far, office() as at, at.by_socks("::1", far.address.port) as caller:
        assert await caller.exchange(b"ping") == b"ping"


async def test_a_name_is_left_for_the_server_to_look_up() -> None:
    async with office() as at, at.by_socks("localhost"):
        (channel,) = at.home.engine.node.sessions.channels.values()
        assert channel.label == f"localhost:{at.far.port}"


async def test_http_connect_leads_to_a_target() -> None:
    async with office(proxy="http") as at:
        assert await connect_by_http(at.address, at.far, BULK) == CONNECTED + BULK


async def test_a_fixed_target_needs_no_word_from_the_program() -> None:
    async with office(speak_and_close, target=True) as at, at.calling() as caller:
        assert await caller.read_to_end() == b"hello"


@pytest.mark.parametrize("proxy", ["socks5", "http", "fixed"])
async def test_bulk_goes_both_ways_and_is_counted_to_the_byte(proxy: str) -> None:
    changes: dict[str, Any] = {"target": True} if proxy == "fixed" else {"proxy": proxy}
    async with office(**changes) as at:
        if proxy == "http":
            assert await connect_by_http(at.address, at.far, BULK) == CONNECTED + BULK
        else:
            async with at.calling() as caller:
                if proxy == "socks5":
                    assert await socks(caller, at.far.host, at.far.port) == Reply.SUCCEEDED
                assert await caller.exchange(BULK) == BULK
        closed = await hears(at.engine, ChannelClosed)
        assert (closed.label, closed.bytes_in, closed.bytes_out) == (str(at.far), len(BULK), len(BULK))


async def test_a_program_that_says_all_at_once_and_closes_its_side_gets_its_answer() -> None:
    async with office(digest_at_end) as at, at.calling() as caller:
        answer = await caller.exchange(b"\x05\x01\x00" + socks_request(at.far.host, at.far.port) + BULK)
        assert answer == b"\x05\x00" + b"\x05\x00\x00\x01\0\0\0\0\0\0" + sha256(BULK)


async def test_the_targets_half_close_reaches_the_program_who_can_still_speak() -> None:
    async with office(speak_and_close) as at, at.by_socks() as caller:
        assert await caller.read_to_end() == b"hello"
        await caller.send(b"still here")
        assert at.home.far.open == 1


async def test_a_socks_request_one_byte_at_a_time_works() -> None:
    async with office() as at, at.calling() as caller:
        for byte in b"\x05\x01\x00" + socks_request(at.far.host, at.far.port):
            await caller.send(bytes([byte]))
        assert await caller.read(2) == b"\x05\x00"
        assert await read_reply(caller) == Reply.SUCCEEDED
        assert await caller.exchange(b"ping") == b"ping"


@pytest.mark.usefixtures("all_told")
@pytest.mark.parametrize(
    ("proxy", "request_text"),
    [("socks5", b"\x05\x01\x00" + socks_request("localhost", 80)), ("http", b"CONNECT a:1 HTTP/1.1\r\n\r\n")],
    ids=["socks5", "http"],
)
async def test_a_request_cut_at_any_byte_is_an_event_and_disturbs_nobody(proxy: str, request_text: bytes) -> None:
    async with office(proxy=proxy) as at:
        for length in range(len(request_text)):
            async with at.calling() as caller:
                await caller.send(request_text[:length])
                caller.half_close()
                await caller.read_to_end()
        await until(lambda: len(told(at.engine, PeerRefused)) == len(request_text))
        assert all("the client closed before" in event.reason for event in told(at.engine, PeerRefused))
        assert not told(at.home.engine, SessionOpened)


async def test_a_request_that_takes_too_long_is_ended_with_an_event() -> None:
    async with office(limits=BRIEF) as at:
        async with at.calling() as caller:
            await caller.send(b"\x05")
            assert await caller.read_to_end() == b""
        await hears(at.engine, PeerRefused, "it did not say where to go within 0.3 s")


@pytest.mark.parametrize(
    ("proxy", "garbage", "answer", "reason"),
    [
        ("socks5", b"GET / HTTP/1.1\r\n\r\n", b"", "speaks HTTP"),
        ("socks5", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"", "speaks SOCKS4"),
        ("socks5", b"\x16\x03\x01\x02\x00", b"", "speaks TLS"),
        ("socks5", bytes(600), b"", "unknown protocol"),
        ("socks5", b"\x05\x01\x02", b"\x05\xff", "without authentication"),
        ("socks5", b"\x05\x01\x00\x05\x02\x00", b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0", "command 2"),
        ("socks5", b"\x05\x01\x00\x05\x01\x00\x09\x01", b"\x05\x00\x05\x08\x00\x01\0\0\0\0\0\0", "address type 9"),
        ("http", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 405 ", "for CONNECT only"),
        ("http", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 ", "bad target"),
        ("http", b"\xff\xfe\r\n\r\n", b"HTTP/1.1 400 ", "not valid HTTP"),
        ("http", b"CONNECT a:1 HTTP/1.1\r\nX: " + b"a" * 20_000, b"HTTP/1.1 431 ", "more than 16384 bytes"),
        ("http", b"\x05\x01\x00", b"", "speaks SOCKS5"),
    ],
)
async def test_garbage_gets_the_answer_its_protocol_has_and_is_an_event(
    proxy: str, garbage: bytes, answer: bytes, reason: str
) -> None:
    async with office(proxy=proxy) as at:
        async with at.calling() as caller:
            await caller.send(garbage)
            said = await caller.read_to_end()
            assert said.startswith(answer) if answer else said == b""
        await hears(at.engine, PeerRefused, reason)
        assert not told(at.home.engine, SessionOpened)


REFUSALS = [
    ("dial tcp 127.0.0.1:1: connect: connection refused", Reply.CONNECTION_REFUSED, 502),
    ("dial tcp 10.0.0.1:80: not allowed here", Reply.NOT_ALLOWED, 403),
    ("dial tcp: lookup a.example on 127.0.0.53:53: no such host", Reply.HOST_UNREACHABLE, 502),
    ("dial tcp: lookup refused.timeout.example: no such host", Reply.HOST_UNREACHABLE, 502),
    ("dial tcp 10.0.0.1:80: connect: no route to host", Reply.HOST_UNREACHABLE, 502),
    ("dial tcp 10.0.0.1:80: connect: network is unreachable", Reply.NETWORK_UNREACHABLE, 502),
    ("dial tcp 10.0.0.1:80: i/o timeout", Reply.HOST_UNREACHABLE, 504),
    ("dial tcp 10.0.0.1:80: connect: connection timed out", Reply.HOST_UNREACHABLE, 504),
    ("the limit of 1 sessions is reached", Reply.GENERAL_FAILURE, 502),
]


@pytest.mark.parametrize(("reason", "reply"), [(reason, reply) for reason, reply, _ in REFUSALS])
async def test_socks_tells_the_program_why_the_server_would_not_dial(reason: str, reply: Reply) -> None:
    async with (
        scripted_server(CHALLENGE, YES, NO + framed(reason.encode())) as server,
        office_at(server.address) as (engine, address),
        calling(address) as caller,
    ):
        assert await socks(caller, "a.example", 80) == reply
        assert await caller.read_to_end() == b""
        event = await hears(engine, TargetFailed, reason)
        assert (event.peer, event.target) == (caller.name, "a.example:80")


@pytest.mark.parametrize(("reason", "status"), [(reason, status) for reason, _, status in REFUSALS])
async def test_http_tells_the_program_why_the_server_would_not_dial(reason: str, status: int) -> None:
    async with (
        scripted_server(CHALLENGE, YES, NO + framed(reason.encode())) as server,
        office_at(server.address, proxy="http") as (engine, address),
    ):
        answer = await connect_by_http(address, "a.example:80")
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert answer.endswith(f"\r\n\r\n{reason}\n".encode())
        await hears(engine, TargetFailed, reason)


async def test_a_server_that_refuses_a_target_without_a_reason_has_refused_it_and_not_broken_off() -> None:
    async with (
        scripted_server(CHALLENGE, YES, NO) as server,
        office_at(server.address, proxy="http") as (engine, address),
    ):
        answer = await connect_by_http(address, "a.example:80")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert answer.endswith(b"would not dial the target, and gave no reason\n")
        event = await hears(engine, TargetFailed, "gave no reason")
        assert "is there a jump server" not in event.text()


async def test_a_program_that_comes_for_a_fixed_target_which_refuses_is_reset() -> None:
    async with home() as at, office_at(at.address, target=nobody()) as (engine, address):
        async with calling(address) as caller:
            assert await caller.broken()
        await hears(engine, TargetFailed, "connection refused")


async def test_while_the_server_cannot_be_reached_each_program_is_told_and_later_ones_get_through() -> None:
    listen = steady()
    async with office_at(str(listen)) as (engine, address):
        async with calling(address) as caller:
            assert await socks(caller, "127.0.0.1", 80) == Reply.GENERAL_FAILURE
        await hears(engine, TargetFailed, str(listen))
        assert engine.services["office"].state == "listening"
        async with home(listen=listen) as at, calling(address) as caller:
            assert await socks(caller, at.far.address.host, at.far.address.port) == Reply.SUCCEEDED
            assert await caller.exchange(b"ping") == b"ping"


async def test_a_server_that_does_not_take_the_connection_is_given_up_in_time() -> None:
    with blackhole() as silent:
        async with office_at(silent, limits=BRIEF) as (engine, address), calling(address) as caller:
            assert await socks(caller, "127.0.0.1", 80) == Reply.HOST_UNREACHABLE
            await hears(
                engine, TargetFailed, f"cannot reach the jump server {silent}: the server did not answer within 0.3 s"
            )


async def test_a_server_that_is_silent_in_its_handshake_is_given_up_in_time() -> None:
    async with scripted_server(CHALLENGE, close=False) as server:
        async with office_at(server.address, limits=BRIEF) as (engine, address), calling(address) as caller:
            assert await socks(caller, "127.0.0.1", 80) == Reply.HOST_UNREACHABLE
            await hears(engine, TargetFailed, "did not finish its handshake within 0.3 s")
        await until(lambda: not server.open)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((b"",), "closed before its challenge"),
        ((CHALLENGE[:9],), "closed before its challenge"),
        ((CHALLENGE, b""), "closed before saying whether it accepts the secret"),
        ((CHALLENGE, NO), "closed after refusing the secret"),
        ((CHALLENGE, YES, b""), "closed before saying whether the target is connected"),
        ((CHALLENGE, YES, NO + b"\x09half"), "closed after refusing the target"),
        ((b"\x00",), "sent an empty challenge"),
        ((CHALLENGE, b"H"), "sent status 72"),
        ((CHALLENGE, YES, b"\x02"), "sent status 2"),
    ],
)
async def test_a_server_that_breaks_off_or_speaks_something_else_is_named_in_an_event(
    pieces: tuple[bytes, ...], reason: str
) -> None:
    async with scripted_server(*pieces) as server:
        async with office_at(server.address) as (engine, address), calling(address) as caller:
            assert await socks(caller, "127.0.0.1", 80) == Reply.GENERAL_FAILURE
            event = await hears(engine, TargetFailed, reason)
            assert f"is there a jump server at {server.address}?" in event.text()
        await until(lambda: not server.open)


async def test_what_the_target_says_in_the_same_read_as_the_servers_answer_is_delivered_first() -> None:
    async with (
        scripted_server(CHALLENGE, YES, YES + b"early ", b"and late") as server,
        office_at(server.address) as (_, address),
        calling(address) as caller,
    ):
        assert await socks(caller, "127.0.0.1", 80) == Reply.SUCCEEDED
        assert await caller.read(6) == b"early "
        assert await caller.exchange(b"go on") == b"and late"


async def test_a_refused_secret_is_final() -> None:
    async with home() as at, office_at(at.address, secret=Secret("wr0ng"), listen=steady()) as (engine, address):
        async with calling(address) as caller:
            assert await socks(caller, "127.0.0.1", 80) == Reply.GENERAL_FAILURE
        event = await hears(engine, ServiceFailed, "challenge failed, check secret")
        assert "wr0ng" not in event.text()
        assert engine.services["office"].state == "failed"
        await refuses(address)


async def test_the_server_can_be_dialled_at_another_address() -> None:
    async with home() as at:
        elsewhere = HostPort("no-such-host.invalid", 9527)
        async with office_at(elsewhere, connect=HostPort.parse(at.address)) as (_, address), calling(address) as caller:
            assert await socks(caller, at.far.address.host, at.far.address.port) == Reply.SUCCEEDED
            assert await caller.exchange(b"ping") == b"ping"


@pytest.mark.parametrize("limit", [{"sessions": 1}, {"channels": 1}], ids=["sessions", "channels"])
async def test_beyond_its_limit_a_program_is_turned_away_with_an_event(limit: dict[str, Any]) -> None:
    async with office(limits=LimitSettings(**limit)) as at, at.by_socks() as first:
        async with at.calling() as second:
            assert await second.read_to_end() == b""
        await hears(at.engine, PeerRefused, f"the limit of 1 {next(iter(limit))} is reached")
        assert await first.exchange(b"still here") == b"still here"


async def test_programs_that_ask_at_the_same_time_do_not_exceed_the_limit() -> None:
    async with office(limits=LimitSettings(sessions=1)) as at, at.calling() as one, at.calling() as two:
        for caller in (one, two):
            await caller.send(b"\x05\x01\x00")
            assert await caller.read(2) == b"\x05\x00"
        request = socks_request(at.far.host, at.far.port)
        await asyncio.gather(one.send(request), two.send(request))
        replies = await asyncio.gather(read_reply(one), read_reply(two))
        assert sorted(replies) == [Reply.SUCCEEDED, Reply.GENERAL_FAILURE]
        await hears(at.engine, TargetFailed, "the limit of 1 sessions is reached")


async def test_programs_from_elsewhere_can_be_kept_out() -> None:
    async with office(clients_deny=(NetworkPattern("127.0.0.2"),)) as at:
        async with at.calling(from_host="127.0.0.2") as stranger:
            assert await stranger.read_to_end() == b""
        await hears(at.engine, PeerRefused, "clients_deny")
        async with at.by_socks() as caller:
            assert await caller.exchange(b"ping") == b"ping"


async def test_a_silent_crowd_fills_the_places_for_requests_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 1)
    async with office() as at, at.by_socks() as bystander:
        async with at.calling(), at.calling() as second:
            assert await second.read_to_end() == b""
            await hears(at.engine, PeerRefused, "too many connections are inside their handshake")
            assert await bystander.exchange(b"still here") == b"still here"
        await until(lambda: not len(at.service.tasks))
        async with at.by_socks() as caller:
            assert await caller.exchange(b"ping") == b"ping"


async def test_a_crowd_from_one_address_keeps_no_program_elsewhere_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    async with office() as at, at.calling("127.0.0.2") as oldest, at.calling("127.0.0.2"):
        await until(lambda: len(at.service.tasks) == 2)
        async with at.by_socks() as caller:
            assert await caller.exchange(b"ping") == b"ping"
        await oldest.broken()
        event = await hears(at.engine, PeerRefused, "its place is given to others")
        assert event.peer == oldest.name


async def test_a_rate_holds_a_transfer_back_and_loses_nothing() -> None:
    rate, size, loop = 2_000_000, 1_000_000, asyncio.get_running_loop()
    async with office(digest_at_end, limits=LimitSettings(rate=Rate(rate))) as at, at.by_socks() as caller:
        began = loop.time()
        assert await caller.exchange(BULK[:size]) == sha256(BULK[:size])
        burst, last_read = rate / 4, 65536
        assert loop.time() - began >= (size - burst - last_read) / rate


async def test_the_targets_reset_becomes_a_reset_for_the_program() -> None:
    async with office(listen_only) as at, at.by_socks() as caller:
        await until(lambda: at.home.far.open)
        at.home.far.reset_all()
        assert await caller.broken()


async def test_the_programs_reset_closes_its_target() -> None:
    async with office(listen_only) as at, at.by_socks() as caller:
        await until(lambda: at.home.far.open)
        caller.reset()
        await until(lambda: not at.home.far.open)


async def test_a_server_that_stops_breaks_its_channels_and_later_programs_are_told() -> None:
    async with office() as at, at.by_socks() as caller:
        await at.home.engine.stop_service("home")
        assert await caller.broken()
        async with at.calling() as late:
            assert await socks(late, "127.0.0.1", 80) == Reply.GENERAL_FAILURE
        assert at.service.state == "listening"


async def test_a_stopped_client_cuts_its_channels_and_those_still_asking() -> None:
    async with office(listen_only) as at, at.by_socks() as piped, at.calling() as asking:
        await until(lambda: at.home.far.open and len(at.service.tasks))
        await at.engine.stop_service("office")
        assert await piped.broken()
        assert await asking.broken()
        await until(lambda: not at.home.far.open)
        assert not at.engine.node.sessions.sessions


async def test_while_the_engine_drains_a_channel_finishes_and_nobody_new_is_taken() -> None:
    async with home() as at:
        engine = Engine({"office": jump_client(at.address, listen=steady())})
        await engine.start()
        await engine.settled()
        address = address_of(engine, "office")
        async with calling(address) as piped, calling(address) as asking:
            assert await socks(piped, at.far.address.host, at.far.address.port) == Reply.SUCCEEDED
            await until(lambda: len(engine.services["office"].tasks))

            async def finish() -> None:
                assert await asking.broken()
                await refuses(address)
                assert await piped.exchange(BULK) == BULK

            await asyncio.gather(engine.stop(drain=30.0), finish())
        assert [event.cause for event in told(engine, ChannelClosed)] == [""]


async def test_many_programs_at_once_are_all_served() -> None:
    async with office() as at:

        async def one(size: int) -> bool:
            async with at.by_socks() as caller:
                return await caller.exchange(BULK[:size]) == BULK[:size]

        assert all(await asyncio.gather(*map(one, range(1000, 1100))))
        await until(lambda: not at.service.attached and not at.home.service.attached)


def test_a_fixed_target_and_a_proxy_exclude_each_other_and_a_secret_is_needed() -> None:
    both = jump_client("a:1", proxy="http", target=HostPort("a", 1))
    assert [key for key, _ in both.problems()] == ["target"]
    assert [key for key, _ in jump_client("a:1", secret=Secret("")).problems()] == ["secret"]
    assert not jump_client("a:1").problems()
