"""Links: byte streams whose owner is told what comes on them and changes over time.

An end is a link, and so are a stream of yamux and a channel of SSH; a bridge makes an end of a link that has none.

A link that waits for work belongs to whoever hands it out, and then to whoever it is handed to, without the loop ever
letting go of its descriptor. Nothing here has a task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.watch import InputWatch

LINK_READ: Final = 80 * 1024
"""Bytes read at once: 64 KiB of payload with its head; from 128 KiB on, an allocation would cost a system call."""


class LinkOwner(Protocol):
    """Whoever uses a link now."""

    def link_received(self, link: Link, data: bytes) -> None:
        """Bytes came. Call :meth:`Link.pause` where they cannot be passed on; more may come until then."""

    def link_ended(self, link: Link) -> None:
        """The far side sends no more; what is written may still reach it."""

    def link_broken(self, link: Link, reason: str) -> None:
        """The link is over, both ways."""

    def link_deaf(self, link: Link) -> None:
        """The far side takes nothing more; what it sent before may still come."""

    def link_drained(self, link: Link) -> None:
        """What was written has left, after :attr:`Link.blocked` was True."""


class Link(Protocol):
    """A byte stream with an owner."""

    owner: LinkOwner
    blocked: bool
    """Whether something that was written has not left yet. Whoever goes on writing fills the memory."""
    reading: bool
    """Whether the owner is told what comes."""
    ended: bool
    """Whether the far side has sent its last."""

    @property
    def path(self) -> str:
        """How bytes travel here: ``tcp``, ``tls``, ``yamux`` or ``ssh``."""

    @property
    def plain(self) -> bool:
        """Whether it is an :class:`EndLink` past which bytes may be moved."""

    def write(self, data: bytes) -> bool:
        """Sends ``data``, now or as the far side takes it; False when it takes nothing more."""

    def pause(self) -> None:
        """Tells the owner nothing of what comes until :meth:`resume`; the far side is slowed down by that."""

    def resume(self) -> None:
        """Tells the owner again what comes, from the next turn of the loop at the earliest."""

    def close(self) -> None:
        """Ends the link in order; the owner hears nothing more. Safe to repeat.

        What was written and has not left is dropped; a channel of SSH delivers it first.
        """

    def abort(self) -> None:
        """Ends the link so that the far side sees it broken, and the owner hears nothing more. Safe to repeat."""


@runtime_checkable
class JoinableLink(Link, Protocol):
    """A link whose two directions end apart, so that it can be joined with another."""

    left_in_order: bool
    """Whether the far side takes nothing more because it has closed its side, rather than because it broke."""

    def finish(self) -> None:
        """Ends our side behind what was written; the far side may go on. Nothing may be written after.

        While :attr:`blocked`, the end has not left; ``link_drained`` tells when it has.
        """


class Nobody:
    """Owns links that are not anybody's yet, and must not be read."""

    def link_received(self, link: Link, data: bytes) -> None:
        """Nobody to tell."""

    def link_ended(self, link: Link) -> None:
        """Nobody to tell."""

    def link_broken(self, link: Link, reason: str) -> None:
        """Nobody to tell."""

    def link_deaf(self, link: Link) -> None:
        """Nobody to tell."""

    def link_drained(self, link: Link) -> None:
        """Nobody to tell."""


NOBODY: Final = Nobody()


def nobody_told() -> None:
    """Where something would be told, and nobody need hear it."""


class EndLink:
    """An end as a link. It is not read until :meth:`resume`.

    :param end: owned by the link from here on.
    """

    __slots__ = (
        "_closed",
        "_end",
        "_finishing",
        "_input",
        "_loop",
        "_soon",
        "_unsent",
        "_writing",
        "blocked",
        "ended",
        "left_in_order",
        "owner",
        "reader",
        "reading",
        "writer",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, end: End, owner: LinkOwner = NOBODY) -> None:
        self._loop = loop
        self._end = end
        self.owner = owner
        self._input = InputWatch(loop, end.fileno(), self._readable)
        self._soon: asyncio.Handle | None = None
        self._unsent: deque[bytes | memoryview] = deque()
        self._writing = False
        self._closed = False
        self._finishing = False
        self.blocked = False
        self.reading = False
        self.ended = False
        self.left_in_order = False
        self.reader: Callable[[], None] | None = None
        """Called in place of reading, while somebody moves bytes past the owner."""
        self.writer: Callable[[], None] | None = None
        """The same in place of writing."""

    @property
    def path(self) -> str:
        return self._end.path

    @property
    def plain(self) -> bool:
        """Whether bytes may be moved to and from its descriptor without passing here."""
        return isinstance(self._end, SocketEnd)

    def fileno(self) -> int:
        """The descriptor."""
        return self._end.fileno()

    def write(self, data: bytes) -> bool:
        if not self.blocked:
            try:
                sent = self._end.send(data)
                if sent == len(data) and self._end.flush():
                    return True
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.left_in_order = isinstance(error, BrokenPipeError)
                return False
            self.blocked = True
            if sent == len(data):
                data = b""
            elif sent:
                self._unsent.append(memoryview(data)[sent:])
                data = b""
        if data:
            self._unsent.append(data)
        return self._push()

    def _push(self) -> bool:
        """Sends what waits; False when the far side takes nothing more."""
        unsent = self._unsent
        try:
            while unsent:
                data = unsent[0]
                sent = self._end.send(data)
                if sent == len(data):
                    unsent.popleft()
                else:
                    unsent[0] = memoryview(data)[sent:]
            done = self._end.flush()
            if done and self._finishing:
                self._finishing = False
                self._end.send_eof()
                done = self._end.flush()
        except BlockingIOError:
            done = False
        except OSError as error:
            self.left_in_order = isinstance(error, BrokenPipeError)
            unsent.clear()
            self.blocked = False
            self.watch_output(wanted=False)
            return False
        self.blocked = not done
        self.watch_output(wanted=not done)
        return True

    def finish(self) -> None:
        self._finishing = True
        if not self.blocked and not self._closed:
            self._push()  # who is gone by now shows when it is read

    def watch_output(self, *, wanted: bool) -> None:
        """Has the loop tell when the descriptor takes more."""
        if wanted == self._writing:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self._end.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._end.fileno())

    def _writable(self) -> None:
        if self.writer is not None:
            self.writer()
        elif not self._push():
            self.owner.link_deaf(self)
        elif not self.blocked:
            self.owner.link_drained(self)

    def pause(self) -> None:
        if self.reading:
            self.reading = False
            self._input.stop()
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None

    def resume(self) -> None:
        if self.reading or self.ended or self._closed:
            return
        self.reading = True
        self._input.start()
        if self._end.holds_input():
            self._soon = self._loop.call_soon(self._readable)

    def _readable(self) -> None:
        self._soon = None
        if self.reader is not None:
            self.reader()
            return
        while self.reading:
            try:
                data = self._end.receive(LINK_READ)
            except BlockingIOError:
                return
            except OSError as error:
                self._break(error)
                return
            if not data:
                self.ended = True
                self.pause()
                self.owner.link_ended(self)
                return
            self.owner.link_received(self, data)
            if not self._end.holds_input():
                return

    def _break(self, error: OSError) -> None:
        self.pause()
        self.ended = True
        self.owner.link_broken(self, cause_of(error))

    def release(self) -> End:
        """Gives the end away, without what has not left. The link is over."""
        self._stop()
        return self._end

    def close(self) -> None:
        if not self._closed:
            self._stop()
            self._end.close()

    def abort(self) -> None:
        if not self._closed:
            self._stop()
            self._end.abort()

    def _stop(self) -> None:
        self.pause()
        self._closed = True
        self.reader = self.writer = None
        self.watch_output(wanted=False)
        self.blocked = False
        self._unsent.clear()


def cause_of(error: OSError) -> str:
    """Why a connection broke, in a few words."""
    return "connection reset" if isinstance(error, ConnectionResetError) else error.strerror or str(error)
