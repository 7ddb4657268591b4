"""The line one types into: commands after a colon, with their completion, filters after a slash, and answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from tunnelconsole.screens.spans import Line, Span
from tunnelconsole.screens.widgets.entry import Entry
from tunnelconsole.screens.widgets.lines import Lines

Mode = Literal["command", "filter", "answer"]

SIGILS: dict[Mode, str] = {"command": " :", "filter": " /", "answer": " >"}
"""What stands before the line."""

REMEMBERED = 50
"""Commands that the up key brings back."""

LONGEST = 256
"""Characters one may type: names and words, not documents."""

LONGEST_ANSWER = 1024 * 130
"""Characters of an answer: as many chids as a channel client may have receivers, each as long as it may be."""

OWN_KEYS = frozenset({"enter", "tab", "shift+tab", "up", "down", "escape", "ctrl+c"})
"""The keys that a prompt has beyond those of a line."""

Complete = Callable[[str], list[str]]
"""What a line could become, best first, each as a whole line."""

FILTER_HINT: Line = (
    Span(" words a row must have; ", "faint"), Span("!", "key"), Span(" in front hides those rows   ", "faint"),
    Span("Enter", "key"), Span(" keeps it  ", "faint"), Span("Esc", "key"), Span(" clears it", "faint"),
)  # fmt: skip

ANSWER_HINT: Line = (
    Span("  Tab", "key"), Span(" completes  ", "faint"), Span("Enter", "key"), Span(" goes on  ", "faint"),
    Span("Esc", "key"), Span(" leaves it as it is", "faint"),
)  # fmt: skip


class _Completing(Suggester):
    """Shows, dimmed, how the first completion goes on."""

    def __init__(self, complete: Complete) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        return next((line for line in self._complete(value) if line.startswith(value)), None) if value else None


class Prompt(Vertical):
    """Opens above the footer, and closes when it is done.

    :param complete: what a command could become, best first.
    """

    DEFAULT_CSS = """
    Prompt { height: 2; display: none; background: $surface; }
    Prompt > Horizontal { height: 1; }
    Prompt #sigil { width: 2; background: $surface; }
    Prompt #hints { background: $surface; }
    Prompt Input { width: 1fr; height: 1; border: none; padding: 0; background: $surface; }
    Prompt Input:focus { border: none; background: $surface; background-tint: $foreground 0%; }
    """

    class Changed(Message):
        """The filter's text changed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Entered(Message):
        """A command was entered."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Answered(Message):
        """What was asked for was entered."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Stepped(Message):
        """An arrow key was pressed while filtering: the table is meant."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Closed(Message):
        """It takes nothing more, and is to be hidden; the table has the keys again."""

    def __init__(self, complete: Complete) -> None:
        super().__init__()
        self.mode: Mode = "command"
        self._commands = self._complete = complete
        self._asking = ""
        self._suggest = _Completing(self._completions)
        self._history: list[str] = []
        self._at = 0
        self._cycle: list[str] = []
        self._hints, self._sigil = Lines(id="hints"), Lines(id="sigil")
        self._takes_keys = False
        self._input = Entry(self._pressed, lambda: self._takes_keys, OWN_KEYS, LONGEST)

    def compose(self) -> ComposeResult:
        yield self._hints
        with Horizontal():
            yield self._sigil
            yield self._input

    @property
    def is_open(self) -> bool:
        """True until :meth:`hide`: keys are meant for it, or come back from it in their order."""
        return bool(self.display)

    def open(self, mode: Mode, text: str = "") -> None:
        """Takes the keys, with ``text`` to begin with."""
        self._complete = self._commands
        self._open(mode, text, LONGEST)

    def ask(self, asking: str, text: str, complete: Complete) -> None:
        """Takes the keys for an answer, which :class:`Answered` tells; nothing is told when it is given up.

        :param asking: what is asked, in a few words.
        :param text: the answer that is changed.
        """
        self._asking, self._complete = asking, complete
        self._open("answer", text, LONGEST_ANSWER)

    def _open(self, mode: Mode, text: str, longest: int) -> None:
        self.mode = mode
        self._at, self._cycle = len(self._history), []
        self._input.suggester = None if mode == "filter" else self._suggest
        self._input.max_length = longest
        self._sigil.show([(Span(SIGILS[mode], "key"),)])
        with self.prevent(Input.Changed):
            self._input.value = text
        self._input.cursor_position = len(text)
        self.display = self._takes_keys = True
        self.screen.set_focus(self._input)  # now, and not a turn later: what is typed ahead is meant for it
        self._hint()

    def close(self) -> None:
        """Takes nothing more; whoever hears that it is closed hides it."""
        self._takes_keys = False
        self.post_message(self.Closed())

    def hide(self) -> None:
        """Gives the keys back."""
        self.display = self._takes_keys

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters as one types; shows what a command could become."""
        event.stop()
        if not self._takes_keys:
            return
        if self._input.value not in self._cycle:
            self._cycle = []
        self._hint()
        if self.mode == "filter":
            self.post_message(self.Changed(self._input.value))

    def _submit(self) -> None:
        """Keeps the filter, or carries out the command."""
        text = self._input.value.strip()
        self.close()
        if self.mode == "filter":
            self.post_message(self.Changed(self._input.value))
        elif self.mode == "answer":
            self.post_message(self.Answered(text))
        elif text:
            self._history = [*[line for line in self._history if line != text], text][-REMEMBERED:]
            self.post_message(self.Entered(text))

    def _pressed(self, key: str) -> None:
        """Enters what was typed, completes it, looks back, or gives up."""
        if key == "enter":
            self._submit()
        elif key in ("escape", "ctrl+c"):
            if self.mode == "filter":
                self.post_message(self.Changed(""))
            self.close()
        elif self.mode == "filter":
            if key in ("up", "down"):
                self.post_message(self.Stepped(-1 if key == "up" else 1))
        elif key in ("tab", "shift+tab"):
            self._next_completion(-1 if key == "shift+tab" else 1)
        elif self.mode == "command":
            self._look_back(-1 if key == "up" else 1)

    def _completions(self, text: str) -> list[str]:
        return self._complete(text)

    def _next_completion(self, by: int) -> None:
        if not self._cycle:
            self._cycle = self._complete(self._input.value)
            chosen = 0 if by > 0 else -1
        else:
            value = self._input.value
            chosen = (self._cycle.index(value) + by) % len(self._cycle) if value in self._cycle else 0
        if self._cycle:
            self._write(self._cycle[chosen])

    def _look_back(self, by: int) -> None:
        self._at = max(0, min(len(self._history), self._at + by))
        self._cycle = []
        self._write(self._history[self._at] if self._at < len(self._history) else "")

    def _write(self, text: str) -> None:
        self._input.value = text
        self._input.cursor_position = len(text)

    def _hint(self) -> None:
        if self.mode == "filter":
            self._hints.show([FILTER_HINT])
            return
        candidates = self._cycle or self._complete(self._input.value)
        answering = self.mode == "answer"
        line: list[Span] = [Span(f" {self._asking} ", "strong")] if answering else [Span(" ")]
        for candidate in candidates[:20]:
            lit = candidate == self._input.value
            shown = re.split(r"[\s,]", candidate)[-1] if answering else candidate.split(" ", 1)[-1]
            line += [Span(f" {shown} ", "tab-active" if lit else "dim")]
        if answering:
            line += ANSWER_HINT
        elif not candidates:
            line.append(Span(" no such command; ? lists them", "faint"))
        self._hints.show([tuple(line)])
