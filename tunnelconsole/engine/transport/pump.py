"""The pump: joins two ends and moves bytes both ways, by callbacks on the loop, with no task per channel.

Both ways: the end of one direction is passed on as a half-close while the other goes on; a receiver that does not read
stops the sender (nothing is read that cannot be delivered); a reset on one side becomes a reset on the other, so that
a broken stream never looks complete.
"""

from __future__ import annotations

from collections.abc import Callable

from tunnelconsole.engine.transport.adaptive import AdaptiveHalf
from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.half import Half
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.plane import CAN_SPLICE, Plane
from tunnelconsole.engine.transport.repacing import repaced

Finished = Callable[[str], None]
"""Told once, when both directions have ended and both ends are closed: the reason, or "" for an orderly end."""


class Pump:
    """Joins two ends until both directions have ended.

    ``left`` is the session's remote party: ``bytes_in`` counts what came from it, ``bytes_out`` what came from
    ``right``. Counts are exact to the byte. The pump owns both ends and closes them.

    :param early_left: bytes that arrived from ``left`` before the pump began, to be delivered first.
    :param early_right: the same from ``right``.
    :param pace: limits both directions together to a rate; None for no limit.
    :param finished: see :data:`Finished`; never called from within the constructor.
    """

    __slots__ = ("_ended", "_finished", "_loop", "_plane", "left", "left_to_right", "reason", "right", "right_to_left")
    undelivered = None
    """Nobody can tell: TCP does not say whether what was sent has been read."""

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
        self._plane = plane
        self._loop = plane.loop
        self._finished = finished
        self.reason = ""
        """Why it ended, or is about to; empty where it did in order, or has not."""
        self._ended = False
        self.left = left
        self.right = right
        self.left_to_right: Half
        self.right_to_left: Half
        if pace is None and isinstance(left, SocketEnd) and isinstance(right, SocketEnd):
            self.left_to_right = AdaptiveHalf(self, plane, left.socket, right.socket)
            self.right_to_left = AdaptiveHalf(self, plane, right.socket, left.socket)
        else:
            self.left_to_right = BufferedHalf(self, plane.loop, left, right, pace)
            self.right_to_left = BufferedHalf(self, plane.loop, right, left, pace)
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
        if isinstance(self.left_to_right, AdaptiveHalf):
            return "splice" if CAN_SPLICE else "tcp"
        paths = (self.left.path, self.right.path)
        return next((path for path in ("tls", "ssh") if path in paths), "tcp")

    def abort(self, reason: str) -> None:
        """Cuts both directions now, with a reset to both sides."""
        if self._ended:
            return
        self.reason = self.reason or reason
        self.left_to_right.cut()
        self.right_to_left.cut()
        self._end(broken=True)

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on; None for no limit."""
        if not self._ended:
            left, right = self.left, self.right
            self.left_to_right = repaced(self.left_to_right, self._plane, left, right, pace, passes_end=True)
            self.right_to_left = repaced(self.right_to_left, self._plane, right, left, pace, passes_end=True)

    def stop_receiving(self) -> None:
        """Takes no more from ``right``: the pump ends once what ``left`` sent has been delivered."""
        self.right_to_left.cut()
        self.half_ended()

    def half_ended(self) -> None:
        """One direction delivered its last byte; called by the direction itself."""
        if self.left_to_right.over and self.right_to_left.over and not self._ended:
            self._end(broken=self.left_to_right.source_broken or self.right_to_left.source_broken)

    def half_broken(self, half: Half, error: OSError, *, sending: bool) -> None:
        """One direction broke; called by the direction itself.

        When a receiver is gone, what it sent before may still be on its way to us, so the other direction goes on
        until it ends. That end is a proper one only if the receiver had closed its side: then, and only then, the
        error is EPIPE (Linux, ``tcp_reset``); any other is reported once, so the other direction will not see it.
        When a sender is gone, everything is over.
        """
        at_left = (half is self.left_to_right) != sending
        side = "client" if at_left else "target"
        self.reason = self.reason or f"{side}: {_cause(error)}"
        half.cut()
        if sending:
            other = self.right_to_left if half is self.left_to_right else self.left_to_right
            other.source_broken = not isinstance(error, BrokenPipeError)
            self.half_ended()
        else:
            self.abort(self.reason)

    def _end(self, *, broken: bool) -> None:
        self._ended = True
        for end in (self.left, self.right):
            if broken:
                end.abort()
            else:
                end.close()
        self._loop.call_soon(self._finished, self.reason)


def _cause(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset"
    return error.strerror or str(error)
