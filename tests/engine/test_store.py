"""What survives a restart, and what happens where nothing can be kept."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from jump_peers import jump_server, through
from left_behind import nothing_left_behind
from loopback import hears, target, told
from tunnelconsole.engine import keeping
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import ConfigRefused, ConfigReloaded, StoreFailed
from tunnelconsole.engine.schema import SCHEMA_VERSION
from tunnelconsole.engine.store import KEPT_EVENTS, LONGEST_TEXT, Store, StoredEvent
from waiting import until

__all__ = ["nothing_left_behind"]

NAME = "state.sqlite3"


def warning(number: int) -> StoredEvent:
    return StoredEvent(float(number), "warning", "peer-refused", "home", f"refused number {number}")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = Store(path)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def carried(folder: Path, data: bytes) -> tuple[int, int]:
    """Has an engine with this state folder carry ``data`` to an echo and back; returns the service's totals."""
    async with target() as far, Engine({"home": jump_server()}, state_dir=folder) as engine:
        await engine.settled()
        assert not told(engine, StoreFailed)
        async with through(engine.services["home"].address, far.address) as caller:
            assert await caller.exchange(data) == data
        await until(lambda: not engine.node.sessions.channels)
        return engine.node.meters.totals()["home"]


async def test_totals_go_on_where_the_engine_before_left_them(tmp_path: Path) -> None:
    assert await carried(tmp_path, b"x" * 1000) == (1000, 1000)
    assert await carried(tmp_path, b"x" * 234) == (1234, 1234)
    async with Engine(state_dir=tmp_path) as engine:  # kept even while there is no such service
        assert engine.node.meters.totals() == {"home": (1234, 1234)}


async def test_warnings_and_errors_come_back_and_nothing_less(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        engine.node.bus.publish(ConfigReloaded(summary="all is well"))
        engine.node.bus.publish(ConfigRefused(reason="no such key"))
        (kept,) = [record for record in engine.node.bus.recent() if isinstance(record.event, ConfigRefused)]
    async with Engine(state_dir=tmp_path) as engine:
        (event,) = engine.earlier_events
        assert event == StoredEvent(kept.time, "error", "config-refused", "", kept.event.text())


async def test_totals_and_warnings_are_written_while_the_engine_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SAVE_INTERVAL", 0.01)
    async with Engine(state_dir=tmp_path) as engine:
        engine.node.meters.service("home").add(3, 4)
        engine.node.bus.publish(ConfigRefused(reason="no such key"))
        with closing(sqlite3.connect(tmp_path / NAME)) as other:
            await until(lambda: other.execute("SELECT * FROM totals").fetchall() == [("home", 3, 4)])
            await until(lambda: other.execute("SELECT level, type FROM events").fetchall())


async def test_the_last_events_are_kept_and_the_oldest_go(tmp_path: Path) -> None:
    async with opened(tmp_path / NAME) as store:
        await store.save({}, [warning(number) for number in range(3)])
        assert await store.events() == [warning(0), warning(1), warning(2)]
        await store.save({}, [warning(number) for number in range(3, KEPT_EVENTS + 5)])
        kept = await store.events()
        assert kept == [warning(number) for number in range(5, KEPT_EVENTS + 5)]
    async with opened(tmp_path / NAME) as store:
        assert await store.events() == kept


async def test_a_flood_of_warnings_between_two_writes_takes_no_more_memory_than_is_kept(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        for number in range(KEPT_EVENTS + 10):
            engine.node.bus.publish(ConfigRefused(reason=f"mistake {number}"))
        assert len(engine._keeper._unsaved) == KEPT_EVENTS
    async with Engine(state_dir=tmp_path) as engine:
        texts = [event.text for event in engine.earlier_events]
        assert len(texts) == KEPT_EVENTS
        assert texts[0].endswith("mistake 10")
        assert texts[-1].endswith(f"mistake {KEPT_EVENTS + 9}")


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, it only has its name " * 100)


def damaged(path: Path) -> None:
    """A database whose first page is as it was, and whose tables are not."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


@pytest.mark.parametrize("spoil", [garbage, damaged])
async def test_a_file_that_cannot_be_read_is_moved_aside_and_the_engine_keeps_state_again(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    await carried(tmp_path, b"x" * 1000)
    spoil(tmp_path / NAME)
    spoiled = (tmp_path / NAME).read_bytes()
    async with Engine(state_dir=tmp_path) as engine:
        event = await hears(engine, StoreFailed, "was not readable and has been moved to")
        aside = tmp_path / "state.unreadable"
        assert str(tmp_path / NAME) in event.text()
        assert f"{aside}; the new one is empty: there are no tokens" in event.text()
        assert aside.read_bytes() == spoiled
    assert await carried(tmp_path, b"x" * 10) == (10, 10)


async def test_what_was_moved_aside_before_stays(tmp_path: Path) -> None:
    (tmp_path / "state.unreadable").write_bytes(b"what may still be saved")
    garbage(tmp_path / NAME)
    async with Engine(state_dir=tmp_path) as engine:
        event = await hears(engine, StoreFailed, "has been moved to")
        assert "state.unreadable.2" in event.text()
    assert (tmp_path / "state.unreadable").read_bytes() == b"what may still be saved"


def file_for_folder(folder: Path) -> Path:
    folder.write_text("in the way")
    return folder


def folder_for_file(folder: Path) -> Path:
    (folder / NAME).mkdir(parents=True)
    return folder / NAME


def folder_for_lock(folder: Path) -> Path:
    (folder / f"{NAME}.lock").mkdir(parents=True)
    return folder / f"{NAME}.lock"


def later_version(folder: Path) -> Path:
    folder.mkdir()
    with closing(sqlite3.connect(folder / NAME)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    return folder / NAME


def tables_of_another_program(folder: Path) -> Path:
    folder.mkdir()
    with closing(sqlite3.connect(folder / NAME)) as database:
        database.execute("CREATE TABLE totals (money REAL)")
    return folder / NAME


def read_only_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o500)
    return folder / NAME


HINDRANCES = [file_for_folder, folder_for_file, folder_for_lock, later_version, tables_of_another_program]
if os.geteuid():
    HINDRANCES.append(read_only_folder)  # root may write anywhere, so to root it is none


@pytest.mark.parametrize("hinder", HINDRANCES)
async def test_where_nothing_can_be_kept_an_event_names_the_file_and_the_engine_works_without(
    tmp_path: Path, hinder: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "state"
    in_the_way = hinder(folder)
    mode = in_the_way.stat().st_mode if in_the_way.is_dir() else None
    async with target() as far, Engine({"home": jump_server()}, state_dir=folder) as engine:
        await engine.settled()
        event = await hears(engine, StoreFailed, f"state is not being saved: {folder / NAME}: ")
        assert not event.text().endswith(": ")
        async with through(engine.services["home"].address, far.address) as caller:
            assert await caller.exchange(b"ping") == b"ping"
        assert not engine.earlier_events
    assert mode in (None, in_the_way.stat().st_mode)


async def test_a_database_of_a_later_version_is_left_as_it_is(tmp_path: Path) -> None:
    later_version(tmp_path / "state")
    async with Engine(state_dir=tmp_path / "state") as engine:
        await hears(engine, StoreFailed, "a later version of this program made it")
    with closing(sqlite3.connect(tmp_path / "state" / NAME)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []


def is_free(folder: Path) -> bool:
    """Whether no engine keeps this folder to itself."""
    with (folder / f"{NAME}.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


async def test_when_the_last_write_fails_the_engine_ends_nevertheless(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        with closing(sqlite3.connect(tmp_path / NAME)) as other:
            await until(lambda: other.execute("SELECT * FROM audit").fetchall())  # its start, which is written at once
            other.execute("DROP TABLE events")
        engine.node.meters.service("home").add(1, 2)
    assert len(told(engine, StoreFailed)) == 1


async def test_a_second_engine_in_the_same_folder_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    async with Engine({"home": jump_server()}, state_dir=tmp_path) as first:
        first.node.meters.service("home").add(1, 2)
        async with Engine({"home": jump_server()}, state_dir=tmp_path) as second:
            await second.settled()
            event = await hears(second, StoreFailed, f"another engine uses {tmp_path}")
            assert "give each a state_dir of its own" in event.text()
            assert second.services["home"].state == "listening"
            second.node.meters.service("home").add(1000, 1000)
        assert not told(first, StoreFailed)
        assert not is_free(tmp_path)
    async with Engine(state_dir=tmp_path) as third:  # what the first one kept, and nothing of the second
        assert third.node.meters.totals() == {"home": (1, 2)}
        assert not told(third, StoreFailed)


async def test_nobody_else_may_read_what_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    async with opened(folder / NAME) as store:
        await store.save({"home": (1, 2)}, [warning(1)])
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes[NAME] == 0o600
    assert set(modes.values()) == {0o600}


async def test_an_event_about_a_file_whose_name_is_no_text_is_kept_as_far_as_it_is(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        engine.node.bus.publish(ConfigRefused(reason=os.fsdecode(b"caf\xe9.toml")))
    async with Engine(state_dir=tmp_path) as engine:
        assert "caf?.toml" in engine.earlier_events[-1].text


async def test_a_sentence_is_kept_as_far_as_anybody_would_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path / NAME) as store:
        await store.save({}, [StoredEvent(1.0, "warning", "peer-refused", "home", "x" * 1_000_000)])
        assert (await store.events())[0].text == "x" * LONGEST_TEXT


async def test_nothing_is_written_where_nothing_has_changed(tmp_path: Path) -> None:
    async with opened(tmp_path / NAME) as store:
        await store.save({"home": (1, 2), "edge": (3, 4)}, [warning(1)])
        database = store._database
        assert database is not None
        before = database.total_changes
        await store.save({"home": (1, 2), "edge": (3, 4)}, [])
        assert database.total_changes == before
        await store.save({"home": (1, 2), "edge": (3, 5)}, [])
        assert database.total_changes == before + 1
        assert await store.totals() == {"home": (1, 2), "edge": (3, 5)}


async def test_the_journal_is_cut_back_once_it_has_been_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnelconsole.engine.store.JOURNAL_KEPT", 8192)
    journal = tmp_path / f"{NAME}-wal"
    async with opened(tmp_path / NAME) as store:
        with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM totals").fetchall()
            for number in range(100):
                await store.save({"home": (number, number)}, [warning(number)])
            assert journal.stat().st_size > 100_000
            reader.execute("COMMIT")
        assert store._database is not None
        store._database.execute("PRAGMA wal_checkpoint")
        await store.save({"home": (0, 0)}, [])
        assert journal.stat().st_size <= 3 * 8192


async def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / NAME)
    with pytest.raises(sqlite3.ProgrammingError, match="the store is not open"):
        await store.totals()
    await store.close()


async def test_without_a_state_folder_nothing_is_left_behind() -> None:
    async with Engine() as engine:
        folder = engine.node.state_dir
        assert (folder / NAME).exists()
    assert not folder.exists()
