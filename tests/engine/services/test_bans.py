"""Who guesses secrets is turned away at once, everywhere, for a time: with raw clients on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jump_peers import Home, ask, framed, home, read_frame
from loopback import FREE, hears, told
from tunnelconsole.engine.ban_events import AddressBanned
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.engine.settings import NetworkPattern
from tunnelconsole.engine.units import Duration, Frequency

GUESSER = "127.0.0.2"

ONE_EXEMPT = (NetworkPattern("127.0.0.1/32"),)
"""So that another loopback address can be banned."""


@asynccontextmanager
async def guarded(**limits: Any) -> AsyncIterator[Home]:
    """A jump server that bans after three failures."""
    settings: dict[str, Any] = {"ban_after": 3, "bans_exempt": ONE_EXEMPT}
    async with home(limits=LimitSettings(**(settings | limits))) as at:
        yield at


async def guesses(at: Home, times: int = 1, host: str = GUESSER) -> None:
    for _ in range(times):
        async with at.calling(from_host=host) as caller:
            await read_frame(caller)
            await caller.send(framed(b"a guess"))
            assert await caller.read_to_end()


async def is_turned_away(at: Home, host: str = GUESSER) -> bool:
    """Whether a connection from there is closed before the server says anything."""
    async with at.calling(from_host=host) as caller:
        try:
            return await caller.read(1) == b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return True


async def test_who_guesses_is_banned_and_turned_away_before_a_word_is_said() -> None:
    async with guarded() as at:
        await guesses(at, 3)
        assert await is_turned_away(at)
        assert (await hears(at.engine, AddressBanned)).address == GUESSER
        assert [event.kind for event in told(at.engine, PeerRefused)] == [*["credentials"] * 3, "banned"]
        assert not at.service.gate.handshakes


async def test_everybody_else_is_served() -> None:
    async with guarded() as at:
        await guesses(at, 3)
        assert not await is_turned_away(at, "127.0.0.3")
        await at.serves()


async def test_a_session_that_is_open_already_stays() -> None:
    async with guarded() as at, at.calling(from_host=GUESSER) as caller:
        assert not await ask(caller, at.far.address)
        await guesses(at, 3)
        assert await is_turned_away(at)
        assert await caller.exchange(b"still here") == b"still here"


async def test_a_lifted_ban_lets_the_address_in_again() -> None:
    async with guarded() as at:
        await guesses(at, 3)
        assert await is_turned_away(at)
        at.engine.node.bans.lift(GUESSER)
        assert not await is_turned_away(at)


async def test_loopback_is_not_banned_by_default() -> None:
    async with home(limits=LimitSettings(ban_after=1)) as at:
        await guesses(at, 3)
        assert not await is_turned_away(at)


async def test_silence_and_noise_are_refused_and_not_banned() -> None:
    async with guarded(ban_after=1, handshake_timeout=Duration(0.1)) as at:
        async with at.calling(from_host=GUESSER) as silent:
            await silent.read_to_end()
        async with at.calling(from_host=GUESSER) as left:
            left.half_close()
            await left.read_to_end()
        assert [event.kind for event in told(at.engine, PeerRefused)] == ["timeout", "protocol"]
        assert not len(at.engine.node.bans)


async def test_a_guesser_at_one_service_is_turned_away_at_another() -> None:
    async with guarded() as at:
        limits = LimitSettings(bans_exempt=ONE_EXEMPT)
        await at.engine.apply({"home": at.service.settings, "edge": RelayServerSettings(listen=FREE, limits=limits)})
        await at.engine.settled()
        await guesses(at, 3)
        host, _, port = at.engine.services["edge"].address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), local_addr=(GUESSER, 0))
        assert await reader.read() == b""
        writer.close()
        refused = await hears(at.engine, PeerRefused, "its address is banned")
        assert refused.service == "edge"


@pytest.mark.parametrize("host", [GUESSER, "127.0.0.1"])
async def test_whoever_begins_too_many_handshakes_waits(host: str) -> None:
    async with guarded(handshakes_per_address=Frequency(2, 1000.0)) as at:
        for _ in range(2):
            assert not await is_turned_away(at, host)
        assert await is_turned_away(at, host)
        assert (await hears(at.engine, PeerRefused, "handshakes_per_address")).kind == "rate"
        assert not await is_turned_away(at, "127.0.0.3")
