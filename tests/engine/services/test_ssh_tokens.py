"""A key whose line names a token has its rights and limits, for as long as the token is good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from jump_peers import jump_server
from loopback import Target, address_of, hears, target
from ssh_peers import SSHDesk, line_of, ssh_desk
from tunnel_peers import Service, Web, tunnel_server
from tunnelconsole.engine.services.ssh.events import LoggedIn
from tunnelconsole.engine.tokens.rights import decode_rights
from waiting import until


@asynccontextmanager
async def shore(folder: Path, **rights: Any) -> AsyncIterator[SSHDesk]:
    """An SSH server beside a tunnel and a jump server, where Alice's key stands for the token ``forwarder``."""
    others = {"web": tunnel_server(), "home": jump_server()}
    async with ssh_desk(folder, others, forward=True) as desk:
        desk.write_keys(f'token="forwarder" {line_of(desk.alice)}')
        await desk.engine.node.tokens.create("forwarder", decode_rights(rights))
        yield desk


async def forwards(connection: asyncssh.SSHClientConnection, host: str, port: int, to: Target) -> int:
    """What ``-R host:port:...`` does; returns the port."""
    listener = await connection.forward_remote_port(host, port, to.address.host, to.address.port)
    return listener.get_port()


async def is_denied(connection: asyncssh.SSHClientConnection, host: str, port: int) -> None:
    with pytest.raises(asyncssh.ChannelListenError):
        await connection.forward_remote_port(host, port, "127.0.0.1", 9)


async def test_its_sessions_are_the_tokens_and_the_hostnames_its_rights(tmp_path: Path) -> None:
    async with (
        shore(tmp_path, hosts=["app.localhost"]) as desk,
        target(Service().serve) as far,
        desk.connect(desk.alice) as connection,
    ):
        await forwards(connection, "app", 80, far)
        await is_denied(connection, "other", 80)
        sessions = desk.engine.node.sessions.sessions.values()
        assert {session.identity for session in sessions} == {"forwarder"}
        async with Web(desk.engine, address_of(desk.engine, "web")).visiting("app.localhost") as visitor:
            assert (await visitor.get("/")).status == 200
            assert desk.engine.node.tokens.find("forwarder").channels == 1


async def test_its_ports_are_those_of_the_token(tmp_path: Path) -> None:
    async with shore(tmp_path, ports=["20000-29999"]) as desk, target() as far, desk.connect(desk.alice) as connection:
        port = await forwards(connection, "", 0, far)
        assert 20000 <= port <= 29999
        await is_denied(connection, "", 30000)


async def test_it_is_led_where_the_token_is_and_no_further(tmp_path: Path) -> None:
    async with (
        target() as far,
        target() as forbidden,
        shore(tmp_path, destinations=[str(far.address)]) as desk,
        desk.connect(desk.alice) as connection,
    ):
        _, writer = await connection.open_connection(far.address.host, far.address.port)
        writer.close()
        with pytest.raises(asyncssh.ChannelOpenError, match="not allowed here"):
            await connection.open_connection(forbidden.address.host, forbidden.address.port)


async def test_channels_that_are_opened_at_one_time_are_no_more_than_the_tokens(tmp_path: Path) -> None:
    async with target() as far, shore(tmp_path, channels=1) as desk, desk.connect(desk.alice) as connection:
        opening = (connection.open_connection(far.address.host, far.address.port) for _ in range(5))
        await asyncio.gather(*opening, return_exceptions=True)
        await until(lambda: not desk.server.opening)
        assert desk.engine.node.tokens.find("forwarder").channels == 1


async def test_a_token_for_other_systems_forwards_nothing(tmp_path: Path) -> None:
    async with shore(tmp_path, kinds=["channel"]) as desk, desk.connect(desk.alice) as connection:
        await is_denied(connection, "app", 80)
        await is_denied(connection, "", 0)


@pytest.mark.parametrize("gone", ["never made", "revoked", "disabled"])
async def test_a_key_whose_token_is_good_for_nothing_opens_nothing(tmp_path: Path, gone: str) -> None:
    async with shore(tmp_path) as desk:
        if gone == "never made":
            desk.write_keys(f'token="another" {line_of(desk.alice)}')
        elif gone == "revoked":
            await desk.engine.node.tokens.revoke("forwarder")
        else:
            await desk.engine.node.tokens.change("forwarder", disabled=True)
        with pytest.raises(asyncssh.PermissionDenied):
            async with desk.connect(desk.alice):
                pass


async def test_when_the_token_is_revoked_the_connection_ends_within_a_second(tmp_path: Path) -> None:
    async with shore(tmp_path) as desk, desk.connect(desk.alice) as connection:
        await until(lambda: desk.engine.node.tokens.find("forwarder").sessions)
        await desk.engine.node.tokens.revoke("forwarder")
        async with asyncio.timeout(1):
            await connection.wait_closed()
        await until(lambda: not desk.engine.node.sessions.sessions)


async def test_where_a_token_is_required_a_key_without_one_opens_nothing(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, require_token=True) as desk:
        with pytest.raises(asyncssh.PermissionDenied):
            async with desk.connect(desk.alice):
                pass


async def test_a_token_alone_does_not_let_its_holder_steer_the_engine(tmp_path: Path) -> None:
    async with shore(tmp_path) as desk:
        async with desk.connect(desk.alice) as connection:
            ran = await connection.run("services --json", check=False)
            assert ran.exit_status != 0
        desk.write_keys(f'token="forwarder",role="operate" {line_of(desk.alice)}')
        async with desk.connect(desk.alice) as connection:
            ran = await connection.run("services --json", check=False)
            assert ran.exit_status == 0


async def test_what_its_holder_does_is_told_by_the_name_of_the_token(tmp_path: Path) -> None:
    async with shore(tmp_path) as desk, desk.connect(desk.alice):
        assert (await hears(desk.engine, LoggedIn)).identity == "forwarder"
