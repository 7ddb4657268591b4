"""What every test of the transport must hold besides what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from loopback import open_descriptors
from tunnelconsole.engine.transport.plane import Plane
from waiting import until


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops must pass the same tests."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(autouse=True)
async def nothing_left_behind(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """No callback raised, and no descriptor and no task outlives a test."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))
    before = open_descriptors()
    yield
    await until(lambda: open_descriptors() <= before)
    assert not raised


@pytest_asyncio.fixture
async def plane() -> AsyncIterator[Plane]:
    """The plane of this test's loop; its pumps must have ended by the end."""
    plane = Plane(asyncio.get_running_loop())
    yield plane
    plane.close()
