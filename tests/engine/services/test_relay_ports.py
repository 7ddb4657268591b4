"""Public ports of the relay server: who gets one, who does not, and when they are free again."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from loopback import calling, hears, open_descriptors, refuses, running, steady, told
from relay_peers import Edge, YamuxPeer, ask_for_key, ask_for_port, attaches, edge, one_port, relay_server
from tunnelconsole.engine import limits
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    BackendAttached,
    BackendLeft,
    ChannelClosed,
    Crashed,
    PeerRefused,
    ServiceRetrying,
)
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import HostPort, ListenAddress, NetworkPattern, PortRange
from tunnelconsole.engine.transport.listener import Listener, listen
from tunnelconsole.engine.units import Duration
from waiting import until
from yamux_frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, data, frame


def leave_by_reset(peer: YamuxPeer) -> None:
    peer.reset()


def leave_in_order(peer: YamuxPeer) -> None:
    peer.writer.close()


def leave_by_half_close(peer: YamuxPeer) -> None:
    peer.writer.write_eof()


def leave_by_going_away(peer: YamuxPeer) -> None:
    peer.writer.write(frame(GO_AWAY, 0, 0, 2))


@pytest.mark.parametrize("leave", [leave_by_reset, leave_in_order, leave_by_half_close, leave_by_going_away])
async def test_a_port_is_free_again_when_its_backend_has_left(leave: Any) -> None:
    async with edge(ports=one_port()) as at:
        async with at.backend() as (peer, address), calling(address) as visitor:
            await peer.visitor()
            leave(peer)
            assert await visitor.broken()
            await until(lambda: not at.engine.node.sessions.sessions, within=1.0)
            assert await attaches(at) == address
        await hears(at.engine, BackendLeft, address)


async def test_a_dead_backend_is_noticed_by_keepalive_and_its_port_is_free_again() -> None:
    async with edge(ports=one_port(), keepalive=Duration(0.1)) as at, at.backend() as (peer, address):
        assert (await peer.find(PING)).flags == SYN
        await hears(at.engine, BackendLeft, "nothing heard for 0.1 s after a keepalive")
        assert await attaches(at) == address


async def test_a_backend_that_answers_its_keepalives_stays() -> None:
    async with edge(keepalive=Duration(0.05)) as at, at.backend() as (peer, _):
        for _ in range(5):
            ping = await peer.find(PING)
            await peer.send(frame(PING, ACK, 0, ping.length))
        assert len(at.engine.node.sessions.sessions) == 1


async def test_each_backend_gets_the_lowest_free_port() -> None:
    async with edge() as probe:
        first = int((await attaches(probe)).rpartition(":")[2])
    pool = PortRange(first, first + 9)
    async with edge(ports=pool) as at, at.backend() as (_, one):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with at.backend() as (_, two):
                numbers = [int(address.rpartition(":")[2]) for address in (one, two)]
                assert numbers == sorted(numbers)
                assert set(numbers) <= set(range(pool.first, pool.last + 1))
            assert await attaches(at) == two


async def test_a_port_that_another_program_has_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with edge(ports=PortRange(port, min(port + 20, 65535))) as at:
            assert int((await attaches(at)).rpartition(":")[2]) > port


async def test_when_the_pool_is_empty_the_backend_is_told_why_in_place_of_its_address() -> None:
    pool = one_port()
    async with edge(ports=pool) as at, at.backend():
        async with at.newcomer() as peer:
            assert (await ask_for_port(peer)).startswith(f"no public port of {pool.first}-{pool.last} is free")
            assert (await peer.find(GO_AWAY)).length == 0
            peer.writer.write_eof()
            await peer.rest()
        await hears(at.engine, PeerRefused, "is free")
        assert len(at.engine.node.sessions.sessions) == 1


async def test_a_backend_that_was_told_why_not_is_cut_off_when_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.services.relay.backend.FAREWELL_TIME", 0.05)
    async with edge(ports=one_port()) as at, at.backend(), at.newcomer() as peer:
        await ask_for_port(peer)
        await peer.rest()
        await hears(at.engine, PeerRefused, "is free")


async def test_beyond_the_limit_of_sessions_a_backend_is_told_why_in_place_of_its_address() -> None:
    async with edge(limits=LimitSettings(sessions=1)) as at:
        async with at.backend(), at.newcomer() as peer:
            assert await ask_for_port(peer) == "the limit of 1 sessions is reached"
            peer.writer.write_eof()
            await hears(at.engine, PeerRefused, "the limit of 1 sessions is reached")
        await until(lambda: not at.engine.node.sessions.sessions)
        await attaches(at)


class SlowListen:
    """In place of listening on a public port: begins only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.begins = asyncio.Event()
        monkeypatch.setattr("tunnelconsole.engine.services.ports.listen", self)

    async def __call__(self, *arguments: Any) -> Listener:
        self.asked += 1
        await self.begins.wait()
        return await listen(*arguments)


async def test_backends_that_attach_at_the_same_time_do_not_exceed_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(limits=LimitSettings(sessions=1)) as at, at.newcomer() as one, at.newcomer() as two:
        slow = SlowListen(monkeypatch)
        await one.send(frame(WINDOW, SYN, 1))
        await two.send(frame(WINDOW, SYN, 1))
        await until(lambda: slow.asked == 2)
        slow.begins.set()
        said = [(await peer.find(DATA, 1)).payload.decode() for peer in (one, two)]
        assert sum(text.startswith("127.0.0.1:") for text in said) == 1
        assert "the limit of 1 sessions is reached" in said
        assert len(at.service.attached) == 1


@pytest.mark.parametrize("ending", ["left", "too slow", "stopped"])
async def test_a_port_that_is_being_opened_for_a_backend_which_is_gone_goes_back_to_the_pool(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = LimitSettings(handshake_timeout=Duration(0.1 if ending == "too slow" else 10.0))
    async with edge(ports=one_port(), limits=brief) as at:
        before = open_descriptors()
        slow = SlowListen(monkeypatch)
        async with at.newcomer() as peer:
            await peer.send(frame(WINDOW, SYN, 1))
            await until(lambda: slow.asked)
            if ending == "left":
                peer.reset()
                await until(lambda: open_descriptors() < before + 2)
            elif ending == "too slow":
                await hears(at.engine, PeerRefused, "no handshake within 0.1 s")
            else:
                at.service.stop_accepting()
        slow.begins.set()
        await until(lambda: not len(at.service.tasks))
        assert not at.service.ports._taken
        assert not at.engine.node.sessions.sessions
        if ending != "stopped":
            await attaches(at)


async def test_beyond_the_limit_of_channels_a_visitor_is_turned_away_also_while_others_wait() -> None:
    async with edge(limits=LimitSettings(channels=1)) as at, at.backend() as (peer, address):
        await ask_for_key(peer)
        async with calling(address), calling(address) as second:
            assert await second.read_to_end() == b""
            await hears(at.engine, PeerRefused, "the limit of 1 channels is reached")
            assert await peer.read(3, 11) == b'{"want":1}\n'


async def test_a_backend_that_goes_away_gives_its_port_back_and_keeps_the_visitors_it_has() -> None:
    async with edge(ports=one_port()) as at, at.backend() as (peer, address), calling(address) as early:
        stream_id = await peer.visitor()
        await peer.send(frame(GO_AWAY, 0, 0, 0), frame(PING, SYN, 0, 1))
        await peer.find(PING, flags=ACK)
        await refuses(address)
        assert await attaches(at) == address
        await peer.send(data(stream_id, b"still here"))
        assert await early.read(10) == b"still here"


@pytest.mark.parametrize(
    "changes",
    [{"clients_allow": (NetworkPattern("127.0.0.1"),)}, {"clients_deny": (NetworkPattern("127.0.0.2/32"),)}],
    ids=["allow", "deny"],
)
async def test_a_backend_from_a_network_that_is_not_let_in_hears_nothing_and_is_an_event(
    changes: dict[str, Any],
) -> None:
    async with edge(**changes) as at:
        async with at.calling(from_host="127.0.0.2") as stranger:
            assert await stranger.read_to_end() == b""
        event = await hears(at.engine, PeerRefused, "clients_allow")
        assert event.peer == stranger.name
        await attaches(at)


async def test_a_silent_crowd_fills_the_places_for_newcomers_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 1)
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        async with at.calling(), at.calling() as second:
            assert await second.read_to_end() == b""
            await hears(at.engine, PeerRefused, "too many connections are inside their handshake")
            await peer.send(data(await peer.visitor(), b"still here"))
            assert await visitor.read(10) == b"still here"
        await until(lambda: not len(at.service.tasks))
        await attaches(at)


async def test_a_crowd_from_one_address_keeps_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    async with edge() as at, at.calling("127.0.0.2") as oldest, at.calling("127.0.0.2"):
        await until(lambda: len(at.service.tasks) == 2)
        assert await attaches(at)
        await oldest.broken()
        event = await hears(at.engine, PeerRefused, "its place is given to others")
        assert event.peer == oldest.name


async def test_a_newcomer_who_must_make_room_in_the_moment_it_comes_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_HANDSHAKES", 2)
    async with edge() as at:
        where = HostPort.parse(at.address)
        crowd = [  # without a turn of the loop between them, so that all are accepted in one go
            socket.create_connection((where.host, where.port), source_address=(host, 0))
            for host in ("127.0.0.2", "127.0.0.2", "127.0.0.1")
        ]
        await hears(at.engine, PeerRefused, "its place is given to others")
        await until(lambda: len(at.service.tasks) == 2)
        with pytest.raises(ConnectionResetError):
            crowd[0].recv(1)
        for sock in crowd:
            sock.close()
        await until(lambda: not len(at.service.tasks))
        assert await attaches(at)
        assert not told(at.engine, Crashed)


async def test_a_kicked_backend_loses_its_visitors_and_its_port_and_others_go_on() -> None:
    async with edge(ports=one_port()) as at, at.backend() as (peer, address), calling(address) as visitor:
        await peer.visitor()
        (session,) = at.service.attached
        at.engine.kick(session.id)
        assert await visitor.broken()
        await peer.rest()
        await hears(at.engine, BackendLeft, "kicked by an operator")
        assert await attaches(at) == address


async def test_an_idle_visitor_is_cut_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.ticking.TICK", 0.02)
    limited = LimitSettings(idle_timeout=Duration(0.1))
    async with edge(limits=limited) as at, at.backend() as (peer, address), calling(address) as visitor:
        stream_id = await peer.visitor()
        assert await visitor.broken()
        await peer.find(WINDOW, stream_id, RST)
        await hears(at.engine, ChannelClosed, "idle for 0.1 s")


async def test_a_stopped_relay_ends_everything_and_frees_its_ports() -> None:
    settings = {"listen": steady(), "ports": one_port()}
    async with edge(**settings) as at, at.calling(), at.backend() as (peer, address), calling(address) as visitor:
        await peer.visitor()
        await at.engine.stop_service("edge")
        assert await visitor.broken()
        await peer.rest()
        assert not len(at.service.tasks)
        await until(lambda: not at.engine.node.sessions.sessions)
        await refuses(address)
        await refuses(at.address)


@pytest.mark.parametrize("way", ["yamux", "waiting"])
async def test_while_the_engine_drains_visitors_finish_and_nobody_new_is_taken(way: str) -> None:
    engine = Engine({"edge": relay_server(listen=steady(), ports=one_port())})
    await engine.start()
    await engine.settled()
    at = Edge(engine, str(engine.services["edge"].address))
    async with at.backend() as (peer, address), at.calling() as newcomer:
        if way == "waiting":
            await ask_for_key(peer)
        async with calling(address) as visitor:
            if way == "waiting":
                await peer.read(3, 11)
            else:
                stream_id = await peer.visitor()

            async def finish() -> None:
                nonlocal stream_id
                await until(lambda: engine.draining)
                assert await newcomer.broken()
                if way == "waiting":
                    stream_id = await peer.visitor()
                assert (await peer.find(GO_AWAY)).length == 0
                await refuses(address)
                await refuses(at.address)
                await peer.send(data(stream_id, b"the answer"), frame(WINDOW, FIN, stream_id))
                assert await visitor.exchange(b"the question") == b"the answer"
                peer.writer.write_eof()

            stream_id = 2
            await asyncio.gather(engine.stop(drain=30.0), finish())
    assert [event.cause for event in told(engine, ChannelClosed)] == [""]


async def test_a_port_in_use_is_told_with_what_to_do_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ListenAddress("127.0.0.1", taken.getsockname()[1])
        async with running(edge=relay_server(listen=listen)) as engine:
            await hears(engine, ServiceRetrying, "stop it or choose another port in service.edge.listen")


async def test_an_address_for_public_ports_that_is_not_ours_is_told_at_once_with_its_key() -> None:
    async with running(edge=relay_server(bind="192.0.2.1")) as engine:
        event = await hears(engine, ServiceRetrying, "cannot listen on 192.0.2.1: ")
        assert "choose one that it has in service.edge.bind" in event.error


async def test_public_ports_are_told_with_the_public_host() -> None:
    async with edge(public_host="edge.example.net") as at, at.backend() as (_, address):
        assert address.startswith("edge.example.net:")
        assert told(at.engine, BackendAttached)[0].address == address


@pytest.mark.parametrize("host", ["", "two words", "http://a", ".".join(["a" * 60] * 3)])
def test_a_public_host_that_does_not_fit_the_protocol_cannot_be_configured(host: str) -> None:
    assert [key for key, _ in relay_server(public_host=host).problems()] == ["public_host"]
    assert not relay_server(public_host="2001:db8::1").problems()
