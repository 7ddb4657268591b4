"""The channel client with a key: whole streams end to end, and each way to tamper with one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import pytest

from channel_client_peers import Change, Ends, Kind, Meddler, as_it_is, desk, ends, ends_at, laptop, meddler
from channel_peers import hub
from loopback import (
    BULK,
    PATIENCE,
    Caller,
    E,
    Target,
    address_of,
    calling,
    digest_at_end,
    echo,
    hears,
    listen_only,
    running,
    sha256,
    speak_and_close,
    steady,
    target,
    told,
)
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.events import ChannelClosed, ChannelOpened, Crashed, SealBroken, TargetFailed
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.channel import sealed_bridge, sealed_bridging, sealed_halves, sealed_key, uplink
from tunnelconsole.engine.services.channel.party import Party
from tunnelconsole.engine.sessions import Channel
from tunnelconsole.engine.settings import Fingerprint, HostPort, Secret, TLSSettings
from tunnelconsole.engine.units import Rate
from waiting import until

KEY = Secret("only the two of us know")

LOOKS = 30
"""Looks at a figure that stay the same, after which it counts as one that stands still."""


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second, and nobody waits long."""
    monkeypatch.setattr(sealed_key, "derive_key", lambda key, salt: sha256(key + salt))
    monkeypatch.setattr(sealed_bridging, "SILENCE", 1.0)
    monkeypatch.setattr(sealed_bridge, "GARBAGE_TIME", 1.0)
    monkeypatch.setattr(uplink, "GARBAGE_TIME", 1.0)
    monkeypatch.setattr(uplink, "NOTHING_PAUSE", 0.05)
    monkeypatch.setattr(sealed_halves, "FIRST_HELLO", 0.02)
    monkeypatch.setattr(sealed_halves, "LONGEST_HELLO", 0.05)
    monkeypatch.setattr(Backoff, "next", lambda _self, _longest=0.0: 0.05)


async def _has_arrived(both: Ends) -> None:
    """Waits until what was sent has come out at the other end: only then do both know of each other."""

    def both_counted() -> bool:
        channels = both.engine.node.sessions.channels.values()
        return len(channels) == 2 and all(each.flow.bytes_in or each.flow.bytes_out for each in channels)

    await until(both_counted)


async def test_a_half_close_and_what_follows_it_go_end_to_end() -> None:
    async with ends(digest_at_end, key=KEY) as (both, _):
        for _ in range(3):
            async with both.calling() as caller:
                assert await caller.exchange(BULK) == sha256(BULK)
        assert not told(both.engine, SealBroken)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_bulk_goes_both_ways_and_is_counted_without_what_sealing_adds(tls: bool) -> None:
    async with hub(tls=TLSSettings() if tls else None) as at:
        pinned = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"])) if tls else None
        async with ends_at(at.address, key=KEY, tls=pinned) as both:
            async with both.calling() as caller:
                assert await caller.exchange(BULK) == BULK
            closed = await hears(both.engine, ChannelClosed, "laptop -> desk")
            assert (closed.bytes_in, closed.bytes_out, closed.cause) == (len(BULK), len(BULK), "")


async def test_with_the_real_keys_it_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with ends(key=KEY) as (both, _), both.calling() as caller:
        assert await caller.exchange(b"ping") == b"ping"


async def test_the_server_sees_ciphertext_only() -> None:
    text = b"nobody else shall read this " * 100
    async with meddler() as server, ends_at(server.address, key=KEY) as both:
        async with both.calling() as caller:
            assert await caller.exchange(text) == text
        assert len(server.seen) > 2 * len(text)
        for shown in (b"nobody else", KEY.encode()):
            assert shown not in bytes(server.seen)


async def test_the_target_is_dialled_for_each_program_that_comes_and_may_speak_first() -> None:
    async with ends(speak_and_close, key=KEY) as (both, _):
        assert both.far.served == 0
        for number in range(3):
            async with both.calling() as caller:
                assert await caller.read_to_end() == b"hello"
            await until(lambda: not both.far.open)
            assert both.far.served == number + 1


async def test_a_program_that_comes_before_the_other_end_waits_for_it_and_loses_nothing() -> None:
    async with (
        hub() as at,
        target(echo) as far,
        running(laptop=laptop(at.address, key=KEY)) as near,
        calling(address_of(near, "laptop")) as caller,
    ):
        await caller.send(b"early")
        async with running(desk=desk(at.address, far.address, key=KEY)):
            assert await caller.exchange(b" and late") == b"early and late"


async def test_a_program_that_goes_before_the_other_end_comes_makes_room_for_the_next() -> None:
    async with hub() as at, target(echo) as far, running(laptop=laptop(at.address, key=KEY)) as near:
        async with calling(address_of(near, "laptop")) as caller:
            caller.half_close()
            assert await caller.broken()
        async with running(desk=desk(at.address, far.address, key=KEY)), calling(address_of(near, "laptop")) as caller:
            assert await caller.exchange(b"ping") == b"ping"


async def test_two_that_listen_are_joined_when_a_program_has_come_to_each() -> None:
    async with hub() as at:
        one = laptop(at.address, key=KEY)
        other = laptop(at.address, chid="desk", receivers=("laptop",), key=KEY)
        async with (
            running(one=one, other=other) as engine,
            calling(address_of(engine, "one")) as left,
            calling(address_of(engine, "other")) as right,
        ):
            await left.send(b"to the right")
            await right.send(b"to the left")
            assert await right.read(12) == b"to the right"
            assert await left.read(11) == b"to the left"


async def test_a_reset_at_one_end_becomes_a_reset_at_the_other() -> None:
    async with ends(listen_only, key=KEY) as (both, _):
        async with both.calling() as caller:
            await caller.send(b"half a")
            await _has_arrived(both)
            both.far.reset_all()
            assert await caller.broken()
        await until(lambda: not both.engine.node.sessions.channels)
        async with both.calling() as caller:
            await caller.send(b"half a")
            await _has_arrived(both)
            caller.reset()
            await until(lambda: not both.far.open)
        assert not told(both.engine, SealBroken)


async def test_a_program_is_reset_when_the_target_cannot_be_dialled_and_served_once_it_can() -> None:
    listen = steady()
    where = HostPort(listen.host, listen.port)
    async with (
        hub() as at,
        running(desk=desk(at.address, where, key=KEY), laptop=laptop(at.address, key=KEY)) as engine,
    ):
        async with calling(address_of(engine, "laptop")) as caller:
            assert await caller.broken()
        await hears(engine, TargetFailed, "connection refused")
        server = await asyncio.start_server(Target(echo).serve, listen.host, listen.port)
        try:
            await _served_again(address_of(engine, "laptop"))
        finally:
            server.close()


async def test_a_receiver_that_does_not_read_stops_its_sender() -> None:
    released = asyncio.Event()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await digest_at_end(reader, writer)

    async with ends(read_late, key=KEY) as (both, _), both.calling() as caller:
        sent = 0

        async def send_on() -> bytes:
            nonlocal sent
            while not released.is_set():  # how much the kernel's buffers hold on the way is for each machine to say
                await caller.send(BULK)
                sent += 1
            caller.half_close()
            return await caller.read_to_end()

        sending = asyncio.ensure_future(send_on())
        (channel,) = await until(lambda: _channels(both, "laptop -> desk"))
        await until(lambda: channel.flow.bytes_in)
        await _stands_still(lambda: channel.flow.bytes_in)
        released.set()
        assert await sending == sha256(BULK * sent)


async def test_a_rate_holds_a_transfer_back_and_loses_nothing() -> None:
    rate, size, loop = 2_000_000, 1_000_000, asyncio.get_running_loop()
    limits = LimitSettings(rate=Rate(rate))
    async with ends(digest_at_end, key=KEY, laptop_changes={"limits": limits}) as (both, _), both.calling() as caller:
        began = loop.time()
        assert await caller.exchange(BULK[:size]) == sha256(BULK[:size])
        burst, last_read = rate / 4, 65536
        assert loop.time() - began >= (size - burst - last_read) / rate


async def test_a_client_that_is_stopped_resets_the_other_end() -> None:
    async with ends(listen_only, key=KEY) as (both, at), both.calling() as caller:
        await caller.send(b"half a")
        await _has_arrived(both)
        await both.engine.stop_service("laptop")
        assert await caller.broken()
        await until(lambda: not both.far.open)
        await until(lambda: at.chids == ["desk"])


@pytest.mark.parametrize("which", ["desk", "laptop"])
async def test_an_end_that_vanishes_and_comes_back_is_served_anew(which: str) -> None:
    async with ends(key=KEY) as (both, at):
        async with both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            at.party(which).finish("gone")
            if which == "laptop":
                assert await caller.broken()
            else:
                await until(lambda: not both.far.open)
            await until(lambda: sorted(at.chids) == ["desk", "laptop"])
        await _served_again(await until(lambda: both.address))


async def test_a_program_that_has_said_all_to_an_end_that_vanished_makes_room_for_the_next() -> None:
    async with ends(key=KEY) as (both, at):
        async with both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            at.party("desk").finish("gone")
            caller.half_close()
            assert await caller.broken()
        await _served_again(both.address)
        assert not told(both.engine, SealBroken)


# Tampering


def at_record(number: int, what: Callable[[bytes], Sequence[bytes]], chid: str = "laptop") -> Change:
    """Changes one record of one end."""

    def change(sender: str, kind: Kind, count: int, data: bytes) -> Sequence[bytes]:
        return what(data) if (sender, kind, count) == (chid, "record", number) else [data]

    return change


def flipped(place: int) -> Callable[[bytes], Sequence[bytes]]:
    """Changes one byte."""

    def flip(data: bytes) -> Sequence[bytes]:
        changed = bytearray(data)
        changed[place] ^= 1
        return [bytes(changed)]

    return flip


class Swap:
    """Exchanges two records of one end that follow each other."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._kept: list[bytes] = []

    def __call__(self, sender: str, kind: Kind, count: int, data: bytes) -> Sequence[bytes]:
        if sender != "laptop":
            return [data]
        if (kind, count) == ("record", self._number):
            self._kept = [data]
            return []
        kept, self._kept = self._kept, []
        return [data, *kept]


TAMPERING = [
    pytest.param(at_record(2, flipped(-1)), "record 2 of the sealed stream does not open", id="changed"),
    pytest.param(at_record(0, flipped(5)), "another key, or its first record was changed", id="changed at first"),
    pytest.param(at_record(2, flipped(0)), "which none may have", id="header changed"),
    pytest.param(at_record(2, lambda data: [data, data]), "record 3 of the sealed stream does not open", id="repeated"),
    pytest.param(at_record(2, lambda data: []), "record 2 of the sealed stream does not open", id="missing"),
    pytest.param(Swap(2), "record 2 of the sealed stream does not open", id="reordered"),
]


async def speak_until_broken(caller: Caller, server: Meddler) -> bool:
    """Says something so that each piece is a record of its own, as long as anybody listens; whether that was reset."""
    broken = asyncio.ensure_future(caller.broken())

    def heard(count: int) -> bool:
        return broken.done() or server.records["laptop"] > count

    for number in range(4):
        with suppress(ConnectionError, RuntimeError):  # uvloop's for one that is broken already
            await caller.send(b"%d" % number)
        await until(partial(heard, number + 1))
    return await broken


@pytest.mark.parametrize(("change", "reason"), TAMPERING)
async def test_what_was_tampered_with_ends_the_exchange_with_a_clear_error_and_nothing_of_it_arrives(
    change: Change, reason: str
) -> None:
    received = bytearray()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            received.extend(data)
            writer.write(data)

    async with meddler(change) as server, ends_at(server.address, keep, key=KEY) as both:
        async with both.calling() as caller:
            assert await speak_until_broken(caller, server)
        event = await hears(both.engine, SealBroken, reason)
        assert event.service == "desk"
        assert KEY not in event.text()
        assert b"012345".startswith(bytes(received))
        assert [each.cause for each in told(both.engine, ChannelClosed) if each.label == "desk -> laptop"] == [
            event.reason
        ]


@pytest.mark.parametrize("which", ["laptop", "desk"])
async def test_what_comes_back_to_its_sender_does_not_open(which: str) -> None:
    async with meddler() as server:

        def reflect(sender: str, kind: Kind, count: int, data: bytes) -> Sequence[bytes]:
            if sender == which and (kind, count) == ("record", 0):
                guest = next(guest for guest in server.guests if guest.chid == which)
                guest.writer.write(data)
                return []
            return [data]

        server.change = reflect
        async with ends_at(server.address, key=KEY) as both, both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.broken()
            await until(lambda: which in {event.service for event in told(both.engine, SealBroken)})


async def test_an_exchange_that_was_recorded_opens_nothing_when_it_is_played_again() -> None:
    recorded: list[bytes] = []

    def record(sender: str, kind: Kind, count: int, data: bytes) -> Sequence[bytes]:
        if sender == "laptop":
            recorded.append(data)
        return [data]

    async with meddler(record) as server, ends_at(server.address, key=KEY) as both:
        async with both.calling() as caller:
            assert await caller.exchange(b"pay me") == b"pay me"
        await until(lambda: not both.far.open)
        laptop_guest = next(guest for guest in server.guests if guest.chid == "laptop")
        await server.send_from(laptop_guest, b"".join(recorded))
        await until(lambda: both.far.served == 2)  # somebody seems to call, and is led to the target
        await until(lambda: len(_of_desk(both, ChannelOpened)) == 2)
        both.far.reset_all()
        closed = await until(lambda: _of_desk(both, ChannelClosed)[1:])
        assert (closed[0].bytes_in, closed[0].bytes_out) == (0, 0)


async def test_what_a_third_one_sends_in_between_ends_the_exchange() -> None:
    async with ends(key=KEY) as (both, at), both.calling() as caller:
        for piece in (b"one", b"two"):
            await caller.send(piece)
            assert await caller.read(3) == piece
        async with at.client("stranger", ["desk"]) as stranger:
            await stranger.send(b"\x00\x00\x00\x20" + bytes(32))
            assert await caller.broken()
        event = await hears(both.engine, SealBroken, "record 3 of the sealed stream does not open")
        assert event.service == "desk"


async def test_a_stream_that_is_cut_short_never_looks_complete() -> None:
    ended: list[str] = []

    async def note_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            ended.append("in order")
        except ConnectionResetError:
            ended.append("reset")

    async with meddler() as server, ends_at(server.address, note_the_end, key=KEY) as both, both.calling() as caller:
        await caller.send(b"half a")
        await until(lambda: both.far.open)
        for guest in list(server.guests):
            guest.writer.close()
        assert await caller.broken()
        await until(lambda: ended)
        assert ended == ["reset"]


# Keys that do not match


async def test_ends_with_different_keys_are_told() -> None:
    async with ends(desk_changes={"key": KEY}, laptop_changes={"key": Secret("something else")}) as (both, _):
        async with both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.broken()
        event = await hears(both.engine, SealBroken, "its sender has another key")
        assert "something else" not in event.text()


async def test_an_end_whose_other_end_has_no_key_is_told() -> None:
    async with ends(laptop_changes={"key": KEY}) as (both, _):
        async with both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.broken()
        await hears(both.engine, SealBroken, "does not answer us; has its sender a key")


async def test_bytes_without_a_key_that_come_while_nobody_is_there_are_told_when_they_go_on() -> None:
    async with (
        hub() as at,
        running(laptop=laptop(at.address, key=KEY)) as engine,
        at.client("desk", ["laptop"]) as other,
    ):
        async with asyncio.timeout(PATIENCE):
            for count in itertools.count(1):
                await other.send(b"x")
                await until(partial(_has_received, at.party("laptop"), count))
                if told(engine, SealBroken):
                    break
        await hears(engine, SealBroken, "was not sealed for us")


async def test_a_fault_of_one_exchange_does_not_reach_the_next() -> None:
    async with meddler(at_record(1, flipped(-1))) as server, ends_at(server.address, key=KEY) as both:
        async with both.calling() as caller:
            assert await speak_until_broken(caller, server)
        server.change = as_it_is
        await _served_again(both.address)
        assert not told(both.engine, Crashed)


def _has_received(party: Party, count: int) -> bool:
    return party.bytes_out >= count


def _of_desk(both: Ends, kind: type[E]) -> list[E]:
    return [event for event in told(both.engine, kind) if getattr(event, "label", "") == "desk -> laptop"]


def _channels(both: Ends, label: str) -> list[Channel]:
    return [channel for channel in both.engine.node.sessions.channels.values() if channel.label == label]


async def _served_again(address: str) -> None:
    """Comes again until it is served: what was there before may still be in the way."""
    async with asyncio.timeout(PATIENCE):
        while not await _is_served(address):
            pass


async def _is_served(address: str) -> bool:
    async with calling(address) as caller:
        try:
            return await caller.exchange(b"ping") == b"ping"
        except ConnectionResetError:
            return False


async def _stands_still(figure: Callable[[], int]) -> int:
    """The figure, once it has not changed for a while."""
    seen: list[int] = []

    def same_as_before() -> bool:
        seen.append(figure())
        return len(seen) > LOOKS and len(set(seen[-LOOKS:])) == 1

    await until(same_as_before)
    return seen[-1]
