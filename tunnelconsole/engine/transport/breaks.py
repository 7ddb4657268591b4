"""Watching connections that nobody reads any more for the moment when they break."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import sys
from collections.abc import Callable


class BreakWatch:
    """Tells which connections have broken, of those whose far side has sent its end.

    Such a descriptor is readable for ever, so that a loop cannot wait for what comes after. A set of epoll's own can:
    it tells of errors whatever it is asked for (epoll_ctl(2)). Where there is none, only the next write shows them.
    """

    __slots__ = ("_broken", "_loop", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set: select.epoll | None = None
        """There while something is watched: a descriptor."""
        self._broken: dict[int, Callable[[OSError], None]] = {}

    def add(self, descriptor: int, broken: Callable[[OSError], None]) -> None:
        """Watches ``descriptor``, a socket's, until :meth:`remove`; calls ``broken``, once, with what broke it."""
        if sys.platform != "linux":
            return
        try:
            if self._set is None:
                self._set = select.epoll()
                self._loop.add_reader(self._set.fileno(), self._look)
            self._set.register(descriptor, 0)
        except OSError:
            return  # out of descriptors, or of what the kernel allows for this: the next write shows it
        self._broken[descriptor] = broken

    def remove(self, descriptor: int) -> None:
        """Watches ``descriptor`` no more; to be called before it is closed. Does nothing when it is not watched."""
        if self._broken.pop(descriptor, None) is None or self._set is None:
            return
        self._set.unregister(descriptor)
        if not self._broken:
            self._loop.remove_reader(self._set.fileno())
            self._set.close()
            self._set = None

    def _look(self) -> None:
        if self._set is None:
            return
        for descriptor, _ in self._set.poll(0):
            broken = self._broken.get(descriptor)
            if broken is not None:  # or it was removed while others were told
                error = error_of(descriptor)
                self.remove(descriptor)
                broken(error)


def error_of(descriptor: int) -> OSError:
    """What broke the connection of a socket, which then counts as told."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(code, os.strerror(code)) if code else ConnectionResetError(errno.ECONNRESET, "connection reset")
