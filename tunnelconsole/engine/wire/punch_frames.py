"""The frames of a path that carries a link of punch.

Each has a header of 4 bytes, big-endian, whose first byte is the kind and whose others are the length of what follows.

====== ======== =================================================================================================
kind   name     what follows
====== ======== =================================================================================================
1      SWITCH   link (16), role of the sender (1: ``a`` or ``b``), nonce of the sender (16), turn (8), received (8)
2      DATA     1 to :data:`MAX_DATA` bytes of the stream
3      ACK      how much has been passed on (8)
4      PING     a number (8)
5      PONG     the number of the ping that it answers (8)
6      FIN      nothing: the stream ends here
7      RESET    link (16), and why (UTF-8, :data:`MAX_REASON` bytes at most)
====== ======== =================================================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tunnelconsole.engine.wire.errors import ProtocolError

#: Bytes of the stream in one frame: with its header four full TLS records.
MAX_DATA = 64 * 1024 - 4
#: Bytes of a reason: a sentence.
MAX_REASON = 256
#: Bytes of a link's name, and of a nonce: 128 random bits never come twice.
NONCE_LENGTH = 16

SWITCH, DATA, ACK, PING, PONG, FIN, RESET = range(1, 8)
HEADER = struct.Struct(">I")
SWITCH_BODY = struct.Struct(">16s1s16sQQ")
NUMBER = struct.Struct(">Q")
_LENGTHS = {
    SWITCH: range(SWITCH_BODY.size, SWITCH_BODY.size + 1),
    DATA: range(1, MAX_DATA + 1),
    ACK: range(8, 9),
    PING: range(8, 9),
    PONG: range(8, 9),
    FIN: range(1),
    RESET: range(NONCE_LENGTH, NONCE_LENGTH + MAX_REASON + 1),
}
FIN_FRAME = HEADER.pack(FIN << 24)


def encode_frame(kind: int, body: bytes) -> bytes:
    """A whole frame."""
    return b"".join((HEADER.pack(kind << 24 | len(body)), body))


def weight(frame: bytes) -> int:
    """What a DATA or FIN frame counts in its stream."""
    return len(frame) - HEADER.size or 1


class FrameReader:
    """Takes one path's frames apart. What a DATA frame carries is given as it comes, not only when all of it has."""

    __slots__ = ("_data_left", "_length", "_short")

    def __init__(self) -> None:
        self._data_left = 0
        self._short = bytearray()
        """A header, and what follows it unless it is data, as far as it has come."""
        self._length = -1
        """Of what follows the header; -1 while the header is not complete."""

    def receive_data(self, data: bytes) -> Iterator[tuple[int, bytes | memoryview]]:
        """Yield the kind and the body of each frame, of DATA in pieces.

        :raises ProtocolError: there is no such frame.
        """
        rest = memoryview(data)
        while rest:
            if self._data_left:
                piece = rest[: self._data_left]
                rest = rest[len(piece) :]
                self._data_left -= len(piece)
                yield DATA, piece
                continue
            wanted = HEADER.size + max(self._length, 0) - len(self._short)
            self._short += rest[:wanted]
            if len(rest) < wanted:
                return
            rest = rest[wanted:]
            if self._length < 0:
                self._begin()
            if len(self._short) == HEADER.size + self._length:
                kind, body = self._short[0], bytes(self._short[HEADER.size :])
                self._clear()
                yield kind, body

    def _begin(self) -> None:
        (word,) = HEADER.unpack(self._short)
        kind, length = word >> 24, word & 0xFFFFFF
        if length not in _LENGTHS.get(kind, ()):
            raise ProtocolError(f"there is no frame of kind {kind} and {length} bytes")
        if kind == DATA:
            self._data_left = length
            self._clear()
        else:
            self._length = length

    def _clear(self) -> None:
        self._short.clear()
        self._length = -1
