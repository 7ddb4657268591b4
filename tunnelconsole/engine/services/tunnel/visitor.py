"""A visitor at the tunnel server: whatever connects and is not a tunnel's client, request by request."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.identities import Holder
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.rates import Allowance
from tunnelconsole.engine.services.tunnel.backend import Backend
from tunnelconsole.engine.services.tunnel.hooks import NOT_JUDGED, Judge, Request, Verdict
from tunnelconsole.engine.services.tunnel.http_pump import HttpPump, label_of
from tunnelconsole.engine.services.tunnel.inspector import Exchange
from tunnelconsole.engine.services.tunnel.proxied import visitor_of
from tunnelconsole.engine.services.tunnel.raw import RawFlow
from tunnelconsole.engine.services.tunnel.routes import Tunnel
from tunnelconsole.engine.sessions import Channel
from tunnelconsole.engine.tokens.grants import Token
from tunnelconsole.engine.transport.link import Link
from tunnelconsole.engine.transport.pacing import Pace, together
from tunnelconsole.engine.transport.stream_link import StreamLink
from tunnelconsole.engine.wire.http.exchange import (
    IDEMPOTENT,
    Event,
    ExchangeDone,
    Exchanges,
    Phase,
    RequestReady,
    RequestRefused,
    UpstreamFailed,
)
from tunnelconsole.engine.wire.http.forward import UPGRADE, Peer
from tunnelconsole.engine.wire.http.head import ResponseHead
from tunnelconsole.engine.wire.http.service import UNHEALTHY, UNREACHABLE

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.server import TunnelServer

MOST_TRIES: Final = 3
"""Links on which one request is tried: the first may be one that has just been closed, and so may the second."""

REFUSES: Final = "the tunnel is there, but its local service refuses connections"
SICK: Final = "the tunnel is there, but its local service is not healthy"


class Visitor(HttpPump):
    """One visitor's connection to a tunnel server.

    :param peer: its ``host:port``.
    :param scheme: ``http`` or ``https``.
    :param place: among those inside their handshake, held until the first request is complete.
    :param deadline: when that is to be, by the loop's clock.
    """

    __slots__ = (
        "_allowances",
        "_asking",
        "_backend",
        "_channel",
        "_exchange",
        "_extended",
        "_failed",
        "_failure",
        "_held_by",
        "_hooked",
        "_place",
        "_progress",
        "_request",
        "_server",
        "_streamed",
        "_tries",
        "peer",
    )

    def __init__(self, server: TunnelServer, link: Link, peer: str, scheme: str, place: Place, deadline: float) -> None:
        address = peer.rpartition(":")[0].strip("[]")
        super().__init__(server.node, link, Exchanges(Peer(address, scheme, server.trusts(peer))))
        self._server = server
        self.peer = peer
        self._allowances = server.allowances_of(peer)
        self._held_by: tuple[Token | None, Holder, list[Allowance]] = (None, (), [])
        """What the rate of the request under way is made of."""
        self._place: Place | None = place
        place.lost = self.abort
        self._request: RequestReady | None = None
        self._backend: Backend | None = None
        """Where it came to last; it has a channel there."""
        self._asking: Backend | None = None
        """Who serves the request under way, or is asked for a link for it."""
        self._channel: Channel | None = None
        self._exchange: Exchange | None = None
        self._tries = 0
        self._failed: Backend | None = None
        self._failure = ""
        self._streamed = False
        """Whether the request under way goes through yamux."""
        self._extended = True
        """Whether the time for the head under way has been set: for the first one it has."""
        self._progress = 0
        """Bytes of the request's body, or behind it of the answer, that had passed when somebody last looked."""
        self._hooked = 0
        """Requests that were shown to the program that embeds us."""
        self.deadline = deadline
        server.visitors.add(self)

    @property
    def bytes_in(self) -> int:
        """What came from the tunnel's client."""
        return self.from_upstream

    @property
    def bytes_out(self) -> int:
        """What went to it."""
        return self.to_upstream

    @property
    def label(self) -> str:
        return label_of(self._request) if self._request is not None else ""

    @property
    def repeatable(self) -> bool:
        return self._request is not None and self._request.head.method in IDEMPOTENT

    def _rest(self, seconds: float) -> None:
        self.deadline = self._node.loop.time() + seconds if seconds else math.inf

    # -- a request -------------------------------------------------------------------------------------------------

    def request_ready(self, event: RequestReady) -> list[Event]:
        self._leave_handshake()
        self.deadline = math.inf
        self._request = event
        self._tries = 0
        self._failed = None
        self._extended = False
        tunnel = self._server.routes.find(event.host)
        if tunnel is None:
            return self._answer(404, "there is no tunnel for this host")
        if tunnel.log is not None:
            self._exchange = tunnel.log.begin(
                visitor_of(self.peer, event.head.values, self._server.trusts), event.head, event.target, self.exchanges
            )
        if wait := self._wait_for_rate(tunnel):
            seconds = str(math.ceil(wait))
            return self._answer(429, f"too many requests; try again in {seconds} s", (("Retry-After", seconds),))
        if self._server.hooks.access is None:
            return self._ask()
        self._hooked += 1
        visit = Request(tunnel.host, self.peer, event.head.method, event.target, event.head.fields)
        return self._judge(self._server.hooks.access, visit)

    def _judge(self, access: Judge, visit: Request) -> list[Event]:
        """Has the program that embeds us decide."""
        verdict: Verdict = NOT_JUDGED
        with self._node.contain("the access callback", self._server.name):
            verdict = access(visit)
        if not isinstance(verdict, Awaitable):
            return self._obey(verdict)
        self._rest(self._server.settings.response_timeout)
        self._server.tasks.start(self._wait_for_verdict(verdict, self._hooked), f"access of {self.peer}")
        return []

    async def _wait_for_verdict(self, verdict: Awaitable[str | None], number: int) -> None:
        reason: str | None = NOT_JUDGED
        try:
            reason = await verdict
        finally:
            if number == self._hooked and not self.over:  # else it has left meanwhile
                self.go_on(self._obey(reason))

    def _obey(self, reason: str | None) -> list[Event]:
        if not reason:
            return self._ask()
        self._server.refused(self.peer, reason, "not_allowed")
        return self._answer(403, reason)

    def _wait_for_rate(self, tunnel: Tunnel) -> float:
        """Seconds until the next request may come; 0 for now. Sets how fast bytes may pass."""
        allowances = [*tunnel.allowances, *self._allowances]
        token = tunnel.token
        if token is not None and token.allowance is not None:
            allowances.append(token.allowance)
        now = self._node.loop.time()
        wait = max((allowance.take_request(now) for allowance in allowances), default=0.0)
        sessions = (backend.session for backend in tunnel.backends)  # of one owner, all of them
        holder = next((session.holder for session in sessions if session is not None), ())
        self._held_by = (token, holder, allowances)
        self.pace = self._own_pace()
        return wait

    def _own_pace(self) -> Pace | None:
        """What the request under way has to keep to, as things stand."""
        token, holder, allowances = self._held_by
        paces = [self._server.gate.pace_for(self.peer, holder)]
        if token is not None:
            paces.append(token.pace)
        if self._channel is not None:
            paces.append(self._channel.session.pace)
        return together([*paces, *(allowance.pace for allowance in allowances)])

    def repace(self) -> None:
        """Keeps to what holds now."""
        self.set_pace(self._own_pace())

    def _ask(self) -> list[Event]:
        """Leads the request to one of the tunnel's clients."""
        request = self._request
        if request is None:
            raise RuntimeError("a request is to be led on, and there is none")
        tunnel = self._server.routes.find(request.host)
        backend = tunnel.choose(self._node.loop.time(), self._backend, self._failed) if tunnel is not None else None
        if backend is None:
            return self._answer(502, self._why_nobody(tunnel))
        label = label_of(request)
        if backend is not self._backend or self._channel is None:
            full = self._move(backend, label)
            if full:
                self._server.refused(self.peer, full, "limit")
                return self._answer(503, full)
        elif self._channel.label != label:
            self._channel.label = label
        self._tries += 1
        self._asking = backend
        self._streamed = False
        websocket = request.head.values.get("upgrade", "").lower() == UPGRADE
        link = backend.take(self, websocket=websocket)
        return [] if link is None else self._lead(link)

    def _why_nobody(self, tunnel: Tunnel | None) -> str:
        if self._failed is not None:
            return self._failure
        if tunnel is not None and tunnel.backends:
            return SICK
        return "the tunnel's client has just left"

    def _lead(self, link: Link) -> list[Event]:
        self._progress = 0
        self._rest(self._server.settings.response_timeout)
        return self.forward(link)

    def _move(self, backend: Backend, label: str) -> str:
        """Makes the visitor a channel of this client's session; returns why it cannot be."""
        self._leave_channel("it went to another client")
        if backend.session is None:
            return "the tunnel is not there yet"
        if full := self._server.no_channel(backend.session, self.peer):
            return full
        self._backend = backend
        backend.callers.add(self)
        self._channel = self._server.open_channel(backend.session, label, self, self.peer)
        if backend.session.pace is not None:
            self.pace = self._own_pace()
        return ""

    def _leave_channel(self, cause: str) -> None:
        if self._backend is not None:
            self._backend.callers.discard(self)
            self._backend = None
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._server.close_channel(channel, cause)

    def _answer(self, status: int, sentence: str, fields: tuple[tuple[str, str], ...] = ()) -> list[Event]:
        events = self.exchanges.answer(status, sentence, fields)
        self._keep_exchange(sentence, status)
        self._rest(self._server.settings.keep_alive)
        return events

    def _keep_exchange(self, error: str, status: int = 0) -> None:
        """Has the exchange under way kept; ``status`` is that of our own answer, where the service gave none."""
        self.count_request(self._server.name, status)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.end(error, status)

    # -- from the backend ------------------------------------------------------------------------------------------

    def got_link(self, link: Link) -> None:
        """Part of :class:`~tunnelconsole.engine.services.tunnel.backend.Caller`, as those below."""
        self._streamed = isinstance(link, StreamLink)
        self.go_on(self._lead(link))

    def no_link(self, status: int, reason: str) -> None:
        backend, self._asking = self._asking, None
        if backend is not None and self.exchanges.phase is Phase.DECIDING:
            backend.give_up(self)
            self.go_on(self._answer(status, reason))

    def backend_left(self, backend: Backend, reason: str) -> None:
        self._backend = None
        if self._asking is backend:
            if self.exchanges.phase is Phase.DECIDING:
                self._asking = None
                self.go_on(self._ask())
            else:
                self.lose_upstream("the tunnel's client left")
        if self._backend is None:
            self._leave_channel(reason)

    # -- the answer ------------------------------------------------------------------------------------------------

    def receive_from_upstream(self, data: bytes) -> list[Event]:
        if data.startswith((UNREACHABLE, UNHEALTHY)) and not self.exchanges.response_begun:
            self._failure = REFUSES if data.startswith(UNREACHABLE) else SICK
            if self._asking is not None:
                self._asking.is_down()
                self._failed = self._asking
            return self.exchanges.upstream_lost(self._failure)
        return self.exchanges.receive_from_upstream(data)

    def link_ended(self, link: Link) -> None:
        super().link_ended(link)
        if link is self.visitor and self.exchanges.response_begun:
            self._doubt()

    def _doubt(self) -> None:
        """The visitor says no more: it may have left, which shows only when it is sent something."""
        self._progress = self.from_upstream
        self._rest(self._server.settings.keep_alive)

    def response_started(self, head: ResponseHead) -> None:
        self.deadline = math.inf
        if self.visitor.ended:
            self._doubt()
        if self._exchange is not None:
            self._exchange.answered(head)
        # An original tells where its service has ended only once we have ended our side.
        if isinstance(self._upstream, StreamLink) and self.exchanges.ends_with_upstream:
            self._upstream.finish()

    def exchange_over(self, upstream: Link | None, event: ExchangeDone) -> None:
        backend, self._asking = self._asking, None
        if backend is not None:
            if upstream is None or event.error:
                backend.lost(upstream)
            else:
                backend.give_back(upstream, reusable=event.reusable)
        self._keep_exchange(event.error)
        self._rest(self._server.settings.keep_alive)

    def upstream_failed(self, event: UpstreamFailed) -> list[Event]:
        backend, self._asking = self._asking, None
        if backend is not None:
            backend.lost(None)
            if self._streamed:  # as an original does when its service refuses
                backend.is_down()
            if len(backend.tunnel.backends) > 1:
                self._failed, self._failure = backend, event.reason
        if event.retryable and self._tries < MOST_TRIES:
            return self._ask()
        return self._answer(502, event.reason)

    def request_refused(self, event: RequestRefused) -> None:
        self._server.refused(self.peer, event.reason, "protocol")

    def raw_begun(self, flow: RawFlow) -> None:
        self.count_request(self._server.name)
        if self._exchange is not None:
            self._exchange.upgraded(flow)

    def raw_over(self) -> None:
        backend, self._asking = self._asking, None
        if backend is not None:
            backend.lost(None)
        self._keep_exchange("")

    # -- the end ---------------------------------------------------------------------------------------------------

    def late(self, now: float) -> None:
        phase, backend = self.exchanges.phase, self._asking
        if phase is Phase.IDLE:
            self.finish()
        elif phase is Phase.HEAD and not self._extended:
            self._extended = True
            self._rest(self._server.settings.limits.handshake_timeout)
        elif phase is Phase.HEAD:
            self.go_on(self._answer(408, "the request was not complete in time"))
        elif phase is Phase.DECIDING and backend is not None:
            if not backend.impatient(self):
                self.no_link(504, "the tunnel's client did not take the request in time")
        elif phase is Phase.DECIDING:
            self._hooked += 1
            self.go_on(self._answer(504, "whether this may be seen was not decided in time"))
        elif phase is Phase.EXCHANGE and not self.exchanges.response_begun:
            self._wait_no_longer()
        elif phase is Phase.EXCHANGE and self.visitor.ended and self.from_upstream == self._progress:
            self.abort("the visitor left")
        elif phase is Phase.EXCHANGE and self.visitor.ended:
            self._doubt()
        else:
            self.deadline = math.inf

    def _wait_no_longer(self) -> None:
        """Answers in place of a service that does not, unless the request is still coming."""
        timeout, progress = self._server.settings.response_timeout, self.exchanges.request_bytes
        if progress > self._progress:
            self._progress = progress
            self._rest(timeout)
        elif self.exchanges.request_complete:
            self.go_on(self._answer(504, f"the local service did not answer within {timeout:g} s"))
        else:
            self.go_on(self._answer(408, "the request was not complete in time"))

    def _leave_handshake(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def ended(self, reason: str) -> None:
        self._leave_handshake()
        self._hooked += 1
        backend, self._asking = self._asking, None
        if backend is not None:
            backend.give_up(self)
        self._keep_exchange(reason or "the visitor left")
        self._leave_channel(reason)
        self._server.visitor_left(self)
