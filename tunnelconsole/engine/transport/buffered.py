"""One direction between any two ends, through a buffer of one read: for TLS, and wherever a rate is kept."""

from __future__ import annotations

import asyncio
import contextlib

from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.half import Half, HalfOwner
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.watch import InputWatch


class BufferedHalf(Half):
    """Between any two ends, through a buffer of at most one read; also where a rate is kept.

    :param passes_end: False keeps the destination open for others when the source has ended.
    """

    __slots__ = (
        "_destination",
        "_end_passed_on",
        "_input",
        "_loop",
        "_next_read",
        "_pace",
        "_passes_end",
        "_pause",
        "_pending",
        "_source",
        "_source_ended",
        "_waits_for_rate",
        "_writing",
    )

    def __init__(
        self,
        owner: HalfOwner,
        loop: asyncio.AbstractEventLoop,
        source: End,
        destination: End,
        pace: Pace | None,
        *,
        passes_end: bool = True,
    ) -> None:
        super().__init__(owner)
        self._loop = loop
        self._passes_end = passes_end
        self._source = source
        self._destination = destination
        self._pace = pace
        self._pause: asyncio.TimerHandle | asyncio.Handle | None = None
        self._pending: memoryview | bytes = b""
        self._source_ended = False
        self._end_passed_on = False
        self._input = InputWatch(loop, source.fileno(), self._readable)
        self._next_read = 0.0
        self._waits_for_rate = False
        self._writing = False

    def start(self, early: bytes) -> None:
        self._take(early)
        self._pause = self._loop.call_soon(self._resume)

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on, whatever the one before had it wait for; None for no limit."""
        self._pace = pace
        self._next_read = 0.0
        if self._pause is not None and self._waits_for_rate:
            self._pause.cancel()
            self._waits_for_rate = False
            self._pause = self._loop.call_soon(self._resume)

    def _take(self, data: bytes) -> None:
        """Keeps what came for delivery, and with a rate the time from which more may be read."""
        self._pending = data
        self.total += len(data)
        if self._pace:
            now = self._loop.time()
            self._next_read = now + self._pace.take(len(data), now)

    def _resume(self) -> None:
        """Delivers what is pending, then reads: first what the source holds already, then as it comes."""
        self._pause = None
        self._waits_for_rate = False
        if self._deliver():
            self._readable()

    def _readable(self) -> None:
        try:
            data = self._source.receive(self._pace.read_size if self._pace else READ_SIZE)
        except BlockingIOError:
            self._input.start()
            return
        except OSError as error:
            self.owner.half_broken(self, error, sending=False)
            return
        self._arrived(data)

    def _arrived(self, data: bytes) -> None:
        """Goes on with what was read, or with the source's end where that is nothing."""
        self._source_ended = not data
        self._take(data)
        if self._deliver():
            self._read_on()

    def _read_on(self) -> None:
        """Reads again: once the rate allows it, soon when the source holds something, else when it is readable."""
        wait = self._next_read - self._loop.time() if self._pace else 0.0
        if wait > 0:
            self._input.stop()
            self._pause = self._loop.call_later(wait, self._resume)
            self._waits_for_rate = True
        elif self._source.holds_input():
            self._input.stop()
            self._pause = self._loop.call_soon(self._resume)
        else:
            self._input.start()

    def _writable(self) -> None:
        if self._deliver():
            self._read_on()

    def _deliver(self) -> bool:
        """Sends what is pending, and the end; True when all of it is with the kernel and the direction goes on."""
        try:
            while self._pending:
                sent = self._destination.send(self._pending)
                self._pending = memoryview(self._pending)[sent:] if sent < len(self._pending) else b""
            delivered = self._destination.flush()
            if delivered and self._source_ended:
                self._pass_end_on()
                delivered = self._destination.flush()
        except BlockingIOError:
            delivered = False
        except OSError as error:
            self.owner.half_broken(self, error, sending=True)
            return False
        if not delivered:
            self._input.stop()
            if not self._writing:
                self._loop.add_writer(self._destination.fileno(), self._writable)
                self._writing = True
            return False
        self._stop_writing()
        if self._source_ended:
            self.cut()
            self.owner.half_ended()
            return False
        return True

    def _pass_end_on(self) -> None:
        if self._end_passed_on or self.source_broken or not self._passes_end:
            return
        self._end_passed_on = True
        with contextlib.suppress(OSError):  # the receiver is gone: the other direction will find out and say so
            self._destination.send_eof()

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._destination.fileno())
            self._writing = False

    def take_back(self) -> bytes:
        undelivered = bytes(self._pending)
        self.cut()
        return undelivered

    def cut(self) -> None:
        if self.over:
            return
        self.over = True
        self._input.stop()
        self._stop_writing()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._pending = b""
