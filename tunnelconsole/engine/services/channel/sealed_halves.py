"""The two directions of a sealed exchange: to the channel server, and from it. Importing this loads the ciphers."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.half import HalfOwner
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_records import (
    NOBODYS,
    BrokenOff,
    Ended,
    Heard,
    KeyWanted,
    Opened,
    Opener,
    OpenerEvent,
    Sealer,
    beginning_of,
)

SOONEST_HELLO = 0.01
"""Seconds between two of our beginnings at the least, where there is somebody to answer."""

FIRST_HELLO = 0.1
"""Seconds after which a beginning that nobody answers is said again: the other end may be about to join."""

LONGEST_HELLO = 1.0
"""Seconds between two of our beginnings at the most: 40 bytes a second, for an end that starts as soon as it can."""


class Exchange(HalfOwner, Protocol):
    """The bridge, as its directions see it."""

    hub: End

    def heard(self, salt: bytes) -> None:
        """Somebody has begun a stream, and has not heard of ours."""

    def answered(self, salt: bytes) -> None:
        """The other end answers us with its stream, and its key is wanted."""

    def broken_off(self, reason: str) -> None:
        """The other end is done with the exchange, but not in order."""

    def garbage(self) -> None:
        """What came before the stream that answers ours belongs to nothing."""

    def fault(self, reason: str) -> None:
        """What came is not what was sealed."""

    def hub_ended(self) -> None:
        """The channel server has closed the connection."""


class SealingHalf(BufferedHalf):
    """From the local end to the channel server: our beginning until :meth:`open`, then what there is, sealed."""

    __slots__ = ("_answered", "_exchange", "_held", "_hello", "_hello_left", "_interval", "_said", "_salt", "_sealer")

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, local: End, pace: Pace | None, salt: bytes
    ) -> None:
        super().__init__(exchange, loop, local, exchange.hub, pace, passes_end=False)
        self._exchange = exchange
        self._salt = salt
        self._answered = NOBODYS
        self._sealer: Sealer | None = None
        self._held = b""
        self._hello: asyncio.Handle | None = None
        self._hello_left = b""
        self._interval = FIRST_HELLO
        self._said = loop.time() - LONGEST_HELLO

    @property
    def opened(self) -> bool:
        """Whether it sends what there is."""
        return self._sealer is not None

    @property
    def source_ended(self) -> bool:
        """Whether the local end has closed its sending side."""
        return self._source_ended

    def start(self, early: bytes) -> None:
        super().start(early)
        self._hello = self._loop.call_soon(self._say_hello)

    def answer(self, salt: bytes) -> None:
        """Says our beginning as an answer to the stream with ``salt``, soon."""
        if salt == self._answered or self.opened or self.over:
            return
        self._answered = salt
        self._interval = FIRST_HELLO
        self._stop_hello()
        self._hello = self._loop.call_at(self._said + SOONEST_HELLO, self._say_hello)

    def open(self, key: bytes) -> None:
        """Sends from now on what there is, to whom we have answered last."""
        self._stop_hello()
        self._sealer = Sealer(key, self._salt, self._answered)
        self._pending = self._hello_left + self._sealed(self._held)
        self._held = self._hello_left = b""
        if self._pause is None and self._deliver():
            self._read_on()

    def last_words(self, key: bytes | None) -> bytes:
        """What is still to be sent so that our stream is over; it is broken off unless its end was read.

        :param key: of our stream, where it is made.
        """
        words = self._hello_left + bytes(self._pending)
        if self.over or (self.opened and self._source_ended):
            return words
        if self._sealer is None and key is not None and self._answered != NOBODYS:
            self._sealer = Sealer(key, self._salt, self._answered)
        return words if self._sealer is None else words + self._sealer.finish(broken_off=True)

    def _say_hello(self) -> None:
        self._said = self._loop.time()
        self._hello = self._loop.call_later(self._interval, self._say_hello)
        self._interval = min(2 * self._interval, LONGEST_HELLO)
        try:
            if not self._hello_left:
                self._hello_left = beginning_of(self._salt, self._answered)
            self._hello_left = self._hello_left[self._destination.send(self._hello_left) :]
        except BlockingIOError:
            pass  # it goes out with the next one
        except OSError as error:
            self.owner.half_broken(self, error, sending=True)

    def _stop_hello(self) -> None:
        if self._hello is not None:
            self._hello.cancel()
            self._hello = None

    def _take(self, data: bytes) -> None:
        super()._take(data)
        if self._sealer is None:
            self._held, self._pending = data, b""
        else:
            self._pending = self._sealed(data)

    def _sealed(self, text: bytes) -> bytes:
        """What travels in place of ``text``, and the end where that has been read."""
        if self._sealer is None:
            raise RuntimeError("nothing can be sealed yet")
        sealed = self._sealer.seal(text)
        return sealed + self._sealer.finish(broken_off=self.source_broken) if self._source_ended else sealed

    def _deliver(self) -> bool:
        if self._sealer is not None:
            return super()._deliver()
        if self._held or self._source_ended:
            self._input.stop()
        else:
            self._input.start()
        return False

    def cut(self) -> None:
        self._stop_hello()
        super().cut()


class OpeningHalf(BufferedHalf):
    """From the channel server to the local end: the stream that answers ours, opened."""

    __slots__ = ("_exchange", "_opener")

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, local: End, pace: Pace | None, own_salt: bytes
    ) -> None:
        super().__init__(exchange, loop, exchange.hub, local, pace)
        self._exchange = exchange
        self._opener = Opener(own_salt)

    @property
    def begun(self) -> bool:
        """Whether there is one."""
        return self._opener.begun

    @property
    def leftover(self) -> bytes:
        """What came behind the stream."""
        return self._opener.leftover

    def start(self, early: bytes) -> None:
        self._pause = self._loop.call_soon(self._begin, early)

    def use_key(self, key: bytes) -> None:
        """Goes on with the key that was wanted."""
        try:
            events = self._opener.use_key(key)
        except ProtocolError as error:
            self._exchange.fault(str(error))
        else:
            self._go_on(events)

    def _begin(self, early: bytes) -> None:
        self._pause = None
        if early:
            self._arrived(early)
        else:
            self._read_on()

    def _arrived(self, data: bytes) -> None:
        if not data:
            self._exchange.hub_ended()
            return
        try:
            events = self._opener.receive_data(data)
        except ProtocolError as error:
            self._exchange.fault(str(error))
            return
        if self._opener.thrown_away and not self._opener.begun:
            self._exchange.garbage()
        self._go_on(events)

    def _go_on(self, events: list[OpenerEvent]) -> None:
        texts: list[bytes] = []
        for event in events:
            match event:
                case Opened(text):
                    texts.append(text)
                case Heard(salt):
                    self._exchange.heard(salt)
                case KeyWanted(salt):
                    self._exchange.answered(salt)
                case Ended():
                    self._source_ended = True
                case BrokenOff(reason):
                    self._exchange.broken_off(reason)
        if self.over:
            return
        self._take(b"".join(texts))
        if self._deliver():
            self._read_on()

    def _read_on(self) -> None:
        if self._opener.waits_for_key:
            self._input.stop()
        else:
            super()._read_on()
