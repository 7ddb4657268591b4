"""The two directions of a sealed exchange: to the channel server, and from it. Importing this loads the ciphers."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunnelconsole.engine.transport.buffered import BufferedHalf
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.half import HalfOwner
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_beginnings import NOBODYS, NOTHING, beginning_of
from tunnelconsole.engine.wire.sealed_records import (
    BrokenOff,
    Ended,
    Heard,
    KeyWanted,
    Opened,
    Opener,
    OpenerEvent,
    Reported,
    Sealer,
    Superseded,
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

    def came(self, *, more: bool) -> None:
        """Something of the stream that answers ours has come.

        :param more: whether that was more than reports.
        """

    def reported(self, report: Reported) -> None:
        """The other end has said what it has received."""

    def received_all(self) -> None:
        """The text of the other end is complete, and the local end has it, if it takes any."""

    def sent(self) -> None:
        """Text has been sealed for the other end."""

    def sent_all(self) -> None:
        """The local end has closed its sending side in order, and our stream says so."""

    def refused(self) -> None:
        """The local end sends text that the other end does not take any more."""

    def broken_off(self, reason: str) -> None:
        """The other end has broken off."""

    def superseded(self, reason: str) -> None:
        """Somebody seems to know nothing of the exchange any more, or to have begun another."""

    def local_broken(self) -> None:
        """The local end has gone, and not in order."""

    def garbage(self) -> None:
        """What came before the stream that answers ours belongs to nothing."""

    def fault(self, reason: str) -> None:
        """What came is not what was sealed."""

    def hub_ended(self) -> None:
        """The channel server has closed the connection."""


class SealingHalf(BufferedHalf):
    """From the local end to the channel server: our beginning until :meth:`open`, then what there is, sealed.

    It outlives the text: reports follow it.
    """

    __slots__ = (
        "_answered",
        "_exchange",
        "_held",
        "_hello",
        "_hello_left",
        "_interval",
        "_said",
        "_salt",
        "sealer",
        "text_over",
        "unwanted",
    )

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, local: End, pace: Pace | None, salt: bytes
    ) -> None:
        super().__init__(exchange, loop, local, exchange.hub, pace, passes_end=False)
        self._exchange = exchange
        self._salt = salt
        self._answered = NOBODYS
        self.sealer: Sealer | None = None
        """What seals what there is; None until :meth:`open`."""
        self.text_over = False
        """Whether the local end has closed its sending side."""
        self.unwanted = False
        """Whether the other end takes no more text."""
        self._held = b""
        self._hello: asyncio.Handle | None = None
        self._hello_left = b""
        self._interval = FIRST_HELLO
        self._said = loop.time() - LONGEST_HELLO

    @property
    def flushed(self) -> bool:
        """Whether the channel server's kernel has all that was sealed."""
        return not self._pending

    def start(self, early: bytes) -> None:
        super().start(early)
        self._hello = self._loop.call_soon(self._say_hello)

    def answer(self, salt: bytes) -> None:
        """Says our beginning as an answer to the stream with ``salt``, soon."""
        if salt == self._answered or self.sealer is not None or self.over:
            return
        self._answered = salt
        self._interval = FIRST_HELLO
        self._stop_hello()
        self._hello = self._loop.call_at(self._said + SOONEST_HELLO, self._say_hello)

    def open(self, key: bytes) -> Sealer:
        """Seals from now on, for whom we have answered last: a report, from which the other end sees that our keys are
        the same, and what there is.
        """
        self._stop_hello()
        self.sealer = Sealer(key, self._salt, self._answered)
        self._pending = self._hello_left + self.sealer.report(0) + self._sealed(self._held)
        self._held = self._hello_left = b""
        self._go_on()
        return self.sealer

    def say(self, record: bytes) -> None:
        """Sends a record of ours behind what there is."""
        self._pending = bytes(self._pending) + record
        self._go_on()

    def stop_taking(self) -> None:
        """Takes no more text from the local end."""
        self.text_over = True
        self._input.stop()

    def _go_on(self) -> None:
        if self._pause is None and self._deliver():
            self._read_on()

    def last_words(self, key: bytes | None, *, did_not_open: bool) -> bytes:
        """What is still to be sent so that our stream is over, broken off.

        :param key: of our stream, where it is made.
        """
        words = self.unsaid()
        if self.sealer is None and key is not None and self._answered != NOBODYS:
            self.sealer = Sealer(key, self._salt, self._answered)
        # The last is for an end that cannot open what is sealed, or is not given it.
        return words if self.sealer is None else words + self.sealer.break_off(did_not_open=did_not_open) + NOTHING

    def unsaid(self) -> bytes:
        """What was begun to be said, and is still to be sent."""
        return self._hello_left + bytes(self._pending)

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

    def _readable(self) -> None:
        if not self.text_over:
            super()._readable()

    def _arrived(self, data: bytes) -> None:
        if data and self.unwanted:
            self.total += len(data)
            self._exchange.refused()
            return
        if not data:
            self.stop_taking()
        self._take(data)
        if self._deliver():
            self._read_on()

    def _take(self, data: bytes) -> None:
        super()._take(data)
        if self.sealer is None:
            self._held, self._pending = data, b""
        else:
            self._pending = self._sealed(data)

    def _sealed(self, text: bytes) -> bytes:
        """What travels in place of ``text``, and the end where that has been read."""
        if self.sealer is None:
            raise RuntimeError("nothing can be sealed yet")
        sealed = self.sealer.seal(text)
        if text:
            self._exchange.sent()
        if not self.text_over:
            return sealed
        if self.source_broken:
            self._loop.call_soon(self._exchange.local_broken)
            return sealed
        self._loop.call_soon(self._exchange.sent_all)
        return sealed + self.sealer.end()

    def _deliver(self) -> bool:
        if self.sealer is not None:
            return super()._deliver()
        if self._held or self.text_over:
            self._input.stop()
        else:
            self._input.start()
        return False

    def _read_on(self) -> None:
        if self.text_over:
            self._input.stop()
        else:
            super()._read_on()

    def cut(self) -> None:
        self._stop_hello()
        super().cut()


class OpeningHalf(BufferedHalf):
    """From the channel server to the local end: the stream that answers ours, opened.

    It outlives the text: reports follow it.
    """

    __slots__ = ("_exchange", "_opener", "_received", "_text_ended", "_threw_away", "deaf", "text_over")

    def __init__(
        self, exchange: Exchange, loop: asyncio.AbstractEventLoop, local: End, pace: Pace | None, own_salt: bytes
    ) -> None:
        super().__init__(exchange, loop, exchange.hub, local, pace)
        self._exchange = exchange
        self._opener = Opener(own_salt)
        self._received = 0
        self._text_ended = False
        self._threw_away = False
        self.text_over = False
        """Whether the local end has all of the text, and its end; or has to do without."""
        self.deaf = False
        """Whether the local end takes no more."""

    @property
    def begun(self) -> bool:
        """Whether there is a stream that answers ours."""
        return self._opener.begun

    @property
    def leftover(self) -> bytes:
        """What came behind the stream."""
        return self._opener.leftover

    @property
    def held_up(self) -> bool:
        """Whether it does not read: the local end takes nothing now, or a rate does not let it."""
        return bool(self._pending) or self._pause is not None

    @property
    def received(self) -> int:
        """Records that have come, and whose text the local end has."""
        if not self._pending and not self._threw_away:
            self._received = self._opener.count
        return self._received

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

    def deafen(self) -> None:
        """Throws text away from now on; what is not text still counts."""
        if self.deaf or self.over:
            return
        self.deaf = True
        self._throw_away(bool(self._pending))
        self._stop_writing()
        if self._pause is None:
            self._read_on()

    def _throw_away(self, something: bool) -> None:
        if something:
            self._threw_away = True
            self._pending = b""

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
        self._received = self.received
        try:
            events = self._opener.receive_data(data)
        except ProtocolError as error:
            self._exchange.fault(str(error))
            return
        if self._opener.begun:
            more = self._opener.holds_part or any(isinstance(event, Opened) for event in events)
            self._exchange.came(more=more)
        elif self._opener.thrown_away:
            self._exchange.garbage()
        self._go_on(events)

    def _go_on(self, events: list[OpenerEvent]) -> None:
        texts = [event.text for event in events if isinstance(event, Opened)]
        self._text_ended |= any(isinstance(event, Ended) for event in events)
        if self.deaf:
            self._throw_away(bool(texts))
            texts = []
        self._take(b"".join(texts))
        goes_on = self._deliver()
        for event in events:
            if self.over:
                return
            match event:
                case Heard(salt):
                    self._exchange.heard(salt)
                case KeyWanted(salt):
                    self._exchange.answered(salt)
                case Reported():
                    self._exchange.reported(event)
                case BrokenOff(reason):
                    self._exchange.broken_off(reason)
                case Superseded(reason):
                    self._exchange.superseded(reason)
        if goes_on and not self.over:
            self._read_on()

    def _deliver(self) -> bool:
        if not super()._deliver():
            return False
        if self._text_ended and not self.text_over:
            if not self.deaf:
                self._pass_end_on()
            self.text_over = True
            self._exchange.received_all()
        return not self.over

    def _read_on(self) -> None:
        if self._opener.waits_for_key:
            self._input.stop()
        else:
            super()._read_on()
