"""Text with a role: what every screen is made of before it has a colour.

A :class:`Span` is text and the name of its role (``ok``, ``dim``, ``in``...); a line is a tuple of spans. They compare
by value, so an unchanged line is never painted twice, and they know no theme, so a theme can change under them.

Much of what the console shows was written by strangers: labels, peers, the errors of remote ends. :func:`clean` takes
out whatever could steer a terminal, and is applied here to everything on its way to the screen; nothing is ever read
as markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

REPLACEMENT = "·"
"""Stands for each character that must not reach a terminal."""

LONGEST = 4096
"""Characters of one text that are painted: no line of a terminal shows more, and a stranger may send megabytes."""


_plain = re.compile("[ -~\u2500-\u257f\u2800-\u28ff]*").fullmatch
"""Matches text of ASCII, lines and braille alone: harmless, one cell for each character, and nearly all there is."""


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    role: str = "text"
    """A name that :class:`~tunnelconsole.screens.themes.Look` has a style for."""
    action: str = ""
    """What a click on it does, as an action of the app such as ``app.show('services')``; empty: nothing."""


Line = tuple[Span, ...]
"""One line of the screen."""


def clean(text: str) -> str:
    """``text`` in one line that cannot steer a terminal.

    Control characters, escape sequences, line ends, text-direction marks, lone surrogates and characters without a
    width become :data:`REPLACEMENT`, each.
    """
    return text if _plain(text) else _composed(text)


def breadth(text: str) -> int:
    """Cells that cleaned text takes."""
    return len(text) if _plain(text) else cell_len(text)


@lru_cache(maxsize=1024)
def breadth_shown(text: str) -> int:
    """Cells that text takes once it is cleaned, remembered: tables ask for the same names again and again."""
    return breadth(clean(text))


@lru_cache(maxsize=2048)
def _composed(text: str) -> str:
    composed = unicodedata.normalize("NFC", text)
    return "".join(character if _harmless(character) else REPLACEMENT for character in composed)


def _harmless(character: str) -> bool:
    return (character.isprintable() or character == "\u3000") and cell_len(character) > 0


def fit(text: str, width: int, *, right: bool = False) -> str:
    """``text``, cleaned, in exactly ``width`` cells; an ellipsis marks what was cut off."""
    return _fitted(text[:LONGEST], width, right)


@lru_cache(maxsize=1024)
def _fitted(text: str, width: int, right: bool) -> str:
    text = clean(text)
    length = breadth(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def width_of(line: Iterable[Span]) -> int:
    """Cells that a line takes when nothing is cut off."""
    return sum(breadth(clean(span.text)) for span in line)


def plain(line: Iterable[Span]) -> str:
    """A line's text alone, cleaned."""
    return "".join(clean(span.text) for span in line)


def cut(line: Iterable[Span], width: int) -> Iterator[Span]:
    """The line in at most ``width`` cells, cleaned, with an ellipsis where something was cut off."""
    cleaned = [span._replace(text=clean(span.text[:LONGEST])) for span in line]
    too_long = sum(cell_len(span.text) for span in cleaned) > width
    left = width - 1 if too_long else width
    for span in cleaned:
        length = cell_len(span.text)
        if length > left:
            yield span._replace(text=set_cell_size(span.text, max(0, left)) + ("…" if width > 0 else ""))
            return
        left -= length
        yield span


BLANK = Span(" ")


def apart(left: Line, right: Line, width: int, fill: Span = BLANK) -> Line:
    """``left`` and ``right`` at the two ends of a line; the right one gives way where both do not fit."""
    room = width - width_of(left) - width_of(right)
    if room < 1:
        return left
    return (*left, fill._replace(text=fill.text * room), *right)


@lru_cache(maxsize=64)
def rule(left: Line, right: Line, width: int) -> Line:
    """A pane's title: its name, a thin line, and what else is to be said at the end."""
    head: Line = (Span(" "), *left, Span(" "))
    tail: Line = (Span(" "), *right, Span(" ")) if right else (Span(" "),)
    if width_of(head) + width_of(tail) >= width:
        tail = (Span(" "),)
    return apart(head, tail, width, Span("─", "line"))


def wrapped(text: str, width: int, role: str = "text") -> list[Line]:
    """``text`` broken between words into lines of at most ``width`` cells; a word that is too long is broken too."""
    lines: list[str] = [""]
    for word in clean(text[:LONGEST]).split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            pieces = chop_cells(word, max(1, width))
            lines[-1:] = [lines[-1], *pieces] if lines[-1] else pieces
    return [(Span(line, role),) for line in lines]
