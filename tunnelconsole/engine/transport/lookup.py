"""Looking names up: the system's resolver can only be waited for, so threads of its own do that.

Neither loop has such threads. asyncio's are those in which files are read too, and of uvloop's only two may look names
up at a time; either way a name server that does not answer would hold up much more than those who ask for it. These
threads are daemons, because a program that ends has no use for an answer: one may take half a minute to fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LOOKUPS_AT_ONCE: Final = 32
"""Names looked up at once, each by a thread that only waits: a resolver without an answer holds one for 10 s by default
(``resolv.conf``: 5 s, two attempts). Those who wait for a thread are bounded by their own time to wait."""

Found = Sequence[tuple[int, tuple[object, ...]]]
"""Families and addresses, as :mod:`socket` takes them."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What somebody on ``loop`` wants to know."""

    host: str
    port: int
    flags: int
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Found]

    def ask(self) -> None:
        """Asks the resolver, unless nobody waits any more; on a thread."""
        if self.answer.cancelled():
            return
        found: Found = ()
        failure: Exception | None = None
        try:
            entries = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=self.flags)
            found = [(family, address) for family, _, _, _, address in entries]
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, found, failure)

    def _settle(self, found: Found, failure: Exception | None) -> None:
        if self.answer.done():
            return  # given up meanwhile
        if failure is None:
            self.answer.set_result(found)
        else:
            self.answer.set_exception(failure)


class Lookups:
    """The threads that look names up, for every loop of the process; started as they are needed, and kept.

    :param threads: how many there are at the most.
    """

    def __init__(self, threads: int = LOOKUPS_AT_ONCE) -> None:
        self._most = threads
        self._threads = 0
        self._unanswered = 0
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()

    async def find(self, host: str, port: int, flags: int = 0) -> Found:
        """The addresses of ``host`` for TCP, in the system's order of preference.

        :param flags: of :func:`socket.getaddrinfo`.
        :raises OSError: there are none, or the resolver does not know.
        :raises UnicodeError: it is no host name.
        """
        loop = asyncio.get_running_loop()
        question = _Question(host, port, flags, loop, loop.create_future())
        with self._lock:
            self._unanswered += 1
            starts = self._threads < min(self._unanswered, self._most)
            self._threads += starts
        self._questions.put(question)
        if starts:
            threading.Thread(target=self._serve, name="lookup", daemon=True).start()
        return await question.answer

    def _serve(self) -> None:
        while True:
            self._questions.get().ask()
            with self._lock:
                self._unanswered -= 1


LOOKUPS: Final = Lookups()
"""Those of this process: how many lookups the system's resolver bears does not depend on who asks."""
