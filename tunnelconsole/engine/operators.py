"""Whose processes on this machine do what somebody elsewhere says: the consoles and programs of operators over SSH.

The engine starts each of them itself, as the leader of a session of its own (setsid(2)). So the kernel's word on who is
at the other end of the control socket, a process's number, leads to the operator, whatever the process says.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

REMEMBERED: Final = 1000
"""Processes that have ended and are remembered: what one of them asked last may be read only after its end."""


class Ended(NamedTuple):
    """A process that has ended."""

    who: str
    time: float
    """Unix seconds."""


class Operators:
    """The processes that stand for somebody, by their number."""

    def __init__(self) -> None:
        self._running: dict[int, str] = {}
        self._ended: OrderedDict[int, Ended] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._running or self._ended)

    @contextmanager
    def behind(self, who: str) -> Iterator[Callable[[int], None]]:
        """Gives what is to be called with the number of a process that does what ``who`` says until the block's end."""
        started: list[int] = []

        def begin(pid: int) -> None:
            started.append(pid)
            self._running[pid] = who
            self._ended.pop(pid, None)

        try:
            yield begin
        finally:
            for pid in started:
                self._running.pop(pid, None)
                self._ended[pid] = Ended(who, time.time())
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)

    def running(self, pid: int) -> str:
        """Who is behind a process that runs; "" for nobody."""
        return self._running.get(pid, "")

    def ended(self, pid: int) -> Ended | None:
        """Who was behind a process that had this number and has ended."""
        return self._ended.get(pid)
