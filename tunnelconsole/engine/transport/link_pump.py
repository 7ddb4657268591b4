"""The pump between any two links, for byte streams that have no descriptor, such as a channel of SSH.

As :class:`~tunnelconsole.engine.transport.pump.Pump`: the end of one direction is passed on while the other goes on; a
receiver that does not read stops the sender; a link that breaks breaks the other.
"""

from __future__ import annotations

import asyncio

from tunnelconsole.engine.transport.link import JoinableLink, Link
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.pump import Finished


class LinkPump:
    """Joins two links until both directions have ended. It owns both.

    ``left`` is the session's remote party: ``bytes_in`` counts what came from it, ``bytes_out`` what came from
    ``right``.

    :param finished: told once, when both directions are over, and why ("" for an orderly end); never from within the
        constructor.
    :param pace: limits both directions together to a rate; None for no limit.
    """

    __slots__ = ("_finished", "_from_left", "_from_right", "_loop", "_pace", "left", "over", "reason", "right")
    undelivered = None
    """Nobody can tell: neither TCP nor SSH says whether what was sent has been read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        left: JoinableLink,
        right: JoinableLink,
        finished: Finished,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._loop = loop
        self._finished = finished
        self._pace = pace
        self.left = left
        self.right = right
        self.reason = ""
        """Why it ended, or is about to; empty where it did in order, or has not."""
        self.over = False
        """Whether both directions have ended, told or not."""
        self._from_left = _Direction(left, right)
        self._from_right = _Direction(right, left)
        left.owner = right.owner = self
        loop.call_soon(self._begin)

    @property
    def bytes_in(self) -> int:
        """Bytes that came from ``left``."""
        return self._from_left.total

    @property
    def bytes_out(self) -> int:
        """Bytes that came from ``right``."""
        return self._from_right.total

    @property
    def path(self) -> str:
        """How bytes travel on the link that is not a socket."""
        return self.right.path if self.left.plain else self.left.path

    def _begin(self) -> None:
        if not self.over:
            self.left.resume()
            self.right.resume()

    def abort(self, reason: str) -> None:
        """Cuts both directions now, so that both sides see it broken."""
        if not self.over:
            self.reason = self.reason or reason
            self._end(broken=True)

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on, whatever the one before had it wait for; None for no limit."""
        self._pace = pace
        for direction in (self._from_left, self._from_right):
            if direction.pause is not None:
                direction.pause.cancel()
                self._go_on(direction)

    def stop_receiving(self) -> None:
        """Takes no more from ``right``: the pump ends once what ``left`` sent has been delivered."""
        self._from_right.stop()
        self._end_if_over()

    # -- from the links --------------------------------------------------------------------------------------------

    def link_received(self, link: Link, data: bytes) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.link.LinkOwner`, as those below."""
        direction = self._from(link)
        direction.total += len(data)
        if not direction.sink.write(data):
            self.link_deaf(direction.sink)
            return
        wait = self._pace.take(len(data), self._loop.time()) if self._pace is not None else 0.0
        if wait > 0:
            direction.pause = self._loop.call_later(wait, self._go_on, direction)
        if wait > 0 or direction.sink.blocked:
            link.pause()

    def _go_on(self, direction: _Direction) -> None:
        direction.pause = None
        direction.read_on()

    def link_ended(self, link: Link) -> None:
        direction = self._from(link)
        if not direction.source_broken:
            direction.sink.finish()
        direction.ending = True
        if not direction.sink.blocked:
            direction.stop()
            self._end_if_over()

    def link_broken(self, link: Link, reason: str) -> None:
        self.abort(f"{self._name(link)}: {reason}")

    def link_deaf(self, link: Link) -> None:
        """What the far side sent before may still be on its way to us, so the other direction goes on until it ends."""
        to, back = self._to(link), self._from(link)
        if to.over:
            return
        self.reason = self.reason or f"{self._name(link)}: connection reset"
        to.stop()
        back.source_broken = not to.sink.left_in_order
        self._end_if_over()

    def link_drained(self, link: Link) -> None:
        direction = self._to(link)
        if direction.ending:
            direction.stop()
            self._end_if_over()
        else:
            direction.read_on()

    def _from(self, link: Link) -> _Direction:
        return self._from_left if link is self.left else self._from_right

    def _to(self, link: Link) -> _Direction:
        return self._from_left if link is self.right else self._from_right

    def _name(self, link: Link) -> str:
        return "client" if link is self.left else "target"

    def _end_if_over(self) -> None:
        if self._from_left.over and self._from_right.over and not self.over:
            self._end(broken=self._from_left.source_broken or self._from_right.source_broken)

    def _end(self, *, broken: bool) -> None:
        self.over = True
        for direction in (self._from_left, self._from_right):
            direction.stop()
        for link in (self.left, self.right):
            if broken:
                link.abort()
            else:
                link.close()
        self._loop.call_soon(self._finished, self.reason)


class _Direction:
    """One direction of the pump."""

    __slots__ = ("ending", "over", "pause", "sink", "source", "source_broken", "total")

    def __init__(self, source: JoinableLink, sink: JoinableLink) -> None:
        self.source = source
        self.sink = sink
        self.total = 0
        """Bytes that came from the source."""
        self.pause: asyncio.TimerHandle | None = None
        """Until when the rate lets nothing more through."""
        self.ending = False
        """Whether the source has ended, and its end is behind what the sink has not taken yet."""
        self.over = False
        self.source_broken = False
        """Whether sending to the source has shown that it broke: its end is not passed on as an orderly one."""

    def read_on(self) -> None:
        if self.pause is None and not (self.sink.blocked or self.over):
            self.source.resume()

    def stop(self) -> None:
        """Moves nothing more."""
        self.over = True
        self.source.pause()
        if self.pause is not None:
            self.pause.cancel()
            self.pause = None
