"""Clients whose server is reached through an SSH host, a real one; and programs that do the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loopback import (
    BULK,
    FREE,
    PATIENCE,
    Caller,
    Handler,
    Target,
    address_of,
    calling,
    echo,
    hears,
    nobody,
    running,
    target,
)
from ports import split
from ssh_gate import Gate, gate_in
from sshd import TOOLS
from tunnelconsole import channel, jump, relay
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ServiceConnected, ServiceRetrying
from tunnelconsole.engine.services.channel.client import ChannelClientSettings
from tunnelconsole.engine.services.channel.server import ChannelServerSettings
from tunnelconsole.engine.services.jump.client import JumpClientSettings
from tunnelconsole.engine.services.jump.server import JumpServerSettings
from tunnelconsole.engine.services.relay.client import RelayClientSettings
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.engine.settings import (
    DestinationPattern,
    Fingerprint,
    HostPort,
    PortRange,
    Secret,
    TLSSettings,
)
from waiting import until

pytestmark = pytest.mark.system(*TOOLS)

SECRET = Secret("only for this test")
TWENTY_MB = BULK * 3 + bytes(2_000_000)


@asynccontextmanager
async def edge(**more: Any) -> AsyncIterator[Engine]:
    """A relay server, a channel server and a jump server."""
    async with running(
        edge=RelayServerSettings(listen=FREE, ports=PortRange(0, 0), public_host="127.0.0.1", **more),
        hub=ChannelServerSettings(listen=FREE),
        home=JumpServerSettings(listen=FREE, secret=SECRET, allow=(DestinationPattern("127.0.0.1:*"),)),
    ) as engine:
        yield engine


@asynccontextmanager
async def published(
    gate: Gate, servers: Engine, handler: Handler = echo, **more: Any
) -> AsyncIterator[tuple[Engine, Target]]:
    """A target that a relay client has made public through the gate."""
    async with (
        target(handler) as service,
        running(
            pub=RelayClientSettings(
                server=gate.to(address_of(servers, "edge")), target=service.address, ssh=gate.settings(), **more
            )
        ) as client,
    ):
        yield client, service


async def test_a_visitor_of_a_relay_gets_twenty_megabytes_both_ways(gate: Gate) -> None:
    async with edge() as servers, published(gate, servers) as (client, _):
        assert client.services["pub"].state == "connected", client.services["pub"].error
        async with calling(address_of(client, "pub")) as visitor:
            assert await visitor.exchange(TWENTY_MB) == TWENTY_MB


@pytest.mark.parametrize("tls", [False, True])
async def test_a_visitor_is_reset_when_the_ssh_host_dies(tmp_path: Path, tls: bool) -> None:
    with gate_in(tmp_path) as gate:
        async with edge(tls=TLSSettings() if tls else None) as servers:
            pin = Fingerprint.parse(servers.services["edge"].notes["fingerprint"]) if tls else None
            more: dict[str, Any] = {"tls": TLSSettings(fingerprint=pin)} if tls else {}
            async with published(gate, servers, **more) as (client, _), AsyncExitStack() as stack:
                visitor = await _visitor(stack, client, "tls" if tls else "yamux")
                gate.sshd.is_killed()
                assert await visitor.broken()


async def _visitor(stack: AsyncExitStack, client: Engine, path: str) -> Caller:
    """A visitor whose bytes travel like this; the first may come before there are data connections."""
    async with asyncio.timeout(PATIENCE):
        while True:
            visitor = await stack.enter_async_context(calling(address_of(client, "pub")))
            await visitor.send(b"are you there?")
            await visitor.read(14)
            if [*client.node.sessions.channels.values()][-1].flow.path == path:
                return visitor


async def test_a_client_shows_the_way_it_has_taken(gate: Gate) -> None:
    async with edge() as servers, published(gate, servers) as (client, _):
        service = client.services["pub"]
        assert service.notes["via"] == gate.url
        assert service.target.endswith(f"via {address_of(servers, 'edge')} via {gate.url}")
        connected = await hears(client, ServiceConnected)
        assert f"via {gate.url}" in connected.text()


async def test_a_client_comes_back_with_its_ssh_host(tmp_path: Path) -> None:
    with gate_in(tmp_path) as gate:
        async with edge() as servers, published(gate, servers) as (client, _):
            gate.sshd.is_killed()
            await hears(client, ServiceRetrying)
            gate.sshd.start()
            await until(lambda: client.services["pub"].state == "connected")
            async with calling(address_of(client, "pub")) as visitor:
                assert await visitor.exchange(b"again") == b"again"


async def test_a_local_program_of_a_jump_client_is_reset_when_the_ssh_host_dies(tmp_path: Path) -> None:
    with gate_in(tmp_path) as gate:
        async with edge() as servers, target() as service, jumping(gate, servers, service) as program:
            await program.send(b"are you there?")
            assert await program.read(14) == b"are you there?"
            gate.sshd.is_killed()
            assert await program.broken()


@asynccontextmanager
async def jumping(gate: Gate, servers: Engine, service: Target, **more: Any) -> AsyncIterator[Caller]:
    """A local program that a jump client leads to a service, through the gate."""
    settings = JumpClientSettings(
        server=gate.to(address_of(servers, "home")),
        secret=SECRET,
        listen=FREE,
        target=service.address,
        ssh=gate.settings(),
        **more,
    )
    async with running(via=settings) as client, calling(address_of(client, "via")) as program:
        yield program


async def test_a_jump_client_gets_through(gate: Gate) -> None:
    async with edge() as servers, target() as service, jumping(gate, servers, service) as program:
        assert await program.exchange(BULK) == BULK


async def test_a_jump_client_whose_ssh_host_is_not_known_fails_for_good(gate: Gate, tmp_path: Path) -> None:
    settings = JumpClientSettings(
        server=gate.to(nobody()),
        secret=SECRET,
        listen=FREE,
        target=nobody(),
        ssh=gate.settings(known_hosts=tmp_path / "none"),
    )
    async with running(via=settings) as client:
        async with calling(address_of(client, "via")) as program:
            assert await program.broken()
        await until(lambda: client.services["via"].state == "failed")
        assert "is not known" in (client.services["via"].error or "")


async def test_channel_clients_get_through(gate: Gate) -> None:
    async with edge() as servers, target() as service:
        hub = gate.to(address_of(servers, "hub"))
        both: dict[str, Any] = {"server": hub, "ssh": gate.settings(), "key": Secret("we both know this")}
        async with (
            running(
                desk=ChannelClientSettings(chid="desk", receivers=("me",), target=service.address, **both),
                me=ChannelClientSettings(chid="me", receivers=("desk",), listen=FREE, **both),
            ) as clients,
        ):
            me = clients.services["me"]
            await until(lambda: me.state == "connected" and me.address)
            async with calling(me.address) as program:
                assert await program.exchange(BULK) == BULK


async def test_tls_works_over_the_ssh_host(gate: Gate) -> None:
    async with edge(tls=TLSSettings()) as servers:
        pin = Fingerprint.parse(servers.services["edge"].notes["fingerprint"])
        async with published(gate, servers, tls=TLSSettings(fingerprint=pin)) as (client, service):
            assert client.services["pub"].state == "connected", client.services["pub"].error
            async with calling(address_of(client, "pub")) as visitor:
                assert await visitor.exchange(BULK) == BULK
            assert service.served == 1


async def test_connect_names_the_way_and_server_who_is_at_its_end(gate: Gate) -> None:
    async with edge() as servers, target() as service:
        settings = RelayClientSettings(
            server=HostPort("edge.example.net", 7000),
            connect=gate.to(address_of(servers, "edge")),
            target=service.address,
            ssh=gate.settings(),
        )
        async with running(pub=settings) as client:
            assert client.services["pub"].state == "connected", client.services["pub"].error


async def test_a_client_that_stops_leaves_nothing_at_the_ssh_host(tmp_path: Path) -> None:
    with gate_in(tmp_path) as gate:
        async with edge() as servers:
            async with published(gate, servers):
                assert gate.sshd.connections
            await until(lambda: not gate.sshd.connections)


# In a program.


async def test_a_program_gets_through_with_the_python_api(gate: Gate) -> None:
    ssh = gate.settings()
    async with edge() as servers, target() as service:
        home, hub, relays = (f"{gate.url}/{address_of(servers, name)}" for name in ("home", "hub", "edge"))
        async with jump.connect(home, SECRET, str(service.address), ssh=ssh) as (reader, writer):
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
        async with channel.connect(hub, "me", ssh=ssh) as (reader, writer):
            writer.write(b"hello")
        async with relay.expose(relays, str(service.address), ssh=ssh) as exposed:
            host, port = split(exposed.address)
            async with calling(HostPort(host, port)) as visitor:
                assert await visitor.exchange(b"hello") == b"hello"


async def test_a_program_that_reads_learns_of_a_break(tmp_path: Path) -> None:
    with gate_in(tmp_path) as gate:
        async with edge() as servers, target() as service:
            home = f"{gate.url}/{address_of(servers, 'home')}"
            async with jump.connect(home, SECRET, str(service.address), ssh=gate.settings()) as (reader, writer):
                writer.write(b"hello")
                await reader.readexactly(5)
                gate.sshd.is_killed()
                with pytest.raises(ConnectionResetError):
                    await reader.read()


async def test_settings_for_an_ssh_host_need_one(gate: Gate) -> None:
    with pytest.raises(ValueError, match="nothing here goes through an SSH host"):
        async with jump.connect("127.0.0.1:1", SECRET, "127.0.0.1:1", ssh=gate.settings()):
            pass
