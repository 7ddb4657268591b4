"""The channel client: a chid bridged to what it dials, or to who connects, as often as either comes and goes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from channel_client_peers import channel_client, desk, ends, ends_at, hand_made_hub, laptop
from channel_peers import hub
from loopback import (
    BULK,
    FREE,
    Target,
    address_of,
    blackhole,
    calling,
    echo,
    hears,
    listen_only,
    nobody,
    refuses,
    running,
    steady,
    target,
    told,
)
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    ChannelClosed,
    PeerRefused,
    ServiceConnected,
    ServiceFailed,
    ServiceListening,
    ServiceRetrying,
    TargetFailed,
)
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.channel import bridge, client
from tunnelconsole.engine.settings import Fingerprint, HostPort, NetworkPattern, Secret, TLSSettings
from tunnelconsole.engine.units import Duration, Rate
from waiting import until

BRIEF = LimitSettings(handshake_timeout=Duration(0.3))


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for silence, or between two tries."""
    monkeypatch.setattr(bridge, "SILENCE", 0.2)
    monkeypatch.setattr(bridge, "SHORT_SILENCE", 0.05)
    monkeypatch.setattr(Backoff, "next", lambda _self, _longest=0.0: 0.05)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_bulk_goes_both_ways_and_is_counted_to_the_byte(tls: bool) -> None:
    async with hub(tls=TLSSettings() if tls else None) as at:
        pinned = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"])) if tls else None
        async with ends_at(at.address, tls=pinned) as both:
            async with both.calling() as caller:
                _, received = await asyncio.gather(caller.send(BULK), caller.read(len(BULK)))
                assert received == BULK
                paths = {channel.flow.path for channel in both.engine.node.sessions.channels.values()}
                assert paths == ({"tls"} if tls else {"splice"})
            closed = await hears(both.engine, ChannelClosed, "laptop -> desk")
            assert (closed.bytes_in, closed.bytes_out) == (len(BULK), len(BULK))


async def test_a_rate_holds_a_transfer_back_and_loses_nothing() -> None:
    rate, size, loop = 2_000_000, 1_000_000, asyncio.get_running_loop()
    async with ends(laptop_changes={"limits": LimitSettings(rate=Rate(rate))}) as (both, _), both.calling() as caller:
        began = loop.time()
        _, received = await asyncio.gather(caller.send(BULK[:size]), caller.read(size))
        assert received == BULK[:size]
        burst, last_read = rate / 4, 65536
        assert loop.time() - began >= (2 * size - burst - 2 * last_read) / rate


async def test_what_is_answered_after_the_program_has_closed_its_sending_side_still_comes() -> None:
    async def answer_when_told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == b"question"
        writer.write(b"answer")
        await reader.read()

    async with ends(answer_when_told) as (both, _), both.calling() as caller:
        assert await caller.exchange(b"question") == b"answer"


async def test_a_local_end_that_has_gone_is_followed_by_the_next_over_the_same_connection() -> None:
    async with ends() as (both, at):
        for _ in range(3):
            await both.serves()
        assert len(told(both.engine, ServiceConnected)) == 2
        assert sorted(at.chids) == ["desk", "laptop"]


async def test_a_program_that_breaks_off_disturbs_nobody() -> None:
    async with ends() as (both, _):
        async with both.calling() as caller:
            await caller.send(b"half a")
            caller.reset()
        await hears(both.engine, ChannelClosed, "the local end broke off")
        async with both.calling() as caller:
            assert await caller.read(6) == b"half a"  # what the target had answered: nothing tells whose it was
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"


async def test_what_comes_while_no_program_is_there_waits_for_one() -> None:
    async with hub() as at, running(laptop=laptop(at.address)) as engine, at.client("desk", ["laptop"]) as other:
        await other.send(b"early")
        async with calling(address_of(engine, "laptop")) as caller:
            assert await caller.read(5) == b"early"


async def test_the_target_is_dialled_again_when_it_ends() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")

    async with (
        hub(hold=1024) as at,
        target(greet) as far,
        running(desk=desk(at.address, far.address)),
        at.client("laptop", ["desk"]) as other,
    ):
        assert await other.read(18) == b"hello " * 3


async def test_a_target_that_waits_for_data_is_dialled_when_some_comes() -> None:
    async with ends(desk_changes={"dial": "on-data"}) as (both, _):
        async with both.calling() as caller:
            assert both.far.served == 0
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
        assert both.far.served == 1


@pytest.mark.parametrize("dial", ["at-once", "on-data"])
async def test_a_target_that_is_not_there_is_told_and_dialled_until_it_is_and_nothing_is_lost(dial: str) -> None:
    listen = steady()
    where = HostPort(listen.host, listen.port)
    async with (
        hub() as at,
        running(desk=desk(at.address, where, dial=dial)) as engine,
        at.client("laptop", ["desk"]) as other,
    ):
        await other.send(b"early")
        event = await hears(engine, TargetFailed, "connection refused")
        assert (event.target, event.peer) == (str(where), "desk -> laptop")
        assert engine.services["desk"].state == "connected"
        server = await asyncio.start_server(Target(echo).serve, listen.host, listen.port)
        try:
            assert await other.read(5) == b"early"
        finally:
            server.close()


async def test_programs_take_turns() -> None:
    async with ends() as (both, _), both.calling() as first, both.calling() as second:
        for caller in (first, second):
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            await caller.close()


async def test_a_program_that_waits_too_long_for_its_turn_is_told_off_with_an_event() -> None:
    async with ends(laptop_changes={"limits": BRIEF}) as (both, _), both.calling() as first:
        await first.send(b"ping")
        assert await first.read(4) == b"ping"
        async with both.calling() as second:
            assert await second.broken()
        await hears(both.engine, PeerRefused, "it has waited 0.3 s for its turn: another program has the channel")
        await first.send(b"still here")
        assert await first.read(10) == b"still here"


async def test_a_program_that_comes_while_the_server_is_away_waits_and_is_told_off_with_an_event() -> None:
    async with running(laptop=laptop(nobody(), limits=BRIEF)) as engine:
        async with calling(_listening(engine)) as caller:
            assert await caller.broken()
        await hears(engine, PeerRefused, "the channel server is not connected")


async def test_only_so_many_programs_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_WAITING", 1)
    async with ends() as (both, _), both.calling() as first:
        await first.send(b"ping")
        assert await first.read(4) == b"ping"
        async with both.calling(), both.calling() as third:
            assert await third.read_to_end() == b""
            await hears(both.engine, PeerRefused, "1 programs wait for their turn already")


async def test_programs_from_elsewhere_can_be_kept_out() -> None:
    async with ends(laptop_changes={"clients_deny": (NetworkPattern("127.0.0.2"),)}) as (both, _):
        async with calling(both.address, from_host="127.0.0.2") as stranger:
            assert await stranger.read_to_end() == b""
        await hears(both.engine, PeerRefused, "clients_deny")
        await both.serves()


async def test_a_channel_that_is_idle_too_long_is_cut() -> None:
    idle = LimitSettings(idle_timeout=Duration(0.5))
    async with ends(laptop_changes={"limits": idle}) as (both, _), both.calling() as caller:
        assert await caller.broken()
        await hears(both.engine, ChannelClosed, "idle for 0.5 s")


async def test_a_kicked_local_end_is_cut_and_the_next_one_is_served() -> None:
    async with ends() as (both, _):
        async with both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            (session,) = both.engine.services["laptop"].attached
            session.end("kicked")
            assert await caller.broken()
        await both.serves()


# The server


async def test_a_server_that_goes_takes_the_local_ends_with_it_and_is_joined_again_when_it_is_back() -> None:
    listen = steady()
    async with ends_at(f"127.0.0.1:{listen.port}") as both, AsyncExitStack() as stack:
        address = ""
        for _ in range(2):
            async with hub(listen=listen):
                await until(lambda: {each.state for each in both.engine.services.values()} == {"connected"})
                assert address in ("", both.address)
                address = both.address
                caller = await stack.enter_async_context(calling(address))
                await caller.send(b"ping")
                assert await caller.read(4) == b"ping"
            assert await caller.broken()
            await until(lambda: not both.far.open)
        await hears(both.engine, ServiceRetrying, f"127.0.0.1:{listen.port}: the ")


async def test_a_server_that_refuses_is_told_with_its_reason_and_asked_again() -> None:
    async with (
        hand_made_hub(refusal="chid desk is taken") as made,
        running(desk=desk(made.address, nobody())) as engine,
    ):
        await hears(engine, ServiceRetrying, "the channel server did not let us in: chid desk is taken")
        await until(lambda: len(made.asked) >= 2)


async def test_it_asks_the_server_for_what_it_is_set_to() -> None:
    async with hand_made_hub() as made:
        settings = channel_client(made.address, chid="a", receivers=("b", "c"), timeout=Duration(90))
        async with running(a=settings):
            await made.guest()
            assert made.asked == [{"req": "hs1", "chid": "a"}, {"req": "hs3", "recvers": ["b", "c"], "timeout": 90}]


async def test_a_chid_that_the_server_made_is_asked_for_when_it_joins_again() -> None:
    async with hand_made_hub() as made, running(anybody=channel_client(made.address)) as engine:
        (await made.guest()).writer.close()
        await made.guest(1)
        assert [line["chid"] for line in made.asked if line["req"] == "hs1"] == ["", "made-up"]
        assert engine.services["anybody"].notes["chid"] == "made-up"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_server_that_closes_who_has_been_idle_for_long_is_joined_again_without_a_word(
    reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STABLE_AFTER", 0.0)
    async with hand_made_hub() as made, running(laptop=laptop(made.address)) as engine:
        guest = await made.guest()
        await until(lambda: engine.services["laptop"].state == "connected")
        if reset:
            guest.writer.transport.abort()
        else:
            guest.writer.close()
        await made.guest(1)
        assert not told(engine, ServiceRetrying)
        assert len(told(engine, ServiceConnected)) == 1


async def test_what_came_in_the_same_read_as_the_servers_last_line_is_delivered_first() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"rsp":"hs2","chid":"laptop"}\n')
        await reader.readline()
        writer.write(b'{"rsp":"hs4","result":"OK"}\nearly ')
        await reader.readexactly(4)
        writer.write(b"late")
        await reader.read()

    async with (
        target(serve) as server,
        running(laptop=laptop(server.address)) as engine,
        calling(address_of(engine, "laptop")) as caller,
    ):
        assert await caller.read(6) == b"early "
        await caller.send(b"ping")
        assert await caller.read(4) == b"late"


async def test_a_server_that_is_silent_or_none_is_told_in_time() -> None:
    async with target(listen_only) as silent, running(laptop=laptop(silent.address, limits=BRIEF)) as engine:
        await hears(engine, ServiceRetrying, "did not finish its handshake within 0.3 s")
    with blackhole() as hole:
        async with running(laptop=laptop(hole, limits=BRIEF)) as engine:
            await hears(engine, ServiceRetrying, "did not answer within 0.3 s")
    async with running(laptop=laptop(nobody())) as engine:
        await hears(engine, ServiceRetrying, "connection refused")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.7\r\n", "what answers there speaks SSH"),
        (b"\x15\x03\x01\x00\x02\x02\x46\n", "the server speaks TLS"),
        (b'{"rsp":"hs4","result":"OK"}\n', "another answer than the one that was due"),
        (b"x" * 200_000, "a line of more than"),
        (b"", "closed before it answered the chid"),
    ],
    ids=["ssh", "tls", "out of turn", "endless", "closed"],
)
async def test_a_server_that_speaks_something_else_is_named(line: bytes, reason: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        writer.write_eof()
        await reader.read()

    async with target(speak) as server, running(laptop=laptop(server.address)) as engine:
        event = await hears(engine, ServiceRetrying, reason)
        assert "speaks TLS" in event.text() or f"is there a channel server at {server.address}" in event.text()


async def test_the_server_can_be_dialled_at_another_address() -> None:
    async with hub() as at:
        elsewhere = HostPort("no-such-host.invalid", 8601)
        async with ends_at(elsewhere, connect=HostPort.parse(at.address)) as both:
            await both.serves()


# The handshake password


async def test_with_the_password_it_is_let_in_and_seen_by_name() -> None:
    password = Secret("sesame")
    async with ends(server={"passwords": {"alice": password}}, handshake_password=password) as (both, at):
        await both.serves()
        assert {session.identity for session in at.service.attached} == {"alice"}


@pytest.mark.parametrize(
    ("given", "hint"), [("open sesame", "check the handshake password"), (None, "give the handshake password")]
)
async def test_a_wrong_or_missing_password_is_final(given: str | None, hint: str) -> None:
    password = Secret(given) if given else None
    async with hub(handshake_password=Secret("sesame")) as at:
        settings = laptop(at.address, handshake_password=password, listen=steady())
        async with running(laptop=settings) as engine:
            event = await hears(engine, ServiceFailed, hint)
            assert "sesame" not in event.text()
            assert engine.services["laptop"].state == "failed"
            await refuses(str(settings.listen))


async def test_a_server_without_a_password_is_told_in_time_to_whoever_has_one() -> None:
    password = Secret("sesame")
    async with hub() as at, running(laptop=laptop(at.address, handshake_password=password, limits=BRIEF)) as engine:
        event = await hears(engine, ServiceRetrying, "did not begin an encrypted handshake within 0.3 s")
        assert "if it has no handshake_password, leave ours out" in event.text()


# Coming and going


async def test_its_address_is_the_listener_or_the_chid() -> None:
    async with ends() as (both, _):
        (listening,) = told(both.engine, ServiceListening)
        assert (listening.service, listening.address) == ("laptop", both.address)
        assert address_of(both.engine, "desk") == "desk"
        assert both.engine.services["desk"].notes["chid"] == "desk"
        assert "desk -> laptop at 127.0.0.1:" in both.engine.services["desk"].target


async def test_a_stopped_client_leaves_the_server_and_cuts_its_local_ends_and_those_who_wait() -> None:
    async with ends() as (both, at), both.calling() as piped, both.calling() as waiting:
        await piped.send(b"ping")
        assert await piped.read(4) == b"ping"
        await both.engine.stop_service("laptop")
        assert await piped.broken()
        assert await waiting.broken()
        await until(lambda: at.chids == ["desk"])
        assert not [each for each in both.engine.node.sessions.sessions.values() if each.service == "laptop"]


@pytest.mark.parametrize("bridged", [True, False], ids=["bridged", "idle"])
async def test_while_the_engine_drains_what_is_bridged_may_finish_and_nobody_new_is_taken(bridged: bool) -> None:
    async with hub() as at, at.client("desk", ["laptop"]) as other:
        engine = Engine({"laptop": laptop(at.address, listen=steady())})
        await engine.start()
        await engine.settled()
        address = address_of(engine, "laptop")
        if not bridged:
            await engine.stop(drain=30.0)
            return
        async with calling(address) as piped, calling(address) as waiting:
            await piped.send(b"ping")
            assert await other.read(4) == b"ping"

            async def finish() -> None:
                assert await waiting.broken()
                await refuses(address)
                await other.send(BULK)
                assert await piped.read(len(BULK)) == BULK
                await piped.close()

            await asyncio.gather(engine.stop(drain=30.0), finish())
        assert [event.cause for event in told(engine, ChannelClosed)] == [""]


async def test_a_listener_that_cannot_be_had_is_told_with_its_key() -> None:
    async with hub() as at, running(laptop=laptop(at.address, listen=steady())) as engine:
        taken = engine.services["laptop"].settings.listen
        async with running(other=channel_client(at.address, chid="other", listen=taken)) as second:
            await hears(second, ServiceRetrying, "in service.other.listen")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"target": None, "listen": None}, "target"),
        ({"target": HostPort("a", 1), "listen": FREE}, "listen"),
        ({"chid": "two words"}, "chid"),
        ({"receivers": ("",)}, "receivers"),
        ({"receivers": ("laptop",)}, "receivers"),
        ({"timeout": Duration(31 * 24 * 3600)}, "timeout"),
        ({"dial": "on-data"}, "dial"),
    ],
)
def test_what_cannot_be_is_named_by_its_key(changes: dict[str, Any], key: str) -> None:
    assert not laptop("a:1").problems()
    assert [name for name, _ in laptop("a:1", **({"listen": FREE} | changes)).problems()] == [key]


def _listening(engine: Engine) -> str:
    """Where a client listens whose server is away."""
    (event,) = told(engine, ServiceListening)
    return event.address
