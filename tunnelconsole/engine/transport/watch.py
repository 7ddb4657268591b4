"""Watching a descriptor for input, on any loop, until told to stop.

libuv stops watching for good with a descriptor's first POLLERR, after one last call (``uv__poll_io``), and uvloop tells
nobody. A socket reports POLLERR once its peer has reset it, and still holds what came before the reset: whoever did not
take all of that, and the error behind it, with the last call would wait for ever. So the loop is given a callable that
nobody else keeps; when it dies unasked, the loop has let go of the descriptor, and is made to watch it again.

A descriptor that cannot be watched, because somebody closed it, is given up at once: trying again would be for ever.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial


class InputWatch:
    """Calls ``readable`` whenever ``descriptor`` has input, its end or an error to read.

    :param descriptor: must be open from :meth:`start` to :meth:`stop`.
    """

    __slots__ = ("_descriptor", "_held", "_loop", "_readable", "active")

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, readable: Callable[[], None]) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._readable = readable
        self._held: weakref.ref[Callable[[], None]] | None = None
        self.active = False
        """Whether it watches; set by :meth:`start` and :meth:`stop`."""

    def start(self) -> None:
        """Watches from now on, in place of any other reader of the descriptor; does nothing when it does already.

        :raises OSError: the descriptor cannot be watched.
        """
        if not self.active:
            self._watch()
            self.active = True

    def stop(self) -> None:
        """Watches no more; does nothing when it does not."""
        if self.active:
            self.active = False
            self._held = None
            self._loop.remove_reader(self._descriptor)

    def hand_over(self) -> None:
        """Watches no more, but lets the loop go on: for whoever starts a watch of their own at once, and so cheaper."""
        self.active = False
        self._held = None

    def _watch(self) -> None:
        call = partial(self._readable)
        self._loop.add_reader(self._descriptor, call)
        self._held = weakref.ref(call, self._let_go)  # not before: one that the loop did not take dies here

    def _let_go(self, _: object) -> None:
        if self.active and not self._loop.is_closed():
            self._loop.call_soon(self._watch_again)

    def _watch_again(self) -> None:
        """:raises OSError: the descriptor cannot be watched; it is not tried again, and its owner has been called."""
        if not self.active:
            return
        self._held = None
        self._loop.remove_reader(self._descriptor)
        try:
            self._watch()
        except OSError:
            self.active = False
            self._readable()  # whoever reads now is told the same, and need not wait for what never comes
            raise
