"""Lines of spans on the screen: the header, the footer, the details, every text that is not a table or a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from tunnelconsole.screens.spans import Line, Span, cut, plain
from tunnelconsole.screens.themes import Look


@runtime_checkable
class HasLook(Protocol):
    """An app that has a theme of ours."""

    look: Look


class Painted(Widget):
    """A widget that paints with the app's look."""

    @property
    def look(self) -> Look:
        """The theme in force."""
        return cast(HasLook, self.app).look

    def paint(self, line: Line, width: int, over: Style | None = None) -> Strip:
        """A line as a strip of exactly ``width`` cells, on this widget's background.

        :param over: wins over the roles' own styles, such as under the cursor.
        """
        look, ground = self.look, Style(bgcolor=self.background_colors[1].rich_color)
        plain = ground + look.style("text")
        segments = []
        for span in cut(line, width):
            style = ground + look.style(span.role)
            segments.append(Segment(span.text, style + over if over else style))
        return Strip(segments).adjust_cell_length(width, plain + over if over else plain)


def mark(strip: Strip, selection: Selection | None, y: int, style: Style) -> Strip:
    """The strip with what the mouse has marked on line ``y`` shown, and its place noted so that marking can go on."""
    marked = None if selection is None else selection.get_span(y)
    if marked is not None:
        start, end = marked
        length = strip.cell_length
        end = length if end == -1 else min(end, length)
        strip = tinted(strip, start, end, style)
    return strip.apply_offsets(0, y)


def tinted(strip: Strip, start: int, end: int, style: Style) -> Strip:
    """The strip with ``style`` laid over the cells from ``start`` up to ``end``."""
    length = strip.cell_length
    if start >= end:
        return strip
    parts = strip.divide([start, end, length]) if start else [Strip.blank(0), *strip.divide([end, length])]
    lit = Strip(Segment.apply_style(list(parts[1]), post_style=style), parts[1].cell_length)
    return Strip.join([parts[0], lit, *parts[2:]])


class Lines(Painted):
    """Some lines, each cut to the width; a span with an action can be clicked, and all of it marked and copied."""

    DEFAULT_CSS = """
    Lines { height: auto; width: 1fr; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id, classes=classes)
        self.lines: tuple[Line, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Shows these lines; only those that differ are painted again."""
        fresh = tuple(lines)
        old = self.lines
        if fresh == old:
            return
        self.lines = fresh
        if len(fresh) != len(old):
            self.refresh(layout=True)
            return
        for y, (before, after) in enumerate(zip(old, fresh, strict=True)):
            if before != after:
                self.refresh(Region(0, y, self.size.width, 1))

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.lines)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y >= len(self.lines):
            return self.paint((), width)
        strip = self.paint(self.lines[y], width)
        return mark(strip, self.text_selection, y, self.look.style("selection"))

    def span_at(self, x: int, y: int) -> Span | None:
        """The span in this cell."""
        if not 0 <= y < len(self.lines):
            return None
        for span in cut(self.lines[y], self.size.width):
            x -= len(span.text)
            if x < 0:
                return span
        return None

    async def on_click(self, event: events.Click) -> None:
        """Does what the span that was clicked stands for."""
        span = self.span_at(event.x, event.y)
        if span is not None and span.action:
            event.stop()
            await self.app.run_action(span.action)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(plain(line) for line in self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()
