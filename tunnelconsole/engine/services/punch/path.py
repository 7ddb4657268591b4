"""One path of a link: writes what the link has to say there, reads what comes, and notices when it is dead."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Literal, Protocol

from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.hostport import format_host_port

PathKind = Literal["direct", "relay"]

PATH_READ: Final = 128 * 1024
"""Bytes read at once from a path: two full frames."""

READS: Final = 4
"""Reads in a row, after which others on the loop have their turn."""

UNSENT: Final = 128 * 1024
"""Bytes that the kernel may hold of a path which are not on their way yet: what is said next waits behind them."""


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """How long a link waits, in seconds."""

    ping: float = 5.0
    """Without a word of ours after which a path is pinged, so that the other end hears from us."""
    silence: float = 10.0
    """Without a word of the other end's after which a path is dead: two pings of its."""
    move: float = 5.0
    """For the answer on a path that the link is led to, until it is led elsewhere."""
    patience: float = 60.0
    """Without any path after which the link breaks: a rendezvous that starts again takes less."""


class PathOwner(Protocol):
    """The link, as its paths see it."""

    def words_for(self, path: Path) -> bytes:
        """What is to be sent there now; ``b""`` for nothing."""

    def heard(self, path: Path, data: bytes) -> None:
        """Bytes came."""

    def drained(self, path: Path) -> None:
        """All is with the kernel, after it was not."""

    def ping(self, path: Path) -> None:
        """It is time to say something."""

    def lost(self, path: Path, reason: str) -> None:
        """The path is dead, or its far side closed it; it is closed."""


class Path:
    """Owns ``end``.

    :param number: what the link's state machine calls it.
    :param kind: how it came about.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: PathOwner,
        end: TLSEnd | SocketEnd,
        number: int,
        kind: PathKind,
        times: LinkTimes,
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._end = end
        self._times = times
        self._unsent = memoryview(b"")
        self._writing = False
        self._broken = False
        """Takes nothing more, though what it brought may still be read."""
        self._input = InputWatch(loop, end.fileno(), self._read)
        self._heard_at = self._said_at = loop.time()
        self._more: asyncio.Handle | None = None
        """Reads on, once others had their turn."""
        self._timer: asyncio.Handle = loop.call_soon(self._begin)
        self.number = number
        self.kind: PathKind = kind
        self.used = False
        """Whether the link was ever led here."""
        self.over = False
        self.pinged_at = 0.0
        """When it was pinged last, by ``perf_counter``; 0 before."""
        if sys.platform == "linux" and end.socket.family != socket.AF_UNIX:
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    @property
    def local(self) -> str:
        """Our own ``host:port``."""
        return format_host_port(*self._end.socket.getsockname()[:2])

    @property
    def blocked(self) -> bool:
        """True while it takes nothing more."""
        return self._writing or self._broken

    def _begin(self) -> None:
        self._input.start()
        self._look()
        self.flush()
        if not self.over and self._end.holds_input():
            self._read()

    def flush(self) -> None:
        """Sends what there is to be sent, as far as it is taken."""
        if self.over or self._broken:
            return
        try:
            while self._unsent or self._say_more():
                self._unsent = self._unsent[self._end.send(self._unsent) :]
            drained = self._end.flush()
        except BlockingIOError:
            drained = False
        except OSError as error:
            self._broken = True
            self._read()  # what came before the break, maybe the reason for it
            self._lose(f"connection lost: {error.strerror or error}")
            return
        if drained == self._writing:
            self._wait_to_write(not drained)

    def _say_more(self) -> bool:
        words = self._owner.words_for(self)
        self._unsent = memoryview(words)
        if words:
            self._said_at = self._loop.time()
        return bool(words)

    def _writable(self) -> None:
        self.flush()
        if not self.over and not self.blocked:
            self._owner.drained(self)

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._end.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._end.fileno())
        self._writing = wanted

    def _read(self) -> None:
        for _ in itertools.count() if self._broken else range(READS):
            try:
                data = self._end.receive(PATH_READ)
            except BlockingIOError:
                return
            except OSError as error:
                self._read_all(f"connection lost: {error.strerror or error}")
                return
            if not data:
                self._read_all("the other end closed it")
                return
            self._heard_at = self._loop.time()
            self._owner.heard(self, data)
            if self.over or not (self._broken or self._end.holds_input()):
                return
        if self._more is None:
            self._more = self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._more = None
        self._read()

    def _read_all(self, reason: str) -> None:
        if not self._broken:  # else sending has shown why already
            self._lose(reason)

    def _look(self) -> None:
        """Pings when nothing was said for long, and gives the path up when nothing was heard for longer."""
        times = self._times
        if self._silent_for() >= times.silence:
            self._read()  # it may have come while this loop was held up
        if not self.over and self._silent_for() >= times.silence:
            self._lose(f"nothing heard for {times.silence:g} s")
        if self.over:
            return
        now = self._loop.time()
        if now - self._said_at >= times.ping or not self.pinged_at:
            self.pinged_at = perf_counter()  # the loop's clock is too coarse for it
            self._owner.ping(self)
            self.flush()
        if not self.over:
            due = min(self._heard_at + times.silence, self._said_at + times.ping) - now
            self._timer = self._loop.call_later(max(due, times.ping / 4), self._look)

    def _silent_for(self) -> float:
        return self._loop.time() - self._heard_at

    def _lose(self, reason: str) -> None:
        if not self.over:
            self.close()
            self._owner.lost(self, reason)

    def close(self) -> None:
        """Closes the path; safe to call twice."""
        self._stop(self._end.close)

    def part(self, farewells: Farewells, words: bytes) -> None:
        """Sends what it has begun to send and ``words``, and closes the path once the other end has."""
        last = b"".join((self._unsent, words))
        self._stop(lambda: farewells.bid(self._end, last))

    def _stop(self, finish: Callable[[], None]) -> None:
        if self.over:
            return
        self.over = True
        for handle in (self._timer, self._more):
            if handle is not None:
                handle.cancel()
        self._input.stop()
        if self._writing:
            self._wait_to_write(wanted=False)
        self._unsent = memoryview(b"")
        finish()
