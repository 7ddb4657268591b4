"""The relay client's session with servers by hand, right and wrong."""

from __future__ import annotations

import pytest

from loopback import blackhole, digest_at_end, hears, listen_only, nobody, running, sha256, told
from relay_peers import Frame, answer, attached, relay_client, relay_host
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Crashed, PeerRefused, ServiceConnected, ServiceRetrying, SessionClosed
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.relay import DATA_MAGIC, KEY_LENGTH, NativeHello, Want, encode_message, encode_visitor
from waiting import until
from yamux_frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, data, frame

PROTOCOL_ERROR = Frame(GO_AWAY, 0, 0, 1)
WINDOW_SIZE = 262_144
NOWHERE = HostPort("127.0.0.1", 1)
ADDRESS = answer(b"localhost:7101")
BRIEF = LimitSettings(handshake_timeout=Duration(0.1))


@pytest.fixture(autouse=True)
def _brief_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)


async def test_a_server_that_gives_an_address_is_connected_and_its_streams_lead_to_the_target() -> None:
    async with relay_host() as host, attached(host) as (engine, _):
        peer = await host.backend()
        assert await peer.find(WINDOW, 1, FIN)
        assert engine.services["shop"].address == "localhost:7101"
        await peer.send(frame(WINDOW, SYN, 2), data(2, b"ping"))
        assert await peer.find(WINDOW, 2, ACK)
        assert await peer.read(2, 4) == b"ping"


async def test_a_visitor_who_comes_in_the_same_read_as_the_address_is_led_to_the_target() -> None:
    hurried = ADDRESS + frame(WINDOW, SYN, 2) + data(2, b"ping")
    async with relay_host(hurried) as host, attached(host):
        assert await (await host.backend()).read(2, 4) == b"ping"


async def test_all_that_a_visitor_says_before_its_target_is_connected_is_delivered_first() -> None:
    said = bytes(WINDOW_SIZE)
    async with relay_host() as host, attached(host, digest_at_end) as _:
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2), data(2, said), frame(WINDOW, FIN, 2))
        assert await peer.read(2, 32) == sha256(said)
        await peer.find(WINDOW, 2, FIN)


async def test_a_visitor_who_leaves_before_its_target_is_connected_leaves_nothing_behind() -> None:
    async with relay_host() as host, attached(host, listen_only) as (engine, far):
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2), frame(WINDOW, RST, 2))
        await until(lambda: far.served)
        await until(lambda: not far.open and not len(engine.services["shop"].tasks))
        assert not engine.node.sessions.channels


async def test_a_target_that_refuses_is_a_reset_of_the_stream() -> None:
    closed = nobody()
    async with relay_host() as host, running(shop=relay_client(host.address, closed)):
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2))
        await peer.find(WINDOW, 2, RST)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"no public port of 1-2 is free", "gave no public port: no public port of 1-2 is free"),
        (b"nonsense", 'gave no public port, but "nonsense", which is no host:port'),
        (b"localhost:70000", 'gave no public port, but "localhost:70000", which is no host:port'),
        (b"\xff\xfe", 'gave no public port, but "\ufffd\ufffd", which is no host:port'),
        (b"a" * 129, "the public address is too long"),
        (b"", "gave no public port, and said nothing of why"),
    ],
)
async def test_a_server_that_gives_no_address_is_tried_again_with_what_it_said(said: bytes, reason: str) -> None:
    async with relay_host(answer(said)) as host, running(shop=relay_client(host.address, NOWHERE)) as engine:
        await hears(engine, ServiceRetrying, reason)
        for _ in range(2):
            await (await host.backend()).rest()
        assert not told(engine, ServiceConnected)


@pytest.mark.parametrize("said", [b"", frame(WINDOW, ACK, 1)], ids=["nothing", "no address"])
async def test_a_server_that_is_silent_is_given_up_in_time(said: bytes) -> None:
    async with relay_host(said) as host, running(shop=relay_client(host.address, NOWHERE, limits=BRIEF)) as engine:
        await hears(engine, ServiceRetrying, f"{host.address} did not give a public port within 0.1 s")


async def test_a_server_that_does_not_take_the_connection_is_given_up_in_time() -> None:
    with blackhole() as silent:
        async with running(shop=relay_client(silent, NOWHERE, limits=BRIEF)) as engine:
            await hears(
                engine,
                ServiceRetrying,
                f"cannot reach the relay server {silent}: the server did not answer within 0.1 s",
            )


async def test_a_server_that_is_not_there_is_tried_again_until_it_is() -> None:
    closed = nobody()
    async with running(shop=relay_client(closed, NOWHERE)) as engine:
        await until(lambda: len(told(engine, ServiceRetrying)) >= 2)
        assert "connection refused" in told(engine, ServiceRetrying)[0].error
        assert engine.services["shop"].state in ("backoff", "connecting")


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x46" + bytes(5)])
async def test_a_server_that_speaks_something_else_is_tried_again_with_the_cause(garbage: bytes) -> None:
    async with relay_host(garbage) as host, running(shop=relay_client(host.address, NOWHERE)) as engine:
        await hears(engine, ServiceRetrying, "protocol error: the remote sent a yamux frame of version")
        assert PROTOCOL_ERROR in await (await host.backend()).rest()


async def test_an_answer_cut_at_any_byte_is_tried_again() -> None:
    for length in range(len(ADDRESS)):
        async with (
            relay_host(ADDRESS[:length]) as host,
            Engine({"shop": relay_client(host.address, NOWHERE)}) as engine,
        ):
            (await host.backend()).writer.write_eof()
            await hears(engine, ServiceRetrying, "closed before it gave a public port")


async def test_an_answer_one_byte_at_a_time_works() -> None:
    async with relay_host(b"") as host, Engine({"shop": relay_client(host.address, NOWHERE)}) as engine:
        peer = await host.backend()
        for byte in ADDRESS:
            await peer.send(bytes([byte]))
        await until(lambda: engine.services["shop"].state == "connected")


VIOLATIONS = {
    "version": (b"\x01" + frame(WINDOW, 0, 2)[1:], "version 1"),
    "type": (frame(4, 0, 2), "unknown type 4"),
    "flags": (frame(WINDOW, 16, 2), "undefined flags 0x0010"),
    "stream that was never opened": (frame(WINDOW, 0, 8, 1), "stream 8, which was never opened"),
    "stream of the other side": (frame(WINDOW, SYN, 7), "its streams have an even id"),
    "stream 0": (frame(DATA, 0, 0, 1, b"x"), "stream id 0"),
    "syn on a live stream": (frame(WINDOW, SYN, 2), "which is open already"),
    "data beyond the window": (frame(DATA, 0, 2, WINDOW_SIZE + 1), "its window is 262144"),
    "window beyond its field": (frame(WINDOW, 0, 2, 2**32 - 1) * 2, "widened yamux stream 2 beyond"),
    "ping with no meaning": (frame(PING, FIN, 0), "expected SYN or ACK"),
    "pings without end": (frame(PING, SYN, 0, 1) * 5000, "without reading the answers"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_server_that_breaks_yamux_is_told_and_left_and_tried_again(violation: str) -> None:
    said, cause = VIOLATIONS[violation]
    async with relay_host() as host, attached(host, listen_only) as (engine, far):
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2))
        await peer.find(WINDOW, 2, ACK)
        await until(lambda: far.open)
        await peer.send(said)
        assert PROTOCOL_ERROR in await peer.rest()
        await hears(engine, SessionClosed, cause)
        await hears(engine, ServiceRetrying, cause)
        await until(lambda: not far.open)
        await host.backend()
        await until(lambda: len(told(engine, ServiceConnected)) == 2)
        assert len(engine.node.sessions.sessions) == 1


@pytest.mark.parametrize("way", ["reset", "orderly", "go away"])
async def test_a_server_that_goes_takes_every_visitor_with_it_and_is_tried_again(way: str) -> None:
    async with relay_host() as host, attached(host, listen_only) as (engine, far):
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2))
        await until(lambda: far.open)
        match way:
            case "reset":
                peer.reset()
            case "orderly":
                peer.writer.write_eof()
            case _:
                await peer.send(frame(GO_AWAY, 0, 0, 2))
        await hears(engine, ServiceRetrying, str(host.address))
        await until(lambda: not far.open)
        await host.backend()


async def test_a_server_that_is_dead_is_noticed_by_keepalive_and_its_data_connections_go_with_it() -> None:
    async with (
        relay_host(native=True) as host,
        attached(host, keepalive=Duration(0.2)) as (engine, _),
    ):
        await host.native_backend()
        spare = await host.data_connection()
        await hears(engine, ServiceRetrying, "nothing heard for 0.2 s after a keepalive")
        assert await spare.broken()


async def test_a_server_that_goes_while_a_target_is_dialled_leaves_nothing_behind() -> None:
    with blackhole() as silent:
        async with relay_host() as host, running(shop=relay_client(host.address, silent)) as engine:
            peer = await host.backend()
            await peer.send(frame(WINDOW, SYN, 2))
            await peer.find(WINDOW, 2, ACK)
            peer.reset()
            await hears(engine, ServiceRetrying)
            await host.backend()
            await until(lambda: engine.services["shop"].state == "connected")


async def test_a_flood_of_streams_is_served_as_far_as_the_backlog_goes_and_the_rest_is_reset() -> None:
    async with relay_host() as host, attached(host) as (engine, far):
        peer = await host.backend()
        await peer.send(*(frame(WINDOW, SYN, 2 + 2 * number) for number in range(300)))
        await peer.send(frame(PING, SYN, 0, 7))
        await peer.find(PING, 0, ACK)
        await until(lambda: far.served >= 256)
        assert engine.services["shop"].state == "connected"


async def test_a_stream_for_native_messages_that_the_server_resets_at_once_does_no_harm() -> None:
    async with relay_host(native=True) as host, attached(host) as (engine, _):
        peer = await host.backend()
        await peer.find(WINDOW, 3, SYN)
        await peer.send(frame(WINDOW, ACK, 3), frame(WINDOW, RST, 3), frame(WINDOW, SYN, 2), data(2, b"ping"))
        assert await peer.read(2, 4) == b"ping"
        assert not told(engine, Crashed)


async def test_garbage_on_the_stream_for_native_messages_ends_the_session_with_the_cause() -> None:
    async with relay_host(native=True) as host, attached(host) as (engine, _):
        peer = await host.native_backend()
        await peer.send(data(3, b"nonsense\n"))
        await hears(engine, ServiceRetrying, "is not JSON")


async def test_a_data_connection_begins_with_the_key_and_leads_its_visitor_to_the_target() -> None:
    async with relay_host(native=True) as host, attached(host, spare_connections=1):
        await host.native_backend()
        connection = await host.data_connection()
        await connection.send(encode_visitor("192.0.2.1:50000") + b"early ")
        assert await connection.exchange(b"and late") == b"early and late"


async def test_a_data_connection_that_names_its_visitor_one_byte_at_a_time_works() -> None:
    async with relay_host(native=True) as host, attached(host, spare_connections=1):
        await host.native_backend()
        connection = await host.data_connection()
        for byte in encode_visitor("192.0.2.1:50000"):
            await connection.send(bytes([byte]))
        assert await connection.exchange(b"ping") == b"ping"


@pytest.mark.parametrize("said", [encode_visitor("nonsense"), encode_visitor("192.0.2.1:50000")[:7], b"\x00"])
async def test_a_data_connection_that_names_no_visitor_is_an_event(said: bytes) -> None:
    async with relay_host(native=True) as host, attached(host, spare_connections=1) as (engine, far):
        await host.native_backend()
        connection = await host.data_connection()
        await connection.send(said)
        connection.half_close()
        await connection.broken()
        await hears(engine, PeerRefused, "no data connection to it")
        assert not far.served


async def test_data_connections_that_are_turned_away_are_not_dialled_again_until_one_is_wanted() -> None:
    async with relay_host(native=True) as host, attached(host, spare_connections=2) as (engine, _):
        peer = await host.native_backend()
        for _ in range(2):
            await (await host.data_connection()).close()
        await until(lambda: not len(engine.services["shop"].tasks))
        await peer.send(data(3, encode_message(Want(3))))
        for _ in range(3):
            await (await host.data_connection()).close()
        await until(lambda: not len(engine.services["shop"].tasks))
        await peer.send(frame(PING, SYN, 0, 1))
        await peer.find(PING, flags=ACK)
        assert host.data_connections == 5


async def test_a_server_is_told_how_many_data_connections_are_kept_waiting() -> None:
    async with relay_host(native=True) as host, attached(host, spare_connections=7):
        peer = await host.backend()
        await peer.find(WINDOW, 3, SYN)
        await peer.send(frame(WINDOW, ACK, 3))
        assert (await peer.find(DATA, 3)).payload == b'{"native":1,"spare":7}\n'


async def test_a_server_gets_no_more_data_connections_at_once_than_the_client_will_keep() -> None:
    async with relay_host(native=True) as host, attached(host, spare_connections=0) as (engine, _):
        peer = await host.native_backend()
        await peer.send(data(3, encode_message(Want(256)) * 3))
        await until(lambda: host.data_connections == 256)
        assert len(engine.services["shop"].tasks) == 256


async def test_without_native_a_server_of_ours_is_served_through_yamux_only() -> None:
    async with relay_host(native=True) as host, attached(host, native=False):
        peer = await host.backend()
        await peer.send(frame(WINDOW, SYN, 2), data(2, b"ping"), frame(WINDOW, FIN, 2))
        frames = []
        while (found := await peer.next()) is not None and not (found.stream_id == 2 and found.flags & FIN):
            frames.append(found)
        assert 3 not in {found.stream_id for found in frames}


def test_the_first_bytes_of_a_data_connection_are_as_documented() -> None:
    assert DATA_MAGIC == b"TCRELAY1"
    assert KEY_LENGTH == 32
    assert encode_message(NativeHello(4)) == b'{"native":1,"spare":4}\n'
