"""What all screens have in common, and what all tables of rows have in common."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from tunnelconsole.control import figures
from tunnelconsole.control.messages import Status
from tunnelconsole.screens import keys
from tunnelconsole.screens.columns import Column, Order, Row, arrange
from tunnelconsole.screens.feed import Link
from tunnelconsole.screens.picture import Picture
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.spans import Line, Span, fit, rule, wrapped
from tunnelconsole.screens.widgets.lines import Lines
from tunnelconsole.screens.widgets.table import LineTable

DETAILS_FROM = 14
"""Lines a screen needs before details of the selected row take any."""

LABEL = 12
"""Cells for the name of a fact."""


@dataclass(frozen=True)
class Scene:
    """Everything a screen needs to show itself."""

    picture: Picture
    place: Place
    now: float
    """Unix time: the present, or the moment the view was frozen at."""
    zone: tzinfo | None
    link: Link
    socket: Path


class Value(NamedTuple):
    """What key ``y`` copies of a row."""

    name: str
    text: str


class Fact(NamedTuple):
    """One line of the details: a name, and what is known."""

    name: str
    line: Line


class SideBySide(Horizontal):
    """Holds widgets that cover it, and so has nothing to paint itself."""

    BLANK = True


class Pane(Vertical):
    """One screen's content, which covers it."""

    BLANK = True

    screen_name: ClassVar[keys.Screen]

    def topics(self, status: Status | None) -> list[str]:
        """What has to be watched to show it; see :class:`tunnelconsole.control.messages.Watch`."""
        return ["services", "events"]

    def show(self, scene: Scene) -> None:
        """Shows the scene; paints nothing where nothing has changed."""
        raise NotImplementedError

    @property
    def table(self) -> LineTable[Any] | None:
        """The table that keys move in, where there is one."""
        return None

    def column_names(self) -> list[str]:
        """What it can be sorted by."""
        return []

    def sort(self, column: str) -> None:
        """Sorts by a column, or the other way round where it is so already.

        :raises KeyError: there is no such column.
        """
        raise KeyError(column)

    def value(self) -> Value | None:
        """What ``y`` copies; None when nothing is selected."""
        return None

    def entered(self, pinned: Hashable | None = None) -> None:
        """Called when another place is shown here: the cursor begins anew, on ``pinned`` where that is given."""
        if self.table is not None:
            self.table.reset(pinned)

    def move(self, by: int) -> None:
        """Moves down by so many rows, or up where negative."""
        if self.table is not None:
            self.table.move(by)

    def turn(self, pages: int) -> None:
        """Moves down by so many pages, or up where negative."""
        if self.table is not None:
            self.table.move(pages * self.table.body_height)

    def to_end(self, *, last: bool) -> None:
        """Moves to the last row, or to the first and stays there while rows change places."""
        if self.table is not None:
            if last:
                self.table.move_to(len(self.table.rows) - 1)
            else:
                self.table.stay_on_top()


def waiting(scene: Scene, what: str) -> list[Line]:
    """Why there is nothing yet."""
    if scene.link.state == "live":
        return [(), (Span(f"Reading {what}…", "dim"),)]
    if scene.link.state == "lost":
        return [
            (),
            (Span("The engine is away.", "warning"),),
            (Span(f"{what.capitalize()} show when it is back.", "dim"),),
        ]
    return [
        (),
        (Span("Waiting for the engine…", "strong"),),
        (Span(f"Nothing answers yet at {scene.socket}", "dim"),),
        (Span("Start one with: tunnelconsole --daemon", "dim"),),
    ]


class TablePane(Pane, Generic[Row]):
    """A screen that is one table, with details of the selected row below it."""

    DEFAULT_CSS = """
    TablePane > .details { max-height: 50%; }
    """

    title: ClassVar[str]
    noun: ClassVar[tuple[str, str]]
    """One and many: ``session``, ``sessions``."""
    first_order: ClassVar[Order]

    def __init__(self) -> None:
        super().__init__()
        self.order = self.first_order
        self.details_shown = True
        self._scene: Scene | None = None
        self._head = Lines(classes="title")
        columns = self.columns()
        letters = {column.key: keys.sort_letter(self.screen_name, column.key) for column in columns}
        self._table: LineTable[Row] = LineTable(columns, self.identity, letters)
        self._details = Lines(classes="details")

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._table
        yield self._details

    # what each screen says of its rows

    def columns(self) -> Sequence[Column[Row]]:
        """Its columns, from the left."""
        raise NotImplementedError

    def identity(self, row: Row) -> Hashable:
        """What tells a row from all others."""
        raise NotImplementedError

    def haystack(self, row: Row) -> str:
        """The text that a filter looks through."""
        raise NotImplementedError

    def rows_of(self, scene: Scene) -> Sequence[Row] | None:
        """The rows of this place; None while they are not known."""
        raise NotImplementedError

    def empty(self, scene: Scene) -> list[Line]:
        """Why there are no rows, and what to do."""
        raise NotImplementedError

    def facts(self, row: Row, scene: Scene) -> list[Fact]:
        """What is known of a row."""
        raise NotImplementedError

    def value_of(self, row: Row) -> Value:
        """What ``y`` copies of a row."""
        raise NotImplementedError

    def show_row(self, row: Row | None, scene: Scene) -> None:
        """Shows what else there is of the selected row, beyond its facts."""

    def remark(self, scene: Scene, rows: Sequence[Row]) -> Line:
        """What else the title says, at its end."""
        return ()

    # what all of them do

    @property
    def table(self) -> LineTable[Row]:
        return self._table

    @property
    def selected(self) -> Row | None:
        """The row under the cursor."""
        return self._table.selected

    def column_names(self) -> list[str]:
        return [column.key for column in self._table.columns]

    def sort(self, column: str) -> None:
        found = next((one for one in self._table.columns if one.key == column), None)
        if found is None:
            raise KeyError(column)
        self.order = self.order.pressed(found)
        self._again()

    def value(self) -> Value | None:
        row = self.selected
        return None if row is None else self.value_of(row)

    def toggle_details(self) -> None:
        """Shows or hides what is known of the selected row."""
        self.details_shown = not self.details_shown
        self._again()

    def show(self, scene: Scene) -> None:
        self._scene = scene
        found = self.rows_of(scene)
        rows = found or ()
        narrowing = scene.place.filter
        shown = arrange(rows, self._table.columns, self.order, narrowing, self.haystack, self._sortable_identity)
        if found is None:
            why = waiting(scene, self.noun[1])
        elif rows and not shown:
            why = self._all_filtered(len(rows), narrowing.text)
        else:
            why = self.empty(scene)
        self._head.show([self._title(scene, shown, len(rows))])
        self._table.show(shown, scene.now, self.order, why)
        self._show_details()

    def on_line_table_moved(self) -> None:
        """Another row is selected: its details are wanted."""
        self._show_details()

    def on_resize(self) -> None:
        self._again()

    def _again(self) -> None:
        if self._scene is not None:
            self.show(self._scene)

    def _sortable_identity(self, row: Row) -> Any:
        return self.identity(row)

    def _all_filtered(self, hidden: int, text: str) -> list[Line]:
        return [
            (),
            (Span(f"No {self.noun[0]} matches ", "dim"), Span(f"/{text}", "match")),
            (Span("Esc", "key"), Span(f" clears the filter, which hides {figures.counted(hidden, *self.noun)}", "dim")),
        ]

    def _title(self, scene: Scene, shown: Sequence[Row], total: int) -> Line:
        place = scene.place
        left: list[Span] = [Span(self.title, "title")]
        if place.session:
            left.append(Span(f" of session {place.session}", "strong"))
        elif place.service:
            left.append(Span(f" of {place.service}", "strong"))
        elif place.token:
            left.append(Span(f" with token {place.token}", "strong"))
        amount = figures.count(total)
        if len(shown) != total:
            amount = f"{figures.count(len(shown))} of {amount}"
        left.append(Span(f"  {amount}", "dim"))
        if place.filter.text:
            left.append(Span(f"  /{place.filter.text}", "match"))
        return rule(tuple(left), self.remark(scene, shown), self.size.width)

    def _show_details(self) -> None:
        scene, row = self._scene, self.selected
        height = self.size.height
        if scene is not None:
            self.show_row(row, scene)
        if scene is None or row is None or not self.details_shown or height < DETAILS_FROM:
            self._details.show(())
            return
        room = 4 if height < 20 else 6 if height < 28 else 10
        width = self.size.width
        lines = fact_lines(self.facts(row, scene), width)
        head = rule((Span("Selected", "title"),), (Span("d", "key"), Span(" hides this", "faint")), width)
        self._details.show([head, *lines[:room]])


def fact_lines(facts: Sequence[Fact], width: int) -> list[Line]:
    """Facts as lines, those without anything to say left out; side by side where there is room."""
    known = [fact for fact in facts if any(span.text for span in fact.line)]
    return _in_two(known, width) if width >= 100 else _in_one(known, width)


def _in_one(facts: Sequence[Fact], width: int) -> list[Line]:
    lines: list[Line] = []
    for fact in facts:
        if len(fact.line) == 1:
            pieces = wrapped(fact.line[0].text, width - LABEL - 2, fact.line[0].role)
        else:
            pieces = [fact.line]
        for at, piece in enumerate(pieces):
            lines.append((Span(" " + fit(fact.name if at == 0 else "", LABEL), "faint"), *piece))
    return lines


def _in_two(facts: Sequence[Fact], width: int) -> list[Line]:
    """Short facts side by side; one that needs the whole width has it."""
    half = width // 2
    lines: list[Line] = []
    short = [fact for fact in facts if sum(len(span.text) for span in fact.line) <= half - LABEL - 2]
    for fact in facts:
        if fact not in short:
            lines += _in_one([fact], width)
    rows = (len(short) + 1) // 2
    for left, right in zip(short[:rows], [*short[rows:], None], strict=False):
        line = _in_one([left], width)[0]
        if right is not None:
            used = sum(len(span.text) for span in line)
            line = (*line, Span(" " * max(1, half - used)), *_in_one([right], width)[0])
        lines.append(line)
    return lines
