"""Secrets in cookies, in queries and forms, and in the parts of a form with files."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote_plus, unquote_plus

from tunnelconsole.control.hiding.names import Hider, is_secret, names_secret

_USER_INFO = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#@]+@", re.IGNORECASE)
_PATH_PARAMETER = re.compile(r"(?<=[/;])([^=/;]+)=([^/;]+)")
_PARAMETERS = re.compile(r"([&?#]+)")
_NAME = re.compile(r'(?:^|[;\s])name\*?\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))', re.IGNORECASE)
_BOUNDARY = re.compile(r'\bboundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)


def cookies(text: str, hider: Hider, *, first: bool = False) -> str:
    """The cookies of a ``Cookie``, or with ``first`` the one of a ``Set-Cookie`` before its attributes."""
    pieces = text.split(";")
    for number, piece in enumerate(pieces[:1] if first else pieces):
        name, equals, value = piece.partition("=")
        bare = name.strip()
        if equals:
            pieces[number] = f"{name}={hider.hide(value)}"
        elif bare:  # the end of one with a semicolon in it, or one that has no name
            pieces[number] = name.replace(bare, hider.hide(bare))
    return ";".join(pieces)


def parameters(text: str, hider: Hider) -> str:
    """A form, or a query with what follows it. A ``;`` may part two parameters, or stand in a value."""
    pieces = _PARAMETERS.split(text)
    pieces[::2] = [_parameter(piece, hider) for piece in pieces[::2]]
    return "".join(pieces)


def form(text: str, hider: Hider) -> str:
    """A form, in which ``?`` and ``#`` are letters as any others."""
    return "&".join(_parameter(piece, hider) for piece in text.split("&"))


def _parameter(text: str, hider: Hider) -> str:
    """What stands between two ``&``; from the first secret on all of it may be one."""
    shown: list[str] = []
    pieces = text.split(";")
    for number, piece in enumerate(pieces):
        name, equals, value = piece.partition("=")
        if equals and names_secret(unquote_plus(name), value):
            rest = ";".join([value, *pieces[number + 1 :]])
            return ";".join([*shown, f"{name}={hider.hide(rest)}"])
        plain = unquote_plus(value)
        inner = hider.inner(plain)
        shown.append(piece if inner == plain else f"{name}={quote_plus(inner, safe='[]')}")
    return ";".join(shown)


def url(text: str, hider: Hider) -> str:
    """A URL, or a path with its query."""
    text = _USER_INFO.sub(lambda found: f"{found[1]}{hider.hide(found[0])}@", text)
    start = min((at for at in (text.find("?"), text.find("#")) if at >= 0), default=len(text))

    def parameter(found: re.Match[str]) -> str:
        if not names_secret(unquote_plus(found[1]), found[2]):
            return found[0]
        return f"{found[1]}={hider.hide(found[2])}"

    return _PATH_PARAMETER.sub(parameter, text[:start]) + parameters(text[start:], hider)


def parts(body: bytes, content_type: str, hider: Hider, look: Callable[[bytes, str], bytes]) -> bytes:
    """The parts of a body of ``multipart/*``.

    :param look: into a part that is no secret by its name; told its type.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        return hider.hide(body.decode("latin-1")).encode()
    mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    first, *pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    shown = [first and hider.hide(first.decode("latin-1")).encode()]
    for piece in pieces:
        head, blank, content = piece.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        name = _NAME.search(text.partition(":")[2] if "name" in text.lower() else "")
        if name is not None and is_secret(unquote_plus(name[1] or name[2] or "")):
            content = hider.hide(content.decode("latin-1")).encode()
        elif content:
            content = look(content, _field(text, "content-type"))
        shown.append(head + blank + content)
    return (b"\r\n" + mark).join(shown)[2:]


def _field(head: str, name: str) -> str:
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return "text/plain"
