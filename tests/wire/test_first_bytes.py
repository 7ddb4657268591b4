"""What a connection speaks, by its first bytes: a hint, and never more than that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.first_bytes import ENOUGH, TLS, spoken_by
from tunnelconsole.engine.wire.frame import encode_frame
from tunnelconsole.engine.wire.jump import CHALLENGE_LENGTH, make_challenge
from tunnelconsole.engine.wire.relay import KEY_LENGTH, encode_data_hello
from wire_transcripts import sent_by


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", TLS),
        (b"\x15\x03\x01\x00\x02\x02\x46", TLS),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
        (b"CONNECT example.com:443 HTTP/1.1\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"\x05\x01\x00", "SOCKS5"),
        (b"\x04\x01\x00\x50", "SOCKS4"),
        (sent_by("relay-echo", "client"), "yamux"),
        (sent_by("relay-echo", "server"), "yamux"),
        (encode_data_hello(bytes(KEY_LENGTH)), "relay"),
        (encode_frame(make_challenge(lambda count: bytes(range(count)))), "jump"),
        (sent_by("jump-ok", "server"), "jump"),
        (sent_by("channel-chan", "client"), "channel"),
        (b"", ""),
        (b"\x16", ""),
        (b"hello", ""),
        (b"\x14" + bytes(20), ""),
    ],
)
def test_what_is_spoken_is_known_by_its_first_bytes(first: bytes, name: str) -> None:
    assert spoken_by(first) == name
    assert spoken_by(first[:ENOUGH]) == name


@given(st.binary(max_size=2 * CHALLENGE_LENGTH))
def test_any_bytes_have_a_name_or_none(first: bytes) -> None:
    assert spoken_by(first) == spoken_by(first[:ENOUGH])
