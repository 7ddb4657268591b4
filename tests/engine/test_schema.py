"""A store of an earlier version is brought up to date, with a copy of what it was."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from left_behind import nothing_left_behind
from loopback import hears, told
from tunnelconsole.engine import schema
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import StoreFailed, StoreUpdated
from tunnelconsole.engine.schema import SCHEMA_VERSION, STEPS, bring_up_to_date

__all__ = ["nothing_left_behind"]

NAME = "state.sqlite3"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A state folder as the first version left it."""
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        database.executescript(STEPS[0])
        database.execute("PRAGMA user_version = 1")
        database.execute("INSERT INTO totals VALUES ('home', 3, 4)")
        database.commit()
    return tmp_path


@pytest.fixture
def database(first: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(first / NAME)) as opened:
        yield opened


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as opened:
        found: int = opened.execute("PRAGMA user_version").fetchone()[0]
        return found


def totals(path: Path) -> list[tuple[str, int, int]]:
    with closing(sqlite3.connect(path)) as opened:
        return opened.execute("SELECT * FROM totals").fetchall()


async def test_a_store_of_the_first_version_is_brought_up_to_date_and_copied_before(first: Path) -> None:
    async with Engine(state_dir=first) as engine:
        event = await hears(engine, StoreUpdated)
        assert engine.node.meters.totals() == {"home": (3, 4)}
        assert not told(engine, StoreFailed)
    copy = first / f"{NAME}.version-1"
    assert str(copy) in event.text()
    assert (version(first / NAME), version(copy)) == (SCHEMA_VERSION, 1)
    assert totals(first / NAME) == totals(copy) == [("home", 3, 4)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


@pytest.mark.parametrize("of", range(1, SCHEMA_VERSION))
def test_a_store_of_any_earlier_version_has_all_tables_afterwards(tmp_path: Path, of: int) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        database.executescript("".join(STEPS[:of]))
        database.execute(f"PRAGMA user_version = {of}")
        copy = bring_up_to_date(database, tmp_path / NAME)
        assert copy == tmp_path / f"{NAME}.version-{of}"
        assert bring_up_to_date(database, tmp_path / NAME) is None  # which looks for each of them


async def test_one_that_is_up_to_date_is_not_copied(first: Path) -> None:
    async with Engine(state_dir=first) as engine:
        await hears(engine, StoreUpdated)
    async with Engine(state_dir=first) as engine:
        assert not told(engine, StoreUpdated)


async def test_a_new_one_is_not_copied(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        assert not told(engine, StoreUpdated)


def test_what_is_still_in_the_journal_is_copied_too(first: Path, database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("UPDATE totals SET bytes_in = 5")
    database.commit()
    copy = bring_up_to_date(database, first / NAME)
    assert copy is not None
    assert totals(copy) == [("home", 5, 4)]


def test_a_step_that_fails_in_its_middle_leaves_all_as_it_was(
    first: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "STEPS", (STEPS[0], "CREATE TABLE tokens (name TEXT); CREATE TABLE totals (x);"))
    with pytest.raises(sqlite3.OperationalError, match="totals already exists"):
        bring_up_to_date(database, first / NAME)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert not database.execute("SELECT name FROM sqlite_master WHERE name = 'tokens'").fetchall()


def test_a_copy_that_cannot_be_made_leaves_all_as_it_was(first: Path, database: sqlite3.Connection) -> None:
    (first / f"{NAME}.version-1.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        bring_up_to_date(database, first / NAME)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
