"""How fast somebody may begin to log in: a key exchange costs a millisecond of the engine, and a stranger nothing.

Who comes too fast waits, without a word from us. Who logs in has what it took given back, so that operators never
wait, however many come at once; guessers and scanners do (CVE-2002-20001).
"""

from __future__ import annotations

import time
from collections.abc import Callable

AT_ONCE = 20.0
"""Logins that a source may begin at once: a team behind one address."""

PER_SECOND = 5.0
"""Logins that it may begin each second beyond those: half a percent of a core. ssh-audit takes 20 for safe."""

REMEMBERED = 4096
"""Sources after which those are forgotten who have waited long enough."""


class Throttle:
    """Counts who begins to log in.

    :param clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}
        """When each source has nothing on its account any more."""

    def begin(self, source: str) -> float:
        """Charges a source for one login; returns the seconds that it has to wait before that."""
        now = self._clock()
        if len(self._due) >= REMEMBERED:
            self._due = {each: due for each, due in self._due.items() if due > now}
        due = self._due[source] = max(now, self._due.get(source, now)) + 1 / PER_SECOND
        return max(0.0, due - now - AT_ONCE / PER_SECOND)

    def give_back(self, source: str) -> None:
        """Takes one login off the account of a source, because somebody has logged in."""
        if source in self._due:
            self._due[source] -= 1 / PER_SECOND
