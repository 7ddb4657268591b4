"""A request or an answer as lines: its head, and its body as text or byte by byte."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import chop_cells

from tunnelconsole.control import figures
from tunnelconsole.control.bodies import field_text, kind_of, pretty_text_of
from tunnelconsole.control.exchange_rows import HttpMessage
from tunnelconsole.screens.spans import Line, Span, clean, fit, rule, wrapped

MOST_LINES = 1000
"""Lines of a body that are shown: nobody reads more on a terminal, and files can be saved."""

NAMES = 28
"""Cells for the names of fields at the most."""

BYTES_A_LINE, BYTES_A_NARROW_LINE = 16, 8
"""Bytes on a line, where they are shown one by one."""

NARROW = 76
"""Cells of width below which there is no room for 16 bytes and the text beside them."""

TAB = "    "


def message_lines(name: str, message: HttpMessage, total: int, width: int, *, hexed: bool) -> list[Line]:
    """All of a message.

    :param total: bytes that its body had.
    :param hexed: shows the body byte by byte, which is also done where it is no text.
    """
    text = None if hexed else pretty_text_of(message)
    lines = [
        rule((Span(name, "title"),), (Span(_about(message, total, shown_as_text=text is not None), "dim"),), width),
        *((Span(" "), *piece) for piece in wrapped(message.first_line, max(10, width - 2), "strong")),
        *_fields(message.fields, width),
    ]
    if total:
        lines += [(), *(_hex(message.body, width) if text is None else _text(text, width))]
        lines += _rest(message)
    return lines


def _about(message: HttpMessage, total: int, *, shown_as_text: bool) -> str:
    """What the body is, in a few words."""
    if not total:
        return "no body"
    words = [kind_of(message) or "of no type", figures.size(total)]
    if message.decoded:
        words.append(f"as {message.decoded}")
    if not shown_as_text:
        words.append("in bytes")
    return ", ".join(words)


def _fields(fields: Sequence[tuple[str, str]], width: int) -> list[Line]:
    names = min(NAMES, max((len(name) for name, _ in fields), default=0), max(8, width // 3))
    lines: list[Line] = []
    for name, value in fields:
        role = "notice" if "[hidden]" in value else "text"
        for at, piece in enumerate(wrapped(field_text(value), max(10, width - names - 3), role)):
            lines.append((Span(f" {fit(name if at == 0 else '', names)} ", "dim"), *piece))
    return lines


def _text(text: str, width: int) -> list[Line]:
    lines: list[Line] = []
    for line in text.splitlines():
        for piece in chop_cells(clean(line.replace("\t", TAB)), max(10, width - 2)) or [""]:
            if len(lines) == MOST_LINES:
                return [*lines, _more("lines")]
            lines.append((Span(f" {piece}"),))
    return lines


def _hex(body: bytes, width: int) -> list[Line]:
    count = BYTES_A_LINE if width >= NARROW else BYTES_A_NARROW_LINE
    lines: list[Line] = []
    for at in range(0, min(len(body), MOST_LINES * count), count):
        piece = body[at : at + count]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in piece)
        lines.append((Span(f" {at:06x}  ", "faint"), Span(f"{piece.hex(' '):<{3 * count}} "), Span(shown, "dim")))
    return [*lines, _more("bytes")] if len(body) > MOST_LINES * count else lines


def _more(what: str) -> Line:
    return (Span(f" … there are more {what}; ", "dim"), Span("w", "key"), Span(" saves what is kept", "dim"))


def _rest(message: HttpMessage) -> list[Line]:
    if not message.cut:
        return []
    kept = f"the first {figures.size(len(message.body))}" if message.body else "nothing"
    return [(Span(f" … of this body {kept} is kept", "warning"),)]
