"""``tunnelconsole.punch`` in a program."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import tunnelconsole
from loopback import (
    BULK,
    FREE,
    Caller,
    address_of,
    calling,
    digest_at_end,
    echo,
    listen_only,
    nobody,
    open_descriptors,
    running,
    sha256,
    speak_and_close,
    target,
)
from ports import steady_port
from punch_peers import ROOM, SECRET, Rendezvous, rendezvous
from tunnelconsole import punch
from tunnelconsole.engine.services.punch import pairing
from tunnelconsole.engine.settings import Fingerprint, ListenAddress, TLSSettings
from tunnelconsole.engine.wire.punch_room import RoomKey
from tunnelconsole.errors import CertificateRejected, ConnectFailed, CredentialsRefused
from tunnelconsole.punch import Connection
from waiting import until


@pytest.fixture(autouse=True)
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second."""
    monkeypatch.setattr(pairing, "room_key", lambda room, secret: RoomKey(room, sha256(f"{room} {secret}".encode())))


Pair = tuple[Connection, Connection]


@asynccontextmanager
async def pair(at: Rendezvous, **options: Any) -> AsyncIterator[Pair]:
    """Two programs that have met."""
    connecting = [punch.connect(at.address, ROOM, SECRET, **options) for _ in range(2)]
    one, other = await asyncio.gather(*(_waited(each) for each in connecting))
    async with one, other:
        yield one, other


async def _waited(connecting: punch.Connecting) -> Connection:
    return await connecting


async def exchange(one: Connection, other: Connection) -> None:
    """Much goes both ways at once, each to its end."""

    async def send(conn: Connection) -> None:
        conn.writer.write(BULK)
        await conn.writer.drain()
        conn.writer.write_eof()

    at_one, at_other, *_ = await asyncio.gather(one.reader.read(), other.reader.read(), send(one), send(other))
    assert at_one == at_other == BULK


async def test_two_programs_exchange_bulk_and_end_in_order() -> None:
    async with rendezvous() as at:
        async with pair(at) as (one, other):
            await exchange(one, other)
        await until(lambda: not at.seats)


async def test_a_connection_is_relayed_until_it_is_direct_and_its_streams_go_on() -> None:
    async with rendezvous() as at, pair(at) as (one, other):
        await until(lambda: one.path == other.path == "direct")
        assert {one.method, other.method} <= {"host", "mapped", "accepted"}
        assert (one.peer, other.peer) == (other.local_address, one.local_address)
        assert one.public_address.rpartition(":")[2] == one.local_address.rpartition(":")[2]  # no NAT changes the port
        assert one.attempts[-1].state == "direct"
        one.writer.write(b"still one stream")
        assert await other.reader.readexactly(16) == b"still one stream"


async def test_a_connection_stays_on_the_relay_when_told_to() -> None:
    async with rendezvous() as at, pair(at, direct=False) as (one, other):
        await exchange(one, other)
        assert (one.path, one.method, one.peer) == ("relay", "relay", at.address)
        assert one.public_address == one.local_address


async def test_the_other_end_may_be_a_service_with_a_target() -> None:
    async with (
        rendezvous() as at,
        target(digest_at_end) as there,
        running(other=at.client(target=there.address)),
        punch.connect(at.address, ROOM, SECRET) as conn,
    ):
        conn.writer.write(BULK)
        conn.writer.write_eof()
        assert await conn.reader.read() == sha256(BULK)


async def test_a_target_that_speaks_first_is_heard() -> None:
    async with (
        rendezvous() as at,
        target(speak_and_close) as there,
        running(other=at.client(target=there.address)),
        punch.connect(at.address, ROOM, SECRET) as conn,
    ):
        assert await conn.reader.read() == b"hello"


async def test_the_other_end_may_be_a_service_with_a_listener() -> None:
    async with rendezvous() as at, running(other=at.client(listen=FREE)) as engine:

        async def visit() -> bytes:
            await until(lambda: address_of(engine, "other"))
            async with calling(address_of(engine, "other")) as caller:
                return await caller.exchange(b"hello, program")

        async def answer() -> None:
            async with punch.connect(at.address, ROOM, SECRET) as conn:
                conn.writer.write(b"I got " + await conn.reader.read())

        answered, _ = await asyncio.gather(visit(), answer())
        assert answered == b"I got hello, program"


async def test_a_second_visitor_of_the_other_ends_listener_is_turned_away() -> None:
    async with rendezvous() as at, running(other=at.client(listen=FREE)) as engine:
        await until(lambda: at.seats)
        connecting = asyncio.gather(_waited(punch.connect(at.address, ROOM, SECRET)))
        await until(lambda: address_of(engine, "other"))
        async with calling(address_of(engine, "other")) as first:
            await first.send(b"first")
            (conn,) = await connecting
            async with conn:
                assert await conn.reader.readexactly(5) == b"first"
                async with calling(address_of(engine, "other")) as second:
                    assert await _is_turned_away(second)
                conn.writer.write(b"goes on")
                assert await first.read(7) == b"goes on"


async def _is_turned_away(caller: Caller) -> bool:
    try:
        return await caller.read_to_end() == b""
    except ConnectionResetError:
        return True


async def test_what_was_written_last_arrives_when_the_block_ends_although_nobody_reads_yet() -> None:
    async with rendezvous() as at, pair(at) as (one, other):
        one.writer.write(BULK[: 1024 * 1024])

        async def leave() -> None:
            await one.close()

        async def read() -> bytes:
            await until(lambda: not other.reader.at_eof())
            return await other.reader.read()

        received, _ = await asyncio.gather(read(), leave())
        assert received == BULK[: 1024 * 1024]


async def test_an_end_that_leaves_is_an_end_for_one_that_only_reads() -> None:
    async with rendezvous() as at, pair(at) as (one, other):
        one.writer.write(b"last words")
        await one.close()
        assert await other.reader.read() == b"last words"


async def test_a_block_that_fails_is_an_error_at_the_other_end() -> None:
    async with rendezvous() as at, pair(at) as (one, other):
        with suppress(ZeroDivisionError):
            async with one:
                one.writer.write(b"half a mess")
                assert await other.reader.readexactly(11) == b"half a mess"
                raise ZeroDivisionError
        with pytest.raises(ConnectionResetError):
            await other.reader.read()


async def test_callbacks_take_the_place_of_the_reader() -> None:
    heard: list[bytes] = []
    established: list[str] = []
    notices: list[str] = []

    async def hear(data: bytes) -> None:
        heard.append(data)

    async with rendezvous() as at:
        one, other = await asyncio.gather(
            _waited(
                punch.connect(
                    at.address,
                    ROOM,
                    SECRET,
                    on_data=hear,
                    on_established=lambda conn: established.append(conn.path),
                    on_notice=notices.append,
                )
            ),
            _waited(punch.connect(at.address, ROOM, SECRET, on_data=lambda data: heard.append(data[::-1]))),
        )
        async with one, other:
            one.writer.write(b"abc")
            await until(lambda: b"cba" in heard)
            other.writer.write(b"xyz")
            other.writer.write_eof()
            await until(lambda: b"xyz" in heard and b"" in heard)
    assert established in (["relay"], ["direct"])
    assert any("through the relay" in notice or "direct" in notice for notice in notices)


async def test_what_breaks_a_connection_is_told_where_it_is_not_read() -> None:
    errors: list[Exception] = []
    async with rendezvous() as at:
        one, other = await asyncio.gather(
            _waited(punch.connect(at.address, ROOM, SECRET, on_data=lambda _: None, on_error=errors.append)),
            _waited(punch.connect(at.address, ROOM, SECRET)),
        )
        async with one:
            with suppress(ZeroDivisionError):
                async with other:
                    raise ZeroDivisionError
            await until(lambda: errors)
        assert isinstance(errors[0], ConnectionResetError)


async def test_a_cancelled_block_leaves_nothing_behind() -> None:
    async with rendezvous() as at:
        before = open_descriptors()

        async def use_it() -> None:
            async with punch.connect(at.address, ROOM, SECRET) as conn:
                await conn.reader.read()

        async with asyncio.TaskGroup() as group:
            using = [group.create_task(use_it()) for _ in range(2)]
            await until(lambda: at.seats == 2)
            for task in using:
                task.cancel()
        await until(lambda: not at.seats and open_descriptors() == before)


# What goes wrong


async def test_nobody_who_comes_in_time_is_an_error() -> None:
    async with rendezvous() as at:
        before = open_descriptors()
        with pytest.raises(ConnectFailed, match=r"nobody else came to room desk within 0\.2 s"):
            await punch.connect(at.address, ROOM, SECRET, wait=0.2)
        await until(lambda: not at.seats and open_descriptors() == before)


async def test_a_rendezvous_that_restarts_while_the_other_end_is_waited_for_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)
    notices: list[str] = []
    async with rendezvous(listen=ListenAddress("127.0.0.1", steady_port())) as at:
        connecting = asyncio.create_task(_waited(punch.connect(at.address, ROOM, SECRET, on_notice=notices.append)))
        await until(lambda: at.seats)
        await at.engine.stop_service("meet")
        await until(lambda: any("cannot reach the punch server" in notice for notice in notices))
        await at.engine.start_service("meet")
        await until(lambda: at.seats)
        async with punch.connect(at.address, ROOM, SECRET) as other, await connecting as one:
            await exchange(one, other)
    assert [notice for notice in notices if notice.endswith("; trying again")]
    assert notices.count("waiting in room desk for the other end") == 2


async def test_who_waits_in_vain_while_the_rendezvous_is_away_is_told_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.backoff.FIRST_DELAY", 0.05)
    async with rendezvous(listen=ListenAddress("127.0.0.1", steady_port())) as at:
        connecting = asyncio.create_task(_waited(punch.connect(at.address, ROOM, SECRET, wait=1)))
        await until(lambda: at.seats)
        await at.engine.stop_service("meet")
        with pytest.raises(ConnectFailed, match=r"nobody else came to room desk within 1 s; cannot reach"):
            await connecting


async def test_somebody_with_another_secret_is_told_of_at_once() -> None:
    async with rendezvous() as at:
        notices: list[str] = []
        waiting = asyncio.gather(
            _waited(punch.connect(at.address, ROOM, SECRET, wait=1, on_notice=notices.append)), return_exceptions=True
        )
        await until(lambda: at.seats)
        with pytest.raises(ConnectFailed, match="somebody else is in room desk with another secret") as caught:
            await punch.connect(at.address, ROOM, "wr0ng", wait=0.2)
        assert "wr0ng" not in str(caught.value)
        await until(lambda: any("another secret" in notice for notice in notices))
        await waiting


async def test_a_third_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunnelconsole.engine.services.punch import connection  # noqa: PLC0415

    monkeypatch.setattr(connection, "FULL_PATIENCE", 0.1)
    async with rendezvous() as at, pair(at) as (one, other):
        with pytest.raises(ConnectFailed, match="room desk is full"):
            await punch.connect(at.address, ROOM, SECRET)
        await exchange(one, other)


async def test_a_server_that_cannot_be_reached_is_silent_or_none_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunnelconsole.engine.services.punch import seat  # noqa: PLC0415

    monkeypatch.setattr(seat, "ANSWER_TIME", 0.2)
    with pytest.raises(ConnectFailed, match=r"cannot reach the punch server 127.*connection refused"):
        await punch.connect(str(nobody()), ROOM, SECRET)
    async with target(listen_only) as silent:
        with pytest.raises(ConnectFailed, match=r"did not answer within 0\.2 s"):
            await punch.connect(str(silent.address), ROOM, SECRET)
        await until(lambda: not silent.open)
    async with target(echo) as other:
        with pytest.raises(ConnectFailed, match="is no punch server"):
            await punch.connect(str(other.address), ROOM, SECRET)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("nonsense", ROOM, SECRET), {}),
        (("a:1", "", SECRET), {}),
        (("a:1", "r" * 65, SECRET), {}),
        (("a:1", ROOM, ""), {}),
        (("a:1", ROOM, SECRET), {"on_error": print}),
    ],
)
async def test_what_cannot_be_raises_before_anything_is_dialled(
    arguments: tuple[str, str, str], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"expected host:port|a room's name must|an empty secret|goes with on_data"):
        await punch.connect(*arguments, **options)


async def test_tls_to_the_server_is_pinned() -> None:
    async with rendezvous(tls=TLSSettings()) as at:
        with pytest.raises(CertificateRejected):
            await punch.connect(at.address, ROOM, SECRET, tls=TLSSettings())
        with pytest.raises(CredentialsRefused, match="not the pinned one"):
            await punch.connect(at.address, ROOM, SECRET, tls=TLSSettings(fingerprint=Fingerprint("ab" * 32)))
        async with pair(at, tls=TLSSettings(fingerprint=Fingerprint(at.fingerprint))) as (one, other):
            await exchange(one, other)


# By hand


async def test_by_hand_two_programs_tell_each_other_their_addresses_and_connect() -> None:
    async with punch.by_hand() as one, punch.by_hand() as other:
        ours, theirs = await asyncio.gather(
            _waited(one.attempt([_on_loopback(other)])), _waited(other.attempt([_on_loopback(one)]))
        )
        async with ours, theirs:
            await exchange(ours, theirs)
            assert (ours.path, ours.peer, ours.public_address) == ("direct", theirs.local_address, "")
            assert ours.method in ("host", "accepted")


def _on_loopback(hand: punch.Hand) -> str:
    return f"127.0.0.1:{hand.local_address.rpartition(':')[2]}"


async def test_by_hand_both_may_name_their_ports_and_come_at_different_times() -> None:
    first, second = steady_port(), steady_port()
    waiting = asyncio.gather(_waited(punch.attempt([f"127.0.0.1:{second}"], port=first)))
    await until(lambda: not _is_free(first))
    async with punch.attempt([f"127.0.0.1:{first}"], port=second) as one:
        (other,) = await waiting
        async with other:
            await exchange(one, other)


def _is_free(port: int) -> bool:
    import socket  # noqa: PLC0415

    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("_", range(5))
async def test_by_hand_both_choose_the_same_of_several_connections(_: int) -> None:
    async with punch.by_hand() as one, punch.by_hand() as other:

        def addresses(hand: punch.Hand) -> list[str]:
            return [_on_loopback(hand).replace("127.0.0.1", host) for host in ("127.0.0.2", "127.0.0.1", "127.0.0.3")]

        ours, theirs = await asyncio.gather(
            _waited(one.attempt(addresses(other))), _waited(other.attempt(addresses(one)))
        )
        async with ours, theirs:
            await exchange(ours, theirs)


async def test_by_hand_the_original_is_met_which_takes_its_first_connection_and_closes_the_others() -> None:
    """It listens at one port, for its own network, and dials from another; it says nothing, and tries three times."""
    first: asyncio.Future[Caller] = asyncio.get_running_loop().create_future()
    dials_from = steady_port()

    def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first.done():
            writer.close()
        else:
            first.set_result(Caller(reader, writer))

    async def dial(port: int) -> None:
        for _ in range(3):
            with suppress(OSError):
                arrive(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.1", dials_from)))
                return

    server = await asyncio.start_server(arrive, "127.0.0.1", 0)
    theirs = [f"127.0.0.1:{dials_from}", f"127.0.0.1:{server.sockets[0].getsockname()[1]}"]
    async with punch.by_hand() as hand:
        port = int(hand.local_address.rpartition(":")[2])
        _, conn = await asyncio.gather(dial(port), _waited(hand.attempt(theirs)))
        original = await first
        async with conn:
            conn.writer.write(b"hello, original")
            assert await original.read(15) == b"hello, original"
            await original.send(b"hello")
            assert await conn.reader.readexactly(5) == b"hello"
        await original.close()
    server.close()


async def test_by_hand_a_punch_server_tells_the_public_address() -> None:
    async with rendezvous() as at, punch.by_hand(server=at.address) as hand:
        assert hand.public_address == _on_loopback(hand)


@pytest.mark.parametrize("given", ["203.0.113.7", " 203.0.113.7\n", "203.0.113.7:40000", "2001:db8::1"])
async def test_by_hand_a_function_tells_the_public_address(given: str) -> None:
    async def provider() -> str:
        return given

    for one in (provider, lambda: given):
        async with punch.by_hand(public_address=one) as hand:
            own = hand.local_address.rpartition(":")[2]
            expected = {"203.0.113.7:40000": given, "2001:db8::1": f"[{given}]:{own}"}
            assert hand.public_address == expected.get(given, f"203.0.113.7:{own}")


async def test_by_hand_a_function_that_tells_no_address_is_an_error() -> None:
    with pytest.raises(ConnectFailed, match="gave something else"):
        async with punch.by_hand(public_address=lambda: "<html>"):
            pass


async def test_by_hand_nobody_who_comes_in_time_is_an_error() -> None:
    with pytest.raises(ConnectFailed, match=r"no connection within 0\.2 s: 127.*refused"):
        await punch.attempt([str(nobody())], wait=0.2)


async def test_by_hand_somebody_from_another_host_is_turned_away() -> None:
    async with punch.by_hand() as hand:
        trying = asyncio.gather(_waited(hand.attempt(["127.0.0.9:1"], wait=1)), return_exceptions=True)
        async with calling(_on_loopback(hand)) as stranger:
            assert await _is_turned_away(stranger)
        (outcome,) = await trying
        assert isinstance(outcome, ConnectFailed)


@pytest.mark.parametrize("addresses", ["127.0.0.1:1", [], ["nonsense"], ["127.0.0.1:1"] * 17])
async def test_by_hand_what_is_no_list_of_addresses_raises(addresses: Any) -> None:
    with pytest.raises(ValueError, match=r"addresses is a list|name 1 to 16 addresses|host:port"):
        await punch.attempt(addresses)


async def test_by_hand_a_port_that_another_has_is_an_error() -> None:
    async with target(echo) as there:
        with pytest.raises(ConnectFailed, match=f"port {there.address.port} could not be taken"):
            async with punch.by_hand(port=there.address.port):
                pass


# The documentation


async def test_the_example_in_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, example, _ = (inspect.getdoc(punch) or "").split("::\n")
    assignment, _, block = textwrap.dedent(example.rpartition("\n\nWithout")[0]).strip().partition("\n")
    assert assignment.startswith("server, room, secret = ")
    scope: dict[str, Any] = {"tunnelconsole": tunnelconsole}
    exec(f"async def example(server, room, secret):\n{textwrap.indent(block, '    ')}", scope)

    async def answer(server: str) -> None:
        async with punch.connect(server, ROOM, SECRET) as conn:
            assert await conn.reader.readline() == b"are you there?\n"
            conn.writer.write(b"yes\n")

    async with rendezvous() as at:
        await asyncio.gather(scope["example"](at.address, ROOM, SECRET), answer(at.address))
    assert "b'yes\\n' came by" in capsys.readouterr().out
