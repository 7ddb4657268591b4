"""The help: every key and command, out of the tables they are bound from, and the words the console uses."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from tunnelconsole.control import figures, token_words
from tunnelconsole.control.punch_words import OUTCOMES
from tunnelconsole.screens import cells, chids, punches, race, tokens
from tunnelconsole.screens.commands import COMMANDS
from tunnelconsole.screens.keys import ALL, DIALOG_KEYS, GROUPS, SCREENS, Key, Screen, grouped
from tunnelconsole.screens.pane import Pane, Scene
from tunnelconsole.screens.sending import HELD_UP, ITSELF, NAMED, NOT_THERE, STEPS, TO_ALL, UNTOLD
from tunnelconsole.screens.spans import Line, Span, fit, rule, width_of, wrapped
from tunnelconsole.screens.widgets.lines import Lines

TWO_COLUMNS_FROM = 110
"""Cells of width from which the help is set in two columns."""

WORDS = (
    ("service", "one configured thing that runs: a name, and a kind such as jump-server or relay-client"),
    ("session", "one remote party attached to a service"),
    ("channel", "one piped stream inside a session; in is what came from the remote party"),
    ("chid", "the name of a client of a channel server, by which others send to it"),
    ("token", "a credential of a client, with rights, limits and an end of its own, that can be taken away"),
    ("identity", "who a session was authenticated as: a token's name, a key's fingerprint, or anonymous"),
    ("punch", "one try of a direct connection through NATs, which the commands call an attempt"),
    ("event", "one thing that happened"),
    ("node", "one running engine"),
)
"""What is meant by what."""

STATES = {
    "failed": "it cannot go on, and is not tried again until somebody restarts it",
    "backoff": "it failed, and is tried again in so many seconds",
    "connecting": "a client on its way to its server",
    "starting": "about to listen or to connect",
    "draining": "it takes nothing new, and stops once what it carries is over, or in so many seconds",
    "stopped": "somebody stopped it",
    "connected": "a client that does its work",
    "listening": "a server that does its work",
}
"""What each state of a service means."""

_FASTER = " or ".join(figures.rate(step) for step in STEPS[1:])

MARKS = (
    (" ".join(NAMED), f"the row sends to the column, which it names: idle, below {_FASTER}, or faster"),
    (" ".join(TO_ALL), "the row sends to all others: the same"),
    (HELD_UP.text, "the row is not read, because the column does not take what there is"),
    (NOT_THERE.text, "the row names the column, and nobody of that chid is there"),
    (UNTOLD.text, "the row sends to more than can all be named, to the column too perhaps"),
    (ITSELF.text, "itself"),
)
"""What the marks of the matrix mean."""

KEY_WIDTH = 10
"""Cells for a key's name: ``Shift-Tab`` and a blank."""


def _entry(name: str, sentence: str, width: int, role: str = "key", room: int = KEY_WIDTH) -> list[Line]:
    """A name and its sentence, which goes on below itself where it is too long."""
    lines = wrapped(sentence, max(10, width - room - 2))
    return [
        (Span(" " + fit(name if at == 0 else "", room), role), Span(line[0].text, "text"))
        for at, line in enumerate(lines)
    ]


def _where(key: Key) -> str:
    if len(key.where) >= len(SCREENS) - 1:
        return ""
    return f" ({', '.join(name for name in ALL if name in key.where)})"


def sections(width: int) -> list[list[Line]]:
    """The help in pieces that belong together, each with its heading, set to ``width`` cells."""
    pieces: list[list[Line]] = []
    for group, keys in grouped().items():
        lines = [rule((Span(GROUPS[group], "title"),), (), width)]
        for key in keys:
            lines += _entry(key.shown, key.help + _where(key), width)
        if group == "steer":
            lines += [line for key in DIALOG_KEYS for line in _entry(key.shown, f"{key.help} (when asked)", width)]
        pieces.append(lines)
    lines = [rule((Span("Commands, after :", "title"),), (), width)]
    for command in COMMANDS:
        takes = f" {command.takes.upper()}" if command.takes else ""
        lines += _entry(command.name + takes, command.help, width, room=17)
    pieces.append(lines)
    lines = [rule((Span("Signs", "title"),), (), width)]
    for state, (sign, role) in cells.STATES.items():
        lines += _entry(f"{sign} {state}", STATES[state], width, role=role, room=14)
    lines += _entry(cells.EXPOSED, "other machines can reach it, not only this one", width, role="notice", room=14)
    pieces.append(lines)
    lines = [rule((Span("Signs of chids", "title"),), (), width)]
    for name, (sign, role) in chids.SIGNS.items():
        lines += _entry(f"{sign} {name}", chids.MEANINGS[name], width, role=role, room=14)
    for marks, meaning in MARKS:
        lines += _entry(marks, meaning, width, role="in", room=14)
    pieces.append(lines)
    lines = [rule((Span("Signs of punches", "title"),), (), width)]
    for name, (sign, role) in punches.STATES.items():
        lines += _entry(f"{sign} {name}", OUTCOMES[name], width, role=role, room=14)
    for sign, role, words in race.MARKS.values():
        lines += _entry(sign, words, width, role=role, room=14)
    pieces.append(lines)
    lines = [rule((Span("Signs of tokens", "title"),), (), width)]
    for name, (sign, role) in tokens.STATES.items():
        lines += _entry(f"{sign} {name}", token_words.STATES[name], width, role=role, room=14)
    pieces.append(lines)
    lines = [rule((Span("Words", "title"),), (), width)]
    for word, meaning in WORDS:
        lines += _entry(word, meaning, width, role="strong")
    pieces.append(lines)
    return pieces


def _beside(left: list[Line], right: list[Line], width: int) -> list[Line]:
    """Two columns of lines, the right one beginning at ``width`` and two cells."""
    both: list[Line] = []
    for at in range(max(len(left), len(right))):
        line = left[at] if at < len(left) else ()
        other = right[at] if at < len(right) else ()
        both.append((*line, Span(" " * (width + 2 - width_of(line))), *other))
    return both


def page(width: int) -> list[Line]:
    """The whole help in lines of ``width`` cells."""
    if width < TWO_COLUMNS_FROM:
        return [line for piece in sections(width) for line in (*piece, ())]
    half = (width - 2) // 2
    pieces = [[*piece, ()] for piece in sections(half)]
    total, left = sum(len(piece) for piece in pieces), 0
    split = 0
    while left < total / 2:
        left += len(pieces[split])
        split += 1
    columns = [[line for piece in part for line in piece] for part in (pieces[:split], pieces[split:])]
    return _beside(columns[0], columns[1], half)


class HelpPane(Pane):
    """All there is to know, on one page."""

    DEFAULT_CSS = """
    HelpPane VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
    """

    screen_name: ClassVar[Screen] = "help"

    def __init__(self) -> None:
        super().__init__()
        self._text = Lines()
        self._body = VerticalScroll(self._text, can_focus=False)

    def compose(self) -> ComposeResult:
        yield self._body

    def show(self, scene: Scene) -> None:
        self.on_resize()

    def on_resize(self) -> None:
        if self.size.width:  # else it is about to be known
            self._text.show(page(max(20, self.size.width - 1)))

    def move(self, by: int) -> None:
        self._body.scroll_relative(y=by, animate=False, immediate=True)

    def turn(self, pages: int) -> None:
        self.move(pages * max(1, self.size.height - 1))

    def to_end(self, *, last: bool) -> None:
        self._body.scroll_to(y=self._body.max_scroll_y if last else 0, animate=False, immediate=True)
