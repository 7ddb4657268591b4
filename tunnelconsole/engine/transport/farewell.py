"""Last words: telling a peer why, in a way that it can still read.

Closing a socket with unread bytes in it makes the kernel send a reset, which can overtake the refusal just sent. So the
refusal is followed by a half-close, and what the peer still sends is read and thrown away until it ends, for a while.
"""

from __future__ import annotations

import asyncio

from tunnelconsole.engine.transport.ends import READ_SIZE, End

FAREWELL_TIME = 2.0
"""Seconds a refused peer has to read its refusal and close."""

FAREWELL_BYTES = 1024 * 1024
"""Bytes a refused peer may still send before it is cut off."""


class Farewell:
    """Sends ``words`` to ``end``, half-closes, and closes it when the peer has, or when its time is up."""

    __slots__ = ("_end", "_left", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, end: End, words: bytes) -> None:
        self._loop = loop
        self._end = end
        self._left = FAREWELL_BYTES
        self._timer: asyncio.TimerHandle | None = None
        try:
            end.send(words)  # a refusal is far smaller than a fresh socket's send buffer
            end.send_eof()
        except OSError:  # it is gone, or it does not read at all
            end.close()
            return
        self._timer = loop.call_later(FAREWELL_TIME, self._close)
        loop.add_reader(end.fileno(), self._discard)

    def _discard(self) -> None:
        try:
            data = self._end.receive(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._left -= len(data)
        if not data or self._left < 0:
            self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.remove_reader(self._end.fileno())
        self._end.close()
