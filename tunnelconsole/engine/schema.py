"""The tables of the store, and how a file of an earlier version is brought up to date.

A file says its version in ``PRAGMA user_version``. One of an earlier version is copied aside before it is changed, so
that the program which made it can be gone back to.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from tunnelconsole.engine.private_files import open_private

STEPS: Final[tuple[str, ...]] = (
    """
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
""",
    """
CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    rights TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    disabled INTEGER NOT NULL,
    last_used REAL,
    day TEXT NOT NULL,
    day_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE token_secrets (
    id BLOB PRIMARY KEY,
    token TEXT NOT NULL REFERENCES tokens (name) ON DELETE CASCADE,
    verifier BLOB NOT NULL,
    sealed BLOB,
    created REAL NOT NULL,
    expires REAL
) STRICT;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    who TEXT NOT NULL,
    via TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
""",
    """
CREATE TABLE bans (
    number INTEGER PRIMARY KEY,
    address TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    reason TEXT NOT NULL,
    failures INTEGER NOT NULL,
    since REAL NOT NULL,
    seconds REAL NOT NULL,
    until REAL NOT NULL,
    by_hand INTEGER NOT NULL
) STRICT;
""",
)
"""What makes version 1 of an empty file, version 2 of that, and so on. What has been released is never changed: a file
that has it would not get the change."""

SCHEMA_VERSION: Final = len(STEPS)
"""Version of the tables that this program works with."""

_TABLES = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)")


def check_version(database: sqlite3.Connection) -> int:
    """The version of a database's tables; 0 for one without any.

    :raises sqlite3.OperationalError: a later version of this program made it, and nothing in it may be touched.
    """
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise sqlite3.OperationalError(
            f"a later version of this program made it: it is version {version}, and this one knows {SCHEMA_VERSION}"
        )
    return version


def bring_up_to_date(database: sqlite3.Connection, path: Path) -> Path | None:
    """Makes the tables that are missing; returns where the file was copied to, None where it was new or up to date.

    :param path: of the database.
    :raises sqlite3.OperationalError: a later version of this program made it, or it cannot be written.
    :raises sqlite3.DatabaseError: it is of this version, and has not all of its tables: somebody has spoilt it.
    :raises OSError: the copy cannot be made; nothing has been changed then.
    """
    version = check_version(database)
    if version == SCHEMA_VERSION:
        _check_tables(database)
        return None
    copy = _copy_aside(database, path, version) if version else None
    steps = "".join(STEPS[version:])
    try:
        # All or nothing: half a step would be taken for none, and fail when it is taken again.
        database.executescript(f"BEGIN IMMEDIATE;{steps}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
    except sqlite3.Error:
        if database.in_transaction:
            database.rollback()
        raise
    return copy


def _check_tables(database: sqlite3.Connection) -> None:
    found = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    missing = [name for name in _TABLES.findall("".join(STEPS)) if name not in found]
    if missing:
        raise sqlite3.DatabaseError(f"it has no table {missing[0]}")


def _copy_aside(database: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copies a database with what is in its journal; an older copy of the same version gives way."""
    copy = path.with_name(f"{path.name}.version-{version}")
    made = copy.with_name(f"{copy.name}.new")
    made.unlink(missing_ok=True)
    os.close(open_private(made, os.O_RDWR))  # before SQLite makes it for everybody to read
    with closing(sqlite3.connect(made)) as target:
        database.backup(target)
    made.replace(copy)
    return copy
