"""What our relay adds to the relay protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.relay import (
    DATA_MAGIC,
    KEY_LENGTH,
    MAX_LINE,
    MAX_WANTED,
    DataHello,
    LineReader,
    NativeHello,
    NativeKey,
    NativeMessage,
    VisitorFrame,
    VisitorStream,
    Want,
    encode_data_hello,
    encode_message,
    encode_visitor,
    is_native,
    parse_message,
    parse_public_address,
)
from wire_transcripts import cut, every_split, sent_by

KEY = bytes(range(KEY_LENGTH))
VISITOR = "[2001:db8::1]:50000"
OFFSETS = st.lists(st.integers(0, 2000), max_size=8)
MESSAGES = st.one_of(
    st.builds(NativeHello, st.none() | st.integers(0, MAX_WANTED), st.booleans(), st.booleans()),
    st.binary(min_size=KEY_LENGTH, max_size=KEY_LENGTH).map(NativeKey),
    st.integers(1, MAX_WANTED).map(Want),
    st.builds(VisitorStream, st.integers(1, (1 << 32) - 1), st.sampled_from((VISITOR, "192.0.2.7:0"))),
)


def test_a_data_connection_is_told_from_yamux_by_its_first_byte() -> None:
    assert is_native(encode_data_hello(KEY)[0])
    assert not is_native(sent_by("relay-echo", "client")[0])


@pytest.mark.parametrize("address", ["localhost:7101", "[::1]:1", "127.0.0.1:65535"])
def test_the_public_address_is_read(address: str) -> None:
    assert parse_public_address(address.encode()) == address


@pytest.mark.parametrize("data", [b"", b"localhost", b"a" * 63 + b"." + b"b" * 63 + b":80", b"\xff:80", b"a:80\n"])
def test_an_unusable_public_address_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="public address"):
        parse_public_address(data)


@given(st.lists(st.binary(max_size=100).filter(lambda line: b"\n" not in line), max_size=8), OFFSETS)
def test_lines_are_the_same_in_any_pieces(lines: list[bytes], offsets: list[int]) -> None:
    reader = LineReader()
    text = b"".join(line + b"\n" for line in lines)
    assert [line for piece in cut(text, offsets) for line in reader.feed(piece)] == lines


@pytest.mark.parametrize("ending", [b"", b"\n"], ids=["endless", "ended"])
def test_a_line_beyond_the_limit_is_a_protocol_error_in_any_pieces(ending: bytes) -> None:
    long = b"x" * MAX_LINE + ending
    for offset in (1, 500, MAX_LINE - 1, MAX_LINE, len(long)):
        reader = LineReader()
        with pytest.raises(ProtocolError, match="longer than 1024"):
            assert reader.feed(long[:offset]) + reader.feed(long[offset:]) == []


def test_a_line_of_just_the_limit_is_read() -> None:
    line = b"x" * (MAX_LINE - 1)
    for offset in (0, 1, MAX_LINE - 1):
        reader = LineReader()
        assert reader.feed(line[:offset]) + reader.feed(line[offset:] + b"\n") == [line]


@given(MESSAGES)
def test_every_message_is_one_line_that_is_read_again(message: NativeMessage) -> None:
    line = encode_message(message)
    assert line.index(b"\n") == len(line) - 1
    assert parse_message(line[:-1]) == message


def test_the_lines_are_what_the_documentation_shows() -> None:
    assert encode_message(NativeHello()) == b'{"native":1}\n'
    assert encode_message(NativeHello(4)) == b'{"native":1,"spare":4}\n'
    assert encode_message(NativeKey(KEY)) == b'{"native":1,"key":"%s"}\n' % KEY.hex().encode()
    assert encode_message(Want(3)) == b'{"want":3}\n'
    assert encode_message(NativeHello(4, visitors=True)) == b'{"native":1,"spare":4,"visitors":true}\n'
    assert encode_message(NativeHello(visitors=True, data=False)) == b'{"native":1,"visitors":true,"data":false}\n'
    assert encode_message(VisitorStream(6, "192.0.2.7:0")) == b'{"stream":6,"visitor":"192.0.2.7:0"}\n'


def test_keys_that_are_not_known_are_ignored() -> None:
    assert parse_message(b'{"want": 1, "later": {}}') == Want(1)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"\xff",
        b"[" * 1000,
        b"[1]",
        b"null",
        b"{}",
        b'{"native":2}',
        b'{"native":true}',
        b'{"native":1,"spare":-1}',
        b'{"native":1,"spare":257}',
        b'{"native":1,"spare":"4"}',
        b'{"native":1,"spare":true}',
        b'{"want":0}',
        b'{"want":257}',
        b'{"want":true}',
        b'{"want":"1"}',
        b'{"want":1.0}',
        b'{"stream":0,"visitor":"192.0.2.7:1"}',
        b'{"stream":true,"visitor":"192.0.2.7:1"}',
        b'{"stream":2}',
        b'{"stream":2,"visitor":7}',
        b'{"stream":2,"visitor":"192.0.2.7"}',
        b'{"native":1,"key":7}',
        b'{"native":1,"key":"00"}',
        b'{"native":1,"key":"%s"}' % (b"zz" * KEY_LENGTH),
    ],
)
def test_any_other_line_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"native protocol|key for data connections"):
        parse_message(line)


def test_a_key_that_does_not_parse_is_not_repeated() -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_message(b'{"native":1,"key":"5ec7e7"}')
    assert "5ec7e7" not in str(caught.value)


def test_the_first_bytes_of_a_data_connection_are_read_in_any_pieces() -> None:
    for pieces in every_split(encode_data_hello(KEY) + b"rest"):
        hello = DataHello()
        answers = [hello.receive_data(piece) for piece in pieces]
        assert answers[-1] == hello.key == KEY
        assert hello.leftover == b"rest"
        hello.receive_eof()


@pytest.mark.parametrize("offset", range(len(DATA_MAGIC)))
def test_a_wrong_byte_in_the_magic_is_noticed_at_once(offset: int) -> None:
    hello = DataHello()
    hello.receive_data(DATA_MAGIC[:offset])
    with pytest.raises(ProtocolError, match="neither like yamux nor like a data connection"):
        hello.receive_data(b"x")


def test_a_data_connection_that_closes_before_its_key_is_complete_broke_the_protocol() -> None:
    hello = DataHello()
    hello.receive_data(encode_data_hello(KEY)[:-1])
    with pytest.raises(ProtocolError, match="before its key was complete"):
        hello.receive_eof()


def test_a_key_of_another_length_is_not_sent() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        encode_data_hello(KEY[:-1])


def test_a_visitor_is_read_in_any_pieces_and_its_bytes_follow() -> None:
    for pieces in every_split(encode_visitor(VISITOR) + b"hello"):
        frame = VisitorFrame()
        answers = [frame.receive_data(piece) for piece in pieces]
        assert answers[-1] == frame.visitor == VISITOR
        assert frame.leftover == b"hello"
        frame.receive_eof()


@pytest.mark.parametrize("sent", [b"\x00", b"\x04host", b"\x05\xff\xff:80"])
def test_a_visitor_without_an_address_is_a_protocol_error(sent: bytes) -> None:
    with pytest.raises(ProtocolError, match="unusable visitor"):
        VisitorFrame().receive_data(sent)


def test_an_idle_data_connection_may_close_but_not_within_a_frame() -> None:
    frame = VisitorFrame()
    frame.receive_eof()
    frame.receive_data(encode_visitor(VISITOR)[:5])
    with pytest.raises(ProtocolError, match="in the middle of its visitor's address"):
        frame.receive_eof()


@pytest.mark.parametrize("machine", [DataHello(), VisitorFrame()], ids=["server", "client"])
def test_more_early_payload_than_the_limit_is_a_protocol_error(machine: DataHello | VisitorFrame) -> None:
    machine.receive_data(encode_data_hello(KEY) if isinstance(machine, DataHello) else encode_visitor(VISITOR))
    with pytest.raises(ProtocolError, match="before the channel was open"):
        machine.receive_data(bytes(MAX_EARLY_DATA + 1))


@given(st.lists(st.binary(max_size=1200), max_size=4))
def test_garbage_does_no_more_than_a_protocol_error(pieces: list[bytes]) -> None:
    for machine in (DataHello(), VisitorFrame(), LineReader()):
        try:
            for piece in pieces:
                if isinstance(machine, LineReader):
                    for line in machine.feed(piece):
                        parse_message(line)
                else:
                    machine.receive_data(piece)
        except ProtocolError:
            pass
