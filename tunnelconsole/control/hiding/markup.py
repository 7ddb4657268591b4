"""Secrets in XML and HTML: in elements, in attributes, and in what another element or attribute names."""

from __future__ import annotations

import html
import re
from typing import Final

from tunnelconsole.control.hiding.names import Hider, is_secret, words_of

_TAG = re.compile(
    r"<!--(?P<comment>.*?)(?P<close>-->|\Z)|<!\[CDATA\[(?P<data>.*?)(?P<end>\]\]>|\Z)|<[?!][^>]*+(?:>|\Z)|</(?P<closed>[^\s>]++)[^>]*+(?:>|\Z)"
    r"|<(?P<opened>[A-Za-z_][^\s/>]*+)(?P<attributes>(?:[^>\"']|\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))*+)(?P<sign>>|\Z)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([^\s=/"'<>]++)(\s*+=\s*+)(?:"([^"]*+)("?)|'([^']*+)('?)|([^\s"'>]++))""")

_NAMING: Final = ("name", "key", "id", "field", "property", "itemprop")
"""Attributes and elements that say what a value is."""

_NAMED: Final = ("value", "content")
"""Attributes whose value that is."""

_HTML_CONTENTS: Final = ("textarea",)
"""Elements of a page that hold what has been entered."""


_PROGRAMS: Final = ("script", "style")
"""Elements of a page whose contents are no markup."""


class _Scan:
    def __init__(self, text: str, hider: Hider, *, page: bool) -> None:
        self._text = text
        self._hider = hider
        self._page = page
        self._shown: list[str] = []
        self._at = 0
        self._said = ""
        """What the element says that has just been closed, where it says a name."""
        self._naming = ""

    def run(self) -> str:
        while (found := _TAG.search(self._text, self._at)) is not None:
            self._content(self._text[self._at : found.start()])
            self._at = found.end()
            if found["data"] is not None:
                self._shown.append(f"<![CDATA[{self._inside(found['data'])}{found['end']}")
            elif found["comment"] is not None:
                self._shown.append(f"<!--{self._inside(found['comment'])}{found['close']}")
            elif found["opened"] is not None:
                self._element(found)
            else:
                self._shown.append(found[0])
                if found["closed"] is not None and words_of(_local(found["closed"])) != self._naming:
                    self._said = ""
        self._content(self._text[self._at :])
        return "".join(self._shown)

    def _inside(self, text: str) -> str:
        return self._hider.inner(text) if text.lstrip()[:1] in ("{", "[", "<") else self._hider.plain(text)

    def _content(self, text: str) -> None:
        if text.strip() and self._naming:
            self._said = text.strip()
        if text.strip():
            plain = html.unescape(text)
            shown = self._inside(plain)
            text = text if shown == plain else html.escape(shown, quote=False)
        self._shown.append(text)

    def _element(self, found: re.Match[str]) -> None:
        name = _local(found["opened"])
        said, self._said = self._said, ""
        self._naming = words_of(name) if not self._page and words_of(name) in _NAMING else ""
        attributes, named = self._attributes(found["attributes"])
        self._shown.append(f"<{found['opened']}{attributes}{found['sign']}")
        if self._page and name.lower() in _PROGRAMS:
            end = self._end_of(found["opened"])
            program = self._text[self._at : end]
            is_data = program.lstrip()[:1] in ("{", "[")
            self._shown.append(self._hider.inner(program) if is_data else self._hider.plain(program, quoted=True))
            self._at = end
            return
        if self._page:
            hidden = named and name.lower() in _HTML_CONTENTS
        else:
            hidden = named or is_secret(said) or (is_secret(name) and words_of(name) != "code")
        if hidden and found["sign"] and not found["attributes"].endswith("/"):
            self._naming = ""
            end = self._end_of(found["opened"])
            content = self._text[self._at : end]
            self._shown.append(self._hider.hide(content) if content.strip() else content)
            self._at = end

    def _end_of(self, name: str) -> int:
        """Where the element that begins here ends."""
        depth, at = 1, self._at
        while (found := _TAG.search(self._text, at)) is not None:
            at = found.end()
            if found["closed"] == name:
                depth -= 1
            elif found["opened"] == name and not found["attributes"].endswith("/"):
                depth += 1
            if not depth:
                return found.start()
        return len(self._text)

    def _attributes(self, text: str) -> tuple[str, bool]:
        """An element's attributes, and whether they say that it holds a secret."""
        pairs = [(_local(each[1]), html.unescape(_value(each))) for each in _ATTRIBUTE.finditer(text)]
        kind = dict(pairs).get("type", "")
        named = kind == "password" or any(name.lower() in _NAMING and is_secret(value) for name, value in pairs)

        def attribute(found: re.Match[str]) -> str:
            name, value = _local(found[1]), html.unescape(_value(found))
            if name.lower() in _NAMING:
                return found[0]
            if is_secret(name) or (named and name.lower() in _NAMED):
                shown = self._hider.hide(value)
            else:
                shown = self._hider.inner(value)
            if shown == value:
                return found[0]
            quote = "'" if found[5] is not None else '"'
            closed = found[7] is not None or bool(found[4] or found[6])
            return f"{found[1]}{found[2]}{quote}{html.escape(shown)}{quote if closed else ''}"

        return _ATTRIBUTE.sub(attribute, text), named


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _value(found: re.Match[str]) -> str:
    return next(value for value in (found[3], found[5], found[7]) if value is not None)


def markup(text: str, hider: Hider, *, page: bool) -> str:
    """A document, or the beginning of one.

    :param page: it is HTML, whose elements have names of their own; else XML.
    """
    return _Scan(text, hider, page=page).run()
