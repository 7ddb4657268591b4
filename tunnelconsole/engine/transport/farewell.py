"""Last words: telling a peer why, in a way that it can still read.

Closing a socket with unread bytes in it makes the kernel send a reset, which can overtake the refusal just sent. So the
refusal is followed by a half-close, and what the peer still sends is read and thrown away until it ends, for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnelconsole.engine.transport.ends import READ_SIZE, End, unacknowledged
from tunnelconsole.engine.transport.watch import InputWatch

FAREWELL_TIME = 2.0
"""Seconds a peer has to take our last words and close."""

FAREWELL_BYTES = 1024 * 1024
"""Bytes a peer may still send before it is cut off."""

ACKNOWLEDGED_LOOK = 0.02
"""Seconds between two looks whether the peer's kernel has all, which nothing tells."""


class Farewells:
    """The farewells under way on one loop; whoever begins one is rid of it, and they end with their owner."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._under_way: set[Farewell] = set()
        self.over = asyncio.Event()
        """Set while there are none."""
        self.over.set()

    def bid(self, end: End, words: bytes, *, reset: bool = False) -> None:
        """Takes ``end`` over, says ``words`` to it and closes it.

        :param reset: with a reset, once the peer's kernel has all that was sent: for a peer that takes our end for a
            half-close, and would go on sending to nobody.
        """
        farewell = Farewell(self._loop, end, words, self._ended, reset=reset)
        self._under_way.add(farewell)
        self.over.clear()
        farewell.begin()

    def _ended(self, farewell: Farewell) -> None:
        self._under_way.discard(farewell)
        if not self._under_way:
            self.over.set()

    def close(self) -> None:
        """Closes every end that has not heard all or not closed its side yet."""
        for farewell in list(self._under_way):
            farewell.close()


class Farewell:
    """Sends ``words`` to ``end``, half-closes, and closes it when the peer has, or when its time is up.

    Or it resets the connection once ``words`` have arrived.

    :param over: told when ``end`` is closed.
    :param reset: see :meth:`Farewells.bid`.
    :param heard: told what the peer still says, however much; says whether that was its last word.
    """

    __slots__ = (
        "_end",
        "_heard",
        "_heard_all",
        "_input",
        "_left",
        "_look",
        "_loop",
        "_over",
        "_reset",
        "_said",
        "_timer",
        "_words",
        "_writing",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        end: End,
        words: bytes,
        over: Callable[[Farewell], None],
        *,
        reset: bool = False,
        heard: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._heard = heard
        self._end = end
        self._words = memoryview(words)
        self._over = over
        self._said = False
        self._heard_all = False
        self._left = FAREWELL_BYTES
        self._writing = False
        self._reset = reset
        self._look: asyncio.TimerHandle | None = None
        self._timer = loop.call_later(FAREWELL_TIME, self.close)
        self._input = InputWatch(loop, end.fileno(), self._discard)

    def begin(self) -> None:
        """Says the first of it."""
        self._input.start()
        self._speak()

    def _speak(self) -> None:
        try:
            while self._words:
                self._words = self._words[self._end.send(self._words) :]
            if not self._said and self._end.flush():
                self._said = True
                if self._reset:
                    self._part_once_taken()
                    return
                self._end.send_eof()
            waits = not self._end.flush()
        except BlockingIOError:
            waits = True
        except OSError:  # it is gone
            self.close()
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
            self.close()
            return
        if self._heard is not None:
            last = self._heard(data)
        else:
            self._left -= len(data)
            last = self._left < 0
        if last:
            self.close()
        elif not data:
            self._heard_all = True
            self._input.stop()
            self._close_when_done()

    def _close_when_done(self) -> None:
        if self._said and self._heard_all and not self._writing:
            self.close()

    def _part_once_taken(self) -> None:
        """Resets the connection as soon as nothing would be lost by it."""
        if unacknowledged(self._end):
            self._look = self._loop.call_later(ACKNOWLEDGED_LOOK, self._part_once_taken)
            return
        self._stop()
        self._end.abort()
        self._over(self)

    def close(self) -> None:
        """Closes the end, whatever it has heard."""
        self._stop()
        self._end.close()
        self._over(self)

    def _stop(self) -> None:
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()
        self._input.stop()
        if self._writing:
            self._wait_to_write(wanted=False)
