"""A stream that the remote has opened, until there is an end to join it with."""

from __future__ import annotations

from tunnelconsole.engine.transport.mux import QuietUser


class EarlyStream(QuietUser):
    """Keeps what a stream brings, a window at the most, while its other end is being dialled.

    :param name: whose it is, for people.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.early: list[bytes] = []
        self.ended = False
        self.gone = False

    def received(self, data: bytes) -> None:
        self.early.append(data)

    def half_closed(self) -> None:
        self.ended = True

    def lost(self, reason: str) -> None:
        self.gone = True
