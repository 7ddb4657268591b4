"""The bans: which addresses are turned away, why, and for how long still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures
from tunnelconsole.control.bans import BanRow
from tunnelconsole.control.messages import Status
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span


def left(row: BanRow, now: float) -> Span:
    """How long it lasts still."""
    return Span(figures.duration(row.until - now))


class BansPane(TablePane[BanRow]):
    """Who is banned, at all services."""

    screen_name: ClassVar[Screen] = "bans"
    title = "Bans"
    noun = ("ban", "bans")
    first_order = Order("since", falling=True)

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "bans", "events"]

    def columns(self) -> Sequence[Column[BanRow]]:
        return (
            Column("address", "ADDRESS", lambda row, _: Span(row.address, "strong"), lambda row: row.address, 15, 30),
            Column("reason", "REASON", lambda row, _: Span(row.reason, "warning"), lambda row: row.reason, 14, 50,
                   rank=2, stretch=True),
            Column("service", "SERVICE", lambda row, _: Span(row.service or "–", "text" if row.service else "faint"),
                   lambda row: row.service, 8, 24, rank=3),
            Column("failures", "FAILURES", lambda row, _: cells.number(row.failures), lambda row: row.failures, 8,
                   rank=4, right=True, falling=True),
            Column("turned_away", "TURNED AWAY", lambda row, _: cells.number(row.turned_away),
                   lambda row: row.turned_away, 11, rank=5, right=True, falling=True),
            Column("since", "SINCE", self._since, lambda row: row.since, 8, 14, rank=4, falling=True),
            Column("left", "LEFT", left, lambda row: row.until, 7, rank=1, right=True),
        )  # fmt: skip

    def _since(self, row: BanRow, now: float) -> Span:
        zone = self._scene.zone if self._scene is not None else None
        return Span(figures.moment(row.since, now, zone), "dim")

    def identity(self, row: BanRow) -> str:
        return row.address

    def haystack(self, row: BanRow) -> str:
        return f"{row.address} {row.service} {row.reason}"

    def rows_of(self, scene: Scene) -> Sequence[BanRow] | None:
        return scene.picture.bans

    def empty(self, scene: Scene) -> list[Line]:
        return [
            (),
            (Span("Nobody is banned.", "strong"),),
            (Span("Who guesses a secret wrong again and again shows here, and is turned away for a time.", "dim"),),
            (Span("n", "key"), Span(" bans an address by hand; ", "dim"), Span("5", "key"),
             Span(" shows who was refused", "dim")),
        ]  # fmt: skip

    def facts(self, row: BanRow, scene: Scene) -> list[Fact]:
        failed = f"{figures.counted(row.failures, 'failure')}, the last at {row.service}" if row.failures else ""
        return [
            Fact("address", (Span(row.address, "strong"),)),
            Fact("because", (Span(row.reason, "warning"), Span(f"  {failed}" if failed else "", "dim"))),
            Fact("since", measures.ago(row.since, scene)),
            Fact("until", (Span(figures.moment(row.until, scene.now, scene.zone)),
                           Span(f", for {figures.duration(row.until - scene.now)} still", "dim"))),
            Fact("turned away", (Span(figures.counted(row.turned_away, "connection")),)),
        ]  # fmt: skip

    def value_of(self, row: BanRow) -> Value:
        return Value("address", row.address)
