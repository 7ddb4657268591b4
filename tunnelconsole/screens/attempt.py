"""One hole punch: what both sides are behind, the picture of the race, and what became of each address when."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from tunnelconsole.control import figures, punch_words
from tunnelconsole.control.attempts import AttemptRow, CandidateRow
from tunnelconsole.control.messages import Status
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Pane, Scene, Value, fact_lines, waiting
from tunnelconsole.screens.punches import facts, value_of
from tunnelconsole.screens.race import MARKS, picture
from tunnelconsole.screens.spans import Line, Span, fit, rule, wrapped
from tunnelconsole.screens.widgets.lines import Lines

ADDRESS, KIND, TRIES, AT = 25, 10, 5, 7
"""Cells of what is told of an address before what became of it."""

CAME_TO = 4
"""Facts that say what an attempt came to; they stand before the others, however wide the screen is."""


class AttemptPane(Pane):
    """All that is known of one attempt; whoever opens it brings it with :meth:`bring`, or says why not."""

    DEFAULT_CSS = """
    AttemptPane VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
    """

    screen_name: ClassVar[Screen] = "attempt"

    def __init__(self) -> None:
        super().__init__()
        self.attempt: AttemptRow | None = None
        self.key = ""
        """The id of what is to be shown."""
        self._trouble = ("", "")
        self._scene: Scene | None = None
        self._text = Lines()
        self._body = VerticalScroll(self._text, can_focus=False)

    def compose(self) -> ComposeResult:
        yield self._body

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "attempts", "events"]

    def begin(self, key: str) -> None:
        """Another attempt is to be shown."""
        self.key = key
        self.attempt = None
        self._trouble = ("", "")
        self._body.scroll_to(y=0, animate=False, immediate=True)

    def bring(self, attempt: AttemptRow) -> None:
        """This is it, as it stands."""
        self.attempt = attempt
        self._again()

    def fail(self, message: str, hint: str) -> None:
        """It cannot be shown; what is shown already stays."""
        self._trouble = (message, hint)
        self._again()

    def show(self, scene: Scene) -> None:
        self._scene = scene
        width = max(20, self.size.width - 1)
        self._text.show(self._nothing(scene) if self.attempt is None else page(self.attempt, scene, width))

    def on_resize(self) -> None:
        self._again()

    def _again(self) -> None:
        if self._scene is not None:
            self.show(self._scene)

    def _nothing(self, scene: Scene) -> list[Line]:
        message, hint = self._trouble
        if not message:
            return waiting(scene, f"punch {self.key}")
        return [
            (),
            (Span(f" {message[:1].upper()}{message[1:]}.", "strong"),),
            (Span(f" {hint[:1].upper()}{hint[1:]}." if hint else "", "dim"),),
            (Span(" Esc", "key"), Span(" goes back", "dim")),
        ]

    def value(self) -> Value | None:
        return None if self.attempt is None else value_of(self.attempt)

    def move(self, by: int) -> None:
        self._body.scroll_relative(y=by, animate=False, immediate=True)

    def turn(self, pages: int) -> None:
        self.move(pages * max(1, self.size.height - 1))

    def to_end(self, *, last: bool) -> None:
        self._body.scroll_to(y=self._body.max_scroll_y if last else 0, animate=False, immediate=True)


def page(row: AttemptRow, scene: Scene, width: int) -> list[Line]:
    """All of an attempt in lines of ``width`` cells."""
    told = facts(row, scene)
    again = (Span("r", "key"), Span(" tries again now", "faint")) if row.state in ("relay", "failed") else ()
    return [
        rule((Span("Punch", "title"), Span(f" {row.id}", "strong")), again, width),
        *(line for fact in told[:CAME_TO] for line in fact_lines([fact], width)),
        *fact_lines(told[CAME_TO:], width),
        rule((Span("The race", "title"),), (), width),
        *(picture(row, scene.now, width) or [(Span(" It has not begun: nobody else is in the room.", "dim"),)]),
        *_addresses(row, width),
        *_moments(row, width),
    ]


def _addresses(row: AttemptRow, width: int) -> list[Line]:
    """Whose addresses there are, and what became of them."""
    lines: list[Line] = []
    for side, title in (("theirs", "Addresses of the other side"), ("ours", "Addresses of ours")):
        told = [tried for tried in row.candidates if tried.side == side]
        if told:
            lines.append(rule((Span(title, "title"), Span(f"  {figures.count(len(told))}", "dim")), (), width))
            lines += [line for tried in told for line in _address(tried, width)]
    return lines


def _address(tried: CandidateRow, width: int) -> list[Line]:
    if tried.side == "ours":
        return [(Span(" " + fit(tried.address, ADDRESS)), Span(" " + tried.kind, "dim"))]
    _, role, _ = MARKS.get(tried.fate, ("", "dim", ""))
    address: Line = (
        Span(" " + fit(tried.address, max(ADDRESS, min(len(tried.address), width // 2))),
             "strong" if tried.fate == "won" else "text"),
        Span(" " + fit(tried.kind, KIND), "dim"),
        Span(fit(f"{tried.tries}×" if tried.tries else "", TRIES, right=True), "dim"),
        Span(fit("" if tried.ms is None else figures.brief(tried.ms / 1000), AT + 1, right=True), "dim"),
    )  # fmt: skip
    used = sum(len(span.text) for span in address) + 2
    if width - used < KIND:
        return [address, *((Span("   "), *line) for line in wrapped(punch_words.became(tried), width - 3, role))]
    first, *more = wrapped(punch_words.became(tried), width - used, role)
    return [(*address, Span("  "), *first), *((Span(" " * used), *line) for line in more)]


def _moments(row: AttemptRow, width: int) -> list[Line]:
    """What happened, in order."""
    lines = [rule((Span("What happened", "title"),), (), width)]
    for moment in row.timeline:
        _, role, _ = MARKS.get(moment.what, ("", "text", ""))
        told = wrapped(punch_words.happened(moment), width - AT - 4, role)
        lines.append((Span(fit(figures.brief(moment.ms / 1000), AT + 1, right=True), "dim"), Span("  "), *told[0]))
        lines += [(Span(" " * (AT + 3)), *line) for line in told[1:]]
    return lines if row.timeline else []
