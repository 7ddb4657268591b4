"""How fast somebody may begin to log in: a key exchange costs a millisecond of the engine, and a stranger nothing.

Who comes too fast waits, without a word from us, and who would wait too long is turned away; so guessers and scanners
get no further (CVE-2002-20001), and when they have left, their address pays for it for some seconds and no longer. Who
logs in has what it took given back: operators wait only where more of them are logging in at once than a source may.
"""

from __future__ import annotations

import time
from collections.abc import Callable

AT_ONCE = 20.0
"""Logins that a source may begin at once: a team behind one address."""

PER_SECOND = 5.0
"""Logins that it may begin each second beyond those: half a percent of a core. ssh-audit takes 20 for safe."""

LONGEST_WAIT = 5.0
"""Seconds that somebody waits at the most before its login begins: half of what clients often give it all."""

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

    def begin(self, source: str) -> float | None:
        """Charges a source for one login; returns the seconds that it has to wait before that.

        None where those would be more than :data:`LONGEST_WAIT`; then it is not charged, and is to be turned away.
        """
        now = self._clock()
        if len(self._due) >= REMEMBERED:
            self._due = {each: due for each, due in self._due.items() if due > now}
        due = max(now, self._due.get(source, now)) + 1 / PER_SECOND
        wait = max(0.0, due - now - AT_ONCE / PER_SECOND)
        if wait > LONGEST_WAIT:
            return None
        self._due[source] = due
        return wait

    def give_back(self, source: str) -> None:
        """Takes one login off the account of a source, because somebody has logged in."""
        if source in self._due:
            self._due[source] -= 1 / PER_SECOND
