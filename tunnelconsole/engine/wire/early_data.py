"""Payload that arrives before its channel is open: kept, but only so much of it."""

from __future__ import annotations

from tunnelconsole.engine.wire.errors import ProtocolError

#: Bytes of payload kept for a peer that does not wait until the channel is open. One full socket read; whoever feeds a
#: handshake stops reading once the target is known, so an honest client never comes near it.
MAX_EARLY_DATA = 64 * 1024


class EarlyData:
    """Collects at most :data:`MAX_EARLY_DATA` bytes."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes | bytearray) -> None:
        """Keep ``data``.

        :raises ProtocolError: more than :data:`MAX_EARLY_DATA` bytes came before the channel was open.
        """
        if len(self._buffer) + len(data) > MAX_EARLY_DATA:
            raise ProtocolError(f"more than {MAX_EARLY_DATA} bytes of payload came before the channel was open")
        self._buffer += data

    def __bytes__(self) -> bytes:
        """Return what was kept."""
        return bytes(self._buffer)
