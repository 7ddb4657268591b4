"""A connection that brings visitors' requests to the tunnel's client, which leads them to the local service."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.send_proxy import announce
from tunnelconsole.engine.services.tunnel.folder import Folder
from tunnelconsole.engine.services.tunnel.folder_link import FolderLink
from tunnelconsole.engine.services.tunnel.http_pump import HttpPump, label_of
from tunnelconsole.engine.services.tunnel.inspector import Exchange
from tunnelconsole.engine.services.tunnel.raw import RawFlow
from tunnelconsole.engine.sessions import Channel
from tunnelconsole.engine.transport.dialer import DIAL_TIMEOUT, Address, Dial, resolve
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import EndLink, Link
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.http.exchange import (
    IDEMPOTENT,
    Event,
    ExchangeDone,
    Phase,
    RequestReady,
    RequestRefused,
    UpstreamFailed,
)
from tunnelconsole.engine.wire.http.head import ResponseHead
from tunnelconsole.engine.wire.http.service import UNHEALTHY_FIELD, UNREACHABLE_FIELD, ServiceExchanges
from tunnelconsole.errors import ConnectFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.attachment import Attachment

REFUSES: Final = "the tunnel is there, but its local service refuses connections"
SICK: Final = "the tunnel is there, but its local service is not healthy"


class Delivery(HttpPump):
    """One data connection, or one stream.

    :param link: to the server.
    """

    __slots__ = (
        "_at_once",
        "_attachment",
        "_channel",
        "_client",
        "_dial",
        "_exchange",
        "_fresh",
        "_kept",
        "_progress",
        "_request",
        "_visitor",
    )

    def __init__(self, attachment: Attachment, link: Link) -> None:
        client = attachment.client
        super().__init__(client.node, link, ServiceExchanges(client.settings.server.scheme, client.told))
        self.pace = client.pace_in(attachment.session) if attachment.session is not None else client.gate.pace
        self._attachment = attachment
        self._client = client
        self._request: RequestReady | None = None
        self._channel: Channel | None = None
        self._exchange: Exchange | None = None
        self._kept: EndLink | None = None
        """A connection to the service on which the last exchange was complete."""
        self._visitor = ""
        """Whose the last request is, as far as the service is to be told by connection."""
        self._fresh = False
        """Whether the request under way has a connection of its own."""
        self._dial: Dial | None = None
        self._at_once: list[Event] | None = None
        """What a dial leads to that is done before it has begun to wait."""
        self._progress = 0
        attachment.deliveries.add(self)

    @property
    def used(self) -> bool:
        """Whether a request has come."""
        return self._channel is not None

    @property
    def bytes_in(self) -> int:
        """What came from the server."""
        return self.to_upstream

    @property
    def bytes_out(self) -> int:
        """What went to it."""
        return self.from_upstream

    # -- a request -------------------------------------------------------------------------------------------------

    def request_ready(self, event: RequestReady) -> list[Event]:
        self._request = event
        peer = event.head.values.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if self._attachment.log is not None:
            self._exchange = self._attachment.log.begin(peer, event.head, event.target, self.exchanges)
        if self._client.settings.send_proxy is not None:
            self._come_from(peer)
        label, channel = label_of(event), self._channel
        if channel is None:
            full = self._client.gate.refuses(new_session=False, new_channel=True)
            session = self._attachment.session
            if full or session is None:
                return self._answer(503, full or "the tunnel is not there yet")
            self._channel = self._client.open_channel(session, label, self, peer)
        else:
            channel.label, channel.peer = label, peer or channel.session.peer
        if not self._client.healthy:
            return self._answer(502, SICK, (UNHEALTHY_FIELD,))
        kept, self._kept = self._kept, None
        if kept is not None:
            if event.head.method in IDEMPOTENT and not kept.ended:
                self._fresh = False
                return self._lead(kept)
            kept.close()  # it may be closed by now, and then the request could not be repeated
        return self._reach()

    def _come_from(self, address: str) -> None:
        """The service is told who comes for a connection as a whole: another's is not used."""
        visitor = format_host_port(address, 0) if address and self._attachment.knows_visitors else ""
        if visitor != self._visitor and self._kept is not None:
            self._kept.close()
            self._kept = None
        self._visitor = visitor

    def _reach(self) -> list[Event]:
        """Makes a connection to the service."""
        self._fresh = True
        target = self._client.settings.target
        if target.address is None:
            return self._lead(self._answer_from(self._client.folder))
        addresses = target.addresses()
        if addresses is None:
            self._client.tasks.start(self._resolve(target.address.host, target.address.port), "resolve")
            return []
        return self._dial_one(addresses)

    def _answer_from(self, folder: Folder) -> FolderLink:
        request = self._request
        if request is None:
            raise RuntimeError("an answer is wanted, and there is no request")
        return FolderLink(folder, self._client.tasks, self, request.head.method, request.target, request.head.values)

    async def _resolve(self, host: str, port: int) -> None:
        try:
            addresses = await resolve(host, port)
        except ConnectFailed as error:
            if not self.over:
                self.go_on(self._fail(error.message))
        else:
            if not self.over:
                self.go_on(self._dial_one(addresses))

    def _dial_one(self, addresses: list[Address]) -> list[Event]:
        at_once = self._at_once = []
        self._dial = Dial(self._node.loop, addresses, DIAL_TIMEOUT, self._dialled)
        self._dial.start()
        self._at_once = None
        return at_once

    def _dialled(self, sock: socket.socket | None, error: str) -> None:
        self._dial = None
        send_proxy = self._client.settings.send_proxy
        if sock is not None and send_proxy is not None:
            try:
                announce(sock, send_proxy, self._visitor)
            except OSError as failure:
                sock.close()
                sock, error = None, failure.strerror or str(failure)
        link = EndLink(self._node.loop, SocketEnd(sock), self) if sock is not None else None
        events = self._fail(error) if link is None else self._lead(link)
        if self._at_once is not None:
            self._at_once += events
        else:
            self.go_on(events)

    def _lead(self, link: Link) -> list[Event]:
        self._progress = 0
        self.deadline = self._node.loop.time() + self._client.settings.response_timeout
        return self.forward(link)

    def _fail(self, reason: str) -> list[Event]:
        """The service cannot be reached."""
        self._client.doubt()
        visitor = self._exchange.peer if self._exchange is not None else "a visitor"
        target = str(self._client.settings.target)
        self._node.bus.publish(TargetFailed(service=self._client.name, peer=visitor, target=target, reason=reason))
        return self._answer(502, REFUSES, (UNREACHABLE_FIELD,))

    def _answer(self, status: int, sentence: str, fields: tuple[tuple[str, str], ...] = ()) -> list[Event]:
        events = self.exchanges.answer(status, sentence, fields)
        self._keep_exchange(sentence, status)
        self.deadline = math.inf
        return events

    def _keep_exchange(self, error: str, status: int = 0) -> None:
        """Has the exchange under way kept; ``status`` is that of our own answer, where the service gave none."""
        self.count_request(self._client.name, status)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.end(error, status)

    # -- the answer ------------------------------------------------------------------------------------------------

    def response_started(self, head: ResponseHead) -> None:
        self.deadline = math.inf
        if self._exchange is not None:
            self._exchange.answered(head)

    def exchange_over(self, upstream: Link | None, event: ExchangeDone) -> None:
        self.deadline = math.inf
        if isinstance(upstream, EndLink) and event.reusable and not (upstream.blocked or upstream.ended):
            self._kept = upstream
        elif upstream is not None and event.error:
            upstream.abort()
        elif upstream is not None:
            upstream.close()
        self._keep_exchange(event.error)

    def upstream_failed(self, event: UpstreamFailed) -> list[Event]:
        if event.retryable and not self._fresh:
            return self._reach()
        return self._answer(502, event.reason)

    def request_refused(self, event: RequestRefused) -> None:
        self._client.refused(str(self._client.settings.server), event.reason, "protocol")

    def kept_link_moved(self, link: Link) -> None:
        if link is self._kept:
            self._kept = None
        link.close()

    def raw_begun(self, flow: RawFlow) -> None:
        self.count_request(self._client.name)
        if self._exchange is not None:
            self._exchange.upgraded(flow)

    def raw_over(self) -> None:
        self._keep_exchange("")

    # -- the end ---------------------------------------------------------------------------------------------------

    def late(self, now: float) -> None:
        self.deadline = math.inf
        if self.exchanges.phase is not Phase.EXCHANGE or self.exchanges.response_begun:
            return
        timeout, progress = self._client.settings.response_timeout, self.exchanges.request_bytes
        if progress > self._progress or not self.exchanges.request_complete:
            self._progress = progress
            self.deadline = now + timeout
        else:
            self.go_on(self._answer(504, f"the local service did not answer within {timeout:g} s"))

    def ended(self, reason: str) -> None:
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._keep_exchange(reason or "the server closed the connection")
        if self._channel is not None:
            self._client.close_channel(self._channel, reason)
        self._attachment.delivered(self)
