"""The exchanges of one visitor: the bytes of its connection, and of the services that answer it.

A visitor's requests are answered one after the other, each through an *upstream*: whatever leads to the service. The
owner of the visitor's connection owns the upstreams too. It feeds what it reads, and after each call it

1. does what the events ask for,
2. sends :meth:`Exchanges.data_for_upstream` and :meth:`Exchanges.data_for_visitor`,
3. resets the visitor's connection if :attr:`Exchanges.broken`, or, if :attr:`Exchanges.over`, closes it once all is
   sent: lingering, since the visitor may still be sending.

Each :meth:`Exchanges.forward` ends in exactly one of ``ExchangeDone``, ``UpstreamFailed`` and ``Upgraded``::

    IDLE ─► HEAD ─► DECIDING ──forward()──► EXCHANGE ──ExchangeDone──► IDLE or OVER
                     │   ▲                   │    │
                 answer() └──UpstreamFailed──┘    └──Upgraded──► RAW

Bodies pass as they come and are never collected. Back-pressure is the owner's: it reads the visitor only while the
upstream takes what comes of it, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tunnelconsole.engine.wire.http.answer import status_page
from tunnelconsole.engine.wire.http.body import NO_BODY, Framing, Kind, request_framing
from tunnelconsole.engine.wire.http.exchange_events import (
    Event,
    ExchangeDone,
    Phase,
    RequestReady,
    RequestRefused,
    ResponseStarted,
    Upgraded,
    UpstreamFailed,
)
from tunnelconsole.engine.wire.http.forward import (
    Peer,
    Route,
    asks_for_upgrade,
    expects_continue,
    forward_request,
    keeps_open,
    route_of,
)
from tunnelconsole.engine.wire.http.head import (
    MAX_FIELDS,
    MAX_HEAD,
    HeadReader,
    HttpError,
    RequestHead,
    ResponseHead,
    parse_request,
)
from tunnelconsole.engine.wire.http.passage import NOTHING, Passage, Tap
from tunnelconsole.engine.wire.http.response import Response, connection_field

__all__ = [
    "Event",
    "ExchangeDone",
    "Exchanges",
    "Phase",
    "RequestReady",
    "RequestRefused",
    "ResponseStarted",
    "Upgraded",
    "UpstreamFailed",
]

#: Bytes kept of what a visitor sends ahead of its turn: pipelined requests, or a body before ``forward``. One read. The
#: owner stops reading then, but not before, so that it notices when an ordinary visitor leaves.
MAX_HELD = 64 * 1024
#: Methods that may be repeated without asking the visitor (RFC 9110, section 9.2.2).
IDEMPOTENT = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))


class _Request(NamedTuple):
    head: RequestHead
    route: Route
    framing: Framing
    upgrade: bool


_NO_REQUEST = _Request(RequestHead("", "/", 1, (), (), {}), Route("", "", ""), NO_BODY, False)
_NO_RESPONSE = Response(_NO_REQUEST.head, upgrade=False, reusable=False, tap=None)


class Exchanges:
    """One for each connection of a visitor.

    :param peer: who the visitor is.
    :param max_head: bytes of a request's head.
    :param max_fields: fields in it.
    """

    __slots__ = (
        "_consumed",
        "_deaf",
        "_finishing",
        "_held",
        "_keeps",
        "_max_fields",
        "_peer",
        "_request",
        "_request_body",
        "_request_tap",
        "_response",
        "_response_tap",
        "_to_upstream",
        "_to_visitor",
        "_visitor_ended",
        "_visitor_reader",
        "broken",
        "phase",
    )

    def __init__(self, peer: Peer, *, max_head: int = MAX_HEAD, max_fields: int = MAX_FIELDS) -> None:
        self._peer = peer
        self.phase = Phase.IDLE
        #: Whether the visitor's connection is to be reset, so that what it got does not look complete.
        self.broken = False
        self._visitor_reader = HeadReader(request=True, max_head=max_head)
        self._max_fields = max_fields
        self._to_visitor: list[bytes] = []
        self._to_upstream: list[bytes] = []
        # What the visitor sent ahead of its turn; whether it has sent its last.
        self._held = b""
        self._visitor_ended = False
        self._finishing = False
        self._request = _NO_REQUEST
        self._request_body = NOTHING
        self._response = _NO_RESPONSE
        self._request_tap: Tap | None = None
        self._response_tap: Tap | None = None
        # Whether the visitor's connection can take another request behind this one.
        self._keeps = False
        # Whether some of the request's body is gone; whether the upstream takes no more of it.
        self._consumed = self._deaf = False

    # -- for the owner ---------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more is taken from the visitor: close its connection once all is sent."""
        return self.phase is Phase.OVER

    @property
    def response_begun(self) -> bool:
        """Whether the final answer of the current exchange has begun to pass. Then ``answer`` is not possible."""
        return self.phase is Phase.EXCHANGE and self._response.head is not None

    @property
    def request_complete(self) -> bool:
        """Whether all of the current request has come from the visitor."""
        return self._request_body.complete

    @property
    def ends_with_upstream(self) -> bool:
        """Whether all of the request has passed, and only the upstream's end will tell that its answer is complete."""
        return self.phase is Phase.EXCHANGE and self._request_body.complete and self._response.body.until_end

    @property
    def request_bytes(self) -> int:
        """Bytes of the body of the current request, or the last one, that have passed."""
        return self._request_body.total

    @property
    def response_bytes(self) -> int:
        """Bytes of the body of the current response, or the last one, that have passed."""
        return self._response.body.total

    @property
    def scheme(self) -> str:
        """What the visitor speaks: ``http`` or ``https``."""
        return self._peer.scheme

    @property
    def request_body(self) -> Passage:
        """The body of the current request, or the last one."""
        return self._request_body

    @property
    def response_body(self) -> Passage:
        """The body of the current response, or the last one."""
        return self._response.body

    @property
    def wants_visitor_data(self) -> bool:
        """Whether to read the visitor's connection, provided that what comes of it can be delivered."""
        if self.phase is Phase.OVER:
            return False
        return len(self._held) < MAX_HELD

    def data_for_visitor(self) -> bytes:
        """Return what is to be sent to the visitor now, and forget it."""
        return _drain(self._to_visitor)

    def data_for_upstream(self) -> bytes:
        """Return what is to be sent to the upstream now, and forget it."""
        return _drain(self._to_upstream)

    def look(self, request: Tap | None, response: Tap | None) -> None:
        """Show the bodies that pass from here on, until this is called again; None costs nothing."""
        self._request_tap, self._response_tap = request, response
        if not self._request_body.complete:
            self._request_body.tap = request
        if self.phase is Phase.EXCHANGE:
            self._response.look(response)

    def forward(self, *, host: str = "", keep: bool = True) -> list[Event]:
        """Pass the request on to an upstream, which has nothing else under way. The head is queued for it.

        :param host: what the service is told as ``Host`` in place of what the visitor said.
        :param keep: whether the upstream can take another request behind this one.
        :raises RuntimeError: no request waits, or some of its body is gone.
        """
        if self.phase is not Phase.DECIDING or self._consumed:
            raise RuntimeError("forward() without a request that waits for it as a whole")
        events: list[Event] = []
        head, route, framing, upgrade = self._request
        self.phase = Phase.EXCHANGE
        self._deaf = False
        self._response = Response(head, upgrade=upgrade, reusable=keep, tap=self._response_tap)
        self._to_upstream.append(
            forward_request(head, route, self._peer, framing, host=host, keep=keep, upgrade=upgrade)
        )
        if not self._request_body.complete:
            held, self._held = self._held, b""
            if held:
                self._read_request_body(held, events)
            if self._visitor_ended:
                self._check_presence(events)
        return events

    def answer(self, status: int, sentence: str, fields: Iterable[tuple[str, str]] = ()) -> list[Event]:
        """Answer the request ourselves, in place of a service; the answer is queued. An upstream that has it is out.

        The connection stays open when the request was complete. In :attr:`Phase.HEAD` it never was.

        :param status: 200 to 599.
        :param sentence: for the visitor, without secrets.
        :param fields: more of the answer's head.
        :raises RuntimeError: no request is there, or its final answer has begun.
        """
        if self.phase not in (Phase.HEAD, Phase.DECIDING, Phase.EXCHANGE) or self.response_begun:
            raise RuntimeError("answer() without a request that still waits for one")
        events: list[Event] = []
        if self.phase is Phase.HEAD:
            self._forget_request()
        elif self.phase is Phase.EXCHANGE:
            self._to_upstream.clear()
            events.append(ExchangeDone(False, sentence))
        self._queue_page(status, sentence, fields)
        self._next(events)
        return events

    def finish(self) -> None:
        """Take no more requests: the connection is over behind the answer that is under way, or now."""
        self._finishing = True
        if self.phase is Phase.IDLE:
            self.phase = Phase.OVER

    @property
    def direct_to_visitor(self) -> int:
        """How many of the upstream's next bytes may go to the visitor without passing here, as by splicing.

        Once ``data_for_visitor`` is sent. 0 when none can; ``sys.maxsize`` up to the upstream's end.
        """
        return self._response.body.direct if self.phase is Phase.EXCHANGE else 0

    def moved_to_visitor(self, count: int) -> list[Event]:
        """Take it that ``count`` bytes, at most :attr:`direct_to_visitor`, went from the upstream to the visitor."""
        events: list[Event] = []
        self._response.body.moved(count)
        if self._response.complete:
            self._end_exchange(events)
        return events

    @property
    def direct_to_upstream(self) -> int:
        """As :attr:`direct_to_visitor`, the other way, once ``data_for_upstream`` is sent."""
        return self._request_body.direct if self.phase is Phase.EXCHANGE and not self._deaf else 0

    def moved_to_upstream(self, count: int) -> None:
        """Take it that ``count`` bytes, at most :attr:`direct_to_upstream`, went from the visitor to the upstream."""
        self._consumed = True
        self._request_body.moved(count)

    # -- from the visitor ------------------------------------------------------------------------------------------

    def receive_from_visitor(self, data: bytes) -> list[Event]:
        """Take bytes from the visitor, split anywhere, and return what they caused."""
        events: list[Event] = []
        phase = self.phase
        if phase is Phase.IDLE or phase is Phase.HEAD:
            self._read_request_head(data, events)
        elif phase is Phase.RAW:
            self._to_upstream.append(data)
        elif phase is Phase.EXCHANGE and not self._request_body.complete:
            self._read_request_body(data, events)
        elif phase is not Phase.OVER:
            self._held += data
        return events

    def visitor_ended(self) -> list[Event]:
        """Take the end of the visitor's bytes. Requests that are complete are answered all the same."""
        events: list[Event] = []
        self._visitor_ended = True
        if self.phase is Phase.IDLE or self.phase is Phase.HEAD:
            self.phase = Phase.OVER
        else:
            self._check_presence(events)
        return events

    def visitor_lost(self) -> list[Event]:
        """Take it that the visitor's connection is broken."""
        events: list[Event] = []
        if self.phase is Phase.EXCHANGE:
            self._lose_visitor(events)
        self.phase = Phase.OVER
        self.broken = True
        return events

    def _read_request_head(self, data: bytes, events: list[Event]) -> None:
        try:
            found = self._visitor_reader.receive_data(data)
            if found is None:
                self.phase = Phase.HEAD if self._visitor_reader.begun else Phase.IDLE
                return
            head = parse_request(found[0], max_fields=self._max_fields)
            route = route_of(head)
            framing = request_framing(head)
            expects_continue(head)
        except HttpError as error:
            self._forget_request()
            self._refuse(error, events)
            return
        self._held = found[1]
        self._request = _Request(head, route, framing, asks_for_upgrade(head, framing))
        self._request_body = NOTHING
        self._response = _NO_RESPONSE
        if framing.kind is not Kind.NONE:
            chunked = framing.kind is Kind.CHUNKED
            self._request_body = Passage(framing, 400, chunked=chunked, tap=self._request_tap)
        self._keeps = keeps_open(head)
        self._consumed = False
        self.phase = Phase.DECIDING
        events.append(RequestReady(head, route.name, route.target, self._request.upgrade))

    def _read_request_body(self, data: bytes, events: list[Event]) -> None:
        self._consumed = True
        try:
            self._request_body.receive_data(data, [] if self._deaf else self._to_upstream)
        except HttpError as error:
            self._to_upstream.clear()
            events.append(ExchangeDone(False, error.reason))
            self._refuse(error, events)
            return
        if self._request_body.complete:
            self._held = self._request_body.rest

    def _refuse(self, error: HttpError, events: list[Event]) -> None:
        """Answer a visitor that broke the rules, unless another answer is under way, and take nothing more from it."""
        if self.response_begun:
            self.broken = True
        else:
            self._keeps = False
            self._queue_page(error.status, error.reason)
        self.phase = Phase.OVER
        events.append(RequestRefused(error.status, error.reason))

    def _check_presence(self, events: list[Event]) -> None:
        """Take it that the visitor says no more, although its request may not be complete."""
        if self.phase is Phase.EXCHANGE and not self._request_body.complete:
            self._lose_visitor(events)

    def _lose_visitor(self, events: list[Event]) -> None:
        self._to_upstream.clear()
        self._to_visitor.clear()
        self.phase = Phase.OVER
        self.broken = True
        events.append(ExchangeDone(False, "the visitor left before the exchange was complete"))

    # -- from the upstream -----------------------------------------------------------------------------------------

    def receive_from_upstream(self, data: bytes) -> list[Event]:
        """Take bytes from the upstream, split anywhere, and return what they caused."""
        events: list[Event] = []
        if self.phase is Phase.RAW:
            self._to_visitor.append(data)
        elif self.phase is Phase.EXCHANGE and data:
            response = self._response
            begun = response.head
            error = ""
            try:
                keeps = self._keeps and self._request_body.complete and not self._finishing
                response.receive_data(data, self._to_visitor, keeps=keeps)
            except HttpError as refusal:
                error = refusal.reason
            if begun is None and response.head is not None:
                self._keeps = response.keeps
                events.append(ResponseStarted(response.head))
            if error:
                self._lose_upstream(error, events)
            elif response.complete:
                self._end_exchange(events)
            elif response.switched is not None:
                self._upgrade(response.switched, events)
        return events

    def upstream_ended(self) -> list[Event]:
        """Take the proper end of the upstream's bytes."""
        events: list[Event] = []
        if self.phase is Phase.EXCHANGE:
            self._response.receive_eof(self._to_visitor)
            if self._response.complete:
                self._end_exchange(events)
            elif self._response.heard:
                self._lose_upstream("the service closed in the middle of its answer", events)
            else:
                self._lose_upstream("the service closed without an answer", events)
        return events

    def upstream_lost(self, reason: str) -> list[Event]:
        """Take it that the upstream is broken.

        :param reason: one sentence, without secrets.
        """
        events: list[Event] = []
        if self.phase is Phase.EXCHANGE:
            self._lose_upstream(reason, events)
        return events

    def upstream_deaf(self) -> None:
        """Take it that the upstream takes no more. The rest of the request is dropped; an answer may still come."""
        self._deaf = True
        self._to_upstream.clear()

    def _upgrade(self, head: ResponseHead, events: list[Event]) -> None:
        if self._held:
            self._to_upstream.append(self._held)
            self._held = b""
        self.phase = Phase.RAW
        events.append(Upgraded(head))

    def _end_exchange(self, events: list[Event]) -> None:
        """End an exchange whose response was complete. An upstream that says more than it was asked is not trusted."""
        response = self._response
        reusable = response.reusable and self._request_body.complete and not (response.body.rest or self._deaf)
        if not reusable:
            self._to_upstream.clear()
        events.append(ExchangeDone(reusable))
        self._next(events)

    def _lose_upstream(self, reason: str, events: list[Event]) -> None:
        self._to_upstream.clear()
        if self.response_begun:
            self.phase = Phase.OVER
            self.broken = True
            events.append(ExchangeDone(False, reason))
        else:
            retryable = not (self._response.heard or self._consumed) and self._request.head.method in IDEMPOTENT
            self.phase = Phase.DECIDING
            events.append(UpstreamFailed(reason, retryable))

    # -- both ------------------------------------------------------------------------------------------------------

    def _forget_request(self) -> None:
        self._request = _NO_REQUEST
        self._request_body = NOTHING
        self._keeps = False

    def _next(self, events: list[Event]) -> None:
        """Go on with the visitor's next request, behind an answer."""
        held, self._held = self._held, b""
        self.phase = Phase.IDLE if self._keeps and not self._finishing else Phase.OVER
        if held and not self.over:
            self._read_request_head(held, events)
        if self._visitor_ended and (self.phase is Phase.IDLE or self.phase is Phase.HEAD):
            self.phase = Phase.OVER

    def _queue_page(self, status: int, sentence: str, fields: Iterable[tuple[str, str]] = ()) -> None:
        if self._finishing or not self._request_body.complete:
            self._keeps = False
        head = self._request.head
        connection = connection_field(self._keeps, head.minor)
        self._to_visitor.append(
            status_page(status, sentence, connection=connection, body=head.method != "HEAD", fields=fields)
        )


def _drain(queue: list[bytes]) -> bytes:
    if not queue:
        return b""
    data = queue[0] if len(queue) == 1 else b"".join(queue)
    queue.clear()
    return data
