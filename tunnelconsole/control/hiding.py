"""Hiding secrets in what an inspector shows: credentials, cookies, and whatever is named like a token or a password."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

HIDDEN: Final = "[hidden]"
"""Stands in place of a secret."""

_SECRET = re.compile(
    r"token|secret|passw(or)?d|passphrase|api[-_]?key|access[-_]?key|private[-_]?key|credential|signature|session[-_]?id"
    r"|csrf|xsrf|(^|[-_])(auth|jwt|otp|pwd|sid|sig)($|[-_])|^(key|pass)$",
    re.IGNORECASE,
)
"""Names of fields, parameters and members whose values are secrets."""

_HARMLESS = re.compile(r"access-control-|sec-|www-|proxy-authenticate", re.IGNORECASE)
"""How names of fields begin that look like those of secrets, and say nothing."""

_AUTHORIZATIONS = frozenset(("authorization", "proxy-authorization"))
_URLS = frozenset(("referer", "location", "content-location", "x-original-url", "x-rewrite-url"))

_COOKIE = re.compile(r"([^=;\s]+)=([^;]*)")
_PARAMETER = re.compile(r"(^|[?&#;])([^=&#;?]+)=([^&#;]*)")
_USER_INFO = re.compile(r"^([a-z]+://)[^/?#@]+@", re.IGNORECASE)
_MEMBER = re.compile(r'("((?:[^"\\]|\\.)*+)"\s*:\s*")((?:[^"\\]|\\.)*+)("?)', re.DOTALL)
_PART = re.compile(r'(\bname="([^"\r\n]*)"[^\r\n]*(?:\r\n[^\r\n]+)*\r\n\r\n)(.*?)(?=\r\n--|\Z)', re.DOTALL)


@lru_cache(maxsize=1024)  # one body brings the same few names again and again
def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None


class Veil:
    """Hides what it is shown, and counts.

    :param lifted: it hides nothing.
    """

    def __init__(self, *, lifted: bool) -> None:
        self._lifted = lifted
        self.hidden = 0

    def field(self, name: str, value: str) -> str:
        """The value of a field of a head. A cookie's name and an authorization's scheme are no secrets."""
        key = name.lower()
        if self._lifted:
            return value
        if key in _AUTHORIZATIONS:
            scheme, blank, _ = value.partition(" ")
            return self._hide(value, f"{scheme} " if blank else "")
        if key == "cookie":
            return _COOKIE.sub(lambda found: f"{found[1]}={self._hide(found[2])}", value)
        if key == "set-cookie":
            return _COOKIE.sub(lambda found: f"{found[1]}={self._hide(found[2])}", value, count=1)
        if key in _URLS:
            return self.url(value)
        if _is_secret(key) and not _HARMLESS.match(key):
            return self._hide(value)
        return value

    def url(self, text: str) -> str:
        """A URL, or a path with its query."""
        if self._lifted:
            return text
        text = _USER_INFO.sub(lambda found: f"{found[1]}{self._hide(found[0])}@", text)
        start = min((at for at in (text.find("?"), text.find("#")) if at >= 0), default=len(text))
        return text[:start] + _PARAMETER.sub(self._parameter, text[start:])

    def body(self, body: bytes, content_type: str) -> bytes:
        """A body that nothing encodes: the values of forms and of JSON."""
        kind = content_type.partition(";")[0].strip().lower()
        if self._lifted or not body:
            return body
        text = body.decode("latin-1")
        if kind == "application/x-www-form-urlencoded":
            text = _PARAMETER.sub(self._parameter, text)
        elif kind == "multipart/form-data":
            text = _PART.sub(self._part, text)
        elif kind.endswith("json"):
            text = _MEMBER.sub(self._member, text)
        else:
            return body
        return text.encode("latin-1")

    def _parameter(self, found: re.Match[str]) -> str:
        before, name, value = found.groups()
        shown = self._hide(value) if _is_secret(unquote_plus(name)) else value
        return f"{before}{name}={shown}"

    def _part(self, found: re.Match[str]) -> str:
        head, name, value = found.groups()
        return head + (self._hide(value) if _is_secret(name) else value)

    def _member(self, found: re.Match[str]) -> str:
        if not _is_secret(found[2]):
            return found[0]
        return f"{found[1]}{self._hide(found[3])}{found[4]}"

    def _hide(self, value: str, before: str = "") -> str:
        if not value:
            return value
        self.hidden += 1
        return f"{before}{HIDDEN}"
