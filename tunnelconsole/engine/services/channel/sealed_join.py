"""One sealed exchange with a connection to the channel server of its own, for the command and a program's own use.

Importing this loads the ciphers.
"""

from __future__ import annotations

from contextlib import suppress

from tunnelconsole.engine.services.channel.bridge import Outcome
from tunnelconsole.engine.services.channel.sealed_bridge import SealedBridge
from tunnelconsole.engine.services.channel.sealed_key import SharedKey
from tunnelconsole.engine.transport.ends import READ_SIZE, End
from tunnelconsole.engine.transport.farewell import Farewell
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.transport.streams import Join


def sealed_join(hub: End, key: str, early: bytes) -> Join:
    """Joins one local end with the connection to a channel server, which is closed with it."""

    def join(plane: Plane, local: End, finished: Finished) -> SealedBridge:
        def ended(outcome: Outcome) -> None:
            words = _say_at_once(hub, outcome.unsent)
            if words:
                Farewell(plane.loop, hub, words, lambda _: finished(outcome.reason), reset=True).begin()
            else:
                _part(hub)
                finished(outcome.reason)

        return SealedBridge(plane.loop, local, hub, SharedKey(key), ended, early=early)

    return join


def _say_at_once(hub: End, words: bytes) -> bytes:
    """Says as much of our last words as the channel server's connection takes now; returns the rest."""
    rest = memoryview(words)
    try:
        while rest:
            rest = rest[hub.send(rest) :]
        return b""
    except BlockingIOError:
        return bytes(rest)
    except OSError:  # it is gone
        return b""


def _part(hub: End) -> None:
    """Closes the connection to a channel server."""
    with suppress(OSError):
        hub.send_eof()
    with suppress(OSError):
        while hub.receive(READ_SIZE):
            pass  # closing with something unread would be a reset, which may overtake what we said
    hub.close()
