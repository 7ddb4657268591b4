"""The inspector: what passed last through each tunnel, kept in memory, within bounds, for whoever wants to look.

An exchange is kept as it passes: the bytes of its heads, and the first bytes of its bodies. Nothing is made of that
until somebody asks.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.wire.http.exchange import Exchanges
from tunnelconsole.engine.wire.http.head import RequestHead, ResponseHead, parse_request, parse_response
from tunnelconsole.engine.wire.http.passage import Passage

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.raw import RawFlow

BODY_KEPT: Final = 64 * 1024
"""Bytes kept of each body: what a person looks at, and most of what forms and interfaces send."""

KEPT_PER_TUNNEL: Final = 100
"""Exchanges kept of each tunnel: a few screenfuls."""

BYTES_PER_TUNNEL: Final = 4 * 1024 * 1024
"""Bytes kept of each tunnel: enough for 30 exchanges with full bodies, and a quarter of what there is for all."""

BYTES_KEPT: Final = 16 * 1024 * 1024
"""Bytes kept by a service for all its tunnels together; beyond them the oldest go first."""

EXCHANGE_BYTES: Final = 900
"""Bytes that an exchange takes besides its heads and bodies (measured)."""

_ids = itertools.count(1)
"""One for the process, so that no id means another exchange after its service was restarted."""


class Exchange:
    """One request, and what becomes of it.

    :param target: what the service was asked for: a path with its query.
    """

    __slots__ = (
        "_began",
        "_exchanges",
        "_flow",
        "_head",
        "_log",
        "_request_count",
        "_response",
        "_response_count",
        "content_type",
        "ended",
        "error",
        "host",
        "id",
        "method",
        "peer",
        "replay_of",
        "request_body",
        "response_body",
        "scheme",
        "seconds",
        "seconds_to_answer",
        "size",
        "started",
        "status",
        "target",
    )

    def __init__(self, log: Log, peer: str, head: RequestHead, target: str, exchanges: Exchanges) -> None:
        self.id = next(_ids)
        self.ended = 0
        """The number of its end, by one higher than that of the exchange which ended before; 0 while it goes on."""
        self._log = log
        self.host = log.host
        self.peer = peer
        self.scheme = exchanges.scheme
        """What the visitor speaks, as far as that is known here: ``http`` or ``https``."""
        self._head = head.raw
        self.method = head.method
        self.target = target
        self.replay_of = 0
        """The id of the exchange that this one repeats; 0 when a visitor has come."""
        self.started = time.time()
        """Unix seconds."""
        self._began = time.perf_counter()
        self._exchanges = exchanges
        self._response = b""
        self.content_type = ""
        """Of the answer."""
        self.status = 0
        """Of the answer, the service's or our own; 0 while there is none."""
        self.seconds_to_answer = 0.0
        """From the request's head to the answer's; 0 while there is none."""
        self.seconds = 0.0
        """From the request's head to the end of it all, once it is over."""
        self.request_body: bytes | bytearray = b""
        """At most :data:`BODY_KEPT` bytes of it, as the next."""
        self.response_body: bytes | bytearray = b""
        self._request_count: Passage | int | None = None
        """What counts the body once it is not looked at any more, or did; None while all of it is kept."""
        self._response_count: Passage | int | None = None
        self._flow: RawFlow | None = None
        """What passes once the protocol has changed: that is counted, and not kept."""
        self.error = ""
        """What went wrong."""
        self.size = EXCHANGE_BYTES + len(head.raw)
        """Bytes that keeping it takes, about."""

    @property
    def head(self) -> RequestHead:
        """The request's, read again each time."""
        return parse_request(self._head, max_fields=len(self._head))

    @property
    def response(self) -> ResponseHead | None:
        """The final answer's as the service sent it; None while there is none, and where we answered ourselves."""
        return parse_response(self._response) if self._response else None

    @property
    def over(self) -> bool:
        """Whether nothing more of it will pass."""
        return self.ended > 0

    @property
    def request_bytes(self) -> int:
        """Bytes of the request's body that have come, or of a WebSocket what the visitor has sent."""
        if self._flow is not None:
            return self._flow.to_upstream
        return _length(self.request_body, self._request_count)

    @property
    def response_bytes(self) -> int:
        """Bytes of the answer's body that have come, or of a WebSocket what the service has sent."""
        if self._flow is not None:
            return self._flow.from_upstream
        return _length(self.response_body, self._response_count)

    def watch(self) -> None:
        """Has the bodies kept that pass from here on. What is not looked at can pass through the kernel."""
        self._exchanges.look(
            self._keep_request if self._request_count is None else None,
            self._keep_response if self._response_count is None else None,
        )

    def _keep_request(self, data: bytes) -> None:
        before = len(self.request_body)
        self.request_body = self._kept(self.request_body, data)
        if len(self.request_body) != before + len(data):
            self._request_count = self._exchanges.request_body
            self.watch()

    def _keep_response(self, data: bytes) -> None:
        before = len(self.response_body)
        self.response_body = self._kept(self.response_body, data)
        if len(self.response_body) != before + len(data):
            self._response_count = self._exchanges.response_body
            self.watch()

    def _kept(self, before: bytes | bytearray, data: bytes) -> bytes | bytearray:
        """What is kept of a body, with as much of ``data`` as there is room for."""
        room = BODY_KEPT - len(before)
        piece = data if len(data) <= room else data[:room]
        if not self._log.inspector.claim(self._log, len(piece)):
            return before
        self.size += len(piece)
        if not before:
            return piece
        grown = before if isinstance(before, bytearray) else bytearray(before)
        grown += piece  # many small pieces: bytes would be copied as a whole for each
        return grown

    def answered(self, head: ResponseHead) -> None:
        """The final answer has begun."""
        self._response = head.raw
        self.status = head.status
        self.content_type = head.values.get("content-type", "")
        self.seconds_to_answer = time.perf_counter() - self._began

    def upgraded(self, flow: RawFlow) -> None:
        """The protocol has changed; raw bytes pass, and are counted but for those that came in one read with a head."""
        self._flow = flow

    def end(self, error: str, status: int = 0) -> None:
        """It is over, and kept.

        :param status: of our own answer, where there was none from the service.
        """
        self.seconds = time.perf_counter() - self._began
        self.error = error
        self.status = self.status or status
        self._exchanges.look(None, None)  # the next request on this connection is none of ours
        del self._exchanges
        if self._request_count is not None or self._flow is not None:
            self._request_count, self.request_body = self.request_bytes, bytes(self.request_body)
        if self._response_count is not None or self._flow is not None:
            self._response_count, self.response_body = self.response_bytes, bytes(self.response_body)
        self._flow = None
        self.size += len(self._response)
        self._log.inspector.ended(self._log, self, len(self._response))


class Log:
    """The last exchanges of one tunnel that are over, the oldest first."""

    __slots__ = ("bytes", "exchanges", "host", "inspector", "left")

    def __init__(self, inspector: Inspector, host: str) -> None:
        self.inspector = inspector
        self.host = host
        self.exchanges: OrderedDict[int, Exchange] = OrderedDict()
        self.bytes = 0
        """What they take, and those that are under way."""
        self.left = False
        """Whether the tunnel is gone, so that the log goes with the last exchange in it."""

    def begin(self, peer: str, head: RequestHead, target: str, exchanges: Exchanges) -> Exchange:
        """A request that came."""
        exchange = Exchange(self, peer, head, target, exchanges)
        exchange.watch()
        self.inspector.begun(self, exchange)
        return exchange


class Replay:
    """Marks the exchange that repeats another."""

    def __init__(self, of: int) -> None:
        self.of = of
        self.begun: Exchange | None = None


class Inspector:
    """The logs of one service, which share :data:`BYTES_KEPT`."""

    def __init__(self) -> None:
        self.running: dict[int, Exchange] = {}
        """Exchanges that are under way, by id, in the order in which they began."""
        self.count = 0
        """How many have ended, with those that are not kept any more."""
        self.bytes = 0
        """What is kept, and what is under way."""
        self._kept: OrderedDict[int, Log] = OrderedDict()
        self._logs: dict[str, Log] = {}
        self._replay: Replay | None = None

    def log(self, host: str) -> Log:
        """The log of ``host``, with what it holds from earlier sessions."""
        log = self._logs.get(host)
        if log is None:
            log = self._logs[host] = Log(self, host)
        log.left = False
        return log

    def forget(self, host: str) -> None:
        """The tunnel of ``host`` is gone: its log goes with the last exchange in it."""
        log = self._logs.get(host)
        if log is not None:
            log.left = True
            self._forget_empty(log)

    def _forget_empty(self, log: Log) -> None:
        if log.left and not log.exchanges and self._logs.get(log.host) is log:
            del self._logs[log.host]

    @contextmanager
    def replaying(self, exchange: Exchange) -> Iterator[Replay]:
        """The request that comes within the block is not a visitor's, but repeats ``exchange``."""
        self._replay = Replay(exchange.id)
        try:
            yield self._replay
        finally:
            self._replay = None

    def begun(self, log: Log, exchange: Exchange) -> None:
        """See :meth:`Log.begin`."""
        self.running[exchange.id] = exchange
        self._take(log, exchange.size)
        if self._replay is not None:
            self._replay.begun = exchange
            exchange.replay_of = self._replay.of

    def ended(self, log: Log, exchange: Exchange, more: int) -> None:
        """Keeps an exchange that is over, and has become larger by ``more`` bytes; see :meth:`Exchange.end`."""
        key = exchange.id
        del self.running[key]
        self.count = exchange.ended = self.count + 1
        if log.left:
            self._logs.setdefault(log.host, log)
        log.exchanges[key] = exchange
        self._kept[key] = log
        self._take(log, more)
        if len(log.exchanges) > KEPT_PER_TUNNEL:
            self._drop_oldest(log)

    def claim(self, log: Log, size: int) -> bool:
        """Takes so many bytes more for an exchange under way, from older ones where need be; False: there are none."""
        self._take(log, size)
        if log.bytes <= BYTES_PER_TUNNEL and self.bytes <= BYTES_KEPT:
            return True
        log.bytes -= size
        self.bytes -= size
        return False

    def _take(self, log: Log, size: int) -> None:
        log.bytes += size
        self.bytes += size
        while log.bytes > BYTES_PER_TUNNEL and log.exchanges:
            self._drop_oldest(log)
        while self.bytes > BYTES_KEPT and self._kept:
            self._drop_oldest(next(iter(self._kept.values())))

    def _drop_oldest(self, log: Log) -> None:
        oldest, gone = log.exchanges.popitem(last=False)
        del self._kept[oldest]
        log.bytes -= gone.size
        self.bytes -= gone.size
        if log.left:
            self._forget_empty(log)

    def __iter__(self) -> Iterator[Exchange]:
        """What is kept, of all tunnels, in the order in which it ended; and then what is under way."""
        for exchange_id, log in self._kept.items():
            yield log.exchanges[exchange_id]
        yield from self.running.values()

    def ended_after(self, number: int) -> list[Exchange]:
        """Those kept that ended after the exchange of this number; costs what there are of them."""
        found = []
        for exchange_id, log in reversed(self._kept.items()):
            exchange = log.exchanges[exchange_id]
            if exchange.ended <= number:
                break
            found.append(exchange)
        found.reverse()
        return found

    def find(self, exchange_id: int) -> Exchange | None:
        """The exchange of that id; None when it is not kept any more."""
        log = self._kept.get(exchange_id)
        return self.running.get(exchange_id) if log is None else log.exchanges[exchange_id]


def _length(body: bytes | bytearray, count: Passage | int | None) -> int:
    return len(body) if count is None else count.total if isinstance(count, Passage) else count
