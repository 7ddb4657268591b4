"""The pump between one yamux stream and an end: a slow receiver on one stream never holds up another.

What the stream brings waits here until the end takes it, and only then is the window granted again; so at most one
window per stream is ever held. What the end brings is read only while the stream has a window and the session's
connection has room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.mux import Mux
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.pump import Finished


class StreamPump:
    """Joins a stream and an end until both directions have ended. It owns both.

    ``bytes_in`` counts what came from the stream, ``bytes_out`` what came from the end.

    :param early: what the stream brought before the pump began.
    :param early_end: True when the stream's remote side has ended already.
    :param finished: told once, when both directions are over, and why ("" for an orderly end).
    """

    __slots__ = (
        "_end",
        "_end_over",
        "_finished",
        "_loop",
        "_mux",
        "_pace",
        "_pauses",
        "_pending",
        "_reading",
        "_stream_id",
        "_stream_over",
        "_writing",
        "bytes_in",
        "bytes_out",
        "over",
    )
    path = "yamux"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mux: Mux,
        stream_id: int,
        end: End,
        finished: Finished,
        *,
        early: Sequence[bytes] = (),
        early_end: bool = False,
        pace: Pace | None = None,
    ) -> None:
        self._loop = loop
        self._mux = mux
        self._stream_id = stream_id
        self._end = end
        self._finished = finished
        self._pace = pace
        self._pauses: dict[str, asyncio.Handle] = {}
        self._pending: deque[bytes | memoryview] = deque(early)
        self._reading = False
        self._writing = False
        self._end_over = False
        self._stream_over = early_end
        self.bytes_in = sum(len(data) for data in early)
        self.bytes_out = 0
        self.over = False
        mux.adopt(stream_id, self)
        self._pause("start", 0.0)

    def accepted(self, extra_window: int) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.mux.StreamUser`: nothing to do, data need not wait for it."""

    def received(self, data: bytes) -> None:
        self._pending.append(data)
        self.bytes_in += len(data)
        if self._may_deliver():
            self._deliver()

    def can_send(self) -> None:
        if not self.over and not self._end_over and "read" not in self._pauses and "start" not in self._pauses:
            self._readable()

    def half_closed(self) -> None:
        self._stream_over = True
        if self._may_deliver():
            self._deliver()

    def lost(self, reason: str) -> None:
        self._break(reason)

    def abort(self, reason: str) -> None:
        """Cuts both directions now, with a reset to both sides."""
        if not self.over:
            self._mux.reject(self._stream_id)
            self._break(reason)

    def _break(self, reason: str) -> None:
        if self.over:
            return
        self._stop()
        self._end.abort()
        self._loop.call_soon(self._finished, reason)

    def _may_deliver(self) -> bool:
        return not self._writing and "write" not in self._pauses and "start" not in self._pauses

    def _pause(self, which: str, seconds: float) -> None:
        self._pauses[which] = self._loop.call_later(seconds, self._resume, which)

    def _resume(self, which: str) -> None:
        del self._pauses[which]
        if which != "read":
            self._deliver()
        if which != "write" and not self.over:
            self._readable()

    def _readable(self) -> None:
        while not self.over:
            size = self._mux.room(self._stream_id)
            if not size:
                self._stop_reading()
                return
            try:
                data = self._end.receive(min(size, self._pace.read_size if self._pace else READ_SIZE))
            except BlockingIOError:
                self._read_on()
                return
            except OSError as error:
                self.abort(f"connection lost: {error.strerror or error}")
                return
            if not data:
                self._stop_reading()
                self._end_over = True
                self._mux.send_eof(self._stream_id)
                self._check_over()
                return
            self.bytes_out += len(data)
            self._mux.send(self._stream_id, data)
            wait = self._pace.take(len(data), self._loop.time()) if self._pace else 0.0
            if wait > 0:
                self._stop_reading()
                self._pause("read", wait)
                return
            if not self._end.holds_input():
                self._read_on()
                return

    def _read_on(self) -> None:
        if not self._reading and not self.over:
            self._loop.add_reader(self._end.fileno(), self._readable)
            self._reading = True

    def _stop_reading(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._end.fileno())
            self._reading = False

    def _deliver(self) -> None:
        delivered = 0
        try:
            while self._pending:
                data = self._pending[0]
                sent = self._end.send(data)
                delivered += sent
                if sent == len(data):
                    self._pending.popleft()
                else:
                    self._pending[0] = memoryview(data)[sent:]
            flushed = self._end.flush()
        except BlockingIOError:
            flushed = False
        except OSError as error:
            self.abort(f"connection lost: {error.strerror or error}")
            return
        if delivered:
            self._mux.consumed(self._stream_id, delivered)
        if flushed == self._writing:
            self._wait_to_write(not flushed)
        if flushed and self._stream_over:
            self._pass_on_end()
        elif self._pace and delivered:
            wait = self._pace.take(delivered, self._loop.time())
            if wait > 0:
                self._pause("write", wait)

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._end.fileno(), self._deliver)
        else:
            self._loop.remove_writer(self._end.fileno())
        self._writing = wanted

    def _pass_on_end(self) -> None:
        try:
            self._end.send_eof()
        except OSError as error:
            self.abort(f"connection lost: {error.strerror or error}")
            return
        self._check_over()

    def _check_over(self) -> None:
        if self._end_over and self._stream_over and not self._pending and not self.over:
            self._stop()
            self._mux.forget(self._stream_id)
            self._end.close()
            self._loop.call_soon(self._finished, "")

    def _stop(self) -> None:
        self.over = True
        self._stop_reading()
        if self._writing:
            self._wait_to_write(wanted=False)
        for handle in self._pauses.values():
            handle.cancel()
        self._pauses.clear()
        self._pending.clear()
