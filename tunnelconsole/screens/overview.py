"""The overview: what is wrong, what runs, what moves, what happened; in this order, on any size of screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult

from tunnelconsole.control import figures
from tunnelconsole.control.messages import ChannelRow, EventRow, ServiceRow, Status
from tunnelconsole.screens import cells, keys
from tunnelconsole.screens.columns import Order, arrange
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Pane, Scene, SideBySide, Value, waiting
from tunnelconsole.screens.picture import UP
from tunnelconsole.screens.services import columns, none_configured, trail_of
from tunnelconsole.screens.spans import Line, Span, fit, rule
from tunnelconsole.screens.widgets.chart import Chart
from tunnelconsole.screens.widgets.lines import Lines
from tunnelconsole.screens.widgets.table import LineTable

CHANNELS_FOLLOWED = 500
"""Channels up to which the busiest are shown here: asking for more twice a second costs more than it tells."""

BUSY_SERVICE, BUSY_RATE = 12, 10
"""Cells for the service and for each rate of a busy channel."""

BUSY_FROM = 110
"""Cells of width from which the busiest channels have a place beside the events."""


LEAST_SERVICES = 6
"""Lines kept for services, even where there are fewer: as many as the reason takes why there are none."""

LEAST_EVENTS = 2
"""Lines of the last events at the least: their title, and one."""

TALLEST_CHART = 13
"""Lines of a chart at the most, its title and its scale included; taller ones show no more."""


@dataclass(frozen=True)
class Heights:
    """How many lines each part has; 0: it is left out."""

    attention: int
    tiles: int
    charts: int
    events: int

    @classmethod
    def of(cls, height: int, troubles: int, services: int) -> Heights:
        """Shares out ``height`` lines. Titles are counted in.

        What nobody asked for goes to the charts and then to the events; the services have the rest.
        """
        wrong = max(1, troubles)
        if height < 10:
            return cls(2, 0, 0, 0)
        if height < 18:
            return cls(1 + min(wrong, 2), 2, 0, 0)
        if height < 28:
            least = cls(1 + min(wrong, 3), 2, 5, 4)
        elif height < 42:
            least = cls(1 + min(wrong, 5), 2, 8, 7)
        else:
            least = cls(1 + min(wrong, 8), 2, 11, 11)
        room = height - least.attention - least.tiles - least.charts - least.events
        missing = max(0, services + 2 - room)
        if missing:  # what runs comes before what happened, which has a screen of its own
            events = least.events - missing
            return replace(least, events=events if events >= LEAST_EVENTS else 0)
        spare = room - (max(services, LEAST_SERVICES) + 2)
        more = max(0, min(spare, TALLEST_CHART - least.charts))
        return replace(least, charts=least.charts + more, events=least.events + max(0, spare - more))


class Tile(NamedTuple):
    """A figure with its name."""

    name: str
    value: Line


def tiles(status: Status, services: Sequence[ServiceRow]) -> list[Tile]:
    """The figures of the node, the most important first."""
    up = sum(row.state in UP for row in services)
    total = max(status.services, len(services))
    return [
        Tile("SERVICES", (Span(f"{up} of {total} up", "ok" if up == total else "warning"),)),
        Tile("SESSIONS", (Span(figures.count(status.sessions), "strong"),)),
        Tile("CHANNELS", (Span(figures.count(status.channels), "strong"),)),
        Tile("BYTES IN", (Span(figures.size(status.bytes_in), "in"),)),
        Tile("BYTES OUT", (Span(figures.size(status.bytes_out), "out"),)),
        Tile("UPTIME", (Span(figures.duration(status.uptime), "strong"),)),
        Tile("MEMORY", (Span(figures.size(status.memory), "strong"),)),
        Tile("CPU", (Span(figures.percent(status.cpu), "strong"),)),
    ]


def laid_out(shown: Sequence[Tile], width: int) -> list[Line]:
    """The tiles side by side, as many as fit, in two lines."""
    each = max(11, width // max(1, len(shown)))
    fitting = shown[: max(1, width // each)]
    each = width // len(fitting)
    names = tuple(Span(fit(f" {tile.name}", each), "faint") for tile in fitting)
    values: list[Span] = []
    for tile in fitting:
        values.append(Span(" "))
        values += tile.value
        values.append(Span(" " * max(0, each - 1 - sum(len(span.text) for span in tile.value))))
    return [names, tuple(values)]


def troubles(scene: Scene) -> list[Line]:
    """What is wrong, the worst first; then what is open to others."""
    picture, now = scene.picture, scene.now
    lines: list[Line] = []
    for row in picture.faults():
        state, left, action = cells.state(row, now), cells.until_retry(row, now), f"app.reveal({row.name!r})"
        when = f"next try in {left}, " if left else ""
        state = state._replace(text=state.text.removesuffix(f" {left}"))
        lines.append((
            Span(" "), state._replace(text=f"{state.text:<10}", action=action), Span(row.name, "strong", action),
            Span(f"  {when}", "dim", action), Span(row.error or "no cause was given", state.role, action),
        ))  # fmt: skip
    faulty = {row.name for row in picture.faults()}
    alike: dict[tuple[str, str], list[EventRow]] = {}
    for event in picture.troubles(now):
        if event.service not in faulty:
            alike.setdefault((event.service, event.type), []).append(event)
    for event, *before in alike.values():
        level, action = cells.level(event.level), "app.show('events')"
        often = f", {len(before) + 1} times" if before else ""
        lines.append((
            Span(" "), level._replace(text=f"{level.text:<10}", action=action), Span(event.service, "strong", action),
            Span(f"{'  ' if event.service else ''}{figures.duration(now - event.time)} ago{often}: ", "dim", action),
            Span(event.text, "text", action),
        ))  # fmt: skip
    for row in picture.exposed():
        action = f"app.reveal({row.name!r})"
        lines.append((
            Span(" "), Span(cells.EXPOSED, "notice", action), Span(f" {row.name}", "strong", action),
            Span("  other machines can reach ", "dim", action), Span(row.address, "notice", action),
        ))  # fmt: skip
    return lines


def busiest(channels: Sequence[ChannelRow] | None, total: int, count: int, width: int) -> list[Line]:
    """The channels that move most now, one line each; ``total`` counts all there are, known or not."""
    if channels is None and total <= CHANNELS_FOLLOWED:
        return [(Span(" Reading channels…", "dim"),)]
    if channels is None:
        return [
            (
                Span(" Too many to follow here. ", "dim"),
                Span("4", "key", "app.show('channels')"),
                Span(" lists them", "dim"),
            )
        ]
    moving = sorted((row for row in channels if row.rate_in + row.rate_out >= 0.5),
                    key=lambda row: (-(row.rate_in + row.rate_out), row.id))  # fmt: skip
    if not moving:
        return [(Span(" Nothing moves at the moment.", "dim"),)]
    label = max(8, width - 2 - 2 - BUSY_SERVICE - 2 * BUSY_RATE)
    lines: list[Line] = []
    for row in moving[:count]:
        rates = (cells.rate(row.rate_in, "in"), cells.rate(row.rate_out, "out"))
        lines.append((
            Span(" "), Span(fit(row.label or row.id, label), "text", "app.show('channels')"),
            Span("  " + fit(row.service, BUSY_SERVICE), "dim"),
            *(rate._replace(text=f"{rate.text:>{BUSY_RATE}}") for rate in rates),
        ))  # fmt: skip
    return lines


class OverviewPane(Pane):
    """The first screen."""

    DEFAULT_CSS = """
    OverviewPane #charts { height: 6; }
    OverviewPane #gap { width: 2; }
    OverviewPane #tiles { height: 2; }
    OverviewPane #below { height: 4; }
    """

    screen_name: ClassVar[Screen] = "overview"

    def __init__(self) -> None:
        super().__init__()
        self.order = Order("state", falling=False)
        self._scene: Scene | None = None
        self._attention = Lines(id="attention")
        self._tiles = Lines(id="tiles")
        self._charts = SideBySide(id="charts")
        self._in, self._out = Chart("In", "in", id="in"), Chart("Out", "out", id="out")
        self._head = Lines(id="services-title")
        self._columns = columns(self._trail)
        letters = {column.key: keys.sort_letter("overview", column.key) for column in self._columns}
        self._services: LineTable[ServiceRow] = LineTable(self._columns, lambda row: row.name, letters)
        self._below = SideBySide(id="below")
        self._events, self._gap, self._busiest = Lines(id="last"), Lines(id="gap"), Lines(id="busiest")

    def compose(self) -> ComposeResult:
        yield self._attention
        yield self._tiles
        with self._charts:
            yield self._in
            yield Lines(id="gap")
            yield self._out
        yield self._head
        yield self._services
        with self._below:
            yield self._events
            yield self._gap
            yield self._busiest

    @property
    def table(self) -> LineTable[ServiceRow]:
        return self._services

    def topics(self, status: Status | None) -> list[str]:
        few = status is not None and status.channels <= CHANNELS_FOLLOWED and self.app.size.width >= BUSY_FROM
        return ["services", "events", "history", "histories", *(["channels"] if few else [])]

    def column_names(self) -> list[str]:
        return [column.key for column in self._columns]

    def sort(self, column: str) -> None:
        found = next((one for one in self._columns if one.key == column), None)
        if found is None:
            raise KeyError(column)
        self.order = self.order.pressed(found)
        if self._scene is not None:
            self.show(self._scene)

    def value(self) -> Value | None:
        row = self._services.selected
        if row is None:
            return None
        return Value("address", row.address) if row.address else Value("name", row.name)

    def on_resize(self) -> None:
        if self._scene is not None:
            self.show(self._scene)

    def _trail(self, name: str) -> Sequence[float]:
        return trail_of(self._scene, name)

    def show(self, scene: Scene) -> None:
        self._scene = scene
        picture, width = scene.picture, self.outer_size.width
        wrong = troubles(scene)
        heights = Heights.of(self.outer_size.height, len(wrong), len(picture.services or ()))
        self._show_attention(scene, wrong, heights.attention)
        if picture.status is not None and heights.tiles:
            self._tiles.show(laid_out(tiles(picture.status, picture.services or ()), width))
        self._tiles.display = bool(heights.tiles)
        self._charts.display = bool(heights.charts)
        self._charts.styles.height = heights.charts
        status, history = picture.status, picture.history
        interval = history.interval if history is not None else 1.0
        self._in.show(history.rate_in if history else None, interval, status.rate_in if status else None)
        self._out.show(history.rate_out if history else None, interval, status.rate_out if status else None)
        self._show_services(scene)
        self._below.display = bool(heights.events)
        self._below.styles.height = heights.events
        self._show_below(scene, heights.events - 1)

    def _show_attention(self, scene: Scene, wrong: Sequence[Line], height: int) -> None:
        width, picture = self.outer_size.width, scene.picture
        faults, warnings = len(picture.faults()), len(picture.troubles(scene.now))
        tail: list[Span] = []
        if faults:
            tail += [Span(figures.counted(faults, "fault"), "error", "app.show('services')"), Span("  ")]
        if warnings:
            said = f"{figures.counted(warnings, 'warning')} in 10 min"
            tail += [Span(said, "warning", "app.show('events')"), Span("  ")]
        if len(wrong) > height - 1:
            tail += [Span(f"{len(wrong) - height + 1} not shown", "dim", "app.show('events')"), Span("  ")]
        lines = wrong[: height - 1] or [self._all_well(scene)]
        self._attention.show([rule((Span("Attention", "title"),), tuple(tail[:-1]), width), *lines])

    def _all_well(self, scene: Scene) -> Line:
        if scene.picture.services is None:
            return (Span(" – ", "faint"), Span("nothing is known yet", "dim"))
        if not scene.picture.services:
            return (Span(" ○ ", "off"), Span("Nothing runs yet", "dim"))
        return (
            Span(" ● ", "ok"),
            Span("All is well", "ok"),
            Span(": no fault, and no warning in the last 10 minutes", "dim"),
        )

    def _show_services(self, scene: Scene) -> None:
        picture, narrowing = scene.picture, scene.place.filter
        rows = picture.services or ()
        shown = arrange(
            rows, self._columns, self.order, narrowing,
            lambda row: f"{row.name} {row.kind} {row.state} {row.address} {row.target}", lambda row: row.name,
        )  # fmt: skip
        amount = figures.count(len(rows)) if len(rows) == len(shown) else f"{len(shown)} of {len(rows)}"
        left: list[Span] = [Span("Services", "title", "app.show('services')"), Span(f"  {amount}", "dim")]
        if narrowing.text:
            left.append(Span(f"  /{narrowing.text}", "match"))
        self._head.show([rule(tuple(left), (), self.outer_size.width)])
        why = waiting(scene, "services") if picture.services is None else none_configured(scene)
        if rows and not shown:
            why = [
                (),
                (Span("No service matches ", "dim"), Span(f"/{narrowing.text}", "match")),
                (Span("Esc", "key"), Span(" clears the filter", "dim")),
            ]
        self._services.show(shown, scene.now, self.order, why)

    def _show_below(self, scene: Scene, room: int) -> None:
        width, status = self.outer_size.width, scene.picture.status
        both = width >= BUSY_FROM
        self._busiest.display = self._gap.display = both
        half = (width - 2) // 2 if both else width
        told = (event for event in reversed(scene.picture.events) if event.level != "debug")
        events = list(islice(told, max(0, room)))
        lines: list[Line] = [rule((Span("Last events", "title", "app.show('events')"),), (), half)]
        for event in events:
            sign, role = cells.LEVELS.get(event.level, ("?", "dim"))
            lines.append((
                Span(f" {figures.clock(event.time, scene.zone)} ", "faint"), Span(f"{sign} ", role),
                *((Span(f"{event.service} ", "dim"),) if event.service else ()), Span(event.text),
            ))  # fmt: skip
        if not events:
            lines.append((Span(" Nothing has happened yet.", "dim"),))
        self._events.show(lines)
        if both:
            busy = busiest(scene.picture.channels, status.channels if status else 0, max(0, room), half)
            heading = rule(
                (Span("Busiest channels", "title", "app.show('channels')"),),
                (Span(f"{'in':>{BUSY_RATE - 1}}", "in"), Span(f"{'out':>{BUSY_RATE}}", "out")),
                half,
            )
            self._busiest.show([heading, *busy])
