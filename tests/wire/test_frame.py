"""Frames: one length byte and that many bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.frame import MAX_FRAME, encode_frame, encode_text_frame, take_frame


@given(st.binary(max_size=MAX_FRAME), st.binary(max_size=20))
def test_a_frame_is_taken_off_the_front_and_the_rest_stays(payload: bytes, rest: bytes) -> None:
    buffer = bytearray(encode_frame(payload) + rest)
    assert take_frame(buffer) == payload
    assert buffer == rest


@given(st.binary(max_size=MAX_FRAME), st.data())
def test_an_incomplete_frame_is_left_alone(payload: bytes, data: st.DataObject) -> None:
    frame = encode_frame(payload)
    part = frame[: data.draw(st.integers(0, len(frame) - 1))]
    buffer = bytearray(part)
    assert take_frame(buffer) is None
    assert buffer == part


def test_a_frame_longer_than_its_length_byte_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 255"):
        encode_frame(bytes(256))


@given(st.text(max_size=400))
def test_a_text_is_cut_to_a_frame_without_breaking_a_character(text: str) -> None:
    frame = encode_text_frame(text)
    expected = text.encode("utf-8", "replace")
    cut = frame[1:]
    assert frame[0] == len(cut) <= MAX_FRAME
    assert expected.decode("utf-8").startswith(cut.decode("utf-8"))
    assert len(cut) == len(expected) or len(cut) > MAX_FRAME - 4
