"""SOCKS5 as our listener speaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.socks5 import ConnectAsked, Event, Refused, Reply, Socks5Handshake
from wire_transcripts import every_split

GREETING = b"\x05\x02\x00\x02"
BY_NAME = b"\x05\x01\x00\x03\x0fwww.example.com\x01\xbb"
BY_IPV4 = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
BY_IPV6 = b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"


def greeted() -> Socks5Handshake:
    """Return a handshake whose method is agreed."""
    handshake = Socks5Handshake()
    assert handshake.receive_data(GREETING) == []
    assert handshake.data_to_send() == b"\x05\x00"
    return handshake


@pytest.mark.parametrize(
    ("request_bytes", "host", "port"),
    [(BY_NAME, "www.example.com", 443), (BY_IPV4, "127.0.0.1", 80), (BY_IPV6, "::1", 80)],
    ids=["name", "ipv4", "ipv6"],
)
def test_a_target_is_asked_for_by_name_or_address_in_any_pieces(request_bytes: bytes, host: str, port: int) -> None:
    for pieces in every_split(GREETING + request_bytes + b"early"):
        handshake = Socks5Handshake()
        events = [event for piece in pieces for event in handshake.receive_data(piece)]
        assert events == [ConnectAsked(host, port)]
        assert handshake.leftover == b"early"
        assert handshake.data_to_send() == b"\x05\x00"


@pytest.mark.parametrize(
    ("bound", "encoded"),
    [
        ("10.0.0.1", b"\x01\x0a\x00\x00\x01"),
        ("::1", b"\x04" + bytes(15) + b"\x01"),
        ("fe80::%lo", b"\x04\xfe\x80" + bytes(14)),
    ],
)
def test_an_accepted_client_hears_the_bound_address(bound: str, encoded: bytes) -> None:
    handshake = greeted()
    handshake.receive_data(BY_NAME)
    handshake.accept(bound, 258)
    assert handshake.data_to_send() == b"\x05\x00\x00" + encoded + b"\x01\x02"


@pytest.mark.parametrize("reply", [reply for reply in Reply if reply is not Reply.SUCCEEDED])
def test_a_refused_client_hears_the_code(reply: Reply) -> None:
    handshake = greeted()
    handshake.receive_data(BY_NAME)
    handshake.refuse(reply)
    assert handshake.data_to_send() == bytes((5, reply, 0, 1)) + bytes(6)
    assert handshake.receive_data(b"more") == []


def test_a_client_that_insists_on_authentication_is_told_that_there_is_none() -> None:
    handshake = Socks5Handshake()
    assert [type(event) for event in handshake.receive_data(b"\x05\x01\x02")] == [Refused]
    assert handshake.data_to_send() == b"\x05\xff"


@pytest.mark.parametrize(
    ("request_bytes", "code", "reason"),
    [
        (b"\x05\x02", 7, "command 2"),
        (b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", 7, "command 3"),
        (b"\x05\x01\x00\x02\x00", 8, "address type 2"),
        (b"\x05\x01\x00\x03\x00\x00\x50", 1, "host is empty"),
        (b"\x05\x01\x00\x03\x03a b\x00\x50", 1, "not a host name"),
        (b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50", 1, "impossible target"),
        (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", 1, "port 0"),
    ],
    ids=["bind", "udp", "address type", "empty name", "bad name", "not utf-8", "port 0"],
)
def test_what_is_not_served_gets_its_code_and_a_reason(request_bytes: bytes, code: int, reason: str) -> None:
    handshake = greeted()
    (event,) = handshake.receive_data(request_bytes)
    assert isinstance(event, Refused)
    assert reason in event.reason
    assert handshake.data_to_send()[:2] == bytes((5, code))
    assert handshake.receive_data(BY_NAME) == []


@pytest.mark.parametrize(
    ("sent", "name"),
    [(b"\x04\x01", "SOCKS4"), (b"GET / HTTP/1.1", "HTTP"), (b"\x16\x03\x01", "TLS"), (b"\x00", "an unknown protocol")],
)
def test_another_protocol_is_named(sent: bytes, name: str) -> None:
    with pytest.raises(ProtocolError, match=f"speaks {name}, this listener is SOCKS5"):
        Socks5Handshake().receive_data(sent)


def test_a_request_of_another_version_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="version 4"):
        greeted().receive_data(b"\x04\x01")


def test_more_early_payload_than_the_limit_is_a_protocol_error() -> None:
    handshake = greeted()
    handshake.receive_data(BY_NAME)
    with pytest.raises(ProtocolError, match="before the channel was open"):
        handshake.receive_data(bytes(MAX_EARLY_DATA + 1))


@pytest.mark.parametrize(
    ("sent", "step"), [(b"\x05", "greeting"), (GREETING, "request"), (GREETING + BY_NAME[:5], "request")]
)
def test_it_says_at_which_step_the_client_closed(sent: bytes, step: str) -> None:
    handshake = Socks5Handshake()
    handshake.receive_data(sent)
    with pytest.raises(ProtocolError, match=step):
        handshake.receive_eof()


def test_a_client_may_half_close_once_its_target_is_named() -> None:
    handshake = greeted()
    handshake.receive_data(BY_NAME)
    handshake.receive_eof()


def test_the_service_cannot_answer_before_a_target_is_asked_for() -> None:
    with pytest.raises(RuntimeError):
        greeted().accept()
    with pytest.raises(RuntimeError):
        greeted().refuse(Reply.GENERAL_FAILURE)


@given(
    st.sampled_from([b"", b"\x05", GREETING, GREETING + b"\x05\x01\x00\x03"]),
    st.lists(st.binary(max_size=300), max_size=4),
)
def test_garbage_is_refused_or_a_protocol_error(start: bytes, pieces: list[bytes]) -> None:
    handshake = Socks5Handshake()
    events: list[Event] = []
    try:
        for piece in [start, *pieces]:
            events += handshake.receive_data(piece)
    except ProtocolError:
        pass
    assert len(events) <= 1
