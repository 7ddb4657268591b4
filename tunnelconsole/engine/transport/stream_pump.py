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
from tunnelconsole.engine.transport.watch import InputWatch


class StreamPump:
    """Joins a stream and an end until both directions have ended. It owns both.

    ``bytes_in`` counts what came from the stream, ``bytes_out`` what came from the end.

    :param early: what the stream brought before the pump began.
    :param early_end: True when the stream's remote side has ended already.
    :param finished: told once, when both directions are over, and why ("" for an orderly end).
    """

    __slots__ = (
        "_end",
        "_end_broken",
        "_end_over",
        "_end_takes_no_more",
        "_finished",
        "_input",
        "_loop",
        "_lost",
        "_mux",
        "_pace",
        "_pending",
        "_read_pause",
        "_stream_id",
        "_stream_over",
        "_write_pause",
        "_writing",
        "bytes_in",
        "bytes_out",
        "over",
        "reason",
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
        self._pending: deque[bytes | memoryview] = deque(early)
        self._input = InputWatch(loop, end.fileno(), self._read)
        self._writing = False
        self._end_over = self._end_broken = False
        self._end_takes_no_more = False
        """True once the end of what the stream brings has been passed on, or the end is gone: the rest is dropped."""
        self._stream_over = early_end
        self.reason = ""
        """Why it broke off; empty while it has not."""
        self._lost = ""
        """Why the stream was lost once it had brought all: what is here of it is still delivered."""
        self.bytes_in = sum(len(data) for data in early)
        self.bytes_out = 0
        self.over = False
        attached = mux.adopt(stream_id, self)
        begin = self._begin if attached else self._begin_too_late
        self._read_pause: asyncio.Handle | None = loop.call_soon(begin)
        self._write_pause: asyncio.Handle | None = self._read_pause

    def accepted(self, extra_window: int) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.mux.StreamUser`: nothing to do, data need not wait for it."""

    def received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._end_takes_no_more:
            self._mux.consumed(self._stream_id, len(data))
            return
        self._pending.append(data)
        if not self._writing and self._write_pause is None:
            self._deliver()

    def can_send(self) -> None:
        if self._read_pause is None and not self._end_over:
            self._read()

    def half_closed(self) -> None:
        self._stream_over = True
        if not self._writing and self._write_pause is None:
            self._deliver()

    def lost(self, reason: str) -> None:
        if not self._stream_over or self.over:
            self._break(reason)
            return
        self._lost = reason or "the stream was lost"
        self._end_over = True
        self._input.stop()
        if self._write_pause is None and not self._writing:
            self._deliver()

    @property
    def brought_all(self) -> bool:
        """Whether all that the stream's remote side sent has been passed on, and its end."""
        return self._stream_over and self._end_takes_no_more and not self._end_broken

    def stop_receiving(self) -> None:
        """Takes no more from the stream: the pump ends once what the end sent is with the session's connection.

        The remote side is not told; its session is to end then.
        """
        if self.over:
            return
        self._stream_over = self._end_takes_no_more = True
        self._mux.consumed(self._stream_id, sum(len(data) for data in self._pending))
        self._pending.clear()
        if self._writing:
            self._wait_to_write(wanted=False)
        self._check_over()

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on, whatever the one before had it wait for; None for no limit."""
        self._pace = pace
        if self.over or (self._read_pause is not None and self._read_pause is self._write_pause):
            return  # it has not begun
        if self._read_pause is not None:
            self._read_pause.cancel()
            self._read_pause = self._loop.call_soon(self._read_on)
        if self._write_pause is not None:
            self._write_pause.cancel()
            self._write_pause = self._loop.call_soon(self._deliver)

    def abort(self, reason: str) -> None:
        """Cuts both directions now, with a reset to both sides."""
        if not self.over:
            self._mux.reject(self._stream_id)
            self._break(reason)

    def _break(self, reason: str) -> None:
        if self.over:
            return
        self.reason = reason
        self._stop()
        self._end.abort()
        self._loop.call_soon(self._finished, reason)

    def _begin(self) -> None:
        self._write_pause = None
        self._deliver()
        if not self.over:
            self._read_on()

    def _begin_too_late(self) -> None:
        self._break("the stream was over before it could be joined")

    def _read_on(self) -> None:
        self._read_pause = None
        if not self._end_over:
            self._read()

    def _read(self) -> None:
        """Passes on what the end brings, as far as the stream and the rate allow."""
        while not (self.over or self._end_over):
            size = self._mux.room(self._stream_id)
            if not size:
                self._input.stop()
                return
            try:
                data = self._end.receive(min(size, self._pace.read_size if self._pace else READ_SIZE))
            except BlockingIOError:
                self._input.start()
                return
            except OSError as error:
                self.abort(f"connection lost: {error.strerror or error}")
                return
            if not data:
                self._end_has_ended()
                return
            self.bytes_out += len(data)
            wait = self._pace.take(len(data), self._loop.time()) if self._pace else 0.0
            more = self._end.holds_input()  # of which the descriptor tells nothing, whether it is watched or not
            if wait > 0:
                self._input.stop()
                self._read_pause = self._loop.call_later(wait, self._read_on)
            elif not more:
                self._input.start()
            self._mux.send(self._stream_id, data)
            if wait > 0 or not more:
                return

    def _end_has_ended(self) -> None:
        self._input.stop()
        self._end_over = True
        if self._end_broken:
            self.abort("connection lost: connection reset")
        else:
            self._mux.send_eof(self._stream_id)
            self._check_over()

    def _deliver(self) -> None:
        """Passes on what the stream has brought, and its end, as far as the end and the rate allow."""
        self._write_pause = None
        delivered, done = 0, False
        try:
            while self._pending:
                data = self._pending[0]
                sent = self._end.send(data)
                delivered += sent
                if sent == len(data):
                    self._pending.popleft()
                else:
                    self._pending[0] = memoryview(data)[sent:]
            done = self._end.flush()
            if done and self._stream_over and not self._end_takes_no_more:
                self._end_takes_no_more = True
                self._end.send_eof()
                done = self._end.flush()
        except BlockingIOError:
            pass  # done later, when the end can be written
        except OSError as error:
            self._end_is_gone(error)
            done = True
        if delivered:
            self._mux.consumed(self._stream_id, delivered)
        if self.over:
            return
        if done == self._writing:
            self._wait_to_write(not done)
        wait = self._pace.take(delivered, self._loop.time()) if self._pace and delivered else 0.0
        if done and wait > 0:
            self._write_pause = self._loop.call_later(wait, self._deliver)
        self._check_over()

    def _end_is_gone(self, error: OSError) -> None:
        """The end takes nothing more. What it sent before is still passed on, and its end as what it is.

        As in :meth:`tunnelconsole.engine.transport.pump.Pump.half_broken`: EPIPE means that it had closed its side.
        """
        self._end_takes_no_more = True
        self._end_broken = not isinstance(error, BrokenPipeError)
        dropped = sum(len(data) for data in self._pending)
        self._pending.clear()
        self._mux.consumed(self._stream_id, dropped)

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._end.fileno(), self._deliver)
        else:
            self._loop.remove_writer(self._end.fileno())
        self._writing = wanted

    def _check_over(self) -> None:
        """Ends the pump once both directions have ended and nothing waits, here or in the session's connection."""
        done = self._end_over and self._stream_over and self._end_takes_no_more and not self._writing
        if not done or self.over:
            return
        if not self._lost and not self._mux.flushed:
            self._mux.call_when_flushed(self._check_over)
            return
        self._stop()
        self._mux.forget(self._stream_id)
        self._end.close()
        self._loop.call_soon(self._finished, self._lost)

    def _stop(self) -> None:
        self.over = True
        self._input.stop()
        if self._writing:
            self._wait_to_write(wanted=False)
        for handle in (self._read_pause, self._write_pause):
            if handle is not None:
                handle.cancel()
        self._pending.clear()
