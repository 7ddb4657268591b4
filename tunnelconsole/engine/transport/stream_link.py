"""A stream of yamux as a link."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from tunnelconsole.engine.transport.link import NOBODY, LinkOwner
from tunnelconsole.engine.transport.mux import Mux

CLOSE_TIME: Final = 10.0
"""Seconds the far side of a stream has to close its side after ours, before the stream is reset."""


class StreamLink:
    """A stream of yamux as a link; make it the stream's user. It is not read until :meth:`resume`."""

    __slots__ = (
        "_closed",
        "_finishing",
        "_loop",
        "_mux",
        "_soon",
        "_stream_id",
        "_timer",
        "_undelivered",
        "_unsent",
        "blocked",
        "ended",
        "owner",
        "reading",
    )
    path = "yamux"
    plain = False
    left_in_order = False

    def __init__(self, loop: asyncio.AbstractEventLoop, mux: Mux, owner: LinkOwner = NOBODY) -> None:
        self._loop = loop
        self._mux = mux
        self._stream_id = 0
        self.owner = owner
        self._unsent: deque[bytes] = deque()
        self._undelivered: deque[bytes] = deque()
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._finishing = False
        self.blocked = False
        self.reading = False
        self.ended = False

    def bind(self, stream_id: int) -> None:
        """Says which stream it is; call once, before anything else."""
        self._stream_id = stream_id

    def write(self, data: bytes) -> bool:
        if self._closed or self._mux.over:
            return False
        self._unsent.append(data)
        if not self.blocked:
            self.blocked = not self._push()
        return True

    def _push(self) -> bool:
        """Sends what waits, as far as the window and the session allow; True when all of it is on its way."""
        while self._unsent:
            data = self._unsent[0]
            room = self._mux.room(self._stream_id)
            if not room:
                return False
            if room < len(data):
                data, self._unsent[0] = data[:room], data[room:]
            else:
                self._unsent.popleft()
            self._mux.send(self._stream_id, data)
        return True

    def finish(self) -> None:
        """Ends our side behind what was written; the far side may go on. Nothing may be written after."""
        self._finishing = True
        if not self.blocked and not (self._closed or self._mux.over):
            self._mux.send_eof(self._stream_id)

    def release(self) -> tuple[Mux, int, list[bytes]]:
        """Gives the stream away; returns it with what it brought and the owner was not told. The link is over."""
        undelivered = list(self._undelivered)
        self._stop()
        return self._mux, self._stream_id, undelivered

    def pause(self) -> None:
        self.reading = False
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def resume(self) -> None:
        if self.reading or self._closed:
            return
        self.reading = True
        if self._undelivered or self.ended:
            self._soon = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._soon = None
        while self.reading and self._undelivered:
            data = self._undelivered.popleft()
            self._mux.consumed(self._stream_id, len(data))
            self.owner.link_received(self, data)
        if self.ended:
            self._tell_end()

    def _tell_end(self) -> None:
        if self.reading and not self._undelivered:
            self.reading = False
            self.owner.link_ended(self)

    def close(self) -> None:
        if self._closed:
            return
        self._stop()
        if self._mux.over:
            return
        self._mux.send_eof(self._stream_id)
        if self.ended:
            self._mux.forget(self._stream_id)
        else:
            self._timer = self._loop.call_later(CLOSE_TIME, self._mux.reject, self._stream_id)

    def abort(self) -> None:
        if not self._closed:
            self._stop()
            if not self._mux.over:
                self._mux.reject(self._stream_id)

    def _stop(self) -> None:
        self.pause()
        self._closed = True
        self.blocked = False
        self._unsent.clear()
        self._undelivered.clear()

    def accepted(self, extra_window: int) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.mux.StreamUser`: nothing to do, data need not wait for it."""

    def received(self, data: bytes) -> None:
        if self._closed:
            self._mux.consumed(self._stream_id, len(data))
        elif self.reading and not self._undelivered:
            self._mux.consumed(self._stream_id, len(data))
            self.owner.link_received(self, data)
        else:
            self._undelivered.append(data)

    def can_send(self) -> None:
        if self.blocked and self._push():
            self.blocked = False
            if self._finishing:
                self._mux.send_eof(self._stream_id)
            self.owner.link_drained(self)

    def half_closed(self) -> None:
        self.ended = True
        if self._closed:
            self._forget()
        else:
            self._tell_end()

    def lost(self, reason: str) -> None:
        if self._closed:
            self._forget()
        else:
            self._stop()
            self.ended = True
            self.owner.link_broken(self, reason)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._mux.over:
            self._mux.forget(self._stream_id)
