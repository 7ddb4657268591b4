"""A question before anything is cut: what it will cost, and how to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from tunnelconsole.screens.spans import Line, Span, wrapped
from tunnelconsole.screens.widgets.lines import Lines

Answer = TypeVar("Answer")

WIDTH = 70
"""Cells of a line of a question at the most: longer ones are hard to read."""

FRAME = 6
"""Cells that the frame and its padding take."""

AROUND = 6
"""Lines that the frame and its padding take, and that stay free above and below."""


@dataclass(frozen=True)
class Choice(Generic[Answer]):
    """One answer."""

    key: str
    """The letter that gives it."""
    label: str
    answer: Answer


class Question(ModalScreen[Answer], Generic[Answer], inherit_bindings=False):
    """Asks, and is dismissed with the answer.

    The last choice is the harmless one: it is lit first, so that Enter cuts nothing by accident, and Esc gives it.

    :param title: what is to be done, and what that costs.
    :param sentences: what else is to be known, a paragraph each.
    :param choices: the answers, the harmless one last.
    """

    DEFAULT_CSS = """
    Question { align: center middle; background: $background 70%; }
    Question > Vertical {
        width: 76; max-width: 94%; height: auto; padding: 1 2; background: $surface; border: round $warning;
    }
    Question Lines { background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "harmless", show=False),
        Binding("enter", "lit", show=False),
        Binding("left,up,shift+tab", "light(-1)", show=False),
        Binding("right,down,tab", "light(1)", show=False),
        Binding("pagedown,ctrl+f", "scroll(1)", show=False),
        Binding("pageup,ctrl+b", "scroll(-1)", show=False),
    ]

    def __init__(self, title: str, sentences: Sequence[str], choices: Sequence[Choice[Answer]]) -> None:
        super().__init__()
        self.heading = title
        self.sentences = tuple(sentences)
        self.choices = tuple(choices)
        self._lit = len(self.choices) - 1
        self._above = 0
        """Lines of the sentences that are scrolled out of sight."""
        self._page = 1
        self._text = Lines()

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._text

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        width = min(WIDTH, max(12, int(self.app.size.width * 0.94) - FRAME))
        heading, answers = [*wrapped(self.heading, width, "strong"), ()], self._answers(width)
        said: list[Line] = []
        for sentence in self.sentences:
            said += [*wrapped(sentence, width, "dim"), ()]
        room = self.app.size.height - AROUND - len(heading) - len(answers)
        self._text.show([*heading, *self._in_sight(said, room), *answers])

    def _in_sight(self, lines: list[Line], room: int) -> list[Line]:
        """As many lines as there is room for, and what to press for the others."""
        if len(lines) <= room:
            return lines
        self._page = max(1, room - 2)
        self._above = max(0, min(self._above, len(lines) - self._page))
        below = len(lines) - self._above - self._page
        rest = Span(f"{self._above} lines above, {below} below: PgUp, PgDn", "faint")
        return [*lines[self._above : self._above + self._page], (rest,), ()]

    def _answers(self, width: int) -> list[Line]:
        """The choices, side by side where there is room."""
        buttons: list[Line] = []
        for at, choice in enumerate(self.choices):
            lit, action = at == self._lit, f"screen.answer({at})"
            buttons.append((
                Span(f" {choice.key} ", "lit-key" if lit else "key", action),
                Span(f"{choice.label} ", "lit" if lit else "text", action),
            ))  # fmt: skip
        if sum(len(span.text) for button in buttons for span in button) + 2 * len(buttons) > width:
            return buttons
        return [tuple(span for button in buttons for span in (*button, Span("  ")))]

    def on_key(self, event: events.Key) -> None:
        """Each choice has its letter."""
        for at, choice in enumerate(self.choices):
            if event.character == choice.key:
                event.stop()
                self.action_answer(at)
                return

    def action_answer(self, at: int) -> None:
        """Gives the answer at this place."""
        self.dismiss(self.choices[at].answer)

    def action_harmless(self) -> None:
        """Gives the answer that changes nothing."""
        self.action_answer(-1)

    def action_lit(self) -> None:
        """Gives the answer that is lit."""
        self.action_answer(self._lit)

    def action_scroll(self, pages: int) -> None:
        """Shows the next page of what there is to be known, where it is long."""
        self._above += pages * self._page
        self._show()

    def action_light(self, by: int) -> None:
        """Lights the next answer."""
        self._lit = (self._lit + by) % len(self.choices)
        self._show()


def yes_or_no(title: str, sentences: Sequence[str], doing: str) -> Question[bool]:
    """The question whether something is to be done; ``doing`` is its verb, such as ``Stop it``."""
    return Question(title, sentences, [Choice("y", doing, True), Choice("n", "Leave it as it is", False)])
