"""What survives a restart, in SQLite: lifetime totals per service, the last warnings and errors, tokens, bans, and the
audit trail.

All work is done by one thread of the store's own, so that a slow disk never holds up a tunnel. A folder is one
engine's, because two would overwrite each other's totals: the file ``state.sqlite3.lock`` is held locked meanwhile.
It is nobody else's either, because others could have these files be written, or locked, in another place.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from tunnelconsole.engine.audit import KEPT_ENTRIES, AuditEntry
from tunnelconsole.engine.private_files import FILE_MODE, open_private, private_folder
from tunnelconsole.engine.schema import bring_up_to_date, check_version

KEPT_EVENTS = 1000
"""Warnings and errors kept from earlier runs; the oldest go first."""

LONGEST_TEXT = 2000
"""Characters of one event's sentence that are kept: strangers have a say in it."""

JOURNAL_KEPT = 4 * 1024 * 1024
"""Bytes that the journal (``-wal``) keeps on the disk once it has been emptied: as many as it holds by SQLite's
default before that is done, 1,000 pages."""

MAX_JOURNAL = 64 * 1024 * 1024
"""Bytes that the journal may grow to while another program reads the database without end, which keeps it from being
emptied; then nothing more is written until it is."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that has the database locked, such as one that looks at it with sqlite3."""

AUDIT_COLUMNS = "time, who, via, action, object, outcome, text"
"""Those of the table of the audit trail, in the order of an entry's fields."""

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
        self.copied: Path | None = None
        """Where a file of an earlier version was copied to before it was changed, if it was one."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._database: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._file = (0, 0)
        self._saved: dict[str, tuple[int, int]] = {}

    async def open(self) -> None:
        """Opens or makes the file; one that SQLite cannot read is moved aside. To be closed even when this fails.

        Called again, it opens the file anew.

        :raises sqlite3.Error: it can neither be opened nor made, or a later version of this program made it.
        :raises OSError: the folder cannot be made or written, or another engine uses it.
        :raises NotPrivate: others could change what is in the folder.
        """
        await self._run(self._open)

    def _open(self) -> None:
        private_folder(self.path.parent)
        if self._lock is None:
            self._lock = _lock_file(Path(f"{self.path}.lock"))
        self._disconnect()
        try:
            self._database = self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.replaced = _free_name(self.path.with_suffix(".unreadable"))
            self.path.replace(self.replaced)
            self._database = self._connect()

    def _connect(self) -> sqlite3.Connection:
        _make_private(self.path)  # before SQLite does: its other files get the permissions of this one
        database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        try:
            if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the database is damaged")
            check_version(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA foreign_keys = ON")
            database.execute(f"PRAGMA journal_size_limit = {JOURNAL_KEPT}")
            self.copied = bring_up_to_date(database, self.path)
            self._file = _identity(self.path)
        except (sqlite3.Error, OSError):
            database.close()
            raise
        self._saved = {}
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

    async def audit(self) -> list[AuditEntry]:
        """The kept entries of the audit trail, oldest first."""

        def read(database: sqlite3.Connection) -> list[AuditEntry]:
            rows = database.execute(f"SELECT {AUDIT_COLUMNS} FROM audit ORDER BY number")  # noqa: S608 - names of ours
            return [AuditEntry(*row) for row in rows]

        return await self._with_database(read)

    async def has_audit(self) -> bool:
        """Whether there is any entry of the audit trail."""

        def look(database: sqlite3.Connection) -> bool:
            return database.execute("SELECT 1 FROM audit LIMIT 1").fetchone() is not None

        return await self._with_database(look)

    async def save(
        self,
        totals: dict[str, tuple[int, int]],
        events: Sequence[StoredEvent],
        entries: Sequence[AuditEntry] = (),
    ) -> None:
        """Writes the totals that have changed, and appends the events and the entries, in one transaction."""

        def write(database: sqlite3.Connection) -> None:
            changed = {service: counts for service, counts in totals.items() if self._saved.get(service) != counts}
            if not changed and not events and not entries:
                return
            self._check_files(database)
            with database:
                database.executemany(
                    "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (service) "
                    "DO UPDATE SET bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out",
                    [(service, *counts) for service, counts in changed.items()],
                )
                database.executemany(
                    "INSERT INTO events (time, level, type, service, text) VALUES (?, ?, ?, ?, ?)",
                    [(event.time, event.level, event.type, event.service, _storable(event.text)) for event in events],
                )
                database.execute(
                    "DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (KEPT_EVENTS,)
                )
                if entries:
                    _append(database, entries)
            self._saved |= changed

        await self._with_database(write)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Has ``work`` read and write in one transaction of its own, on the store's thread.

        :raises sqlite3.Error: it could not; nothing is written then.
        """

        def call(database: sqlite3.Connection) -> T:
            self._check_files(database)
            with database:
                return work(database)

        return await self._with_database(call)

    def _check_files(self, database: sqlite3.Connection) -> None:
        """Makes sure that what is written now will be found again, and that the journal has an end.

        :raises sqlite3.OperationalError: it would not be found, or would have none.
        """
        try:
            found = _identity(self.path)
        except OSError as error:
            raise sqlite3.OperationalError(f"the file is not there any more: {error.strerror}") from error
        if found != self._file:
            raise sqlite3.OperationalError("another file has been put in its place")
        journal = Path(f"{self.path}-wal")
        if journal.exists() and journal.stat().st_size > MAX_JOURNAL:
            busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("another program reads it without end, and its journal grows")

    async def close(self) -> None:
        """Closes the file, leaves the folder to others, and ends the thread."""
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    def _disconnect(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            database.close()

    def _close(self) -> None:
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def call() -> T:
            if self._database is None:
                raise sqlite3.ProgrammingError("the store is not open")
            return work(self._database)

        return await self._run(call)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _append(database: sqlite3.Connection, entries: Sequence[AuditEntry]) -> None:
    database.executemany(
        f"INSERT INTO audit ({AUDIT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - names of ours
        [msgspec.structs.astuple(entry) for entry in entries],
    )
    database.execute("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?", (KEPT_ENTRIES,))


def _storable(text: str) -> str:
    """The text as far as it is kept, with what is no Unicode replaced: SQLite takes no such byte of a file's name."""
    return text[:LONGEST_TEXT].encode(errors="replace").decode()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _lock_file(path: Path) -> int:
    """The descriptor that holds this file locked until it is closed; the file stays behind.

    :raises OSError: another engine holds it, or it cannot be made.
    """
    lock = open_private(path, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise OSError(f"another engine uses {path.parent}; give each a state_dir of its own") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def _free_name(path: Path) -> Path:
    """This path, or the first with a number behind it that nothing has: what was moved there before stays."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain((path,), numbered) if not free.exists())


def _make_private(path: Path) -> None:
    """Makes the file where there is none, and keeps it from other users."""
    descriptor = open_private(path, os.O_RDWR)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)
