"""Hiding secrets in what an inspector shows: credentials, cookies, and whatever is named like a token or a password.

What cannot be looked into is hidden as a whole.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

from tunnelconsole.control.hiding import pairs
from tunnelconsole.control.hiding.json_text import json_text
from tunnelconsole.control.hiding.markup import markup
from tunnelconsole.control.hiding.names import HIDDEN, is_secret
from tunnelconsole.control.hiding.plain import by_look, plain_text

_NESTED: Final = 6
"""How deep one thing is looked for in another, such as JSON in a string of JSON: nobody writes more by hand."""

_HARMLESS = re.compile(
    r"access-control-|sec-(fetch|ch)-|sec-websocket-(key|accept|version|extensions)$|www-authenticate$|proxy-authenticate$"
)
"""How names of fields begin that look like those of secrets, and say nothing."""

_AUTHORIZATIONS: Final = ("authorization", "proxy-authorization")
_SUBPROTOCOLS: Final = "sec-websocket-protocol"
_URLS: Final = ("referer", "location", "content-location", "x-original-url", "x-rewrite-url")

_PROTOCOL = re.compile(r"[A-Za-z][\w.+/-]{0,31}")
"""A subprotocol's name, and no token."""

_BEARS = re.compile(r"(^|\W)(bearer|auth\w*|jwt|\w*token|\w*key)(\W|$)", re.IGNORECASE)

_SEEN: Final = ("image/", "audio/", "video/", "font/")
"""Types of bodies that hold no credentials, though nothing is looked for in them."""

_PROGRAMS: Final = ("javascript", "ecmascript", "css", "typescript")
_CHARSET = re.compile(r'charset\s*=\s*"?([\w.:-]+)', re.IGNORECASE)
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
"""How text of UTF-16 begins."""

_NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_JSON = re.compile(r"[\ufeff\s]*[{\[\"0-9-]")
_JSON_WITHIN = re.compile(r'\s*(\{\s*["}]|\[\s*["\[{])')
_FORM_WITHIN = re.compile(r"[\w.%\[\]-]+=[^\s&]*(&[\w.%\[\]-]+=[^\s&]*)*")
_SPECIAL = re.compile(r"[{\[<=:]|eyJ|-----|[Bb]earer ")
"""What every value has in which something may be hidden."""

_URL_WITHIN = re.compile(r"([a-z][a-z0-9+.-]*://|[/?#])\S*", re.IGNORECASE)
_XML_WITHIN = re.compile(r"\s*<[?!A-Za-z_]")
_PAGE = re.compile(r"\s*<(!doctype html|html)\b", re.IGNORECASE)
_EVENT_DATA = re.compile(r"^(data:[ ]?)(.*)$", re.MULTILINE)


class Veil:
    """Hides what it is shown, and counts.

    :param lifted: it hides nothing.
    """

    def __init__(self, *, lifted: bool) -> None:
        self._lifted = lifted
        self._depth = 0
        self.hidden = 0

    def field(self, name: str, value: str) -> str:
        """The value of a field of a head. A cookie's name and an authorization's scheme are no secrets."""
        key = name.lower()
        if self._lifted or _HARMLESS.match(key):
            return value
        if key in _AUTHORIZATIONS:
            scheme, blank, _ = value.partition(" ")
            return self.hide(value, f"{scheme} " if blank and _PROTOCOL.fullmatch(scheme) else "")
        if key in ("cookie", "cookie2"):
            return pairs.cookies(value, self)
        if key in ("set-cookie", "set-cookie2"):
            return pairs.cookies(value, self, first=True)
        if key == _SUBPROTOCOLS:
            return self._subprotocols(value)
        if key in _URLS:
            return self.url(value)
        return self.hide(value) if is_secret(key) else self.plain(value)

    def url(self, text: str) -> str:
        """A URL, or a path with its parameters and its query."""
        return text if self._lifted else by_look(pairs.url(text, self), self)

    def body(self, body: bytes, content_type: str) -> bytes:
        """A body that nothing encodes: what it holds of secrets, by its type; all of it where that cannot be told."""
        if self._lifted or not body:
            return body
        kind = content_type.partition(";")[0].strip().lower()
        if kind.startswith(_SEEN) and not kind.endswith("xml"):
            return body
        if kind.startswith("multipart/"):
            return pairs.parts(body, content_type, self, self.body)
        codec = _codec_of(body, content_type)
        text = body.decode(codec, "surrogateescape" if codec == "utf-8" else "replace")
        shown = self._text(text, kind)
        return body if shown == text else shown.encode(codec, "surrogateescape" if codec == "utf-8" else "replace")

    def opaque(self, body: bytes) -> bytes:
        """A body that cannot be looked into."""
        return body if self._lifted or not body else self.hide(f"{len(body)} bytes").encode()

    def hide(self, value: str, before: str = "") -> str:
        """What is shown in place of a secret; nothing where it is empty."""
        if not value:
            return value
        self.hidden += 1
        return f"{before}{HIDDEN}"

    def inner(self, text: str) -> str:
        """A value of its own: JSON, XML, a form, a URL, a token by its look, or none of these, which is shown."""
        if not _SPECIAL.search(text):  # most are: a document has thousands of them
            return text
        if self._depth >= _NESTED:
            return self.hide(text)
        self._depth += 1
        try:
            if _JSON_WITHIN.match(text):
                return json_text(text, self)
            if _XML_WITHIN.match(text):
                return markup(text, self, page=_PAGE.match(text) is not None)
            if "=" in text and _URL_WITHIN.fullmatch(text):
                return by_look(pairs.url(text, self), self)
            if "=" in text and _FORM_WITHIN.fullmatch(text):
                return by_look(pairs.form(text, self), self)
            return self.plain(text)
        finally:
            self._depth -= 1

    def plain(self, text: str, *, quoted: bool = False) -> str:
        """Text of no particular form; ``quoted`` where only what stands in quotes is a value, as in a program."""
        return plain_text(text, self, quoted=quoted) if "=" in text or ":" in text else by_look(text, self)

    def _text(self, text: str, kind: str) -> str:
        if kind == "application/x-www-form-urlencoded":
            return pairs.form(text, self)
        if kind.endswith("json") and _JSON.match(text):
            mark = "\ufeff" if text.startswith("\ufeff") else ""
            return mark + json_text(text.removeprefix(mark), self)
        if kind.endswith("xml") or kind == "text/html":
            return markup(text, self, page="html" in kind)
        if _NOT_IN_TEXT.search(text) or not (kind.startswith("text/") or _is_unicode(text)):
            return self.hide(text)
        if kind == "text/csv":
            return self._table(text)
        if kind == "text/event-stream":
            text = _EVENT_DATA.sub(lambda found: found[1] + self._anything(found[2]), text)
        return self._anything(text, program=kind.endswith(_PROGRAMS))

    def _anything(self, text: str, *, program: bool = False) -> str:
        if _JSON_WITHIN.match(text) or _XML_WITHIN.match(text):
            return self.inner(text)
        if not program and _FORM_WITHIN.fullmatch(text.strip()):
            return pairs.form(text, self)
        return self.plain(text, quoted=program)

    def _table(self, text: str) -> str:
        """Values apart by commas, below their names."""
        head, line, rest = text.partition("\n")
        if any(is_secret(name) for name in re.split(r"[,;\t|]", head)):
            return head + line + self.hide(rest)
        return self._anything(text)

    def _subprotocols(self, value: str) -> str:
        """Those of a WebSocket: a browser can bring a token only as the name of one."""
        names = value.split(",")
        bears = _BEARS.search(value) is not None
        for number, name in enumerate(names):
            bare = name.strip()
            word = is_secret(bare) or _BEARS.fullmatch(bare)
            if bare and (not _PROTOCOL.fullmatch(bare) or (bears and not word)):
                names[number] = name.replace(bare, self.hide(bare))
        return ",".join(names)


def _codec_of(body: bytes, content_type: str) -> str:
    """What its characters are written in; UTF-8 stands for all in which ASCII is as ever."""
    if body.startswith(_WIDE):
        return "utf-16"
    found = _CHARSET.search(content_type)
    try:
        return found[1] if found and "token=".encode(found[1]) != b"token=" else "utf-8"
    except (LookupError, ValueError):
        return "utf-8"


def _is_unicode(text: str) -> bool:
    """Whether it was text in UTF-8; its last character may be cut off."""
    bytes_of = text.encode("utf-8", "surrogateescape")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(bytes_of)
    except ValueError:
        return False
    return True
