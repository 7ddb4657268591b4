"""The pump: joins two ends and moves bytes both ways, by callbacks on the loop, with no task per channel.

Between two plain sockets a direction is *adaptive*: small traffic goes through one shared buffer (``recv_into`` and
``send``), and after several full reads in a row it borrows a pipe and goes ``splice`` to ``splice`` through the kernel,
until it falls idle. An idle channel costs two sockets and no pipe. Where an end is TLS, where the flow is rate-limited,
or where the platform has no ``splice``, bytes go through buffers.

Both ways: the end of one direction is passed on as a half-close while the other goes on; a receiver that does not read
stops the sender (nothing is read that cannot be delivered); a reset on one side becomes a reset on the other, so that
a broken stream never looks complete.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Final

from tunnelconsole.engine.transport.ends import READ_SIZE, End, SocketEnd
from tunnelconsole.engine.transport.pacing import Pace

BUFFER_SIZE: Final = 256 * 1024
"""Bytes of the buffer that all adaptive directions of a loop share."""

FULL_READ: Final = 64 * 1024
"""Bytes from which a read counts as full: below this, ``splice`` costs more than the copy it saves."""

FULL_READS_TO_SPLICE: Final = 4
"""Full reads in a row after which a direction borrows a pipe; a single large response stays in the buffer."""

PIPE_SIZE: Final = 1024 * 1024
"""Bytes a pipe is asked to hold: Linux's default ``fs.pipe-max-size``, the most an ordinary user may have."""

MAX_PIPES: Final = 256
"""Pipes at the most, borrowed and waiting: 512 descriptors; a direction that gets none goes on through the buffer."""

IDLE_SWEEP: Final = 1.0
"""Seconds after which a direction that moved nothing gives its pipe back."""

_CAN_SPLICE: Final = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")
_SPLICE_FLAGS: Final = 3
"""``SPLICE_F_MOVE | SPLICE_F_NONBLOCK`` (linux/splice.h); Python has the names only from 3.14 on."""

Finished = Callable[[str], None]
"""Told once, when both directions have ended and both ends are closed: the reason, or "" for an orderly end."""

Pipe = tuple[int, int]


class Plane:
    """What all pumps of one loop share: the buffer and the pool of pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self._waiting: list[Pipe] = []
        self._borrowed: set[_AdaptiveHalf] = set()
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def pipes(self) -> int:
        """Pipes in existence, borrowed and waiting."""
        return len(self._waiting) + len(self._borrowed)

    def borrow(self, half: _AdaptiveHalf) -> Pipe | None:
        """A pipe for ``half``, or None when there is none to be had."""
        if not _CAN_SPLICE:
            return None
        if self._waiting:
            pipe = self._waiting.pop()
        elif self.pipes >= MAX_PIPES:
            return None
        else:
            try:
                pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return None  # out of descriptors: the buffer needs none
            try:
                fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            except OSError:
                pass  # beyond the user's share of pipe pages: a smaller pipe works too
        self._borrowed.add(half)
        if self._sweep is None:
            self._sweep = self.loop.call_later(IDLE_SWEEP, self._sweep_idle)
        return pipe

    def give_back(self, half: _AdaptiveHalf, pipe: Pipe, *, empty: bool) -> None:
        """Takes a pipe back; one with bytes left in it is closed."""
        self._borrowed.discard(half)
        if empty:
            self._waiting.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])

    def _sweep_idle(self) -> None:
        for half in list(self._borrowed):
            half.release_if_idle()
        self._sweep = self.loop.call_later(IDLE_SWEEP, self._sweep_idle) if self._borrowed else None

    def close(self) -> None:
        """Closes the waiting pipes and stops the sweep; pumps must have ended."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._waiting:
            pipe = self._waiting.pop()
            os.close(pipe[0])
            os.close(pipe[1])


class Pump:
    """Joins two ends until both directions have ended.

    ``left`` is the session's remote party: ``bytes_in`` counts what came from it, ``bytes_out`` what came from
    ``right``. Counts are exact to the byte. The pump owns both ends and closes them.

    :param early_left: bytes that arrived from ``left`` before the pump began, to be delivered first.
    :param early_right: the same from ``right``.
    :param pace: limits both directions together to a rate; None for no limit.
    :param finished: see :data:`Finished`; never called from within the constructor.
    """

    __slots__ = ("_ended", "_finished", "_loop", "_reason", "left", "left_to_right", "right", "right_to_left")

    def __init__(
        self,
        plane: Plane,
        left: End,
        right: End,
        finished: Finished,
        *,
        early_left: bytes = b"",
        early_right: bytes = b"",
        pace: Pace | None = None,
    ) -> None:
        self._loop = plane.loop
        self._finished = finished
        self._reason = ""
        self._ended = False
        self.left = left
        self.right = right
        self.left_to_right: _Half
        self.right_to_left: _Half
        if pace is None and isinstance(left, SocketEnd) and isinstance(right, SocketEnd):
            self.left_to_right = _AdaptiveHalf(self, plane, left.socket, right.socket)
            self.right_to_left = _AdaptiveHalf(self, plane, right.socket, left.socket)
        else:
            self.left_to_right = _BufferedHalf(self, plane.loop, left, right, pace)
            self.right_to_left = _BufferedHalf(self, plane.loop, right, left, pace)
        self.left_to_right.start(early_left)
        self.right_to_left.start(early_right)

    @property
    def bytes_in(self) -> int:
        """Bytes that came from ``left``."""
        return self.left_to_right.total

    @property
    def bytes_out(self) -> int:
        """Bytes that came from ``right``."""
        return self.right_to_left.total

    @property
    def path(self) -> str:
        """``splice``, or how the bytes travel otherwise."""
        if isinstance(self.left_to_right, _AdaptiveHalf):
            return "splice" if _CAN_SPLICE else "tcp"
        return "tls" if "tls" in (self.left.path, self.right.path) else "tcp"

    def abort(self, reason: str) -> None:
        """Cuts both directions now, with a reset to both sides."""
        if self._ended:
            return
        self._reason = self._reason or reason
        self.left_to_right.cut()
        self.right_to_left.cut()
        self._end(broken=True)

    def stop_receiving(self) -> None:
        """Takes no more from ``right``: the pump ends once what ``left`` sent has been delivered."""
        self.right_to_left.cut()
        self.half_ended()

    def half_ended(self) -> None:
        """One direction delivered its last byte; called by the direction itself."""
        if self.left_to_right.over and self.right_to_left.over and not self._ended:
            self._end(broken=False)

    def half_broken(self, half: _Half, error: OSError, *, sending: bool) -> None:
        """One direction broke; called by the direction itself.

        When a receiver is gone, what it sent before may still be on its way to us, so the other direction goes on
        until it ends. When a sender is gone, everything is over.
        """
        at_left = (half is self.left_to_right) != sending
        side = "client" if at_left else "target"
        self._reason = self._reason or f"{side}: {_cause(error)}"
        half.cut()
        if sending:
            self.half_ended()
        else:
            self.abort(self._reason)

    def _end(self, *, broken: bool) -> None:
        self._ended = True
        for end in (self.left, self.right):
            if broken:
                end.abort()
            else:
                end.close()
        self._loop.call_soon(self._finished, self._reason)


def _cause(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset"
    return error.strerror or str(error)


class _Half:
    """One direction of a pump."""

    __slots__ = ("over", "pump", "total")

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.total = 0
        self.over = False

    def start(self, early: bytes) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """Stops at once and forgets what was not delivered; idempotent."""
        raise NotImplementedError


class _AdaptiveHalf(_Half):
    """Between two plain sockets: through the shared buffer while small, by ``splice`` while large."""

    __slots__ = (
        "_destination",
        "_destination_fd",
        "_full_reads",
        "_in_pipe",
        "_mark",
        "_pending",
        "_pipe",
        "_plane",
        "_reading",
        "_source",
        "_source_ended",
        "_source_fd",
        "_writing",
    )

    def __init__(self, pump: Pump, plane: Plane, source: socket.socket, destination: socket.socket) -> None:
        super().__init__(pump)
        self._plane = plane
        self._source = source
        self._destination = destination
        self._source_fd = source.fileno()
        self._destination_fd = destination.fileno()
        self._pending: memoryview | bytes = b""
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self._full_reads = 0
        self._mark = 0
        self._source_ended = False
        self._reading = False
        self._writing = False

    def start(self, early: bytes) -> None:
        if early:
            self.total = len(early)
            self._pending = early
            self._wait_to_write()
        else:
            self._read_on()

    def _read_on(self) -> None:
        if not self._reading:
            self._plane.loop.add_reader(self._source_fd, self._readable)
            self._reading = True

    def _stop_reading(self) -> None:
        if self._reading:
            self._plane.loop.remove_reader(self._source_fd)
            self._reading = False

    def _wait_to_write(self) -> None:
        self._stop_reading()
        if not self._writing:
            self._plane.loop.add_writer(self._destination_fd, self._writable)
            self._writing = True

    def _written(self) -> None:
        if self._writing:
            self._plane.loop.remove_writer(self._destination_fd)
            self._writing = False
        if self._source_ended:
            self._finish()
        else:
            self._read_on()

    def _readable(self) -> None:
        if self._pipe is not None:
            self._splice_in(self._pipe)
            return
        try:
            count = self._source.recv_into(self._plane.buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self.pump.half_broken(self, error, sending=False)
            return
        if not count:
            self._source_ended = True
            self._finish()
            return
        self.total += count
        view = self._plane.view
        try:
            sent = self._destination.send(view[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.pump.half_broken(self, error, sending=True)
            return
        if sent < count:
            self._pending = bytes(view[sent:count])
            self._wait_to_write()
        if count < FULL_READ:
            self._full_reads = 0
            return
        self._full_reads += 1
        if self._full_reads > FULL_READS_TO_SPLICE and not self._pending:
            self._pipe = self._plane.borrow(self)
            self._mark = self.total
            self._full_reads = 0

    def _writable(self) -> None:
        if not self._pending:
            self._splice_out(self._pipe)
            return
        try:
            sent = self._destination.send(self._pending)
        except BlockingIOError:
            return
        except OSError as error:
            self.pump.half_broken(self, error, sending=True)
            return
        self._pending = memoryview(self._pending)[sent:] if sent < len(self._pending) else b""
        if not self._pending:
            self._written()

    def _splice_in(self, pipe: Pipe) -> None:
        try:
            count = os.splice(self._source_fd, pipe[1], PIPE_SIZE, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return
        except OSError as error:
            self.pump.half_broken(self, error, sending=False)
            return
        if not count:
            self._source_ended = True
            self._finish()
            return
        self._in_pipe = count
        self.total += count
        self._splice_out(pipe)

    def _splice_out(self, pipe: Pipe | None) -> None:
        try:
            while pipe is not None and self._in_pipe:
                self._in_pipe -= os.splice(pipe[0], self._destination_fd, self._in_pipe, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            self._wait_to_write()
            return
        except OSError as error:
            self.pump.half_broken(self, error, sending=True)
            return
        if self._writing:
            self._written()

    def release_if_idle(self) -> None:
        """Gives the pipe back when nothing moved since the last call."""
        if self._pipe is not None and self.total == self._mark and not self._in_pipe:
            self._give_pipe_back()
        self._mark = self.total

    def _give_pipe_back(self) -> None:
        if self._pipe is not None:
            self._plane.give_back(self, self._pipe, empty=not self._in_pipe)
            self._pipe = None
            self._in_pipe = 0

    def _finish(self) -> None:
        self.cut()
        try:
            self._destination.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the receiver is gone; the other direction will find out and say so
        self.pump.half_ended()

    def cut(self) -> None:
        if self.over:
            return
        self.over = True
        self._stop_reading()
        if self._writing:
            self._plane.loop.remove_writer(self._destination_fd)
            self._writing = False
        self._give_pipe_back()
        self._pending = b""


class _BufferedHalf(_Half):
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
        self, pump: Pump, loop: asyncio.AbstractEventLoop, source: End, destination: End, pace: Pace | None
    ) -> None:
        super().__init__(pump)
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
            self.pump.half_broken(self, error, sending=False)
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
            self.pump.half_broken(self, error, sending=True)
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
        try:
            self._destination.send_eof()
        except OSError:
            pass  # the receiver is gone; the other direction will find out and say so
        self.pump.half_ended()

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
