"""Connections to elsewhere that SSH clients ask for (``-L``, ``-W``, ``-J``): where they may lead, and what then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from loopback import blackhole, digest_at_end, hears, listen_only, nobody, sha256, speak_and_close, target
from ssh_peers import SSHDesk, line_of, ssh_desk
from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.ssh.events import RefusedRequest
from tunnelconsole.engine.settings import DestinationPattern, HostPort, ListenAddress, Secret
from tunnelconsole.engine.transport.ssh_channel import WINDOW
from tunnelconsole.engine.units import Duration
from waiting import until

BULK = bytes(range(256)) * 4096 * 8
"""8 MB, more than every window and buffer between two ends."""

HERE = ("127.0.0.1:*",)


def jump(*allow: str, **more: Any) -> JumpServerSettings:
    """A jump server that lets connections lead there."""
    patterns = tuple(DestinationPattern.parse(text) for text in allow)
    listen = ListenAddress("127.0.0.1", 0)
    return JumpServerSettings(**{"listen": listen, "secret": Secret("unused"), "allow": patterns, **more})


@asynccontextmanager
async def gate(folder: Path, *allow: str, **more: Any) -> AsyncIterator[SSHDesk]:
    """An SSH server that forwards, beside a jump server."""
    async with ssh_desk(folder, {"home": jump(*(allow or HERE), **more)}, forward=True) as desk:
        yield desk


async def opened(connection: asyncssh.SSHClientConnection, to: HostPort) -> tuple[Any, Any]:
    """What ``-W host:port`` opens."""
    return await connection.open_connection(to.host, to.port)


async def test_bytes_pass_both_ways_and_so_does_the_end_of_one_of_them(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, target(digest_at_end) as far, desk.connect(desk.alice) as connection:
        reader, writer = await opened(connection, far.address)
        writer.write(BULK)
        writer.write_eof()
        assert await reader.read() == sha256(BULK)
        await until(lambda: not desk.engine.node.sessions.channels)


async def test_a_connection_is_a_channel_of_its_owners_session(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        _, writer = await opened(connection, far.address)
        (channel,) = await until(lambda: list(desk.engine.node.sessions.channels.values()))
        assert channel.label == str(far.address)
        assert (channel.session.service, channel.session.identity) == ("ssh", "alice")
        assert channel.flow.path == "ssh"
        writer.close()
        await until(lambda: not desk.engine.node.sessions.channels)


@pytest.mark.parametrize("allow", ["example.com:443", "127.0.0.1:9"])
async def test_what_the_jump_server_does_not_allow_is_refused(tmp_path: Path, allow: str) -> None:
    async with gate(tmp_path, allow) as desk, target() as far, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="not allowed here") as caught:
            await opened(connection, far.address)
        assert caught.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        await hears(desk.engine, TargetFailed, "not allowed here")


async def test_an_address_is_judged_and_not_only_its_name(tmp_path: Path) -> None:
    async with gate(tmp_path, "local*:*") as desk, target() as far, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="not allowed here"):
            await opened(connection, HostPort("localhost", far.address.port))


async def test_each_connection_is_judged_by_the_list_as_it_is_then(tmp_path: Path) -> None:
    """CVE-2026-48113 of a peer: an access list that was looked at in the handshake alone."""
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        await opened(connection, far.address)
        settings = {name: service.settings for name, service in desk.engine.services.items()}
        await desk.engine.apply(settings | {"home": jump("127.0.0.1:9")})
        await desk.engine.settled()
        with pytest.raises(asyncssh.ChannelOpenError, match="not allowed here"):
            await opened(connection, far.address)


async def test_without_a_jump_server_nothing_leads_elsewhere(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, forward=True) as desk, target() as far, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="there is no jump-server here"):
            await opened(connection, far.address)


async def test_a_jump_server_that_is_stopped_lets_nothing_through(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        await desk.engine.stop_service("home")
        with pytest.raises(asyncssh.ChannelOpenError, match="the jump-server home does not run"):
            await opened(connection, far.address)


@pytest.mark.parametrize("options", ['role="view"', "restrict", 'permitopen="127.0.0.1:9"', 'permitopen="other:*"'])
async def test_a_key_goes_nowhere_its_line_does_not_let_it_go(tmp_path: Path, options: str) -> None:
    async with gate(tmp_path) as desk, target() as far:
        desk.write_keys(f"{options} {line_of(desk.alice)}")
        async with desk.connect(desk.alice) as connection:
            with pytest.raises(asyncssh.ChannelOpenError, match="this key may"):
                await opened(connection, far.address)
            assert f"a connection to {far.address}: this key may" in desk.told(RefusedRequest)[-1]


@pytest.mark.parametrize("options", ['permitopen="127.0.0.1:*"', 'permitopen="127.*:9",permitopen="127.0.0.1:{port}"'])
async def test_a_key_goes_where_its_line_lets_it_go(tmp_path: Path, options: str) -> None:
    async with gate(tmp_path) as desk, target() as far:
        desk.write_keys(f"{options.format(port=far.address.port)} {line_of(desk.alice)}")
        async with desk.connect(desk.alice) as connection:
            await opened(connection, far.address)


@pytest.mark.parametrize(
    ("host", "port"),
    [("", 80), ("a b", 80), ("x" * 100_000, 80), ("a\x1b\n", 80), ("127.0.0.1", 0), ("127.0.0.1", 65536)],
)
async def test_what_is_no_address_is_refused_and_the_connection_lives(tmp_path: Path, host: str, port: int) -> None:
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="it is no address"):
            await opened(connection, HostPort(host, port))
        (told,) = desk.told(RefusedRequest)
        assert told.isprintable()
        assert len(told) < 300
        await opened(connection, far.address)


async def test_a_target_that_refuses_is_told_as_such(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, desk.connect(desk.alice) as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="connection refused") as caught:
            await opened(connection, nobody())
        assert caught.value.code == asyncssh.OPEN_CONNECT_FAILED


async def test_a_target_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with blackhole() as silent:
        async with gate(tmp_path, dial_timeout=Duration(0.1)) as desk, desk.connect(desk.alice) as connection:
            with pytest.raises(asyncssh.ChannelOpenError, match="i/o timeout"):
                await opened(connection, silent)


async def test_a_client_that_leaves_during_the_dial_leaves_nothing(tmp_path: Path) -> None:
    with blackhole() as silent:
        async with gate(tmp_path, dial_timeout=Duration(0.2)) as desk:
            async with desk.connect(desk.alice) as connection:
                asking = asyncio.get_running_loop().create_task(opened(connection, silent))
                (login,) = await until(lambda: list(desk.server.connections))
                await until(lambda: login.elsewhere.count)
                connection.abort()
                await asyncio.gather(asking, return_exceptions=True)
            await until(lambda: desk.sessions == [] and not login.elsewhere.count)


async def test_who_opens_connection_after_connection_gets_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.elsewhere.MOST_CONNECTIONS", 3)
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        writers = [(await opened(connection, far.address))[1] for _ in range(3)]
        for _ in range(100):
            with pytest.raises(asyncssh.ChannelOpenError, match="3 connections go through this one already"):
                await opened(connection, far.address)
        writers[0].close()
        await until(lambda: len(desk.engine.node.sessions.channels) == 2)
        await opened(connection, far.address)


async def test_what_a_target_said_before_it_closed_arrives(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, target(speak_and_close) as far, desk.connect(desk.alice) as connection:
        reader, writer = await opened(connection, far.address)
        assert await reader.read()
        writer.close()
        await until(lambda: not desk.engine.node.sessions.channels)


async def test_a_target_that_does_not_read_holds_up_its_client_alone(tmp_path: Path) -> None:
    async with (
        gate(tmp_path) as desk,
        target(listen_only) as deaf,
        target(digest_at_end) as far,
        desk.connect(desk.alice) as connection,
    ):
        _, stuck = await opened(connection, deaf.address)
        stuck.write(BULK * 4)
        (channel,) = await until(lambda: list(desk.engine.node.sessions.channels.values()))
        await until(lambda: channel.flow.bytes_in > WINDOW)
        reader, writer = await opened(connection, far.address)
        writer.write(b"not held up")
        writer.write_eof()
        assert await reader.read() == sha256(b"not held up")
        assert channel.flow.bytes_in < len(BULK) * 4


async def test_a_kick_of_the_session_ends_its_connections(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        await opened(connection, far.address)
        (session,) = desk.engine.node.sessions.sessions.values()
        desk.engine.kick(session.id)
        await until(connection.is_closed)
        await until(lambda: desk.sessions == [] and not desk.engine.node.sessions.channels)
        await until(lambda: not far.open)


async def test_an_operator_cuts_one_connection_and_the_others_go_on(tmp_path: Path) -> None:
    async with gate(tmp_path) as desk, target() as far, desk.connect(desk.alice) as connection:
        cut, _ = await opened(connection, far.address)
        (first,) = await until(lambda: list(desk.engine.node.sessions.channels))
        reader, writer = await opened(connection, far.address)
        desk.engine.close_channel(first)
        assert await cut.read() == b""
        writer.write(b"goes on")
        assert await reader.readexactly(7) == b"goes on"
