"""For the conftest of tests with sockets: both loops, and nothing left behind on either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest_asyncio
import uvloop

from loopback import open_descriptors
from waiting import until


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops must pass the same tests."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """No callback raised, and no descriptor and no task outlives a test."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))
    before, tasks = open_descriptors(), len(asyncio.all_tasks())
    yield
    await until(lambda: open_descriptors() <= before)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert not raised, raised[:3]
