"""The sessions: who is attached, as whom, since when, and how much they move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures
from tunnelconsole.control.messages import SessionRow, Status
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.limiting import in_words
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span

COLUMNS: tuple[Column[SessionRow], ...] = (
    Column("peer", "PEER", lambda row, _: Span(row.peer, "strong"), lambda row: row.peer, 16, 46),
    Column("identity", "IDENTITY", lambda row, _: Span(row.identity), lambda row: row.identity, 10, 30, rank=2),
    Column("service", "SERVICE", lambda row, _: Span(row.service), lambda row: row.service, 10, 24, rank=3),
    Column("kind", "KIND", lambda row, _: Span(row.kind, "dim"), lambda row: row.kind, 14, rank=7),
    measures.count("channels", "CHAN", rank=4),
    *measures.rates(rank=1),
    *measures.totals(rank=6),
    measures.age(rank=5),
    Column("id", "ID", lambda row, _: Span(row.id, "faint"), lambda row: row.id, 8, 20, rank=8),
)  # fmt: skip


class SessionsPane(TablePane[SessionRow]):
    """Who is attached, to all services or to one."""

    screen_name: ClassVar[Screen] = "sessions"
    title = "Sessions"
    noun = ("session", "sessions")
    first_order = Order("rate_in", falling=True)

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "sessions", "events"]

    def columns(self) -> Sequence[Column[SessionRow]]:
        return COLUMNS

    def identity(self, row: SessionRow) -> str:
        return row.id

    def haystack(self, row: SessionRow) -> str:
        return f"{row.id} {row.peer} {row.identity} {row.service} {row.kind} {row.note} {row.address}"

    def rows_of(self, scene: Scene) -> Sequence[SessionRow] | None:
        rows, service, token = scene.picture.sessions, scene.place.service, scene.place.token
        if rows is None or not (service or token):
            return rows
        return [row for row in rows if service in ("", row.service) and token in ("", row.token)]

    def empty(self, scene: Scene) -> list[Line]:
        if scene.place.token:
            return [
                (),
                (Span(f"Nobody is in with the token {scene.place.token}.", "strong"),),
                (Span("Esc", "key"), Span(" goes back", "dim")),
            ]
        if scene.place.service:
            return [
                (),
                (Span(f"Nobody is attached to {scene.place.service}.", "strong"),),
                _where_to_connect(scene),
                (Span("Esc", "key"), Span(" goes back", "dim")),
            ]
        return [
            (),
            (Span("Nobody is attached.", "strong"),),
            (Span("A session shows here as soon as a remote party connects to a service.", "dim"),),
            (Span("2", "key"), Span(" shows where the services can be reached", "dim")),
        ]

    def facts(self, row: SessionRow, scene: Scene) -> list[Fact]:
        return [
            Fact("peer", (Span(row.peer, "strong"),)),
            Fact("identity", (Span(row.identity), Span("  by a token" if row.token else "", "dim"))),
            Fact("service", (Span(row.service), Span(f"  {row.kind}", "dim"))),
            *([Fact("reached at", (Span(row.address, "strong"),))] if row.address else []),
            *([Fact("note", (Span(row.note, "warning"),))] if row.note else []),
            *([Fact("at most", (Span(in_words(row.limits)),))] if row.limits else []),
            measures.since(row, scene),
            Fact("channels", (Span(figures.count(row.channels)),)),
            measures.moving(row),
            measures.moved(row),
            Fact("id", (Span(row.id, "dim"),)),
        ]  # fmt: skip

    def value_of(self, row: SessionRow) -> Value:
        return Value("peer", row.peer)

    def remark(self, scene: Scene, rows: Sequence[SessionRow]) -> Line:
        return cells.flow(sum(row.rate_in for row in rows), sum(row.rate_out for row in rows))


def _where_to_connect(scene: Scene) -> Line:
    service = scene.picture.service(scene.place.service)
    if service is None:
        return (Span("There is no service of this name now.", "dim"),)
    if not service.address:
        return (Span(f"It is {service.state}, and cannot be reached anywhere.", "dim"),)
    return (Span("It can be reached at ", "dim"), Span(service.address), Span(".", "dim"))
