"""The tunnels: which requests came through them, how they were answered, and how long that took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures
from tunnelconsole.control.exchange_rows import ExchangeRow
from tunnelconsole.control.messages import ServiceRow, Status
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import ABOUT, Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span

TIMELINE = 12
"""Cells of the line that shows what a request's time went to."""

STATUS_ROLES = {1: "busy", 2: "ok", 3: "dim", 4: "warning", 5: "error"}
"""How an answer's status is painted, by its first digit."""


def status(row: ExchangeRow) -> Span:
    """How a request was answered: the number says all, a sign that something else went wrong."""
    if row.seconds is None:
        return Span(f"◌ {row.status or '…'}", "busy")
    if not row.status:
        return Span("✖ none", "error")
    role = STATUS_ROLES.get(row.status // 100, "text")
    return (
        Span(f"✖ {row.status}", "error" if row.status < 500 else role) if row.error else Span(f"  {row.status}", role)
    )


def took(row: ExchangeRow, now: float) -> Span:
    """How long a request took, or has been under way."""
    if row.seconds is None:
        return Span(figures.brief(max(0.0, now - row.started)), "busy")
    return Span(figures.brief(row.seconds))


def timeline(row: ExchangeRow) -> Line:
    """What its time went to: until the answer began, and until it was over."""
    if row.seconds is None or row.seconds_to_answer is None:
        return ()
    wait = min(row.seconds, row.seconds_to_answer)
    waiting = round(TIMELINE * wait / row.seconds) if row.seconds else TIMELINE
    return (
        Span("━" * waiting, "busy"),
        Span("─" * (TIMELINE - waiting), "out"),
        Span(f"  {figures.brief(wait)} to the answer, then {figures.brief(row.seconds - wait)}", "dim"),
    )


def asked(row: ExchangeRow, url: str = "") -> Fact:
    """What was asked for.

    :param url: that in full, where it is known.
    """
    return Fact("asked", (Span(f"{row.method} ", "key"), Span(url or f"{row.host}{row.target}", "strong")))


def facts(row: ExchangeRow, scene: Scene) -> list[Fact]:
    """What else is known of a request without its heads and bodies."""
    through = (Span(row.service), Span(f"  for {row.host}", "dim"))
    sizes = (
        Span("request ", "dim"), Span(figures.size(row.request_bytes), "in"),
        Span("  answer ", "dim"), Span(figures.size(row.response_bytes), "out"),
    )  # fmt: skip
    return [
        Fact("error", (Span(row.error, "error"),)),
        Fact("status", (status(row), Span(f"  {row.content_type}", "dim"))),
        Fact("took", (took(row, scene.now), Span(", and goes on" if row.seconds is None else "", "busy"))),
        Fact("time", timeline(row)),
        Fact("sizes", sizes),
        Fact("visitor", (Span(row.peer),)),
        Fact("through", through),
        Fact("when", measures.ago(row.started, scene)),
        Fact("replays", (Span(row.replay_of, "notice"),)),
    ]


class TunnelsPane(TablePane[ExchangeRow]):
    """The last requests through all tunnels, or through those of one service."""

    screen_name: ClassVar[Screen] = "tunnels"
    title = "Requests"
    noun = ("request", "requests")
    first_order = Order("time", falling=True)

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "exchanges", "events"]

    def columns(self) -> Sequence[Column[ExchangeRow]]:
        return (
            Column("time", "TIME", self._time, lambda row: (row.started, row.id), 8, 14, rank=1, falling=True),
            Column("status", "STATUS", lambda row, _: status(row), lambda row: row.status, 6),
            Column("method", "METHOD", lambda row, _: Span(row.method, "dim"), lambda row: row.method, 6, 9, rank=2),
            Column("target", "PATH", lambda row, _: Span(row.target, "strong"), lambda row: row.target, 14, 60,
                   stretch=True),
            Column("seconds", "TOOK", took, lambda row: (row.seconds is None, row.seconds), 7, rank=1, right=True,
                   falling=True, steady=False),
            Column("response_bytes", "ANSWER", lambda row, _: cells.size(row.response_bytes),
                   lambda row: row.response_bytes, 8, rank=3, right=True, falling=True),
            Column("request_bytes", "REQUEST", lambda row, _: cells.size(row.request_bytes),
                   lambda row: row.request_bytes, 8, rank=6, right=True, falling=True),
            Column("host", "HOST", lambda row, _: Span(row.host), lambda row: row.host, 12, 40, rank=5),
            Column("service", "SERVICE", lambda row, _: Span(row.service, "dim"), lambda row: row.service, 8, 24,
                   rank=3),
            Column("peer", "VISITOR", lambda row, _: Span(row.peer), lambda row: row.peer, 15, 46, rank=7),
            Column("type", "TYPE", lambda row, _: Span(row.content_type.partition(";")[0], "dim"),
                   lambda row: row.content_type, 10, 24, rank=8),
            Column("id", "ID", lambda row, _: Span(row.id, "faint"), lambda row: row.id, 6, 12, rank=9),
        )  # fmt: skip

    def _time(self, row: ExchangeRow, now: float) -> Span:
        zone = self._scene.zone if self._scene is not None else None
        return Span(figures.moment(row.started, now, zone), "notice" if row.replay_of else "dim")

    def identity(self, row: ExchangeRow) -> str:
        return row.id

    def haystack(self, row: ExchangeRow) -> str:
        return (
            f"{row.method} {row.host}{row.target} {row.status} {row.service} {row.peer} {row.content_type} {row.error} "
            f"{row.id} {row.replay_of and 'replay'}"
        )

    def rows_of(self, scene: Scene) -> Sequence[ExchangeRow] | None:
        rows, service = scene.picture.exchanges, scene.place.service
        return rows if rows is None or not service else [row for row in rows if row.service == service]

    def empty(self, scene: Scene) -> list[Line]:
        return _nothing_came(scene)

    def facts(self, row: ExchangeRow, scene: Scene) -> list[Fact]:
        return [asked(row), *facts(row, scene), Fact("id", (Span(row.id, "dim"),))]

    def value_of(self, row: ExchangeRow) -> Value:
        return Value("host and path", f"{row.host}{row.target}")

    def remark(self, scene: Scene, rows: Sequence[ExchangeRow]) -> Line:
        found = Counter(_outcome(row) for row in rows)
        told: list[Span] = []
        if scene.picture.missed:
            told.append(Span(f"{figures.counted(scene.picture.missed, 'request')} missed  ", "warning"))
        for name, role in (("failed", "error"), ("refused", "warning"), ("under way", "busy")):
            if found[name]:
                told.append(Span(f"{figures.count(found[name])} {name}  ", role))
        return (*told, Span(f"{figures.count(found['answered'])} answered" if rows else "", "dim"))


def _outcome(row: ExchangeRow) -> str:
    if row.seconds is None:
        return "under way"
    if row.error or row.status >= 500 or not row.status:
        return "failed"
    return "refused" if row.status >= 400 else "answered"


def _nothing_came(scene: Scene) -> list[Line]:
    """Why there is no request, and what to do."""
    service = scene.place.service
    tunnels = [row for row in scene.picture.services or () if row.kind in ABOUT["tunnels"]]
    found = [row for row in tunnels if service in ("", row.name)]
    if not found:
        what = f"{service} is no tunnel." if service else "There is no tunnel."
        return [
            (),
            (Span(what, "strong"),),
            (Span("A tunnel-server, or a tunnel-client, shows here what visitors ask for.", "dim"),),
            (Span("2", "key"), Span(" shows the services there are", "dim")),
        ]
    where = f" through {service}" if service else ""
    return [
        (),
        (Span(f"No request has come{where} yet.", "strong"),),
        _where_to_come(found),
        (Span("With inspect = false, a service keeps none.", "dim"),),
        (Span("2", "key"), Span(" shows the services, and starts them", "dim")),
    ]


def _where_to_come(services: Sequence[ServiceRow]) -> Line:
    client = next((row for row in services if row.kind == "tunnel-client" and row.address), None)
    if client is not None:
        return (Span("Visitors come to ", "dim"), Span(client.address), Span(".", "dim"))
    server = next((row for row in services if row.address), None)
    if server is None:
        return (Span(f"{services[0].name} is {services[0].state}, and cannot be reached.", "dim"),)
    return (Span("Clients and visitors come to ", "dim"), Span(server.address), Span(".", "dim"))
