"""Stretches: so many bytes moved from one plain link to another through the kernel, past whoever owns the links."""

from __future__ import annotations

import os
from typing import Final, Protocol

from tunnelconsole.engine.transport.link import EndLink, cause_of
from tunnelconsole.engine.transport.plane import PIPE_SIZE, Pipe, Plane

STRETCH_FROM: Final = 128 * 1024
"""Bytes from which a stretch is worth its pipe: two ordinary reads."""

_SPLICE_FLAGS: Final = 3
"""``SPLICE_F_MOVE | SPLICE_F_NONBLOCK`` (linux/splice.h); Python has the names only from 3.14 on."""


class StretchOwner(Protocol):
    """The owner of both links."""

    def stretch_moved(self, stretch: Stretch, count: int) -> None:
        """So many bytes have reached the destination; ``stretch.over`` tells whether they were the last."""

    def stretch_source_ended(self, stretch: Stretch) -> None:
        """The source ended, and all that came before has reached the destination. The stretch is over."""

    def stretch_source_broken(self, stretch: Stretch, reason: str) -> None:
        """The source broke. The stretch is over."""

    def stretch_destination_broken(self, stretch: Stretch) -> None:
        """The destination takes nothing more; what was under way is lost. The stretch is over."""


class Stretch:
    """Moves bytes until so many have been moved, or one side ends.

    Meanwhile nobody else reads the source or writes to the destination, and nothing waits in the destination.

    :param source: is being read.
    :param count: bytes to move; ``sys.maxsize`` for all until the source ends.
    """

    __slots__ = ("_destination", "_in_pipe", "_left", "_moved", "_owner", "_pipe", "_plane", "_to", "over", "source")

    def __init__(self, plane: Plane, source: EndLink, destination: EndLink, count: int, owner: StretchOwner) -> None:
        self._plane = plane
        self.source = source
        self._destination = destination
        self._to = destination.fileno()
        self._left = count
        self._owner = owner
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self._moved = False
        self.over = False
        """Whether nothing more is moved, and both links are their owner's again."""

    def begin(self) -> bool:
        """Begins; False when there is no pipe to be had, and nothing has changed."""
        self._pipe = self._plane.borrow(self)
        if self._pipe is None:
            return False
        self.source.reader = self._fill
        self._destination.writer = self._drain
        return True

    def _fill(self) -> None:
        """The source is readable."""
        pipe = self._pipe = self._pipe or self._plane.borrow(self)
        if pipe is None:
            self.stop()
            self._owner.stretch_moved(self, 0)
            return
        try:
            count = os.splice(self.source.fileno(), pipe[1], min(self._left, PIPE_SIZE), flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return
        except OSError as error:
            self._end_source()
            self._owner.stretch_source_broken(self, cause_of(error))
            return
        if not count:
            self._end_source()
            self._owner.stretch_source_ended(self)
            return
        self._in_pipe = count
        self._left -= count
        self._drain()

    def _end_source(self) -> None:
        self.stop()
        self.source.pause()
        self.source.ended = True

    def _drain(self) -> None:
        """There is something in the pipe, and the destination may take it."""
        moved = 0
        try:
            while self._pipe is not None and self._in_pipe:
                count = os.splice(self._pipe[0], self._to, self._in_pipe, flags=_SPLICE_FLAGS)
                self._in_pipe -= count
                moved += count
        except BlockingIOError:
            self.source.pause()
            self._destination.watch_output(wanted=True)
        except OSError:
            self.stop()
            self._owner.stretch_destination_broken(self)
            return
        self._moved = True
        if not self._in_pipe:
            self._destination.watch_output(wanted=False)
            if self._left:
                self.source.resume()
            else:
                self.stop()
        self._owner.stretch_moved(self, moved)

    def release_if_idle(self) -> None:
        """Gives the pipe back when nothing moved since the last call."""
        if not self._moved and not self._in_pipe:
            self._give_pipe_back()
        self._moved = False

    def _give_pipe_back(self) -> None:
        if self._pipe is not None:
            self._plane.give_back(self, self._pipe, empty=not self._in_pipe)
            self._pipe = None
            self._in_pipe = 0

    def end_early(self) -> None:
        """Moves nothing more once what is in the pipe has arrived; the owner is told as of any end."""
        if self.over:
            return
        self._left = 0
        if not self._in_pipe:
            self.stop()
            self._owner.stretch_moved(self, 0)

    def stop(self) -> None:
        """Moves nothing more; what is in the pipe is lost. Safe to repeat."""
        if self.over:
            return
        self.over = True
        self.source.reader = None
        self._destination.writer = None
        self._destination.watch_output(wanted=False)
        self._give_pipe_back()
