"""The services: what runs, where, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult

from tunnelconsole.control import figures
from tunnelconsole.control.messages import ServiceRow, Status
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.limiting import in_words
from tunnelconsole.screens.pane import Fact, Scene, SideBySide, TablePane, Value
from tunnelconsole.screens.picture import UP, Flow
from tunnelconsole.screens.spans import Line, Span
from tunnelconsole.screens.widgets.chart import Chart, spark

CHARTS_FROM = 30
"""Lines the screen needs before the selected service's charts take any."""

MINUTE = 60
"""Seconds."""

SPARK = 12
"""Cells of the small chart in a row: twice as many values."""


def note(row: ServiceRow, _now: float = 0.0) -> Span:
    """The most important thing about a service in one piece of text: its error, or where it leads."""
    if row.error:
        return Span(row.error, cells.STATES.get(row.state, ("", "dim"))[1])
    return Span(row.target, "dim")


def columns(trail: Callable[[str], Sequence[float]]) -> tuple[Column[ServiceRow], ...]:
    """The columns of a table of services, from the left.

    :param trail: the rates of a service over the last minute.
    """

    def last_minute(row: ServiceRow, _now: float) -> Span:
        return Span(spark(trail(row.name), SPARK), "in")

    return (
        Column("name", "NAME", lambda row, _: Span(row.name, "strong"), lambda row: row.name, 10, 24),
        Column("state", "STATE", cells.state, cells.badness, 13, 14),
        Column("kind", "KIND", lambda row, _: Span(row.kind, "dim"), lambda row: row.kind, 14, rank=6),
        Column("address", "ADDRESS", lambda row, _: cells.address(row), lambda row: row.address, 18, 48, rank=2),
        measures.count("sessions", "SESS", rank=4),
        measures.count("channels", "CHAN", rank=3),
        *measures.rates(rank=1),
        Column("trail", "LAST MINUTE", last_minute, lambda row: row.rate_in + row.rate_out, SPARK, rank=7,
               steady=False),
        *measures.totals(rank=9),
        measures.age(rank=5),
        Column("note", "LEADS TO, OR WHY IT FAILS", note, lambda row: note(row).text, 20, rank=8, stretch=True),
    )  # fmt: skip


def facts(row: ServiceRow, scene: Scene) -> list[Fact]:
    """What is known of a service, the most urgent first."""
    since = Span(f" for {figures.duration(scene.now - row.since)}", "dim")
    found = [Fact("error", (Span(row.error or "", "error" if row.state == "failed" else "warning"),))]
    wait = cells.until_retry(row, scene.now)
    if wait and row.retry_at is not None:
        found.append(
            Fact("next try", (Span(f"in {wait}"), Span(f", at {figures.clock(row.retry_at, scene.zone)}", "dim")))
        )
    if row.state == "draining":
        left = f"{figures.counted(row.channels, 'channel')} left, cut in {wait}; s takes it back, x does not wait"
        found.append(Fact("drain", (Span(left, "busy"),)))
    found += [
        Fact("state", (cells.state(row, scene.now), since, _restarts(row))),
        Fact("address", (Span(row.address or "none", "text" if row.address else "faint"),)),
        Fact("exposed", (Span("other machines can reach it", "notice"),) if row.exposed else ()),
        Fact("kind", (Span(row.kind),)),
        Fact("at most", (Span(in_words(row.limits)),) if row.limits else ()),
        Fact("leads to", (Span(row.target),)),
        measures.moved(row),
        *(Fact(name, (Span(text),)) for name, text in sorted(row.notes.items())),
    ]  # fmt: skip
    return found


def _restarts(row: ServiceRow) -> Span:
    return Span(f", restarted {figures.counted(row.restarts, 'time')}" if row.restarts else "", "dim")


def flow_of(scene: Scene | None, name: str) -> Flow:
    """The rates of a service over the last minutes."""
    return Flow() if scene is None else scene.picture.flows.get(name, Flow())


def trail_of(scene: Scene | None, name: str) -> list[float]:
    """What a service moved over the last minute, both ways together."""
    flow = flow_of(scene, name)
    return flow.both(last=max(1, round(MINUTE / flow.spacing)))


def none_configured(scene: Scene) -> list[Line]:
    """What to do when there is no service at all."""
    status = scene.picture.status
    config = status.config if status is not None and status.config else "a configuration file"
    return [
        (),
        (Span("No services are configured.", "strong"),),
        (
            Span("Write one in ", "dim"),
            Span(config),
            Span(", then press ", "dim"),
            Span("R", "key"),
            Span(" to reload.", "dim"),
        ),
    ]


class ServicesPane(TablePane[ServiceRow]):
    """All services, and everything that can be done to one."""

    DEFAULT_CSS = """
    ServicesPane > .charts { height: 7; }
    """

    screen_name: ClassVar[Screen] = "services"
    title = "Services"
    noun = ("service", "services")
    first_order = Order("name", falling=False)

    def __init__(self) -> None:
        super().__init__()
        self._charts = SideBySide(classes="charts")
        self._in, self._out = Chart("In", "in"), Chart("Out", "out")

    def columns(self) -> Sequence[Column[ServiceRow]]:
        return columns(self._trail)

    def _trail(self, name: str) -> Sequence[float]:
        return trail_of(self._scene, name)

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._table
        with self._charts:  # above the details, because toasts come up at the lower right, where details have no text
            yield self._in
            yield self._out
        yield self._details

    def show_row(self, row: ServiceRow | None, scene: Scene) -> None:
        flow = flow_of(scene, row.name if row is not None else "")
        self._charts.display = row is not None and self.details_shown and self.size.height >= CHARTS_FROM
        self._in.show(flow.rate_in, flow.spacing, row.rate_in if row is not None else None)
        self._out.show(flow.rate_out, flow.spacing, row.rate_out if row is not None else None)

    def identity(self, row: ServiceRow) -> str:
        return row.name

    def haystack(self, row: ServiceRow) -> str:
        exposed = "exposed" if row.exposed else ""
        return f"{row.name} {row.kind} {row.state} {row.address} {row.target} {row.error or ''} {exposed}"

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "events", "histories"]

    def rows_of(self, scene: Scene) -> Sequence[ServiceRow] | None:
        return scene.picture.services

    def empty(self, scene: Scene) -> list[Line]:
        return none_configured(scene)

    def facts(self, row: ServiceRow, scene: Scene) -> list[Fact]:
        return facts(row, scene)

    def value_of(self, row: ServiceRow) -> Value:
        return Value("address", row.address) if row.address else Value("name", row.name)

    def remark(self, scene: Scene, rows: Sequence[ServiceRow]) -> Line:
        up, faults = sum(row.state in UP for row in rows), len(scene.picture.faults())
        trouble: Line = (Span(f"  {figures.counted(faults, 'fault')}", "error"),) if faults else ()
        return (Span(f"{figures.count(up)} up", "ok"), *trouble)
