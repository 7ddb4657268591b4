"""How a sealed exchange ends: in order only where all has arrived, and soon, whatever the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest

from channel_client_peers import Change, Guest, Kind, Meddler, ends, ends_at, meddler
from channel_peers import hub
from loopback import BULK, PATIENCE, Caller, digest_at_end, hears, listen_only, sha256, told
from tunnelconsole import channel
from tunnelconsole.engine.events import ChannelClosed, SealBroken
from tunnelconsole.engine.services.channel import sealed_halves, sealed_key, sealed_vigil
from tunnelconsole.engine.settings import Secret
from tunnelconsole.engine.wire.sealed_records import Kind as RecordKind
from waiting import until

KEY = "only the two of us know"

NOT_SEALED = "what came to it was not what had been sealed for it"

WAYS: dict[str, Callable[[bytes], Sequence[bytes]]] = {
    "dropped": lambda data: [],
    "changed": lambda data: [data[:-1] + bytes([data[-1] ^ 1])],
    "repeated": lambda data: [data, data],
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost no tenth of a second, and nobody waits long for a word."""
    monkeypatch.setattr(sealed_key, "derive_key", lambda key, salt: sha256(key + salt))
    monkeypatch.setattr(sealed_halves, "FIRST_HELLO", 0.02)
    monkeypatch.setattr(sealed_vigil, "TICK", 0.1)
    monkeypatch.setattr(sealed_vigil, "PARTING_TIME", 0.2)


@dataclass
class Side:
    """What became of one end."""

    received: bytes = b""
    error: str = ""


@dataclass
class Tampering:
    """Does something to the so-manieth record of one end that is of one kind."""

    chid: str
    kind: RecordKind
    way: str
    number: int = 0
    done: bool = field(default=False, init=False)
    _seen: int = field(default=0, init=False)

    def __call__(self, sender: str, kind: Kind, number: int, data: bytes) -> Sequence[bytes]:
        if sender != self.chid or kind == "beginning" or data[0] >> 6 != self.kind:
            return [data]
        self._seen += 1
        if self._seen - 1 != self.number:
            return [data]
        self.done = True
        return WAYS[self.way](data)


async def ask(address: str, asked: Side) -> None:
    """Says all at once, and waits for the answer."""
    try:
        async with channel.connect(address, "a", receivers=["b"], key=KEY) as (reader, writer):
            writer.write(b"question")
            writer.write_eof()
            asked.received = await reader.read()
    except ConnectionResetError as error:
        asked.error = str(error)


async def answer(address: str, answered: Side) -> None:
    """Waits for the end of the question, and says all at once."""
    try:
        async with channel.connect(address, "b", receivers=["a"], key=KEY) as (reader, writer):
            answered.received = await reader.read()
            writer.write(b"answer")
    except ConnectionResetError as error:
        answered.error = str(error)


async def conversation(change: Change) -> tuple[Side, Side]:
    """What becomes of the two ends of one, each of which must come to an end."""
    one, other = Side(), Side()
    async with meddler(change) as server, asyncio.timeout(PATIENCE):
        await asyncio.gather(ask(str(server.address), one), answer(str(server.address), other))
    return one, other


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "kind", [RecordKind.REPORT, RecordKind.TEXT, RecordKind.END], ids=lambda kind: kind.name.lower()
)
@pytest.mark.parametrize("chid", ["a", "b"])
async def test_what_an_end_says_first_last_or_of_all_its_text_cannot_be_tampered_with(
    chid: str, kind: RecordKind, way: str
) -> None:
    change = Tampering(chid, kind, way)
    one, other = await conversation(change)
    assert change.done
    meddled, hurt = (one, other) if chid == "a" else (other, one)
    assert NOT_SEALED in meddled.error
    assert "of the sealed stream does not open" in hurt.error or "the sealed stream does not open" in hurt.error


@pytest.mark.parametrize("way", WAYS)
async def test_the_last_confirmation_cannot_be_tampered_with(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_vigil, "PARTING_TIME", PATIENCE)  # till the other end has asked for what was dropped
    change = Tampering("a", RecordKind.REPORT, way, number=1)  # the one that the answer has come
    one, other = await conversation(change)
    assert change.done
    assert one.received == b"answer"
    assert NOT_SEALED in one.error
    assert "of the sealed stream does not open" in other.error


async def test_nothing_is_missing_when_only_the_last_word_is_dropped() -> None:
    change = Tampering("b", RecordKind.REPORT, "dropped", number=2)  # that it is done, to one who is
    assert await conversation(change) == (Side(b"answer"), Side(b"question"))
    assert change.done


async def test_who_gets_no_confirmation_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_vigil, "CONFIRM_TIME", 0.5)
    silent = False

    def fall_silent(sender: str, kind: Kind, number: int, data: bytes) -> Sequence[bytes]:
        nonlocal silent
        silent |= (sender, data[0] >> 6) == ("a", RecordKind.END)
        return [] if silent else [data]

    async with meddler(fall_silent) as server, channel.connect(str(server.address), "b", receivers=["a"], key=KEY):
        asked = Side()
        await ask(str(server.address), asked)
        assert "has not confirmed within" in asked.error


@dataclass
class Silence:
    """Swallows all that anybody says, from the first text of ``a`` that is said while it is armed."""

    chid: str
    armed: bool = True
    fallen: bool = False

    def __call__(self, sender: str, kind: Kind, number: int, data: bytes) -> Sequence[bytes]:
        is_text = kind == "record" and data[0] >> 6 == RecordKind.TEXT
        self.fallen |= self.armed and sender == self.chid and is_text
        return [] if self.fallen else [data]


async def test_who_may_say_more_and_gets_no_confirmation_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_vigil, "OPEN_CONFIRM_TIME", 0.5)
    monkeypatch.setattr(sealed_vigil, "CONFIRM_TIME", 0.3)  # what the one who fell silent waits for in vain
    told_by_reader, told_at_end = Side(), Side()

    async def talk(address: str) -> None:
        async with channel.connect(address, "a", receivers=["b"], key=KEY) as (reader, writer):
            writer.write(b"is anybody there?")
            try:
                await reader.read()
            except ConnectionResetError as error:
                told_by_reader.error = str(error)

    async with meddler(Silence("a")) as server, channel.connect(str(server.address), "b", receivers=["a"], key=KEY):
        try:
            await talk(str(server.address))
        except ConnectionResetError as error:
            told_at_end.error = str(error)
    assert "has not confirmed within 0.5 s" in told_by_reader.error
    assert told_at_end == told_by_reader


async def test_a_program_whose_other_end_fell_silent_is_reset_and_the_next_one_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealed_vigil, "OPEN_CONFIRM_TIME", 0.5)
    silence = Silence("laptop", armed=False)
    async with meddler(silence) as server, ends_at(server.address, key=Secret(KEY)) as both:
        async with both.calling() as caller:
            await caller.send(b"ping")
            assert await caller.read(4) == b"ping"
            silence.armed = True
            await caller.send(b"ping")
            assert await caller.broken()
        closed = await hears(both.engine, ChannelClosed, "laptop -> desk")
        assert "has not confirmed within 0.5 s" in closed.cause
        silence.armed = silence.fallen = False
        await both.serves()


async def test_an_end_that_only_listens_is_never_taken_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_vigil, "TICK", 0.02)
    monkeypatch.setattr(sealed_vigil, "OPEN_CONFIRM_TIME", 0.3)
    loop = asyncio.get_running_loop()
    async with ends(listen_only, key=Secret(KEY)) as (both, _), both.calling() as caller:
        for _ in range(3):
            await caller.send(b"listen")
            until_then = loop.time() + 1.5 * sealed_vigil.OPEN_CONFIRM_TIME
            await until(partial(_has_passed, until_then))
        assert both.far.open == 1
        assert not told(both.engine, ChannelClosed)


def _has_passed(time: float) -> bool:
    return asyncio.get_running_loop().time() > time


async def test_a_slow_receiver_is_waited_for_by_who_may_say_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_vigil, "TICK", 0.02)
    monkeypatch.setattr(sealed_vigil, "OPEN_CONFIRM_TIME", 0.3)
    loop = asyncio.get_running_loop()
    async with (
        hub() as at,
        channel.connect(at.address, "b", receivers=["a"], key=KEY) as (late, _),
        channel.connect(at.address, "a", receivers=["b"], key=KEY) as (_, writer),
    ):
        writer.write(BULK)
        since = loop.time()
        await until(lambda: loop.time() - since > 3 * sealed_vigil.OPEN_CONFIRM_TIME)
        assert await late.readexactly(len(BULK)) == BULK


class HoldsBack(Meddler):
    """Lets nothing of ``b`` through behind its first answer until ``a`` has said all."""

    said_all: asyncio.Event
    answers = 0

    async def send_from(self, guest: Guest, data: bytes) -> None:
        if guest.chid == "a" and data[0] >> 6 == RecordKind.END:
            self.said_all.set()
        if guest.chid == "b" and any(data[-16:]):
            self.answers += 1
            if self.answers > 1:
                await self.said_all.wait()
        await super().send_from(guest, data)


async def test_who_leaves_early_is_not_thrown_out_by_what_the_other_end_said_first() -> None:
    server = HoldsBack()
    server.said_all = asyncio.Event()
    async with meddler(made=server), channel.connect(str(server.address), "b", receivers=["a"], key=KEY) as (reader, _):
        async with channel.connect(str(server.address), "a", receivers=["b"], key=KEY) as (_, writer):
            writer.write(b"all there is")
        assert await reader.read() == b"all there is"


async def test_a_slow_receiver_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_vigil, "TICK", 0.02)
    monkeypatch.setattr(sealed_vigil, "CONFIRM_TIME", 0.3)
    released, loop = asyncio.Event(), asyncio.get_running_loop()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await digest_at_end(reader, writer)

    async with ends(read_late, key=Secret(KEY)) as (both, _), both.calling() as caller:
        sending = asyncio.ensure_future(caller.exchange(BULK))
        since = loop.time()
        await until(lambda: loop.time() - since > 3 * sealed_vigil.CONFIRM_TIME)
        assert not sending.done()
        released.set()
        assert await sending == sha256(BULK)


async def test_what_is_written_to_somebody_who_has_left_is_an_error() -> None:
    async with hub() as at:

        async def write_too_late() -> None:
            async with channel.connect(at.address, "b", receivers=["a"], key=KEY) as (reader, writer):
                assert await reader.read() == b""
                writer.write(b"too late")

        async def leave() -> None:
            async with channel.connect(at.address, "a", receivers=["b"], key=KEY):
                await until(lambda: sorted(at.chids) == ["a", "b"])

        error, _ = await asyncio.gather(write_too_late(), leave(), return_exceptions=True)
        assert isinstance(error, ConnectionResetError)
        assert "left before it had taken all" in str(error)


async def test_nothing_is_lost_when_both_leave_at_once() -> None:
    async with hub() as at:

        async def write_and_leave(chid: str, other: str) -> None:
            async with channel.connect(at.address, chid, receivers=[other], key=KEY) as (reader, writer):
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(write_and_leave("a", "b"), write_and_leave("b", "a"))


async def test_keys_that_differ_are_told_before_anybody_has_said_anything() -> None:
    keys = {"desk_changes": {"key": Secret(KEY)}, "laptop_changes": {"key": Secret("another")}}
    async with ends(listen_only, **keys) as (both, _), both.calling() as caller:
        assert await caller.broken()
        await until(lambda: {each.service for each in told(both.engine, SealBroken)} == {"desk", "laptop"})


async def test_a_program_behind_a_client_is_reset_when_its_last_words_did_not_arrive() -> None:
    change = Tampering("laptop", RecordKind.END, "changed")
    async with meddler(change) as server, ends_at(server.address, listen_only, key=Secret(KEY)) as both:
        async with both.calling() as caller:
            await caller.send(b"that is all")
            caller.half_close()
            assert await caller.broken()
        closed = await hears(both.engine, ChannelClosed, "laptop -> desk")
        assert NOT_SEALED in closed.cause
        assert (await hears(both.engine, SealBroken)).service == "desk"


async def test_an_end_that_takes_no_more_can_still_say_what_it_has_to_say() -> None:
    async def close_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"enough")

    async with ends(close_early, key=Secret(KEY)) as (both, _), both.calling() as caller:
        assert await caller.read_to_end() == b"enough"
        await until(lambda: not both.far.open)
        await _send_until_broken(caller)
        closed = await hears(both.engine, ChannelClosed, "laptop -> desk")
        assert closed.cause == "the other end left before it had taken all that was sent"


async def _send_until_broken(caller: Caller) -> None:
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError, RuntimeError):  # uvloop's for one that is broken already
            while True:
                await caller.send(BULK)
