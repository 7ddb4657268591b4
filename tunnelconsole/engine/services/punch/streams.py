"""The streams of a link: one for each local connection that comes, or for each that the other end opens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.punch.carrier import Carrier
from tunnelconsole.engine.transport.early_stream import EarlyStream
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.stream_pump import StreamPump

KEEPALIVE: Final = 300.0
"""Seconds between two keepalives of the session: its link has its own, and may be without a path for a minute."""

Opened = Callable[[int, EarlyStream], None]
"""Told of each stream that the other end has opened; joins or rejects it, then or later."""


class Streams:
    """One yamux session over a link.

    :param opened: see :data:`Opened`.
    :param leads: whether this is the end that leads the link, which is yamux's client.
    """

    def __init__(self, node: Node, carrier: Carrier, opened: Opened, *, leads: bool) -> None:
        self._loop = node.loop
        self._opened = opened
        self.mux = Mux(
            node.loop,
            carrier.end,
            client=leads,
            opened=self._take,
            closed=self._closed,
            keepalive=KEEPALIVE,
            farewells=node.farewells,
        )

    def _take(self, stream_id: int) -> None:
        stream = EarlyStream(f"stream {stream_id}")
        self.mux.accept(stream_id, stream)
        self._opened(stream_id, stream)

    def _closed(self, reason: str) -> None:
        """The carrier tells its owner of this."""

    def open(self, early: EarlyStream | None = None) -> int | None:
        """Opens a stream; None while the session takes no more.

        :param early: keeps what comes before it is joined; without, it is joined at once.
        """
        return self.mux.open(early if early is not None else QuietUser())

    def join(
        self,
        stream_id: int,
        end: End,
        finished: Finished,
        *,
        early: EarlyStream | None = None,
        pace: Pace | None = None,
    ) -> StreamPump:
        """Pipes a stream to an end, until both ways have ended.

        :param early: what the stream has brought, where the other end has opened it.
        """
        return StreamPump(
            self._loop,
            self.mux,
            stream_id,
            end,
            finished,
            early=early.early if early is not None else (),
            early_end=early.ended if early is not None else False,
            pace=pace,
        )

    def reject(self, stream_id: int) -> None:
        """Resets a stream."""
        self.mux.reject(stream_id)

    def close(self, reason: str = "") -> None:
        """Ends the session and all its streams; safe to call twice."""
        self.mux.close(reason)
