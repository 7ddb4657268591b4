"""Where tasks start: each has a name and an owner that keeps it, reports its failure and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

FailureReport = Callable[[str, BaseException], None]
"""Called with a task's name and the exception that ended it."""


class Tasks:
    """The tasks of one owner.

    A task that fails is reported once, through ``report``, and never ends another.

    :param owner: a word that begins every task's name, such as ``service home``.
    :param report: told of each task that ended with an exception other than cancellation.
    """

    def __init__(self, owner: str, report: FailureReport) -> None:
        self._owner = owner
        self._report = report
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Starts ``coroutine`` as a task of this owner on the running loop."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self._owner}: {name}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._report(task.get_name(), error)

    async def close(self) -> None:
        """Cancels every task of this owner, except the caller, and waits until they have ended."""
        current = asyncio.current_task()
        ending = [task for task in self._running if task is not current]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
