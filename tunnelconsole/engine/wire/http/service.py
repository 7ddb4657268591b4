"""The exchanges of a connection that a tunnel's client leads to its service: heads go on as they came."""

from __future__ import annotations

from functools import partial

from tunnelconsole.engine.wire.http.exchange import Event, Exchanges
from tunnelconsole.engine.wire.http.forward import ADDED_BYTES, ADDED_FIELDS, Peer
from tunnelconsole.engine.wire.http.head import MAX_FIELDS, MAX_HEAD, serialize
from tunnelconsole.engine.wire.http.told_host import PublicURL, ToldHost

#: Bytes and fields of a request's head: what a visitor may send, and what the server adds to it.
MAX_SERVICE_HEAD = MAX_HEAD + ADDED_BYTES
MAX_SERVICE_FIELDS = MAX_FIELDS + ADDED_FIELDS

#: How the answer begins with which our client says that its service cannot be reached, for a server that has another
#: client to ask.
UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nTunnel-Service: unreachable\r\n"
UNREACHABLE_FIELD = ("Tunnel-Service", "unreachable")
#: The same where it was not tried, because it does not work.
UNHEALTHY = b"HTTP/1.1 502 Bad Gateway\r\nTunnel-Service: unhealthy\r\n"
UNHEALTHY_FIELD = ("Tunnel-Service", "unhealthy")


class ServiceExchanges(Exchanges):
    """One for each connection that brings requests from a tunnel's server.

    The server has said already who the visitor is and removed what concerns one connection only, so that a request's
    head passes as it came, but for its ``Host``.

    :param scheme: what the public URL begins with, where the server does not say: ``http`` or ``https``.
    :param told: what the service is told as ``Host`` in place of what the visitor asked for; None for nothing else.
    """

    __slots__ = ("_told",)

    def __init__(self, scheme: str = "http", told: ToldHost | None = None) -> None:
        super().__init__(Peer("", scheme), max_head=MAX_SERVICE_HEAD, max_fields=MAX_SERVICE_FIELDS)
        self._told = told

    def forward(self, *, host: str = "", keep: bool = True) -> list[Event]:
        told = self._told
        if told is not None:
            host = told.host
        events = super().forward(host=host, keep=keep)
        if told is not None and (public := self._public()).host:
            self._response.rewrite = partial(told.made_public, public=public)
        if self._to_upstream:
            head = self._request.head
            lines = [
                f"{name}: {host if host and key == 'host' else value}"
                for (name, value), key in zip(head.fields, head.keys, strict=True)
            ]
            self._to_upstream[0] = serialize(f"{head.method} {head.target} HTTP/1.{head.minor}", lines)
        return events

    def _public(self) -> PublicURL:
        """Where the visitor of the request under way came to; without a host if it named none."""
        values = self._request.head.values
        scheme = values.get("x-forwarded-proto", "").lower()
        return PublicURL(scheme if scheme in ("http", "https") else self._peer.scheme, values.get("host", ""))
