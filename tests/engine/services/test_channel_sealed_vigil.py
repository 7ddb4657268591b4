"""The clock of a sealed exchange, with a time of its own: when it asks, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from tunnelconsole.engine.services.channel.sealed_vigil import CONFIRM_TIME, OPEN_CONFIRM_TIME, TICK, Vigil
from tunnelconsole.engine.wire.sealed_accounts import Accounts
from tunnelconsole.engine.wire.sealed_records import Mark, Reported, Sealer


class Loop:
    """A loop on which time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self._due = when, callback

    def call_back(self) -> bool:
        """Does what is due; whether there was something."""
        if self._due is None or self._due[0] > self.now:
            return False
        callback, self._due = self._due[1], None
        callback()
        return True


class Exchange:
    """An end that has sent one text, and writes down what its clock wants."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.held_up = False
        self.flushed = True
        self.wanted: list[str] = []
        self.sealer = Sealer(bytes(32), b"s" * 16, b"o" * 16)
        self.accounts = Accounts(self.sealer)
        self.vigil = Vigil(cast("asyncio.AbstractEventLoop", self.loop), self, self.accounts)
        self.send()

    def report(self) -> None:
        self.wanted.append("report")
        self.vigil.reported(held_up=self.held_up)

    def ask(self) -> None:
        self.wanted.append("ask")

    def give_up(self, silence: float) -> None:
        self.wanted.append(f"give up after {silence:g}")

    def part(self) -> None:
        self.wanted.append("part")

    def send(self) -> None:
        self.sealer.seal(b"text")
        self.vigil.sent()

    def end(self) -> None:
        self.sealer.end()
        self.vigil.wait()

    def hear(self, count: int, marks: Mark = Mark.NONE) -> None:
        """A report comes."""
        self.vigil.came(more=False)
        self.accounts.hear(Reported(count, marks))
        self.vigil.confirmed()

    def stopped(self, seconds: float) -> None:
        """Time passes in which this process does not run."""
        self.loop.now += seconds
        self.loop.call_back()

    def pass_time(self, seconds: float) -> list[str]:
        """What is wanted while time passes, tick by tick."""
        self.wanted.clear()
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.stopped(TICK)
        return self.wanted


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def test_it_asks_once_and_gives_up_when_nothing_comes(exchange: Exchange) -> None:
    assert exchange.pass_time(OPEN_CONFIRM_TIME - TICK) == ["ask"]
    assert exchange.pass_time(TICK) == [f"give up after {OPEN_CONFIRM_TIME:g}"]


def test_it_gives_up_sooner_once_all_has_been_said(exchange: Exchange) -> None:
    exchange.end()
    assert exchange.pass_time(CONFIRM_TIME) == ["ask", f"give up after {CONFIRM_TIME:g}"]


def test_it_looks_no_more_once_all_is_confirmed(exchange: Exchange) -> None:
    exchange.hear(1)
    assert exchange.pass_time(2 * OPEN_CONFIRM_TIME) == []
    assert not exchange.loop.call_back()


def test_the_time_begins_anew_with_the_first_text_that_is_not_confirmed(exchange: Exchange) -> None:
    exchange.hear(1)
    exchange.pass_time(2 * OPEN_CONFIRM_TIME)
    exchange.send()
    assert exchange.pass_time(OPEN_CONFIRM_TIME - TICK) == ["ask"]
    exchange.send()
    assert exchange.pass_time(TICK) == [f"give up after {OPEN_CONFIRM_TIME:g}"]


def test_it_asks_again_in_each_silence(exchange: Exchange) -> None:
    assert exchange.pass_time(5 * TICK) == ["ask"]
    exchange.hear(0)
    assert exchange.pass_time(5 * TICK) == ["ask"]


def test_who_reports_is_never_asked_nor_given_up(exchange: Exchange) -> None:
    for _ in range(100):
        assert exchange.pass_time(TICK) == []
        exchange.hear(0)


def test_an_end_that_is_held_up_says_so_until_it_no_longer_is(exchange: Exchange) -> None:
    exchange.hear(1)
    exchange.held_up = True
    exchange.vigil.came(more=True)
    assert exchange.pass_time(5 * TICK) == ["report"] * 5
    exchange.held_up = False
    assert exchange.pass_time(5 * TICK) == ["report"]


def test_an_end_that_was_held_up_and_says_so_no_more_is_given_up_unasked(exchange: Exchange) -> None:
    exchange.hear(0, Mark.HELD_UP)
    assert exchange.pass_time(OPEN_CONFIRM_TIME) == [f"give up after {OPEN_CONFIRM_TIME:g}"]


@pytest.mark.parametrize("what", ["held up", "not flushed"])
def test_time_in_which_we_cannot_hear_or_be_heard_does_not_count(exchange: Exchange, what: str) -> None:
    exchange.held_up, exchange.flushed = what == "held up", what != "not flushed"
    assert not [each for each in exchange.pass_time(3 * OPEN_CONFIRM_TIME) if each != "report"]
    exchange.held_up, exchange.flushed = False, True
    assert f"give up after {OPEN_CONFIRM_TIME:g}" not in exchange.pass_time(OPEN_CONFIRM_TIME - 2 * TICK)


def test_time_in_which_we_were_stopped_ourselves_does_not_count(exchange: Exchange) -> None:
    exchange.stopped(10 * OPEN_CONFIRM_TIME)
    assert exchange.wanted == []
    assert exchange.pass_time(OPEN_CONFIRM_TIME - 2 * TICK) == ["ask"]
