"""Where others may watch the engine from: the listener for metrics, where ``[engine] metrics`` wants one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunnelconsole import __version__
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.settings import ListenAddress

if TYPE_CHECKING:
    from tunnelconsole.metrics.server import MetricsServer


class Observing:
    """The listener in force, and the one that is to take its place."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted: ListenAddress | None = None
        self._server: MetricsServer | None = None
        self._next: MetricsServer | None = None

    async def prepare(self, wanted: ListenAddress | None) -> None:
        """Takes the place that is wanted, unless it is the one in force. Follow with :meth:`apply` or :meth:`discard`.

        :raises ListenFailed: it cannot be had; what is in force stays.
        """
        if wanted is None or wanted == self._wanted:
            return
        # Only where metrics are on: the rest need not pay for what makes them.
        from tunnelconsole.metrics.server import MetricsServer  # noqa: PLC0415

        server = MetricsServer(self._engine, __version__)
        await server.bind(wanted)
        self._next = server

    async def apply(self, wanted: ListenAddress | None) -> list[str]:
        """Has metrics served there and nowhere else; says what that changed, in a few words."""
        if wanted == self._wanted:
            return []
        before, self._server, self._next = self._server, self._next, None
        self._wanted = wanted
        address = self._server.serve() if self._server is not None else ""
        if before is not None:
            await before.close()
        return [f"metrics at {address}" if address else "no metrics any more"]

    async def discard(self) -> None:
        """Gives up the place that was taken; what is in force stays."""
        if self._next is not None:
            unused, self._next = self._next, None
            await unused.close()

    async def close(self) -> None:
        """Serves nobody any more."""
        await self.discard()
        if self._server is not None:
            await self._server.close()
            self._server = None
