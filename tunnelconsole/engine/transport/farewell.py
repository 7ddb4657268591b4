"""Last words: telling a peer why, in a way that it can still read.

Closing a socket with unread bytes in it makes the kernel send a reset, which can overtake the refusal just sent. So the
refusal is followed by a half-close, and what the peer still sends is read and thrown away until it ends, for a while.
"""

from __future__ import annotations

import asyncio

from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.watch import InputWatch

FAREWELL_TIME = 2.0
"""Seconds a peer has to take our last words and close."""

FAREWELL_BYTES = 1024 * 1024
"""Bytes a peer may still send before it is cut off."""


class Farewell:
    """Sends ``words`` to ``end``, half-closes, and closes it when the peer has, or when its time is up."""

    __slots__ = ("_end", "_heard_all", "_input", "_left", "_loop", "_said", "_timer", "_words", "_writing")

    def __init__(self, loop: asyncio.AbstractEventLoop, end: End, words: bytes) -> None:
        self._loop = loop
        self._end = end
        self._words = memoryview(words)
        self._said = False
        self._heard_all = False
        self._left = FAREWELL_BYTES
        self._writing = False
        self._timer = loop.call_later(FAREWELL_TIME, self._close)
        self._input = InputWatch(loop, end.fileno(), self._discard)
        self._input.start()
        self._speak()

    def _speak(self) -> None:
        try:
            while self._words:
                self._words = self._words[self._end.send(self._words) :]
            if not self._said and self._end.flush():
                self._said = True
                self._end.send_eof()
            waits = not self._end.flush()
        except BlockingIOError:
            waits = True
        except OSError:  # it is gone
            self._close()
            return
        if waits != self._writing:
            self._wait_to_write(waits)
        self._close_when_done()

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._end.fileno(), self._speak)
        else:
            self._loop.remove_writer(self._end.fileno())
        self._writing = wanted

    def _discard(self) -> None:
        try:
            data = self._end.receive(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._left -= len(data)
        if self._left < 0:
            self._close()
        elif not data:
            self._heard_all = True
            self._input.stop()
            self._close_when_done()

    def _close_when_done(self) -> None:
        if self._said and self._heard_all and not self._writing:
            self._close()

    def _close(self) -> None:
        self._timer.cancel()
        self._input.stop()
        if self._writing:
            self._wait_to_write(wanted=False)
        self._end.close()
