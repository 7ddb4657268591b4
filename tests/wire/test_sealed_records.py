"""Payload sealed end to end: streams in any pieces, and each way to tamper with one."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire import sealed_records
from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_beginnings import (
    BEGINNING_LENGTH,
    MAGIC,
    NOBODYS,
    NOTHING,
    beginning_of,
    find_beginning,
    find_caller,
    last_caller,
)
from tunnelconsole.engine.wire.sealed_records import (
    MAX_TEXT,
    TAG_LENGTH,
    BrokenOff,
    Ended,
    Heard,
    KeyWanted,
    Mark,
    Opened,
    Opener,
    OpenerEvent,
    Reported,
    Sealer,
    Superseded,
)
from wire_transcripts import cut, every_split

SALT = b"0123456789abcdef"
OWN = b"fedcba9876543210"
OTHER = b"z" * 16
KEY = hashlib.sha256(b"a key").digest()
BEGINNING = MAGIC + SALT + OWN
OFFSETS = st.lists(st.integers(0, 10_000), max_size=8)
ANEW = Superseded("its sender began another stream before the last record of this one")


def sealed(*texts: bytes, salt: bytes = SALT, answered: bytes = OWN) -> list[bytes]:
    """Return the beginning, one record for each text, and the last record."""
    sealer = Sealer(KEY, salt, answered)
    return [sealer.seal(b""), *(sealer.seal(text) for text in texts), sealer.end()]


def feed(opener: Opener, *pieces: bytes, key: bytes = KEY) -> list[OpenerEvent]:
    """Feed pieces to an opener, and the key when it wants it; return what else it told."""
    events: list[OpenerEvent] = []
    for piece in pieces:
        for event in opener.receive_data(piece):
            events += opener.use_key(key) if isinstance(event, KeyWanted) else [event]
    return events


def opened(*pieces: bytes, key: bytes = KEY) -> tuple[bytes, bool, Opener]:
    """Feed pieces to an opener; return the text, whether it ended, and the opener."""
    opener = Opener(OWN)
    events = feed(opener, *pieces, key=key)
    text = b"".join(event.text for event in events if isinstance(event, Opened))
    return text, Ended() in events, opener


@given(st.lists(st.binary(max_size=300), max_size=6), OFFSETS)
def test_what_is_sealed_is_opened_in_any_pieces(texts: list[bytes], offsets: list[int]) -> None:
    text, ended, _ = opened(*cut(b"".join(sealed(*texts)), offsets))
    assert text == b"".join(texts)
    assert ended


def test_a_stream_is_opened_the_same_split_at_every_offset() -> None:
    for pieces in every_split(b"".join(sealed(b"hello", b"world"))):
        assert opened(*pieces)[:2] == (b"helloworld", True)


def test_a_long_text_becomes_several_records() -> None:
    text = bytes(range(256)) * 1000
    stream = b"".join(sealed(text))
    assert len(stream) == BEGINNING_LENGTH + len(text) + (len(text) // MAX_TEXT + 2) * (4 + TAG_LENGTH)
    assert opened(stream)[:2] == (text, True)


def test_a_stream_can_be_made_from_the_documentation_alone() -> None:
    first, last = (5 + 16).to_bytes(4, "big"), (2**31 + 16).to_bytes(4, "big")
    stream = b"TCSEAL02" + SALT + OWN
    stream += first + AESGCM(KEY).encrypt(bytes(12), b"hello", first + OWN)
    stream += last + AESGCM(KEY).encrypt(bytes(11) + b"\x01", b"", last)
    assert stream == b"".join(sealed(b"hello"))
    assert opened(stream)[:2] == (b"hello", True)
    report, sealer = (2**30 + 9 + 16).to_bytes(4, "big"), Sealer(KEY, SALT, OWN)
    stream = b"TCSEAL02" + SALT + OWN
    stream += report + AESGCM(KEY).encrypt(bytes(12), b"\x06" + (258).to_bytes(8, "big"), report + OWN)
    assert stream == sealer.report(258, Mark.DONE | Mark.ASKS)
    assert feed(Opener(OWN), stream) == [Reported(258, Mark.DONE | Mark.ASKS)]


def test_reports_go_before_the_text_in_between_and_behind_its_end() -> None:
    sealer = Sealer(KEY, SALT, OWN)
    stream = [sealer.report(0), sealer.seal(b"one"), sealer.report(7), sealer.end(), sealer.report(9, Mark.DONE)]
    assert (sealer.count, sealer.texts, sealer.end_at) == (5, 2, 4)
    assert feed(Opener(OWN), *stream) == [
        Reported(0, Mark.NONE),
        Opened(b"one"),
        Reported(7, Mark.NONE),
        Ended(),
        Reported(9, Mark.DONE),
    ]


def test_what_comes_behind_a_stream_that_is_over_is_left_over_but_only_so_much() -> None:
    opener = Opener(OWN)
    feed(opener, Sealer(KEY, SALT, OWN).break_off() + BEGINNING)
    assert opener.receive_data(b"more") == []
    assert opener.leftover == BEGINNING + b"more"
    with pytest.raises(ProtocolError, match="could go on"):
        opener.receive_data(bytes(MAX_EARLY_DATA))


def test_text_behind_the_end_is_no_text_of_the_stream() -> None:
    sealer = Sealer(KEY, SALT, OWN)
    with pytest.raises(ProtocolError, match="record 1 of the sealed stream is text behind its end"):
        opened(sealer.end(), sealer.seal(b"more"))
    sealer = Sealer(KEY, SALT, OWN)
    with pytest.raises(ProtocolError, match="behind its end"):
        opened(sealer.end(), sealer.end())


def test_what_comes_before_the_key_waits_for_it_but_only_so_much() -> None:
    stream = sealed(b"early")
    opener = Opener(OWN)
    assert opener.receive_data(stream[0] + stream[1]) == [KeyWanted(SALT)]
    assert opener.waits_for_key
    assert opener.receive_data(stream[2]) == []
    assert opener.use_key(KEY) == [Opened(b"early"), Ended()]
    opener = Opener(OWN)
    opener.receive_data(BEGINNING)
    with pytest.raises(ProtocolError, match="could go on"):
        opener.receive_data(bytes(MAX_EARLY_DATA + 1))


def test_a_stream_that_is_cut_at_any_byte_never_looks_complete() -> None:
    stream = b"".join(sealed(b"one", b"two"))
    for length in range(len(stream)):
        assert not opened(stream[:length])[1]


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_anywhere_behind_the_beginning_is_noticed(offset: int, change: int) -> None:
    stream = bytearray(b"".join(sealed(b"one", b"two", b"three")))
    offset = BEGINNING_LENGTH + offset % (len(stream) - BEGINNING_LENGTH)
    stream[offset] ^= change
    try:
        _, ended, _ = opened(bytes(stream))
    except ProtocolError:
        return
    assert not ended


@given(st.integers(0, BEGINNING_LENGTH - 1), st.integers(1, 255))
def test_of_a_stream_with_a_changed_beginning_nothing_is_opened(offset: int, change: int) -> None:
    beginning, *records = sealed(b"one")
    changed = bytearray(beginning)
    changed[offset] ^= change
    # Another salt means another key, which scrypt would make of it; here any key that is not the stream's.
    try:
        text, ended, _ = opened(bytes(changed), *records, key=bytes(32))
    except ProtocolError:
        return
    assert (text, ended) == (b"", False)


def test_records_in_any_other_order_do_not_open() -> None:
    beginning, *records = sealed(b"a", b"b", b"c")
    for order in itertools.permutations(records):
        if order != tuple(records):
            with pytest.raises(ProtocolError, match="does not open"):
                opened(beginning, *order)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_record_that_is_missing_or_repeated_is_noticed(place: int) -> None:
    beginning, *records = sealed(b"a", b"b", b"c")
    for tampered in (records[:place] + records[place + 1 :], records[: place + 1] + records[place:]):
        with pytest.raises(ProtocolError, match="does not open"):
            opened(beginning, *tampered)


def test_a_record_of_another_sender_in_between_is_noticed() -> None:
    beginning, first, second, _ = sealed(b"mine", b"too")
    with pytest.raises(ProtocolError, match="does not open"):
        opened(beginning, first, sealed(b"another's", salt=OTHER)[1], second)


def test_a_stream_that_answers_another_is_thrown_away() -> None:
    stale, mine = b"".join(sealed(b"stale", answered=OTHER)), b"".join(sealed(b"mine"))
    for pieces in every_split(stale + mine):
        opener = Opener(OWN)
        assert feed(opener, *pieces) == [Heard(SALT), Opened(b"mine"), Ended()]
        assert opener.thrown_away == len(stale) - BEGINNING_LENGTH


def test_a_recorded_stream_does_not_open_in_another_exchange_whatever_its_beginning_says() -> None:
    _, *records = sealed(b"recorded", answered=OTHER)
    with pytest.raises(ProtocolError, match="does not open"):
        opened(BEGINNING, *records)


def test_our_own_stream_that_comes_back_to_us_is_not_opened() -> None:
    beginning, *records = sealed(b"ours", salt=OWN, answered=SALT)
    text, ended, opener = opened(beginning_of(OWN), beginning, *records)
    assert (text, ended) == (b"", False)
    assert opener.thrown_away == len(beginning_of(OWN) + beginning + b"".join(records))
    with pytest.raises(ProtocolError, match="does not open"):
        opened(beginning_of(OWN, OWN), *records)


def test_whoever_has_begun_is_heard_until_somebody_answers() -> None:
    opener = Opener(OWN)
    assert feed(opener, b"garbage", beginning_of(SALT), beginning_of(OTHER, SALT)) == [Heard(SALT), Heard(OTHER)]
    assert (opener.thrown_away, opener.begun) == (len(b"garbage"), False)
    assert opener.receive_data(BEGINNING) == [KeyWanted(SALT)]
    assert opener.begun


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_beginning_may_come_again_until_the_first_record(times: int) -> None:
    beginning, *rest = sealed(b"one", b"two")
    for pieces in every_split(b"".join([beginning] * times + rest)):
        assert opened(*pieces)[:2] == (b"onetwo", True)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_beginning_where_a_record_is_due_cuts_the_stream_short(before: int) -> None:
    texts = [b"one", b"two"][:before]
    other = b"".join(sealed(b"three", salt=OTHER, answered=NOBODYS))
    for pieces in every_split(b"".join(sealed(*texts)[:-1]) + other):
        opener = Opener(OWN)
        assert feed(opener, *pieces) == [*map(Opened, texts), ANEW]
        assert opener.leftover == other


@pytest.mark.parametrize("before", [0, 1])
def test_an_end_that_says_that_it_knows_of_no_stream_ends_the_one_there_is(before: int) -> None:
    texts = [b"one"][:before]
    for pieces in every_split(b"".join(sealed(*texts)[:-1]) + NOTHING):
        events = feed(Opener(OWN), *pieces)
        assert events == [*map(Opened, texts), Superseded("its sender knows nothing of it any more")]


def test_an_end_that_says_that_it_knows_of_no_stream_is_no_caller_and_no_garbage() -> None:
    opener = Opener(OWN)
    assert feed(opener, NOTHING, *sealed(b"one")) == [Opened(b"one"), Ended()]
    assert opener.thrown_away == 0


def test_the_beginning_itself_behind_a_record_cuts_the_stream_short() -> None:
    beginning, first, *_ = sealed(b"one")
    assert feed(Opener(OWN), beginning, first, beginning) == [Opened(b"one"), ANEW]


@pytest.mark.parametrize("texts", [(), (b"one",), (b"one", b"two")])
def test_a_stream_that_is_broken_off_never_looks_complete(texts: tuple[bytes, ...]) -> None:
    sealer = Sealer(KEY, SALT, OWN)
    stream = b"".join([*map(sealer.seal, texts), sealer.break_off()])
    assert feed(Opener(OWN), stream) == [*map(Opened, texts), BrokenOff("")]


def test_who_breaks_off_because_a_record_did_not_open_says_so() -> None:
    stream = Sealer(KEY, SALT, OWN).break_off(did_not_open=True)
    (event,) = feed(Opener(OWN), stream)
    assert isinstance(event, BrokenOff)
    assert "what came to it was not what had been sealed" in event.reason


@pytest.mark.parametrize("change", [0x4000_0000, 0x8000_0000, 0xC000_0000])
def test_how_a_stream_ends_cannot_be_changed_on_the_way(change: int) -> None:
    in_order, broken_off = Sealer(KEY, SALT, OWN), Sealer(KEY, SALT, OWN)
    for stream in (in_order.end(), broken_off.break_off()):
        record = stream[BEGINNING_LENGTH:]
        header = (int.from_bytes(record[:4], "big") ^ change).to_bytes(4, "big")
        with pytest.raises(ProtocolError, match=r"does not open|which none may have"):
            opened(BEGINNING, header + record[4:] + bytes(16))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n", b"from a", MAGIC[:4] + b"!", b"\x00", bytes(10_000)])
def test_what_is_not_sealed_is_thrown_away(garbage: bytes) -> None:
    text, ended, opener = opened(garbage, *sealed(b"one"))
    assert (text, ended) == (b"one", True)
    assert opener.thrown_away == len(garbage)


@pytest.mark.parametrize("length", [0, 15, 16, MAX_TEXT + 17, 2**30 - 1, int.from_bytes(MAGIC[:4], "big")])
def test_a_record_of_no_possible_length_is_refused_before_it_has_come(length: int) -> None:
    with pytest.raises(ProtocolError, match="which none may have"):
        opened(BEGINNING, length.to_bytes(4, "big") + bytes(BEGINNING_LENGTH))


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


def test_a_stream_that_is_over_takes_nothing_more() -> None:
    sealer = Sealer(KEY, SALT, OWN)
    sealer.break_off()
    later: list[Callable[[], bytes]] = [
        lambda: sealer.seal(b"more"),
        lambda: sealer.report(0),
        sealer.end,
        sealer.break_off,
    ]
    for more in later:
        with pytest.raises(RuntimeError):
            more()


def test_a_key_is_taken_only_when_it_is_wanted() -> None:
    with pytest.raises(RuntimeError):
        Opener(OWN).use_key(KEY)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_garbage_behind_the_beginning_opens_nothing(pieces: list[bytes]) -> None:
    try:
        text, ended, _ = opened(BEGINNING, *pieces)
    except ProtocolError:
        return
    assert (text, ended) == (b"", False)


def test_the_last_caller_is_the_one_whose_beginning_is_whole() -> None:
    assert last_caller(b"") is None
    assert last_caller(BEGINNING[:-1]) is None
    assert last_caller(b"x" + beginning_of(OTHER) + BEGINNING) == SALT
    assert last_caller(beginning_of(OTHER) + BEGINNING[:-1]) == OTHER
    assert last_caller(NOTHING) is None
    assert last_caller(NOTHING + BEGINNING + NOTHING) == SALT


def test_who_begins_is_found_behind_what_belongs_to_nothing() -> None:
    for garbage in (b"", b"x", b"TT", MAGIC[:5]):
        assert find_beginning(garbage + BEGINNING) == (len(garbage), True)
    assert find_beginning(b"garbage" + MAGIC[:3]) == (7, False)
    assert find_beginning(b"garbage" + NOTHING) == (7, True)
    assert find_caller(b"garbage" + NOTHING) == (7 + BEGINNING_LENGTH, False)
    assert find_caller(b"garbage" + NOTHING + b"more" + BEGINNING) == (11 + BEGINNING_LENGTH, True)
    assert find_caller(NOTHING + MAGIC) == (BEGINNING_LENGTH, False)
