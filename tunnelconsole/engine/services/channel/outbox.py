"""What waits for one receiver, in its order and within a bound."""

from __future__ import annotations

from collections import deque

from tunnelconsole.engine.transport.ends import End

SMALL_PIECE = 4096
"""Bytes below which a piece is copied to those before it: a thousand pieces of one byte would cost a hundred each."""

GROUP = 16 * 1024
"""Bytes of small pieces that are kept together."""


class Outbox:
    """A queue of bytes.

    :param capacity: bytes it takes.
    """

    __slots__ = ("_beyond", "_offset", "_pieces", "capacity", "waiting")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting = 0
        """Bytes in it."""
        self._beyond = 0
        self._offset = 0
        self._pieces: deque[bytes | bytearray | memoryview] = deque()

    @property
    def room(self) -> int:
        """Bytes it still takes."""
        return self.capacity + self._beyond - self.waiting

    def add(self, data: bytes | memoryview) -> None:
        """Queues ``data``, which is not copied when it is large; the caller has looked at :attr:`room`."""
        self.waiting += len(data)
        if len(data) >= SMALL_PIECE:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < GROUP:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def add_first(self, data: bytes) -> None:
        """Queues ``data`` in an empty outbox beyond its capacity, which is as before once this has been sent.

        :raises RuntimeError: there is something in it, which should have been sent before.
        """
        if self.waiting:
            raise RuntimeError("add_first() on an outbox that is not empty")
        if data:
            self._pieces.append(data)
            self.waiting = self._beyond = len(data)

    def send_to(self, end: End) -> None:
        """Sends as much as ``end`` takes now.

        :raises OSError: the end is broken; what it took before is not waiting any more.
        """
        while self._pieces:
            piece = self._pieces[0]
            try:
                with memoryview(piece) as whole, whole[self._offset :] as rest:
                    sent = end.send(rest)
            except BlockingIOError:
                return
            self._offset += sent
            self.waiting -= sent
            self._beyond = max(0, self._beyond - sent)
            if self._offset == len(piece):
                self._pieces.popleft()
                self._offset = 0

    def clear(self) -> int:
        """Forgets what is in it; returns how many bytes that was."""
        forgotten = self.waiting
        self._pieces.clear()
        self.waiting = self._beyond = self._offset = 0
        return forgotten
