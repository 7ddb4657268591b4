"""The pool of data connections that wait for a visitor, at the relay server."""

from __future__ import annotations

import asyncio

from tunnelconsole.engine.services import spare
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.wire.relay import MAX_WANTED

MAX_SPARE = MAX_WANTED
"""Data connections that may wait for a visitor: as many as one line of the protocol can ask for."""


class SparePool(spare.SparePool[End]):
    """One backend's data connections without a visitor, each watched for its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, MAX_SPARE, self._let_go)

    def add(self, connection: End) -> bool:
        if not super().add(connection):
            return False
        self._loop.add_reader(connection.fileno(), self._spoke, connection)
        return True

    def take(self) -> End | None:
        connection = super().take()
        if connection is not None:
            self._loop.remove_reader(connection.fileno())
        return connection

    def _spoke(self, connection: End) -> None:
        """A connection without a visitor that becomes readable has ended, or breaks the protocol: it is no use."""
        self.remove(connection)
        self._let_go(connection)

    def _let_go(self, connection: End) -> None:
        self._loop.remove_reader(connection.fileno())
        connection.close()
