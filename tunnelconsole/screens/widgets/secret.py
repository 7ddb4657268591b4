"""A secret, shown once: it can be copied, and is forgotten when it is closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import cached_cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from tunnelconsole.screens.spans import Line, Span, wrapped
from tunnelconsole.screens.widgets.dialog import FRAME, WIDTH
from tunnelconsole.screens.widgets.lines import Lines


class _SecretLines(Lines):
    """Lines that cannot be marked: what is marked is copied with a word of what it was."""

    ALLOW_SELECT = False


class SecretShown(ModalScreen[None], inherit_bindings=False):
    """Shows a secret that nobody will show again.

    Whoever closes it without having copied it is asked once more. The secret is never measured, wrapped or fitted by
    what remembers its last texts, and what was painted of it goes with the screen.

    :param title: what was done.
    :param sentences: what else is to be known, a paragraph each.
    :param copy: copies it, and says so without saying it.
    """

    DEFAULT_CSS = """
    SecretShown { align: center middle; background: $background 70%; }
    SecretShown > Vertical {
        width: 76; max-width: 94%; height: auto; padding: 1 2; background: $surface; border: round $accent;
    }
    SecretShown Lines { background: $surface; }
    """

    ALLOW_SELECT: ClassVar[bool] = False

    def __init__(self, title: str, secret: str, sentences: Sequence[str], copy: Callable[[str], None]) -> None:
        super().__init__()
        self.heading = title
        self.sentences = tuple(sentences)
        self._secret = secret
        self._copy = copy
        self._copied = self._doubted = False
        self._text = _SecretLines()

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._text

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        if not self._secret:
            return
        width = min(WIDTH, max(12, int(self.app.size.width * 0.94) - FRAME))
        lines: list[Line] = [*wrapped(self.heading, width, "strong"), ()]
        lines += [(Span(self._secret[at : at + width], "notice"),) for at in range(0, len(self._secret), width)]
        lines.append(())
        for sentence in self.sentences:
            lines += [*wrapped(sentence, width, "dim"), ()]
        if self._doubted:
            lines += [
                *wrapped("It was not copied. Esc again closes it, and nobody can show it again.", width, "warning"),
                (),
            ]
        copy, close = ("text", "lit") if self._copied else ("lit", "text")
        lines.append((
            Span(" c ", "lit-key" if not self._copied else "key", "screen.copy"),
            Span("Copied; copy it again " if self._copied else "Copy it ", copy, "screen.copy"),
            Span("  "),
            Span(" Esc ", "lit-key" if self._copied else "key", "screen.close"),
            Span("Close ", close, "screen.close"),
        ))  # fmt: skip
        self._text.show(lines)

    def on_key(self, event: events.Key) -> None:
        """``c`` copies, Esc closes, Enter does what is lit."""
        event.stop()
        if event.key in ("c", "y") or (event.key == "enter" and not self._copied):
            self.action_copy()
        elif event.key in ("escape", "ctrl+c", "enter", "q"):
            self.action_close()
        elif self._doubted:
            self._doubted = False
            self._show()

    def action_copy(self) -> None:
        """Copies the secret."""
        self._copy(self._secret)
        self._copied, self._doubted = True, False
        self._show()

    def action_close(self) -> None:
        """Closes it, and forgets the secret; where it was not copied, at the second time."""
        if not self._copied and not self._doubted:
            self._doubted = True
            self._show()
            return
        self._secret = ""
        self._text.show(())
        cached_cell_len.cache_clear()  # painting measures each piece of text, and remembers some thousand
        self.dismiss(None)
