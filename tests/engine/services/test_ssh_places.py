"""Public hostnames and ports that SSH clients ask for with ``-R``: who gets which, who comes, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from loopback import (
    Caller,
    Target,
    address_of,
    calling,
    digest_at_end,
    echo,
    hears,
    listen_only,
    nobody,
    refuses,
    sha256,
    steady,
    target,
)
from ssh_peers import SSHDesk, line_of, new_key, ssh_desk
from tunnel_peers import Service, Web, ok, tunnel_server
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import BackendLeft, TargetFailed
from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.ssh.events import RefusedRequest
from tunnelconsole.engine.services.ssh.public_places import MOST_PLACES
from tunnelconsole.engine.services.tunnel.target import TunnelURL
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.settings import PortRange, Secret
from tunnelconsole.engine.transport.ssh_channel import WINDOW
from waiting import until

BULK = bytes(range(256)) * 4096 * 8
"""8 MB, more than every window and buffer between two ends."""

Listener = asyncssh.SSHListener


@dataclass
class Shore:
    """An SSH server that forwards, and a tunnel server that gives hostnames."""

    desk: SSHDesk
    web: Web

    @property
    def engine(self) -> Engine:
        """Of both."""
        return self.desk.engine

    def places(self) -> list[str]:
        """Where visitors can come to."""
        return sorted(session.address for session in self._sessions() if session.address)

    def session(self, address: str) -> Session:
        """The session of a place."""
        return next(session for session in self._sessions() if session.address == address)

    def _sessions(self) -> list[Session]:
        return list(self.engine.node.sessions.sessions.values())

    def connect(self) -> AbstractAsyncContextManager[asyncssh.SSHClientConnection]:
        """Alice's connection."""
        return self.desk.connect(self.desk.alice)

    def refusals(self) -> list[str]:
        """What was refused to whoever had logged in."""
        return self.desk.told(RefusedRequest)


@asynccontextmanager
async def shore(folder: Path, web: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Shore]:
    """See :class:`Shore`; ``settings`` are the SSH server's."""
    async with ssh_desk(folder, {"web": tunnel_server(**(web or {}))}, **({"forward": True} | settings)) as desk:
        yield Shore(desk, Web(desk.engine, address_of(desk.engine, "web")))


async def forwards(connection: asyncssh.SSHClientConnection, host: str, port: int, to: Target) -> Listener:
    """What ``-R host:port:...`` does."""
    return await connection.forward_remote_port(host, port, to.address.host, to.address.port)


async def echoes(caller: Caller, data: bytes) -> None:
    """Sends something that comes back."""
    await caller.send(data)
    assert await caller.read(len(data)) == data


async def is_denied(connection: asyncssh.SSHClientConnection, host: str, port: int) -> None:
    """Asks for a place, and does not get it."""
    with pytest.raises(asyncssh.ChannelListenError):
        await connection.forward_remote_port(host, port, "127.0.0.1", 9)


# -- hostnames ---------------------------------------------------------------------------------------------------------


async def test_a_hostname_that_was_asked_for_leads_visitors_to_the_client(tmp_path: Path) -> None:
    local = Service()
    async with shore(tmp_path) as at, target(local.serve) as far, at.connect() as connection:
        await forwards(connection, "MyApp", 80, far)
        async with at.web.visiting("myapp.localhost") as visitor:
            got = await visitor.get("/where")
            assert (got.status, got.body) == (200, b"GET /where of 0")
            assert (await visitor.get("/again")).status == 200
        assert local.seen[0].value("x-forwarded-for") == "127.0.0.1"
        session = at.session(f"http://myapp.localhost:{at.web.address.rpartition(':')[2]}")
        assert (session.service, session.identity, session.kind) == ("web", "alice", "tunnel-server")


async def test_the_inspector_keeps_what_comes_through_ssh(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(Service().serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        async with at.web.visiting("app.localhost") as visitor:
            await visitor.get("/kept")
        (exchange,) = at.web.service.inspector
        assert (exchange.target, exchange.status) == ("/kept", 200)


async def test_without_a_name_one_is_made_up_each_time(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(Service().serve) as far, at.connect() as one, at.connect() as two:
        await forwards(one, "localhost", 80, far)
        await forwards(two, "localhost", 443, far)
        names = [each.removeprefix("http://").partition(":")[0] for each in at.places()]
        assert len(set(names)) == 2
        for name in names:
            assert name.endswith(".localhost")
            async with at.web.visiting(name) as visitor:
                assert (await visitor.get("/")).status == 200


async def test_names_are_given_in_the_domain_of_the_public_url_and_told_with_it(tmp_path: Path) -> None:
    url = TunnelURL.parse("https://tunnels.example.net")
    async with shore(tmp_path, public_url=url) as at, target() as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        await forwards(connection, "my.own.example.org", 80, far)
        assert at.places() == ["https://app.tunnels.example.net", "https://my.own.example.org"]


@pytest.mark.parametrize(
    "name", ["a_b..c", "-x", "x" * 300, "a b", "x" * 100_000, "a\x1b[31m\n", "app.example.net:80", "::5"]
)
async def test_what_is_no_hostname_is_refused(tmp_path: Path, name: str) -> None:
    async with shore(tmp_path) as at, at.connect() as connection:
        await is_denied(connection, name, 80)
        assert at.places() == []
        (told,) = at.refusals()
        assert told.isprintable()
        assert len(told) < 300


async def test_a_hostname_that_another_key_has_is_not_given(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far:
        at.desk.write_keys(line_of(at.desk.alice), line_of(at.desk.viola))
        async with at.connect() as alice, at.desk.connect(at.desk.viola) as viola:
            await forwards(alice, "app", 80, far)
            await is_denied(viola, "app", 80)
            (told,) = at.refusals()
            assert "-R app:80: a tunnel for app.localhost exists already" in told
            assert len(at.places()) == 1


async def test_a_comment_behind_a_key_gives_no_right_to_anothers_hostname(tmp_path: Path) -> None:
    """CVE-2026-40910 of a peer: authorised as one identity, routed by another."""
    other = new_key("alice")
    web = {"tokens": {"alice": Secret("alices token")}, "reserved": {"hers.localhost": "alice"}}
    async with shore(tmp_path, web) as at, target() as far:
        at.desk.write_keys(line_of(at.desk.alice), line_of(other))
        async with at.connect() as first, at.desk.connect(other) as second:
            await forwards(first, "app", 80, far)
            await is_denied(second, "app", 80)
            await is_denied(second, "hers", 80)
            assert "reserved for somebody else" in at.refusals()[-1]


async def test_a_comment_behind_a_key_gives_no_right_to_share_a_hostname(tmp_path: Path) -> None:
    web = {"tokens": {"alice": Secret("alices token")}, "shared_by": ("alice",)}
    async with shore(tmp_path, web) as at, target() as far, at.connect() as first, at.connect() as second:
        await forwards(first, "app", 80, far)
        await forwards(second, "app", 80, far)
        await until(first.is_closed)  # its place is taken, and it had nothing else
        assert len(at.places()) == 1


async def test_a_reserved_hostname_is_for_the_key_whose_line_names_it(tmp_path: Path) -> None:
    web = {"tokens": {"carol": Secret("carols token")}, "reserved": {"hers.localhost": "carol"}}
    async with shore(tmp_path, web) as at, target() as far:
        at.desk.write_keys(f'host="hers.localhost,*.own.localhost" {line_of(at.desk.alice)}')
        async with at.connect() as connection:
            await forwards(connection, "hers", 80, far)
            await forwards(connection, "a.own.localhost", 80, far)
            await is_denied(connection, "app", 80)
            assert "this key may not have app.localhost" in at.refusals()[-1]


async def test_the_hosts_that_the_tunnel_server_denies_are_nobodys(tmp_path: Path) -> None:
    async with shore(tmp_path, {"hosts_deny": (HostPattern.parse("bad.*"),)}) as at:
        at.desk.write_keys(f'host="bad.localhost" {line_of(at.desk.alice)}')
        async with at.connect() as connection:
            await is_denied(connection, "bad", 80)


async def test_who_comes_back_with_the_same_key_takes_its_own_place(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(Service().serve) as far, at.connect() as lost, at.connect() as back:
        await forwards(lost, "app", 80, far)
        await forwards(lost, "localhost", (port := steady().port), far)
        await forwards(back, "app", 80, far)
        await forwards(back, "localhost", port, far)
        await until(lost.is_closed)  # it had nothing else
        assert len(at.places()) == 2
        async with at.web.visiting("app.localhost") as visitor:
            assert (await visitor.get("/")).status == 200


async def test_one_connection_does_not_take_its_own_places(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(Service().serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        port = (await forwards(connection, "localhost", 0, far)).get_port()
        await is_denied(connection, "app", 80)
        await is_denied(connection, "app", 443)
        await is_denied(connection, "other", port)
        assert len(at.places()) == 2
        async with at.web.visiting("app.localhost") as visitor:
            assert (await visitor.get("/")).status == 200


async def test_a_service_that_refuses_is_told_to_the_visitor(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, at.connect() as connection:
        far = nobody()
        await connection.forward_remote_port("app", 80, far.host, far.port)
        async with at.web.visiting("app.localhost") as visitor:
            got = await visitor.get("/")
            assert got.status == 502
            assert b"its client cannot reach the local service" in got.body
        (failed,) = at.desk.told(TargetFailed)
        assert failed.startswith("127.0.0.1:")


async def test_a_client_that_opens_no_channel_costs_its_visitor_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.ssh.public_host.OPEN_PATIENCE", 0.1)
    monkeypatch.setattr("tunnelconsole.engine.services.tunnel.server.SWEEP", 0.02)
    answered = asyncio.Event()

    async def wait(*_: Any) -> bool:
        await answered.wait()
        return False

    async with shore(tmp_path) as at, at.connect() as connection:
        await connection.create_server(wait, "app", 80)
        async with at.web.visiting("app.localhost") as visitor:
            assert (await visitor.get("/")).status == 504
        answered.set()
        async with at.web.visiting("app.localhost") as visitor:
            assert (await visitor.get("/")).status == 502
        await until(lambda: not at.engine.node.sessions.channels)


async def test_large_bodies_pass_both_ways_and_a_slow_visitor_holds_up_its_own_answer(tmp_path: Path) -> None:
    local = Service(lambda seen: ok(BULK) if seen.head.method == "GET" else ok(sha256(seen.body)))
    async with shore(tmp_path) as at, target(local.serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        async with at.web.visiting("app.localhost") as slow, at.web.visiting("app.localhost") as quick:
            await slow.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
            request = f"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {len(BULK)}\r\n\r\n".encode()
            await quick.send(request + BULK)
            assert (await quick.response()).body == sha256(BULK)
            assert (await slow.response()).body == BULK


async def test_a_connection_to_the_service_serves_the_next_request_unless_that_cannot_be_repeated(
    tmp_path: Path,
) -> None:
    local = Service()
    async with shore(tmp_path) as at, target(local.serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        async with at.web.visiting("app.localhost") as visitor:
            for _ in range(5):
                assert (await visitor.get("/")).status == 200
            assert local.connections == 1
            assert (await visitor.get("/", method="POST")).status == 200
            assert local.connections == 2


async def test_a_service_that_closes_an_idle_connection_loses_no_request(tmp_path: Path) -> None:
    local = Service()
    async with shore(tmp_path) as at, target(local.serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        async with at.web.visiting("app.localhost") as visitor:
            for number in range(1, 4):
                assert (await visitor.get("/")).status == 200
                assert local.connections == number
                far.reset_all()
                await until(lambda: not far.open)


async def test_a_websocket_passes(tmp_path: Path) -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await echo(reader, writer)

    async with shore(tmp_path) as at, target(upgrade) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        async with at.web.visiting("app.localhost") as visitor:
            fields = "Host: app.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            await visitor.send(f"GET /ws HTTP/1.1\r\n{fields}\r\n".encode())
            assert (await visitor.response()).status == 101
            received, _ = await asyncio.gather(visitor.read(len(BULK)), visitor.send(BULK))
            assert received == BULK
            assert {channel.flow.path for channel in at.engine.node.sessions.channels.values()} == {"ssh"}
            visitor.writer.write_eof()
            assert await visitor.ends() == b""
        await until(lambda: not at.engine.node.sessions.channels)


async def test_a_hostname_comes_back_when_its_tunnel_server_does(tmp_path: Path) -> None:
    web = {"listen": steady()}
    async with shore(tmp_path, web) as at, target(Service().serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        await at.engine.restart_service("web")
        await until(lambda: len(at.places()) == 1)
        async with at.web.visiting("app.localhost") as visitor:
            assert (await visitor.get("/")).status == 200


async def test_a_terminal_is_told_why_its_hostname_does_not_come_back(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        process = await connection.create_process(term_type="xterm")
        ssh = {name: service.settings for name, service in at.engine.services.items() if name != "web"}
        await at.engine.apply(ssh)
        async with asyncio.timeout(30):
            while "there is no tunnel-server here" not in await process.stdout.readline():
                pass


async def test_without_a_tunnel_server_there_are_no_hostnames_and_it_is_said(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, forward=True) as desk, desk.connect(desk.alice) as connection:
        await is_denied(connection, "app", 80)
        assert "there is no tunnel-server here" in desk.told(RefusedRequest)[-1]


async def test_of_several_tunnel_servers_the_one_that_is_named_gives_hostnames(tmp_path: Path) -> None:
    both = {"web": tunnel_server(), "other": tunnel_server()}
    async with ssh_desk(tmp_path, both, forward=True) as desk, desk.connect(desk.alice) as connection:
        await is_denied(connection, "app", 80)
        assert "there are several services of kind tunnel-server" in desk.told(RefusedRequest)[-1]
    async with ssh_desk(tmp_path, both, forward=True, tunnel="other") as desk, desk.connect(desk.alice) as connection:
        await connection.forward_remote_port("app", 80, "127.0.0.1", 9)
        assert [session.kind for session in desk.engine.services["other"].attached] == ["tunnel-server"]


# -- ports -------------------------------------------------------------------------------------------------------------


async def test_a_free_port_is_given_and_told_and_half_close_passes(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(digest_at_end) as far, at.connect() as connection:
        listener = await forwards(connection, "localhost", 0, far)
        address = f"localhost:{listener.get_port()}"
        assert at.places() == [address]
        async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
            assert await caller.exchange(BULK) == sha256(BULK)
        await until(lambda: not at.engine.node.sessions.channels)
        session = at.session(address)
        assert (session.service, session.identity) == ("ssh", "alice")
        at.engine.node.sessions.settle()
        assert (session.bytes_in, session.bytes_out) == (len(sha256(BULK)), len(BULK))


async def test_a_port_that_cannot_be_is_refused(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, at.connect() as connection:
        await is_denied(connection, "localhost", 65536)
        await is_denied(connection, "localhost", 2**32 - 1)
        assert "there is no such port" in at.refusals()[-1]
        assert not connection.is_closed()


@pytest.mark.parametrize("port", [1, 22, 6999, 7021, 65535])
async def test_a_port_that_is_not_offered_is_refused(tmp_path: Path, port: int) -> None:
    async with shore(tmp_path, ports=PortRange(7001, 7020)) as at, at.connect() as connection:
        await is_denied(connection, "localhost", port)
        assert f"port {port} is not offered here" in at.refusals()[-1]


async def test_low_ports_are_not_offered_unless_they_are_named(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, at.connect() as connection:
        await is_denied(connection, "localhost", 1023)
        assert "any from 1024 on is" in at.refusals()[-1]


async def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far:
        at.desk.write_keys(line_of(at.desk.alice), line_of(at.desk.viola))
        async with at.connect() as alice, at.desk.connect(at.desk.viola) as viola:
            listener = await forwards(alice, "localhost", 0, far)
            await is_denied(viola, "localhost", listener.get_port())
            await is_denied(viola, "localhost", far.address.port)
            assert ["Address already in use" in told for told in at.refusals()] == [True, True]


async def test_a_port_is_free_as_soon_as_its_client_has_left(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far:
        async with at.connect() as connection:
            port = (await forwards(connection, "localhost", 0, far)).get_port()
            connection.abort()
        await until(lambda: at.places() == [] and at.desk.sessions == [])
        await refuses(f"127.0.0.1:{port}")
        assert not at.desk.server.public_ports


async def test_a_port_that_a_client_wants_no_more_is_closed_and_its_visitors_go_on(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far, at.connect() as connection:
        listener = await forwards(connection, "localhost", 0, far)
        address = f"127.0.0.1:{listener.get_port()}"
        async with calling(address) as caller:
            await echoes(caller, b"before")
            listener.close()
            await until(lambda: not at.desk.server.public_ports)
            await refuses(address)
            await echoes(caller, b"after")
        await until(lambda: at.places() == [])


async def test_a_visitor_is_reset_where_the_clients_service_refuses(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, at.connect() as connection:
        far = nobody()
        listener = await connection.forward_remote_port("localhost", 0, far.host, far.port)
        async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
            assert await caller.broken()
        await hears(at.engine, TargetFailed)


async def test_visitors_are_reset_when_the_connection_of_their_client_is_lost(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far, at.connect() as connection:
        listener = await forwards(connection, "localhost", 0, far)
        async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
            await echoes(caller, b"hello")
            connection.abort()
            assert await caller.broken()
        await until(lambda: at.desk.sessions == [] and not at.engine.node.sessions.channels)


async def test_a_service_that_does_not_read_holds_up_its_visitor_and_nobody_else(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(listen_only) as deaf, target() as far, at.connect() as connection:
        slow = await forwards(connection, "localhost", 0, deaf)
        quick = await forwards(connection, "localhost", 0, far)
        async with calling(f"127.0.0.1:{slow.get_port()}") as stuck:
            sending = asyncio.get_running_loop().create_task(stuck.send(BULK * 4))
            (channel,) = await until(lambda: list(at.engine.node.sessions.channels.values()))
            await until(lambda: channel.flow.bytes_out > WINDOW)
            async with calling(f"127.0.0.1:{quick.get_port()}") as caller:
                await echoes(caller, b"not held up")
            assert not sending.done()
            assert channel.flow.bytes_out < len(BULK)
            stuck.reset()
            await asyncio.gather(sending, return_exceptions=True)


async def test_a_kick_ends_a_port_with_its_visitors_and_the_connection_that_had_nothing_else(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far, at.connect() as connection:
        listener = await forwards(connection, "localhost", 0, far)
        async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
            await echoes(caller, b"hello")
            at.engine.kick(at.session(f"localhost:{listener.get_port()}").id)
            assert await caller.broken()
        await until(connection.is_closed)
        await until(lambda: at.desk.sessions == [])
        left = await hears(at.engine, BackendLeft)
        assert left.cause == "kicked by an operator"


@pytest.mark.parametrize(
    ("settings", "exposed"),
    [
        ({"bind": "0.0.0.0"}, True),
        ({"bind": "0.0.0.0", "forward": False}, False),
        ({"bind": "localhost"}, False),
        ({}, False),
    ],
)
async def test_ports_that_others_can_come_to_are_shown_as_exposed(
    tmp_path: Path, settings: dict[str, Any], exposed: bool
) -> None:
    async with shore(tmp_path, **settings) as at:
        assert at.desk.server.exposed is exposed


# -- rights and limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ('role="view"', "this key may forward nothing"),
        ("restrict", "this key may forward nothing"),
        ("no-port-forwarding", "this key may forward nothing"),
        ('permitlisten="9000",permitlisten="app:80"', "this key may not have it"),
    ],
)
async def test_a_key_has_no_place_that_its_line_does_not_let_it_have(tmp_path: Path, options: str, why: str) -> None:
    async with shore(tmp_path) as at:
        at.desk.write_keys(f"{options} {line_of(at.desk.alice)}")
        async with at.connect() as connection:
            for host, port in (("localhost", 0), ("other", 80), ("localhost", 9001)):
                await is_denied(connection, host, port)
                assert why in at.refusals()[-1]
        assert at.places() == []


@pytest.mark.parametrize("options", ['permitlisten="app:80"', "restrict,port-forwarding", 'role="forward"'])
async def test_a_key_has_what_its_line_lets_it_have(tmp_path: Path, options: str) -> None:
    async with shore(tmp_path) as at, target() as far:
        at.desk.write_keys(f"{options} {line_of(at.desk.alice)}")
        async with at.connect() as connection:
            await forwards(connection, "app", 80, far)
            assert len(at.places()) == 1


async def test_a_key_that_may_only_forward_sees_no_console(tmp_path: Path) -> None:
    async with shore(tmp_path) as at:
        at.desk.write_keys(f'role="forward" {line_of(at.desk.alice)}')
        async with at.connect() as connection:
            done = await connection.run("status")
            assert done.exit_status == 1
            assert "this key may only forward" in str(done.stderr)


async def test_who_asks_for_place_after_place_gets_so_many(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target() as far, at.connect() as connection:
        for _ in range(MOST_PLACES):
            await forwards(connection, "localhost", 0, far)
        await is_denied(connection, "localhost", 0)
        assert f"has {MOST_PLACES} public places already" in at.refusals()[-1]


async def test_the_limits_of_the_service_hold_for_places_and_visitors(tmp_path: Path) -> None:
    async with (
        shore(tmp_path, limits=LimitSettings(sessions=2, channels=1)) as at,
        target() as far,
        at.connect() as connection,
    ):
        listener = await forwards(connection, "localhost", 0, far)
        await is_denied(connection, "localhost", 0)
        assert "the limit of 2 sessions is reached" in at.refusals()[-1]
        async with calling(f"127.0.0.1:{listener.get_port()}") as caller:
            await echoes(caller, b"one")
            async with calling(f"127.0.0.1:{listener.get_port()}") as other:
                assert await other.read_to_end() == b""


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_the_terminal_shows_the_places_who_comes_and_what_was_refused(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(Service().serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        await is_denied(connection, "localhost", 1)
        port = (await forwards(connection, "localhost", 0, far)).get_port()
        process = await connection.create_process(term_type="xterm")
        url = f"http://app.localhost:{at.web.address.rpartition(':')[2]}"
        assert await process.stdout.readline() == f"forwarding {url} (-R app:80)\r\n"
        assert (await process.stdout.readline()).startswith("refused    -R 1: port 1 is not offered here")
        assert (await process.stdout.readline()).startswith(f"forwarding localhost:{port} (-R ")
        async with at.web.visiting("app.localhost") as visitor:
            await visitor.get("/look?secret=1")
        line = await process.stdout.readline()
        assert line.endswith("  GET app.localhost/look\r\n")
        process.stdin.write("\x03")
        assert (await process.wait()).exit_status == 0


async def test_a_terminal_for_which_there_is_nothing_says_why_and_ends(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, at.connect() as connection:
        await is_denied(connection, "localhost", 1)
        done = await connection.run()
        assert done.exit_status == 1
        assert "refused    -R 1: port 1 is not offered here" in str(done.stdout)


async def test_a_client_that_does_not_read_its_terminal_is_told_later_how_much_it_missed(tmp_path: Path) -> None:
    async with shore(tmp_path) as at, target(Service().serve) as far, at.connect() as connection:
        await forwards(connection, "app", 80, far)
        channel_window = 1024
        process = await connection.create_process(term_type="xterm", window=channel_window)
        process.channel.pause_reading()
        async with at.web.visiting("app.localhost") as visitor:
            for _ in range(900):
                await visitor.get("/" + "x" * 200)
        process.channel.resume_reading()
        async with asyncio.timeout(30):
            while "lines are left out" not in await process.stdout.readline():
                pass
