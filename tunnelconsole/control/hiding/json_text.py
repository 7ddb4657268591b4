"""Secrets in JSON: read as JSON is, so that nothing depends on how it is written, and shown as it was written.

What comes after a place where it is not JSON any more is hidden as a whole.
"""

from __future__ import annotations

import json
import re
from typing import Final

from tunnelconsole.control.hiding.names import HIDDEN, Hider, is_secret, names_secret

_TOKEN = re.compile(
    r'[ \t\r\n]*+(?:(?P<string>"(?:[^"\\]|\\.)*+(?P<end>"?))|(?P<sign>[{}\[\],:])|(?P<word>[-+.\w]++))', re.DOTALL
)
_WORD = re.compile(r"true|false|null|NaN|-?Infinity|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_READABLE = re.compile(r'(?:[^\\]|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt])*+')
_NOTHING: Final = ("true", "false", "null")
"""Values that are no secret, whatever their name."""

_NAMING: Final = ("name", "key", "field", "header", "id")
"""Members that say in their value what another member's value is."""

_NAMED: Final = ("value", "content", "data")
"""Members whose value that is."""


class _Frame:
    """An object or an array that is open."""

    __slots__ = ("after", "name", "named", "value_at")

    def __init__(self, *, is_object: bool) -> None:
        self.name: str | None = None if is_object else ""
        """Of the member whose value comes next; None where a name comes; "" in an array."""
        self.after = False
        """Whether a value has been read, so that a comma or the end comes."""
        self.named = False
        """Whether a member said that another's value is a secret."""
        self.value_at = -1
        """Where that value stands in what is shown already."""


class _Scan:
    def __init__(self, text: str, hider: Hider) -> None:
        self._text = text
        self._hider = hider
        self._at = 0
        self._shown: list[str] = []
        self._open: list[tuple[str, _Frame]] = []

    def run(self) -> str:
        while (found := _TOKEN.match(self._text, self._at)) is not None:
            if not self._take(found):
                break
        rest = self._text[self._at :]
        self._shown.append(self._hider.hide(rest) if rest.strip() else rest)
        return "".join(self._shown)

    def _take(self, found: re.Match[str]) -> bool:
        """One token; False when it cannot stand here."""
        kind, frame = found.lastgroup, self._open[-1][1] if self._open else None
        sign = found["sign"]
        if sign in ("}", "]"):
            if not self._open or self._open[-1][0] != sign or (frame and frame.name and not frame.after):
                return False
            self._open.pop()
            self._value_read()
        elif sign == ",":
            if frame is None or not frame.after:
                return False
            frame.after = False
            frame.name = None if self._open[-1][0] == "}" else ""
        elif sign == ":":
            return False  # taken with its name
        elif frame is not None and frame.after:
            return False
        elif frame is not None and frame.name is None:
            return kind != "word" and self._take_name(frame, found)
        else:
            return self._take_value(frame, found)
        self._pass(found)
        return True

    def _take_name(self, frame: _Frame, found: re.Match[str]) -> bool:
        if found["string"] is None:
            return False
        colon = _TOKEN.match(self._text, found.end())
        self._pass(found)
        if colon is None or colon["sign"] != ":":
            return False
        self._pass(colon)
        name = _read(found["string"])
        frame.name = "secret" if name is None else name or "-"
        return True

    def _take_value(self, frame: _Frame | None, found: re.Match[str]) -> bool:
        name = frame.name or "" if frame is not None else ""
        named = frame is not None and frame.named and name.lower() in _NAMED
        if found["sign"]:
            if (named or is_secret(name)) and not self._is_empty(found):
                self._skip(found)
                self._value_read()
            else:
                self._pass(found)
                closes = "}" if found["sign"] == "{" else "]"
                self._open.append((closes, _Frame(is_object=closes == "}")))
            return True
        if found["word"]:
            return self._take_word(name, named, found)
        value = _read(found["string"])
        if frame is not None and name.lower() in _NAMED:
            frame.value_at = len(self._shown)
        if value is None or named or names_secret(name, value):
            self._replace(found, self._hider.hide(found["string"] if value is None else value))
        else:
            shown = self._hider.inner(value)
            if shown == value:
                self._pass(found)
            else:
                self._replace(found, json.dumps(shown, ensure_ascii=False)[1:-1])
        if frame is not None and name.lower() in _NAMING and value is not None and is_secret(value):
            self._hide_named(frame)
        self._value_read()
        return True

    def _take_word(self, name: str, named: bool, found: re.Match[str]) -> bool:
        word = found["word"]
        if word not in _NOTHING and (named or names_secret(name, word)):
            before = self._text[self._at : found.start("word")]
            self._shown.append(f'{before}"{self._hider.hide(word)}"')
            self._at = found.end()
        elif _WORD.fullmatch(word):
            if self._open and name.lower() in _NAMED:
                self._open[-1][1].value_at = len(self._shown)
            self._pass(found)
        else:
            return False
        self._value_read()
        return True

    def _hide_named(self, frame: _Frame) -> None:
        frame.named = True
        if frame.value_at >= 0:
            before, quote, value = self._shown[frame.value_at].partition('"')
            value = value.rstrip('"') if quote else before.strip()
            if value not in ("", HIDDEN, *_NOTHING):
                self._shown[frame.value_at] = f'"{self._hider.hide(value)}"'

    def _value_read(self) -> None:
        if self._open:
            self._open[-1][1].after = True

    def _pass(self, found: re.Match[str]) -> None:
        self._shown.append(self._text[self._at : found.end()])
        self._at = found.end()

    def _replace(self, found: re.Match[str], shown: str) -> None:
        before = self._text[self._at : found.start("string")]
        self._shown.append(f'{before}"{shown}{found["end"]}')
        self._at = found.end()

    def _is_empty(self, found: re.Match[str]) -> bool:
        following = _TOKEN.match(self._text, found.end())
        return following is not None and following["sign"] in ("}", "]")

    def _skip(self, found: re.Match[str]) -> None:
        """Hides an object or an array to its end, or to that of the text."""
        start, depth, end = found.start("sign"), 0, found.start("sign")
        while (token := _TOKEN.match(self._text, end)) is not None:
            end = token.end()
            depth += (token["sign"] in ("{", "[")) - (token["sign"] in ("}", "]"))
            if not depth:
                break
        else:
            end = len(self._text)
        self._shown.append(f'{self._text[self._at : start]}"{self._hider.hide(self._text[start:end])}"')
        self._at = end


def _read(literal: str) -> str | None:
    """What a string says, as far as it was not cut off; None where it is none of JSON's."""
    if "\\" not in literal:
        return literal.strip('"')
    cut = not (len(literal) > 1 and literal.endswith('"') and _closed(literal))
    inside = literal[1:] if cut else literal[1:-1]
    readable = _READABLE.match(inside)
    end = readable.end() if readable is not None else 0
    if end < len(inside) and not (cut and len(inside) - end < len("\\u0000")):
        return None
    try:
        value: str = json.loads(f'"{inside[:end]}"', strict=False)
        value.encode("utf-8", "surrogateescape")
    except ValueError:
        return None
    return value


def _closed(literal: str) -> bool:
    """Whether the last quote ends a string and is not one that stands in it."""
    body = literal[:-1]
    return (len(body) - len(body.rstrip("\\"))) % 2 == 0


def json_text(text: str, hider: Hider) -> str:
    """A document, or several one behind the other, or the beginning of one."""
    return _Scan(text, hider).run()
