"""Reasons as labels: the sentences that events give for a refusal are many, and hold addresses, names and numbers.

A label's values must be few and none of a stranger's making. So each sentence is put under one of a fixed set of words;
what none of them fits is ``other``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

LONGEST_LOOKED_AT: Final = 160
"""Characters of a sentence that are looked at: ours say what it is about well before, and then quote others."""

OTHER: Final = "other"
"""A reason of no known sort."""

_REFUSED: Final = {
    "credentials": r"secret|password|token|wrong answer|\bcode\b|\bits key|none of its keys|the key of|than \d+ keys|"
    r"signature|another room|client certificate|identity",
    "banned": r"banned",
    "address": r"clients_allow|clients_deny|from this address|its address is (?!given)",
    "limit": r"limit of|too many|too much|more than \d+ bytes a|takes no|no more (streams|visitors)|is full|"
    r"seats already|attached already|given to others|are open in|things a second|quota|read nothing",
    "timeout": r"within [\d.]+ s|in time|took longer|has waited",
    "tls": r"\bTLS\b|HTTPS",
    "left": r"broke off|broken off|left (before|during)|(closed|ended) (before|a data)|connection (was )?lost|reset by",
    "not_allowed": r"not allowed|may not|must not|reserved|is taken|forbidden|not permitted|denied|is for the user|"
    r"no right|only look|not open to",
    "protocol": r"protocol|yamux|HTTP|SOCKS|JSON|\bline\b|\bhead\b|\bfields?\b|\brequest\b|\bversion\b|\brecord\b|"
    r"\bframe\b|\bbegins?\b|\bbytes\b|speaks|spoke|answered|something else|handshake|\bHost\b|none of its meanings",
}

_FAILED: Final = {
    "not_allowed": r"not allowed|may not|denied|not permitted|forbidden",
    "refused": r"refused|refuses",
    "timeout": r"timed out|within [\d.]+ s|in time|took longer|timeout",
    "unreachable": r"unreachable|no route|network is down|host is down",
    "name": r"no such host|not known|name|resolve|look(ed)? ?up|address associated",
}

REFUSAL_REASONS: Final = (*_REFUSED, OTHER)
"""Why somebody was turned away, as labels say it."""

FAILURE_REASONS: Final = (*_FAILED, OTHER)
"""Why a target was not reached, as labels say it."""


def _compiled(words: dict[str, str]) -> list[tuple[str, re.Pattern[str]]]:
    return [(word, re.compile(pattern)) for word, pattern in words.items()]


_REFUSED_BY, _FAILED_BY = _compiled(_REFUSED), _compiled({key: f"(?i:{text})" for key, text in _FAILED.items()})


# Who comes again and again is turned away for the same few reasons; each has a bound, and so has what is remembered.
@lru_cache(maxsize=512)
def _sort(sentence: str, *, failure: bool) -> str:
    for word, pattern in _FAILED_BY if failure else _REFUSED_BY:
        if pattern.search(sentence):
            return word
    return OTHER


def refusal(sentence: str) -> str:
    """The word for why somebody was turned away, one of :data:`REFUSAL_REASONS`."""
    return _sort(sentence[:LONGEST_LOOKED_AT], failure=False)


def failure(sentence: str) -> str:
    """The word for why a target was not reached, one of :data:`FAILURE_REASONS`."""
    return _sort(sentence[:LONGEST_LOOKED_AT], failure=True)
