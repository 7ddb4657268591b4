"""The clock of a sealed exchange: signs of life for who may wait for them, and an end to waiting in vain.

Who has said something waits for the other end's confirmation. That may take long: what is on its way may be much, and
the program behind the other end slow. So an end that receives says once a second that it does, or that it cannot go on;
who hears nothing asks, and gives up in the end. Nobody says anything where nothing is on its way, so that the channel
server's idle timeout means what it says.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunnelconsole.engine.wire.sealed_accounts import Accounts

TICK = 1.0
"""Seconds between two looks at an exchange in which something happens: as often as a receiver says that it is there.
Who waits for a confirmation asks for it when two of them did not bring a sound."""

CONFIRM_TIME = 10.0
"""Seconds without a byte from the other end after which who has said all, and waits for its confirmation, gives up: ten
signs of life that did not come. What is held up by a program that does not read is waited for: its end says so."""

OPEN_CONFIRM_TIME = 20.0
"""The same while there may be more to say. Who gives up then loses a conversation and not only its end, so this
outlasts a network that is away for 10 s: what was lost meanwhile is sent again 13 s after it went away, because TCP
doubles its pause from 0.2 s."""

PARTING_TIME = 4.0
"""Seconds that an end which has all it wants waits for the last word of the other: many times what one takes, and long
enough to be asked by an end that has not got ours, which it does at its third look at the latest."""


class Watched(Protocol):
    """The exchange, as its clock sees it."""

    @property
    def held_up(self) -> bool:
        """Whether we do not read what comes, because what came before cannot be handed on."""

    @property
    def flushed(self) -> bool:
        """Whether all that we have said is with the channel server."""

    def report(self) -> None:
        """Says what has been received."""

    def ask(self) -> None:
        """Asks for a report."""

    def give_up(self, silence: float) -> None:
        """The other end does not confirm what we have sent.

        :param silence: seconds for which nothing may come from it.
        """

    def part(self) -> None:
        """The other end has all that it wants, and has not said a last word."""


class Vigil:
    """Looks at an exchange once in :data:`TICK` while there is something to look for."""

    __slots__ = (
        "_accounts",
        "_asked",
        "_came",
        "_due",
        "_exchange",
        "_heard_at",
        "_loop",
        "_said_held_up",
        "_timer",
        "_waits",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, exchange: Watched, accounts: Accounts) -> None:
        self._loop = loop
        self._exchange = exchange
        self._accounts = accounts
        self._came = False
        self._heard_at = 0.0
        self._waits = False
        self._asked = False
        self._said_held_up = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def came(self, *, more: bool) -> None:
        """Something came from the other end.

        :param more: whether that was more than reports, which are no reason for a report.
        """
        self._heard_at = self._loop.time()
        if more:
            self._came = True
            self._go_on()

    def reported(self, *, held_up: bool) -> None:
        """We have said what has been received, and whether we are held up."""
        self._came = False
        self._said_held_up = held_up
        if held_up:
            self._go_on()

    def confirmed(self) -> None:
        """The other end has said what it has received."""
        self._asked = False
        self._waits = self._accounts.waits

    def sent(self) -> None:
        """There may be something to wait for, if there was nothing before."""
        if not self._waits and self._accounts.waits:
            self.wait()

    def wait(self) -> None:
        """From now on something more is waited for."""
        self._waits = True
        self._asked = False
        self._heard_at = self._loop.time()
        self._go_on()

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        if self._timer is None:
            self._due = self._loop.time() + TICK
            self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        # While we were stopped ourselves we could not have heard it: what came since may be read only after this.
        self._heard_at = min(now, self._heard_at + max(0.0, now - self._due))
        held_up, tells = self._exchange.held_up, self._came or self._exchange.held_up or self._said_held_up
        if tells or self._accounts.waits:
            self._go_on()
        if tells and self._exchange.flushed:
            self._exchange.report()
        if not self._accounts.waits:
            return
        if held_up or not self._exchange.flushed:
            self._heard_at = now
        else:
            self._look_whether_it_answers(now - self._heard_at)

    def _look_whether_it_answers(self, silence: float) -> None:
        """Asks, once, and gives it up in the end.

        :param silence: seconds for which nothing has come from it.
        """
        longest = CONFIRM_TIME if self._accounts.has_ended else OPEN_CONFIRM_TIME
        # What has come is confirmed unasked after a tick; who is held up cannot answer.
        may_ask = silence > 1.5 * TICK and not self._accounts.other_is_held_up
        if self._accounts.done:
            if silence >= PARTING_TIME:
                self._exchange.part()
        elif silence >= longest:
            self._exchange.give_up(longest)
        elif may_ask and not self._asked:
            self._asked = True
            self._exchange.ask()
