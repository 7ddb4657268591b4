"""Whoever says things to the SSH server without end: it costs others nothing that they notice, and no memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

from loopback import PATIENCE, calling, echo, hears, open_descriptors, target
from ssh_flooder import BEFORE_KEYS, flooding
from ssh_peers import SSHDesk, ssh_desk
from tunnel_peers import tunnel_server
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.ssh.channels import MOST_UNANSWERED
from tunnelconsole.engine.settings import DestinationPattern, ListenAddress, Secret
from waiting import until

TURNS = 300
"""Turns of the loop for which a flood is watched: over 4,000 packets (measured), 130 MB where they are large:
three times :data:`MOST_MEMORY`, if they were kept."""

BEGUN = 200
"""Packets from which on there is a flood: an honest login and a channel have a few dozen."""

MOST_IN_A_TURN = 3000
"""Packets that may be worked off in one turn of the loop: the largest slice of the smallest packets. Without a bound
one read of a fast connection brings 16,000, which took seconds."""

MOST_MEMORY = 40_000_000
"""Bytes that a flood may take: its connection's buffers take a few, and it had hundreds of millions once."""


def packets(desk: SSHDesk) -> int:
    """Those that have come on all connections there are."""
    return sum(login.connection._packets for login in (*desk.server.logins, *desk.server.connections))


async def most_in_a_turn(desk: SSHDesk, flooder: asyncio.subprocess.Process) -> int:
    """Packets that were worked off in one turn of the loop at the most, while somebody floods."""
    await until(lambda: packets(desk) > BEGUN or flooder.returncode is not None)
    most = 0
    for _ in range(TURNS):
        before = packets(desk)
        await asyncio.sleep(0)  # noqa: TID251 - one turn
        most = max(most, packets(desk) - before)
    return most


@asynccontextmanager
async def shore(folder: Path, **settings: Any) -> AsyncIterator[SSHDesk]:
    """An SSH server that forwards, with Alice's key in a file."""
    jump = JumpServerSettings(
        listen=ListenAddress("127.0.0.1", 0), secret=Secret("unused"), allow=(DestinationPattern("127.0.0.1:*"),)
    )
    async with ssh_desk(folder, {"home": jump, "web": tunnel_server()}, forward=True, **settings) as desk:
        desk.alice.write_private_key(str(folder / "alice"))
        desk.viola.write_private_key(str(folder / "viola"))
        yield desk


@pytest.mark.parametrize(
    ("what", "key"),
    [(BEFORE_KEYS, ""), ("logins", ""), ("nothing", "viola"), ("variables", "viola"), ("forwards", "alice")],
)
async def test_a_flood_holds_nobody_up_and_fills_no_memory(tmp_path: Path, what: str, key: str) -> None:
    async with shore(tmp_path) as desk, target(echo) as far, desk.connect(desk.alice) as connection:
        reader, writer = await connection.open_connection(far.address.host, far.address.port)
        process = psutil.Process()
        before = process.memory_info().rss
        async with flooding(desk.server.address, what, tmp_path / key if key else None) as flooder:
            assert await most_in_a_turn(desk, flooder) <= MOST_IN_A_TURN
            writer.write(b"not held up")
            async with asyncio.timeout(PATIENCE):
                assert await reader.readexactly(11) == b"not held up"
            assert process.memory_info().rss - before < MOST_MEMORY
        await until(lambda: desk.sessions == ["alice"] and not desk.server.logins)


@pytest.mark.parametrize("what", [BEFORE_KEYS, "logins"])
async def test_a_stranger_says_so_much_and_no_more(tmp_path: Path, what: str) -> None:
    async with shore(tmp_path) as desk, flooding(desk.server.address, what) as flooder:
        async with asyncio.timeout(30):
            await flooder.wait()
        assert flooder.returncode == 1
        await hears(desk.engine, PeerRefused, "packets before anybody has logged in" if what == "logins" else "")


async def test_visitors_for_whom_a_client_opens_no_channel_are_turned_away_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.public_port.OPEN_PATIENCE", 0.05)
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.channels.MOST_UNANSWERED", 20)
    answered = asyncio.Event()

    async def wait(*_: Any) -> bool:
        await answered.wait()
        return False

    assert MOST_UNANSWERED < 1000
    async with shore(tmp_path) as desk, desk.connect(desk.alice) as connection:
        listener = await connection.create_server(wait, "localhost", 0)
        for _ in range(60):
            async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
                await caller.broken()
        (login,) = desk.server.connections
        assert len(login.connection.links) == 20
        await hears(desk.engine, PeerRefused, "the client has not answered")
        answered.set()
        await until(lambda: not login.connection.links)
        assert desk.server.opening == 0


async def test_who_connects_and_leaves_again_and_again_takes_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.throttle.LONGEST_WAIT", 0.5)  # which the last of them wait
    async with shore(tmp_path) as desk:
        before = open_descriptors()
        for _ in range(400):
            async with calling(desk.server.address):
                pass
        await hears(desk.engine, PeerRefused, "too many logins at once from its address")
        assert open_descriptors() - before < 100
        await until(lambda: not desk.server.logins)
        assert open_descriptors() <= before


async def test_who_loses_its_place_while_it_waits_for_its_turn_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.throttle.AT_ONCE", 0.0)
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.throttle.PER_SECOND", 0.25)
    async with shore(tmp_path) as desk, calling(desk.server.address) as caller:
        (login,) = await until(lambda: list(desk.server.logins))
        login.turn_away("its place is given to others")
        assert await caller.read_to_end() == b""


async def test_a_visitor_who_hangs_up_is_not_waited_for(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def wait(*_: Any) -> bool:
        await answered.wait()
        return False

    async with shore(tmp_path) as desk, desk.connect(desk.alice) as connection:
        listener = await connection.create_server(wait, "localhost", 0)
        async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
            await until(lambda: desk.server.opening == 1)
            caller.reset()
            await until(lambda: desk.server.opening == 0)
        answered.set()


async def test_the_limit_of_channels_holds_for_visitors_who_come_at_once(tmp_path: Path) -> None:
    async with (
        shore(tmp_path, limits=LimitSettings(channels=2)) as desk,
        target() as far,
        desk.connect(desk.alice) as connection,
    ):
        listener = await connection.forward_remote_port("localhost", 0, far.address.host, far.address.port)
        callers = [asyncio.open_connection("127.0.0.1", listener.get_port()) for _ in range(20)]
        writers = [writer for _, writer in await asyncio.gather(*callers)]
        await until(lambda: len(desk.told(PeerRefused)) or desk.server.channels > 2)
        await until(lambda: not desk.server.opening)
        assert desk.server.channels == 2
        for writer in writers:
            writer.close()


async def test_the_limit_of_channels_holds_for_connections_that_are_asked_for_at_once(tmp_path: Path) -> None:
    async with (
        shore(tmp_path, limits=LimitSettings(channels=2)) as desk,
        target() as far,
        desk.connect(desk.alice) as connection,
    ):
        asked = [connection.open_connection(far.address.host, far.address.port) for _ in range(20)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, asyncssh.ChannelOpenError) for each in found) == 18
        assert desk.server.channels == 2
        assert desk.server.opening == 0
