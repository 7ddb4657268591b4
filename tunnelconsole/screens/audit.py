"""The audit trail: who had the engine do what, through what, and what came of it, newest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures
from tunnelconsole.control.audit import AuditRow
from tunnelconsole.screens import measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span

OUTCOMES = {"refused": ("▲", "warning"), "broken off": ("○", "notice"), "done": ("●", "ok")}
"""Sign and role of each outcome, the worst first."""


def outcome(row: AuditRow) -> Span:
    """What came of it."""
    sign, role = OUTCOMES.get(row.outcome, ("?", "dim"))
    return Span(f"{sign} {row.outcome}", role)


def who(row: AuditRow) -> str:
    """Who it was as far as a column has room: of a key's fingerprint, which the details have, its beginning."""
    words, mark, fingerprint = row.who.partition(" SHA256:")
    return f"{words}{mark}{fingerprint[:6]}…" if mark else words


class AuditPane(TablePane[AuditRow]):
    """The last entries; whoever opens it brings them with :meth:`bring`, or says why not."""

    screen_name: ClassVar[Screen] = "audit"
    title = "Audit"
    noun = ("entry", "entries")
    first_order = Order("time", falling=True)

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[AuditRow] | None = None
        self._trouble = ("", "")

    def bring(self, rows: Sequence[AuditRow]) -> None:
        """These are all that are to be shown."""
        self._rows, self._trouble = tuple(rows), ("", "")
        self._again()

    def fail(self, message: str, hint: str) -> None:
        """They cannot be had; what is shown already stays."""
        self._trouble = (message, hint)
        self._rows = self._rows or ()
        self._again()

    def columns(self) -> Sequence[Column[AuditRow]]:
        return (
            Column("time", "TIME", self._time, lambda row: (row.time, row.id), 8, 14, falling=True),
            Column("outcome", "OUTCOME", lambda row, _: outcome(row), _badness, 9, 12, rank=1),
            Column("who", "WHO", lambda row, _: Span(who(row), "strong"), lambda row: row.who, 12, 40, rank=1),
            Column("via", "VIA", lambda row, _: Span(row.via, "dim"), lambda row: row.via, 7, rank=4),
            Column("action", "ACTION", lambda row, _: Span(row.action), lambda row: row.action, 12, 20),
            Column("object", "OBJECT", lambda row, _: Span(row.object), lambda row: row.object, 8, 24, rank=2),
            Column("text", "WHAT CAME OF IT", _what, lambda row: row.text, 20, 60, rank=3, stretch=True),
        )

    def _time(self, row: AuditRow, now: float) -> Span:
        zone = self._scene.zone if self._scene is not None else None
        return Span(figures.moment(row.time, now, zone), "dim")

    def identity(self, row: AuditRow) -> int:
        return row.id

    def haystack(self, row: AuditRow) -> str:
        return f"{row.who} {row.via} {row.action} {row.object} {row.outcome} {row.text}"

    def rows_of(self, scene: Scene) -> Sequence[AuditRow] | None:
        return self._rows

    def empty(self, scene: Scene) -> list[Line]:
        message, hint = self._trouble
        if message:
            return [
                (),
                (Span(f"{message[:1].upper()}{message[1:]}.", "strong"),),
                (Span(f"{hint[:1].upper()}{hint[1:]}." if hint else "", "dim"),),
                (Span("5", "key"), Span(" shows the events", "dim")),
            ]
        return [
            (),
            (Span("Nobody has had the engine do anything.", "strong"),),
            (Span("Whatever is started, stopped, kicked or changed shows here, with who did it.", "dim"),),
        ]

    def facts(self, row: AuditRow, scene: Scene) -> list[Fact]:
        return [
            Fact("who", (Span(row.who, "strong"),)),
            Fact("what", (Span(f"{row.action} {row.object}".rstrip()),)),
            Fact("outcome", (outcome(row), Span(f"  by {row.via}", "dim"))),
            Fact("when", measures.ago(row.time, scene)),
            Fact("said", (Span(row.text),)),
        ]

    def value_of(self, row: AuditRow) -> Value:
        return Value("entry", f"{row.who}: {row.action} {row.object}: {row.outcome}: {row.text}")

    def remark(self, scene: Scene, rows: Sequence[AuditRow]) -> Line:
        found = Counter(row.outcome for row in rows)
        told = [(name, role) for name, (_, role) in OUTCOMES.items() if found[name] and name != "done"]
        return tuple(Span(f"{figures.count(found[name])} {name}  ", role) for name, role in told)


def whole(row: AuditRow, when: str) -> tuple[str, list[str]]:
    """All of an entry: a heading, and sentences.

    :param when: in words.
    """
    said = [row.text] if row.text else []
    return f"{row.action} {row.object}".rstrip() + f": {row.outcome}", [*said, f"By {row.who}, via {row.via}, {when}."]


def _badness(row: AuditRow) -> int:
    return list(OUTCOMES).index(row.outcome) if row.outcome in OUTCOMES else len(OUTCOMES)


def _what(row: AuditRow, _now: float) -> Span:
    return Span(row.text, "warning" if row.outcome == "refused" else "text")
