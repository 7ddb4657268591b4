"""The jump server's handshake and its channels, with raw clients on real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from jump_peers import SECRET, YES, ask, framed, home, jump_server, proof, read_frame, through
from loopback import (
    BULK,
    digest_at_end,
    hears,
    listen_only,
    nobody,
    open_descriptors,
    refuses,
    running,
    sha256,
    speak_and_close,
    steady,
    target,
    told,
)
from tunnelconsole.engine import limits
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ChannelClosed,
    PeerRefused,
    ServiceRetrying,
    SessionClosed,
    SessionOpened,
    TargetFailed,
)
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import ListenAddress, NetworkPattern, Secret
from tunnelconsole.engine.units import Duration, Rate
from waiting import until

ALICE, BOB = Secret("alice's"), Secret("bob's")
CHALLENGE_FAILED = "challenge failed, check secret"
REFUSAL = b"\x01" + framed(CHALLENGE_FAILED.encode())


async def test_a_client_is_led_to_its_target_and_its_half_close_is_passed_on() -> None:
    async with home(digest_at_end) as at, at.through() as caller:
        assert await caller.exchange(BULK) == sha256(BULK)


async def test_the_targets_half_close_reaches_the_client_who_can_still_speak() -> None:
    async with home(speak_and_close) as at, at.through() as caller:
        assert await caller.read_to_end() == b"hello"
        await caller.send(b"still here")
        assert at.far.open == 1
        assert len(at.engine.node.sessions.channels) == 1


async def test_bulk_goes_both_ways_at_once_and_is_counted_to_the_byte() -> None:
    async with home() as at:
        async with at.through() as caller:
            assert await caller.exchange(BULK) == BULK
        closed = await hears(at.engine, ChannelClosed)
        assert (closed.bytes_in, closed.bytes_out, closed.cause) == (len(BULK), len(BULK), "")


async def test_payload_that_comes_in_the_same_read_as_the_target_is_delivered_first() -> None:
    async with home() as at:
        async with at.calling() as caller:
            await caller.send(await proof(caller) + framed(str(at.far.address).encode()) + b"early ")
            assert await caller.read(2) == YES + YES
            assert await caller.exchange(b"and late") == b"early and late"
        closed = await hears(at.engine, ChannelClosed)
        assert (closed.bytes_in, closed.bytes_out) == (14, 14)


async def test_a_client_that_says_all_and_closes_its_side_at_once_gets_its_answer() -> None:
    async with home(digest_at_end) as at, at.calling() as caller:
        await caller.send(await proof(caller) + framed(str(at.far.address).encode()) + BULK)
        caller.half_close()
        assert await caller.read_to_end() == YES + YES + sha256(BULK)


async def test_a_handshake_one_byte_at_a_time_works() -> None:
    async with home() as at, at.calling() as caller:
        for byte in await proof(caller):
            await caller.send(bytes([byte]))
        assert await caller.read(1) == YES
        for byte in framed(str(at.far.address).encode()):
            await caller.send(bytes([byte]))
        assert await caller.read(1) == YES
        assert await caller.exchange(b"ping") == b"ping"


@pytest.mark.usefixtures("all_told")
async def test_a_handshake_cut_at_any_byte_is_an_event_and_disturbs_nobody() -> None:
    async with home() as at:
        whole = 1 + 20 + 1 + len(str(at.far.address))
        async with at.through() as bystander:
            for length in range(whole):
                async with at.calling() as caller:
                    said = await proof(caller) + framed(str(at.far.address).encode())
                    await caller.send(said[:length])
                    caller.half_close()
                    assert await caller.read_to_end() == (YES if length >= 21 else b"")
            assert await bystander.exchange(b"still here") == b"still here"
        reasons = [event.reason for event in told(at.engine, PeerRefused)]
        assert reasons[:21] == ["the client closed before answering the challenge"] * 21
        assert reasons[21:] == ["the client closed before naming its target"] * (whole - 21)
        assert at.far.served == 1


async def test_a_reset_inside_the_handshake_is_an_event() -> None:
    async with home() as at, at.calling() as caller:
        await caller.send((await proof(caller))[:7])
        caller.reset()
        await hears(at.engine, PeerRefused, "it broke off during the handshake")


async def test_what_came_with_a_proof_is_not_acted_upon_when_the_answer_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_end: object, _data: bytes) -> int:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    async with home() as at:
        async with at.calling() as caller:
            pipelined = await proof(caller) + framed(str(at.far.address).encode())
            monkeypatch.setattr("tunnelconsole.engine.transport.ends.SocketEnd.send", broken)
            await caller.send(pipelined)
            assert await caller.read_to_end() == b""
        assert [event.peer for event in told(at.engine, PeerRefused)] == [caller.name]
        assert not told(at.engine, TargetFailed)
        assert not at.far.served


async def test_a_handshake_that_takes_too_long_is_ended_with_an_event() -> None:
    async with home(limits=LimitSettings(handshake_timeout=Duration(0.1))) as at:
        async with at.calling() as caller:
            await caller.send((await proof(caller))[:3])
            assert await caller.read_to_end() == b""
        await hears(at.engine, PeerRefused, "no handshake within 0.1 s")


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 20, "wrong secret"),
        (b"\xff" * 4096, "wrong secret"),
        (bytes(300), "wrong secret"),
        (b"\x16\x03\x01\x02\x00\x01" * 64, "it spoke TLS to a listener without it; set [service.home.tls]"),
    ],
    ids=["http", "ones", "zeros", "tls"],
)
async def test_garbage_counts_as_a_wrong_secret(garbage: bytes, reason: str) -> None:
    async with home() as at:
        async with at.calling() as caller:
            await read_frame(caller)
            await caller.send(garbage)
            assert await caller.read_to_end() == REFUSAL
        await hears(at.engine, PeerRefused, reason)
        await at.serves()


async def test_a_wrong_secret_is_told_in_the_originals_words_and_is_an_event_without_the_secret() -> None:
    async with home() as at:
        async with at.calling() as caller:
            assert await ask(caller, at.far.address, "wr0ng") == CHALLENGE_FAILED
            assert await caller.read_to_end() == b""
        event = await hears(at.engine, PeerRefused, "wrong secret")
        assert event.peer == caller.name
        assert "wr0ng" not in event.text()
        assert SECRET not in event.text()
        assert not at.far.served


async def test_a_refused_client_that_goes_on_sending_still_reads_its_refusal() -> None:
    async with home() as at, at.calling() as caller:
        await read_frame(caller)
        await caller.send(framed(bytes(20)) + bytes(200_000))
        assert await caller.read_to_end() == REFUSAL


async def test_each_secret_has_its_identity() -> None:
    async with home(secrets={"alice": ALICE, "bob": BOB}) as at:
        for secret in (ALICE, BOB, SECRET):
            async with at.through(secret=secret):
                pass
        async with at.calling() as caller:
            assert await ask(caller, at.far.address, "carol's") == CHALLENGE_FAILED
        assert [event.identity for event in told(at.engine, SessionOpened)] == ["alice", "bob", "anonymous"]


async def test_a_session_shows_its_peer_identity_target_and_bytes_while_it_lasts() -> None:
    async with home(secret=None, secrets={"alice": ALICE}) as at:
        async with at.through(secret=ALICE) as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            (session,) = at.engine.node.sessions.sessions.values()
            (channel,) = at.engine.node.sessions.channels.values()
            assert (session.peer, session.identity, session.kind) == (caller.name, "alice", "jump-server")
            assert (channel.label, channel.flow.bytes_in, channel.flow.bytes_out) == (str(at.far.address), 4, 4)
        closed = await hears(at.engine, SessionClosed)
        assert (closed.bytes_in, closed.bytes_out) == (4, 4)


@pytest.mark.parametrize("limit", [{"sessions": 1}, {"channels": 1}], ids=["sessions", "channels"])
async def test_beyond_its_limit_a_newcomer_is_refused_with_the_reason_until_one_leaves(limit: dict[str, Any]) -> None:
    reason = f"the limit of 1 {next(iter(limit))} is reached"
    async with home(limits=LimitSettings(**limit)) as at:
        async with at.through() as first, at.calling() as second:
            assert await ask(second, at.far.address) == reason
            await hears(at.engine, TargetFailed, reason)
            assert await first.exchange(b"still here") == b"still here"
        await until(lambda: not at.engine.node.sessions.sessions)
        await at.serves()


@pytest.mark.parametrize(
    "changes",
    [{"clients_allow": (NetworkPattern("127.0.0.1"),)}, {"clients_deny": (NetworkPattern("127.0.0.2/32"),)}],
    ids=["allow", "deny"],
)
async def test_a_client_from_a_network_that_is_not_let_in_hears_nothing_and_is_an_event(
    changes: dict[str, Any],
) -> None:
    async with home(**changes) as at:
        async with at.calling(from_host="127.0.0.2") as stranger:
            assert await stranger.read_to_end() == b""
        event = await hears(at.engine, PeerRefused, "clients_allow")
        assert event.peer == stranger.name
        await at.serves()


async def test_a_silent_crowd_fills_the_places_for_handshakes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    async with home() as at, at.through() as bystander:
        async with at.calling() as one, at.calling() as two:
            await read_frame(one)
            await read_frame(two)
            async with at.calling() as third:
                assert await third.read_to_end() == b""
            await hears(at.engine, PeerRefused, "too many connections are inside their handshake")
            assert await bystander.exchange(b"still here") == b"still here"
        await until(lambda: not at.service.admissions)
        await at.serves()


async def test_a_crowd_from_one_address_keeps_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    async with home() as at, at.calling() as oldest, at.calling() as newer:
        await read_frame(oldest)
        async with at.calling(from_host="127.0.0.2") as other:
            assert await oldest.read_to_end() == b""
            assert not await ask(other, at.far.address)
            assert await other.exchange(b"ping") == b"ping"
        event = await hears(at.engine, PeerRefused, "its place is given to others")
        assert event.peer == oldest.name
        assert not await ask(newer, at.far.address)


@pytest.mark.parametrize("ending", ["connected", "wrong secret", "bad target", "refused", "denied", "cut", "reset"])
async def test_each_way_out_of_the_handshake_gives_its_place_back(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 1)
    async with home() as at:
        for _ in range(3):
            async with at.calling() as caller:
                match ending:
                    case "connected":
                        assert not await ask(caller, at.far.address)
                    case "wrong secret":
                        assert await ask(caller, at.far.address, "wrong")
                    case "bad target":
                        assert await ask(caller, "nonsense")
                    case "refused":
                        assert await ask(caller, str(nobody()))
                    case "denied":
                        assert await ask(caller, "10.0.0.1:80")
                    case "cut":
                        await caller.send((await proof(caller))[:5])
                        caller.half_close()
                        assert await caller.read_to_end() == b""
                    case "reset":
                        await read_frame(caller)
                        caller.reset()
            await until(lambda: not at.service.admissions)
        await at.serves()
        assert not any("too many" in event.reason for event in told(at.engine, PeerRefused))


async def test_an_idle_channel_is_cut_with_a_reset_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.ticking.TICK", 0.02)
    async with home(listen_only, limits=LimitSettings(idle_timeout=Duration(0.1))) as at:
        async with at.through() as caller:
            assert await caller.broken()
        await hears(at.engine, ChannelClosed, "idle for 0.1 s")
        await until(lambda: not at.far.open)


async def test_a_rate_holds_a_transfer_back_and_loses_nothing() -> None:
    rate, size, loop = 2_000_000, 1_000_000, asyncio.get_running_loop()
    async with home(digest_at_end, limits=LimitSettings(rate=Rate(rate))) as at, at.through() as caller:
        began = loop.time()
        assert await caller.exchange(BULK[:size]) == sha256(BULK[:size])
        burst, last_read = rate / 4, 65536
        assert loop.time() - began >= (size - burst - last_read) / rate


async def test_the_targets_reset_becomes_a_reset_for_the_client() -> None:
    async with home(listen_only) as at:
        async with at.through() as caller:
            await until(lambda: at.far.open)
            at.far.reset_all()
            assert await caller.broken()
        await hears(at.engine, ChannelClosed, "target: connection reset")


async def test_the_clients_reset_closes_its_target() -> None:
    async with home(listen_only) as at, at.through() as caller:
        await until(lambda: at.far.open)
        caller.reset()
        await until(lambda: not at.far.open)
        await hears(at.engine, ChannelClosed, "client: connection reset")


async def test_a_kicked_session_is_cut_both_ways_and_others_go_on() -> None:
    async with home() as at, at.through() as kicked, at.through() as bystander:
        session = next(session for session in at.service.attached if session.peer == kicked.name)
        at.engine.kick(session.id)
        assert await kicked.broken()
        await hears(at.engine, SessionClosed, "kicked by an operator")
        await until(lambda: at.far.open == 1)
        assert await bystander.exchange(b"still here") == b"still here"


async def test_one_who_does_not_read_stalls_nobody_else() -> None:
    async with home() as at, at.through() as stalled, at.through() as other:
        flooding = asyncio.gather(stalled.send(BULK * 4), return_exceptions=True)
        assert await other.exchange(BULK) == BULK
        stalled.reset()
        await flooding


async def test_many_newcomers_at_once_are_all_served_and_counted() -> None:
    sizes = range(1000, 1100)
    async with home() as at:

        async def one(size: int) -> bool:
            async with at.through() as caller:
                return await caller.exchange(BULK[:size]) == BULK[:size]

        assert all(await asyncio.gather(*map(one, sizes)))
        await until(lambda: not at.service.attached)
        assert at.engine.node.meters.totals()["home"] == (sum(sizes), sum(sizes))


async def test_refused_newcomers_leave_no_descriptor_open() -> None:
    async with home() as at:
        before = open_descriptors()

        async def one() -> None:
            async with at.calling() as caller:
                assert await ask(caller, at.far.address, "wrong")

        await asyncio.gather(*(one() for _ in range(50)))
        await until(lambda: open_descriptors() == before)


async def test_a_stopped_service_cuts_its_sessions_and_turns_away_those_in_their_handshake() -> None:
    async with home(listen_only, listen=steady()) as at, at.through() as piped, at.calling() as greeting:
        await read_frame(greeting)
        await at.engine.stop_service("home")
        assert await piped.broken()
        assert await greeting.broken()
        await until(lambda: not at.far.open)
        assert not at.engine.node.sessions.sessions
        await refuses(at.address)


async def test_while_the_engine_drains_a_channel_finishes_and_newcomers_are_not_taken() -> None:
    async with target() as far:
        engine = Engine({"home": jump_server(listen=steady())})
        await engine.start()
        await engine.settled()
        server = str(engine.services["home"].address)
        async with through(server, far.address) as caller:

            async def finish() -> None:
                await until(lambda: engine.draining)
                await refuses(server)
                assert await caller.exchange(BULK) == BULK

            await asyncio.gather(engine.stop(drain=30.0), finish())
        assert [event.cause for event in told(engine, ChannelClosed)] == [""]


async def test_a_port_in_use_is_told_with_what_to_do_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(home=jump_server(listen=ListenAddress("127.0.0.1", port))) as engine:
            event = await hears(engine, ServiceRetrying, f"cannot listen on 127.0.0.1:{port}")
            assert "stop it or choose another port" in event.error
            assert engine.services["home"].state == "backoff"


def test_a_server_without_a_secret_or_with_an_empty_one_cannot_be_configured() -> None:
    assert [key for key, _ in jump_server(secret=None).problems()] == ["secret"]
    assert [key for key, _ in jump_server(secret=Secret("")).problems()] == ["secret"]
    assert [key for key, _ in jump_server(secrets={"alice": Secret("")}).problems()] == ["secrets.alice"]
