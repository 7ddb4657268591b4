"""State that cannot be written is told once, kept meanwhile, and written as soon as that works again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from jump_peers import jump_server, through
from left_behind import nothing_left_behind
from loopback import hears, target, told
from tunnelconsole.engine import backoff, keeping, store, ticking
from tunnelconsole.engine.ban_table import KeptBan, read_bans
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ConfigRefused, StoreFailed, StoreRecovered
from waiting import until

__all__ = ["nothing_left_behind"]

NAME = "state.sqlite3"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes, and tries again, without much waiting."""
    monkeypatch.setattr(keeping, "SAVE_INTERVAL", 0.01)
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.02)
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 0.01)


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that has written its state."""
    async with Engine(state_dir=tmp_path) as made:
        made.node.meters.service("home").add(1, 1)
        await until(lambda: kept(tmp_path) == {"home": (1, 1)})
        yield made


@contextmanager
def looking(folder: Path) -> Iterator[sqlite3.Connection]:
    """Another program that looks at the state."""
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as database:
        yield database


def kept(folder: Path) -> dict[str, tuple[int, int]]:
    with looking(folder) as database:
        rows = database.execute("SELECT service, bytes_in, bytes_out FROM totals").fetchall()
    return {service: (bytes_in, bytes_out) for service, bytes_in, bytes_out in rows}


def kept_mistakes(folder: Path) -> list[str]:
    """What was said of the configuration, as far as it was kept."""
    with looking(folder) as database:
        rows = database.execute("SELECT text FROM events WHERE type = 'config-refused' ORDER BY number").fetchall()
    return [text.rpartition(" ")[2] for (text,) in rows]


async def tries(engine: Engine, count: int) -> None:
    """Waits until it was tried so many times more to write."""
    made = 0
    open_again = engine._keeper._store.open

    async def counted() -> None:
        nonlocal made
        made += 1
        await open_again()

    engine._keeper._store.open = counted  # type: ignore[method-assign]
    await until(lambda: made >= count)


async def test_while_another_program_has_it_locked_all_is_kept_in_memory_and_written_afterwards(
    tmp_path: Path, engine: Engine
) -> None:
    with looking(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        for number in range(3):
            engine.node.bus.publish(ConfigRefused(reason=str(number)))
            engine.node.meters.service("home").add(10, 10)
            await hears(engine, StoreFailed, "database is locked")
            await tries(engine, 2)
        assert not told(engine, StoreRecovered)
        other.execute("COMMIT")
    event = await hears(engine, StoreRecovered)
    assert event.text() == f"state is being saved again in {tmp_path / NAME}"
    await until(lambda: kept(tmp_path) == {"home": (31, 31)})
    assert kept_mistakes(tmp_path) == ["0", "1", "2"]
    assert len(told(engine, StoreFailed)) == 1
    assert len(told(engine, StoreRecovered)) == 1


async def test_a_disk_that_was_full_for_a_moment_costs_nothing(tmp_path: Path, engine: Engine) -> None:
    database = engine._keeper._store._database
    assert database is not None
    database.execute("PRAGMA max_page_count = 1")
    for number in range(500):
        engine.node.bus.publish(ConfigRefused(reason=str(number)))
    await hears(engine, StoreFailed, "database or disk is full")
    await hears(engine, StoreRecovered)
    await until(lambda: kept_mistakes(tmp_path) == [str(number) for number in range(500)])


def removed(path: Path) -> None:
    for file in path.parent.glob(f"{NAME}*"):
        if not file.name.endswith(".lock"):
            file.unlink()


def replaced(path: Path) -> None:
    removed(path)
    path.write_bytes(b"")


def without_tables(path: Path) -> None:
    with looking(path.parent) as database:
        database.execute("DROP TABLE events")


@pytest.mark.parametrize("spoil", [removed, replaced, without_tables])
async def test_a_file_that_was_spoilt_is_made_again_with_what_is_known(
    tmp_path: Path, engine: Engine, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / NAME)
    engine.node.meters.service("edge").add(2, 2)
    engine.node.bus.publish(ConfigRefused(reason="later"))
    await hears(engine, StoreFailed)
    await hears(engine, StoreRecovered)
    await until(lambda: kept_mistakes(tmp_path) == ["later"])
    assert kept(tmp_path) == {"home": (1, 1), "edge": (2, 2)}


async def test_each_failure_and_each_recovery_is_told_once(tmp_path: Path, engine: Engine) -> None:
    for _ in range(3):
        with looking(tmp_path) as other:
            other.execute("BEGIN EXCLUSIVE")
            engine.node.meters.service("home").add(1, 1)
            await until(lambda: len(told(engine, StoreFailed)) == len(told(engine, StoreRecovered)) + 1)
            other.execute("COMMIT")
        await until(lambda: len(told(engine, StoreRecovered)) == len(told(engine, StoreFailed)))
    assert len(told(engine, StoreFailed)) == 3


async def test_tunnels_and_their_rates_go_on_while_a_write_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 60.0)
    monkeypatch.setattr(ticking, "TICK", 0.01)
    async with target() as far, Engine({"home": jump_server()}, state_dir=tmp_path) as engine:
        await engine.settled()
        with looking(tmp_path) as other:
            other.execute("BEGIN EXCLUSIVE")
            async with through(engine.services["home"].address, far.address) as caller:
                assert await caller.exchange(b"ping") == b"ping"
            thread = engine._keeper._store._thread
            await until(lambda: thread._work_queue.empty() and engine.node.meters.totals()["home"] == (4, 4))
            history = engine.node.meters.node.history_in
            sampled = len(history)
            await until(lambda: len(history) > sampled + 20)
            assert not told(engine, StoreFailed)
            other.execute("COMMIT")
        await until(lambda: kept(tmp_path) == {"home": (4, 4)})


async def test_a_journal_that_somebody_keeps_from_being_emptied_has_an_end(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_JOURNAL", 200_000)
    journal = tmp_path / f"{NAME}-wal"
    with looking(tmp_path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM totals").fetchall()

        def failed() -> bool:
            engine.node.meters.service("home").add(1, 1)
            return bool(told(engine, StoreFailed))

        await until(failed)
        assert "another program reads it without end" in told(engine, StoreFailed)[0].text()
        size = journal.stat().st_size
        await tries(engine, 3)
        assert journal.stat().st_size == size
        reader.execute("COMMIT")
    await hears(engine, StoreRecovered)
    assert journal.stat().st_size < size


async def test_a_folder_that_becomes_free_is_taken_over_and_totals_are_those_of_both(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as first:
        first.node.meters.service("home").add(1, 2)
        second = Engine(state_dir=tmp_path)
        await second.start()
        await hears(second, StoreFailed, f"another engine uses {tmp_path}")
        second.node.meters.service("home").add(10, 20)
    await hears(second, StoreRecovered)
    assert second.node.meters.totals() == {"home": (11, 22)}
    await second.stop(drain=0.0)
    assert kept(tmp_path) == {"home": (11, 22)}


async def test_where_the_last_write_fails_too_the_engine_ends_nevertheless(tmp_path: Path) -> None:
    with looking(tmp_path) as other:
        async with Engine(state_dir=tmp_path) as engine:
            other.execute("BEGIN EXCLUSIVE")
            engine.node.meters.service("home").add(1, 1)
            await hears(engine, StoreFailed)
        assert len(told(engine, StoreFailed)) == 1


def banned(folder: Path) -> list[str]:
    with looking(folder) as database:
        return [address for (address,) in database.execute("SELECT address FROM bans ORDER BY number")]


async def test_a_ban_by_hand_is_kept_at_once_and_so_is_that_it_was_lifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SAVE_INTERVAL", 3600.0)
    async with Engine(state_dir=tmp_path) as engine:
        for address in ("192.0.2.7", "192.0.2.8"):
            engine.node.bans.ban(address, 3600)
        await until(lambda: banned(tmp_path) == ["192.0.2.7", "192.0.2.8"])
        engine.node.bans.lift("192.0.2.7")
        await until(lambda: banned(tmp_path) == ["192.0.2.8"])


async def test_bans_hold_on_behind_a_restart(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        engine.node.bans.ban("192.0.2.7", 3600)
    async with Engine(state_dir=tmp_path) as engine:
        ((ban, left),) = engine.node.bans.rows()
        assert (ban.address, ban.by_hand) == ("192.0.2.7", True)
        assert 3500 < left <= 3600


async def test_bans_that_could_not_be_written_are_written_afterwards(tmp_path: Path, engine: Engine) -> None:
    with looking(tmp_path) as database:
        database.execute("BEGIN EXCLUSIVE")
        engine.node.bans.ban("192.0.2.7", 3600)
        await hears(engine, StoreFailed)
        database.execute("COMMIT")
    await until(lambda: banned(tmp_path) == ["192.0.2.7"])


async def test_a_file_from_before_a_ban_was_lifted_does_not_bring_it_back(tmp_path: Path, engine: Engine) -> None:
    engine.node.bans.ban("192.0.2.7", 3600)
    await until(lambda: banned(tmp_path) == ["192.0.2.7"])
    with looking(tmp_path) as database, closing(sqlite3.connect(tmp_path / "before")) as copy:
        database.backup(copy)
    engine.node.bans.lift("192.0.2.7")
    await until(lambda: banned(tmp_path) == [])
    removed(tmp_path / NAME)
    (tmp_path / "before").rename(tmp_path / NAME)
    engine.node.meters.service("home").add(1, 1)  # so that there is something to write
    await hears(engine, StoreRecovered)
    await until(lambda: banned(tmp_path) == [])
    assert not engine.node.bans.rows()


async def test_totals_are_taken_over_once_however_often_the_first_reading_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        engine.node.meters.service("home").add(1, 1)
    failures = iter([True, True])

    def fails_twice(database: sqlite3.Connection, most: int) -> list[KeptBan]:
        if next(failures, False):
            raise sqlite3.OperationalError("disk I/O error")
        return read_bans(database, most)

    monkeypatch.setattr(keeping, "read_bans", fails_twice)
    async with Engine(state_dir=tmp_path) as engine:
        await hears(engine, StoreRecovered)
        assert engine.node.meters.totals() == {"home": (1, 1)}
