"""The frame of the jump protocol, which our relay uses too: one length byte and that many bytes."""

from __future__ import annotations

#: Bytes of payload in one frame at most: what one length byte can say.
MAX_FRAME = 255


def encode_frame(payload: bytes) -> bytes:
    """Return ``payload`` with its length byte before it.

    :raises ValueError: the payload is longer than :data:`MAX_FRAME` bytes.
    """
    if len(payload) > MAX_FRAME:
        raise ValueError(f"a frame holds at most {MAX_FRAME} bytes, not {len(payload)}")
    return bytes((len(payload),)) + payload


def take_frame(buffer: bytearray) -> bytes | None:
    """Remove the first frame from ``buffer`` and return its payload; None while it is incomplete."""
    if not buffer:
        return None
    end = 1 + buffer[0]
    if len(buffer) < end:
        return None
    payload = bytes(buffer[1:end])
    del buffer[:end]
    return payload


def encode_text_frame(text: str) -> bytes:
    """Return ``text`` as a UTF-8 frame, cut to :data:`MAX_FRAME` bytes without breaking a character."""
    payload = text.encode("utf-8", "replace")
    if len(payload) > MAX_FRAME:
        payload = payload[:MAX_FRAME].decode("utf-8", "ignore").encode("utf-8")
    return encode_frame(payload)
