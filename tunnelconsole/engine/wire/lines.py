"""Lines that end in LF, cut out of a byte stream."""

from __future__ import annotations

from tunnelconsole.engine.wire.errors import ProtocolError


class LineReader:
    """Cuts a byte stream into lines.

    :param limit: bytes of a line at most, with its LF.
    :param protocol: whose lines they are, for the error.
    """

    __slots__ = ("_buffer", "_limit", "_protocol")

    def __init__(self, limit: int, protocol: str) -> None:
        self._limit = limit
        self._protocol = protocol
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, split anywhere, and return the lines that they complete, without their LF.

        :raises ProtocolError: a line is longer than the limit.
        """
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._buffer) + lines[0]
            self._buffer.clear()
        if len(self._buffer) + len(rest) >= self._limit or any(len(line) >= self._limit for line in lines):
            raise ProtocolError(f"a line of {self._protocol} is longer than {self._limit} bytes")
        self._buffer += rest
        return lines
