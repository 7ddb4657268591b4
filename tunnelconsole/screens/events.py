"""The events: what happened, newest first, with its level in words and colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures
from tunnelconsole.control.messages import LEVELS, EventRow
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span


def severity(name: str) -> int:
    """Orders levels, the mildest first; one that is not known counts as mild."""
    return LEVELS.index(name) if name in LEVELS else 0


class EventsPane(TablePane[EventRow]):
    """What happened, from a level up, everywhere or at one service."""

    screen_name: ClassVar[Screen] = "events"
    title = "Events"
    noun = ("event", "events")
    first_order = Order("time", falling=True)

    def __init__(self) -> None:
        super().__init__()
        self.level = "info"
        """The mildest level that is shown; at first not debug, of which each channel is an event or two."""

    def columns(self) -> Sequence[Column[EventRow]]:
        return (
            Column("time", "TIME", self._time, lambda row: (row.time, row.id), 8, 14, falling=True),
            Column("level", "LEVEL", lambda row, _: cells.level(row.level), lambda row: severity(row.level), 9,
                   falling=True),
            Column("service", "SERVICE", lambda row, _: Span(row.service), lambda row: row.service, 8, 24, rank=2),
            Column("type", "TYPE", lambda row, _: Span(row.type, "dim"), lambda row: row.type, 16, 26, rank=5),
            Column("text", "WHAT HAPPENED", _what, lambda row: row.text, 24, 60, rank=1, stretch=True),
        )  # fmt: skip

    def _time(self, row: EventRow, now: float) -> Span:
        zone = self._scene.zone if self._scene is not None else None
        return Span(figures.moment(row.time, now, zone), "dim")

    def next_level(self) -> str:
        """Shows events from the next higher level up only, and after the highest all of them again."""
        self.set_level(LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)])
        return self.level

    def set_level(self, level: str) -> None:
        """Shows events from this level up.

        :raises KeyError: there is no such level.
        """
        if level not in LEVELS:
            raise KeyError(level)
        self.level = level
        self._again()

    def identity(self, row: EventRow) -> int:
        return row.id

    def haystack(self, row: EventRow) -> str:
        return f"{row.level} {row.service} {row.session} {row.channel} {row.type} {row.text}"

    def rows_of(self, scene: Scene) -> Sequence[EventRow] | None:
        if not scene.picture.time:
            return None
        service, least = scene.place.service, severity(self.level)
        return [
            row
            for row in scene.picture.events
            if severity(row.level) >= least and (not service or row.service == service)
        ]

    def empty(self, scene: Scene) -> list[Line]:
        if severity(self.level) > severity("info"):
            return [
                (),
                (Span(f"Nothing of level {self.level} or above has happened.", "strong"),),
                (Span("l", "key"), Span(" shows other levels", "dim")),
            ]
        where = f" at {scene.place.service}" if scene.place.service else ""
        return [
            (),
            (Span(f"Nothing has happened yet{where}.", "strong"),),
            (Span("Starts, stops, sessions and failures show here as they happen.", "dim"),),
        ]

    def facts(self, row: EventRow, scene: Scene) -> list[Fact]:
        return [
            Fact("what", (Span(row.text, _weight(row)),)),
            Fact("when", measures.ago(row.time, scene)),
            Fact("level", (cells.level(row.level), Span(f"  {row.type}", "dim"))),
            Fact("service", (Span(row.service),)),
            Fact("session", (Span(row.session),)),
            Fact("channel", (Span(row.channel),)),
        ]  # fmt: skip

    def value_of(self, row: EventRow) -> Value:
        return Value("text", row.text)

    def remark(self, scene: Scene, rows: Sequence[EventRow]) -> Line:
        shown: list[Span] = []
        if scene.picture.dropped:
            shown.append(Span(f"{figures.counted(scene.picture.dropped, 'event')} missed  ", "warning"))
        level = "all levels" if self.level == LEVELS[0] else f"{self.level} and above"
        usual = severity(self.level) <= severity("info")
        return (*shown, Span("l ", "key", "app.key('l')"), Span(level, "dim" if usual else "match"))


def _what(row: EventRow, _now: float) -> Span:
    return Span(row.text, _weight(row))


def _weight(row: EventRow) -> str:
    return cells.LEVELS[row.level][1] if row.level in ("warning", "error") else "text"
