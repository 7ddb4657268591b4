"""The HTTP CONNECT proxy as our listener speaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.http_connect import MAX_HEAD, ConnectAsked, Event, HttpConnectHandshake, Refused
from wire_transcripts import every_split

REQUEST = b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\nUser-Agent: test\r\n\r\n"


def refusal(sent: bytes) -> tuple[Refused, bytes]:
    """Send bytes that must be refused; return the event and the response."""
    handshake = HttpConnectHandshake()
    (event,) = handshake.receive_data(sent)
    assert isinstance(event, Refused)
    return event, handshake.data_to_send()


def head_of(length: int) -> bytes:
    """Return a good head of exactly ``length`` bytes."""
    start = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: "
    return start + b"x" * (length - len(start) - 4) + b"\r\n\r\n"


def test_a_target_is_asked_for_in_any_pieces() -> None:
    for pieces in every_split(REQUEST + b"early"):
        handshake = HttpConnectHandshake()
        events = [event for piece in pieces for event in handshake.receive_data(piece)]
        assert events == [ConnectAsked("www.example.com", 443)]
        assert handshake.leftover == b"early"
        handshake.accept()
        assert handshake.data_to_send() == b"HTTP/1.1 200 Connection established\r\n\r\n"


def test_an_ipv6_target_stands_in_brackets() -> None:
    handshake = HttpConnectHandshake()
    assert handshake.receive_data(b"CONNECT [::1]:80 HTTP/1.0\r\n\r\n") == [ConnectAsked("::1", 80)]


def test_a_refused_client_gets_a_whole_response_with_the_reason() -> None:
    handshake = HttpConnectHandshake()
    handshake.receive_data(REQUEST)
    handshake.refuse(502, "the target refused the connection")
    assert handshake.data_to_send() == (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 34\r\n"
        b"Connection: close\r\n\r\nthe target refused the connection\n"
    )
    assert handshake.receive_data(b"more") == []


def test_a_slow_client_can_be_refused_before_its_head_is_complete() -> None:
    handshake = HttpConnectHandshake()
    handshake.receive_data(b"CONN")
    handshake.refuse(408, "too slow")
    assert handshake.data_to_send().startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_status_without_a_phrase_of_its_own_is_an_error() -> None:
    handshake = HttpConnectHandshake()
    handshake.refuse(599, "unheard of")
    assert handshake.data_to_send().startswith(b"HTTP/1.1 599 Error\r\n")


def test_a_client_may_half_close_once_its_target_is_named() -> None:
    handshake = HttpConnectHandshake()
    handshake.receive_data(REQUEST)
    handshake.receive_eof()


def test_another_method_is_told_what_is_allowed() -> None:
    event, response = refusal(b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert event.status == 405
    assert b"\r\nAllow: CONNECT\r\n" in response


def test_a_response_to_head_has_no_body() -> None:
    _, response = refusal(b"HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"CONNECT www.example.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT www.example.com HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
    ids=["tls", "no target", "no host header", "no port", "port 0", "length", "chunked", "unknown coding"],
)
def test_a_bad_head_is_a_bad_request(sent: bytes) -> None:
    event, response = refusal(sent)
    assert event.status == 400
    assert response.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "an HTTP/1.1 request needs a Host header"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nHost: b:1\r\n\r\n", "more than one Host header"),
    ],
    ids=["no host", "two hosts"],
)
def test_a_bad_request_is_told_what_is_bad(head: bytes, reason: str) -> None:
    event, response = refusal(head)
    assert (event.status, reason in event.reason) == (400, True)
    assert response.endswith(f"\r\n\r\n{event.reason}\n".encode())


def test_a_client_of_http_1_0_needs_no_host_header() -> None:
    assert HttpConnectHandshake().receive_data(b"CONNECT a:1 HTTP/1.0\r\n\r\n") == [ConnectAsked("a", 1)]


def test_a_credential_in_a_bad_head_is_not_repeated() -> None:
    event, response = refusal(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization : Basic cGFzcw==\r\n\r\n")
    assert "cGFzcw" not in event.reason
    assert b"cGFzcw" not in response


def test_a_head_of_just_the_limit_is_taken() -> None:
    assert HttpConnectHandshake().receive_data(head_of(MAX_HEAD)) == [ConnectAsked("a", 1)]


@pytest.mark.parametrize("sent", [head_of(MAX_HEAD + 1), head_of(MAX_HEAD + 50)[:-4]], ids=["complete", "incomplete"])
def test_a_head_beyond_the_limit_is_too_large(sent: bytes) -> None:
    event, response = refusal(sent)
    assert event.status == 431
    assert response.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("version", [4, 5])
def test_socks_is_named(version: int) -> None:
    with pytest.raises(ProtocolError, match=f"speaks SOCKS{version}"):
        HttpConnectHandshake().receive_data(bytes((version, 1, 0)))


def test_more_early_payload_than_the_limit_is_a_protocol_error() -> None:
    handshake = HttpConnectHandshake()
    handshake.receive_data(REQUEST)
    with pytest.raises(ProtocolError, match="before the channel was open"):
        handshake.receive_data(bytes(MAX_EARLY_DATA + 1))


def test_a_client_that_closes_before_its_head_is_complete_broke_the_protocol() -> None:
    handshake = HttpConnectHandshake()
    handshake.receive_data(REQUEST[:-1])
    with pytest.raises(ProtocolError, match="before its HTTP request was complete"):
        handshake.receive_eof()


def test_the_service_cannot_answer_too_early_or_twice() -> None:
    handshake = HttpConnectHandshake()
    with pytest.raises(RuntimeError):
        handshake.accept()
    handshake.receive_data(REQUEST)
    handshake.accept()
    with pytest.raises(RuntimeError):
        handshake.refuse(502, "late")


@given(st.sampled_from([b"", b"CONNECT ", REQUEST[:-2]]), st.lists(st.binary(max_size=300), max_size=4))
def test_garbage_is_refused_or_a_protocol_error(start: bytes, pieces: list[bytes]) -> None:
    handshake = HttpConnectHandshake()
    events: list[Event] = []
    try:
        for piece in [start, *pieces]:
            events += handshake.receive_data(piece)
    except ProtocolError:
        pass
    assert len(events) <= 1
