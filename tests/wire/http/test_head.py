"""Heads of requests and responses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.http.body import request_framing, response_framing
from tunnelconsole.engine.wire.http.forward import asks_for_upgrade, expects_continue, keeps_open, route_of
from tunnelconsole.engine.wire.http.head import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_NAME,
    MAX_TARGET,
    HeadReader,
    HttpError,
    parse_request,
    parse_response,
)
from wire.http.cases import head, request
from wire_transcripts import cut, every_split

REQUEST = request("Accept: */*", "cookie: a=1", "Cookie: b=2", first="GET /a?b=c HTTP/1.1")
RESPONSE = head("HTTP/1.1 404 Not Found here", "Server: x", "Set-Cookie: a", "Set-Cookie: b")


def refusal(data: bytes, *, response: bool = False) -> HttpError:
    with pytest.raises(HttpError) as caught:
        parse_response(data) if response else parse_request(data)
    return caught.value


def test_a_request_is_read() -> None:
    parsed = parse_request(REQUEST)
    assert (parsed.method, parsed.target, parsed.minor) == ("GET", "/a?b=c", 1)
    assert parsed.fields == (("Host", "app.example.net"), ("Accept", "*/*"), ("cookie", "a=1"), ("Cookie", "b=2"))
    assert parsed.keys == ("host", "accept", "cookie", "cookie")
    assert parsed.values == {"host": "app.example.net", "accept": "*/*", "cookie": "a=1, b=2"}


def test_a_response_is_read() -> None:
    parsed = parse_response(RESPONSE)
    assert (parsed.status, parsed.reason, parsed.minor) == (404, "Not Found here", 1)
    assert parsed.fields == (("Server", "x"), ("Set-Cookie", "a"), ("Set-Cookie", "b"))


@pytest.mark.parametrize("line", ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200"])
def test_a_response_may_have_no_reason(line: str) -> None:
    assert parse_response(head(line)).reason == ""


@pytest.mark.parametrize(
    "line",
    [
        "",
        "HTTP/1.1",
        "HTTP/1.1 20",
        "HTTP/1.1 2000",
        "HTTP/1.1 099 x",
        "HTTP/1.1 200OK",
        "HTTP/1.1  200 OK",
        "HTTP/2 200",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 2x0 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 -20 OK",
    ],
)
def test_any_other_status_line_is_refused_with_502(line: str) -> None:
    assert refusal(head(line), response=True).status == 502


@pytest.mark.parametrize("field", ["X : a", " X: a", "no colon", "X: \x00", "X: a\nY: b", "X: a\r\n b"])
def test_a_bad_field_of_a_response_is_refused_with_502(field: str) -> None:
    assert refusal(head("HTTP/1.1 200 OK", field), response=True).status == 502


def test_an_error_never_quotes_what_was_sent() -> None:
    for line in ("5ec7e7", "5ec7e7 : a", "X: 5ec7e7\x00", " 5ec7e7", "Host: 5ec7e7 x"):
        assert "5ec7e7" not in str(refusal(request(line)))
    assert "5ec7e7" not in str(refusal(request(first="GET /5ec7e7 5ec7e7 HTTP/1.1")))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (request("X : a"), "a blank stands before the colon of a field"),
        (request("\tX: a"), "a field is continued on a second line"),
        (request("X"), "a line of the head has no colon"),
        (request("X\xe9: a"), "the name of a field holds a character that no name has"),
        (request("X: \x00"), "a control character stands in the head"),
        (request("X: a\nb"), "a line of the head ends in LF alone, not in CRLF"),
        (head("GET / HTTP/1.1"), "the request has no Host"),
        (request("Host: b"), "the request has more than one Host"),
    ],
)
def test_an_error_says_what_is_wrong(data: bytes, sentence: str) -> None:
    assert str(refusal(data)) == sentence


def test_http_1_0_needs_no_host() -> None:
    assert "host" not in parse_request(head("GET / HTTP/1.0")).values


LONG_NAME = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))
"""A host of 253 bytes."""


@pytest.mark.parametrize(
    "host",
    [
        "a",
        "A.b-c.D9",
        "a.test.",
        "a.test.:80",
        "my_app.test",
        "1.a",
        "0x7f.test",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::ffff:127.0.0.1]:80",
        LONG_NAME,
        f"{LONG_NAME}.:65535",
    ],
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert parse_request(request(host=host)).values["host"] == host


@pytest.mark.parametrize(
    "host",
    [
        ".",
        "..",
        "a..",
        "denied.test..",
        "a..b",
        ".a",
        "-a.test",
        "a-.test",
        "_a.test",
        "a_.test",
        "a.-",
        "a" * 64,
        f"{LONG_NAME}e",
        "0x7f.1",
        "0x7f.1.",
        "a.0x",
        "2130706433",
        "127.1",
        "127.0.0.01",
        "127.0.0.256",
        "1.2.3.4.5",
        "[:]",
        "[::1::]",
        "[127.0.0.1]",
    ],
)
def test_what_is_no_host_is_400(host: str) -> None:
    assert refusal(request(host=host)).status == 400
    assert refusal(request(host=f"{host}:80")).status == 400


def test_what_just_fits_is_read() -> None:
    assert len(parse_request(request(first=f"GET /{'a' * (MAX_TARGET - 1)} HTTP/1.1")).target) == MAX_TARGET
    assert len(parse_request(request(*["X: a"] * (MAX_FIELDS - 1))).fields) == MAX_FIELDS
    assert parse_request(request("n" * MAX_NAME + ": a")).keys[1] == "n" * MAX_NAME


@pytest.mark.parametrize(("data", "is_request"), [(REQUEST, True), (b"\r\n" + REQUEST, True), (RESPONSE, False)])
def test_a_head_is_cut_out_in_any_pieces(data: bytes, is_request: bool) -> None:
    for pieces in every_split(data + b"rest"):
        reader = HeadReader(request=is_request)
        rest = b""
        found = None
        for piece in pieces:
            if found is not None:
                rest += piece
            elif (found := reader.receive_data(piece)) is not None:
                rest = found[1]
            else:
                assert reader.begun or data.startswith(b"\r\n")
        assert found is not None
        assert found[0] == data.removeprefix(b"\r\n")
        assert rest == b"rest"
        assert not reader.begun


def test_a_head_of_just_the_limit_is_cut_out_and_one_byte_more_is_not() -> None:
    for extra in (0, 1):
        data = request("X: ")
        data = data[:-4] + b"a" * (MAX_HEAD - len(data) + extra) + data[-4:]
        for pieces in ([data], [data[:-1], data[-1:]], [data[: MAX_HEAD - 3], data[MAX_HEAD - 3 :]]):
            reader = HeadReader(request=True)
            if extra:
                with pytest.raises(HttpError) as caught:
                    [reader.receive_data(piece) for piece in pieces]
                assert caught.value.status == 431
            else:
                assert [reader.receive_data(piece) for piece in pieces][-1] == (data, b"")


def test_a_reader_reads_one_head_after_the_other() -> None:
    reader = HeadReader(request=True)
    found = reader.receive_data(REQUEST + b"\r\n" + REQUEST)
    assert found == (REQUEST, b"\r\n" + REQUEST)
    assert reader.receive_data(found[1]) == (REQUEST, b"")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n", b"\x16\x03", b"\r\n\r", b"\rG"])
def test_what_can_never_become_a_request_is_not_waited_for(sent: bytes) -> None:
    for pieces in every_split(sent):
        reader = HeadReader(request=True)
        with pytest.raises(HttpError):
            [reader.receive_data(piece) for piece in pieces]


def test_no_line_is_skipped_before_a_response() -> None:
    reader = HeadReader(request=False)
    found = reader.receive_data(b"\r\n" + RESPONSE)
    assert found is not None
    assert refusal(found[0], response=True).status == 502


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_garbage_is_refused_in_the_same_way_in_any_pieces(data: bytes, offsets: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        reader = HeadReader(request=True)
        try:
            for piece in pieces:
                if (found := reader.receive_data(piece)) is not None:
                    return parse_request(found[0])
        except HttpError as error:
            return error.status, error.reason
        return None

    assert outcome([data + b"\r\n\r\n"]) == outcome(cut(data + b"\r\n\r\n", offsets))


LINES = st.lists(st.text(st.characters(max_codepoint=255), max_size=30), max_size=6)


@given(st.sampled_from(["GET / HTTP/1.1", "POST http://a/b HTTP/1.0", "HEAD"]), LINES)
def test_nothing_but_the_named_error_comes_of_any_request(first: str, lines: list[str]) -> None:
    with suppress(HttpError):
        parsed = parse_request(request(*lines, first=first))
        route_of(parsed)
        keeps_open(parsed)
        expects_continue(parsed)
        asks_for_upgrade(parsed, request_framing(parsed))


@given(st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.0 304", "HTTP"]), LINES)
def test_nothing_but_the_named_error_comes_of_any_response(first: str, lines: list[str]) -> None:
    with suppress(HttpError):
        parsed = parse_response(head(first, *lines))
        response_framing("GET", parsed)
        keeps_open(parsed)
