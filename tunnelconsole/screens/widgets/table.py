"""A table for thousands of rows that change twice a second.

It paints lines, not cells: only those in view, and of those only the ones that differ from what stands there. The
cursor belongs to a row, not to a place: once it was moved, it follows its row when rows change places. Before that it
stays at the top, so that who watches the fastest keeps seeing the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Self

from rich.cells import cell_len
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from tunnelconsole.screens.columns import GAP, Column, Order, Placed, Row, place
from tunnelconsole.screens.spans import LONGEST, Line, Span, breadth_shown, fit, plain, width_of
from tunnelconsole.screens.widgets.lines import Painted, mark

ARROWS = {False: "▲", True: "▼"}
"""Shown on the sorted column: rising and falling."""


class LineTable(Painted, ScrollView, Generic[Row], can_focus=True, inherit_bindings=False):
    """Rows under a heading.

    :param columns: its columns, from the left.
    :param identity: what tells a row from all others.
    :param letters: the key that sorts by each column, shown in its heading.
    """

    DEFAULT_CSS = """
    LineTable { height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    class Opened(Message):
        """A row was chosen with a double click."""

    class Moved(Message):
        """The cursor is on another row."""

    class HeadingClicked(Message):
        """A column's heading was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        identity: Callable[[Row], Hashable],
        letters: dict[str, str],
        *,
        id: str | None = None,  # noqa: A002 - Textual's own name
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.rows: Sequence[Row] = ()
        self.order: Order | None = None
        self.empty: tuple[Line, ...] = ()
        self._identity = identity
        self._letters = letters
        self._now = 0.0
        self._cursor = 0
        self._pinned: Hashable | None = None
        self._finding = False
        self._natural = [cell_len(column.title) for column in self.columns]
        self._placed: tuple[Placed, ...] = ()
        self._placed_for: tuple[Any, ...] = ()
        self._width = 0
        self._painted: dict[int, tuple[Any, ...]] = {}
        self._found: dict[int, tuple[Any, ...]] = {}
        self._cells: dict[int, dict[int, Span]] = {}
        """What has been looked up: by row, by column."""
        self._measured: set[int] = set()
        """Rows whose cells the columns are wide enough for already."""

    def on_mount(self) -> None:
        super().on_mount()  # type: ignore[no-untyped-call]
        self.show_horizontal_scrollbar = False

    @property
    def selected(self) -> Row | None:
        """The row under the cursor; None in an empty table."""
        return self.rows[self._cursor] if self.rows else None

    @property
    def cursor(self) -> int:
        """Which row the cursor is on, from 0."""
        return self._cursor

    @property
    def pinned(self) -> Hashable | None:
        """The identity of the row that the cursor keeps to; None while it stays at the top."""
        return self._pinned

    @property
    def line_width(self) -> int:
        """Cells of a line, without the scroll bar."""
        return self.scrollable_content_region.width

    @property
    def body_height(self) -> int:
        """Rows that are in view at once."""
        return max(1, self.size.height - 1)

    def show(self, rows: Sequence[Row], now: float, order: Order | None, empty: Sequence[Line] = ()) -> None:
        """Shows these rows as of ``now``.

        :param order: how they are sorted, for the arrow in the heading.
        :param empty: lines to show instead when there are none.
        """
        before = self.selected
        count = len(self.rows)
        self._keep_cells(rows, now)
        self.rows, self._now, self.order, self.empty = rows, now, order, tuple(empty)
        if len(rows) != count:
            self.virtual_size = Size(self.size.width, len(rows) + 1)
        self._follow_pinned()
        self._measure()
        self._repaint()
        if (before is None) != (self.selected is None) or (
            before is not None and self.selected is not None and self._identity(before) != self._identity(self.selected)
        ):
            self.post_message(self.Moved())

    def reset(self, pinned: Hashable | None = None) -> None:
        """Forgets the cursor and the widths: other rows come.

        :param pinned: the row that the cursor is to find and keep to, where it is among them.
        """
        self._cursor, self._pinned = 0, pinned
        self._finding = pinned is not None
        self._natural = [cell_len(column.title) for column in self.columns]
        self._measured.clear()
        self.scroll_to(y=0, animate=False, immediate=True)

    def recast(self, columns: Sequence[Column[Row]]) -> None:
        """Shows other columns of the same rows."""
        self.columns = tuple(columns)
        self._natural = [cell_len(column.title) for column in self.columns]
        self._placed_for = ()
        self._cells.clear()
        self._measured.clear()
        self._measure()
        self.refresh()

    def move(self, by: int) -> None:
        """Moves the cursor by so many rows, and keeps it on the row it comes to."""
        self.move_to(self._cursor + by)

    def move_to(self, index: int) -> None:
        """Puts the cursor on a row, and keeps it there."""
        if not self.rows:
            return
        self._cursor = max(0, min(index, len(self.rows) - 1))
        self._pinned = self._identity(self.rows[self._cursor])
        self._keep_in_view()
        self._repaint()
        self.post_message(self.Moved())

    def stay_on_top(self) -> None:
        """Puts the cursor on the first row, whichever that will be."""
        self._cursor, self._pinned = 0, None
        self.scroll_to(y=0, animate=False, immediate=True)
        self._repaint()
        self.post_message(self.Moved())

    def _follow_pinned(self) -> None:
        if self._pinned is not None:
            pinned = self._pinned
            found = next((at for at, row in enumerate(self.rows) if self._identity(row) == pinned), None)
            if self._finding and not self.rows:
                return
            self._finding = False
            if found is None:  # it is gone: whatever took its place is next
                self._cursor = max(0, min(self._cursor, len(self.rows) - 1))
                self._pinned = self._identity(self.rows[self._cursor]) if self.rows and self._cursor else None
            elif found != self._cursor:
                in_view = 0 <= self._cursor - self.scroll_offset.y < self.body_height
                self._cursor = found
                if in_view:
                    self._keep_in_view()
        self._cursor = max(0, min(self._cursor, len(self.rows) - 1))

    def _keep_in_view(self) -> None:
        top, height = self.scroll_offset.y, self.body_height
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, immediate=True)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False, immediate=True)

    def _measure(self) -> None:
        """Widens columns for what is in view. They never shrink before :meth:`reset`: that would flutter."""
        top = self.scroll_offset.y
        growing = [index for index, column in enumerate(self.columns) if column.wide > self._natural[index]]
        for at in range(top, min(top + self.body_height, len(self.rows))):
            if at in self._measured:
                continue
            self._measured.add(at)
            for index in growing:
                self._natural[index] = max(self._natural[index], breadth_shown(self._cell(at, index).text[:LONGEST]))

    def _keep_cells(self, rows: Sequence[Row], now: float) -> None:
        """Forgets what has been looked up, but for what these rows show too: most are as they were, within a second."""
        if int(now) != int(self._now):
            self._cells.clear()
            self._measured.clear()
            return
        before, count = self.rows, len(rows)
        self._cells = {at: cells for at, cells in self._cells.items() if at < count and rows[at] == before[at]}
        self._measured &= self._cells.keys()
        for index, column in enumerate(self.columns):
            if not column.steady:
                for cells in self._cells.values():
                    cells.pop(index, None)

    def _cell(self, at: int, column: int) -> Span:
        """What a row has in a column; see :meth:`_keep_cells` for when that is looked up again."""
        cells = self._cells.setdefault(at, {})
        found = cells.get(column)
        if found is None:
            found = cells[column] = self.columns[column].cell(self.rows[at], self._now)
        return found

    def _place(self) -> tuple[Placed, ...]:
        """Where the columns are, for the width there is now: a scroll bar may have come since."""
        width = self._width = self.line_width
        asked = (width, self.show_vertical_scrollbar, *self._natural)
        if asked != self._placed_for:
            self._placed_for = asked
            room = max(1, width - 1)
            self._placed = place(self.columns, self._natural, room)
            if self.show_vertical_scrollbar:  # a blank keeps them apart, where it costs no column
                apart = place(self.columns, self._natural, max(1, room - 1))
                if len(apart) == len(self._placed):
                    self._placed = apart
        return self._placed

    def _state(self, y: int, placing: tuple[Placed, ...], top: int) -> tuple[Any, ...]:
        """Everything that line ``y`` of the widget depends on, so that two states compare as two pictures would."""
        if y == 0:
            return (placing, self.order)
        if not self.rows:
            return (self.empty[y - 1],) if y - 1 < len(self.empty) else ()
        index = y - 1 + top
        if index >= len(self.rows):
            return ()
        cells = tuple([self._cell(index, placed.column) for placed in placing])
        return (cells, placing, index == self._cursor, self.has_focus)

    def _repaint(self) -> None:
        placing, top = self._place(), self.scroll_offset.y
        changed: dict[int, tuple[Any, ...]] = {}
        for y in range(self.size.height):
            state = self._state(y, placing, top)
            if self._painted.get(y) != state:
                changed[y] = state
        if changed:
            self.refresh(*(Region(0, y, self._width, 1) for y in changed))
        self._found = changed

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        self._found = {}  # whatever has changed, it may have changed them too
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def on_resize(self) -> None:
        self._measure()
        self._keep_in_view()
        self.refresh()

    def watch_has_focus(self, _has_focus: bool) -> None:
        super().watch_has_focus(_has_focus)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        strip, at = super().render_line(y), y + self.scroll_offset.y
        return strip.apply_offsets(0, at) if y and at <= len(self.rows) else strip  # so that the mouse marks rows

    def painted_line(self, y: int) -> Strip:
        state = self._found.pop(y, None)
        if state is None:
            state = self._state(y, self._place(), self.scroll_offset.y)
        self._painted[y] = state
        width, look = self._width, self.look
        if y == 0:
            return self.paint(self._heading(), width)
        if not self.rows:
            return self.paint(_centred(state[0], width) if state else (), width)
        if not state:
            return self.paint((), width)
        cells, _, under_cursor, focused = state
        over = look.style("cursor" if focused else "cursor-idle") if under_cursor else None
        last = self._placed[-1] if self._placed else Placed(0, 0, 0)
        strip = self.paint(self._line(cells), width, over, 1 + last.at + last.width)
        return mark(strip, self._selection, y + self.scroll_offset.y, look.style("selection"))

    def _line(self, cells: Sequence[Span]) -> Line:
        line: list[Span] = [Span(" ")]
        at = 0
        for span, placed in zip(cells, self._placed, strict=True):
            if placed.at > at:
                line.append(Span(" " * (placed.at - at)))
            line.append(Span(fit(span.text, placed.width, right=self.columns[placed.column].right), span.role))
            at = placed.at + placed.width
        return tuple(line)

    def _heading(self) -> Line:
        line: list[Span] = [Span(" ")]
        at = 0
        for placed in self._placed:
            column = self.columns[placed.column]
            line.append(Span(" " * (placed.at - at)))
            line.extend(self._title(column, placed.width))
            at = placed.at + placed.width
        return tuple(line)

    def _title(self, column: Column[Row], width: int) -> Line:
        sorted_by = self.order is not None and self.order.column == column.key
        role = "sorted" if sorted_by else "head"
        arrow = ARROWS[self.order.falling] if self.order is not None and sorted_by else ""
        title = column.title[: max(0, width - len(arrow))]
        letter = self._letters.get(column.key, "")
        at = title.find(letter) if letter else -1
        spans: Line
        if at < 0:
            spans = (Span(title + arrow, role),)
        else:
            hot = Span(letter, "hot-sorted" if sorted_by else "hot")
            spans = (Span(title[:at], role), hot, Span(title[at + 1 :] + arrow, role))
        blank = Span(" " * (width - width_of(spans)))
        return (blank, *spans) if column.right else (*spans, blank)

    def column_at(self, x: int) -> str | None:
        """The column whose heading covers this cell, its gap included."""
        for placed in self._placed:
            if placed.at <= x - 1 < placed.at + placed.width + GAP:
                return self.columns[placed.column].key
        return None

    def on_click(self, event: events.Click) -> None:
        """A heading sorts, a row is selected, and opened with a double click."""
        event.stop()
        if event.y == 0:
            column = self.column_at(event.x)
            if column is not None:
                self.post_message(self.HeadingClicked(column))
            return
        index = event.y - 1 + self.scroll_offset.y
        if index < len(self.rows):
            self.move_to(index)
            if event.chain > 1:
                self.post_message(self.Opened())

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        lines = [plain(self._heading())]
        lines += [
            plain(self._line([self._cell(at, placed.column) for placed in self._placed]))
            for at in range(len(self.rows))
        ]
        return selection.extract("\n".join(lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()


def _centred(line: Line, width: int) -> Line:
    return (Span(" " * max(0, (width - width_of(line)) // 2)), *line)
