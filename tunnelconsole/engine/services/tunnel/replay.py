"""Replaying: a request that the inspector has kept goes to its service once more, the way that visitors come."""

from __future__ import annotations

import asyncio
from typing import Final

from tunnelconsole.engine.services.tunnel.client import TunnelClient
from tunnelconsole.engine.services.tunnel.delivery import Delivery
from tunnelconsole.engine.services.tunnel.http_pump import HttpPump
from tunnelconsole.engine.services.tunnel.inspector import BODY_KEPT, Exchange
from tunnelconsole.engine.services.tunnel.server import TunnelServer
from tunnelconsole.engine.services.tunnel.visitor import Visitor
from tunnelconsole.engine.transport.link import NOBODY, LinkOwner
from tunnelconsole.engine.wire.http.head import serialize
from tunnelconsole.errors import RequestRefused

REPLAY_PATIENCE: Final = 5.0
"""Seconds for which whoever replays waits for the end of it: well within what an answer over the control socket may
take. What takes longer goes on, and is looked up later."""

_FRAMING: Final = frozenset(("content-length", "transfer-encoding", "expect", "trailer"))


async def replay(service: TunnelServer | TunnelClient, exchange: Exchange) -> Exchange:
    """Sends a request again; returns the new exchange once it is over, or after :data:`REPLAY_PATIENCE`.

    :raises RequestRefused: it cannot be repeated, or there is nobody whom it could be sent to.
    """
    request = request_of(exchange)
    link = ReplayLink()
    with service.inspector.replaying(exchange) as replayed:
        pump = _visitor(service, exchange, link) if isinstance(service, TunnelServer) else _delivery(service, link)
        pump.begin(request)
    pump.finish()
    if replayed.begun is None:
        raise RequestRefused("the request could not be sent again", "the log may say why")
    await asyncio.wait((link.over,), timeout=REPLAY_PATIENCE)
    return replayed.begun


def request_of(exchange: Exchange) -> bytes:
    """The request as it came, its body in one piece.

    :raises RequestRefused: not all of it is there.
    """
    head = exchange.head
    if exchange.status == 101 or "upgrade" in head.values:
        raise RequestRefused("a WebSocket cannot be replayed", "what was said on it is not kept")
    if exchange.request_bytes > len(exchange.request_body):
        raise RequestRefused(
            f"the request's body has {exchange.request_bytes} bytes, and not all are kept",
            f"bodies of at most {BODY_KEPT} bytes can be replayed",
        )
    if not exchange.over:
        raise RequestRefused("the request is still under way", "wait until it is over, then replay it")
    lines = [
        f"{name}: {value}" for (name, value), key in zip(head.fields, head.keys, strict=True) if key not in _FRAMING
    ]
    if exchange.request_body or not _FRAMING.isdisjoint(head.values):
        lines.append(f"Content-Length: {len(exchange.request_body)}")
    return serialize(f"{head.method} {head.target} HTTP/1.{head.minor}", lines) + exchange.request_body


def _visitor(server: TunnelServer, exchange: Exchange, link: ReplayLink) -> HttpPump:
    """Comes to the server as the visitor did."""
    if server.routes.find(exchange.host) is None:
        raise RequestRefused(
            f"there is no tunnel for {exchange.host} now", "its client has left; wait until it is back"
        )
    place = server.gate.enter_handshake(exchange.peer)
    if place is None:
        raise RequestRefused("too many connections are inside their handshake", "try again")
    deadline = server.node.loop.time() + server.settings.limits.handshake_timeout
    return Visitor(server, link, exchange.peer, exchange.scheme, place, deadline)


def _delivery(client: TunnelClient, link: ReplayLink) -> HttpPump:
    """Comes to the client as from its server."""
    if client.attachment is None or client.attachment.session is None:
        raise RequestRefused(f"{client.settings.server} is not connected now", "wait until it is")
    return Delivery(client.attachment, link)


class ReplayLink:
    """The link of a visitor who asks once and does not look at the answer, which the inspector keeps."""

    path = "replay"
    plain = False

    def __init__(self) -> None:
        self.owner: LinkOwner = NOBODY
        self.blocked = False
        self.reading = False
        self.ended = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> bool:
        """Takes the answer."""
        return True

    def pause(self) -> None:
        """See :class:`~tunnelconsole.engine.transport.link.Link`, as the others."""
        self.reading = False

    def resume(self) -> None:
        """There is nothing more to come."""
        self.reading = True

    def close(self) -> None:
        """All has been said."""
        if not self.over.done():
            self.over.set_result(None)

    def abort(self) -> None:
        """As :meth:`close`."""
        self.close()
