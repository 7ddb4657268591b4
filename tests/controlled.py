"""An engine with its control socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.server import ControlServer
from tunnelconsole.engine.engine import Engine


@asynccontextmanager
async def controlled(
    engine: Engine, folder: Path, reload: Callable[[], Awaitable[str]] | None = None
) -> AsyncIterator[ControlClient]:
    """A client of the control socket of ``engine``, which is ``control.sock`` in ``folder``.

    :param reload: what a reload does; nothing unless given.
    """

    async def nothing() -> str:
        return ""

    reload = reload or nothing
    path = folder / "control.sock"
    server = ControlServer(engine, path, version="1", config=str, reload=reload, stop=lambda _cause: None)
    await server.serve()
    try:
        async with await ControlClient.connect(path) as client:
            yield client
    finally:
        await server.close()
