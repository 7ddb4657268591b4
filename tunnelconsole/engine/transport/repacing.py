"""Flows that come under a rate while they run, or get rid of one.

Without a rate two sockets are spliced, which no rate can slow down, and costs nothing; with one, bytes are read as far
as the rate allows. So a direction that is to be held to a rate, or let go, is replaced in place by one of the other
sort, which goes on with the byte where the first has stopped.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tunnelconsole.engine.transport.adaptive import AdaptiveHalf
from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.half import Half
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.plane import Plane


@runtime_checkable
class Paced(Protocol):
    """A flow that can be held to another rate while it runs."""

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to this rate from now on; None for no limit."""


def repaced(half: Half, plane: Plane, source: End, destination: End, pace: Pace | None, *, passes_end: bool) -> Half:
    """What goes on in the place of a direction, held to ``pace``; the same one where it can, or where it is over.

    :param passes_end: as the direction was made with.
    """
    plain = isinstance(source, SocketEnd) and isinstance(destination, SocketEnd)
    if half.over:
        return half
    if isinstance(half, BufferedHalf) and (pace is not None or not plain):
        half.set_pace(pace)
        return half
    if isinstance(half, AdaptiveHalf) and pace is None:
        return half
    total, broken, left = half.total, half.source_broken, half.take_back()
    fresh: Half
    if pace is None and isinstance(source, SocketEnd) and isinstance(destination, SocketEnd):
        fresh = AdaptiveHalf(half.owner, plane, source.socket, destination.socket, passes_end=passes_end)
    else:
        fresh = BufferedHalf(half.owner, plane.loop, source, destination, pace, passes_end=passes_end)
    fresh.source_broken = broken
    fresh.start(left)
    fresh.total = total
    return fresh
