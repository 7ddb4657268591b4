"""The clock of a sealed exchange: signs of life for who may wait for them, and an end to waiting in vain.

Who has said all waits for the other end's confirmation. That may take long: what is on its way may be much, and the
program behind the other end slow. So an end that receives says once a second that it does, and says when it cannot go
on; who hears neither asks, and gives up in the end. Nobody says anything where nothing happens, so that the channel
server's idle timeout means what it says.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunnelconsole.engine.wire.sealed_accounts import Accounts

TICK = 1.0
"""Seconds between two looks at an exchange in which something happens: as often as a receiver says that it is there,
and after which who waits for a confirmation asks for it."""

CONFIRM_TIME = 10.0
"""Seconds without a byte from the other end after which who waits for its confirmation gives up: ten signs of life that
did not come. What is held up by a program that does not read is waited for."""

PARTING_TIME = 2.0
"""Seconds that an end which has all it wants waits for the last word of the other: many times what one takes."""


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

    def give_up(self) -> None:
        """The other end does not confirm what we have sent."""

    def part(self) -> None:
        """The other end has all that it wants, and has not said a last word."""


class Vigil:
    """Looks at an exchange once in :data:`TICK` while there is something to look for."""

    __slots__ = ("_accounts", "_asked", "_came", "_exchange", "_heard_at", "_loop", "_said_held_up", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, exchange: Watched, accounts: Accounts) -> None:
        self._loop = loop
        self._exchange = exchange
        self._accounts = accounts
        self._came = False
        self._heard_at = 0.0
        self._asked = False
        self._said_held_up = False
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

    def wait(self) -> None:
        """From now on something is waited for."""
        self._heard_at = self._loop.time()
        self._go_on()

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._look)

    def _look(self) -> None:
        self._timer = None
        held_up, came = self._exchange.held_up, self._came
        if came or held_up or self._said_held_up or self._accounts.waits:
            self._go_on()
        if (came or held_up != self._said_held_up) and self._exchange.flushed:
            self._exchange.report()
        if self._accounts.waits:
            self._look_whether_it_answers()

    def _look_whether_it_answers(self) -> None:
        """Asks, once, and gives it up in the end; whoever is held up, the other end or we, is waited for."""
        now = self._loop.time()
        if self._exchange.held_up or self._accounts.other_is_held_up or not self._exchange.flushed:
            self._heard_at = now
        elif self._accounts.done:
            if now - self._heard_at >= PARTING_TIME:
                self._exchange.part()
        elif not self._asked:
            self._asked = True
            self._exchange.ask()
        elif now - self._heard_at >= CONFIRM_TIME:
            self._exchange.give_up()
