"""The matrix beside a table of senders: a column for each receiver, and in each cell whether the row sends to it.

Its rows are those of the table, line by line; the receivers' names stand above, written downwards. Only lines that
differ from what stands there are painted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from tunnelconsole.control.messages import ChidRow
from tunnelconsole.screens import sending
from tunnelconsole.screens.sending import Receiver, Web
from tunnelconsole.screens.spans import Line, Span, fit
from tunnelconsole.screens.widgets.lines import Painted, tinted
from tunnelconsole.screens.widgets.table import LineTable

GUIDES = 5
"""Every so many columns an empty cell has a thin line, so that the eye keeps to its column."""

GUIDE = Span("┊", "line")

BEFORE, BEYOND = Span("‹", "key"), Span("›", "key")
"""Above the first and the last column in view, where there are more of them."""


@dataclass(frozen=True)
class Heads:
    """What a matrix has columns for, and how much room."""

    receivers: tuple[Receiver, ...] = ()
    web: Web = field(default_factory=Web, compare=False)
    lit: Receiver | None = None
    """Whose column stands out."""
    height: int = 1
    """Lines of the heads."""
    cell: int = 1
    """Cells of a column: 1, or 2 with a blank."""


class Matrix(Painted):
    """The marks of who sends to whom.

    :param table: whose rows are the senders.
    """

    DEFAULT_CSS = """
    Matrix { height: 1fr; width: 0; }
    """
    ALLOW_SELECT = False

    class Aimed(Message):
        """A column was clicked, or a cell, by which a row is chosen too."""

        def __init__(self, receiver: Receiver) -> None:
            super().__init__()
            self.receiver = receiver

    def __init__(self, table: LineTable[ChidRow]) -> None:
        super().__init__()
        self.heads = Heads()
        self.left = 0
        """The first column in view."""
        self._table = table
        self._names: list[str] = []
        self._painted: dict[int, Any] = {}

    def on_mount(self) -> None:
        self.watch(self._table, "scroll_y", self.repaint, init=False)
        self.watch(self._table, "has_focus", self.repaint, init=False)

    @property
    def columns_in_view(self) -> int:
        """How many columns there is room for."""
        return max(1, self.size.width // self.heads.cell)

    def show(self, heads: Heads) -> None:
        """Shows the table's rows with these heads."""
        self.heads = heads
        self._names = sending.heads([receiver.chid for receiver in heads.receivers], heads.height)
        self._keep_left()
        self.repaint()

    def reveal(self, receiver: Receiver) -> None:
        """Brings a receiver's column into view."""
        at = self.heads.receivers.index(receiver)
        if not self.left <= at < self.left + self.columns_in_view:
            self.left = at if at < self.left else at - self.columns_in_view + 1
            self._keep_left()
            self.repaint()

    def repaint(self) -> None:
        """Paints what has changed."""
        for y in range(self.size.height):
            if self._painted.get(y) != self._state(y):
                self.refresh(Region(0, y, self.size.width, 1))

    def on_resize(self) -> None:
        self._keep_left()
        self.refresh()

    def _keep_left(self) -> None:
        self.left = max(0, min(self.left, len(self.heads.receivers) - self.columns_in_view))

    @property
    def _margin(self) -> int:
        """Blank cells before the first column, where there is more room than columns take."""
        return max(0, self.size.width - len(self.heads.receivers) * self.heads.cell)

    def _in_view(self) -> range:
        return range(self.left, min(len(self.heads.receivers), self.left + self.columns_in_view))

    def _lit_at(self) -> int:
        """Cells from the left edge to the lit column; -1 where there is none in view."""
        lit, receivers = self.heads.lit, self.heads.receivers
        at = next((at for at in self._in_view() if receivers[at] == lit), None)
        return -1 if at is None else self._margin + (at - self.left) * self.heads.cell

    def _row_at(self, y: int) -> int:
        return y - self.heads.height + self._table.scroll_offset.y

    def _state(self, y: int) -> tuple[Any, ...]:
        """All that line ``y`` depends on: its text, where the lit column is, and whether the cursor is on it."""
        lit = self._lit_at()
        if y < self.heads.height:
            return (tuple(_merged(self._heads_line(y))), lit, False, False)
        index, rows = self._row_at(y), self._table.rows
        if index >= len(rows):
            return ((), -1, False, False)
        here = index == self._table.cursor
        return (tuple(_merged(self._marks(rows[index]))), lit, here, here and self._table.has_focus)

    def _heads_line(self, y: int) -> Iterator[Span]:
        heads = self.heads
        for at in self._in_view():
            name, receiver = self._names[at], heads.receivers[at]
            place = y - heads.height + len(name)
            letter = Span(name[place] if place >= 0 else " ", self._head_role(receiver))
            shown = letter if y else self._more(at) or letter
            yield shown._replace(text=fit(shown.text, heads.cell))

    def _more(self, at: int) -> Span | None:
        """What tells, above this column, that there are more than are in view."""
        view = self._in_view()
        if at == view[0] and at > 0:
            return BEFORE
        return BEYOND if at == view[-1] and at < len(self.heads.receivers) - 1 else None

    def _head_role(self, receiver: Receiver) -> str:
        if receiver == self.heads.lit:
            return "sorted"
        if not self.heads.web.present(receiver) or receiver in self.heads.web.slow:
            return "warning"
        return "head"

    def _marks(self, row: ChidRow) -> Iterator[Span]:
        heads, named = self.heads, frozenset(row.receivers)
        for at in self._in_view():
            receiver = heads.receivers[at]
            found = sending.mark(row, named, receiver, present=heads.web.present(receiver))
            if found is sending.NOBODY and at % GUIDES == GUIDES - 1:
                found = GUIDE
            if heads.cell > 1:
                band = not named and found.text in sending.TO_ALL
                found = found._replace(text=found.text * heads.cell if band else found.text.ljust(heads.cell))
            yield found

    def painted_line(self, y: int) -> Strip:
        state = self._state(y)
        self._painted[y] = state
        line, lit, under_cursor, focused = state
        look = self.look
        over = look.style("cursor" if focused else "cursor-idle") if under_cursor else None
        strip = self.paint((Span(" " * self._margin), *line), self.size.width, over)
        if lit >= 0 and not under_cursor:
            strip = tinted(strip, lit, lit + 1, look.style("cursor-idle"))
        return strip

    def on_click(self, event: events.Click) -> None:
        """A head or a cell is aimed at; a cell's row is selected too, and opened with a double click."""
        event.stop()
        at = self.left + (event.x - self._margin) // self.heads.cell
        if at in self._in_view():
            self.post_message(self.Aimed(self.heads.receivers[at]))
        index = self._row_at(event.y)
        if event.y >= self.heads.height and index < len(self._table.rows):
            self._table.move_to(index)
            if event.chain > 1:
                self._table.post_message(LineTable.Opened())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves the rows; with Shift or Ctrl the columns."""
        event.stop()
        self._wheel(1, sideways=event.shift or event.ctrl)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves the rows; with Shift or Ctrl the columns."""
        event.stop()
        self._wheel(-1, sideways=event.shift or event.ctrl)

    def _wheel(self, by: int, *, sideways: bool) -> None:
        if sideways:
            self.left += by
            self._keep_left()
            self.repaint()
        else:
            self._table.scroll_relative(y=by, animate=False, immediate=True)


def _merged(spans: Iterator[Span]) -> Iterator[Span]:
    """Neighbours of one role in one piece, which is cheaper to paint."""
    for role, run in groupby(spans, key=lambda span: span.role):
        yield Span("".join(span.text for span in run), role)


def legend(lines: int) -> list[Line]:
    """What the marks mean, in so many lines, the most useful first."""
    named, everybody = " ".join(sending.NAMED), " ".join(sending.TO_ALL)
    found: Sequence[Line] = (
        (Span(f" {named}", "in"), Span("  sends to it", "dim")),
        (Span(f" {everybody}", "in"), Span("  sends to all", "dim")),
        (Span(" ▲", "warning"), Span(" held up by it ", "dim"), Span("?", "warning"), Span(" not there", "dim")),
        (Span(" the rows send to the columns", "faint"),),
    )
    shown = found[:lines]
    return [*[()] * (lines - len(shown)), *shown]
