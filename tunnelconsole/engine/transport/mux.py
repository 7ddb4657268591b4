"""yamux over an end: reads and writes the session by callbacks, and hands each stream's news to whoever uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.first_bytes import ENOUGH
from tunnelconsole.engine.wire.yamux import GO_AWAY_NORMAL, MAX_STREAMS, YamuxSession
from tunnelconsole.engine.wire.yamux_events import (
    DataReceived,
    Event,
    GoneAway,
    HalfClosed,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    WindowOpened,
)

MUX_READ: Final = 128 * 1024
"""Bytes read at once from a session: two full frames of a bulk stream."""

HIGH_WATER: Final = 512 * 1024
"""Bytes waiting to be sent from which streams are told to stop reading their own source."""


class StreamUser(Protocol):
    """Whoever uses one stream of a session."""

    def accepted(self, extra_window: int) -> None:
        """The remote acknowledged the stream that we opened."""

    def received(self, data: bytes) -> None:
        """Bytes came; call :meth:`Mux.consumed` once they are passed on."""

    def can_send(self) -> None:
        """The window or the connection has room again, after it had none."""

    def half_closed(self) -> None:
        """The remote sends no more on this stream."""

    def lost(self, reason: str) -> None:
        """The stream is over, both ways: reset by the remote, or the whole session ended."""


class QuietUser:
    """A user who takes no notice; the base of those who care about some news only."""

    def accepted(self, extra_window: int) -> None:
        """See :class:`StreamUser`."""

    def received(self, data: bytes) -> None:
        """Thrown away; and as it is never consumed, the remote can send no more than one window of it."""

    def can_send(self) -> None:
        """See :class:`StreamUser`."""

    def half_closed(self) -> None:
        """See :class:`StreamUser`."""

    def lost(self, reason: str) -> None:
        """See :class:`StreamUser`."""


class Mux:
    """One yamux session over ``end``, which it owns.

    :param client: True on the side that dialled.
    :param opened: told the id of each stream that the remote opens; calls :meth:`accept` or :meth:`reject` before it
        returns, because the stream's bytes may follow at once.
    :param closed: told once, when the session has ended, and why ("" for an orderly end).
    :param keepalive: seconds between two pings; a remote that is silent that long after one counts as dead.
    :param farewells: who says our last words to ``end``.
    :param early: what the remote has sent already.
    :param leaving: told when the remote accepts no new streams any more, while those there are go on.
    :param caught_up: told when the remote is not :attr:`behind` any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        end: End,
        *,
        client: bool,
        opened: Callable[[int], None],
        closed: Callable[[str], None],
        keepalive: float,
        farewells: Farewells,
        early: bytes = b"",
        leaving: Callable[[], None] | None = None,
        caught_up: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._end = end
        self._session = YamuxSession(client)
        self._opened = opened
        self._closed = closed
        self._leaving = leaving
        self._caught_up = caught_up
        self._was_behind = False
        self._keepalive = keepalive
        self._farewells = farewells
        self._users: dict[int, StreamUser] = {}
        self._starved: set[int] = set()
        """Streams that wait for more window."""
        self._held_up: dict[int, None] = {}
        """Streams that wait until less is to be sent, the longest waiting first."""
        self._unsent: memoryview = memoryview(b"")
        self._writing = False
        self._input = InputWatch(loop, end.fileno(), self._readable)
        self._flushing: asyncio.Handle | None = None
        self._waking = False
        self._after_flush: list[Callable[[], None]] = []
        self._early = early
        self._heard = True
        self.first = early[:ENOUGH]
        """The first bytes of the remote, until they are understood."""
        self._pings = 0
        self.over = False
        self.remote_leaving = False
        """True once the remote said that it accepts no new streams."""
        self._timer = loop.call_later(keepalive, self._check_alive)
        self._starting: asyncio.Handle | None = loop.call_soon(self._start)

    @property
    def congested(self) -> bool:
        """True while so much waits to be sent that streams should not add to it."""
        return len(self._unsent) + self._session.pending_bytes > HIGH_WATER

    @property
    def crowded(self) -> bool:
        """True while half of the streams that a session may have are there: those that are done should not linger."""
        return 2 * self._session.streams > MAX_STREAMS

    @property
    def behind(self) -> bool:
        """True while the remote must acknowledge streams of ours before it is given more of them."""
        return not self.over and self._session.backlogged

    @property
    def flushed(self) -> bool:
        """True when all that was sent is with the kernel."""
        return not self._unsent and not self._session.pending_bytes and not self._writing

    @property
    def path(self) -> str:
        """How the session itself travels: ``tcp`` or ``tls``."""
        return self._end.path

    def open(self, user: StreamUser) -> int | None:
        """Opens a stream for ``user`` and returns its id; None when the session takes no more, or is :attr:`behind`."""
        if self.over or not self._session.can_open:
            return None
        stream_id = self._session.open_stream()
        self._was_behind = self.behind
        self._users[stream_id] = user
        self._flush_soon()
        return stream_id

    @property
    def next_stream(self) -> int | None:
        """The id that :meth:`open` would give now; None when it would give none."""
        return None if self.over or not self._session.can_open else self._session.next_id

    def accept(self, stream_id: int, user: StreamUser, extra_window: int = 0) -> None:
        """Takes a stream that the remote opened."""
        self._users[stream_id] = user
        self._session.accept(stream_id, extra_window)
        self._flush_soon()

    def adopt(self, stream_id: int, user: StreamUser) -> bool:
        """Gives a stream another user; False when it is over, and nothing will be heard of it."""
        if stream_id not in self._users:
            return False
        self._users[stream_id] = user
        return True

    def reject(self, stream_id: int) -> None:
        """Turns a stream that the remote opened away, or ends one of ours, both ways."""
        self._session.reset(stream_id)
        self.forget(stream_id)
        self._flush_soon()

    def room(self, stream_id: int) -> int:
        """Bytes the stream can take now; when that is 0, :meth:`StreamUser.can_send` is called once it is more."""
        if self.congested:
            self._held_up[stream_id] = None
            return 0
        room = self._session.send_window(stream_id)
        if not room:
            self._starved.add(stream_id)
        return room

    def send(self, stream_id: int, data: bytes) -> None:
        """Sends ``data``, no more than :meth:`room` said."""
        self._session.send_data(stream_id, data)
        self._flush()

    def send_eof(self, stream_id: int) -> None:
        """Sends no more on this stream; receiving goes on."""
        self._session.send_eof(stream_id)
        self._flush_soon()

    def consumed(self, stream_id: int, count: int) -> None:
        """Says that received bytes have been passed on, so that the remote may send more."""
        self._session.consumed(stream_id, count)
        self._flush_soon()

    def call_when_flushed(self, callback: Callable[[], None]) -> None:
        """Calls back once when all that has been sent is with the kernel, unless the session ends before."""
        self._after_flush.append(callback)
        self._flush_soon()

    def forget(self, stream_id: int) -> None:
        """Ends the use of a stream that is over both ways."""
        self._users.pop(stream_id, None)
        self._starved.discard(stream_id)
        self._held_up.pop(stream_id, None)

    def go_away(self) -> None:
        """Asks the remote to open no more streams; those that live go on."""
        if not self.over:
            self._session.go_away()
            self._flush()

    def close(self, reason: str = "") -> None:
        """Ends the session and every stream in it; safe to call twice.

        Without a reason, what was sent before still arrives.
        """
        self._end_all(reason, farewell=not reason)

    def _end_all(self, reason: str, *, farewell: bool) -> None:
        if self.over:
            return
        self.over = True
        self._timer.cancel()
        for handle in (self._starting, self._flushing):
            if handle is not None:
                handle.cancel()
        self._input.stop()
        if self._writing:
            self._loop.remove_writer(self._end.fileno())
        users, self._users = self._users, {}
        for user in users.values():
            user.lost(reason or "the session ended")
        if farewell:
            self._farewells.bid(self._end, b"".join([self._unsent, *self._session.data_to_send()]))
        else:
            self._end.close()
        self._loop.call_soon(self._closed, reason)

    def _start(self) -> None:
        self._starting = None
        self._input.start()
        self._flush()
        if self._early:
            early, self._early = self._early, b""
            self._take(early)
        if self._end.holds_input():
            self._readable()

    def _check_alive(self) -> None:
        if not self._heard:
            self.close(f"nothing heard for {self._keepalive:g} s after a keepalive")
            return
        self._heard = False
        self._pings = (self._pings + 1) % 2**32
        self._session.ping(self._pings)
        self._timer = self._loop.call_later(self._keepalive, self._check_alive)
        self._flush()

    def _readable(self) -> None:
        while not self.over:
            try:
                data = self._end.receive(MUX_READ)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"connection lost: {error.strerror or error}")
                return
            if not data:
                self._end_all("", farewell=False)  # nobody is there to hear our last words
                return
            self._take(data)
            if not self._end.holds_input():
                return

    def _take(self, data: bytes) -> None:
        self._heard = True
        self.first = self.first or data[:ENOUGH]
        try:
            events = self._session.receive_data(data)
        except ProtocolError as error:
            self._end_all(f"protocol error: {error}", farewell=True)
            return
        try:
            for event in events:
                if self.over:
                    return
                self._hand_out(event)
        except Exception as error:
            # A fault of ours: what the other streams were to hear is lost, so none of them can go on.
            self.close(f"internal fault: {type(error).__name__}: {error}")
            raise
        self._flush()

    def _hand_out(self, event: Event) -> None:
        match event:
            case StreamOpened(stream_id):
                self._opened(stream_id)
            case StreamReset(stream_id):
                user = self._users.get(stream_id)
                self.forget(stream_id)
                if user is not None:
                    user.lost("reset by the other side")
            case GoneAway(code):
                self.remote_leaving = True
                if code != GO_AWAY_NORMAL:
                    self.close(f"the other side ended the session with code {code}")
                elif self._leaving is not None:
                    self._leaving()
            case DataReceived(stream_id) | WindowOpened(stream_id) | StreamAccepted(stream_id) | HalfClosed(stream_id):
                user = self._users.get(stream_id)
                if user is not None:
                    self._tell(user, event)

    def _tell(self, user: StreamUser, event: Event) -> None:
        """Tells the user of a stream its news."""
        match event:
            case DataReceived(_, data):
                user.received(data)
            case WindowOpened(stream_id):
                if stream_id in self._starved:
                    self._starved.discard(stream_id)
                    user.can_send()
            case StreamAccepted(_, extra_window):
                user.accepted(extra_window)
            case HalfClosed():
                user.half_closed()

    def _flush_soon(self) -> None:
        if self._flushing is None and not self.over:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self.over or self._starting is not None:
            return
        try:
            while self._unsent or self._session.pending_bytes:
                if not self._unsent:
                    self._unsent = memoryview(b"".join(self._session.data_to_send()))
                self._unsent = self._unsent[self._end.send(self._unsent) :]
            drained = self._end.flush()
        except BlockingIOError:
            drained = False
        except OSError as error:
            self.close(f"connection lost: {error.strerror or error}")
            return
        if drained == self._writing:
            self._wait_to_write(not drained)
        if drained and not self._waking:
            self._after_drain()

    def _after_drain(self) -> None:
        """Tells those who wait. What they send then is flushed at once, which must not lead here again and again."""
        self._waking = True
        try:
            callbacks, self._after_flush = self._after_flush, []
            for callback in callbacks:
                callback()
            if self._was_behind and not self.behind:
                self._was_behind = False
                if self._caught_up is not None:
                    self._caught_up()
            while self._held_up and not self.congested:
                stream_id = next(iter(self._held_up))
                del self._held_up[stream_id]
                user = self._users.get(stream_id)
                if user is not None:
                    user.can_send()
        finally:
            self._waking = False

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._end.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._end.fileno())
        self._writing = wanted
