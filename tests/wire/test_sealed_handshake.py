"""The channel protocol's handshake under a password: both ends, replays, changes and wrong passwords."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import example, given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.channel import (
    Authenticated,
    ChannelClientHandshake,
    ChannelServerHandshake,
    ClientEvent,
    JoinAsked,
    Joined,
    JoinRefused,
    KeyWanted,
    PasswordRefused,
    Rejected,
    ServerEvent,
)
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.passphrase import derive_key
from tunnelconsole.engine.wire.sealed_handshake import ClientSealedLines, ServerSealedLines
from wire_transcripts import cut, every_split

SALT = b"s" * 16
# Keys as scrypt would give them, without the tenth of a second that each takes.
KEYS = {identity: hashlib.sha256(identity.encode()).digest() for identity in ("alice", "bob")}
OFFSETS = st.lists(st.integers(0, 600), max_size=8)


def drawing(*drawn: bytes) -> Callable[[int], bytes]:
    """Return what draws these in turn in place of random bytes."""
    given_out = iter(drawn)
    return lambda count: next(given_out).ljust(count, b".")


def sealed_server(nonce: bytes = b"server nonce") -> ChannelServerHandshake:
    return ChannelServerHandshake(lambda: "c-given", ServerSealedLines(KEYS, SALT, drawing(nonce)))


def sealed_client(nonce: bytes = b"client nonce") -> ChannelClientHandshake:
    return ChannelClientHandshake("ch0", ["ch1"], 60, ClientSealedLines(drawing(nonce)))


def converse(
    server: ChannelServerHandshake, client: ChannelClientHandshake, key: bytes, offsets: list[int], refusal: str = ""
) -> tuple[list[ServerEvent], list[ClientEvent]]:
    """Let both ends talk, each turn cut at these offsets, until neither says anything."""
    at_server: list[ServerEvent] = []
    at_client: list[ClientEvent] = []
    while True:
        to_client, to_server = server.data_to_send(), client.data_to_send()
        if not to_client and not to_server:
            return at_server, at_client
        for piece in cut(to_client, offsets):
            for event in client.receive_data(piece):
                at_client.append(event)
                if isinstance(event, KeyWanted):
                    client.use_key(key)
        for piece in cut(to_server, offsets):
            for asked in server.receive_data(piece):
                at_server.append(asked)
                if isinstance(asked, JoinAsked):
                    if refusal:
                        server.refuse(refusal)
                    else:
                        server.accept()


def recorded_client() -> tuple[bytes, bytes]:
    """Return both lines of an honest client of ``sealed_server()``."""
    server, client = sealed_server(), sealed_client()
    client.receive_data(server.data_to_send())
    client.use_key(KEYS["alice"])
    first = client.data_to_send()
    server.receive_data(first)
    client.receive_data(server.data_to_send())
    return first, client.data_to_send()


@given(OFFSETS, st.sampled_from(sorted(KEYS)))
def test_our_ends_understand_each_other_in_any_pieces(offsets: list[int], identity: str) -> None:
    at_server, at_client = converse(sealed_server(), sealed_client(), KEYS[identity], offsets)
    assert at_server == [Authenticated(identity), JoinAsked("ch0", ("ch1",), 60.0)]
    assert at_client == [KeyWanted(SALT), Joined("ch0")]


def test_a_sealed_client_is_read_the_same_split_at_every_offset() -> None:
    first, second = recorded_client()
    for pieces in every_split(first + second + b"payload"):
        server = sealed_server()
        events = [event for piece in pieces for event in server.receive_data(piece)]
        assert events == [Authenticated("alice"), JoinAsked("ch0", ("ch1",), 60.0)]
        assert server.leftover == b"payload"


def test_the_key_is_what_the_documentation_says() -> None:
    assert derive_key(b"pass", SALT) == Scrypt(salt=SALT, length=32, n=32768, r=8, p=1).derive(b"pass")


def test_the_lines_can_be_made_from_the_documentation_alone() -> None:
    server = sealed_server()
    greeting = base64.b64decode(server.data_to_send())
    salt, server_nonce, client_nonce = greeting[:16], greeting[16:], b"n" * 16
    assert salt == SALT

    def cipher(direction: bytes) -> AESGCM:
        info = b"tunnelconsole channel handshake: " + direction
        return AESGCM(HKDF(SHA256(), 32, server_nonce + client_nonce, info).derive(KEYS["bob"]))

    seal, unseal = cipher(b"client to server"), cipher(b"server to client")
    first = seal.encrypt(bytes(12), b'{"req":"hs1","chid":"mine"}', None)
    assert server.receive_data(base64.b64encode(client_nonce + first) + b"\n") == [Authenticated("bob")]
    answer = unseal.decrypt(bytes(12), base64.b64decode(server.data_to_send()), None)
    assert json.loads(answer) == {"rsp": "hs2", "chid": "mine"}
    second = seal.encrypt(bytes(11) + b"\x01", b'{"req":"hs3"}', None)
    assert server.receive_data(base64.b64encode(second) + b"\n") == [JoinAsked("mine", (), 0.0)]
    server.accept()
    answer = unseal.decrypt(bytes(11) + b"\x01", base64.b64decode(server.data_to_send()), None)
    assert json.loads(answer) == {"rsp": "hs4", "result": "OK"}


def test_nothing_but_nonces_and_ciphertext_is_seen_on_the_way() -> None:
    first, second = recorded_client()
    for line in (first, second):
        assert b"ch0" not in base64.b64decode(line)
        assert b"ch1" not in base64.b64decode(line)


def test_a_wrong_password_is_refused_in_the_clear_and_known_for_what_it_is() -> None:
    at_server, at_client = converse(sealed_server(), sealed_client(), bytes(32), [])
    assert at_server == [Rejected("wrong handshake password")]
    assert at_client == [KeyWanted(SALT), PasswordRefused("wrong handshake password")]


def test_a_refusal_behind_a_good_password_travels_sealed() -> None:
    _, at_client = converse(sealed_server(), sealed_client(), KEYS["bob"], [], refusal="chid ch0 is taken")
    assert at_client == [KeyWanted(SALT), JoinRefused("chid ch0 is taken")]


def test_a_client_in_the_clear_is_told_that_it_needs_a_password() -> None:
    server = sealed_server()
    server.data_to_send()
    (rejected,) = server.receive_data(b'{"req":"hs1","chid":"ch0"}\n')
    assert rejected == Rejected("this channel server encrypts its handshake: a handshake password is needed")
    assert json.loads(server.data_to_send())["result"] == "FAIL"


def test_a_client_with_a_password_says_nothing_until_the_server_has() -> None:
    client = sealed_client()
    assert client.data_to_send() == b""
    assert client.awaits_greeting
    with pytest.raises(ProtocolError, match="does it have a handshake password"):
        client.receive_eof()


def test_a_handshake_that_is_replayed_is_refused() -> None:
    first, second = recorded_client()
    assert sealed_server().receive_data(first) == [Authenticated("alice")]
    (rejected,) = sealed_server(b"another nonce").receive_data(first + second)
    assert rejected == Rejected("wrong handshake password")


def test_a_line_that_is_sent_twice_is_refused() -> None:
    first, _ = recorded_client()
    server = sealed_server()
    later = base64.b64encode(base64.b64decode(first)[16:]) + b"\n"
    *_, rejected = server.receive_data(first + later)
    assert isinstance(rejected, Rejected)
    assert "changed on its way" in rejected.reason


def test_a_server_that_answers_in_the_clear_is_not_believed() -> None:
    client = sealed_client()
    client.receive_data(sealed_server().data_to_send())
    client.use_key(KEYS["bob"])
    with pytest.raises(ProtocolError, match="in the clear"):
        client.receive_data(b'{"chid":"ch0","rsp":"hs2"}\n')


@given(st.integers(0, 400), st.integers(1, 255))
@example(77, 8)  # a bit of the last character that carries nothing
def test_a_changed_byte_anywhere_is_noticed_by_the_server(offset: int, change: int) -> None:
    first, second = recorded_client()
    changed = bytearray(first + second)
    offset %= len(changed)
    changed[offset] ^= change
    server = sealed_server()
    events = server.receive_data(bytes(changed))
    assert not any(isinstance(event, JoinAsked) for event in events)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_anywhere_is_noticed_by_the_client(offset: int, change: int) -> None:
    server, client = sealed_server(), sealed_client()
    client.receive_data(server.data_to_send())
    client.use_key(KEYS["bob"])
    server.receive_data(client.data_to_send())
    changed = bytearray(server.data_to_send())
    changed[offset % len(changed)] ^= change
    try:
        events = client.receive_data(bytes(changed))
    except ProtocolError:
        return
    assert not any(isinstance(event, Joined) for event in events)
    assert client.data_to_send() == b""


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage_never_does_more_than_break_the_handshake(pieces: list[bytes]) -> None:
    server, client = sealed_server(), sealed_client()
    assert all(isinstance(event, Rejected) for piece in pieces for event in server.receive_data(piece))
    try:
        events = [event for piece in pieces for event in client.receive_data(piece)]
    except ProtocolError:
        return
    assert all(isinstance(event, KeyWanted | JoinRefused) for event in events)


def test_a_greeting_of_another_length_is_no_greeting() -> None:
    with pytest.raises(ProtocolError, match="salt and nonce"):
        sealed_client().receive_data(base64.b64encode(bytes(31)) + b"\n")


def test_a_key_is_taken_once_and_only_when_it_is_wanted() -> None:
    with pytest.raises(RuntimeError):
        sealed_client().use_key(bytes(32))
    sealing = ClientSealedLines(drawing(b"n"))
    with pytest.raises(RuntimeError):
        sealing.seal(b"too early")
    with pytest.raises(RuntimeError):
        sealing.open(b"")
    with pytest.raises(RuntimeError):
        ServerSealedLines(KEYS, SALT, drawing(b"n")).seal(b"too early")


def test_a_server_that_floods_before_it_was_answered_is_cut_off() -> None:
    client = sealed_client()
    client.receive_data(sealed_server().data_to_send())
    with pytest.raises(ProtocolError, match="before we could answer"):
        client.receive_data(bytes(200 * 1024))
