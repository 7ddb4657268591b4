"""Bodies of requests and answers as people read them: text where they are text."""

from __future__ import annotations

import codecs
import re
from typing import Final

import msgspec

from tunnelconsole.control.exchange_rows import HttpMessage
from tunnelconsole.control.messages import NOT_JSON

_CHARSET = re.compile(r'charset\s*=\s*"?([\w.:-]+)', re.IGNORECASE)

_NOT_IN_TEXT: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters that no text has; escape sequences stand in logs."""


def field_text(value: str) -> str:
    """A field's value, each character one byte, as people read it: as UTF-8 where it is that."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def kind_of(message: HttpMessage) -> str:
    """The content's type without its parameters, in lower case."""
    return message.value("content-type").partition(";")[0].strip().lower()


def text_of(message: HttpMessage) -> str | None:
    """The body as text; None when it is none."""
    found = _CHARSET.search(message.value("content-type"))
    for charset in (found[1] if found else "utf-8", "utf-8"):
        try:
            decoder = codecs.getincrementaldecoder(charset)()
            text = decoder.decode(message.body, final=not message.cut)  # where it is cut, half a character may be last
        except (LookupError, ValueError):
            continue
        return None if _NOT_IN_TEXT.search(text) else text
    return None


def pretty_text_of(message: HttpMessage) -> str | None:
    """As :func:`text_of`; a JSON document with a member a line."""
    text = text_of(message)
    if text and not message.cut and kind_of(message).endswith("json"):
        try:
            return msgspec.json.format(text, indent=2)
        except NOT_JSON:
            return text
    return text
