"""Payload sealed end to end: streams in any pieces, and each way to tamper with one."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire import sealed_records
from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_records import (
    MAGIC,
    MAX_BEGINNINGS,
    MAX_TEXT,
    TAG_LENGTH,
    BrokenOff,
    Ended,
    KeyWanted,
    Opened,
    Opener,
    OpenerEvent,
    Sealer,
    SeenSalts,
    beginning_of,
)
from wire_transcripts import cut, every_split

SALT = b"0123456789abcdef"
KEY = hashlib.sha256(b"a key").digest()
BEGINNING = MAGIC + SALT
OFFSETS = st.lists(st.integers(0, 10_000), max_size=8)


def sealed(*texts: bytes, salt: bytes = SALT) -> list[bytes]:
    """Return the beginning, one record for each text, and the last record."""
    sealer = Sealer(KEY, salt)
    return [sealer.seal(b""), *(sealer.seal(text) for text in texts), sealer.finish()]


def opened(*pieces: bytes, key: bytes = KEY) -> tuple[bytes, bool, Opener]:
    """Feed pieces to an opener; return the text, whether it ended, and the opener."""
    opener = Opener(SeenSalts())
    events: list[OpenerEvent] = []
    for piece in pieces:
        for event in opener.receive_data(piece):
            events += opener.use_key(key) if isinstance(event, KeyWanted) else [event]
    text = b"".join(event.text for event in events if isinstance(event, Opened))
    return text, Ended() in events, opener


@given(st.lists(st.binary(max_size=300), max_size=6), OFFSETS)
def test_what_is_sealed_is_opened_in_any_pieces(texts: list[bytes], offsets: list[int]) -> None:
    text, ended, opener = opened(*cut(b"".join(sealed(*texts)), offsets))
    assert text == b"".join(texts)
    assert ended
    opener.receive_eof()


def test_a_stream_is_opened_the_same_split_at_every_offset() -> None:
    for pieces in every_split(b"".join(sealed(b"hello", b"world"))):
        assert opened(*pieces)[:2] == (b"helloworld", True)


def test_a_long_text_becomes_several_records() -> None:
    text = bytes(range(256)) * 1000
    stream = b"".join(sealed(text))
    assert len(stream) == len(BEGINNING) + len(text) + (len(text) // MAX_TEXT + 2) * (4 + TAG_LENGTH)
    assert opened(stream)[:2] == (text, True)


def test_a_stream_can_be_made_from_the_documentation_alone() -> None:
    first, last = (5 + 16).to_bytes(4, "big"), (2**31 + 16).to_bytes(4, "big")
    stream = b"TCSEAL01" + SALT
    stream += first + AESGCM(KEY).encrypt(bytes(12), b"hello", first)
    stream += last + AESGCM(KEY).encrypt(bytes(11) + b"\x01", b"", last)
    assert stream == b"".join(sealed(b"hello"))
    assert opened(stream)[:2] == (b"hello", True)


def test_another_stream_may_follow_the_last_record() -> None:
    _, ended, opener = opened(*sealed(b"one"), BEGINNING)
    assert ended
    assert opener.receive_data(b"more") == []
    assert opener.leftover == BEGINNING + b"more"
    with pytest.raises(ProtocolError, match="could go on"):
        opener.receive_data(bytes(MAX_EARLY_DATA))


def test_what_comes_before_the_key_waits_for_it_but_only_so_much() -> None:
    stream = sealed(b"early")
    opener = Opener(SeenSalts())
    assert opener.receive_data(stream[0] + stream[1]) == [KeyWanted(SALT)]
    assert opener.receive_data(stream[2]) == []
    assert opener.use_key(KEY) == [Opened(b"early"), Ended()]
    opener = Opener(SeenSalts())
    opener.receive_data(BEGINNING)
    with pytest.raises(ProtocolError, match="could go on"):
        opener.receive_data(bytes(MAX_EARLY_DATA + 1))


@pytest.mark.parametrize("count", range(1, 4))
def test_a_stream_without_its_last_record_was_cut_short(count: int) -> None:
    _, ended, opener = opened(*sealed(b"one", b"two")[:count])
    assert not ended
    with pytest.raises(ProtocolError, match="cut short"):
        opener.receive_eof()


def test_no_stream_at_all_is_not_one_that_was_cut_short() -> None:
    opener = Opener(SeenSalts())
    opener.receive_eof()
    assert [opener.begun, bool(opener.receive_data(MAGIC[:1])), opener.begun] == [False, False, True]
    with pytest.raises(ProtocolError, match="cut short"):
        opener.receive_eof()


def test_a_cut_at_any_byte_is_noticed() -> None:
    stream = b"".join(sealed(b"one", b"two"))
    for length in range(1, len(stream)):
        _, ended, opener = opened(stream[:length])
        assert not ended
        with pytest.raises(ProtocolError, match="cut short"):
            opener.receive_eof()


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_anywhere_behind_the_salt_is_noticed(offset: int, change: int) -> None:
    stream = bytearray(b"".join(sealed(b"one", b"two", b"three")))
    offset = len(BEGINNING) + offset % (len(stream) - len(BEGINNING))
    stream[offset] ^= change
    with pytest.raises(ProtocolError, match=r"does not open|which none may have|cut short"):
        opened(bytes(stream))[2].receive_eof()


@given(st.integers(0, 23), st.integers(1, 255))
def test_a_changed_beginning_is_noticed(offset: int, change: int) -> None:
    stream = bytearray(BEGINNING)
    stream[offset] ^= change
    # Another salt means another key, which scrypt would make of it; here any key that is not the stream's.
    with pytest.raises(ProtocolError, match=r"does not begin like|another key"):
        opened(bytes(stream), *sealed(b"one")[1:], key=bytes(32))


def test_records_in_any_other_order_do_not_open() -> None:
    beginning, *records = sealed(b"a", b"b", b"c")
    for order in itertools.permutations(records):
        if order != tuple(records):
            with pytest.raises(ProtocolError, match="does not open"):
                opened(beginning, *order)[2].receive_eof()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_that_is_missing_or_repeated_is_noticed(place: int) -> None:
    beginning, *records = sealed(b"a", b"b", b"c")
    for tampered in (records[:place] + records[place + 1 :], records[: place + 1] + records[place:]):
        with pytest.raises(ProtocolError, match="does not open"):
            opened(beginning, *tampered)


def test_bytes_of_another_sender_in_between_are_noticed() -> None:
    beginning, first, second, _ = sealed(b"mine", b"too")
    with pytest.raises(ProtocolError, match="does not open"):
        opened(beginning, first, sealed(b"another's", salt=b"z" * 16)[1], second)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_beginning_may_come_again_until_the_first_record(times: int) -> None:
    beginning, *rest = sealed(b"one", b"two")
    for pieces in every_split(b"".join([beginning] * times + rest)):
        assert opened(*pieces)[:2] == (b"onetwo", True)


def test_a_beginning_that_comes_again_behind_a_record_is_refused() -> None:
    beginning, first, *_ = sealed(b"one")
    with pytest.raises(ProtocolError, match="came again"):
        opened(beginning, first, beginning)


def test_of_several_beginnings_without_a_record_the_last_one_goes_on() -> None:
    stream = sealed(b"one", salt=b"z" * 16)
    for pieces in every_split(BEGINNING * 2 + b"".join(stream)):
        assert opened(*pieces)[:2] == (b"one", True)
    opener = Opener(SeenSalts())
    assert opener.receive_data(BEGINNING + stream[0]) == [KeyWanted(b"z" * 16)]


def test_so_many_beginnings_without_a_record_are_refused() -> None:
    beginnings = [beginning_of(number.to_bytes(16, "big")) for number in range(MAX_BEGINNINGS + 1)]
    opened(*beginnings[:-1])
    with pytest.raises(ProtocolError, match="several senders"):
        opened(*beginnings)


def test_a_beginning_behind_a_record_cuts_the_stream_short() -> None:
    beginning, first, *_ = sealed(b"one")
    other = b"".join(sealed(b"two", salt=b"z" * 16))
    for pieces in every_split(beginning + first + other):
        opener = Opener(SeenSalts())
        events: list[OpenerEvent] = []
        behind = b""
        for piece in pieces:
            if opener.leftover:
                behind += piece
                continue
            for event in opener.receive_data(piece):
                events += opener.use_key(KEY) if isinstance(event, KeyWanted) else [event]
        assert events == [
            Opened(b"one"),
            BrokenOff("its sender began another stream before the last record of this one"),
        ]
        assert opener.leftover + behind == other


@pytest.mark.parametrize("texts", [(), (b"one",), (b"one", b"two")])
def test_a_stream_that_is_broken_off_never_looks_complete(texts: tuple[bytes, ...]) -> None:
    sealer = Sealer(KEY, SALT)
    stream = b"".join([*map(sealer.seal, texts), sealer.finish(broken_off=True)])
    opener = Opener(SeenSalts())
    assert opener.receive_data(stream) == [KeyWanted(SALT)]
    assert opener.use_key(KEY) == [*map(Opened, texts), BrokenOff("its sender broke off")]
    opener.receive_eof()


@pytest.mark.parametrize("change", [0x4000_0000, 0x8000_0000, 0xC000_0000])
def test_how_a_stream_ends_cannot_be_changed_on_the_way(change: int) -> None:
    beginning, _, last = sealed(b"one")
    for record in (last, Sealer(KEY, SALT).finish(broken_off=True)[len(BEGINNING) :]):
        header = (int.from_bytes(record[:4], "big") ^ change).to_bytes(4, "big")
        with pytest.raises(ProtocolError, match=r"does not open|which none may have"):
            opened(beginning, header + record[4:] + bytes(16))


def test_a_stream_that_was_here_before_is_refused() -> None:
    seen = SeenSalts()
    stream = b"".join(sealed(b"one"))
    for _ in range(2):  # what never had a record may begin again: nobody could tell whether it arrived
        Opener(seen).receive_data(BEGINNING)
    opener = Opener(seen)
    opener.receive_data(stream)
    opener.use_key(KEY)
    with pytest.raises(ProtocolError, match="came again"):
        Opener(seen).receive_data(stream)


def test_our_own_stream_that_comes_back_to_us_is_refused() -> None:
    seen = SeenSalts()
    seen.add(SALT)
    with pytest.raises(ProtocolError, match="came again"):
        Opener(seen).receive_data(BEGINNING)


def test_only_so_many_salts_are_remembered() -> None:
    seen = SeenSalts()
    for number in range(sealed_records.REMEMBERED_SALTS + 1):
        seen.add(number.to_bytes(16, "big"))
    seen.add(bytes(16))  # the oldest has been forgotten
    with pytest.raises(ProtocolError):
        seen.add((2).to_bytes(16, "big"))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n", b"from a", MAGIC[:4] + b"!", b"\x00"])
def test_what_is_not_sealed_is_noticed_at_once(garbage: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not begin like a sealed stream"):
        opened(garbage)


@pytest.mark.parametrize("length", [0, 15, 16, MAX_TEXT + 17, 2**31 - 1])
def test_a_record_of_no_possible_length_is_refused_before_it_has_come(length: int) -> None:
    with pytest.raises(ProtocolError, match="which none may have"):
        opened(BEGINNING, length.to_bytes(4, "big"))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ProtocolError, match="another key"):
        opened(*sealed(b"secret"), key=bytes(32))


def test_a_stream_has_no_more_records_than_its_key_may_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    records = sealed(b"1", b"2", b"3")
    monkeypatch.setattr(sealed_records, "MAX_RECORDS", 2)
    with pytest.raises(ProtocolError, match="may have no more"):
        sealed(b"1", b"2", b"3")
    with pytest.raises(ProtocolError, match="more than 2 records"):
        opened(*records)


def test_a_stream_that_is_finished_takes_nothing_more() -> None:
    sealer = Sealer(KEY, SALT)
    sealer.finish()
    for text in (b"", b"more"):
        with pytest.raises(RuntimeError):
            sealer.seal(text) if text else sealer.finish()


def test_a_key_is_taken_only_when_it_is_wanted() -> None:
    with pytest.raises(RuntimeError):
        Opener(SeenSalts()).use_key(KEY)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_garbage_behind_the_beginning_opens_nothing(pieces: list[bytes]) -> None:
    try:
        text, ended, _ = opened(BEGINNING, *pieces)
    except ProtocolError:
        return
    assert (text, ended) == (b"", False)
