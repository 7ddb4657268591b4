"""The listener for Prometheus and its like: ``/metrics``, ``/healthz``, ``/readyz``, and nothing else.

Each connection asks once and is closed. What it may take is bounded: the bytes of its request, its time, and how many
there are at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ResourcesExhausted
from tunnelconsole.engine.request_times import RequestTimes
from tunnelconsole.engine.settings import ListenAddress
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import EndLink, Link
from tunnelconsole.engine.transport.listener import Listener, bound, is_loopback
from tunnelconsole.engine.wire.http.answer import plain_response, status_page
from tunnelconsole.engine.wire.http.forward import host_name
from tunnelconsole.engine.wire.http.head import HeadReader, HttpError, RequestHead, parse_request, serialize
from tunnelconsole.errors import ListenFailed
from tunnelconsole.metrics.counts import Counts
from tunnelconsole.metrics.events import MetricsListening
from tunnelconsole.metrics.families import Families
from tunnelconsole.metrics.lag import LoopLag
from tunnelconsole.metrics.readiness import unready

MAX_HEAD: Final = 8 * 1024
"""Bytes of a request's head: what scrapers and browsers send is a tenth of it."""

MAX_CONNECTIONS: Final = 32
"""Connections at once: some scrapers, probes and people. They are taken from the reserve of descriptors, so that the
metrics can still be read when there are no others left."""

REQUEST_TIME: Final = 10.0
"""Seconds that a connection has to ask and to be answered: Prometheus waits as long by default."""

AGE: Final = 0.25
"""Seconds for which what was read counts as news for whoever asks next: so however many ask, the engine reads itself
four times a second at most, which is as often as consoles see it."""

SAMPLES_AT_ONCE: Final = 64
"""Samples written in one go: each takes some 10 microseconds, and tunnels are not to wait for a millisecond."""

HEADER_LINES: Final = 2
"""Lines before the samples of a family: what it is for, and its type."""

PATHS: Final = ("/metrics", "/healthz", "/readyz")
"""What there is."""


LOOPBACK_NAMES: Final = frozenset({
    "localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback",
})  # fmt: skip
"""What systems call loopback in their ``/etc/hosts``; besides all names in ``.localhost`` (RFC 6761, section 6.3)."""


def names_this_machine(host: str) -> bool:
    """Whether the value of a request's ``Host`` is one by which this machine alone is asked on loopback.

    A page in a browser here could ask by a name of its own that leads to loopback (DNS rebinding), and read the answer;
    it cannot make an address or ``localhost`` its own. A request without a host comes from no browser.
    """
    name = host_name(host)
    if name in LOOPBACK_NAMES or name in ("", socket.gethostname().lower()) or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _One:
    """A collector of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        """Part of what prometheus_client asks of a collector."""
        return [self._family]


def written(family: Metric) -> Iterator[bytes]:
    """A family as text, in pieces of :data:`SAMPLES_AT_ONCE` samples."""
    samples = family.samples
    for begin in range(0, max(1, len(samples)), SAMPLES_AT_ONCE):
        family.samples = samples[begin : begin + SAMPLES_AT_ONCE]
        text = generate_latest(_One(family))
        yield text if begin == 0 else text.split(b"\n", HEADER_LINES)[HEADER_LINES]


class MetricsServer:
    """Serves the metrics of an engine. First :meth:`bind`, and :meth:`serve` once the engine has been started.

    :param version: of this program.
    """

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._version = version
        self._socket: socket.socket | None = None
        self._listener: Listener | None = None
        self._visits: dict[_Visit, None] = {}
        """The oldest first."""
        self._text = b""
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def bind(self, address: ListenAddress) -> None:
        """Takes the place to listen; nobody is served yet.

        :raises ListenFailed: it cannot be had.
        """
        try:
            self._socket = await bound(address.host, address.port)
        except ListenFailed as error:
            raise ListenFailed(error.message, f"{error.hint} in engine.metrics") from error

    def serve(self) -> str:
        """Begins to count and to answer; returns the address.

        :raises RuntimeError: there is no place yet.
        """
        if self._socket is None:
            raise RuntimeError("serve() before bind()")
        node = self._engine.node
        self._tasks = node.tasks_of("metrics")
        self._counts = Counts(self._kind_of)
        self._times = RequestTimes()
        self._lag = LoopLag(node.loop)
        self._families = Families(self._engine, self._version, self._counts, self._times, self._lag)
        node.bus.count(self._counts.count)
        node.request_times = self._times
        self._listener, self._socket = Listener(self._socket, self._accepted, self._exhausted, reserve=True), None
        node.metrics = self._listener.address
        node.bus.publish(MetricsListening(address=self._listener.address, exposed=not is_loopback(self._listener.host)))
        return self._listener.address

    async def close(self) -> None:
        """Takes no more requests, ends those under way, and counts no more; safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        for visit in list(self._visits):
            visit.cut()
        await self._tasks.close()
        self._lag.close()
        node = self._engine.node
        node.bus.stop_counting(self._counts.count)
        if node.request_times is self._times:
            node.request_times = None
        if node.metrics == listener.address:
            node.metrics = ""

    async def text(self) -> bytes:
        """All metrics as Prometheus's text format has them, not older than :data:`AGE`."""
        async with self._reading:
            if time.monotonic() - self._read_at >= AGE:
                parts = []
                for family in self._families.read():
                    for part in written(family) if family is not None else ():
                        parts.append(part)
                        await asyncio.sleep(0)  # the tunnels go on after each
                    await asyncio.sleep(0)
                self._text = b"".join(parts)
                self._read_at = time.monotonic()
            return self._text

    def is_asked_by(self, host: str) -> bool:
        """Whether a request for this host is for here: on loopback for this machine's own names alone."""
        return self._listener is None or not is_loopback(self._listener.host) or names_this_machine(host)

    def answer_later(self, visit: _Visit, *, body: bool) -> None:
        """Has the metrics read for a visit."""
        self._tasks.start(self._answer(visit, body=body), "scrape")

    async def _answer(self, visit: _Visit, *, body: bool) -> None:
        answer = status_page(500, "the metrics could not be read; see the log", connection="close", body=body)
        try:
            answer = self._page(await self.text(), body=body)
        finally:
            visit.say(answer)

    def _page(self, text: bytes, *, body: bool) -> bytes:
        fields = [
            f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}",
            "Cache-Control: no-store",
            f"Content-Length: {len(text)}",
            "Connection: close",
        ]
        return serialize("HTTP/1.1 200 OK", fields) + (text if body else b"")

    def answer(self, path: str, *, body: bool) -> bytes:
        """The answer for any other path than that of the metrics."""
        if path == "/healthz":
            return plain_response(200, "ok\n", connection="close", body=body)
        if path == "/readyz":
            causes = unready(self._engine)
            text = "".join(f"{cause}\n" for cause in causes) or "ready\n"
            return plain_response(503 if causes else 200, text, connection="close", body=body)
        return status_page(404, f"there are {', '.join(PATHS)}", connection="close", body=body)

    def left(self, visit: _Visit) -> None:
        """A visit is over."""
        self._visits.pop(visit, None)

    def _accepted(self, sock: socket.socket, peer: str) -> None:
        if len(self._visits) >= MAX_CONNECTIONS:
            waits = next((visit for visit in self._visits if visit.answered or not visit.asked), None)
            if waits is None:
                sock.close()
                return
            waits.make_room()  # so that those who say nothing, or do not leave, keep nobody out
        visit = _Visit(self, self._engine.node.loop, sock)
        self._visits[visit] = None
        visit.begin()

    def _exhausted(self, error: OSError) -> None:
        self._engine.node.bus.publish(ResourcesExhausted(reason=error.strerror or str(error)))

    def _kind_of(self, service: str) -> str:
        supervised = self._engine.supervised.get(service)
        return "" if supervised is None else supervised.service.kind


class _Visit:
    """One connection: a request, its answer, and the end."""

    __slots__ = ("_head", "_left", "_link", "_server", "_timer", "answered", "asked")

    def __init__(self, server: MetricsServer, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._server = server
        self._link = EndLink(loop, SocketEnd(sock), self)
        self._head = HeadReader(request=True, max_head=MAX_HEAD)
        self._timer = loop.call_later(REQUEST_TIME, self.cut)
        self.asked = False
        """Whether its request is complete."""
        self.answered = False
        """Whether the answer has left, and the other side is only waited for to close."""
        self._left = MAX_HEAD
        """Bytes that it may still send then."""

    def begin(self) -> None:
        """Waits for the request."""
        self._link.resume()

    def cut(self) -> None:
        """Ends it now, whatever has been said; safe to call twice."""
        self._timer.cancel()
        self._link.abort()
        self._server.left(self)

    def make_room(self) -> None:
        """Ends it because others come: at once, but an answer that is on its way arrives."""
        if self.answered:
            self._close()
        else:
            self.cut()

    def say(self, answer: bytes) -> None:
        """Sends the whole answer, and ends once that has left."""
        self.asked = True
        self._link.pause()
        if not self._link.write(answer):  # it has left, or has been cut
            self.cut()
        elif not self._link.blocked:
            self._part()

    def link_received(self, link: Link, data: bytes) -> None:
        """Part of :class:`~tunnelconsole.engine.transport.link.LinkOwner`, as those below."""
        if self.answered:
            self._left -= len(data)
            if self._left < 0:
                self.cut()
            return
        if self.asked:
            return  # more than one request: the first alone is answered
        try:
            found = self._head.receive_data(data)
            if found is not None:
                self.asked = True
                self._ask(parse_request(found[0]))
        except HttpError as error:
            self.say(status_page(error.status, error.reason, connection="close"))

    def _ask(self, head: RequestHead) -> None:
        body, path = head.method != "HEAD", head.target.partition("?")[0]
        if head.method not in ("GET", "HEAD"):
            sentence = "only GET and HEAD are of use here"
            self.say(status_page(405, sentence, connection="close", fields=[("Allow", "GET, HEAD")]))
        elif not self._server.is_asked_by(head.values.get("host", "")):
            sentence = "on loopback these are asked for by an address, by localhost, or by this machine's own name"
            self.say(status_page(403, sentence, connection="close", body=body))
        elif path == "/metrics":
            self._server.answer_later(self, body=body)
        else:
            self.say(self._server.answer(path, body=body))

    def link_ended(self, link: Link) -> None:
        if self.answered:
            self._close()
        elif not self.asked:  # else it has closed its sending side, and still listens
            self.cut()

    def link_broken(self, link: Link, reason: str) -> None:
        self.cut()

    def link_deaf(self, link: Link) -> None:
        self.cut()

    def link_drained(self, link: Link) -> None:
        if not self.answered:
            self._part()

    def _part(self) -> None:
        """The answer has left. What is still on its way here is read, so that no reset overtakes the answer."""
        self.answered = True
        if self._link.ended:
            self._close()
        else:
            self._link.finish()
            self._link.resume()

    def _close(self) -> None:
        self._timer.cancel()
        self._link.close()
        self._server.left(self)
