"""What each address and each identity has of a service: sessions, channels and a rate, so that none takes all."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from tunnelconsole.engine.transport.pacing import Pace

REMEMBERED: Final = 60.0
"""Seconds for which a rate is remembered after it was last asked for, or let go of, though nobody is held to it: who
came anew for each request would have all that may go at once each time. After that it has long been made up for."""

MAX_REMEMBERED: Final = 10_000
"""Rates remembered so, some 4 MB at the most; beyond that those that were asked for the longest ago are forgotten."""

T = TypeVar("T")


class Lately(Generic[T]):
    """What each of many is held to: the same for all who hold it, and for who asks soon after them.

    Who lets go of it after a long time asks once more, so that it is remembered from then on.

    :param make: makes a new one.
    :param clock: seconds that never go back.
    """

    def __init__(self, make: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._held: WeakValueDictionary[Hashable, T] = WeakValueDictionary()
        self._lately: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        """With when it was asked for; the last comes last."""

    def __len__(self) -> int:
        return len(self._held)

    def of(self, who: Hashable) -> T:
        """What ``who`` is held to."""
        now, found = self._clock(), self._held.get(who)
        if found is None:
            found = self._held[who] = self._make()
        self._lately[who] = (now, found)
        self._lately.move_to_end(who)
        for _ in range(2):  # more leave than come, and a crowd that has left costs nobody much
            oldest, (asked, _kept) = next(iter(self._lately.items()))
            if asked + REMEMBERED <= now or len(self._lately) > MAX_REMEMBERED:
                del self._lately[oldest]
        return found


class Shares:
    """Counts what each of many has, and gives each a rate of its own.

    :param noun: what they are, for people: ``address``.
    :param sessions: at once for each; 0 for as many as come.
    :param channels: at once for each; 0 for as many as come.
    :param rate: bytes per second for each, both ways together; None for no limit.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        noun: str,
        sessions: int,
        channels: int,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._noun = noun
        self._most_sessions = sessions
        self._most_channels = channels
        self._rate = rate
        self._sessions: Counter[Hashable] = Counter()
        self._channels: Counter[Hashable] = Counter()
        self._paces = Lately(lambda: Pace(rate), clock) if rate is not None else None

    @property
    def limited(self) -> bool:
        """Whether there is any limit, so that there is something to count."""
        return bool(self._most_sessions or self._most_channels or self._rate)

    def refuses(self, who: Hashable, *, new_session: bool, new_channel: bool) -> str:
        """Why ``who`` can have no further session or channel now; "" when it can."""
        if new_session and self._most_sessions and self._sessions[who] >= self._most_sessions:
            return f"the limit of {self._most_sessions} sessions for each {self._noun} is reached"
        if new_channel and self._most_channels and self._channels[who] >= self._most_channels:
            return f"the limit of {self._most_channels} channels for each {self._noun} is reached"
        return ""

    def pace(self, who: Hashable) -> Pace | None:
        """What all flows of ``who`` keep to together; None for no limit."""
        return self._paces.of(who) if self._paces is not None else None

    def count_sessions(self, who: Hashable, more: int) -> None:
        """``who`` has one session more (1) or less (-1)."""
        _count(self._sessions, who, more)
        self._let_go(who, more)

    def count_channels(self, who: Hashable, more: int) -> None:
        """``who`` has one channel more (1) or less (-1)."""
        _count(self._channels, who, more)
        self._let_go(who, more)

    def _let_go(self, who: Hashable, more: int) -> None:
        if more < 0 and self._paces is not None:
            self._paces.of(who)


def _count(counts: Counter[Hashable], who: Hashable, more: int) -> None:
    counts[who] += more
    if not counts[who]:
        del counts[who]
