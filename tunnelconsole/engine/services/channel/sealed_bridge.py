"""Joins a local end with the channel server so that the server sees only ciphertext. Importing this loads the ciphers.

:mod:`tunnelconsole.engine.wire.sealed_records` has the streams, one each way. Each exchange has two of its own: a local
end and its next one never share any.
"""

from __future__ import annotations

import asyncio

from tunnelconsole.engine.services.channel.bridge import Ended, Outcome
from tunnelconsole.engine.services.channel.sealed_halves import OpeningHalf, SealingHalf
from tunnelconsole.engine.services.channel.sealed_key import SharedKey
from tunnelconsole.engine.services.channel.sealed_vigil import Vigil
from tunnelconsole.engine.services.channel.uplink import GARBAGE_TIME
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.half import Half
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_accounts import Accounts
from tunnelconsole.engine.wire.sealed_beginnings import NOTHING
from tunnelconsole.engine.wire.sealed_records import Mark, Reported, Sealer

_REFUSED = "the other end left before it had taken all that was sent"


class SealedBridge:
    """Joins ``local`` with ``hub``, sealed, until both streams are over; as a flow its remote party is the local end.

    It ends in order only once the other end has confirmed that it has all of the text, and this end has all of the
    other's; :mod:`tunnelconsole.engine.wire.sealed_accounts` has the rules. It owns ``local`` and closes it; ``hub``
    stays open.

    :param early: what the channel server brought before.
    :param pace: limits both directions together to a rate; None for no limit.
    :param patience: seconds that a local end which has closed its sending side is kept while the other end has not
        come; None for ever.
    """

    __slots__ = (
        "_accounts",
        "_ended",
        "_garbage_timer",
        "_key",
        "_leaves",
        "_local",
        "_loop",
        "_over",
        "_own_key",
        "_patience",
        "_patience_timer",
        "_peer_key",
        "_sealer",
        "_to_hub",
        "_to_local",
        "_unread",
        "_vigil",
        "hub",
        "reason",
    )
    path = "sealed"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: End,
        hub: End,
        key: SharedKey,
        ended: Ended,
        *,
        early: bytes = b"",
        pace: Pace | None = None,
        patience: float | None = None,
    ) -> None:
        self._loop = loop
        self._local = local
        self.hub = hub
        self._key = key
        self._ended = ended
        self._over = False
        self.reason = ""
        """Why it ended; empty where it did in order, or has not."""
        self._unread = False
        self._leaves = False
        self._garbage_timer: asyncio.TimerHandle | None = None
        self._patience = patience
        self._patience_timer: asyncio.TimerHandle | None = None
        self._sealer: Sealer | None = None
        self._accounts: Accounts | None = None
        self._vigil: Vigil | None = None
        self._peer_key: asyncio.Future[bytes] | None = None
        salt, self._own_key = key.own()
        self._own_key.add_done_callback(self._open_when_ready)
        self._to_hub = SealingHalf(self, loop, local, pace, salt)
        self._to_local = OpeningHalf(self, loop, local, pace, salt)
        self._to_local.start(early)
        self._to_hub.start(b"")
        self._wait_for_company()

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the local end."""
        return self._to_hub.total

    @property
    def bytes_out(self) -> int:
        """Bytes that were opened for it."""
        return self._to_local.total

    @property
    def undelivered(self) -> str:
        """Why the other end may not have all that was sent; empty where it has confirmed that.

        Once nothing but that is waited for, any other end than an orderly one counts.
        """
        sent, accounts = self._to_hub, self._accounts
        has_all = not sent.total or (sent.text_over and accounts is not None and accounts.has_all_text)
        if has_all and not self._unread and not (self.reason and self._leaves):
            return ""
        return self.reason or "the other end has not confirmed that it has all that was sent"

    def set_pace(self, pace: Pace | None) -> None:
        """Keeps to another rate from now on; None for no limit."""
        self._to_hub.set_pace(pace)
        self._to_local.set_pace(pace)

    def abort(self, reason: str) -> None:
        """Ends it now, with a reset to the local end; the other end is told, unless it has all that it can have."""
        self._end("" if self._accounts is not None and self._accounts.done else reason)

    def stop_receiving(self) -> None:
        """Takes no more from the channel server: it ends once the other end has what the local end sent."""
        if not self._over:
            self._leaves = True
            self._to_local.deafen()
            self._progress()

    # What its directions tell; see Exchange.

    def heard(self, salt: bytes) -> None:
        self._to_hub.answer(salt)

    def answered(self, salt: bytes) -> None:
        self._to_hub.answer(salt)
        self._peer_key = self._key.derive(salt)
        self._peer_key.add_done_callback(self._open_when_ready)

    def came(self, *, more: bool) -> None:
        if self._vigil is not None:
            self._vigil.came(more=more)

    def reported(self, report: Reported) -> None:
        if self._accounts is None or self._vigil is None:
            raise RuntimeError("a report before there is a key")
        try:
            self._accounts.hear(report)
        except ProtocolError as error:
            self.fault(str(error))
            return
        self._to_hub.unwanted = self._accounts.other_takes_no_more
        self._vigil.confirmed()
        self._go_on(report_wanted=Mark.ASKS in report.marks)

    def received_all(self) -> None:
        self._go_on(report_wanted=True)

    def sent(self) -> None:
        if self._vigil is not None:
            self._vigil.sent()

    def sent_all(self) -> None:
        self._progress()
        if self._vigil is not None and not self._over:
            self._vigil.wait()

    def refused(self) -> None:
        if self._accounts is not None:
            self._accounts.text_refused()
        self._progress()

    def local_broken(self) -> None:
        self._end("the local end broke off")

    def broken_off(self, reason: str) -> None:
        self._end(f"the other end broke off: {reason}" if reason else "the other end broke off", answer=NOTHING)

    def superseded(self, reason: str) -> None:
        accounts = self._accounts
        if accounts is not None and (accounts.done or (accounts.other_is_done and accounts.has_all_text)):
            self._end("", answer=b"")
        else:
            self._end(f"the other end broke off: {reason}", answer=b"")

    def garbage(self) -> None:
        if self._garbage_timer is None:
            self._garbage_timer = self._loop.call_later(GARBAGE_TIME, self._look_whether_all_is_garbage)

    def fault(self, reason: str) -> None:
        self._end(reason, fault=True)

    def hub_ended(self) -> None:
        self._lose_hub("the channel server closed the connection")

    def half_ended(self) -> None:
        """Neither direction ends by itself."""

    def half_broken(self, half: Half, error: OSError, *, sending: bool) -> None:
        if (half is self._to_hub) == sending:
            self._lose_hub(f"the connection to the channel server broke: {error.strerror or error}")
        elif not sending:
            self._end(f"the local end broke off: {error.strerror or error}")
        else:
            # What it sent before it closed may still be on its way to us; it is a whole only if it closed in order.
            self._to_hub.source_broken = not isinstance(error, BrokenPipeError)
            self._to_local.deafen()
            self._progress()
            self._say()

    # What its clock asks and tells; see Watched.

    @property
    def held_up(self) -> bool:
        return self._to_local.held_up

    @property
    def flushed(self) -> bool:
        return self._to_hub.flushed

    def report(self) -> None:
        self._say()

    def ask(self) -> None:
        self._say(Mark.ASKS)

    def give_up(self, silence: float) -> None:
        if self._leaves and not self._to_hub.total:
            self.part()  # it takes no more, and has sent nothing that could be missing
            return
        self._end(f"the other end has not confirmed within {silence:g} s that it has all that was sent", gives_up=True)

    def part(self) -> None:
        self._end("")

    # How it is done.

    def _open_when_ready(self, _: object = None) -> None:
        """Opens both directions once both keys are made: who sees that something is wrong can then say so."""
        peer_key = self._peer_key
        ready = peer_key is not None and peer_key.done() and self._own_key.done()
        if self._over or self._sealer is not None or peer_key is None or not ready:
            return
        self._sealer = self._to_hub.open(self._own_key.result())
        self._accounts = Accounts(self._sealer)
        self._vigil = Vigil(self._loop, self, self._accounts)
        if not self._to_local.over:
            self._vigil.sent()
            self._to_local.use_key(peer_key.result())

    def _progress(self) -> None:
        """Says that we are done when we are, and ends it when nothing is left to be waited for."""
        accounts = self._accounts
        if self._over or accounts is None:
            return
        has_all = self._to_local.text_over or self._to_local.deaf
        if accounts.refused:
            self._to_hub.stop_taking()
            if has_all:
                self._end(_REFUSED)
        elif has_all and accounts.has_all and not accounts.done:
            self._say(Mark.DONE | Mark.ASKS)
        if accounts.parted:
            self._end("")

    def _go_on(self, *, report_wanted: bool) -> None:
        """Goes on, and reports what has been received if that is wanted and was not said thereby."""
        said = self._sealer.count if self._sealer is not None else 0
        self._progress()
        if report_wanted and self._sealer is not None and self._sealer.count == said:
            self._say()

    def _say(self, marks: Mark = Mark.NONE) -> None:
        """Reports what has been received."""
        if self._over or self._accounts is None or self._vigil is None:
            return
        held_up = self.held_up
        record = self._report(marks | (Mark.HELD_UP if held_up else Mark.NONE))
        self._vigil.reported(held_up=held_up)
        if Mark.DONE in marks:
            self._accounts.said_done()
            self._vigil.wait()
        self._to_hub.say(record)

    def _report(self, marks: Mark) -> bytes:
        if self._sealer is None or self._accounts is None:
            raise RuntimeError("a report before there is a key")
        if self._accounts.done:
            marks |= Mark.DONE
        # Who leaves says so only at last: till then the other end need not fail for what it still sends.
        if self._to_local.deaf and (Mark.DONE in marks or not self._leaves):
            marks |= Mark.TAKES_NO_MORE
        return self._sealer.report(self._to_local.received, marks)

    def _wait_for_company(self) -> None:
        if self._patience is not None:
            gone = self._to_hub.text_over
            self._patience_timer = self._loop.call_later(self._patience, self._look_whether_alone, gone)

    def _look_whether_alone(self, gone: bool) -> None:
        """Ends it when the other end has not come, and the local end had gone when this was looked at last."""
        self._patience_timer = None
        if self._to_local.begun:
            return
        if gone:
            self._end("the local end had gone before the other end came")
        else:
            self._wait_for_company()

    def _look_whether_all_is_garbage(self) -> None:
        self._garbage_timer = None
        if not self._to_local.begun:
            self.fault(
                f"what came for {GARBAGE_TIME:g} s does not answer us; has its sender a key, and not to others too?"
            )

    def _lose_hub(self, reason: str) -> None:
        if self._accounts is not None and self._accounts.done:
            self._end("", answer=b"")
        else:
            self._end(reason, hub_lost=True)

    def _end(
        self,
        reason: str,
        *,
        hub_lost: bool = False,
        fault: bool = False,
        answer: bytes | None = None,
        gives_up: bool = False,
    ) -> None:
        """Ends it.

        :param reason: empty where both streams are over in order.
        :param answer: all that is still to be said, to an end that is done with it; None where it does not know yet.
        :param gives_up: the other end does not answer; where it hears this, it shall not be content either.
        """
        if self._over:
            return
        self._over = True
        self.reason = reason
        for timer in (self._garbage_timer, self._patience_timer):
            if timer is not None:
                timer.cancel()
        if self._vigil is not None:
            self._vigil.stop()
        left = b"" if fault else self._to_local.leftover
        unsent = self._last_words(reason, fault=fault, gives_up=gives_up) if answer is None else answer
        in_order = not reason or reason == _REFUSED
        self._unread = not self._to_hub.text_over and self._holds_unread()
        self._to_local.cut()
        self._to_hub.cut()
        if in_order:
            self._local.close()
        else:
            self._local.abort()
        self._loop.call_soon(self._ended, Outcome(reason, left, b"" if hub_lost else unsent, hub_lost, fault))

    def _holds_unread(self) -> bool:
        """Whether the local end has said something that was not even read."""
        try:
            return bool(self._local.receive(1))
        except OSError:  # nothing, or not any more
            return False

    def _last_words(self, reason: str, *, fault: bool, gives_up: bool) -> bytes:
        """What is still to be sent, so that the other end does not wait for us."""
        if not reason:
            return self._to_hub.unsaid()
        accounts = self._accounts
        if accounts is not None and not fault and not gives_up and (accounts.has_ended or accounts.refused):
            return self._to_hub.unsaid() + self._report(Mark.DONE | Mark.TAKES_NO_MORE)
        key = self._own_key.result() if self._own_key.done() else None
        return self._to_hub.last_words(key, did_not_open=fault)
