"""The HTTP pump: joins a visitor's link with the links that its requests are sent on, by callbacks, without a task.

Which link that is, request by request, is for those to say who derive from it: the server's visitors, and the client's
local requests. What the bytes mean, :class:`~tunnelconsole.engine.wire.http.exchange.Exchanges` knows.
"""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod

from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.tunnel.raw import RawFlow
from tunnelconsole.engine.transport.link import EndLink, Link
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.stretch import STRETCH_FROM, Stretch
from tunnelconsole.engine.wire.http.exchange import (
    Event,
    ExchangeDone,
    Exchanges,
    Phase,
    RequestReady,
    RequestRefused,
    ResponseStarted,
    Upgraded,
    UpstreamFailed,
)
from tunnelconsole.engine.wire.http.head import ResponseHead


def label_of(request: RequestReady) -> str:
    """What a channel says of the request under way: without the query, which may hold a secret."""
    return f"{request.head.method} {request.target.partition('?')[0]}"


class HttpPump(ABC):
    """One visitor's connection.

    :param visitor: its link, owned from here on; not read before :meth:`begin`.
    """

    __slots__ = (
        "_asked_at",
        "_cause",
        "_down",
        "_ended",
        "_node",
        "_raw",
        "_resting",
        "_settled_in",
        "_settled_out",
        "_status",
        "_up",
        "_upgrading",
        "_upstream",
        "deadline",
        "exchanges",
        "pace",
        "visitor",
    )

    def __init__(self, node: Node, visitor: Link, exchanges: Exchanges) -> None:
        self._node = node
        self.visitor = visitor
        self.exchanges = exchanges
        self.pace: Pace | None = None
        """Limits both directions together to a rate; None for no limit."""
        self.deadline = math.inf
        """When :meth:`late` is to be called, by the loop's clock."""
        self._upstream: Link | None = None
        self._down: Stretch | None = None
        self._up: Stretch | None = None
        self._raw: RawFlow | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._upgrading = False
        self._cause = ""
        self._ended = False
        self._settled_in = 0
        self._settled_out = 0
        self._asked_at = 0.0
        """When the request under way was complete, where that is counted; 0 while there is none."""
        self._status = 0
        visitor.owner = self

    def begin(self, first: bytes = b"") -> None:
        """Begins; ``first`` is what the visitor has said already."""
        if first:
            self.link_received(self.visitor, first)
        else:
            self._steer()

    # -- what those who derive from it do --------------------------------------------------------------------------

    @abstractmethod
    def request_ready(self, event: RequestReady) -> list[Event]:
        """Leads a request on with :meth:`forward`, or answers it; or does so later, within :meth:`go_on`."""

    @abstractmethod
    def request_refused(self, event: RequestRefused) -> None:
        """The visitor broke the rules."""

    @abstractmethod
    def response_started(self, head: ResponseHead) -> None:
        """The final answer has begun to pass, or the one with which the protocol changes."""

    @abstractmethod
    def exchange_over(self, upstream: Link | None, event: ExchangeDone) -> None:
        """An exchange is over; the upstream is to be kept for another, or ended."""

    @abstractmethod
    def upstream_failed(self, event: UpstreamFailed) -> list[Event]:
        """There is no answer from the upstream, which is ended: tries another with :meth:`forward`, or answers."""

    @abstractmethod
    def raw_over(self) -> None:
        """The upstream, with which the visitor had exchanged raw bytes, has ended; :meth:`ended` follows."""

    @abstractmethod
    def raw_begun(self, flow: RawFlow) -> None:
        """The visitor and the upstream exchange raw bytes from now on."""

    def kept_link_moved(self, link: Link) -> None:
        """A link that is neither the visitor's nor the upstream's said something, or has ended: it is no use."""
        link.close()

    @abstractmethod
    def late(self, now: float) -> None:
        """The deadline is over."""

    @abstractmethod
    def ended(self, reason: str) -> None:
        """The visitor's connection is over; told once."""

    # -- for them to use -------------------------------------------------------------------------------------------

    @property
    def from_upstream(self) -> int:
        """Bytes that came from upstreams."""
        return self._settled_in + (self._raw.from_upstream if self._raw is not None else 0)

    @property
    def to_upstream(self) -> int:
        """Bytes that went to upstreams."""
        return self._settled_out + (self._raw.to_upstream if self._raw is not None else 0)

    @property
    def path(self) -> str:
        """How bytes travel, as far as that is known now."""
        if self._raw is not None:
            return self._raw.path
        return self._upstream.path if self._upstream is not None else self.visitor.path

    @property
    def over(self) -> bool:
        """Whether the visitor's connection is over."""
        return self._ended

    def count_request(self, service: str, status: int = 0) -> None:
        """Counts the request under way, which has been answered or never will be; at most once.

        A WebSocket counts with its answer: how long it is used says nothing of how fast anything is.

        :param service: whose it is.
        :param status: of our own answer, where the service gave none.
        """
        times = self._node.request_times
        if times is not None and self._asked_at:
            times.took(service, time.perf_counter() - self._asked_at, self._status or status)
        self._asked_at = 0.0

    def forward(self, upstream: Link) -> list[Event]:
        """Sends the request that waits on ``upstream``, which has nothing else under way."""
        self._upstream = upstream
        upstream.owner = self
        return self.exchanges.forward()

    def go_on(self, events: list[Event]) -> None:
        """Does what ``events`` ask for, and sends what there is to send."""
        while events:
            more: list[Event] = []
            for event in events:
                more += self._on(event)
            events = more
        if not self._ended:
            self._send()

    def finish(self) -> None:
        """Takes no more requests."""
        if self._raw is None and not self._ended:
            self.exchanges.finish()
            self.go_on([])

    def abort(self, reason: str) -> None:
        """Cuts the connection now, with a reset to both sides."""
        if self._ended:
            return
        if self._raw is not None:
            self._raw.abort(reason)
        else:
            self._cause = reason
            self.go_on(self.exchanges.visitor_lost())

    def lose_upstream(self, reason: str) -> None:
        """The upstream is lost, as somebody else found out."""
        if self.exchanges.phase is Phase.RAW:
            self.abort(reason)
        elif self._upstream is not None:
            self.go_on(self.exchanges.upstream_lost(reason))

    # -- from the links --------------------------------------------------------------------------------------------

    def link_received(self, link: Link, data: bytes) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.link.LinkOwner`, as those below."""
        if link is self._upstream:
            self._settled_in += len(data)
            events = self.receive_from_upstream(data)
        elif link is self.visitor:
            events = self.exchanges.receive_from_visitor(data)
        else:
            self.kept_link_moved(link)
            return
        if self.pace is not None:
            self._slow_down(self.pace, len(data))
        self.go_on(events)

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on, whatever the one before had it wait for; None for no limit."""
        self.pace = pace
        if self._ended:
            return
        if self._raw is not None:
            self._raw.set_pace(pace)
            return
        if pace is not None:  # the kernel keeps to no rate
            for stretch in (self._down, self._up):
                if stretch is not None:
                    stretch.end_early()
        if self._resting is not None:
            self._resting.cancel()
            self._rested()

    def receive_from_upstream(self, data: bytes) -> list[Event]:
        """Takes bytes of an answer."""
        return self.exchanges.receive_from_upstream(data)

    def link_ended(self, link: Link) -> None:
        if link is self._upstream:
            self.go_on(self.exchanges.upstream_ended())
        elif link is self.visitor:
            self.go_on(self.exchanges.visitor_ended())
        else:
            self.kept_link_moved(link)

    def link_broken(self, link: Link, reason: str) -> None:
        if link is self._upstream:
            self.go_on(self.exchanges.upstream_lost(f"the connection to the service broke: {reason}"))
        elif link is self.visitor:
            self.go_on(self.exchanges.visitor_lost())
        else:
            self.kept_link_moved(link)

    def link_deaf(self, link: Link) -> None:
        if link is self._upstream:
            self.exchanges.upstream_deaf()
            self.go_on([])
        elif link is self.visitor:
            self.go_on(self.exchanges.visitor_lost())
        else:
            self.kept_link_moved(link)

    def link_drained(self, link: Link) -> None:
        if not self._ended:
            self.go_on([])

    # -- from the stretches ----------------------------------------------------------------------------------------

    def stretch_moved(self, stretch: Stretch, count: int) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.stretch.StretchOwner`, as those below."""
        if stretch is self._down:
            self._settled_in += count
            if stretch.over:
                self._down = None
            self.go_on(self.exchanges.moved_to_visitor(count))
        else:
            self._settled_out += count
            if stretch.over:
                self._up = None
            self.exchanges.moved_to_upstream(count)
            self.go_on([])

    def stretch_source_ended(self, stretch: Stretch) -> None:
        if stretch is self._down:
            self._down = None
            self.go_on(self.exchanges.upstream_ended())
        else:
            self._up = None
            self.go_on(self.exchanges.visitor_ended())

    def stretch_source_broken(self, stretch: Stretch, reason: str) -> None:
        if stretch is self._down:
            self._down = None
            self.go_on(self.exchanges.upstream_lost(f"the connection to the service broke: {reason}"))
        else:
            self._up = None
            self.go_on(self.exchanges.visitor_lost())

    def stretch_destination_broken(self, stretch: Stretch) -> None:
        if stretch is self._down:
            self._down = None
            self.go_on(self.exchanges.visitor_lost())
        else:
            self._up = None
            self.exchanges.upstream_deaf()
            self.go_on([])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _on(self, event: Event) -> list[Event]:
        match event:
            case RequestReady():
                if self._node.request_times is not None:
                    self._asked_at, self._status = time.perf_counter(), 0
                return self.request_ready(event)
            case ResponseStarted(head):
                self._status = head.status
                self.response_started(head)
            case ExchangeDone():
                self.exchange_over(self._let_go(), event)
            case UpstreamFailed():
                upstream = self._let_go()
                if upstream is not None:
                    upstream.abort()
                return self.upstream_failed(event)
            case RequestRefused():
                self.request_refused(event)
            case Upgraded(head):
                self._upgrading = True
                self._status = head.status
                self.response_started(head)
        return []

    def _let_go(self) -> Link | None:
        """The upstream, which is nobody's from here on."""
        for stretch in (self._down, self._up):
            if stretch is not None:
                stretch.stop()
        self._down = self._up = None
        upstream, self._upstream = self._upstream, None
        return upstream

    def _send(self) -> None:
        """Sends what is queued for each side; then ends, changes over to raw bytes, or says who is to be read."""
        exchanges = self.exchanges
        if self._upstream is not None and (data := exchanges.data_for_upstream()):
            self._settled_out += len(data)
            if not self._upstream.write(data):
                exchanges.upstream_deaf()
        if (data := exchanges.data_for_visitor()) and not self.visitor.write(data):
            self.go_on(exchanges.visitor_lost())
        elif exchanges.broken:
            self._end(self._cause or "the visitor left, or could not be told all", cut=True)
        elif exchanges.phase is Phase.OVER:
            if not self.visitor.blocked:
                self._end("", cut=False)
            else:
                self.visitor.pause()
        elif self._upgrading:
            self._upgrade()
        else:
            self._steer()

    def _steer(self) -> None:
        """Reads each side only as far as the other takes what comes of it."""
        visitor, upstream = self.visitor, self._upstream
        rests = self._resting is not None
        if self._up is None:
            wanted = not rests and self.exchanges.wants_visitor_data and not (upstream is not None and upstream.blocked)
            if wanted is not visitor.reading:
                if wanted:
                    visitor.resume()
                else:
                    visitor.pause()
        if upstream is None:
            return
        if self._down is None:
            wanted = not rests and not visitor.blocked
            if wanted is not upstream.reading:
                if wanted:
                    upstream.resume()
                else:
                    upstream.pause()
        if self.pace is None and upstream.plain and visitor.plain:
            self._stretch(visitor, upstream)

    def _stretch(self, visitor: Link, upstream: Link) -> None:
        """Has long bodies moved through the kernel."""
        exchanges = self.exchanges
        if self._down is None and not visitor.blocked and (count := exchanges.direct_to_visitor) >= STRETCH_FROM:
            self._down = self._begun(upstream, visitor, count)
        if self._up is None and not upstream.blocked and (count := exchanges.direct_to_upstream) >= STRETCH_FROM:
            self._up = self._begun(visitor, upstream, count)

    def _begun(self, source: Link, destination: Link, count: int) -> Stretch | None:
        if not isinstance(source, EndLink) or not isinstance(destination, EndLink):
            return None
        stretch = Stretch(self._node.plane, source, destination, count, self)
        return stretch if stretch.begin() else None

    def _slow_down(self, pace: Pace, count: int) -> None:
        loop = self._node.loop
        wait = pace.take(count, loop.time())
        if wait > 0 and self._resting is None:
            self._resting = loop.call_later(wait, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self.go_on([])

    def _upgrade(self) -> None:
        """Changes over to raw bytes, once what is queued for each side has left."""
        visitor, upstream = self.visitor, self._upstream
        if upstream is None:
            return
        visitor.pause()
        upstream.pause()
        if visitor.blocked or upstream.blocked:
            return
        self._upstream = None
        self._upgrading = False
        self.deadline = math.inf
        self._raw = RawFlow(self._node, upstream, visitor, self._raw_over, self.pace)
        self.raw_begun(self._raw)

    def _raw_over(self, reason: str) -> None:
        self._ended = True
        self.exchanges.finish()
        self.raw_over()
        self.ended(reason)

    def _end(self, reason: str, *, cut: bool) -> None:
        """Ends the visitor's connection, lingering where the visitor may still be sending."""
        self._ended = True
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        upstream = self._let_go()
        if upstream is not None:
            upstream.abort()
        visitor = self.visitor
        if cut:
            visitor.abort()
        elif isinstance(visitor, EndLink) and not visitor.ended:
            self._node.farewells.bid(visitor.release(), b"")
        else:
            visitor.close()
        self.ended(reason)
