"""Patterns of public hostnames: what a service or a token allows."""

from __future__ import annotations

import fnmatch
import re
from typing import Final, Self

from tunnelconsole.engine.wire.http.head import MAX_HOST_NAME, HttpError, check_host

MAX_LABEL: Final = 63
"""Characters between two dots of a host (RFC 1035, section 2.3.4)."""

_PATTERN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._*?")
_ANY = re.compile(r"[*?]")


class HostPattern(str):
    """One entry of ``hosts_allow``, ``hosts_deny`` or ``reserved``: a name, ``*`` in it for any letters."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a pattern.

        :raises ValueError: it is none, or such as no host can ever match; the text says how one is written.
        """
        name = text.strip().lower().removesuffix(".")
        if not name or not set(name) <= _PATTERN_CHARACTERS:
            raise ValueError(
                f'"{text}" is not a host; write one as "app.example.com" or "*.example.com", without a port'
            )
        if reason := _never_matches(name):
            raise ValueError(f'"{text}" is not a host and names none: {reason}')
        return cls(name)

    def names(self, host: str) -> bool:
        """Whether ``host``, in lower case and without its port, is meant."""
        return fnmatch.fnmatchcase(host, self)


def _never_matches(name: str) -> str:
    """Why no host can match a pattern; "" when one may. See :func:`~tunnelconsole.engine.wire.http.head.check_host`."""
    if len(name.replace("*", "")) > MAX_HOST_NAME:
        return f"a host's name has at most {MAX_HOST_NAME} characters"
    for label in name.split("."):
        if not label:
            return "something must stand before, between and behind its dots"
        if label[0] in "-_" or label[-1] in "-_":
            return f'its part "{label}" begins or ends with a hyphen or an underscore'
        if len(label) > MAX_LABEL and not _ANY.search(label):
            return f'its part "{label}" has more than {MAX_LABEL} characters'
    try:
        if not _ANY.search(name):
            check_host(name)
    except HttpError:
        return "its last part is a number, and it is no IP address"
    return ""
