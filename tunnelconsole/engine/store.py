"""What survives a restart: lifetime totals per service, and the last warnings and errors, in SQLite.

All work is done by one thread of the store's own, so that a slow disk never holds up a tunnel.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

SCHEMA_VERSION = 1
"""Version of the tables, kept in ``PRAGMA user_version``."""

KEPT_EVENTS = 1000
"""Warnings and errors kept from earlier runs; the oldest go first."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that has the file locked."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS totals (
    service TEXT PRIMARY KEY,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    level TEXT NOT NULL,
    type TEXT NOT NULL,
    service TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
"""

T = TypeVar("T")


class StoredEvent(msgspec.Struct, frozen=True):
    """One warning or error of an earlier run, or one to be kept."""

    time: float
    level: str
    type: str
    service: str
    text: str


class Store:
    """The file ``state.sqlite3`` in the state folder.

    Open it with :meth:`open`; every method waits for the store's thread and raises :class:`sqlite3.Error` when the
    disk is full, read-only or gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replaced: Path | None = None
        """Where an unreadable older file was moved to, if there was one."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Opens or makes the file; one that is not a database of ours is moved aside.

        :raises sqlite3.Error: it can neither be opened nor made.
        :raises OSError: the folder cannot be made.
        """
        await self._run(self._open)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._database = self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.replaced = self.path.with_suffix(".unreadable")
            self.path.replace(self.replaced)
            self._database = self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error:
            database.close()
            raise
        self.path.chmod(0o600)
        return database

    async def totals(self) -> dict[str, tuple[int, int]]:
        """Bytes in and out by service name."""

        def read(database: sqlite3.Connection) -> dict[str, tuple[int, int]]:
            rows = database.execute("SELECT service, bytes_in, bytes_out FROM totals")
            return {service: (bytes_in, bytes_out) for service, bytes_in, bytes_out in rows}

        return await self._with_database(read)

    async def events(self) -> list[StoredEvent]:
        """The kept warnings and errors, oldest first."""

        def read(database: sqlite3.Connection) -> list[StoredEvent]:
            rows = database.execute("SELECT time, level, type, service, text FROM events ORDER BY number")
            return [StoredEvent(*row) for row in rows]

        return await self._with_database(read)

    async def save(self, totals: dict[str, tuple[int, int]], events: Sequence[StoredEvent]) -> None:
        """Writes the totals and appends the events, in one transaction."""

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany(
                    "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (service) "
                    "DO UPDATE SET bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out",
                    [(service, *counts) for service, counts in totals.items()],
                )
                database.executemany(
                    "INSERT INTO events (time, level, type, service, text) VALUES (?, ?, ?, ?, ?)",
                    [(event.time, event.level, event.type, event.service, event.text) for event in events],
                )
                database.execute(
                    "DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (KEPT_EVENTS,)
                )

        await self._with_database(write)

    async def close(self) -> None:
        """Closes the file and ends the thread."""

        def close() -> None:
            if self._database is not None:
                self._database.close()
                self._database = None

        await self._run(close)
        self._thread.shutdown(wait=False)

    async def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def call() -> T:
            if self._database is None:
                raise sqlite3.ProgrammingError("the store is not open")
            return work(self._database)

        return await self._run(call)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
