"""What clients and a rendezvous say to each other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.punch import (
    MAX_LINE,
    MAX_REASON,
    MAX_ROOM,
    MAX_SEALED,
    MAX_SEEN,
    MAX_STEP,
    VERSION,
    Go,
    Join,
    Joined,
    Left,
    LineReader,
    Message,
    Notice,
    Observe,
    Observed,
    Peer,
    Ping,
    Pong,
    Probe,
    Probed,
    Reached,
    Ready,
    Refused,
    Relay,
    Said,
    Say,
    encode,
    parse_first,
    parse_observing,
    parse_seat,
    parse_server,
)

NUMBERS = st.binary(min_size=16, max_size=16).map(bytes.hex)
IDS = st.integers(0, 2**32 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=MAX_REASON)
ADDRESSES = st.sampled_from(["192.0.2.10:7900", "[2001:db8::10]:1", ":7901"])
FIRST = st.one_of(
    st.builds(Join, room=WORDS.filter(lambda room: 0 < len(room) <= MAX_ROOM), tag=NUMBERS, seat=NUMBERS),
    st.builds(Observe, st.none() | NUMBERS),
    st.builds(Relay, NUMBERS),
)
SEAT = st.one_of(
    st.builds(Say, st.text(max_size=100)),
    st.builds(Ready, st.text(min_size=1, max_size=MAX_STEP)),
    st.builds(Pong, IDS),
)
SERVER = st.one_of(
    st.builds(Joined, first=st.booleans(), address=ADDRESSES, endpoints=st.lists(ADDRESSES, max_size=8)),
    st.builds(Peer),
    st.builds(Left),
    st.builds(Said, sealed=st.text(max_size=100), seen=st.lists(st.just("192.0.2.1"), max_size=MAX_SEEN)),
    st.builds(Go, step=st.text(max_size=MAX_STEP), rtt=st.floats(0, 100)),
    st.builds(Ping, IDS),
    st.builds(Notice, WORDS),
    st.builds(Refused, WORDS),
    st.builds(Observed, ADDRESSES),
    st.builds(Probed, other_address=st.sampled_from(Reached), other_port=st.sampled_from(Reached)),
)
SEAT_NUMBER = "0123456789abcdef" * 2


@given(FIRST)
def test_a_first_line_is_read_as_it_was_written(message: Message) -> None:
    assert parse_first(encode(message)) == message


@given(SEAT)
def test_what_a_seat_says_is_read_as_it_was_written(message: Message) -> None:
    assert parse_seat(encode(message)) == message


@given(SERVER)
def test_what_the_server_says_is_read_as_it_was_written(message: Message) -> None:
    assert parse_server(encode(message)) == message


def test_an_observing_client_may_ask_to_be_dialled() -> None:
    assert parse_observing(encode(Probe())) == Probe()


@given(st.lists(FIRST, min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=8))
def test_lines_are_the_same_in_any_pieces(messages: list[Message], offsets: list[int]) -> None:
    data = b"".join(map(encode, messages))
    reader = LineReader()
    cuts = [0, *sorted(min(offset, len(data)) for offset in offsets), len(data)]
    lines = [line for begin, end in itertools.pairwise(cuts) for line in reader.feed(data[begin:end])]
    assert [parse_first(line) for line in lines] == messages


def test_a_line_has_at_most_so_many_bytes() -> None:
    with pytest.raises(ProtocolError, match=f"longer than {MAX_LINE} bytes"):
        LineReader().feed(b"x" * MAX_LINE)


def test_the_longest_sealed_text_fits_into_a_line() -> None:
    seen = ["2001:db8:1111:2222:3333:4444:5555:6666"] * MAX_SEEN
    assert len(encode(Said(sealed="x" * MAX_SEALED, seen=seen))) < MAX_LINE


def test_fields_that_are_not_known_are_ignored() -> None:
    assert parse_seat(b'{"op":"pong","id":3,"later":[1]}') == Pong(3)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"{" * 10_000,
        b'{"op":"join"}',
        b'{"op":"sing"}',
        b'{"op":"pong","id":1}',
        f'{{"op":"relay","seat":"{SEAT_NUMBER[1:]}"}}'.encode(),
        f'{{"op":"relay","seat":"{SEAT_NUMBER.upper()}"}}'.encode(),
        f'{{"op":"relay","seat":"{SEAT_NUMBER}\\n"}}'.encode(),
        f'{{"op":"join","room":"","tag":"{SEAT_NUMBER}","seat":"{SEAT_NUMBER}"}}'.encode(),
        f'{{"op":"join","room":"desk\\u001b[2J","tag":"{SEAT_NUMBER}","seat":"{SEAT_NUMBER}"}}'.encode(),
        f'{{"op":"join","room":"{"r" * (MAX_ROOM + 1)}","tag":"{SEAT_NUMBER}","seat":"{SEAT_NUMBER}"}}'.encode(),
    ],
)
def test_a_first_line_that_means_nothing_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="none of its meanings"):
        parse_first(line)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"op":"join","tag":"ab"}', "its tag is missing or wrong"),
        (b'{"op":"join"}', "its room is missing or wrong"),
        (b'{"op":"sing"}', "its op is missing or wrong"),
    ],
)
def test_the_field_that_is_wrong_is_named_and_its_value_is_not(line: bytes, field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_first(line)
    assert str(caught.value) == f"a line of the punch protocol has none of its meanings: {field}"


def test_a_client_of_another_version_is_told_so() -> None:
    line = encode(Join(room="desk", tag=SEAT_NUMBER, seat=SEAT_NUMBER, version=VERSION + 1))
    with pytest.raises(ProtocolError, match=f"version {VERSION + 1} of the punch protocol, not {VERSION}"):
        parse_first(line)


@pytest.mark.parametrize(
    "message",
    [
        Notice("\x1b[2J"),
        Refused("two\nlines"),
        Notice("\u202egnorw"),
        Observed("192.0.2.1:80\x1b"),
        Said(sealed="", seen=["192.0.2.1\n"]),
        Joined(first=True, address="", endpoints=[":1 "]),
    ],
)
def test_what_would_move_a_terminal_s_cursor_is_said_by_no_server(message: Message) -> None:
    with pytest.raises(ProtocolError):
        parse_server(encode(message))


@pytest.mark.parametrize(
    "line",
    [b'{"op":"join"}', b'{"op":"ready","step":""}', b'{"op":"pong","id":-1}', b'{"op":"pong","id":4294967296}'],
)
def test_what_no_seat_says_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_seat(line)


@pytest.mark.parametrize("line", [b"{}", b'{"":"","":""}', b'{"op":"observe"}'])
def test_what_no_observing_client_says_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_observing(line)


@given(st.binary(max_size=200))
def test_noise_is_a_protocol_error_and_nothing_else(noise: bytes) -> None:
    for parse in (parse_first, parse_seat, parse_server, parse_observing):
        with pytest.raises(ProtocolError):
            parse(noise)
