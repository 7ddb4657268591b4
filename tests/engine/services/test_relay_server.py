"""The relay server: newcomers, public ports and backends by hand, on real sockets."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from loopback import BULK, calling, hears, told
from relay_peers import Edge, Frame, ask_for_key, attaches, edge, one_port, shop_at
from tunnelconsole.engine.events import BackendLeft, ChannelClosed, PeerRefused
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.relay import backend as backend_module
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.relay import NATIVE_WINDOW, NativeHello, encode_data_hello, encode_message
from waiting import until
from yamux_frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, data, frame

PROTOCOL_ERROR = Frame(GO_AWAY, 0, 0, 1)
WINDOW_SIZE = 262_144


async def test_a_backend_gets_a_port_and_its_visitors_come_on_streams_of_their_own() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as one, calling(address) as two:
        first, second = await peer.visitor(), await peer.visitor()
        assert (first, second) == (2, 4)
        await one.send(b"from one")
        assert await peer.read(2, 8) == b"from one"
        await peer.send(data(4, b"to two"), data(2, b"to one"))
        assert await one.read(6) == b"to one"
        assert await two.read(6) == b"to two"


async def test_half_closes_are_passed_on_in_both_directions() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        stream_id = await peer.visitor()
        await visitor.send(b"question")
        visitor.half_close()
        assert await peer.read(stream_id, 8) == b"question"
        await peer.find(WINDOW, stream_id, FIN)
        await peer.send(data(stream_id, b"answer"), frame(WINDOW, FIN, stream_id))
        assert await visitor.read_to_end() == b"answer"
        closed = await hears(at.engine, ChannelClosed)
        assert (closed.bytes_in, closed.bytes_out, closed.cause) == (6, 8, "")


async def test_a_stream_that_the_backend_resets_becomes_a_reset_for_its_visitor_alone() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as one, calling(address) as two:
        await peer.visitor()
        await peer.visitor()
        await peer.send(frame(WINDOW, RST, 2))
        assert await one.broken()
        await peer.send(data(4, b"still here"))
        assert await two.read(10) == b"still here"


async def test_a_visitor_that_is_reset_resets_its_stream() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        stream_id = await peer.visitor()
        visitor.reset()
        await peer.find(WINDOW, stream_id, RST)


async def test_the_windows_limit_what_is_sent_to_a_backend_that_grants_no_more() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        stream_id = await peer.visitor()
        flooding = asyncio.gather(visitor.send(BULK), return_exceptions=True)
        assert await peer.read(stream_id, WINDOW_SIZE) == BULK[:WINDOW_SIZE]
        await peer.send(frame(PING, SYN, 0, 7))
        assert await peer.next() == Frame(PING, ACK, 0, 7)
        await peer.send(frame(WINDOW, 0, stream_id, 1000))
        assert await peer.read(stream_id, 1000) == BULK[WINDOW_SIZE : WINDOW_SIZE + 1000]
        visitor.reset()
        await flooding


async def test_a_visitor_that_does_not_read_uses_its_own_window_only() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as stalled, calling(address) as other:
        await peer.visitor()
        await peer.visitor()
        await stalled.send(b"I do not read")
        await peer.send(data(2, bytes(WINDOW_SIZE)))
        await peer.send(data(4, b"still here"))
        assert await other.read(10) == b"still here"


@pytest.fixture
def behind_at_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that has not acknowledged two streams is behind."""
    monkeypatch.setattr("tunnelconsole.engine.wire.yamux.MAX_UNACKNOWLEDGED", 2)


def _waiting(at: Edge) -> int:
    """Visitors who wait to be led to a backend."""
    return sum(backend.waiting for backend in at.service.backends.values())


@pytest.mark.usefixtures("behind_at_two")
async def test_visitors_beyond_those_that_a_backend_lets_wait_come_when_it_has_taken_the_others() -> None:
    async with (
        edge() as at,
        at.backend() as (peer, address),
        calling(address),
        calling(address),
        calling(address) as third,
        calling(address) as fourth,
    ):
        await until(lambda: _waiting(at) == 2)
        await third.send(b"third")
        await fourth.send(b"fourth")
        assert (await peer.find(WINDOW, flags=SYN)).stream_id == 2
        assert (await peer.find(WINDOW, flags=SYN)).stream_id == 4
        await peer.send(frame(WINDOW, ACK, 2))
        assert await peer.read(6, 5) == b"third"
        assert _waiting(at) == 1
        await peer.send(frame(WINDOW, ACK, 6))
        assert await peer.read(8, 6) == b"fourth"


@pytest.mark.usefixtures("behind_at_two")
async def test_a_backend_that_resets_the_streams_it_is_behind_with_gets_the_visitors_who_wait() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address), calling(address), calling(address):
        await until(lambda: _waiting(at) == 1)
        assert (await peer.find(WINDOW, flags=SYN)).stream_id == 2
        await peer.send(frame(WINDOW, RST, 2))
        await peer.find(WINDOW, 6, SYN)


@pytest.mark.usefixtures("behind_at_two")
@pytest.mark.parametrize("way", ["goes away", "breaks off", "is stopped"])
async def test_visitors_who_wait_for_a_backend_that_is_behind_are_cut_when_it(way: str) -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address), calling(address):
        async with calling(address) as third:
            await until(lambda: _waiting(at) == 1)
            match way:
                case "goes away":
                    await peer.send(frame(GO_AWAY, 0, 0, 0))
                case "breaks off":
                    peer.reset()
                case _:
                    at.service.stop_accepting()
            assert await third.broken()
        assert _waiting(at) == 0


@pytest.mark.usefixtures("behind_at_two")
async def test_beyond_those_who_may_wait_for_a_backend_that_is_behind_a_visitor_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "MAX_QUEUED", 1)
    async with edge() as at, at.backend() as (_, address), calling(address), calling(address), calling(address):
        await until(lambda: _waiting(at) == 1)
        with suppress(ConnectionResetError):  # which may come before the connection is made
            async with calling(address) as fourth:
                assert await fourth.broken()
        await hears(at.engine, PeerRefused, "its backend takes no more visitors")


async def test_a_session_shows_its_peer_its_public_port_and_each_visitor_with_its_bytes() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        stream_id = await peer.visitor()
        await visitor.send(b"four")
        assert await peer.read(stream_id, 4) == b"four"
        await peer.send(data(stream_id, b"and seven"))
        assert await visitor.read(9) == b"and seven"
        (session,) = at.engine.node.sessions.sessions.values()
        (channel,) = at.engine.node.sessions.channels.values()
        assert (session.address, session.kind, session.channels) == (address, "relay-server", 1)
        assert (channel.label, channel.peer) == (session.peer, visitor.name)
        assert (channel.flow.bytes_in, channel.flow.bytes_out) == (9, 4)


async def test_a_session_one_byte_at_a_time_works() -> None:
    async with edge() as at, at.newcomer() as peer:
        for byte in frame(WINDOW, SYN, 1):
            await peer.send(bytes([byte]))
        address = (await peer.find(DATA, 1)).payload.decode()
        async with calling(address) as visitor:
            stream_id = await peer.visitor()
            for byte in data(stream_id, b"answer", FIN):
                await peer.send(bytes([byte]))
            assert await visitor.read_to_end() == b"answer"


@pytest.mark.usefixtures("all_told")
@pytest.mark.parametrize("said", [frame(WINDOW, SYN, 1), encode_data_hello(bytes(32))], ids=["yamux", "native"])
async def test_a_handshake_cut_at_any_byte_is_an_event_and_disturbs_nobody(said: bytes) -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        for length in range(len(said)):
            async with at.calling() as newcomer:
                await newcomer.send(said[:length])
                newcomer.half_close()
                assert await newcomer.read_to_end() == b""
        await until(lambda: len(told(at.engine, PeerRefused)) == len(said))
        assert all("closed" in event.reason for event in told(at.engine, PeerRefused))
        assert len(at.engine.node.sessions.sessions) == 1
        await peer.send(data(await peer.visitor(), b"still here"))
        assert await visitor.read(10) == b"still here"


@pytest.mark.parametrize("said", [b"", frame(WINDOW, SYN, 1)[:7], encode_data_hello(bytes(32))[:20]])
async def test_a_handshake_that_takes_too_long_is_ended_with_an_event(said: bytes) -> None:
    async with edge(limits=LimitSettings(handshake_timeout=Duration(0.1))) as at:
        async with at.calling() as newcomer:
            await newcomer.send(said)
            await newcomer.read_to_end()
        await hears(at.engine, PeerRefused, "no handshake within 0.1 s")
        await until(lambda: not len(at.service.tasks))


async def test_a_reset_inside_the_handshake_is_an_event() -> None:
    async with edge() as at, at.newcomer() as peer:
        await peer.send(frame(WINDOW, SYN, 1)[:7])
        await until(lambda: len(at.service.tasks))
        peer.reset()
        await hears(at.engine, PeerRefused)
        await until(lambda: not len(at.service.tasks))


@pytest.mark.parametrize(
    ("garbage", "reason", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "version 71", [PROTOCOL_ERROR]),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
            "it spoke TLS to a listener without it",
            [PROTOCOL_ERROR],
        ),
        (b"TRACE / HTTP/1.1\r\n", "begins neither like yamux nor like a data connection", []),
        (bytes(64), "stream id 0", [PROTOCOL_ERROR]),
        (frame(WINDOW, SYN, 2), "its streams have an odd id", [PROTOCOL_ERROR]),
        (frame(DATA, 0, 1, 5, b"hello"), "which was never opened", [PROTOCOL_ERROR]),
        (frame(GO_AWAY, 0, 0, 2), "ended the session with code 2", []),
    ],
)
async def test_garbage_is_an_event_with_the_cause(garbage: bytes, reason: str, answer: list[Frame]) -> None:
    async with edge() as at:
        async with at.newcomer() as peer:
            await peer.send(garbage)
            assert await peer.rest() == answer
        await hears(at.engine, PeerRefused, reason)
        assert not at.engine.node.sessions.sessions
        await attaches(at)


VIOLATIONS = {
    "version": (b"\x01" + frame(WINDOW, 0, 2)[1:], "version 1"),
    "type": (frame(4, 0, 2), "unknown type 4"),
    "flags": (frame(WINDOW, 16, 2), "undefined flags 0x0010"),
    "stream that was never opened": (frame(WINDOW, 0, 8, 1), "stream 8, which was never opened"),
    "stream of the other side": (frame(WINDOW, SYN, 8), "its streams have an odd id"),
    "stream 0": (frame(DATA, 0, 0, 1, b"x"), "stream id 0"),
    "syn on a live stream": (frame(WINDOW, SYN, 5) + frame(WINDOW, SYN, 5), "which is open already"),
    "second fin": (frame(WINDOW, FIN, 2) * 2, "closed yamux stream 2 twice"),
    "data beyond the window": (frame(DATA, 0, 2, WINDOW_SIZE + 1), "its window is 262144"),
    "window beyond its field": (frame(WINDOW, 0, 2, 2**32 - 1) * 2, "widened yamux stream 2 beyond"),
    "ping for a stream": (frame(PING, SYN, 2), "it belongs to none"),
    "ping with no meaning": (frame(PING, FIN, 0), "expected SYN or ACK"),
    "pings without end": (frame(PING, SYN, 0, 1) * 5000, "without reading the answers"),
    "go-away with an unknown code": (frame(GO_AWAY, 0, 0, 9), "unknown code 9"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_backend_that_breaks_yamux_is_told_and_ended_with_the_cause_and_nobody_else_is(violation: str) -> None:
    said, cause = VIOLATIONS[violation]
    async with edge() as at, shop_at(at) as bystander, bystander.visiting() as undisturbed:
        async with at.backend() as (peer, address), calling(address) as visitor:
            await peer.visitor()
            await peer.send(said)
            assert PROTOCOL_ERROR in await peer.rest()
            assert await visitor.broken()
            left = await hears(at.engine, BackendLeft, cause)
            assert left.address == address
        assert await undisturbed.exchange(b"still here") == b"still here"


async def test_streams_that_nobody_asked_for_are_reset() -> None:
    async with edge() as at, at.backend() as (peer, address), calling(address) as visitor:
        stream_id = await peer.visitor()
        await ask_for_key(peer)
        await peer.send(*(frame(WINDOW, SYN, 5 + 2 * number) for number in range(100)))
        for number in range(100):
            await peer.find(WINDOW, 5 + 2 * number, RST)
        await peer.send(data(stream_id, b"still here"))
        assert await visitor.read(10) == b"still here"


async def test_a_flood_of_streams_that_nobody_asked_for_ends_the_session() -> None:
    async with edge(native=False) as at, at.backend() as (peer, _):
        for number in range(256):
            await peer.send(frame(WINDOW, SYN, 3 + 2 * number))
            await peer.find(WINDOW, 3 + 2 * number, RST)
        assert at.service.attached
        await peer.send(frame(WINDOW, SYN, 1001))
        await peer.rest()
        await hears(at.engine, BackendLeft, "the backend opens stream after stream")


async def test_a_backend_that_takes_its_first_stream_back_at_once_leaves_nothing_behind() -> None:
    pool = one_port()
    async with edge(ports=pool) as at:
        async with at.newcomer() as peer:
            await peer.send(frame(WINDOW, SYN, 1), frame(WINDOW, RST, 1))
            await peer.rest()
        await hears(at.engine, PeerRefused, "it left during the handshake")
        assert not at.engine.node.sessions.sessions
        assert await attaches(at) == f"127.0.0.1:{pool.first}"


async def test_a_backend_that_closes_its_side_of_its_first_stream_at_once_gets_a_port() -> None:
    async with edge() as at, at.newcomer() as peer:
        await peer.send(frame(WINDOW, SYN, 1), frame(WINDOW, FIN, 1))
        address = (await peer.find(DATA, 1)).payload.decode()
        async with calling(address) as visitor:
            await peer.send(data(await peer.visitor(), b"welcome"))
            assert await visitor.read(7) == b"welcome"


async def test_a_backend_that_asks_for_its_key_and_takes_the_stream_back_lives_on() -> None:
    async with edge() as at, at.backend() as (peer, address):
        await peer.send(frame(WINDOW, SYN, 3), data(3, encode_message(NativeHello())), frame(WINDOW, RST, 3))
        async with calling(address) as visitor:
            await peer.send(data(await peer.visitor(), b"still here"))
            assert await visitor.read(10) == b"still here"


async def test_a_backend_that_asks_for_its_key_again_and_again_gets_it_once() -> None:
    async with edge() as at, at.backend() as (peer, address):
        await ask_for_key(peer)
        await peer.send(data(3, encode_message(NativeHello()) * 5000))
        async with calling(address) as visitor:
            assert await peer.read(3, 11) == b'{"want":1}\n'
            await visitor.close()


async def test_garbage_on_the_stream_for_native_messages_ends_the_session() -> None:
    async with edge() as at, at.backend() as (peer, _):
        await peer.send(frame(WINDOW, SYN, 3), data(3, b"nonsense\n"))
        await peer.rest()
        await hears(at.engine, BackendLeft, "is not JSON")


async def test_a_data_connection_with_a_wrong_key_is_refused_with_an_event() -> None:
    async with edge() as at, at.backend() as (peer, _):
        await ask_for_key(peer)
        async with at.calling() as newcomer:
            await newcomer.send(encode_data_hello(bytes(32)))
            assert await newcomer.read_to_end() == b""
        await hears(at.engine, PeerRefused, "its key belongs to no backend")


async def test_a_data_connection_that_speaks_before_it_has_a_visitor_is_refused_with_an_event() -> None:
    async with edge() as at, at.backend() as (peer, _):
        key = await ask_for_key(peer)
        async with at.calling() as hasty:
            await hasty.send(encode_data_hello(key) + b"hello")
            await hasty.broken()
        await hears(at.engine, PeerRefused, "said something before it had a visitor")


async def test_a_visitor_is_led_over_a_data_connection_that_waits() -> None:
    async with edge() as at, at.backend() as (peer, address), at.calling() as spare:
        await spare.send(encode_data_hello(await ask_for_key(peer)))
        await until(lambda: any(backend._spare for backend in at.service.backends.values()))
        async with calling(address) as visitor:
            name = await spare.read((await spare.read(1))[0])
            assert name.decode() == visitor.name
            await spare.send(BULK)
            spare.half_close()
            assert await visitor.exchange(b"question") == BULK
            assert await spare.read_to_end() == b"question"
        closed = await hears(at.engine, ChannelClosed)
        assert (closed.visitor, closed.bytes_in, closed.bytes_out) == (visitor.name, len(BULK), 8)


async def test_each_visitor_without_a_spare_data_connection_asks_for_one() -> None:
    async with edge() as at, at.backend() as (peer, address):
        key = await ask_for_key(peer)
        async with calling(address) as one, calling(address) as two, at.calling() as late, at.calling() as later:
            assert await peer.read(3, 22) == b'{"want":1}\n' * 2
            served = set()
            for connection in (late, later):
                await connection.send(encode_data_hello(key))
                served.add((await connection.read((await connection.read(1))[0])).decode())
            assert served == {one.name, two.name}


async def test_a_spare_data_connection_that_has_died_is_not_given_to_a_visitor() -> None:
    async with edge() as at, at.backend() as (peer, address):
        key = await ask_for_key(peer)
        for _ in range(2):
            async with at.calling() as spare:
                await spare.send(encode_data_hello(key))
                await until(lambda: any(backend._spare for backend in at.service.backends.values()))
            await until(lambda: not any(backend._spare for backend in at.service.backends.values()))
        async with calling(address):
            assert await peer.read(3, 11) == b'{"want":1}\n'


async def test_visitors_go_through_yamux_when_data_connections_do_not_come_and_later_ones_do_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "DATA_CONNECTION_PATIENCE", 0.05)
    async with edge() as at, at.backend() as (peer, address):
        key = await ask_for_key(peer)
        async with calling(address) as first:
            assert await peer.read(3, 11) == b'{"want":1}\n'
            await peer.send(data(await peer.visitor(), b"to the first"))
            assert await first.read(12) == b"to the first"
            monkeypatch.setattr(backend_module, "DATA_CONNECTION_PATIENCE", 3600.0)
            async with calling(address) as second:
                await peer.send(data(await peer.visitor(), b"to the second"))
                assert await second.read(13) == b"to the second"
        async with at.calling() as late:
            await late.send(encode_data_hello(key))
            await until(lambda: any(backend._spare for backend in at.service.backends.values()))
            async with calling(address) as third:
                assert (await late.read((await late.read(1))[0])).decode() == third.name
        async with calling(address) as fourth, at.calling() as in_time:
            await in_time.send(encode_data_hello(key))
            assert (await in_time.read((await in_time.read(1))[0])).decode() == fourth.name


async def test_a_visitor_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async with edge() as at, at.backend() as (peer, address):
        key = await ask_for_key(peer)
        async with calling(address) as visitor:
            await peer.read(3, 11)
            visitor.reset()
        async with at.calling() as connection:
            await connection.send(encode_data_hello(key))
            await connection.broken()
        await until(lambda: told(at.engine, ChannelClosed) and not at.engine.node.sessions.channels)


async def test_visitors_who_wait_are_cut_when_their_backend_leaves() -> None:
    async with edge() as at:
        async with at.backend() as (peer, address):
            await ask_for_key(peer)
            async with calling(address) as visitor:
                await peer.read(3, 11)
                peer.reset()
                assert await visitor.broken()
        await until(lambda: not at.engine.node.sessions.sessions)


async def test_without_native_no_key_is_given_and_the_first_stream_shows_no_sign() -> None:
    async with edge(native=False) as at, at.newcomer() as peer:
        await peer.send(frame(WINDOW, SYN, 1))
        assert await peer.next() == Frame(WINDOW, ACK, 1, 0)
        await peer.send(frame(WINDOW, SYN, 3))
        await peer.find(WINDOW, 3, RST)
    async with edge() as at, at.newcomer() as peer:
        await peer.send(frame(WINDOW, SYN, 1))
        assert await peer.next() == Frame(WINDOW, ACK, 1, NATIVE_WINDOW)
