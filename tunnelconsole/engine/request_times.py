"""Requests through HTTP tunnels: how many there were, how they were answered, and how long they took."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds up to which a request counts in each bucket: those of Prometheus's own libraries, up to twice a request's
usual patience. What takes longer counts in one more."""

NO_ANSWER: Final = "none"
"""Stands for the status of a request whose visitor left before there was an answer."""


class Times:
    """Those of one service."""

    __slots__ = ("answers", "buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        """How many took up to each of :data:`BOUNDS` and longer than the one before; the last: longer than all."""
        self.seconds = 0.0
        """How long all of them together took."""
        self.answers: dict[str, int] = {}
        """How many were answered with which class of status, ``1xx`` to ``5xx``, or :data:`NO_ANSWER`."""


class RequestTimes:
    """Those of all services, by name, since somebody began to count."""

    def __init__(self) -> None:
        self.services: dict[str, Times] = {}

    def took(self, service: str, seconds: float, status: int) -> None:
        """Counts a request that is over.

        :param seconds: from its head to the end of its answer.
        :param status: of the answer; 0 where there was none.
        """
        times = self.services.get(service)
        if times is None:
            times = self.services[service] = Times()
        times.buckets[bisect_left(BOUNDS, seconds)] += 1
        times.seconds += seconds
        answer = f"{status // 100}xx" if 100 <= status <= 599 else NO_ANSWER
        times.answers[answer] = times.answers.get(answer, 0) + 1
