"""Lines of spans on the screen: the header, the footer, the details, every text that is not a table or a chart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol, Self, cast, runtime_checkable

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.filter import LineFilter
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from tunnelconsole.screens.spans import LONGEST, Line, Span, breadth, clean, cut, plain
from tunnelconsole.screens.themes import Look

COLOUR_SYSTEMS = {
    "standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR,
}  # fmt: skip
"""The names that a terminal's colours go by."""


@runtime_checkable
class HasLook(Protocol):
    """An app that has a theme of ours."""

    look: Look


class WrittenStrip(Strip):
    """A strip that says how it is written only where that changes: half the bytes, for the terminal and on the way."""

    __slots__ = ["_written"]

    def __init__(self, segments: Iterable[Segment], cell_length: int) -> None:
        super().__init__(segments, cell_length)
        self._written: str | None = None

    def render(self, console: Console) -> str:
        if self._written is None:
            self._written = "".join(self._pieces(COLOUR_SYSTEMS.get(console.color_system or "", ColorSystem.TRUECOLOR)))
        return self._written

    def _pieces(self, system: ColorSystem) -> Iterator[str]:
        before: Style | None = None
        for text, style, _ in self:
            if style is not None and style is not before and not (before and text.isspace() and _alike(style, before)):
                yield f"\x1b[0;{Strip.render_ansi(style, system)}m"
                before = style
            yield text
        yield "\x1b[0m"


@lru_cache(maxsize=1024)
def _alike(style: Style, other: Style) -> bool:
    """Whether blanks look the same in both."""
    return style.bgcolor == other.bgcolor and not any(
        one.underline or one.reverse or one.strike or one.overline for one in (style, other)
    )


class Palette(dict[str, Style]):
    """The styles of the roles on one ground, made as they are asked for.

    :param filters: what the app does to all styles.
    :param over: wins over the roles' own styles.
    """

    def __init__(self, look: Look, ground: Color, filters: Sequence[LineFilter], over: Style | None) -> None:
        super().__init__()
        self._look = look
        self._ground = ground
        self._filters = filters
        self._over = over

    def __missing__(self, role: str) -> Style:
        style = Style(bgcolor=self._ground.rich_color) + self._look.style(role)
        if self._over is not None:
            style += self._over
        for line_filter in self._filters:
            style = line_filter.apply([Segment("", style)], self._ground)[0].style or style
        self[role] = style
        return style


class Painted(Widget):
    """A widget that paints lines with the app's look, each of them once, until it is told that the line has changed.

    Measured, this costs a third of what Textual's own way takes, which asks the style sheet for borders and paddings
    of every line, and what each cell of a line is for the mouse.
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id, classes=classes)
        self._strips: dict[int, Strip] = {}
        self._strips_size = Size(0, 0)
        self._palettes: dict[Style | None, Palette] = {}
        self._adorned: bool | None = None
        self._selection: Selection | None = None

    @property
    def look(self) -> Look:
        """The theme in force."""
        return cast(HasLook, self.app).look

    def painted_line(self, y: int) -> Strip:
        """Line ``y`` as it stands."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        self._selection = self.text_selection
        return self.painted_line(y)

    def render_lines(self, crop: Region) -> list[Strip]:
        if self._adorned is None:
            self._adorned = bool(self.gutter) or self.opacity != 1.0
        if self._adorned:
            return super().render_lines(crop)
        size = self.outer_size
        if size != self._strips_size:
            self._strips.clear()
            self._strips_size = size
        width = size.width
        missing = [y for y in crop.line_range if y not in self._strips]
        if missing:
            self._selection = self.text_selection
            for y in missing:
                self._strips[y] = self._exactly(width, self.painted_line(y))
        strips = [self._strips[y] for y in crop.line_range]
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def _exactly(self, width: int, strip: Strip) -> Strip:
        return strip if strip.cell_length == width else strip.adjust_cell_length(width, self._palette(None)["text"])

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        if not regions:
            self._forget_all()
        for region in regions:
            for y in region.line_range:
                self._strips.pop(y, None)
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        self._forget_all()
        super().notify_style_update()

    def _forget_all(self) -> None:
        self._strips.clear()
        self._palettes.clear()
        self._adorned = None

    def _palette(self, over: Style | None) -> Palette:
        found = self._palettes.get(over)
        if found is None:
            found = Palette(self.look, self.background_colors[1], self.get_line_filters(), over)
            self._palettes[over] = found
        return found

    def paint(self, line: Line, width: int, over: Style | None = None, used: int | None = None) -> Strip:
        """A line as a strip of exactly ``width`` cells, on this widget's background.

        :param over: wins over the roles' own styles, such as under the cursor.
        :param used: how many cells it takes, where it is clean already.
        """
        palette = self._palette(over)
        if used is not None and used <= width:
            left, segments = width - used, [Segment(text, palette[role]) for text, role, _ in line]
        else:
            cleaned = [(clean(text[:LONGEST]), role) for text, role, _ in line]
            left = width - sum(breadth(text) for text, _ in cleaned)
            segments = [Segment(text, palette[role]) for text, role in cleaned]
        if left < 0:
            segments = [Segment(text, palette[role]) for text, role, _ in cut(line, width)]
            left = width - sum(breadth(segment.text) for segment in segments)
        if left > 0:
            segments.append(Segment(" " * left, palette["text"]))
        return WrittenStrip(segments, width)


def mark(strip: Strip, selection: Selection | None, y: int, style: Style) -> Strip:
    """The strip with what the mouse has marked on line ``y`` shown."""
    marked = None if selection is None else selection.get_span(y)
    if marked is None:
        return strip
    start, end = marked
    length = strip.cell_length
    return tinted(strip, start, length if end == -1 else min(end, length), style)


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
        width = self.outer_size.width
        changed = (y for y, (before, after) in enumerate(zip(old, fresh, strict=True)) if before != after)
        self.refresh(*(Region(0, y, width, 1) for y in changed))

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.lines)

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        return strip.apply_offsets(0, y) if y < len(self.lines) else strip  # so that the mouse finds what to mark

    def painted_line(self, y: int) -> Strip:
        width = self.outer_size.width  # without a frame, it is the whole
        if y >= len(self.lines):
            return self.paint((), width)
        strip = self.paint(self.lines[y], width)
        return mark(strip, self._selection, y, self.look.style("selection"))

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
