"""A form: several lines to fill in, sent off together, and kept as they are where somebody refuses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen

from tunnelconsole.screens.spans import Line, Span, fit, wrapped
from tunnelconsole.screens.widgets.entry import Entry
from tunnelconsole.screens.widgets.lines import Lines

WIDTH = 78
"""Cells that a form takes at the most: the longest hint in two lines."""

FRAME = 6
"""Cells beside the text: the frame, its padding and the scroll bar."""

LABEL = 15
"""Cells of a line's name and the mark before it."""

SAID = 3
"""Lines below the fields for what is said of the present one, or of what was refused."""

LONGEST = 4096
"""Characters of one line: a list of patterns may be long, a document is none."""

OWN_KEYS = frozenset({"enter", "tab", "shift+tab", "up", "down", "escape", "ctrl+c", "ctrl+s", "pageup", "pagedown"})
"""The keys that a form has beyond those of a line."""


@dataclass(frozen=True)
class Field:
    """One line of a form."""

    key: str
    label: str
    hint: str
    """What it is, and how it is written, in a sentence without its full stop."""
    text: str = ""
    """What stands there to begin with."""
    blank: str = ""
    """What it means when nothing stands there."""
    choices: tuple[str, ...] = ()
    """What it may be, where it cannot be anything else: the space bar goes through them."""


class _AnyKey:
    """All keys, for a line in which nothing is typed."""

    def __contains__(self, key: object) -> bool:
        return True


class Form(ModalScreen[None], inherit_bindings=False):
    """Asks for several things at once.

    It stays open until :meth:`done`, and says with :meth:`refuse` what is wrong with what was sent off.

    :param title: what is to be done.
    :param sentences: what else is to be known, a paragraph each.
    :param doing: what sending it off does, such as ``make it``.
    :param send: takes the form when it is sent off, with what was written by the keys of the fields.
    """

    DEFAULT_CSS = f"""
    Form {{ align: center middle; background: $background 70%; }}
    Form > Vertical {{
        width: {WIDTH}; max-width: 100%; height: auto; max-height: 100%; padding: 0 1; background: $surface;
        border: round $accent;
    }}
    Form .fields {{ height: auto; scrollbar-size-vertical: 1; background: $surface; }}
    Form .row {{ height: 1; }}
    Form .label {{ width: {LABEL}; }}
    Form Lines {{ background: $surface; }}
    Form Input {{ width: 1fr; height: 1; border: none; padding: 0; background: $panel; }}
    Form Input:focus {{ border: none; background: $block-cursor-background; background-tint: $foreground 0%; }}
    """

    def __init__(
        self,
        title: str,
        sentences: Sequence[str],
        fields: Sequence[Field],
        doing: str,
        send: Callable[[Form, dict[str, str]], None],
    ) -> None:
        super().__init__()
        self.heading = title
        self.sentences = tuple(sentences)
        self.fields = tuple(fields)
        self._doing = doing
        self._send = send
        self._at = 0
        self._sent = False
        self._leaving = False
        self._refused: tuple[str, str, str] | None = None
        """The field, what is wrong with it, and what to do."""
        self._head, self._foot = Lines(classes="head"), Lines(classes="foot")
        self._labels = [Lines(classes="label") for _ in self.fields]
        self._entries = [self._entry(at, field) for at, field in enumerate(self.fields)]
        self._scroll = VerticalScroll(
            *(
                Horizontal(label, entry, classes="row")
                for label, entry in zip(self._labels, self._entries, strict=True)
            ),
            classes="fields",
            can_focus=False,
        )

    def _entry(self, at: int, field: Field) -> Entry:
        own_keys = _AnyKey() if field.choices else OWN_KEYS
        return Entry(
            self._pressed,
            lambda: self._at == at,
            own_keys,
            LONGEST,
            value=field.text,
            placeholder=field.blank,
            id=f"field-{field.key.replace('_', '-')}",
        )

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._head
            yield self._scroll
            yield self._foot

    def on_mount(self) -> None:
        self._go(0)

    def on_resize(self) -> None:
        self._show()

    @property
    def written(self) -> dict[str, str]:
        """What stands in each field, by its key."""
        return {field.key: entry.value.strip() for field, entry in zip(self.fields, self._entries, strict=True)}

    @property
    def is_changed(self) -> bool:
        """Whether anything was written."""
        return self.written != {field.key: field.text for field in self.fields}

    # what becomes of it

    def refuse(self, key: str, message: str, hint: str) -> None:
        """It was not taken: says why, and goes to the field that is to be mended; what was written stays.

        :param key: of the field; empty where it is not known.
        """
        self._sent = False
        self._refused = (key, message, hint)
        at = next((at for at, field in enumerate(self.fields) if field.key == key), self._at)
        self._go(at)

    def resume(self) -> None:
        """It was not sent off after all."""
        self._sent = False
        self._show()

    def done(self) -> None:
        """It was taken; what was written is forgotten."""
        self.dismiss(None)

    # keys

    def _pressed(self, key: str) -> None:
        if self._sent:
            return  # until there is an answer, nothing else can be done
        leaving, self._leaving = self._leaving, False
        choices = self.fields[self._at].choices
        if key in ("escape", "ctrl+c"):
            self._leave(already_asked=leaving)
        elif key == "ctrl+s" or (key == "enter" and self._at == len(self.fields) - 1):
            self._submit()
        elif key in ("enter", "tab", "down"):
            self._go((self._at + 1) % len(self.fields))
        elif key in ("shift+tab", "up"):
            self._go((self._at - 1) % len(self.fields))
        elif key in ("pageup", "pagedown"):
            self._go(0 if key == "pageup" else len(self.fields) - 1)
        elif choices:
            self._choose(key, choices)
        else:
            self._show()

    def _choose(self, key: str, choices: Sequence[str]) -> None:
        entry = self._entries[self._at]
        now = choices.index(entry.value) if entry.value in choices else 0
        begun = [choice for choice in choices if choice.startswith(key)]
        if begun:
            entry.value = begun[0]
        elif key in ("space", "left", "right"):
            entry.value = choices[(now + (-1 if key == "left" else 1)) % len(choices)]
        self._show()

    def _leave(self, *, already_asked: bool) -> None:
        if self.is_changed and not already_asked:
            self._leaving = True
            self._show()
        else:
            self.dismiss(None)

    def _submit(self) -> None:
        self._sent, self._refused = True, None
        self._show()
        self._send(self, self.written)

    def _go(self, at: int) -> None:
        self._at = at
        self.set_focus(self._entries[at])
        self._show()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A field was clicked."""
        for at, entry in enumerate(self._entries):
            if entry is event.widget and at != self._at:
                self._at = at
                self._show()

    def on_input_changed(self) -> None:
        """What was refused is being mended."""
        if self._leaving:
            self._leaving = False
            self._show()

    # how it looks

    def _show(self) -> None:
        width = min(WIDTH, self.app.size.width) - FRAME
        head: list[Line] = [*wrapped(self.heading, width, "title")]
        for sentence in self.sentences:
            head += wrapped(sentence, width, "dim")
        foot = [(), *self._said(width), self._keys(width)]
        self._head.show(head)
        self._foot.show(foot)
        room = max(1, self.app.size.height - len(head) - len(foot) - 2)
        self._scroll.styles.height = min(len(self.fields), room)
        refused = self._refused[0] if self._refused is not None else ""
        for at, (field, label) in enumerate(zip(self.fields, self._labels, strict=True)):
            if field.key == refused:
                label.show([(Span("✖ ", "error"), Span(fit(field.label, LABEL - 2), "error"))])
            elif at == self._at:
                label.show([(Span("▸ ", "key"), Span(fit(field.label, LABEL - 2), "strong"))])
            else:
                label.show([(Span("  "), Span(fit(field.label, LABEL - 2), "dim"))])

    def _said(self, width: int) -> list[Line]:
        """What is wrong, or else what the present field is for; always of one height, so that nothing jumps."""
        field = self.fields[self._at]
        if self._leaving:
            lines = wrapped(
                "What you wrote is lost when you leave: Esc again leaves, any other key stays.", width, "warning"
            )
        elif self._sent:
            lines = wrapped("Asking the engine…", width, "busy")
        elif self._refused is not None and self._refused[0] in ("", field.key):
            _, message, hint = self._refused
            lines = wrapped(f"✖ {message[:1].upper()}{message[1:]}.", width, "error")
            lines += wrapped(f"{hint[:1].upper()}{hint[1:]}.", width, "dim") if hint else []
        else:
            lines = wrapped(f"{field.hint}.", width, "dim")
        return [*lines[:SAID], *[()] * (SAID - len(lines))]

    def _keys(self, width: int) -> Line:
        last = self._at == len(self.fields) - 1
        keys: list[tuple[str, str]] = [("Enter", self._doing if last else "next"), ("Esc", "leave")]
        if not last:
            keys[1:1] = [("Ctrl-S", self._doing)]
        if self.fields[self._at].choices:
            keys.insert(0, ("Space", "changes it"))
        elif len(self.fields) > 1 and width > 60:
            keys.append(("↑ ↓", "other fields"))
        return tuple(span for key, does in keys for span in (Span(f"{key} ", "key"), Span(f"{does}   ", "label")))
