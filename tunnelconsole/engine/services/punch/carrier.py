"""A link over changing paths: to its user one connection, which outlives the connections that carry it.

What the user sends is read only as fast as the path takes it, and kept until the other end's user has it; what comes
waits here, a window at most, until the user takes it. So paths are read all the time, and one that is silent is dead.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Final

from tunnelconsole.engine.services.punch.path import LinkTimes, Path, PathKind
from tunnelconsole.engine.transport.bridge import BridgedEnd
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.punch_frames import MAX_DATA
from tunnelconsole.engine.wire.punch_link import (
    Link,
    LinkReset,
    Moved,
    PathRefused,
    Ponged,
    Received,
    Role,
    StreamEnded,
)

MAX_PATHS: Final = 4
"""Paths of one link at once: the one in use, the one to come, and one spare of each kind."""

ACK_DELAY: Final = 0.1
"""Seconds until the other end is told of a few bytes that were passed on: it has a window left meanwhile."""

SMALL_PIECE: Final = 4096
"""Bytes below which a piece that waits for the user is put together with the one before it."""

TOOK_NO_MORE: Final = "the program at the other end closed before it had taken all"
BROKEN_OFF: Final = "the program at the other end broke the connection off"

DEFAULT_TIMES: Final = LinkTimes()


class Carrier:
    """One end of a link. Its user gets :attr:`end`; its owner brings paths.

    None of the callables is called from within a method of the carrier.

    :param link: the link's name, 16 bytes, the same at both ends.
    :param role: ``a`` decides which path carries the link: the newest, unless that is a relay and a direct one works.
    :param nonce: of this end, 16 bytes, drawn for this link.
    :param peer_nonce: of the other end.
    :param farewells: who says the last words of a link.
    :param moved: told the kind of path that carries the link from now on; "" while there is none.
    :param path_lost: told the kind of a path that is no more, and why; not of those that the link has left.
    :param ended: told once, when the link is over and the user has what came before: why, or "" for an orderly end of
        both streams. A user that does not read delays it until :meth:`close`; :attr:`over` says it at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: bytes,
        role: Role,
        nonce: bytes,
        peer_nonce: bytes,
        *,
        farewells: Farewells,
        moved: Callable[[str], None],
        path_lost: Callable[[str, str], None],
        ended: Callable[[str], None],
        times: LinkTimes = DEFAULT_TIMES,
    ) -> None:
        self._loop = loop
        self._link = Link(link, role, nonce, peer_nonce)
        self._leads = role == "a"
        self._farewells = farewells
        self._moved = moved
        self._path_lost = path_lost
        self._ended = ended
        self._times = times
        self._paths: dict[int, Path] = {}
        self._numbers = 0
        self._current: Path | None = None
        """The path that carries the link; at ``a``, that it was led to last."""
        self._socket, user = socket.socketpair()
        for sock in (self._socket, user):
            sock.setblocking(False)
        self.end = BridgedEnd(user, "tls", self._user_aborted)
        self._input = InputWatch(loop, self._socket.fileno(), self._take_in)
        self._user_ended = False
        self._user_gone = False
        """Takes no more, and has not said so in order."""
        self._undelivered: deque[memoryview | bytearray] = deque()
        self._writing = False
        self._peer_ended = False
        self._reason = ""
        self._ack_timer: asyncio.Handle | None = None
        self._move_timer: asyncio.Handle | None = None
        self._patience: asyncio.Handle | None = loop.call_later(times.patience, self._out_of_patience)
        self.over = False
        self.bytes_in = 0
        """Bytes that came from the other end's user."""
        self.bytes_out = 0
        """Bytes that this end's user sent."""
        self.rtt = 0.0
        """Seconds that the last ping took there and back, on whichever path; 0 before the first."""

    @property
    def kind(self) -> PathKind | None:
        """What carries the link now; None while nothing does."""
        return self._current.kind if self._current is not None and self._link.open else None

    @property
    def local(self) -> str:
        """Our own ``host:port`` of a direct path that carries the link now; empty while there is none."""
        return self._current.local if self._current is not None and self.kind == "direct" else ""

    def attach(self, end: TLSEnd | SocketEnd, kind: PathKind) -> None:
        """Gives the link another path, which it owns from here on.

        :param end: connected to the other end, its handshake done.
        """
        if self.over:
            end.close()
            return
        self._numbers += 1
        path = Path(self._loop, self, end, self._numbers, kind, self._times)
        self._paths[path.number] = path
        self._link.attach(path.number)
        for spare in list(self._paths.values()):
            if len(self._paths) <= MAX_PATHS:
                break
            if spare not in (self._current, path):
                self._drop(spare)
        if self._leads and not (self._current and self._current.kind == "direct" and kind == "relay"):
            self._lead_to(path)

    def close(self, reason: str) -> None:
        """Breaks the link off and tells both users why; safe to call twice.

        What has come and not been delivered is lost.
        """
        self._undelivered.clear()
        if not self.over:
            self._break_off(reason or BROKEN_OFF, reason)
        elif self._writing:
            self._deliver()

    def words_for(self, path: Path) -> bytes:
        return self._link.data_to_send(path.number)

    def heard(self, path: Path, data: bytes) -> None:
        for event in self._link.receive_data(path.number, data):
            match event:
                case Received(piece):
                    self._keep(piece)
                case StreamEnded():
                    self._peer_ended = True
                case Moved():
                    self._has_moved(path)
                case Ponged():
                    self.rtt = perf_counter() - path.pinged_at
                case PathRefused(reason):
                    path.close()
                    self.lost(path, f"refused: {reason}")
                case LinkReset(reason):  # the other end has to be told too, where the fault was its own
                    self._break_off(reason or BROKEN_OFF, reason)
        if not self.over:
            self._deliver()
        if not path.over:
            path.flush()
        if self._input.active:  # then the loop tells when there is something
            self._check_over()
        else:
            self._take_in()

    def drained(self, path: Path) -> None:
        if path is self._current:
            self._take_in()

    def ping(self, path: Path) -> None:
        self._link.ping(path.number, self._numbers)

    def lost(self, path: Path, reason: str) -> None:
        """A path is no more: goes on with another, or waits for one."""
        if self._paths.pop(path.number, None) is None:
            return
        self._link.detach(path.number)
        left = path.used and path is not self._current
        if not left:
            self._loop.call_soon(self._path_lost, path.kind, reason)
        if path is self._current:
            self._current = None
            self._go_elsewhere()

    # Paths

    def _lead_to(self, path: Path) -> None:
        """Role ``a``: from now on only ``path`` counts, once the other end has answered there."""
        self._stop_waiting()
        self._current = path
        path.used = True
        self._link.move_to(path.number)
        self._move_timer = self._loop.call_later(self._times.move, self._not_answered)
        path.flush()

    def _not_answered(self) -> None:
        path = self._current
        if path is not None:
            path.close()
            self.lost(path, f"no answer within {self._times.move:g} s")

    def _go_elsewhere(self) -> None:
        self._stop_waiting()
        self._input.stop()
        if self._leads and self._paths:
            self._lead_to(max(self._paths.values(), key=lambda path: (path.kind == "direct", path.number)))
        else:
            self._patience = self._loop.call_later(self._times.patience, self._out_of_patience)
            self._loop.call_soon(self._moved, "")

    def _has_moved(self, path: Path) -> None:
        self._stop_waiting()
        self._current = path
        path.used = True
        self._loop.call_soon(self._moved, path.kind)
        if self._leads:  # the other end takes nothing of those any more, and leaves them to us
            for other in [other for other in self._paths.values() if other.used and other is not path]:
                self._drop(other)

    def _drop(self, path: Path) -> None:
        del self._paths[path.number]
        self._link.detach(path.number)
        path.close()

    def _stop_waiting(self) -> None:
        for timer in (self._patience, self._move_timer):
            if timer is not None:
                timer.cancel()
        self._patience = self._move_timer = None

    def _out_of_patience(self) -> None:
        self._finish(f"no path to the other end for {self._times.patience:g} s")

    # From the user to the link

    def _take_in(self) -> None:
        """Sends what the user says, as far as the path and the window allow."""
        path = self._current
        while path is not None and self._link.open and not (path.blocked or self._link.has_unsent or self._user_ended):
            room = self._link.room
            if not room:
                break
            try:
                data = self._socket.recv(min(room, MAX_DATA))
            except BlockingIOError:
                self._input.start()
                return
            except OSError:  # it closed its end with bytes unread
                self._user_aborted()
                return
            if data:
                self.bytes_out += len(data)
                self._link.send(data)
            else:
                self._user_ended = True
                self._link.send_eof()
            path.flush()
            path = self._current
        self._input.stop()
        self._check_over()

    def _user_aborted(self) -> None:
        self._undelivered.clear()
        self._break_off("the connection was broken off", BROKEN_OFF)

    # From the link to the user

    def _keep(self, piece: memoryview) -> None:
        self.bytes_in += len(piece)
        last = self._undelivered[-1] if self._undelivered else None
        if self._user_gone:
            self._link.passed_on(len(piece))
        elif len(piece) >= SMALL_PIECE or not self._writing:
            self._undelivered.append(piece)
        elif isinstance(last, bytearray) and len(last) < MAX_DATA:
            last += piece
        else:
            self._undelivered.append(bytearray(piece))

    def _deliver(self) -> None:
        """Passes on what has come, and its end, as far as the user takes it."""
        delivered, blocked = 0, False
        try:
            while self._undelivered:
                piece = self._undelivered[0]
                sent = self._socket.send(piece)
                delivered += sent
                if sent == len(piece):
                    self._undelivered.popleft()
                elif isinstance(piece, bytearray):
                    del piece[:sent]
                else:
                    self._undelivered[0] = piece[sent:]
        except BlockingIOError:
            blocked = True
        except OSError:
            self._user_gone = True
            delivered += sum(len(piece) for piece in self._undelivered)
            self._undelivered.clear()
        if blocked != self._writing:
            self._wait_to_write(blocked)
        if self.over:
            if not blocked:
                self._close_pair()
            return
        self._tell(delivered)
        if self._peer_ended and not self._undelivered:
            self._peer_ended = False
            self.end.complete = True
            with suppress(OSError):  # the user is gone, and need not be told
                self._socket.shutdown(socket.SHUT_WR)
            self._link.end_passed_on()

    def _writable(self) -> None:
        self._deliver()
        if not self.over and self._current is not None:
            self._current.flush()
            self._check_over()

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._socket.fileno())
        self._writing = wanted

    def _tell(self, delivered: int) -> None:
        if delivered:
            self._link.passed_on(delivered)
        if self._link.untold and self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_DELAY, self._tell_now)

    def _tell_now(self) -> None:
        self._ack_timer = None
        self._link.acknowledge()
        if self._current is not None:
            self._current.flush()

    # The end

    def _check_over(self) -> None:
        if self.over:
            return
        if self._link.finished:
            self._finish("")
        elif self._user_gone and self._user_ended and not self._link.has_unsent:
            self._break_off("the program closed before it had taken all", TOOK_NO_MORE)

    def _break_off(self, reason: str, words: str) -> None:
        """Ends the link and tells the other end why."""
        if not self.over:
            self._link.reset(words)
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        """Ends the link here. What has come is still delivered, and behind it the end as what it is."""
        if self.over:
            return
        self.over = True
        self._reason = reason
        self._stop_waiting()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        self._input.stop()
        for path in self._paths.values():
            path.part(self._farewells, self._link.data_to_send(path.number))
        self._paths.clear()
        self._current = None
        self._deliver()

    def _close_pair(self) -> None:
        self.end.broken = self._reason
        self._socket.close()
        self._loop.call_soon(self._ended, self._reason)
