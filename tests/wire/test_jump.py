"""The jump protocol, both ends, byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.frame import encode_frame
from tunnelconsole.engine.wire.jump import (
    CHALLENGE_LENGTH,
    NO_REASON,
    Authenticated,
    BadSecret,
    BadTarget,
    ClientEvent,
    Connected,
    DialRefused,
    JumpClientHandshake,
    JumpServerHandshake,
    SecretRefused,
    ServerEvent,
    TargetAsked,
    answer,
    make_challenge,
)
from wire_transcripts import JUMP_SECRET, WRONG_JUMP_SECRET, cut, every_split, load, sent_by

CHALLENGE = b"c" * CHALLENGE_LENGTH
SECRETS = {"alice": b"alice's secret", "bob": b"bob's secret"}
REFUSED_DIAL = "dial tcp 127.0.0.1:1: connect: connection refused"
OFFSETS = st.lists(st.integers(0, 400), max_size=8)


def serve(
    name: str, pieces: Iterable[bytes], dial_error: str = ""
) -> tuple[list[ServerEvent], bytes, JumpServerHandshake]:
    """Feed a recorded client to our server, which draws the recorded challenge; return events, answers and machine."""
    server = JumpServerHandshake(load(name)[0].data[1:], {"eve": b"another", "ann": JUMP_SECRET})
    events: list[ServerEvent] = []
    output = server.data_to_send()
    for piece in pieces:
        for event in server.receive_data(piece):
            events.append(event)
            if isinstance(event, TargetAsked):
                if dial_error:
                    server.refuse(dial_error)
                else:
                    server.accept()
        output += server.data_to_send()
    return events, output, server


def ask(name: str, pieces: Iterable[bytes]) -> tuple[list[ClientEvent], bytes, JumpClientHandshake]:
    """Feed a recorded server to our client; return events, what the client said, and the machine."""
    secret = WRONG_JUMP_SECRET if name == "jump-bad-secret" else JUMP_SECRET
    client = JumpClientHandshake(secret, "127.0.0.1", 1 if name == "jump-refused" else 8099)
    events: list[ClientEvent] = []
    output = client.data_to_send()
    for piece in pieces:
        events += client.receive_data(piece)
        output += client.data_to_send()
    return events, output, client


SERVED: dict[str, list[ServerEvent]] = {
    "jump-ok": [Authenticated("ann"), TargetAsked("127.0.0.1", 8099)],
    "jump-refused": [Authenticated("ann"), TargetAsked("127.0.0.1", 1)],
    "jump-bad-secret": [BadSecret()],
}
ASKED: dict[str, list[ClientEvent]] = {
    "jump-ok": [Connected()],
    "jump-refused": [DialRefused(REFUSED_DIAL)],
    "jump-bad-secret": [SecretRefused("challenge failed, check secret")],
}


def check_served(name: str, pieces: Sequence[bytes]) -> None:
    events, output, server = serve(name, pieces, REFUSED_DIAL if name == "jump-refused" else "")
    assert events == SERVED[name]
    # Our server says to the byte what the original said; what followed came from the target.
    assert sent_by(name, "server") == output + (_payload(name, "server") if name == "jump-ok" else b"")
    assert server.leftover == _payload(name, "client")


def check_asked(name: str, pieces: Sequence[bytes]) -> None:
    events, output, client = ask(name, pieces)
    assert events == ASKED[name]
    assert output + _payload(name, "client") == sent_by(name, "client")
    assert client.leftover == (_payload(name, "server") if name == "jump-ok" else b"")


def _payload(name: str, sender: str) -> bytes:
    """Return what one end of a recording sent after its handshake."""
    if name != "jump-ok":
        return b""
    return [read.data for read in load(name) if read.data and read.sender == sender][-1]


@pytest.mark.parametrize("name", SERVED)
def test_the_server_reads_a_recorded_client_the_same_split_at_every_offset(name: str) -> None:
    for pieces in every_split(sent_by(name, "client")):
        check_served(name, pieces)


@pytest.mark.parametrize("name", ASKED)
def test_the_client_reads_a_recorded_server_the_same_split_at_every_offset(name: str) -> None:
    for pieces in every_split(sent_by(name, "server")):
        check_asked(name, pieces)


@given(st.sampled_from(sorted(SERVED)), OFFSETS)
def test_recordings_are_read_the_same_in_any_pieces(name: str, offsets: list[int]) -> None:
    check_served(name, cut(sent_by(name, "client"), offsets))
    check_asked(name, cut(sent_by(name, "server"), offsets))


def handshake_server() -> JumpServerHandshake:
    """Return a server that has sent its challenge."""
    server = JumpServerHandshake(CHALLENGE, SECRETS)
    server.data_to_send()
    return server


def proof(secret: bytes = SECRETS["bob"]) -> bytes:
    return encode_frame(answer(CHALLENGE, secret))


def server_at_target(target: bytes = b"host:80", behind: bytes = b"") -> JumpServerHandshake:
    """Return a server that was asked for ``target``, its answer to the secret taken."""
    server = handshake_server()
    server.receive_data(proof() + encode_frame(target) + behind)
    assert server.data_to_send()[:1] == b"\x00"
    return server


def test_a_challenge_is_32_letters_and_digits() -> None:
    challenge = make_challenge(lambda count: bytes(range(256))[:count])
    assert len(challenge) == CHALLENGE_LENGTH
    assert challenge.isalnum()


def test_random_bytes_that_would_favour_some_characters_are_drawn_again() -> None:
    # 248 is 4 times the 62 characters: from there on, a byte would make the first eight likelier.
    draws = iter([bytes([248, 255] * 16), bytes(range(32))])
    assert make_challenge(lambda _count: next(draws)) == b"abcdefghijklmnopqrstuvwxyzABCDEF"


def test_the_answer_is_the_sha1_of_challenge_and_secret() -> None:
    assert answer(b"abc", b"def") == hashlib.sha1(b"abcdef").digest()


@pytest.mark.parametrize("identity", SECRETS)
def test_who_connects_is_told_by_the_secret(identity: str) -> None:
    assert handshake_server().receive_data(proof(SECRETS[identity])) == [Authenticated(identity)]


def test_of_two_identities_with_one_secret_the_first_is_seen() -> None:
    server = JumpServerHandshake(CHALLENGE, {"first": b"same", "second": b"same"})
    assert server.receive_data(proof(b"same")) == [Authenticated("first")]


@pytest.mark.parametrize(
    "reply",
    [proof(b"wrong"), proof(b""), b"\x00", encode_frame(proof()[1:20]), encode_frame(proof()[1:] + b"x")],
    ids=["wrong secret", "empty secret", "empty frame", "19 bytes", "21 bytes"],
)
def test_any_other_answer_is_a_bad_secret_and_is_told(reply: bytes) -> None:
    server = handshake_server()
    assert server.receive_data(reply) == [BadSecret()]
    assert server.data_to_send() == b"\x01\x1echallenge failed, check secret"


def test_a_server_without_secrets_lets_nobody_in() -> None:
    server = JumpServerHandshake(CHALLENGE, {})
    assert server.receive_data(proof(b"")) == [BadSecret()]


def test_a_refused_client_is_not_listened_to_any_more() -> None:
    server = handshake_server()
    assert server.receive_data(proof(b"wrong") + encode_frame(b"host:80")) == [BadSecret()]
    assert server.receive_data(proof() + encode_frame(b"host:80")) == []
    server.receive_eof()


@pytest.mark.parametrize("target", [b"", b"host", b"host:0", b"::1:80", b"ho st:80", b"\xff\xfe:80"])
def test_a_target_that_is_not_host_and_port_is_refused_with_that_reason(target: bytes) -> None:
    server = handshake_server()
    events = server.receive_data(proof() + encode_frame(target))
    assert events == [Authenticated("bob"), BadTarget(target.decode("utf-8", "backslashreplace"))]
    assert server.data_to_send() == b"\x00" + b"\x01" + encode_frame(b"target must be host:port")


def test_payload_behind_the_target_is_kept_for_it() -> None:
    server = server_at_target(behind=b"GET /")
    assert server.receive_data(b" HTTP/1.0") == []
    server.accept()
    assert server.data_to_send() == b"\x00"
    assert server.leftover == b"GET / HTTP/1.0"


def test_more_early_payload_than_the_limit_is_a_protocol_error() -> None:
    server = server_at_target(behind=bytes(MAX_EARLY_DATA))
    assert len(server.leftover) == MAX_EARLY_DATA
    with pytest.raises(ProtocolError, match="before the channel was open"):
        server.receive_data(b"x")


def test_the_reason_of_a_failed_dial_reaches_the_client_cut_to_a_frame() -> None:
    server = server_at_target()
    server.refuse("é" * 200)
    assert server.data_to_send() == b"\x01" + encode_frame("é".encode() * 127)


@pytest.mark.parametrize("before", [b"", proof()], ids=["before the secret", "before the target"])
def test_a_client_can_be_refused_at_each_step(before: bytes) -> None:
    server = handshake_server()
    server.receive_data(before)
    server.data_to_send()
    server.refuse("too slow")
    assert server.data_to_send() == b"\x01\x08too slow"
    assert server.receive_data(proof()) == []


def test_the_service_cannot_answer_twice_or_too_early() -> None:
    with pytest.raises(RuntimeError):
        handshake_server().accept()
    server = server_at_target()
    server.accept()
    with pytest.raises(RuntimeError):
        server.accept()
    with pytest.raises(RuntimeError):
        server.refuse("late")


@pytest.mark.parametrize(
    ("sent", "step"),
    [(b"", "before answering the challenge"), (proof()[:7], "before answering"), (proof(), "before naming its target")],
)
def test_the_server_says_at_which_step_the_client_closed(sent: bytes, step: str) -> None:
    server = handshake_server()
    server.receive_data(sent)
    with pytest.raises(ProtocolError, match=step):
        server.receive_eof()


def test_a_client_may_half_close_once_its_target_is_named() -> None:
    server_at_target().receive_eof()


@pytest.mark.parametrize(
    ("sent", "step"),
    [
        (b"", "before its challenge"),
        (b"\x20abc", "before its challenge"),
        (b"\x01c", "whether it accepts the secret"),
        (b"\x01c\x01", "after refusing the secret"),
        (b"\x01c\x00", "whether the target is connected"),
        (b"\x01c\x00\x01\x05no", "after refusing the target"),
    ],
)
def test_the_client_says_at_which_step_the_server_closed(sent: bytes, step: str) -> None:
    client = JumpClientHandshake(b"secret", "host", 80)
    client.receive_data(sent)
    with pytest.raises(ProtocolError, match=step):
        client.receive_eof()


def test_a_refusal_without_a_reason_is_a_refusal_because_the_original_sends_none_that_is_longer_than_a_frame() -> None:
    client = JumpClientHandshake(b"secret", "host", 80)
    assert client.receive_data(b"\x01c\x00\x01") == []
    assert client.receive_eof() == [DialRefused(NO_REASON)]
    assert client.receive_eof() == []


@pytest.mark.parametrize("length", [1, 32, 255])
def test_the_client_answers_a_challenge_of_any_length(length: int) -> None:
    client = JumpClientHandshake(b"secret", "host", 80)
    client.receive_data(encode_frame(b"c" * length))
    assert client.data_to_send() == encode_frame(answer(b"c" * length, b"secret"))


def test_the_client_names_its_target_only_to_a_server_that_accepted_it() -> None:
    client = JumpClientHandshake(b"secret", "::1", 80)
    client.receive_data(b"\x01c")
    assert b"::1" not in client.data_to_send()
    client.receive_data(b"\x00")
    assert client.data_to_send() == encode_frame(b"[::1]:80")


def test_an_empty_challenge_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="empty challenge"):
        JumpClientHandshake(b"secret", "host", 80).receive_data(b"\x00")


@pytest.mark.parametrize("sent", [b"\x01c\x02", b"\x01c\x00H"])
def test_a_status_that_is_neither_yes_nor_no_is_a_protocol_error(sent: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected 0 or 1"):
        JumpClientHandshake(b"secret", "host", 80).receive_data(sent)


def test_what_a_server_says_after_it_refused_is_not_read() -> None:
    client = JumpClientHandshake(b"secret", "host", 80)
    assert client.receive_data(b"\x01c\x01\x02no" + b"\x00") == [SecretRefused("no")]
    assert client.receive_data(b"\x00") == []
    assert client.leftover == b""
    client.receive_eof()


def test_more_payload_at_once_than_the_limit_is_a_protocol_error_for_the_client_too() -> None:
    client = JumpClientHandshake(b"secret", "host", 80)
    assert client.receive_data(b"\x01c\x00\x00") == [Connected()]
    client.receive_data(bytes(MAX_EARLY_DATA))
    with pytest.raises(ProtocolError, match="before the channel was open"):
        client.receive_data(b"x")


def test_a_target_too_long_for_a_frame_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="at most 255"):
        JumpClientHandshake(b"secret", "a" * 252, 8080)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_garbage_never_does_more_to_the_server_than_break_the_handshake(pieces: list[bytes]) -> None:
    server = handshake_server()
    try:
        for piece in pieces:
            events = server.receive_data(piece)
            assert events in ([], [BadSecret()])
    except ProtocolError:
        pass


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_garbage_behind_a_good_secret_is_a_target_or_refused(pieces: list[bytes]) -> None:
    server = handshake_server()
    server.receive_data(proof())
    for piece in pieces:
        for event in server.receive_data(piece):
            assert isinstance(event, TargetAsked | BadTarget)
    assert len(server.data_to_send()) < 300


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_garbage_never_does_more_to_the_client_than_a_protocol_error(pieces: list[bytes]) -> None:
    client = JumpClientHandshake(b"secret", "host", 80)
    events: list[ClientEvent] = []
    try:
        for piece in pieces:
            events += client.receive_data(piece)
    except ProtocolError:
        pass
    assert len(events) <= 1
