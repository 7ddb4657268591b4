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
    "banned": r"banned",
    "address": r"clients_allow|clients_deny|used from (its|this) address",
    "limit": r"limit of|too many|too much|takes no|no more (streams|visitors)|is full|seats already|attached already|"
    r"given to others|are open in|things a second|quota|used up|read nothing|too far behind",
    "not_allowed": r"not allowed|may not|must not|may be dialled|reserved|is taken|exists already|forbidden|"
    r"not permitted|denied|is for the user|no right|only look|is not for|(?<!before it )asked for|no console",
    "credentials": r"secret|password|token|wrong answer|one-time code|^a wrong|its key (belongs|opens|has|is)|"
    r"none of its keys|no key (was|in)|the key of|more than \d+ keys|signature|of another room|certificate of",
    "timeout": r"within [\d.]+ s|in time|took longer|has waited",
    "tls": r"\bTLS\b|HTTPS",
    "left": r"broke off|broken off|\bbroke\b|left (before|during)|has just left|(it|client|server|relay|end) closed|"
    r"closed (before|without)|ended (before|meanwhile)|connection (was )?lost|\breset\b(?!s)|nothing heard",
    "protocol": r"protocol|yamux|HTTP|SOCKS|JSON|PROXY|CONNECT|coding|chunk|Content-Length|wants? |greet|"
    r"\bline\b|\bhead\b|\bfields?\b|\brequest\b|\bversion\b|\brecords?\b|\bframe\b|\bbegins?\b|\bbytes\b|speaks|spoke|"
    r"digits|unusable|answered|said (some|what)|sent (an|more|status)|something else|handshake|\bHost\b|"
    r"none of its meanings|is sealed",
}

_FAILED: Final = {
    "not_allowed": r"not allowed|may not|denied|not permitted|forbidden",
    "refused": r"refused|refuses",
    "timeout": r"timed out|within [\d.]+ s|in time|took longer|timeout",
    "unreachable": r"unreachable|no route|network is down|host is down",
    "name": r"no such host|not known|name|resolve|look(ed)? ?up|address associated",
}

REFUSAL_REASONS: Final = (*_REFUSED, "rate", OTHER)
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
