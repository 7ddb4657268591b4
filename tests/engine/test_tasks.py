"""Every task has an owner, who hears of its failure and ends it."""

from __future__ import annotations

import asyncio

import pytest

from tunnelconsole.engine.tasks import Tasks
from waiting import until


class Owner:
    """Tasks, and what was reported of them."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, BaseException]] = []
        self.tasks = Tasks("service home", lambda name, error: self.reports.append((name, error)))


@pytest.fixture
def owner() -> Owner:
    return Owner()


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException) -> None:
    raise error


async def test_a_task_is_named_after_its_owner_and_kept_until_it_ends(owner: Owner) -> None:
    gate = asyncio.Event()
    task = owner.tasks.start(gate.wait(), "visitor 1")
    assert task.get_name() == "service home: visitor 1"
    assert len(owner.tasks) == 1
    gate.set()
    assert await task is True
    await until(lambda: not len(owner.tasks))
    assert owner.reports == []


async def test_a_failure_is_reported_once_with_the_tasks_name_and_ends_no_other(owner: Owner) -> None:
    error = ValueError("a fault")
    other = owner.tasks.start(for_ever(), "visitor 2")
    owner.tasks.start(fail(error), "visitor 1")
    await until(lambda: owner.reports)
    assert owner.reports == [("service home: visitor 1", error)]
    assert not other.done()
    await owner.tasks.close()
    assert len(owner.reports) == 1


async def test_closing_cancels_all_and_waits_until_they_have_ended(owner: Owner) -> None:
    started = asyncio.Event()
    cleaned: list[str] = []

    async def careful() -> None:
        try:
            started.set()
            await for_ever()
        finally:
            await asyncio.to_thread(cleaned.append, "up")

    task = owner.tasks.start(careful(), "careful")
    await started.wait()
    await owner.tasks.close()
    assert cleaned == ["up"]
    assert task.cancelled()
    assert not len(owner.tasks)
    assert owner.reports == []


async def test_a_task_that_fails_while_it_is_cancelled_is_reported(owner: Owner) -> None:
    error = ValueError("a fault")
    started = asyncio.Event()

    async def careless() -> None:
        try:
            started.set()
            await for_ever()
        finally:
            raise error

    owner.tasks.start(careless(), "careless")
    await started.wait()
    await owner.tasks.close()
    await until(lambda: owner.reports)
    assert owner.reports == [("service home: careless", error)]


async def test_a_task_may_close_its_owner_and_live(owner: Owner) -> None:
    other = owner.tasks.start(for_ever(), "other")

    async def closer() -> str:
        await owner.tasks.close()
        return "alive"

    assert await owner.tasks.start(closer(), "closer") == "alive"
    assert other.cancelled()


async def test_closing_an_owner_without_tasks_is_nothing(owner: Owner) -> None:
    await owner.tasks.close()
    await owner.tasks.close()
    assert owner.reports == []
