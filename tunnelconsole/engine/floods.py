"""Floods: what strangers can cause as often as they like is told one by one at first, and then counted.

An address that tries one secret after the other is told of a few times, enough for a program that bans addresses by the
log; what it does beyond that comes as a count when :data:`INTERVAL` is over. So a flood pushes nothing else out of what
is kept, and every occurrence is in exactly one of the two.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

INTERVAL = 10.0
"""Seconds for which occurrences are counted: soon enough to be news, and a line in so many seconds can be read."""

TOLD_EACH = 5
"""Times that one address is told of at once in an interval, for each reason: what fail2ban wants to see by default."""

TOLD_AT_ONCE = 100
"""Times that a service tells of at once in an interval, whoever they are: many addresses are a flood too."""

NAMED = 10
"""Counts that a service tells by address and reason after an interval, the highest; the others come as one."""

MAX_TALLIES = 1000
"""Counts that are kept apart for a service in an interval, some 200 kB at the most; beyond that they are one."""

LONGEST_KIND = 80
"""Characters of a reason that tell it from another."""

OTHERS = "others"
"""Stands for addresses that are not named."""

VARIOUS = "various reasons"
"""Stands for reasons that are not named."""

_DIGITS = re.compile(r"\d+")


class Sort(NamedTuple):
    """What floods are kept apart by."""

    service: str
    type: str
    """The type of the event."""


class Cause(NamedTuple):
    """Who brought about what, as far as occurrences are alike."""

    who: str
    """An address without its port, which is another one each time."""
    why: str


class Tally(NamedTuple):
    """How often something happened beyond what was told at once."""

    sort: Sort
    cause: Cause
    times: int


class Flood:
    """The occurrences of one sort within one interval."""

    def __init__(self) -> None:
        self._told = 0
        self._seen: Counter[Cause] = Counter()
        self._untold: Counter[Cause] = Counter()
        self._reasons: dict[Cause, str] = {}
        self._unnamed = 0

    def admits(self, cause: Cause) -> bool:
        """Whether this occurrence is told at once; otherwise it is counted."""
        alike = cause._replace(why=_DIGITS.sub("#", cause.why[:LONGEST_KIND]))
        if alike not in self._seen and len(self._seen) >= MAX_TALLIES:
            self._unnamed += 1
            return False
        self._seen[alike] += 1
        if self._seen[alike] <= TOLD_EACH and self._told < TOLD_AT_ONCE:
            self._told += 1
            return True
        self._untold[alike] += 1
        self._reasons[alike] = cause.why
        return False

    def tallies(self, sort: Sort) -> list[Tally]:
        """What was not told: the highest counts by cause, then all others as one."""
        counted = self._untold.most_common()
        named, rest = counted[:NAMED], counted[NAMED:]
        found = [Tally(sort, cause._replace(why=self._reasons[cause]), count) for cause, count in named]
        others = self._unnamed + sum(count for _, count in rest)
        if others:
            kinds = {cause.why for cause, _ in rest} if not self._unnamed else set()
            why = self._reasons[rest[0][0]] if len(kinds) == 1 else VARIOUS
            found.append(Tally(sort, Cause(OTHERS, why), others))
        return found


class Floods:
    """The occurrences of all sorts within one interval, which begins with the first."""

    def __init__(self) -> None:
        self._floods: dict[Sort, Flood] = {}
        self._since = 0.0

    def admits(self, sort: Sort, cause: Cause, now: float) -> bool:
        """Whether this occurrence is told at once; otherwise it is counted.

        :param now: seconds of a clock that never goes back.
        """
        if not self._floods:
            self._since = now
        return self._floods.setdefault(sort, Flood()).admits(cause)

    def over(self, now: float, *, early: bool = False) -> tuple[list[Tally], float]:
        """What was counted in the interval, and its seconds; nothing while it is not over, unless ``early``."""
        seconds = now - self._since
        if not self._floods or (seconds < INTERVAL and not early):
            return [], 0.0
        floods, self._floods = self._floods, {}
        return [tally for sort, flood in floods.items() for tally in flood.tallies(sort)], seconds
