"""How bodies are framed, and their bytes in and out."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.http.body import (
    CHUNKED,
    MAX_EXTENSIONS,
    MAX_TRAILERS,
    NO_BODY,
    UNTIL_CLOSE,
    ChunkedDecoder,
    Decoder,
    Framing,
    Kind,
    LengthDecoder,
    decoder_of,
    encode_chunk,
    encode_last_chunk,
    request_framing,
    response_framing,
)
from tunnelconsole.engine.wire.http.head import HttpError, parse_request, parse_response
from wire.http.cases import head, request
from wire_transcripts import cut, every_split

FIVE = Framing(Kind.LENGTH, 5)


def read(decoder: Decoder | None, pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    """Feed a decoder until it is done; return the payload, whether it is done, and what came behind."""
    assert decoder is not None
    payload, rest = b"", b""
    done = False
    for piece in pieces:
        if done:
            rest += piece
        else:
            found, done, rest = decoder.receive_data(piece)
            assert all(found)
            payload += b"".join(found)
    return payload, done, rest


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([], NO_BODY),
        (["Content-Length: 5"], FIVE),
        (["content-length: 0"], Framing(Kind.LENGTH, 0)),
        (["Content-Length: 999999999999999999"], Framing(Kind.LENGTH, 999999999999999999)),
        (["Transfer-Encoding: chunked"], CHUNKED),
        (["TRANSFER-ENCODING: CHUNKED"], CHUNKED),
    ],
)
def test_a_request_is_framed_by_its_fields(lines: list[str], framing: Framing) -> None:
    assert request_framing(parse_request(request(*lines, first="POST / HTTP/1.1"))) == framing


@pytest.mark.parametrize(
    ("method", "status", "lines", "framing"),
    [
        ("GET", 200, [], UNTIL_CLOSE),
        ("GET", 200, ["Content-Length: 5"], FIVE),
        ("GET", 200, ["Transfer-Encoding: chunked"], CHUNKED),
        ("GET", 404, [], UNTIL_CLOSE),
        ("HEAD", 200, [], NO_BODY),
        ("HEAD", 200, ["Content-Length: 5"], NO_BODY),
        ("HEAD", 404, ["Transfer-Encoding: chunked"], NO_BODY),
        ("GET", 204, ["Content-Length: 5"], NO_BODY),
        ("GET", 304, ["Content-Length: 5"], NO_BODY),
        ("GET", 304, [], NO_BODY),
        ("GET", 100, [], NO_BODY),
        ("GET", 101, ["Content-Length: 5"], NO_BODY),
    ],
)
def test_a_response_is_framed_by_request_and_status_first(
    method: str, status: int, lines: list[str], framing: Framing
) -> None:
    assert response_framing(method, parse_response(head(f"HTTP/1.1 {status} x", *lines))) == framing


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("first", "lines"),
    [
        ("HTTP/1.1 200 OK", ["Content-Length: 5", "Content-Length: 5"]),
        ("HTTP/1.1 200 OK", ["Content-Length: five"]),
        ("HTTP/1.1 200 OK", ["Content-Length: 5", "Transfer-Encoding: chunked"]),
        ("HTTP/1.1 200 OK", ["Transfer-Encoding: gzip, chunked"]),
        ("HTTP/1.1 200 OK", ["Transfer-Encoding: identity"]),
        ("HTTP/1.0 200 OK", ["Transfer-Encoding: chunked"]),
    ],
)
def test_a_response_whose_end_is_not_known_for_sure_is_refused(method: str, first: str, lines: list[str]) -> None:
    with pytest.raises(HttpError) as caught:
        response_framing(method, parse_response(head(first, *lines)))
    assert caught.value.status == 502


def test_a_body_of_known_length_ends_there_in_any_pieces() -> None:
    for pieces in every_split(b"hellorest"):
        assert read(decoder_of(FIVE, 400), pieces) == (b"hello", True, b"rest")


def test_a_body_until_the_end_has_no_other_end() -> None:
    assert read(decoder_of(UNTIL_CLOSE, 502), [b"hello", b"", b"again"]) == (b"helloagain", False, b"")


@pytest.mark.parametrize("framing", [NO_BODY, Framing(Kind.LENGTH, 0)])
def test_nothing_is_read_where_there_is_nothing(framing: Framing) -> None:
    assert decoder_of(framing, 400) is None


def test_a_chunked_body_is_read_in_any_pieces() -> None:
    body = b'5\r\nhello\r\nA;x="y"\r\n0123456789\r\n0;last\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n'
    for pieces in every_split(body + b"rest"):
        decoder = ChunkedDecoder(400)
        assert read(decoder, pieces) == (b"hello0123456789", True, b"rest")
        assert decoder.trailers == (("X-Sum", "1"), ("X-Sum", "2"))


def test_a_chunk_passes_before_it_is_complete() -> None:
    decoder = ChunkedDecoder(400)
    assert decoder.receive_data(b"ff\r\nhel").pieces == [b"hel"]
    assert decoder.receive_data(b"lo").pieces == [b"lo"]


def test_no_copy_is_made_of_a_read_within_a_chunk() -> None:
    decoder = ChunkedDecoder(400)
    decoder.receive_data(b"ffff\r\n")
    data = bytes(1000)
    assert decoder.receive_data(data).pieces[0] is data


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=10), st.lists(st.integers(0, 400)))
def test_what_is_encoded_is_read_again(parts: list[bytes], behind: bytes, offsets: list[int]) -> None:
    stream = b"".join(encode_chunk([part]) for part in parts) + encode_last_chunk((("A", "1"), ("b", "")))
    decoder = ChunkedDecoder(502)
    assert read(decoder, cut(stream + behind, offsets)) == (b"".join(parts), True, behind)
    assert decoder.trailers == (("A", "1"), ("b", ""))


def test_pieces_become_one_chunk_and_none_becomes_nothing() -> None:
    assert encode_chunk([b"hello", b" ", b"world"]) == b"b\r\nhello world\r\n"
    assert encode_chunk([]) == b""
    assert encode_last_chunk() == b"0\r\n\r\n"


def test_extensions_up_to_the_limit_are_let_through() -> None:
    extension = b";" + b"a" * 127
    decoder = ChunkedDecoder(400)
    for _ in range(MAX_EXTENSIONS // 128):
        decoder.receive_data(b"1" + extension + b"\r\nx\r\n")
    with pytest.raises(HttpError, match="bytes of extensions"):
        decoder.receive_data(b"1;\r\n")


def test_fields_behind_a_body_up_to_the_limit_are_let_through() -> None:
    for extra in (0, 1):
        fields = b"X: " + b"a" * (MAX_TRAILERS - 7 + extra) + b"\r\n\r\n"
        for pieces in ([b"0\r\n" + fields], [b"0\r\n", fields[:-1], fields[-1:]]):
            decoder = ChunkedDecoder(400)
            if extra:
                with pytest.raises(HttpError, match="behind the body have more than"):
                    read(decoder, pieces)
            else:
                assert read(decoder, pieces) == (b"", True, b"")


def test_the_error_of_a_response_is_502() -> None:
    with pytest.raises(HttpError) as caught:
        ChunkedDecoder(502).receive_data(b"x\r\n")
    assert caught.value.status == 502


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_does_no_more_than_the_named_error(pieces: list[bytes]) -> None:
    decoder = ChunkedDecoder(400)
    with suppress(HttpError):
        read(decoder, pieces)


@given(st.text("0123456789abcdef;\r\n x:", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_a_chunked_body_means_the_same_in_any_pieces(text: str, offsets: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        decoder = ChunkedDecoder(400)
        try:
            return read(decoder, pieces), decoder.trailers
        except HttpError as error:
            return error.reason

    assert outcome([text.encode()]) == outcome(cut(text.encode(), offsets))


def test_a_length_counts_what_is_still_to_come() -> None:
    decoder = LengthDecoder(10)
    decoder.receive_data(b"hello")
    assert decoder.remaining == 5
