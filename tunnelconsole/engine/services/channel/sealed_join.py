"""One sealed exchange with a connection to the channel server of its own, for the command and a program's own use.

Importing this loads the ciphers.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from tunnelconsole.engine.services.channel.bridge import Outcome
from tunnelconsole.engine.services.channel.sealed_bridge import SealedBridge
from tunnelconsole.engine.services.channel.sealed_key import SharedKey
from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.farewell import Farewell
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.streams import Join
from tunnelconsole.engine.wire.sealed_beginnings import NOTHING


def sealed_join(hub: End, key: str, early: bytes) -> Join:
    """Joins one local end with the connection to a channel server, which is closed with it."""

    def join(plane: Plane, local: End, finished: Finished) -> SealedBridge:
        def ended(outcome: Outcome) -> None:
            if outcome.unsent and outcome.reason:
                # The other end may still send to us: a connection that is closed then is reset, and the server may see
                # that before it has read what we said.
                over = partial(_finish, finished, outcome.reason)
                Farewell(plane.loop, hub, outcome.unsent, over, heard=_LastWord().is_in).begin()
            else:
                _part(hub, outcome.unsent)
                finished(outcome.reason)

        return SealedBridge(plane.loop, local, hub, SharedKey(key), ended, early=early)

    return join


def _finish(finished: Finished, reason: str, _: Farewell) -> None:
    finished(reason)


class _LastWord:
    """Looks for what an end says that knows of no exchange any more, in whatever it said before."""

    def __init__(self) -> None:
        self._tail = b""

    def is_in(self, data: bytes) -> bool:
        """Whether it was said, now that ``data`` has come."""
        seen = self._tail + data
        self._tail = seen[1 - len(NOTHING) :]
        return NOTHING in seen


def _part(hub: End, words: bytes) -> None:
    """Closes the connection to a channel server, with as much of our last words as it takes now."""
    with suppress(OSError):
        rest = memoryview(words)
        while rest:
            rest = rest[hub.send(rest) :]
        hub.send_eof()
    with suppress(OSError):
        while hub.receive(READ_SIZE):
            pass  # closing with something unread would be a reset, which may overtake what we said
    hub.close()
