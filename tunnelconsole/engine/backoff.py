"""How long to wait before trying again."""

from __future__ import annotations

import random

FIRST_DELAY = 1.0
"""Seconds before the first new try."""

LONGEST_DELAY = 30.0
"""Seconds between two tries at the most: an operator who mends the cause sees it work within half a minute."""

LONGEST_DELAY_FOR_A_PLACE = 5.0
"""Seconds between two tries at the most where somebody else has our place: it is to be ours soon after it is free."""

JITTER = 0.25
"""Share by which a delay is varied up or down, so that many clients of one server do not come back as one."""

STABLE_AFTER = 60.0
"""Seconds of good work after which earlier failures are forgotten."""


class Backoff:
    """Delays of 1 s, doubling to 30 s, each varied by a quarter."""

    def __init__(self) -> None:
        self._delay = FIRST_DELAY

    def next(self, longest: float = LONGEST_DELAY) -> float:
        """Seconds to wait now; ``longest`` at the most."""
        delay = min(longest, self._delay)
        self._delay = min(LONGEST_DELAY, self._delay * 2)
        return min(longest, delay * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - no secret

    def worked_for(self, seconds: float) -> None:
        """Starts over at the first delay when that was a stable time."""
        if seconds >= STABLE_AFTER:
            self._delay = FIRST_DELAY
