"""The inspector: what passed last through each tunnel, kept in memory, within bounds, for whoever wants to look.

An exchange is kept as it passes: its heads as they were read anyway, and the first bytes of its bodies. Nothing is
made of that until somebody asks (:mod:`.views`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from tunnelconsole.engine.wire.http.exchange import Exchanges
from tunnelconsole.engine.wire.http.head import Fields, RequestHead, ResponseHead

BODY_KEPT: Final = 64 * 1024
"""Bytes kept of each body: what a person looks at, and most of what forms and interfaces send."""

KEPT_PER_TUNNEL: Final = 100
"""Exchanges kept of each tunnel: a few screenfuls."""

BYTES_KEPT: Final = 16 * 1024 * 1024
"""Bytes kept by a service for all its tunnels together; beyond them the oldest go first."""

EXCHANGE_BYTES: Final = 1500
"""Bytes that an exchange takes at the least: its own fields, and two heads without any (measured)."""

FIELD_BYTES: Final = 250
"""Bytes that a field of a head takes besides its text: four strings, a pair, and a place in a table (measured)."""

Done = Callable[["Exchange"], None]
"""Told of each exchange that is over."""


class Exchange:
    """One request, and what became of it.

    :param target: what the service was asked for: a path with its query.
    """

    __slots__ = (
        "_began",
        "_exchanges",
        "_log",
        "error",
        "head",
        "host",
        "id",
        "peer",
        "request_body",
        "request_bytes",
        "response",
        "response_body",
        "response_bytes",
        "seconds",
        "seconds_to_answer",
        "size",
        "started",
        "target",
    )

    def __init__(self, exchange_id: int, log: Log, peer: str, head: RequestHead, target: str) -> None:
        self.id = exchange_id
        self._log = log
        self.host = log.host
        self.peer = peer
        self.head = head
        self.target = target
        self.started = time.time()
        """Unix seconds."""
        self._began = time.perf_counter()
        self._exchanges: Exchanges | None = None
        self.response: ResponseHead | None = None
        """The final answer's head as the service sent it; None while there is none, and where we answered ourselves."""
        self.seconds_to_answer = 0.0
        """From the request's head to the answer's."""
        self.seconds = 0.0
        """From the request's head to the end of it all; 0 while it goes on."""
        self.request_body = b""
        """At most :data:`BODY_KEPT` bytes of it, as the next."""
        self.response_body = b""
        self.request_bytes = 0
        self.response_bytes = 0
        self.error = ""
        """What went wrong."""
        self.size = EXCHANGE_BYTES + _size_of(head.fields)
        """Bytes that keeping it takes, about."""

    @property
    def status(self) -> int:
        """The answer's; 0 where there was none from the service."""
        return self.response.status if self.response is not None else 0

    def watch(self, exchanges: Exchanges) -> None:
        """Keeps what passes of the bodies from here on."""
        self._exchanges = exchanges
        exchanges.look(self._keep_request, self._keep_response)

    def _keep_request(self, data: bytes) -> None:
        self.request_body = (self.request_body + data)[:BODY_KEPT] if self.request_body else data[:BODY_KEPT]
        if len(self.request_body) >= BODY_KEPT:
            self._look_less()

    def _keep_response(self, data: bytes) -> None:
        self.response_body = (self.response_body + data)[:BODY_KEPT] if self.response_body else data[:BODY_KEPT]
        if len(self.response_body) >= BODY_KEPT:
            self._look_less()

    def _look_less(self) -> None:
        """What is not looked at can pass through the kernel."""
        if self._exchanges is not None:
            self._exchanges.look(
                self._keep_request if len(self.request_body) < BODY_KEPT else None,
                self._keep_response if len(self.response_body) < BODY_KEPT else None,
            )

    def answered(self, head: ResponseHead) -> None:
        """The final answer has begun."""
        self.response = head
        self.seconds_to_answer = time.perf_counter() - self._began

    def end(self, error: str) -> None:
        """It is over, and kept."""
        self.seconds = time.perf_counter() - self._began
        self.error = error
        if self._exchanges is not None:
            self.request_bytes = self._exchanges.request_bytes
            self.response_bytes = self._exchanges.response_bytes
            self._exchanges = None
        self.size += len(self.request_body) + len(self.response_body)
        if self.response is not None:
            self.size += _size_of(self.response.fields)
        self._log.keep(self)


class Log:
    """The last exchanges of one tunnel that are over, the oldest first."""

    def __init__(self, inspector: Inspector, host: str) -> None:
        self._inspector = inspector
        self.host = host
        self.exchanges: OrderedDict[int, Exchange] = OrderedDict()

    def begin(self, peer: str, head: RequestHead, target: str, exchanges: Exchanges) -> Exchange:
        """A request that came."""
        exchange = Exchange(self._inspector.next_id(), self, peer, head, target)
        exchange.watch(exchanges)
        return exchange

    def keep(self, exchange: Exchange) -> None:
        """Keeps an exchange that is over."""
        self._inspector.keep(self, exchange)


class Inspector:
    """The logs of one service, which share :data:`BYTES_KEPT`."""

    def __init__(self) -> None:
        self._begun = 0
        self._kept: OrderedDict[int, Log] = OrderedDict()
        self._logs: dict[str, Log] = {}
        self._bytes = 0
        self.done: Done | None = None

    def log(self, host: str) -> Log:
        """The log of ``host``, with what it holds from earlier sessions."""
        log = self._logs.get(host)
        if log is None:
            log = self._logs[host] = Log(self, host)
        return log

    def next_id(self) -> int:
        """The number of a new exchange."""
        self._begun += 1
        return self._begun

    def keep(self, log: Log, exchange: Exchange) -> None:
        """Keeps an exchange that is over, in place of older ones; see :meth:`Exchange.end`."""
        log.exchanges[exchange.id] = exchange
        self._kept[exchange.id] = log
        self._bytes += exchange.size
        if len(log.exchanges) > KEPT_PER_TUNNEL:
            oldest, gone = log.exchanges.popitem(last=False)
            del self._kept[oldest]
            self._bytes -= gone.size
        while self._bytes > BYTES_KEPT:
            oldest, owner = self._kept.popitem(last=False)
            self._bytes -= owner.exchanges.pop(oldest).size
        if self.done is not None:
            self.done(exchange)

    def forget(self, host: str) -> None:
        """Forgets an empty log; a tunnel's host will come back, or will not."""
        log = self._logs.get(host)
        if log is not None and not log.exchanges:
            del self._logs[host]

    def __iter__(self) -> Iterator[Exchange]:
        """What is kept, of all tunnels, in the order in which it ended."""
        for exchange_id, log in self._kept.items():
            yield log.exchanges[exchange_id]

    def find(self, exchange_id: int) -> Exchange | None:
        """The exchange of that number; None when it is not kept any more."""
        log = self._kept.get(exchange_id)
        return None if log is None else log.exchanges[exchange_id]


def _size_of(fields: Fields) -> int:
    size = FIELD_BYTES * len(fields)
    for name, value in fields:
        size += 2 * (len(name) + len(value))
    return size
