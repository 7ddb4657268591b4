"""What becomes of a visitor and its upstream once they have changed their protocol: raw bytes both ways."""

from __future__ import annotations

from tunnelconsole.engine.node import Node
from tunnelconsole.engine.transport.link import EndLink, JoinableLink, Link
from tunnelconsole.engine.transport.link_pump import LinkPump
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.pump import Finished, Pump
from tunnelconsole.engine.transport.stream_link import StreamLink
from tunnelconsole.engine.transport.stream_pump import StreamPump


class RawFlow:
    """The two links joined, which it owns from here on. Nothing waits in either of them to be sent.

    :param finished: told once, when both directions are over, and why ("" for an orderly end).
    """

    def __init__(self, node: Node, upstream: Link, visitor: Link, finished: Finished, pace: Pace | None) -> None:
        self._flow: Pump | StreamPump | LinkPump
        self._upstream_is_right = False
        if isinstance(upstream, EndLink) and isinstance(visitor, EndLink):
            self._flow = Pump(node.plane, upstream.release(), visitor.release(), finished, pace=pace)
        elif isinstance(upstream, StreamLink) and isinstance(visitor, EndLink):
            self._flow = _over_stream(node, upstream, visitor, finished, pace)
        elif isinstance(upstream, EndLink) and isinstance(visitor, StreamLink):
            self._flow = _over_stream(node, visitor, upstream, finished, pace)
            self._upstream_is_right = True
        elif isinstance(upstream, JoinableLink) and isinstance(visitor, JoinableLink):
            self._flow = LinkPump(node.loop, upstream, visitor, finished, pace=pace)
        else:
            raise TypeError(f"{type(upstream).__name__} and {type(visitor).__name__} cannot be joined")

    @property
    def from_upstream(self) -> int:
        """Bytes that came from the upstream."""
        return self._flow.bytes_out if self._upstream_is_right else self._flow.bytes_in

    @property
    def to_upstream(self) -> int:
        """Bytes that came from the visitor."""
        return self._flow.bytes_in if self._upstream_is_right else self._flow.bytes_out

    @property
    def path(self) -> str:
        """How bytes travel."""
        return self._flow.path

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on; None for no limit."""
        self._flow.set_pace(pace)

    def abort(self, reason: str) -> None:
        """Cuts both directions now, with a reset to both sides."""
        self._flow.abort(reason)


def _over_stream(node: Node, stream: StreamLink, link: EndLink, finished: Finished, pace: Pace | None) -> StreamPump:
    ended = stream.ended
    mux, stream_id, early = stream.release()
    return StreamPump(node.loop, mux, stream_id, link.release(), finished, early=early, early_end=ended, pace=pace)
