"""One direction between two plain sockets: through a shared buffer while small, by ``splice`` while large.

Small traffic goes ``recv_into`` and ``send`` through one buffer of the plane. After several full reads in a row the
direction borrows a pipe and moves bytes socket to pipe to socket inside the kernel, until it falls idle. An idle
channel costs two sockets and no pipe.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from tunnelconsole.engine.transport.half import Half, HalfOwner
from tunnelconsole.engine.transport.plane import PIPE_SIZE, Pipe, Plane
from tunnelconsole.engine.transport.watch import InputWatch

FULL_READ: Final = 64 * 1024
"""Bytes from which a read counts as full: below this, ``splice`` costs more than the copy it saves."""

FULL_READS_TO_SPLICE: Final = 4
"""Full reads in a row after which a direction borrows a pipe; a single large response stays in the buffer."""

_SPLICE_FLAGS: Final = 3
"""``SPLICE_F_MOVE | SPLICE_F_NONBLOCK`` (linux/splice.h); Python has the names only from 3.14 on."""


class AdaptiveHalf(Half):
    """Between two plain sockets: through the shared buffer while small, by ``splice`` while large.

    :param passes_end: False keeps the destination open for others when the source has ended.
    """

    __slots__ = (
        "_destination",
        "_destination_fd",
        "_full_reads",
        "_in_pipe",
        "_input",
        "_mark",
        "_passes_end",
        "_pending",
        "_pipe",
        "_plane",
        "_source",
        "_source_ended",
        "_source_fd",
        "_writing",
    )

    def __init__(
        self,
        owner: HalfOwner,
        plane: Plane,
        source: socket.socket,
        destination: socket.socket,
        *,
        passes_end: bool = True,
    ) -> None:
        super().__init__(owner)
        self._passes_end = passes_end
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
        self._input = InputWatch(plane.loop, self._source_fd, self._readable)
        self._writing = False

    @property
    def undelivered(self) -> int:
        """Bytes read from the source that the destination's kernel has not taken."""
        return self._in_pipe + len(self._pending)

    def start(self, early: bytes) -> None:
        if early:
            self.total = len(early)
            self._pending = early
            self._wait_to_write()
        else:
            self._input.start()

    def _wait_to_write(self) -> None:
        self._input.stop()
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
            self._input.start()

    def _readable(self) -> None:
        if self._pipe is not None:
            self._splice_in(self._pipe)
            return
        try:
            count = self._source.recv_into(self._plane.buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self.owner.half_broken(self, error, sending=False)
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
            self._pending = bytes(view[:count])
            self.owner.half_broken(self, error, sending=True)
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
            self.owner.half_broken(self, error, sending=True)
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
            self.owner.half_broken(self, error, sending=False)
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
            self.owner.half_broken(self, error, sending=True)
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
        if self._passes_end and not self.source_broken:
            with contextlib.suppress(OSError):  # the receiver is gone: the other direction will find out and say so
                self._destination.shutdown(socket.SHUT_WR)
        self.owner.half_ended()

    def take_back(self) -> bytes:
        pieces = [bytes(self._pending)]
        while self._pipe is not None and self._in_pipe:
            pieces.append(os.read(self._pipe[0], self._in_pipe))
            self._in_pipe -= len(pieces[-1])
        self.cut()
        return b"".join(pieces)

    def cut(self) -> None:
        if self.over:
            return
        self.over = True
        self._input.stop()
        if self._writing:
            self._plane.loop.remove_writer(self._destination_fd)
            self._writing = False
        self._give_pipe_back()
        self._pending = b""
