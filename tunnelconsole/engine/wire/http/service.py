"""The exchanges of a connection that a tunnel's client leads to its service: heads go on as they came."""

from __future__ import annotations

from tunnelconsole.engine.wire.http.exchange import Event, Exchanges
from tunnelconsole.engine.wire.http.forward import ADDED_BYTES, ADDED_FIELDS, Peer
from tunnelconsole.engine.wire.http.head import MAX_FIELDS, MAX_HEAD, serialize

#: Bytes and fields of a request's head: what a visitor may send, and what the server adds to it.
MAX_SERVICE_HEAD = MAX_HEAD + ADDED_BYTES
MAX_SERVICE_FIELDS = MAX_FIELDS + ADDED_FIELDS

#: How the answer begins with which our client says that its service cannot be reached, for a server that has another
#: client to ask.
UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nTunnel-Service: unreachable\r\n"
UNREACHABLE_FIELD = ("Tunnel-Service", "unreachable")


class ServiceExchanges(Exchanges):
    """One for each connection that brings requests from a tunnel's server.

    The server has said already who the visitor is and removed what concerns one connection only, so that a request's
    head passes as it came, but for its ``Host``.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Peer("", "http"), max_head=MAX_SERVICE_HEAD, max_fields=MAX_SERVICE_FIELDS)

    def forward(self, *, host: str = "", keep: bool = True) -> list[Event]:
        events = super().forward(host=host, keep=keep)
        if self._to_upstream:
            head = self._request.head
            lines = [
                f"{name}: {host if host and key == 'host' else value}"
                for (name, value), key in zip(head.fields, head.keys, strict=True)
            ]
            self._to_upstream[0] = serialize(f"{head.method} {head.target} HTTP/1.{head.minor}", lines)
        return events
