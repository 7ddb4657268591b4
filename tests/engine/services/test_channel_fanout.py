"""What the channel server's hub does with what is sent: slow receivers, absent ones, and those that leave."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from channel_peers import ALL, At, hub, join
from loopback import BULK, Caller, hears, open_descriptors, told
from tunnelconsole.engine.events import BytesDropped, Crashed, ReceiverDisconnected, SessionClosed
from tunnelconsole.engine.services.channel import drops as drops_module
from tunnelconsole.engine.services.channel import hold as hold_module
from tunnelconsole.engine.services.channel import hub as hub_module
from tunnelconsole.engine.settings import HostPort
from tunnelconsole.engine.transport.ends import READ_SIZE, unacknowledged
from tunnelconsole.engine.units import Duration, Size
from tunnelconsole.engine.wire.sealed_beginnings import BEGINNING_LENGTH, NOTHING, beginning_of
from tunnelconsole.errors import RequestRefused
from waiting import until

PIECE = 1024 * 1024
"""Bytes that a flood sends at once."""

FLOOD = 24
"""Pieces of a flood: more than every buffer on the way to a receiver that does not read."""

SEGMENT = 32 * 1024
"""Bytes that loopback carries in one piece."""

SMALL_BUFFER = 8 * 1024
"""Bytes of the receiving buffer of a client that shall be slow."""

BUFFER = Size(64 * 1024)
"""The least that a service may keep for each receiver."""


@asynccontextmanager
async def slow_client(at: At, chid: str, *receivers: str) -> AsyncIterator[Caller]:
    """A client whose kernel takes little, and who reads nothing unasked."""
    where = HostPort.parse(at.address)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (where.host, where.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=SMALL_BUFFER)
    caller = Caller(reader, writer)
    try:
        await join(caller, chid, receivers or ["nobody"])
        yield caller
    finally:
        writer.transport.abort()


async def flood(caller: Caller, pieces: int = FLOOD) -> bytes:
    """Sends random pieces; returns the digest of all of them."""
    digest = hashlib.sha256()
    for _ in range(pieces):
        piece = os.urandom(PIECE)
        digest.update(piece)
        await caller.send(piece)
    return digest.digest()


async def digest_of(caller: Caller, size: int) -> bytes:
    """Reads so many bytes, and returns their digest."""
    digest = hashlib.sha256()
    while size:
        piece = await caller.read(min(size, PIECE))
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


async def stands_still(at: At, chid: str) -> int:
    """Waits until nothing more is read of a client for a while; returns the bytes that were."""
    seen: list[int] = []

    def calm() -> bool:
        seen.append(at.party(chid).bytes_in)
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    await until(calm)
    return seen[-1]


async def test_with_wait_a_slow_receiver_stops_its_sender_and_nothing_is_lost() -> None:
    async with (
        hub(buffer=BUFFER) as at,
        at.client("quick", ["x"]) as quick,
        slow_client(at, "slow") as slow,
        at.client("a", ["quick", "slow"]) as a,
        asyncio.TaskGroup() as tasks,
    ):
        sent = tasks.create_task(flood(a))
        read = tasks.create_task(digest_of(quick, FLOOD * PIECE))
        await until(lambda: at.party("slow").blocking)
        assert await stands_still(at, "a") < FLOOD * PIECE
        assert at.party("slow").waiting <= BUFFER
        assert at.party("a").held_up()
        assert await digest_of(slow, FLOOD * PIECE) == await sent == await read
        assert at.party("slow").bytes_out == at.party("quick").bytes_out == FLOOD * PIECE
        assert not told(at.engine, BytesDropped)
        assert not at.party("slow").blocking


async def test_with_wait_a_slow_receiver_does_not_stop_who_sends_to_others() -> None:
    async with (
        hub(buffer=BUFFER) as at,
        slow_client(at, "slow") as slow,
        at.client("quick", ["x"]) as quick,
        at.client("a", ["slow", "quick"]) as a,
        at.client("b", ["quick"]) as b,
        asyncio.TaskGroup() as tasks,
    ):
        sent = tasks.create_task(flood(a))
        await until(lambda: at.party("slow").blocking)
        held = at.party("quick").bytes_out
        await digest_of(quick, held)
        other = tasks.create_task(flood(b))
        assert await digest_of(quick, FLOOD * PIECE) == await other
        rest = tasks.create_task(digest_of(quick, FLOOD * PIECE - held))
        assert await digest_of(slow, FLOOD * PIECE) == await sent
        await rest


async def test_with_wait_one_to_one_a_slow_receiver_stops_its_sender_and_nothing_is_lost() -> None:
    async with hub() as at, slow_client(at, "slow") as slow, at.client("a", ["slow"]) as a:
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(flood(a))
            assert await stands_still(at, "a") < FLOOD * PIECE
            assert at.party("a").path == "splice"
            assert at.party("a").held_up()
            assert await digest_of(slow, FLOOD * PIECE) == await sent
        assert at.party("slow").bytes_out == at.party("a").bytes_in == FLOOD * PIECE


async def test_with_drop_only_the_slow_receiver_loses_and_each_byte_of_it_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drops_module, "REPORT_INTERVAL", 0.05)
    async with hub(on_slow="drop", buffer=BUFFER) as at, at.client("quick", ["x"]) as quick:
        async with slow_client(at, "slow") as slow:
            async with at.client("a", ["quick", "slow"]) as a:
                sent, read = await asyncio.gather(flood(a), digest_of(quick, FLOOD * PIECE))
                assert sent == read
            party = at.party("slow")
            assert party.dropped
            assert at.party("quick").dropped == 0
            got = FLOOD * PIECE - party.dropped
            await digest_of(slow, got)
            assert party.bytes_out == got
        await until(lambda: at.chids == ["quick"])
        events = told(at.engine, BytesDropped)
        assert sum(event.count for event in events) == party.dropped
        assert {(event.chid, event.reason) for event in events} == {("slow", "it reads too slowly")}


async def test_what_a_slow_receiver_gets_with_drop_is_whole_reads_in_their_order() -> None:
    async with hub(on_slow="drop", buffer=BUFFER) as at, slow_client(at, "slow") as slow, at.client("a") as a:
        numbers = b"".join(number.to_bytes(4, "big") for number in range(FLOOD * PIECE // 16))
        for start in range(0, len(numbers), SEGMENT):  # one at a time, so that each is one read
            await a.send(numbers[start : start + SEGMENT])
            await until(lambda end=start + SEGMENT: at.party("a").bytes_in == end)  # type: ignore[misc]
        party = at.party("slow")
        got = await slow.read(len(numbers) - party.dropped)
        found = [int.from_bytes(got[place : place + 4], "big") for place in range(0, len(got), 4)]
        assert found == sorted(set(found))
        assert party.dropped


async def test_with_disconnect_the_slow_receiver_is_closed_with_an_event_and_others_get_all() -> None:
    async with hub(on_slow="disconnect", buffer=BUFFER) as at, at.client("quick", ["x"]) as quick:
        async with slow_client(at, "slow") as slow, at.client("a", ["quick", "slow"]) as a:
            sent, read = await asyncio.gather(flood(a), digest_of(quick, FLOOD * PIECE))
            assert sent == read
            event = await hears(at.engine, ReceiverDisconnected, "slow")
            assert BUFFER <= event.waiting < BUFFER + READ_SIZE
            assert await slow.broken()
            assert at.chids == ["quick", "a"]
            await hears(at.engine, SessionClosed, "it reads too slowly")
        lost = [event for event in told(at.engine, BytesDropped) if event.chid == "slow"]
        assert sum(event.count for event in lost) == event.waiting


@pytest.mark.parametrize("on_slow", ["drop", "disconnect"])
async def test_a_receiver_is_not_slow_before_a_buffer_full_waits_for_it(on_slow: str) -> None:
    async with (
        hub(on_slow=on_slow, buffer=BUFFER) as at,
        slow_client(at, "slow") as slow,
        at.client("a", ["slow"]) as a,
    ):
        party = at.party("slow")
        sent = 0
        while party.waiting + SEGMENT <= BUFFER:
            await a.send(bytes(SEGMENT))
            sent += SEGMENT
            await until(lambda sent=sent: at.party("a").bytes_in == sent)  # type: ignore[misc]
        left = party.outbox.room
        await a.send(bytes(left - 1))
        await until(lambda: at.party("a").bytes_in == sent + left - 1)
        at.service.hub.pass_on(at.party("a"), bytes(SEGMENT))  # as one read, which does not fit
        assert party.dropped == 0
        assert "slow" in at.chids
        at.service.hub.pass_on(at.party("a"), b"one too many")
        assert party.dropped
        assert ("slow" in at.chids) == (on_slow == "drop")
        if on_slow == "drop":
            assert await slow.read(sent + left - 1 + SEGMENT) == bytes(sent + left - 1 + SEGMENT)


async def test_bytes_for_a_receiver_that_is_not_there_are_dropped_and_counted() -> None:
    async with hub() as at:
        async with at.client("a", ["b", "c", "a"]) as a:
            await a.send(b"nobody hears")
            await until(lambda: at.party("a").bytes_in == 12)
            assert at.party("a").undelivered == 24
            async with at.client("b", ["x"]) as b:
                await a.send(b"b hears")
                assert await b.read(7) == b"b hears"
                await until(lambda: at.party("a").undelivered == 31)
        await until(lambda: not at.chids)
        events = told(at.engine, BytesDropped)
        assert sum(event.count for event in events) == 31
        assert {(event.chid, event.reason) for event in events} == {("a", "their receiver is not there")}


@pytest.mark.parametrize("hold", [0, 1024])
async def test_beginnings_of_a_sealed_stream_that_nobody_hears_are_counted_and_not_told(hold: int) -> None:
    hello = beginning_of(b"salt of 16 bytes")
    async with hub(hold=Size(hold)) as at, at.client("a", ["b"]) as a:
        await a.send(hello)
        await a.send(NOTHING + hello)
        await until(lambda: at.party("a").undelivered == 3 * BEGINNING_LENGTH)
        assert not told(at.engine, BytesDropped)
        async with at.client("b", ["a"]) as b:
            await a.send(hello + b"a record")
            assert await b.read(BEGINNING_LENGTH + 8) == hello + b"a record"


async def test_what_follows_the_beginning_of_a_sealed_stream_is_told_when_it_is_dropped() -> None:
    async with hub() as at, at.client("a", ["b"]) as a:
        for words in (NOTHING + b"a record", NOTHING[:-1]):
            await a.send(words)
        await until(lambda: at.party("a").bytes_in == 2 * BEGINNING_LENGTH + 7)
        await hears(at.engine, BytesDropped)


async def test_bytes_to_all_are_counted_when_nobody_else_is_there() -> None:
    async with hub() as at, at.client("a", ALL) as a:
        await a.send(b"hello?")
        await until(lambda: at.party("a").undelivered == 6)


async def test_a_flood_of_drops_is_told_at_once_and_then_as_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops_module, "REPORT_INTERVAL", 0.2)
    async with hub() as at, at.client("a", ["nobody"]) as a:
        for sent in range(1, 51):
            await a.send(b".")
            await until(lambda sent=sent: at.party("a").bytes_in == sent)  # type: ignore[misc]
        await until(lambda: sum(event.count for event in told(at.engine, BytesDropped)) == 50)
        assert len(told(at.engine, BytesDropped)) < 25
        assert told(at.engine, BytesDropped)[0].count == 1


async def test_what_is_held_is_the_first_that_a_receiver_gets() -> None:
    async with hub(hold=Size(1024)) as at, at.client("a", ["b"]) as a:
        await a.send(b"held, ")
        await until(lambda: at.party("a").bytes_in == 6)
        async with at.client("b", ["a"]) as b:
            await a.send(b"then live")
            assert await b.read(15) == b"held, then live"
            assert at.party("a").undelivered == 0
            assert at.party("b").bytes_out == 15


async def test_more_than_the_buffer_can_be_held_and_comes_whole() -> None:
    async with hub(hold=Size(len(BULK)), buffer=BUFFER) as at, at.client("a", ["b"]) as a:
        await a.send(BULK)
        await until(lambda: at.party("a").bytes_in == len(BULK))
        async with at.client("b", ["x"]) as b:
            await a.send(b"live")
            assert await b.read(len(BULK)) == BULK
            assert await b.read(4) == b"live"
            await until(lambda: at.party("a").path == "splice")


@pytest.mark.parametrize("on_slow", ["drop", "disconnect"])
async def test_who_has_much_held_for_it_does_not_count_as_slow_for_that(on_slow: str) -> None:
    async with hub(hold=Size(len(BULK)), buffer=BUFFER, on_slow=on_slow) as at, at.client("a", ["b"]) as a:
        await a.send(BULK)
        await until(lambda: at.party("a").bytes_in == len(BULK))
        async with slow_client(at, "b") as b:
            await a.send(b"live")
            await until(lambda: at.party("a").bytes_in == len(BULK) + 4)
            assert await b.read(len(BULK)) == BULK
            assert await b.read(4) == b"live"
            assert at.party("b").dropped == 0


async def test_exactly_the_hold_is_kept_and_what_is_more_is_dropped_and_counted() -> None:
    limit, size = 100_000, 250_000
    async with hub(hold=Size(limit)) as at, at.client("a", ["b", "c"]) as a:
        await a.send(BULK[:size])
        await until(lambda: at.party("a").bytes_in == size)
        assert at.party("a").undelivered == 2 * (size - limit)
        for chid in ("b", "c"):
            async with at.client(chid, ["x"]) as caller:
                await a.send(b"live")
                assert await caller.read(limit + 4) == BULK[:limit] + b"live"


async def test_held_bytes_are_forgotten_in_time_with_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "HOLD_TIME", 0.1)
    async with hub(hold=Size(1024)) as at, at.client("a", ["b"]) as a:
        await a.send(b"for b")
        event = await hears(at.engine, BytesDropped, "did not come within")
        assert (event.count, event.chid) == (5, "")
        async with at.client("b", ["a"]) as b:
            await a.send(b"later")
            assert await b.read(5) == b"later"


async def test_what_has_been_held_longest_gives_way_when_too_much_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "MAX_HELD", 10)
    async with hub(hold=Size(8)) as at, at.client("a", ["b"]) as a, at.client("c", ["d"]) as c:
        await a.send(b"for b")
        await until(lambda: at.party("a").bytes_in == 5)
        await c.send(b"for dd")
        event = await hears(at.engine, BytesDropped, "more is held")
        assert event.count == 5
        async with at.client("d", ["x"]) as d:
            assert await d.read(6) == b"for dd"


async def test_what_is_held_when_the_service_stops_is_told() -> None:
    async with hub(hold=Size(1024)) as at, at.client("a", ["b"]) as a:
        await a.send(b"for b")
        await until(lambda: at.party("a").bytes_in == 5)
        await at.engine.stop_service("hub")
        await hears(at.engine, BytesDropped, "5 bytes were dropped: the service ended")


async def test_what_waits_for_a_receiver_that_leaves_is_counted() -> None:
    async with hub(buffer=BUFFER) as at, at.client("quick", ["x"]) as quick, at.client("a", ["quick", "slow"]) as a:
        async with asyncio.TaskGroup() as tasks:
            async with slow_client(at, "slow") as slow:
                sent = tasks.create_task(flood(a))
                read = tasks.create_task(digest_of(quick, FLOOD * PIECE))
                await until(lambda: at.party("slow").blocking)
                await stands_still(at, "a")
                waited = at.party("slow").waiting
                slow.reset()
            assert await sent == await read
        lost = [event for event in told(at.engine, BytesDropped) if event.chid == "slow"]
        assert sum(event.count for event in lost) == waited


async def test_a_sender_that_leaves_does_not_take_its_last_bytes_along() -> None:
    async with (
        hub(buffer=BUFFER) as at,
        slow_client(at, "slow") as slow,
        at.client("other", ["slow"]) as other,
        at.client("a", ["slow"]) as a,
        asyncio.TaskGroup() as tasks,
    ):
        sent = tasks.create_task(flood(a, 4))
        await until(lambda: at.party("slow").waiting)
        found = tasks.create_task(digest_of(slow, 4 * PIECE))
        digest = await sent
        a.half_close()
        assert await found == digest
        await other.send(b"and another's")
        assert await slow.read(13) == b"and another's"


async def test_who_waits_for_a_slow_receiver_is_not_idle_but_the_receiver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.ticking.TICK", 0.02)
    async with hub(idle_timeout=Duration(0.3), buffer=BUFFER) as at, at.client("c", ["a"], timeout=0) as c:
        async with slow_client(at, "slow"), at.client("a", ["slow", "quick"]) as a, asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(flood(a))
            await until(lambda: at.party("slow").blocking)
            await hears(at.engine, SessionClosed, "idle for 0.3 s")
            await sent
            assert "a" in at.chids
            assert "slow" not in at.chids
        await c.close()


async def test_one_to_one_who_waits_for_a_slow_receiver_is_not_idle_but_the_receiver_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.ticking.TICK", 0.02)
    async with (
        hub(idle_timeout=Duration(0.3)) as at,
        slow_client(at, "slow"),
        at.client("a", ["slow"]) as a,
        asyncio.TaskGroup() as tasks,
    ):
        sent = tasks.create_task(flood(a))
        await hears(at.engine, SessionClosed, "idle for 0.3 s")
        await sent
        assert at.chids == ["a"]


async def test_a_half_closed_client_is_kept_while_somebody_may_send_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "HALF_CLOSED_IDLE", 60.0)
    async with hub(idle_timeout=Duration(0)) as at, at.client("a", ["b"]) as a:
        async with at.client("b", ["a"]) as b, at.client("c", ALL) as c:
            a.half_close()
            await until(lambda: at.party("a").ended)
            channel = at.party("a").channel
            assert channel is not None
            assert channel.idle_timeout == 60
            await b.send(b"from b, ")
            assert await a.read(8) == b"from b, "
            await c.send(b"from c")
            assert await a.read(6) == b"from c"
            b.half_close()
            await until(lambda: at.party("b").ended)
            assert at.chids == ["a", "b", "c"]
        assert await a.read_to_end() == b""
        await until(lambda: not at.chids)


@pytest.mark.parametrize("hold", [0, 1024])
async def test_two_who_have_both_closed_their_sides_do_not_keep_each_other(hold: int) -> None:
    async with (
        hub(hold=Size(hold), idle_timeout=Duration(0)) as at,
        at.client("a", ["b"]) as a,
        at.client("b", ["a"]) as b,
    ):
        a.half_close()
        b.half_close()
        assert await a.read_to_end() == await b.read_to_end() == b""
        await until(lambda: not at.chids)


@pytest.mark.parametrize("on_slow", ["wait", "drop"])
async def test_with_hold_a_client_that_closes_leaves_and_what_comes_for_it_is_held(on_slow: str) -> None:
    async with hub(hold=Size(1024), on_slow=on_slow) as at, at.client("a", ["b"]) as a:
        async with at.client("b", ["a"]) as b:
            await a.send(b"live")
            assert await b.read(4) == b"live"
        await until(lambda: at.chids == ["a"])
        for text in (b"D" * 10, b"E" * 10):
            await a.send(text)
        await until(lambda: at.party("a").bytes_in == 24)
        async with at.client("b", ["a"]) as b:
            assert await b.read(20) == b"D" * 10 + b"E" * 10
        assert at.party("a").undelivered == 0
        assert not told(at.engine, BytesDropped)


@pytest.mark.parametrize("receivers", [["b"], ["b", "b2"]], ids=["spliced", "queued"])
async def test_with_hold_a_client_that_closes_its_side_still_gets_what_waits_for_it(receivers: list[str]) -> None:
    async with hub(hold=Size(len(BULK) * 2), buffer=BUFFER) as at, at.client("a", receivers) as a:
        async with slow_client(at, "b") as b, asyncio.TaskGroup() as tasks:
            old = at.party("b")
            sent = tasks.create_task(a.send(BULK * 2))
            await until(lambda: old.waiting)
            b.half_close()
            await sent
            await until(lambda: at.party("a").bytes_in == 2 * len(BULK))
            assert "b" not in at.service.hub.routes.present
            first = await b.read_to_end()
        assert old.dropped == 0
        assert len(first) == old.bytes_out
        async with at.client("b", ["x"]) as b:
            assert first + await b.read(2 * len(BULK) - len(first)) == BULK * 2


async def test_with_hold_what_waits_for_a_client_that_turns_out_to_be_reset_is_counted_and_the_rest_held() -> None:
    async with hub(hold=Size(len(BULK) * 2), buffer=BUFFER) as at, at.client("a", ["b"]) as a:
        async with slow_client(at, "b") as b, asyncio.TaskGroup() as tasks:
            old = at.party("b")
            sent = tasks.create_task(a.send(BULK * 2))
            await until(lambda: old.waiting)
            b.half_close()
            await sent
            await until(lambda: at.party("a").bytes_in == 2 * len(BULK))
            b.reset()
            await until(lambda: at.chids == ["a"])
        lost = sum(event.count for event in told(at.engine, BytesDropped) if event.chid == "b")
        assert lost == old.dropped > 0
        rest = (BULK * 2)[old.bytes_out + lost :]
        async with at.client("b", ["x"]) as b:
            assert await b.read(len(rest)) == rest


@pytest.mark.parametrize("receivers", [["a"], ["a", "nobody"], []], ids=["spliced", "queued", "to all"])
async def test_a_half_closed_client_that_is_gone_is_noticed_by_the_first_that_is_sent_to_it(
    receivers: list[str],
) -> None:
    async with hub() as at, at.client("b", receivers) as b:
        async with at.client("a", ["b"]):
            pass
        gone = at.party("a")
        await until(lambda: gone.ended)
        await b.send(b"are you there?")
        await until(lambda: at.chids == ["b"])
        assert (gone.bytes_out, gone.dropped) == (0, 14)
        lost = [event for event in told(at.engine, BytesDropped) if event.chid == "a"]
        assert [event.count for event in lost] == [14]
        assert (await hears(at.engine, SessionClosed)).cause == "connection reset"
        await b.send(b"nobody?")
        await until(lambda: at.party("b").undelivered >= 7)


async def test_what_a_half_closed_client_has_got_before_it_vanished_counts_as_sent() -> None:
    async with hub() as at, at.client("b", ["a"]) as b:
        async with at.client("a", ["b"]) as a:
            gone = at.party("a")
            a.half_close()
            await until(lambda: gone.ended)
            await b.send(b"you get this, ")
            assert await a.read(14) == b"you get this, "
            await until(lambda: not unacknowledged(gone.end))
        await b.send(b"but not this")
        await until(lambda: at.chids == ["b"])
        assert (gone.bytes_out, gone.dropped) == (14, 12)


async def test_receivers_can_be_changed_while_a_client_sends() -> None:
    async with (
        hub() as at,
        at.client("a", ["b"]) as a,
        at.client("b", ["x"]) as b,
        at.client("c", ["x"]) as c,
    ):
        party = at.party("a")
        assert party.session is not None
        assert party.channel is not None
        for receivers, listeners in ((["c"], [c]), (["b", "c"], [b, c]), ([], [b, c]), (["b"], [b])):
            text = at.service.set_receivers(party.session, receivers)
            assert text == f"a now sends to {', '.join(receivers) or 'all'}"
            assert party.channel.label == f"a -> {', '.join(receivers) or 'all'}"
            await a.send(b"hello")
            for listener in listeners:
                assert await listener.read(5) == b"hello"
        assert (at.party("b").bytes_out, at.party("c").bytes_out) == (15, 15)


async def test_who_was_stopped_by_a_receiver_goes_on_when_it_sends_to_others() -> None:
    async with (
        hub(buffer=BUFFER) as at,
        slow_client(at, "slow"),
        at.client("quick", ["x"]) as quick,
        at.client("a", ["slow", "quick"]) as a,
        asyncio.TaskGroup() as tasks,
    ):
        sent = tasks.create_task(flood(a))
        read = tasks.create_task(digest_of(quick, FLOOD * PIECE))
        await until(lambda: at.party("slow").blocking)
        session = at.party("a").session
        assert session is not None
        at.service.set_receivers(session, ["quick"])
        assert await sent == await read


async def test_receivers_that_cannot_be_are_refused() -> None:
    async with hub() as at, at.client("a", ["b"]) as a, at.client("b", ["a"]):
        session = at.party("a").session
        assert session is not None
        for receivers, reason in ((["x y"], "without spaces"), ([str(n) for n in range(1025)], "more than 1024")):
            with pytest.raises(RequestRefused, match=reason):
                at.service.set_receivers(session, receivers)
        a.half_close()
        await until(lambda: at.party("a").ended)
        with pytest.raises(RequestRefused, match="closed its sending side"):
            at.service.set_receivers(session, ["b"])


async def test_in_broadcast_mode_receivers_stay_everybody() -> None:
    async with hub(mode="broadcast") as at, at.calling():
        await until(lambda: at.chids)
        session = at.party("1000").session
        assert session is not None
        with pytest.raises(RequestRefused, match="broadcast mode"):
            at.service.set_receivers(session, ["1001"])


async def test_fifty_clients_to_all_get_everything_from_everybody() -> None:
    count, size = 50, 3000
    before = open_descriptors()
    async with hub(buffer=BUFFER) as at:
        callers = []
        for number in range(count):
            where = HostPort.parse(at.address)
            caller = Caller(*await asyncio.open_connection(where.host, where.port))
            await join(caller, f"c{number}")
            callers.append(caller)
        sends = [caller.send(bytes([number]) * size) for number, caller in enumerate(callers)]
        reads = [caller.read(size * (count - 1)) for caller in callers]
        _, got = await asyncio.gather(asyncio.gather(*sends), asyncio.gather(*reads))
        for number, data in enumerate(got):
            counted = [data.count(bytes([other])) for other in range(count)]
            assert counted == [0 if other == number else size for other in range(count)]
        for caller in callers:
            caller.reset()
        await until(lambda: not at.chids)
    await until(lambda: open_descriptors() <= before)


async def test_a_crowd_that_leaves_at_once_is_forgotten() -> None:
    async with hub() as at:
        where = HostPort.parse(at.address)
        crowd = []
        for number in range(400):
            reader, writer = await asyncio.open_connection(where.host, where.port)
            await join(Caller(reader, writer), f"c{number}")
            crowd.append(writer)
        for writer in crowd:
            writer.close()
        await until(lambda: not at.chids)
        assert not told(at.engine, Crashed)
        await at.serves()


async def test_those_who_send_to_all_share_what_they_know_of_it() -> None:
    async with hub() as at, at.client("a"), at.client("b"), at.client("c"):
        routes = at.service.hub.routes
        targets = {id(routes.targets(party)) for party in at.service.hub.parties}
        assert len(targets) == 1
