"""The plane: what all pumps of one loop share, a buffer and a pool of pipes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import Final, Protocol

from tunnelconsole.engine.transport import descriptors

BUFFER_SIZE: Final = 256 * 1024
"""Bytes of the buffer that all adaptive directions of a loop share."""

PIPE_SIZE: Final = 1024 * 1024
"""Bytes a pipe is asked to hold: Linux's default ``fs.pipe-max-size``, the most an ordinary user may have."""

MAX_PIPES: Final = 256
"""Pipes at the most, borrowed and waiting: 512 descriptors; a direction that gets none goes on through the buffer.

One whose receiver is stuck keeps its pipe with the bytes in it. Were they moved into memory, the pipe could go to the
next one that gets stuck, and what strangers can make us hold would be a pipe's size for each channel instead of this.
"""

IDLE_SWEEP: Final = 1.0
"""Seconds after which a direction that moved nothing gives its pipe back."""

CAN_SPLICE: Final = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")
"""Whether this platform moves bytes between sockets through the kernel: Linux does."""

Pipe = tuple[int, int]
"""The reading and the writing descriptor."""


class PipeUser(Protocol):
    """A direction that has borrowed a pipe."""

    def release_if_idle(self) -> None:
        """Gives the pipe back when nothing moved since the last call."""


class Plane:
    """What all pumps of one loop share: the buffer and the pool of pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self._waiting: list[Pipe] = []
        self._borrowed: set[PipeUser] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pipes(self) -> int:
        """Pipes in existence, borrowed and waiting."""
        return len(self._waiting) + len(self._borrowed)

    def borrow(self, user: PipeUser) -> Pipe | None:
        """A pipe for ``user``, or None when there is none to be had."""
        if not CAN_SPLICE:
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
            if max(pipe) >= descriptors.ceiling():
                os.close(pipe[0])
                os.close(pipe[1])
                return None
            with contextlib.suppress(OSError):  # beyond the user's share of pipe pages a smaller pipe must do
                fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._borrowed.add(user)
        if self._sweep is None:
            self._sweep = self.loop.call_later(IDLE_SWEEP, self._sweep_idle)
        return pipe

    def give_back(self, user: PipeUser, pipe: Pipe, *, empty: bool) -> None:
        """Takes a pipe back; one with bytes left in it, which are another channel's, is closed."""
        self._borrowed.discard(user)
        if empty and not self._closed:
            self._waiting.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])

    def _sweep_idle(self) -> None:
        for user in list(self._borrowed):
            user.release_if_idle()
        self._sweep = self.loop.call_later(IDLE_SWEEP, self._sweep_idle) if self._borrowed else None

    def close(self) -> None:
        """Closes the waiting pipes and stops the sweep; a pipe that is still borrowed is closed when it comes back."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._waiting:
            pipe = self._waiting.pop()
            os.close(pipe[0])
            os.close(pipe[1])
