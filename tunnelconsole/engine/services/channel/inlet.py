"""What the channel server brings while nobody is there to take it: noticed, kept within a bound, or searched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.watch import InputWatch

Search = Callable[[bytearray], tuple[int, bool]]
"""Says how many bytes belong to nothing, and whether what follows them is worth taking."""


class Inlet:
    """Reads from ``hub`` until :meth:`take`, at most about one read ahead.

    :param ahead: what was read from it before.
    :param came: told once that there is something to take; never from within the constructor.
    :param lost: told once why nothing more will come; never from within the constructor.
    :param search: finds what is worth taking; what comes before it is thrown away.
    :param garbage: told each time that something was, and what.
    """

    __slots__ = (
        "_ahead",
        "_came",
        "_garbage",
        "_hub",
        "_input",
        "_loop",
        "_lost",
        "_search",
        "_start",
        "found",
        "over",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: End,
        ahead: bytes,
        came: Callable[[], None],
        lost: Callable[[str], None],
        *,
        search: Search | None = None,
        garbage: Callable[[bytes], None] | None = None,
    ) -> None:
        self._loop = loop
        self._hub = hub
        self._ahead = bytearray()
        self._came = came
        self._lost = lost
        self._search = search
        self._garbage = garbage
        self.found = False
        """Whether there is something to take."""
        self.over = False
        self._input = InputWatch(loop, hub.fileno(), self._readable)
        self._start: asyncio.Handle | None = loop.call_soon(self._begin, ahead)
        self._ahead += ahead

    def take(self) -> bytes:
        """Stops, and returns what was read and not thrown away."""
        self.over = True
        self._input.stop()
        if self._start is not None:
            self._start.cancel()
        return bytes(self._ahead)

    def _begin(self, ahead: bytes) -> None:
        self._start = None
        self._ahead.clear()
        if ahead:
            self._add(ahead)
        self._read_on()

    def _read_on(self) -> None:
        """Reads as it comes; what the end holds already, soon."""
        if self.over:
            return
        if len(self._ahead) >= READ_SIZE:
            self._input.stop()
        elif self._hub.holds_input():
            self._input.stop()
            self._start = self._loop.call_soon(self._readable)
        else:
            self._input.start()

    def _readable(self) -> None:
        self._start = None
        try:
            data = self._hub.receive(READ_SIZE)
        except BlockingIOError:
            self._input.start()
            return
        except OSError as error:
            self._end(f"the connection to the channel server broke: {error.strerror or error}")
            return
        if not data:
            self._end("the channel server closed the connection")
            return
        self._add(data)
        self._read_on()

    def _add(self, data: bytes) -> None:
        self._ahead += data
        if not self.found and self._is_found():
            self.found = True
            self._came()

    def _is_found(self) -> bool:
        """Throws away what belongs to nothing; whether there is something to take."""
        if self._search is None:
            return True
        place, is_there = self._search(self._ahead)
        self._throw_away(place)
        return is_there

    def _throw_away(self, count: int) -> None:
        thrown_away = bytes(self._ahead[:count])
        del self._ahead[:count]
        if thrown_away and self._garbage is not None:
            self._garbage(thrown_away)

    def _end(self, reason: str) -> None:
        self.take()
        self._lost(reason)
