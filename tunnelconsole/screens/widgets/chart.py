"""Charts as filled braille lines of one colour, with their scale.

Two values and four steps fit into one cell. Measured, this costs a quarter of Textual's own ``Sparkline``, and a tenth
of its bytes on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.geometry import Region, Size
from textual.strip import Strip

from tunnelconsole.control import figures
from tunnelconsole.screens.spans import Line, Span
from tunnelconsole.screens.widgets.lines import Painted

BRAILLE = 0x2800
LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)
RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)
"""Dots of the left and right column of a braille cell, filled from below to each height (Unicode block 2800)."""

CELLS = [[chr(BRAILLE + (left | right)) if left | right else " " for right in RIGHT] for left in LEFT]
"""The cell for each height of its two columns."""

SMALLEST_SCALE = 1000.0
"""Bytes per second at the top of a chart at the least, so that a keepalive does not look like a storm."""

GUTTER = 10
"""Cells for the scale at the left: ``500 MB/s`` between two blanks."""


def ceiling(value: float) -> float:
    """The next of 1, 2, 3, 4, 6, 8, 10, 20, 30... that is not below ``value``: round, and little stays empty."""
    if value <= SMALLEST_SCALE:
        return SMALLEST_SCALE
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 3, 4, 6, 8, 10) if value <= step * power * 1.000001)


def buckets(values: Sequence[float], places: int, offset: int = 0) -> tuple[list[float], int]:
    """The newest of ``values`` in at most ``places`` groups, and how many values each group holds.

    A group shows its largest value: a peak is never averaged away. As many values are taken as fill every place.
    ``offset`` counts the values there have been before these: groups begin at its multiples, so that a chart moves by
    whole places instead of flickering.
    """
    if places <= 0 or not values:
        return [], 1
    each = max(1, len(values) // places)
    first = -offset % each
    groups = [max(values[start : start + each]) for start in range(first, len(values), each)]
    return groups[-places:], each


def bars(values: Sequence[float], width: int, height: int, top: float) -> list[str]:
    """``values`` as ``height`` lines of ``width`` braille cells, the newest at the right; what is not zero shows."""
    steps = height * 4
    levels = [min(steps, max(1, round(value / top * steps))) if value > 0 else 0 for value in values[-2 * width :]]
    levels = [0] * (2 * width - len(levels)) + levels
    lines = []
    for row in range(height):
        floor = (height - 1 - row) * 4
        dots = [0 if level <= floor else min(level - floor, 4) for level in levels]
        lines.append("".join([CELLS[left][right] for left, right in zip(dots[::2], dots[1::2], strict=True)]))
    return lines


def time_axis(groups: int, seconds: float, width: int) -> str:
    """What stands below a chart of ``width`` cells: where its present is, and how long ago the first of it was.

    :param groups: that are shown, two in a cell, the newest at the right.
    :param seconds: that each group stands for.
    """
    ago, begins = f"{figures.duration(groups * seconds)} ago", width - math.ceil(groups / 2)
    room = width - begins - len("now")
    return (" " * begins + ago.ljust(room) if len(ago) < room else " " * (width - len("now"))) + "now"


def spark(values: Sequence[float], width: int) -> str:
    """A chart one line high, scaled to its own peak: for a cell of a table."""
    grouped, _ = buckets(values, 2 * width)
    return bars(grouped, width, 1, max([*grouped, SMALLEST_SCALE]))[0]


class Trace:
    """The values of one chart, and how many there have been before them.

    The engine sends the last minutes each time. How far they moved on since the last time is found by comparing, for
    their places in the chart must not depend on when they were asked for.
    """

    def __init__(self) -> None:
        self.values: tuple[float, ...] = ()
        self.offset = 0

    def follow(self, values: Sequence[float]) -> bool:
        """Takes the newest values; False when nothing has changed."""
        fresh = tuple(values)
        if fresh == self.values:
            return False
        old, self.values = self.values, fresh
        if len(fresh) == len(old):
            moved = next((by for by in range(1, len(old)) if fresh[:-by] == old[by:]), 0)
            self.offset += moved
        return True


class Chart(Painted):
    """Throughput over the last minutes: its name and figures above, the scale at the left, the time below."""

    DEFAULT_CSS = """
    Chart { height: 1fr; width: 1fr; }
    """

    def __init__(self, name: str, role: str, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.title = name
        self.role = role
        self._trace = Trace()
        self._interval = 1.0
        self._rate: float | None = None
        self._lines: list[Line] = []
        self._drawn_for: Size | None = None

    def show(self, values: Sequence[float] | None, interval: float, rate: float | None) -> None:
        """Shows these values; only lines that differ are painted again.

        :param values: bytes per second, oldest first; None while nothing is known.
        :param interval: seconds that each stands for.
        :param rate: bytes per second now.
        """
        moved = self._trace.follow(values or ())
        if moved or (interval, rate) != (self._interval, self._rate):
            self._interval, self._rate = interval, rate
            before, width = self._lines, self.outer_size.width
            self._draw()
            changed = [y for y, line in enumerate(self._lines) if y >= len(before) or line != before[y]]
            if changed:
                self.refresh(*(Region(0, y, width, 1) for y in changed))

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def painted_line(self, y: int) -> Strip:
        if self._drawn_for != self.outer_size:
            self._draw()
        return self.paint(self._lines[y] if y < len(self._lines) else (), self.outer_size.width)

    def _draw(self) -> None:
        self._drawn_for = self.outer_size
        self._lines = self._picture(*self.outer_size)

    def _picture(self, width: int, height: int) -> list[Line]:
        """The whole chart, line by line."""
        inside, rows = width - GUTTER - 2, height - 2
        heading = self._heading(width)
        if inside < 4 or rows < 1:
            return [heading]
        shown, each = buckets(self._trace.values, 2 * inside, self._trace.offset)
        axis = (Span(" " * (GUTTER + 1)), Span(time_axis(len(shown), each * self._interval, inside), "faint"))
        top = ceiling(max(shown, default=0))
        labels = {1: figures.rate(top), height - 2: "0"} if rows > 1 else {1: figures.rate(top)}
        body: list[Line] = []
        for y, drawn in enumerate(bars(shown, inside, rows, top), 1):
            label = labels.get(y, "")
            if not shown and y == (height - 1) // 2:
                body.append((Span(" " * GUTTER + "│", "line"), Span("  nothing measured yet", "faint")))
            else:
                edge = Span("┤" if label else "│", "line")
                body.append((Span(f"{label:>{GUTTER - 1}} ", "faint"), edge, Span(drawn, self.role)))
        return [heading, *body, axis]

    def _heading(self, width: int) -> Line:
        now = "–" if self._rate is None else figures.rate(self._rate)
        heading: Line = (Span(f" {self.title}  ", "strong"), Span(now, self.role))
        peak = max(self._trace.values, default=0)
        if peak and width >= 34:
            heading += (Span(f"   peak {figures.rate(peak)}", "dim"),)
        return heading
