"""Both loops must pass, and leave nothing behind; and the plane that pumps share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from left_behind import nothing_left_behind, pytest_asyncio_loop_factories
from tunnelconsole.engine.transport.plane import Plane

__all__ = ["nothing_left_behind", "pytest_asyncio_loop_factories"]


@pytest_asyncio.fixture
async def plane() -> AsyncIterator[Plane]:
    """The plane of this test's loop; its pumps must have ended by the end."""
    plane = Plane(asyncio.get_running_loop())
    yield plane
    plane.close()
