"""One connected client of a channel server: what it sends is read here, and what others send it goes out here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tunnelconsole.engine.services.channel.outbox import Outbox
from tunnelconsole.engine.transport.ends import End, unacknowledged
from tunnelconsole.engine.transport.plane import CAN_SPLICE
from tunnelconsole.engine.transport.watch import InputWatch

if TYPE_CHECKING:
    from tunnelconsole.engine.services.channel.direct import Direct
    from tunnelconsole.engine.services.channel.hub import Hub
    from tunnelconsole.engine.sessions import Channel, Session
    from tunnelconsole.engine.transport.pacing import Pace

MAX_LABEL_RECEIVERS = 5
"""Receivers that a label names; a table has no room for more."""


class Party:
    """A client, from the end of its handshake until it is gone; as a flow it is its session's one channel.

    :param early: what came behind its handshake already.
    :param receivers: to whom it sends; empty for all others.
    """

    __slots__ = (
        "_early",
        "_hub",
        "_input",
        "_loop",
        "_pause",
        "_writing",
        "absent",
        "blocked_on",
        "blocking",
        "channel",
        "chid",
        "direct_in",
        "direct_out",
        "dropped",
        "end",
        "ended",
        "identity",
        "outbox",
        "over",
        "pace",
        "peer",
        "received",
        "receivers",
        "receives",
        "sent",
        "session",
        "targets",
        "undelivered",
        "version",
    )

    def __init__(
        self,
        hub: Hub,
        end: End,
        peer: str,
        identity: str,
        chid: str,
        receivers: tuple[str, ...],
        early: bytes,
        pace: Pace | None = None,
    ) -> None:
        self._hub = hub
        self.pace = pace
        """What limits how fast it is read; None for no limit."""
        self._loop = hub.loop
        self._early = early
        self._input = InputWatch(hub.loop, end.fileno(), self._readable)
        self._pause: asyncio.Handle | None = None
        self._writing = False
        self.end = end
        self.peer = peer
        self.identity = identity
        self.chid = chid
        self.receivers = receivers
        self.outbox = Outbox(hub.buffer)
        self.session: Session | None = None
        self.channel: Channel | None = None
        self.direct_in: Direct | None = None
        self.direct_out: Direct | None = None
        self.blocked_on: Party | None = None
        """The receiver without room for which it is not read."""
        self.blocking: dict[Party, None] = {}
        """Senders that are not read because this one has no room."""
        self.targets: tuple[Party, ...] = ()
        """Its receivers that are there, as of ``version`` of the routes."""
        self.absent: tuple[str, ...] = ()
        """Those that it names and that are not."""
        self.version = -1
        self.received = 0
        """Bytes that came from it, but for what is spliced now."""
        self.sent = 0
        """Bytes that its kernel has taken, but for what is spliced now."""
        self.dropped = 0
        """Bytes for it that were lost."""
        self.undelivered = 0
        """Bytes from it for receivers that were not there."""
        self.receives = True
        """Whether others can send to it; False once sending to it has failed."""
        self.ended = False
        """Whether it has closed its sending side."""
        self.over = False

    @property
    def bytes_in(self) -> int:
        """Bytes that came from it."""
        return self.received + (self.direct_out.half.total if self.direct_out is not None else 0)

    @property
    def bytes_out(self) -> int:
        """Bytes that went to it."""
        return self.sent + (self.direct_in.delivered if self.direct_in is not None else 0)

    @property
    def path(self) -> str:
        """``splice`` while what it sends is spliced, else ``tcp`` or ``tls``."""
        return "splice" if self.direct_out is not None and CAN_SPLICE else self.end.path

    @property
    def waiting(self) -> int:
        """Bytes that were read for it and wait until it takes them."""
        return self.outbox.waiting + (self.direct_in.half.undelivered if self.direct_in is not None else 0)

    @property
    def writing(self) -> bool:
        """Whether there is something for it that it does not take now."""
        return self._writing

    @property
    def receivers_label(self) -> str:
        """To whom it sends, in a few words."""
        if not self.receivers:
            return "all"
        more = len(self.receivers) - MAX_LABEL_RECEIVERS
        return ", ".join(self.receivers[:MAX_LABEL_RECEIVERS]) + (f" and {more} more" if more > 0 else "")

    @property
    def label(self) -> str:
        """Who it is, and to whom it sends."""
        return f"{self.chid} -> {self.receivers_label}"

    def held_up(self) -> bool:
        """Whether it may have sent more than its receivers take, so that its silence is theirs."""
        if self.direct_out is not None:
            return self.direct_out.half.undelivered > 0
        return self.blocked_on is not None or self._pause is not None

    def read_on(self) -> None:
        """Reads as it sends, unless there is a reason not to, which then calls this when it is over."""
        if self.over or self.ended or self._pause is not None or self.direct_out is not None:
            return
        if self.blocked_on is not None:
            self._input.stop()
        elif self._early or self.end.holds_input():
            self._input.stop()
            self._pause = self._loop.call_soon(self._resume)
        else:
            self._input.start()

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps what it sends to another rate from now on; None for no limit."""
        self.pace = pace
        if self.over or self.ended:
            return
        if self._pause is not None:
            self._stop_pausing()
            self.read_on()
        self._hub.paced_anew(self)

    def hand_over(self) -> bytes:
        """Lets somebody else read from it from now on, at once; returns what is to come before that."""
        self._stop_pausing()
        self._input.hand_over()
        early, self._early = self._early, b""
        return early

    def deliver(self, data: bytes) -> None:
        """Sends ``data``, or queues what it does not take now; the caller has looked at the outbox's room."""
        rest: bytes | memoryview = data
        if not self.outbox.waiting:
            try:
                sent = self.end.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.fail(error, len(data))
                return
            self.sent += sent
            if sent == len(data):
                if not self.end.flush():
                    self._wait_to_write(wanted=True)
                return
            rest = memoryview(data)[sent:]
        self.outbox.add(rest)
        self._wait_to_write(wanted=True)

    def deliver_first(self, data: bytes) -> None:
        """Queues ``data`` before anything else, and beyond the outbox's capacity."""
        self.outbox.add_first(data)
        self._wait_to_write(wanted=bool(data))

    def lose(self, size: int, reason: str) -> None:
        """Counts bytes for it that it will not get."""
        self.dropped += size
        self._hub.lost(self, size, reason)

    def fail(self, error: OSError, size: int = 0) -> None:
        """It takes nothing more; what it sent before that is still to be read, as far as it goes.

        :param size: bytes that were just tried.
        """
        self.receives = False
        self._wait_to_write(wanted=False)
        self._hub.unreachable(self)
        size += self.outbox.clear()
        if self.ended:
            size += self._take_back_unconfirmed()
        self.lose(size, "it broke off before it had taken them")
        if self.ended:
            self.finish(_cause(error))

    def fail_receiving(self, error: OSError) -> None:
        """It is gone, and sends nothing more."""
        self.finish(_cause(error))

    def abort(self, reason: str) -> None:
        """Ends it now, with a reset."""
        self.finish(reason)

    def finish(self, reason: str) -> None:
        """Ends it: with a reset when there is a reason, in order when there is none."""
        if self.over:
            return
        self.over = True
        self.receives = False
        if self.ended:
            self._hub.breaks.remove(self.end.fileno())
        self._hub.leave(self)
        self._stop_pausing()
        self._input.stop()
        self._wait_to_write(wanted=False)
        self.lose(self.outbox.clear(), "it left before it had taken them")
        if reason:
            self.end.abort()
        else:
            self.end.close()
        self._hub.gone(self, reason)

    def end_sending(self) -> None:
        """It has closed its sending side: what was sent to it before still goes out, and the hub says what else."""
        self.ended = True
        self._input.stop()
        if self.receives:
            self._hub.breaks.add(self.end.fileno(), self.fail)
            self._hub.ended(self)
        else:
            self.finish("connection reset")

    def _take_back_unconfirmed(self) -> int:
        """Counts as not sent what its kernel has not confirmed: it had closed before that came, or has vanished.

        Over TLS that may be some bytes too many, since the kernel counts ciphertext.
        """
        size = min(self.sent, unacknowledged(self.end))
        self.sent -= size
        return size

    def _stop_pausing(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _resume(self) -> None:
        self._pause = None
        if self.blocked_on is None:
            self._readable()

    def _readable(self) -> None:
        hub = self._hub
        size = hub.room_for(self)
        if not size:
            self._input.stop()
            return
        try:
            data = self._take(size)
        except BlockingIOError:
            self._input.start()
            return
        except OSError as error:
            self.fail_receiving(error)
            return
        if not data:
            self.end_sending()
            return
        self.received += len(data)
        hub.pass_on(self, data)
        wait = hub.pause_after(self, len(data))
        if wait > 0 and not self.over:
            self._input.stop()
            self._pause = self._loop.call_later(wait, self._resume)
        elif self._early or not self._input.active or self.end.holds_input():
            self.read_on()

    def _take(self, size: int) -> bytes:
        if not self._early:
            return self.end.receive(size)
        data, self._early = self._early[:size], self._early[size:]
        return data

    def _wait_to_write(self, *, wanted: bool) -> None:
        if wanted == self._writing:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self.end.fileno(), self._writable)
        else:
            self._loop.remove_writer(self.end.fileno())

    def _writable(self) -> None:
        before = self.outbox.waiting
        try:
            self.outbox.send_to(self.end)
            done = self.end.flush() and not self.outbox.waiting
        except OSError as error:
            self.sent += before - self.outbox.waiting
            self.fail(error)
            return
        self.sent += before - self.outbox.waiting
        self._wait_to_write(wanted=not done)
        self._hub.drained(self, empty=done)


def _cause(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset"
    return error.strerror or str(error)
