"""A hole punch as a picture of its race: a line for each address, with marks at what happened to it when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tunnelconsole.control.attempts import AttemptRow, CandidateRow, MomentRow
from tunnelconsole.screens.spans import Line, Span, fit, width_of

MARKS: Final = {
    "silent": ("◌", "faint", "no answer"),
    "trying": ("○", "busy", "dialled"),
    "accepted": ("◎", "busy", "dialled us"),
    "lost": ("◇", "dim", "not needed"),
    "ourselves": ("↺", "warning", "ourselves"),
    "unreachable": ("▲", "warning", "unreachable"),
    "refused": ("✖", "warning", "refused"),
    "wrong peer": ("≠", "error", "somebody else"),
    "connected": ("●", "in", "connected"),
    "verified": ("◆", "ok", "proved"),
    "secured": ("■", "ok", "TLS"),
    "won": ("★", "ok", "chosen"),
}
"""Sign, role and words of what happens to an address; of two in one cell the later one here is shown."""

RANKS: Final = {what: rank for rank, what in enumerate(MARKS)}

STAGES: Final = {"observing": "asks", "offered": "offers", "racing": "races"}
"""What an attempt is at from such a moment on."""

BEGUN, MET = ("╌", "faint"), ("━", "in")
"""The line of an address from its first dial on, and from when it is connected."""

MEETING: Final = frozenset({"connected", "verified", "won", "secured"})

NARROW: Final = 60
"""Cells below which there is no room for what became of each address."""

LABEL, OUTCOME = 25, 18
"""Cells for an address, and for what became of it, at the most."""

TICK_ROOM: Final = 7
"""Cells between two figures of the scale at the least."""


class Scale(NamedTuple):
    """Milliseconds to cells."""

    width: int
    end: float
    """Milliseconds at the last cell; above 0."""

    def cell(self, ms: float) -> int:
        """Where a moment is."""
        return max(0, min(self.width - 1, round(ms / self.end * (self.width - 1))))

    def ticks(self) -> list[float]:
        """Round figures, no denser than can be read."""
        least = self.end * TICK_ROOM / self.width
        power = 10 ** math.floor(math.log10(least))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
        return [number * step for number in range(int(self.end / step) + 1)]


def ended(row: AttemptRow, now: float) -> float:
    """Milliseconds up to which an attempt has come.

    :param now: Unix time, for one that goes on.
    """
    last = max((moment.ms for moment in row.timeline), default=0.0)
    elapsed = (now - row.started) * 1000 if row.seconds is None else row.seconds * 1000
    return max(1.0, last, elapsed)


def picture(row: AttemptRow, now: float, width: int) -> list[Line]:
    """The race in lines of ``width`` cells; none before anything has happened."""
    if not row.timeline:
        return []
    raced = runners(row)
    outcome = OUTCOME if width >= NARROW else 0
    label = min(LABEL, max(12, width // 3))
    scale = Scale(max(10, width - label - outcome - 3), ended(row, now))
    lines = [
        (Span(" " * (label + 1)), *_figures(scale)),
        (Span(" " + fit("both sides", label), "faint"), *_stages(row, scale)),
    ]
    for tried in raced:
        told = [moment for moment in row.timeline if moment.candidate == tried.address]
        sign, role, words = MARKS.get(tried.fate, (" ", "dim", tried.fate))
        line: Line = (
            Span(" " + fit(tried.address, label), "strong" if tried.fate == "won" else "text"),
            *_track(told, scale, open_end=tried.fate == "trying" and not row.over),
        )
        if outcome:
            line = (*line, Span(f" {sign} ", role), Span(fit(words, outcome - 3), role))
        lines.append(line)
    if not raced:
        lines.append(
            (Span(" " + fit("", label)), Span(fit("nobody was dialled" if row.over else "", scale.width), "dim"))
        )
    return [*lines, *_legend(row.timeline, width)]


def runners(row: AttemptRow) -> list[CandidateRow]:
    """The addresses that anything happened to, who has won first, then as they were dialled."""
    first: dict[str, float] = {}
    for moment in row.timeline:
        if moment.candidate and moment.what in MARKS:
            first.setdefault(moment.candidate, moment.ms)
    raced = [tried for tried in row.candidates if tried.side == "theirs" and tried.address in first]
    return sorted(raced, key=lambda tried: (tried.fate != "won", first[tried.address]))


def _figures(scale: Scale) -> Line:
    """The scale above the picture."""
    text = ""
    for tick in scale.ticks():
        place, figure = scale.cell(tick), f"{tick:g}" if text else "0 ms"
        if place + len(figure) <= scale.width:
            text = text.ljust(place) + figure
    return (Span(fit(text, scale.width), "dim"),)


def _stages(row: AttemptRow, scale: Scale) -> Line:
    """What both sides do together: from one stage to the next."""
    begun = [(scale.cell(moment.ms), STAGES[moment.what]) for moment in row.timeline if moment.what in STAGES]
    last = scale.width - 1
    cells = [" "] * scale.width
    for at, (start, name) in enumerate(begun):
        end = begun[at + 1][0] if at + 1 < len(begun) else last
        cells[start:end] = list(_stage(name, end - start, first=at == 0))
    if begun:
        cells[last] = "┤" if row.over else "▸"
    return (Span("".join(cells), "busy" if not row.over else "dim"),)


def _stage(name: str, room: int, *, first: bool) -> str:
    """A stage's name between its bounds, or as much of a line as there is room for."""
    if room < 1:
        return ""
    inside = name if len(name) + 1 <= room else ""
    return ("├" if first else "┼") + inside + "─" * (room - 1 - len(inside))


def _track(told: Sequence[MomentRow], scale: Scale, *, open_end: bool) -> Line:
    """The line of one address."""
    cells: list[tuple[str, str]] = [(" ", "text")] * scale.width
    happened = [moment for moment in told if moment.what in MARKS]
    start = scale.cell(happened[0].ms)
    end = scale.width - 1 if open_end else scale.cell(happened[-1].ms)
    met = next((scale.cell(moment.ms) for moment in happened if moment.what in MEETING), scale.width)
    for at in range(start, end + 1):
        cells[at] = MET if at >= met else BEGUN
    shown: dict[int, int] = {}
    for moment in happened:
        at, rank = scale.cell(moment.ms), RANKS[moment.what]
        if rank >= shown.get(at, -1):
            shown[at] = rank
            cells[at] = MARKS[moment.what][:2]
    return _runs(cells)


def _runs(cells: Iterable[tuple[str, str]]) -> Line:
    """Cells as spans, neighbours of one role together."""
    spans: list[Span] = []
    for text, role in cells:
        if spans and spans[-1].role == role:
            spans[-1] = spans[-1]._replace(text=spans[-1].text + text)
        else:
            spans.append(Span(text, role))
    return tuple(spans)


def _legend(timeline: Sequence[MomentRow], width: int) -> list[Line]:
    """What the marks mean that are in the picture."""
    there = {moment.what for moment in timeline if moment.candidate}
    lines: list[Line] = []
    for what in ("trying", *(name for name in MARKS if name != "trying")):
        if what not in there:
            continue
        sign, role, words = MARKS[what]
        entry: Line = (Span(f" {sign}", role), Span(f" {words} ", "dim"))
        if lines and width_of((*lines[-1], *entry)) <= width:
            lines[-1] = (*lines[-1], *entry)
        else:
            lines.append(entry)
    return lines
