"""What the secret of a room is made into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.passphrase import KEY_LENGTH
from tunnelconsole.engine.wire.punch_room import HELLO_LENGTH, Role, RoomKey, role_of, room_key

KEY = RoomKey("desk", bytes(range(KEY_LENGTH)))
OTHER_SECRET = RoomKey("desk", bytes(KEY_LENGTH))
OTHER_ROOM = RoomKey("attic", bytes(range(KEY_LENGTH)))
NONCES = (bytes(16), bytes([1]) * 16)


def fixed(count: int) -> bytes:
    return bytes(count)


def test_the_same_room_and_secret_make_the_same_key() -> None:
    assert room_key("desk", "only we know").tag == room_key("desk", "only we know").tag


@pytest.mark.parametrize(("room", "secret"), [("desk", "only we kno"), ("attic", "only we know")])
def test_another_room_or_secret_makes_another_key(room: str, secret: str) -> None:
    assert room_key(room, secret).tag != room_key("desk", "only we know").tag


def test_a_key_s_parts_tell_nothing_of_each_other() -> None:
    parts = {KEY.tag, KEY.certificate_seed.hex()[:32], KEY.hello(Role.A, NONCES, 1)[1:17].hex()}
    assert len(parts) == 3
    assert bytes(range(KEY_LENGTH)).hex()[:32] not in parts


def test_another_implementation_makes_the_same_of_a_key() -> None:
    """The numbers are those of ``docs/protocols.md``."""
    assert KEY.tag == "80b8186bc7c013057eeb8916efcd175e"


@given(st.binary(max_size=2000), st.binary(min_size=12, max_size=12))
def test_an_offer_is_opened_as_it_was_sealed(text: bytes, nonce: bytes) -> None:
    assert KEY.open(KEY.seal(text, lambda _: nonce)) == text


@given(st.data())
def test_an_offer_that_was_changed_is_not_opened(data: st.DataObject) -> None:
    sealed = KEY.seal(b"an offer", fixed)
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != sealed[place]))
    with pytest.raises(ProtocolError, match="not sealed with the secret of this room, or was changed"):
        KEY.open(sealed[:place] + other + sealed[place + 1 :])


@pytest.mark.parametrize("key", [OTHER_SECRET, OTHER_ROOM])
def test_an_offer_of_another_room_is_not_opened(key: RoomKey) -> None:
    with pytest.raises(ProtocolError, match="not sealed with the secret of this room"):
        KEY.open(key.seal(b"an offer", fixed))


@given(st.text(max_size=100))
def test_noise_is_not_opened(noise: str) -> None:
    with pytest.raises(ProtocolError):
        KEY.open(noise)


def test_a_hello_has_its_length() -> None:
    assert len(KEY.hello(Role.A, NONCES, 1)) == HELLO_LENGTH


@pytest.mark.parametrize(
    "other",
    [
        KEY.hello(Role.B, NONCES, 1),
        KEY.hello(Role.A, NONCES[::-1], 1),
        KEY.hello(Role.A, NONCES, 2),
        OTHER_SECRET.hello(Role.A, NONCES, 1),
    ],
    ids=["role", "nonces", "round", "secret"],
)
def test_a_hello_belongs_to_one_role_pair_round_and_secret(other: bytes) -> None:
    assert other[1:] != KEY.hello(Role.A, NONCES, 1)[1:]


def test_the_smaller_nonce_is_a_s() -> None:
    assert role_of(*NONCES) is Role.A
    assert role_of(*NONCES[::-1]) is Role.B


def test_each_role_has_another() -> None:
    assert (Role.A.other, Role.B.other) == (Role.B, Role.A)


def test_an_offer_that_came_back_is_nobody_s() -> None:
    with pytest.raises(ProtocolError, match="sends it back to us"):
        role_of(NONCES[0], NONCES[0])
