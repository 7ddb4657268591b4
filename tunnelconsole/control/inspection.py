"""What the inspectors of an engine's tunnels have kept, as it travels over the control socket."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from tunnelconsole.control.exchange_rows import ExchangeRow, HttpMessage
from tunnelconsole.control.hiding import Veil
from tunnelconsole.control.messages import Exchange
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.tunnel import inspector
from tunnelconsole.engine.services.tunnel.client import TunnelClient
from tunnelconsole.engine.services.tunnel.inspector import BODY_KEPT
from tunnelconsole.engine.services.tunnel.replay import replay
from tunnelconsole.engine.services.tunnel.server import TunnelServer
from tunnelconsole.engine.wire.http.answer import phrase_of
from tunnelconsole.engine.wire.http.head import Fields, RequestHead, ResponseHead
from tunnelconsole.errors import RequestRefused

UNFOLDED_AT_MOST: Final = BODY_KEPT
"""Bytes shown of a body that came compressed: no more than of others, for what is hidden in it takes its time too."""

CODINGS: Final = 3
"""Codings of one body that are undone, one within the other; nobody uses two."""

_GZIP, _ZLIB, _BARE = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
_WINDOWS = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (_ZLIB, _BARE)}
"""How each coding is read; what is called ``deflate`` is sent in two ways."""

_ID = re.compile(r"x([0-9]{1,18})")
_URL = re.compile(r"https?://", re.IGNORECASE)

Tunnel = TunnelServer | TunnelClient


class Kept(NamedTuple):
    """An exchange, and the service through which it came."""

    service: Tunnel
    exchange: inspector.Exchange


class Told:
    """What a watcher has been told of exchanges."""

    def __init__(self) -> None:
        self._ended: WeakKeyDictionary[inspector.Inspector, int] = WeakKeyDictionary()

    def news(self, inspection: Inspection, service: str) -> tuple[list[Kept], int]:
        """What has ended since, and all that is under way; and how many have ended and are not kept any more."""
        found: list[Kept] = []
        missed = 0
        for tunnel in inspection.tunnels(service):
            kept = tunnel.inspector
            since = self._ended.get(kept)
            ended = kept.ended_after(since or 0)
            found += [Kept(tunnel, exchange) for exchange in (*ended, *kept.running.values())]
            if since is not None:
                missed += kept.count - since - len(ended)
            self._ended[kept] = kept.count
        return found, missed


class Inspection:
    """Reads the inspectors of a started engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tunnels(self, service: str = "") -> Iterator[Tunnel]:
        """The services that keep exchanges; the one that is named, if any."""
        for found in self._engine.running:
            if isinstance(found, Tunnel) and service in ("", found.name):
                yield found

    def last(self, service: str, limit: int) -> list[Kept]:
        """The last ``limit`` of all services, or of one; see :func:`exchange_row`."""
        found = [Kept(tunnel, exchange) for tunnel in self.tunnels(service) for exchange in tunnel.inspector]
        found.sort(key=lambda kept: (not kept.exchange.over, kept.exchange.started + kept.exchange.seconds))
        return found[-limit:] if limit > 0 else []

    async def show(self, exchange_id: str, *, reveal: bool) -> Exchange:
        """All that is kept of an exchange.

        :raises RequestRefused: there is none of this id.
        """
        return await exchange_view(self._find(exchange_id), reveal=reveal)

    async def replay(self, exchange_id: str) -> Exchange:
        """Sends a request again; returns what has become of it.

        :raises RequestRefused: there is none of this id, or it cannot be sent again.
        """
        kept = self._find(exchange_id)
        return await exchange_view(Kept(kept.service, await replay(kept.service, kept.exchange)), reveal=False)

    def _find(self, exchange_id: str) -> Kept:
        number = _ID.fullmatch(exchange_id)
        for tunnel in self.tunnels() if number else ():
            exchange = tunnel.inspector.find(int(exchange_id[1:]))
            if exchange is not None:
                return Kept(tunnel, exchange)
        raise RequestRefused(
            f"there is no request {exchange_id[:64]}", "only the last of each tunnel are kept; list them again"
        )


def exchange_row(kept: Kept) -> ExchangeRow:
    """An exchange as it stands."""
    return _row(kept, Veil(lifted=False))


async def exchange_view(kept: Kept, *, reveal: bool) -> Exchange:
    """All that is kept of an exchange, as it stands.

    Its bodies are looked into in a thread: that may take a tenth of a second.
    """
    veil, again = Veil(lifted=reveal), Veil(lifted=reveal)  # the latter for what the URL shows too
    exchange, response = kept.exchange, kept.exchange.response
    row, url, head = _row(kept, again), veil.url(_url_of(kept)), exchange.head
    bodies = bytes(exchange.request_body), bytes(exchange.response_body)
    first_line = f"{head.method} {again.url(head.target)} HTTP/1.{head.minor}"
    request_bytes, response_bytes = row.request_bytes, row.response_bytes

    def messages() -> tuple[HttpMessage, HttpMessage | None]:
        request = _message(first_line, head, bodies[0], request_bytes, veil)
        if response is None:
            return request, None
        answered = f"HTTP/1.{response.minor} {response.status} {response.reason or phrase_of(response.status)}"
        return request, _message(answered, response, bodies[1], response_bytes, veil)

    shown = await asyncio.to_thread(messages)
    return Exchange(row=row, url=url, request=shown[0], response=shown[1], hidden=veil.hidden, revealed=reveal)


def _row(kept: Kept, veil: Veil) -> ExchangeRow:
    service, exchange = kept
    return ExchangeRow(
        id=_id(exchange.id),
        service=service.name,
        host=exchange.host,
        peer=exchange.peer,
        method=exchange.method,
        target=veil.url(exchange.target),
        status=exchange.status,
        error=exchange.error,
        started=exchange.started,
        seconds=exchange.seconds if exchange.over else None,
        seconds_to_answer=exchange.seconds_to_answer or None,
        request_bytes=exchange.request_bytes,
        response_bytes=exchange.response_bytes,
        content_type=exchange.content_type,
        replay_of=_id(exchange.replay_of) if exchange.replay_of else "",
    )


def _id(number: int) -> str:
    return f"x{number}"


def _message(first_line: str, head: RequestHead | ResponseHead, kept: bytes, total: int, veil: Veil) -> HttpMessage:
    """
    :param kept: of the body, as it came.
    :param total: bytes that it had.
    """
    codings = [
        coding for each in head.values.get("content-encoding", "").split(",") if (coding := each.strip().lower())
    ]
    coded = kept and any(coding != "identity" for coding in codings)
    unfolded = _unfold(kept, codings) if coded else None
    body, more = unfolded or (kept, False)
    readable = unfolded is not None or not coded
    return HttpMessage(
        first_line=first_line,
        fields=_fields(head.fields, veil),
        body=veil.body(body, head.values.get("content-type", "")) if readable else veil.opaque(body),
        cut=more or total > len(kept),
        decoded=", ".join(codings) if unfolded else "",
    )


def _fields(fields: Fields, veil: Veil) -> list[tuple[str, str]]:
    return [(name, veil.field(name, value)) for name, value in fields]


def _unfold(body: bytes, codings: Sequence[str]) -> tuple[bytes, bool] | None:
    """What was compressed, and whether there is more of it; None when it cannot be read."""
    more = False
    for coding in reversed(codings[:CODINGS]):  # the last one is on the outside
        unfolded = _unfold_one(body, coding) if coding != "identity" else (body, False)
        if unfolded is None:
            return None
        body, more = unfolded[0], more or unfolded[1]
    return (body, more) if len(codings) <= CODINGS else None


def _unfold_one(body: bytes, coding: str) -> tuple[bytes, bool] | None:
    for window in _WINDOWS.get(coding, ()):
        unfolding = zlib.decompressobj(window)
        try:
            unfolded = unfolding.decompress(body, UNFOLDED_AT_MOST)
        except zlib.error:
            continue
        if unfolded:
            return unfolded, bool(unfolding.unconsumed_tail or unfolding.unused_data)
    return None


def _url_of(kept: Kept) -> str:
    """What the visitor asked for. A tunnel's client knows what its server says of that."""
    head, scheme = kept.exchange.head, kept.exchange.scheme
    if _URL.match(head.target):
        return head.target
    if isinstance(kept.service, TunnelClient) and head.values.get("x-forwarded-proto") in ("http", "https"):
        scheme = head.values["x-forwarded-proto"]
    path = "/" if kept.exchange.target == "*" else kept.exchange.target
    return f"{scheme}://{head.values.get('host') or kept.exchange.host}{path}"
