"""Who guesses secrets is turned away at once, everywhere, for a time: with raw clients on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from jump_peers import Home, ask, framed, home, read_frame
from loopback import FREE, calling, hears, told
from relay_peers import edge
from ssh_peers import new_key, ssh_desk
from tunnel_peers import web
from tunnelconsole.engine.ban_events import AddressBanned
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.engine.settings import NetworkPattern, ProxyNetwork, Secret
from tunnelconsole.engine.units import Duration, Frequency

GUESSER = "127.0.0.2"

HEADER = b"PROXY TCP4 %s 198.51.100.2 56324 443\r\n"

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


async def test_behind_a_proxy_the_visitor_is_banned_and_not_the_proxy() -> None:
    """Both come from the address of the proxy, which is trusted to say who they are."""
    limits, proxies = LimitSettings(ban_after=1), (ProxyNetwork(GUESSER),)
    async with home(limits=limits, proxy_protocol_from=proxies) as at:
        async with at.calling(from_host=GUESSER) as guesser:
            await guesser.send(HEADER % b"203.0.113.7")
            await read_frame(guesser)
            await guesser.send(framed(b"a guess"))
            assert await guesser.read_to_end()
        async with at.calling(from_host=GUESSER) as guesser:
            await guesser.send(HEADER % b"203.0.113.7")
            assert await guesser.read_to_end() == b""
        async with at.calling(from_host=GUESSER) as other:
            await other.send(HEADER % b"203.0.113.8")
            assert not await ask(other, at.far.address)
        (banned,) = told(at.engine, AddressBanned)
        assert banned.address == "203.0.113.7"


async def test_who_is_banned_is_turned_away_at_public_ports_too() -> None:
    async with edge(limits=LimitSettings(bans_exempt=ONE_EXEMPT)) as at, at.backend() as (_, address):
        at.engine.node.bans.ban(GUESSER, 60.0)
        async with calling(address, GUESSER) as visitor:
            assert await visitor.read_to_end() == b""
        assert (await hears(at.engine, PeerRefused)).kind == "banned"


async def test_at_a_tunnel_server_an_unknown_token_is_a_guess_and_none_at_all_is_not() -> None:
    async with web(tokens={"alice": Secret("hers")}) as at:
        for fields in ((), ("Authorization: Bearer a-guess",)):
            async with at.asking("app.example.net", *fields) as (caller, first):
                assert first == b"HTTP/1.1 400"
                assert b"token" in await caller.read_to_end()
        assert [event.kind for event in told(at.engine, PeerRefused)] == ["not_allowed", "credentials"]


async def test_at_an_ssh_server_a_key_that_nobody_knows_is_a_guess(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as desk:
        with pytest.raises(asyncssh.PermissionDenied):
            async with desk.connect(new_key("mallory")):
                pass
        assert (await hears(desk.engine, PeerRefused)).kind == "credentials"
