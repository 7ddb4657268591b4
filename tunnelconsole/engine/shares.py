"""What each address and each identity has of a service: sessions, channels and a rate, so that none takes all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from weakref import WeakValueDictionary

from tunnelconsole.engine.transport.pacing import Pace


class Shares:
    """Counts what each of many has, and gives each a rate of its own.

    Nothing is remembered of those who have nothing.

    :param noun: what they are, for people: ``address``.
    :param sessions: at once for each; 0 for as many as come.
    :param channels: at once for each; 0 for as many as come.
    :param rate: bytes per second for each, both ways together; None for no limit.
    """

    def __init__(self, noun: str, sessions: int, channels: int, rate: float | None) -> None:
        self._noun = noun
        self._most_sessions = sessions
        self._most_channels = channels
        self._rate = rate
        self._sessions: Counter[Hashable] = Counter()
        self._channels: Counter[Hashable] = Counter()
        self._paces: WeakValueDictionary[Hashable, Pace] = WeakValueDictionary()
        """The flows of each hold its pace."""

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
        if self._rate is None:
            return None
        pace = self._paces.get(who)
        if pace is None:
            pace = self._paces[who] = Pace(self._rate)
        return pace

    def count_sessions(self, who: Hashable, more: int) -> None:
        """``who`` has one session more (1) or less (-1)."""
        _count(self._sessions, who, more)

    def count_channels(self, who: Hashable, more: int) -> None:
        """``who`` has one channel more (1) or less (-1)."""
        _count(self._channels, who, more)


def _count(counts: Counter[Hashable], who: Hashable, more: int) -> None:
    counts[who] += more
    if not counts[who]:
        del counts[who]
