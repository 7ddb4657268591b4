"""One direction between any two ends, through a buffer of one read: for TLS, and wherever a rate is kept."""

from __future__ import annotations

import asyncio
import contextlib

from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.half import Half, HalfOwner
from tunnelconsole.engine.transport.pacing import Pace


class BufferedHalf(Half):
    """Between any two ends, through a buffer of at most one read; also where a rate is kept."""

    __slots__ = (
        "_destination",
        "_loop",
        "_pace",
        "_pause",
        "_pending",
        "_reading",
        "_source",
        "_source_ended",
        "_writing",
    )

    def __init__(
        self, owner: HalfOwner, loop: asyncio.AbstractEventLoop, source: End, destination: End, pace: Pace | None
    ) -> None:
        super().__init__(owner)
        self._loop = loop
        self._source = source
        self._destination = destination
        self._pace = pace
        self._pause: asyncio.TimerHandle | asyncio.Handle | None = None
        self._pending: memoryview | bytes = b""
        self._source_ended = False
        self._reading = False
        self._writing = False

    def start(self, early: bytes) -> None:
        self.total = len(early)
        self._pending = early
        self._pause = self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Delivers what is pending, then reads: first what the source holds already, then as it comes."""
        self._pause = None
        if self._deliver():
            self._readable()

    def _stop_reading(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._source.fileno())
            self._reading = False

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._destination.fileno())
            self._writing = False

    def _readable(self) -> None:
        try:
            data = self._source.receive(self._pace.read_size if self._pace else READ_SIZE)
        except BlockingIOError:
            self._read_on()
            return
        except OSError as error:
            self.owner.half_broken(self, error, sending=False)
            return
        self._source_ended = not data
        self._pending = data
        self.total += len(data)
        if not self._deliver():
            return
        wait = self._pace.take(len(data), self._loop.time()) if self._pace else 0.0
        if wait > 0:
            self._stop_reading()
            self._pause = self._loop.call_later(wait, self._resume)
        elif self._source.holds_input():
            self._stop_reading()
            self._pause = self._loop.call_soon(self._resume)
        else:
            self._read_on()

    def _read_on(self) -> None:
        if not self._reading:
            self._loop.add_reader(self._source.fileno(), self._readable)
            self._reading = True

    def _writable(self) -> None:
        if self._deliver():
            self._pause = self._loop.call_soon(self._resume)

    def _deliver(self) -> bool:
        """Sends what is pending; True when all of it is with the kernel and the direction goes on."""
        try:
            while self._pending:
                sent = self._destination.send(self._pending)
                self._pending = memoryview(self._pending)[sent:] if sent < len(self._pending) else b""
            delivered = self._destination.flush()
        except BlockingIOError:
            delivered = False
        except OSError as error:
            self.owner.half_broken(self, error, sending=True)
            return False
        if not delivered:
            self._stop_reading()
            if not self._writing:
                self._loop.add_writer(self._destination.fileno(), self._writable)
                self._writing = True
            return False
        self._stop_writing()
        if self._source_ended:
            self._finish()
            return False
        return True

    def _finish(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):  # the receiver is gone: the other direction will find out and say so
            self._destination.send_eof()
        self.owner.half_ended()

    def cut(self) -> None:
        if self.over:
            return
        self.over = True
        self._stop_reading()
        self._stop_writing()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._pending = b""
