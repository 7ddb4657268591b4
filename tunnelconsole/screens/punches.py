"""The hole punches: what was tried, what it came to, and why there was no direct way where there was none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures, punch_words
from tunnelconsole.control.attempts import AttemptRow, NatRow
from tunnelconsole.control.messages import ServiceRow, Status
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import ABOUT, Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span

STATES = {
    "failed": ("✖", "error"),
    "relay": ("▲", "notice"),
    "racing": ("◌", "busy"),
    "observing": ("◌", "busy"),
    "waiting": ("◌", "dim"),
    "left": ("○", "off"),
    "direct": ("●", "ok"),
}
"""Sign and role of each state of an attempt, the worst first."""


def state(row: AttemptRow) -> Span:
    """What an attempt has come to."""
    sign, role = STATES.get(row.state, ("?", "dim"))
    return Span(f"{sign} {row.state}", role)


def took(row: AttemptRow, now: float) -> Span:
    """How long it took, or has been under way."""
    if row.seconds is None:
        return Span(figures.brief(max(0.0, now - row.started)), "busy" if row.state != "waiting" else "dim")
    return Span(figures.brief(row.seconds))


def behind(side: NatRow, *, theirs: bool) -> Line:
    """What a side is behind, and where it is seen: one span, so that it may go on below itself."""
    return (Span(punch_words.behind(side, theirs=theirs), "text" if side.words else "faint"),)


def facts(row: AttemptRow, scene: Scene) -> list[Fact]:
    """What is known of an attempt besides its addresses and moments."""
    sign, role = STATES.get(row.state, ("?", "dim"))
    syns = figures.counted(row.syns, "SYN")
    alone = f", after {figures.duration(row.waited)} alone" if row.waited >= 1 else ""
    return [
        Fact("outcome", (Span(f"{sign} {punch_words.outcome(row)}", role),)),
        Fact("why", (Span(punch_words.why(row), "error" if row.error else "strong"),)),
        Fact("to do", (Span(punch_words.advice(row), "notice"),)),
        Fact("reached", (Span(row.peer),)),
        Fact("here", behind(row.ours, theirs=False)),
        Fact("there", behind(row.theirs, theirs=True)),
        Fact("took", (took(row, scene.now), Span(", and goes on" if not row.over else f"  with {syns}", "dim"))),
        Fact("room", (Span(row.room or "none, by hand"), Span(f"  through {row.service}", "dim"))),
        Fact("when", (*measures.ago(row.started, scene), Span(alone, "dim"))),
    ]


class PunchesPane(TablePane[AttemptRow]):
    """The last hole punches of all services, or of one."""

    screen_name: ClassVar[Screen] = "punches"
    title = "Punches"
    noun = ("punch", "punches")
    first_order = Order("time", falling=True)

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "attempts", "events"]

    def columns(self) -> Sequence[Column[AttemptRow]]:
        return (
            Column("time", "TIME", self._time, lambda row: (row.started, row.id), 8, 14, rank=1, falling=True),
            Column("state", "STATE", lambda row, _: state(row), _badness, 10),
            Column("room", "ROOM", lambda row, _: Span(row.room or "by hand", "strong"), lambda row: row.room, 8, 24,
                   rank=1),
            Column("method", "METHOD", lambda row, _: Span(row.method or "–", "text" if row.method else "faint"),
                   lambda row: row.method, 10, rank=2),
            Column("seconds", "TOOK", took, lambda row: (row.seconds is None, row.seconds), 7, rank=1, right=True,
                   falling=True, steady=False),
            Column("peer", "REACHED, OR WHY NOT", self._reached, lambda row: (not row.peer, row.peer), 18, 60,
                   stretch=True),
            Column("here", "HERE", lambda row, _: _nat(row.ours), lambda row: row.ours.mapping, 11, rank=3),
            Column("there", "THERE", lambda row, _: _nat(row.theirs), lambda row: row.theirs.mapping, 11, rank=3),
            Column("service", "SERVICE", lambda row, _: Span(row.service, "dim"), lambda row: row.service, 8, 24,
                   rank=4),
            Column("syns", "SYNS", lambda row, _: cells.number(row.syns), lambda row: row.syns, 5, rank=6, right=True,
                   falling=True),
            Column("id", "ID", lambda row, _: Span(row.id, "faint"), lambda row: row.id, 4, 8, rank=7),
        )  # fmt: skip

    def _time(self, row: AttemptRow, now: float) -> Span:
        zone = self._scene.zone if self._scene is not None else None
        return Span(figures.moment(row.started, now, zone), "dim")

    def _reached(self, row: AttemptRow, _now: float) -> Span:
        if row.peer and row.state == "direct":
            return Span(row.peer)
        return Span(punch_words.why(row) or f"{punch_words.outcome(row)}", "error" if row.error else "dim")

    def identity(self, row: AttemptRow) -> str:
        return row.id

    def haystack(self, row: AttemptRow) -> str:
        natures = f"{row.ours.words} {row.theirs.words} {_nat(row.ours).text} {_nat(row.theirs).text}"
        return (
            f"{row.id} {row.service} {row.room} {row.state} {row.method} {row.peer} {punch_words.why(row)} "
            f"{row.ours.address} {row.theirs.address} {natures}"
        )

    def rows_of(self, scene: Scene) -> Sequence[AttemptRow] | None:
        rows, service = scene.picture.attempts, scene.place.service
        return rows if rows is None or not service else [row for row in rows if row.service == service]

    def empty(self, scene: Scene) -> list[Line]:
        return _nothing_tried(scene)

    def facts(self, row: AttemptRow, scene: Scene) -> list[Fact]:
        return facts(row, scene)

    def value_of(self, row: AttemptRow) -> Value:
        return value_of(row)

    def remark(self, scene: Scene, rows: Sequence[AttemptRow]) -> Line:
        found = Counter(_group(row) for row in rows)
        return tuple(
            Span(f"{figures.count(found[name])} {name}{'  ' if name != 'direct' else ''}", role)
            for name, role in (("failed", "error"), ("relayed", "notice"), ("under way", "busy"), ("direct", "ok"))
            if found[name]
        )


def value_of(row: AttemptRow) -> Value:
    """What is copied of an attempt: where it came to, or why to nothing."""
    if row.peer:
        return Value("address reached", row.peer)
    reason = punch_words.why(row)
    return Value("reason", reason) if reason else Value("room", row.room)


def _badness(row: AttemptRow) -> int:
    return list(STATES).index(row.state) if row.state in STATES else len(STATES)


def _group(row: AttemptRow) -> str:
    if not row.over:
        return "under way" if row.state != "waiting" else ""
    return {"relay": "relayed"}.get(row.state, row.state)


def _nat(side: NatRow) -> Span:
    if not side.words:
        return Span("–", "faint")
    return Span(punch_words.MAPPINGS.get(side.mapping, side.mapping))


def _nothing_tried(scene: Scene) -> list[Line]:
    """Why there is no attempt, and what to do."""
    service = scene.place.service
    services = scene.picture.services or ()
    found = [row for row in services if row.kind in ABOUT["punches"] and service in ("", row.name)]
    where = (Span("2", "key"), Span(" shows the services there are", "dim"))
    if not found:
        rendezvous = any(row.kind == "punch-server" for row in services if service in ("", row.name))
        return [
            (),
            (Span(f"{service} is no punch client." if service else "There is no punch client.", "strong"),),
            (Span("A rendezvous is not told what its clients try: look at theirs.", "dim"),) if rendezvous else
            (Span('A service of kind = "punch-client" meets its other end in a room; its tries show here.', "dim"),),
            where,
        ]  # fmt: skip
    return [
        (),
        (Span("Nothing has been tried yet.", "strong"),),
        *(_how_it_is(row) for row in found[:3]),
        (Span("2", "key"), Span(" shows the services, and starts them", "dim")),
    ]


def _how_it_is(row: ServiceRow) -> Line:
    because = f": {row.error}" if row.error else ""
    return (Span(f"{row.name} is {row.state}{because}", "dim"),)
