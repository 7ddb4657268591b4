"""The channel client at a server in broadcast mode: no handshake, no chids, and everything to everybody else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from channel_client_peers import channel_client
from channel_peers import hub
from loopback import (
    BULK,
    FREE,
    Handler,
    address_of,
    calling,
    echo,
    hears,
    listen_only,
    running,
    sha256,
    target,
    told,
)
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.events import SealBroken, ServiceConnected, ServiceRetrying
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.channel import client, sealed_halves, sealed_key
from tunnelconsole.engine.services.channel.client import ChannelClientSettings
from tunnelconsole.engine.settings import Fingerprint, HostPort, Secret, TLSSettings
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.sealed_beginnings import MAGIC
from waiting import until

KEY = Secret("only the two of us know")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long between two tries, and keys cost no tenth of a second."""
    monkeypatch.setattr(Backoff, "next", lambda _self, _longest=0.0: 0.05)
    monkeypatch.setattr(sealed_key, "derive_key", lambda key, salt: sha256(key + salt))
    monkeypatch.setattr(sealed_halves, "FIRST_HELLO", 0.02)


def member(server: str | HostPort, **changes: Any) -> ChannelClientSettings:
    """A client of a server in broadcast mode."""
    return channel_client(server, **{"mode": "broadcast"} | changes)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_a_program_sends_goes_to_everybody_else_and_what_they_send_comes_back(tls: bool) -> None:
    async with hub(mode="broadcast", tls=TLSSettings() if tls else None) as at:
        pinned = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"])) if tls else None
        settings = member(at.address, tls=pinned)
        async with running(a=settings, b=settings, c=settings) as engine:
            await until(lambda: len(at.chids) == 3)
            async with contextlib.AsyncExitStack() as stack:
                a, b, c = [await stack.enter_async_context(calling(address_of(engine, name))) for name in "abc"]
                _, *heard = await asyncio.gather(a.send(BULK), b.read(len(BULK)), c.read(len(BULK)))
                assert heard == [BULK, BULK]
                await b.send(b"answer")
                assert await a.read(6) == await c.read(6) == b"answer"


async def test_a_target_is_dialled_and_hears_and_answers_everybody() -> None:
    async with (
        hub(mode="broadcast") as at,
        target(echo) as far,
        running(desk=member(at.address, target=far.address)) as engine,
        at.calling() as other,
    ):
        await until(lambda: far.open and len(at.chids) == 2)
        await other.send(b"ping")
        assert await other.read(4) == b"ping"
        service = engine.services["desk"]
        assert (service.address, service.notes) == (at.address, {"mode": "broadcast"})
        assert service.target == f"broadcast at {at.address}, bridged to {far.address}"
        (channel,) = engine.node.sessions.channels.values()
        assert channel.label == "broadcast"


async def test_nothing_is_said_to_the_server_that_a_program_has_not_sent() -> None:
    async with hub(mode="broadcast") as at, at.calling() as other, running(laptop=member(at.address)) as engine:
        await until(lambda: len(at.chids) == 2)
        async with calling(address_of(engine, "laptop")) as caller:
            await caller.send(b"first")
            assert await other.read(5) == b"first"


def closes_after(seconds: float) -> Handler:
    """A server that says goodbye after so long, as the original does to who sends nothing."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(seconds, closing.set_result, None)
        await closing
        writer.close()

    return serve


@pytest.mark.parametrize("bridged", [False, True], ids=["idle", "bridged"])
async def test_a_server_that_closes_who_was_silent_is_joined_again_at_once(
    monkeypatch: pytest.MonkeyPatch, bridged: bool
) -> None:
    monkeypatch.setattr(client, "BROADCAST_LASTS", 0.05)
    async with target(closes_after(0.1)) as server, target(listen_only) as far:
        local = {"target": far.address} if bridged else {"listen": FREE}
        async with running(desk=member(server.address, **local)) as engine:
            await until(lambda: server.served >= 3)
            assert not told(engine, ServiceRetrying)
            assert len(told(engine, ServiceConnected)) == 1


async def test_a_server_that_closes_soon_is_tried_again_later_and_its_mode_is_asked_for() -> None:
    async with target(closes_after(0.0)) as server, running(desk=member(server.address)) as engine:
        await hears(engine, ServiceRetrying, 'is that server in broadcast mode? if it has chids, set mode = "chan"')


async def test_a_server_with_chids_refuses_who_sends_without_a_handshake() -> None:
    async with (
        hub(limits=LimitSettings(handshake_timeout=Duration(0.2))) as at,
        running(laptop=member(at.address)) as engine,
    ):
        await hears(engine, ServiceRetrying, "is that server in broadcast mode?")


async def test_a_client_with_a_chid_is_told_that_a_silent_server_may_be_in_broadcast_mode() -> None:
    limits = LimitSettings(handshake_timeout=Duration(0.2))
    async with hub(mode="broadcast") as at, running(desk=channel_client(at.address, limits=limits)) as engine:
        await hears(engine, ServiceRetrying, "if the server is in broadcast mode, this end must be too")


async def test_with_a_key_two_have_a_sealed_exchange() -> None:
    async with (
        hub(mode="broadcast") as at,
        target(echo) as far,
        at.calling() as listener,
        running(desk=member(at.address, target=far.address, key=KEY), laptop=member(at.address, key=KEY)) as engine,
    ):
        await until(lambda: len(at.chids) == 3)
        async with calling(address_of(engine, "laptop")) as caller:
            assert await caller.exchange(b"only between us") == b"only between us"
        heard = await listener.read(at.party("1000").bytes_out)
        assert heard.count(MAGIC) >= 2
        assert b"only between us" not in heard


async def test_with_a_key_a_third_who_sends_too_breaks_the_seal() -> None:
    async with (
        hub(mode="broadcast") as at,
        target(echo) as far,
        at.calling() as third,
        running(desk=member(at.address, target=far.address, key=KEY), laptop=member(at.address, key=KEY)) as engine,
    ):
        await until(lambda: len(at.chids) == 3)
        async with calling(address_of(engine, "laptop")) as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            await third.send(bytes(64))
            await hears(engine, SealBroken, "")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"chid": "desk"}, "chid"),
        ({"receivers": ("laptop",)}, "receivers"),
        ({"handshake_password": Secret("sesame")}, "handshake_password"),
        ({"timeout": Duration(60.0)}, "timeout"),
    ],
)
def test_what_takes_a_handshake_is_named_by_its_key(changes: dict[str, Any], key: str) -> None:
    assert not member("a:1", key=KEY).problems()
    ((named, sentence),) = member("a:1", **changes).problems()
    assert named == key
    assert "in broadcast mode; leave it out" in sentence
    assert "sesame" not in sentence
