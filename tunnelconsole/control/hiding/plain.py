"""Secrets in text of no particular form: what is written behind a name, and what is a secret by its look."""

from __future__ import annotations

import re
from typing import Final

from tunnelconsole.control.hiding.names import Hider, names_secret

_LOOKS = (
    r"(?P<key>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))"
    r"|(?P<jwt>\beyJ[\w-]{8,}+\.[\w-]++\.?[\w-]*+)"
    r"|(?P<bearer>\bBearer[ ]+)(?P<borne>[\w.~+/=-]{6,}+)"
)
"""A private key in PEM, a JSON web token (RFC 7519), and what bears one (RFC 6750)."""

_LOOK = re.compile(_LOOKS, re.DOTALL)

_QUOTED = r"""(?:"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?|`(?:[^`\\\n]|\\.)*+`?)"""

_NAMED = (
    r"""|(?P<head>\b(?:proxy-)?authorization|\b(?:set-)?cookie)(?P<is>["']?\s*[:=]\s*["']?)(?P<all>[^\r\n"'<>]++)"""
    r"""|(?P<line>^[ \t-]*+(?:export[ ]|set[ ])?)?(?<![\w.\[\]-])(?P<name>[\w.\[\]-]{1,128}+)"""
    r"""(?P<sep>["'\]]*+[ \t]*+(?:=>?|:)[ \t]*+)"""
)

_ANY: Final = re.compile(
    _LOOKS + _NAMED + rf"(?:(?P<quoted>{_QUOTED})|(?P<bare>[^\s\"'`&;,<>{{}}()\[\]]++))",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
_PROGRAM: Final = re.compile(
    _LOOKS + _NAMED + rf"(?P<quoted>{_QUOTED})(?P<bare>(?!))?", re.DOTALL | re.IGNORECASE | re.MULTILINE
)

_REST_OF_LINE = re.compile(r"[^\r\n&\"'<>]*")


def by_look(text: str, hider: Hider) -> str:
    """Hides what is a secret whatever it is called."""
    return _LOOK.sub(lambda found: (found["bearer"] or "") + hider.hide(found[0]), text)


def plain_text(text: str, hider: Hider, *, quoted: bool) -> str:
    """Hides that, and what stands behind the name of a secret and ``=`` or ``:``.

    Behind a name with which a line begins the whole line is the value, unless that stands in quotes.

    :param quoted: only what stands in quotes is a value, as in a program.
    """
    pattern = _PROGRAM if quoted else _ANY
    shown: list[str] = []
    at = 0
    while (found := pattern.search(text, at)) is not None:
        shown.append(text[at : found.start()])
        at = found.end()
        if found["name"] is None:
            before = found["bearer"] or (found["head"] and found["head"] + found["is"]) or ""
            shown.append(before + hider.hide(found[0]))
            continue
        value = found["quoted"] or found["bare"]
        bare = value.strip("\"'`")
        if not names_secret(found["name"], bare) or not bare:
            at = found.start("quoted") if found["quoted"] else found.start("bare")
            shown.append(text[found.start() : at])
            if found["quoted"]:  # what it says may be looked into as well
                shown.append(value[0])
                at += 1
            continue
        shown.append(text[found.start() : found.end("sep")])
        if found["quoted"]:
            mark = value[0]
            shown.append(f"{mark}{hider.hide(bare)}{mark if value.endswith(mark) and len(value) > 1 else ''}")
        else:
            if found["line"] is not None and (rest := _REST_OF_LINE.match(text, at)):
                at = rest.end()
            shown.append(hider.hide(value))
    shown.append(text[at:])
    return "".join(shown)
