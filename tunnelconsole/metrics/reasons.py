"""Why targets were not reached, as labels: the sentences that events give for it are many, and hold addresses.

A label's values must be few and none of a stranger's making. So each sentence is put under one of a fixed set of words;
what none of them fits is ``other``. Refusals have such a word of their own, see :mod:`tunnelconsole.engine.refusals`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

LONGEST_LOOKED_AT: Final = 160
"""Characters of a sentence that are looked at: ours say what it is about well before, and then quote others."""

OTHER: Final = "other"
"""A reason of no known sort."""

_WORDS: Final = {
    "not_allowed": r"not allowed|may not|denied|not permitted|forbidden",
    "refused": r"refused|refuses",
    "timeout": r"timed out|within [\d.]+ s|in time|took longer|timeout",
    "unreachable": r"unreachable|no route|network is down|host is down",
    "name": r"no such host|not known|name|resolve|look(ed)? ?up|address associated",
}

FAILURE_REASONS: Final = (*_WORDS, OTHER)
"""Why a target was not reached, as labels say it."""

_PATTERNS: Final = [(word, re.compile(pattern, re.IGNORECASE)) for word, pattern in _WORDS.items()]


# The same few targets fail again and again for the same reasons; each has a bound, and so has what is remembered.
@lru_cache(maxsize=512)
def _sort(sentence: str) -> str:
    return next((word for word, pattern in _PATTERNS if pattern.search(sentence)), OTHER)


def failure(sentence: str) -> str:
    """The word for why a target was not reached, one of :data:`FAILURE_REASONS`."""
    return _sort(sentence[:LONGEST_LOOKED_AT])
