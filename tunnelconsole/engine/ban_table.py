"""The table of bans in the store; see :mod:`tunnelconsole.engine.schema`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec


class KeptBan(msgspec.Struct, frozen=True):
    """A ban, as it is kept; its fields as in :class:`~tunnelconsole.engine.bans.Ban`."""

    address: str
    service: str
    reason: str
    failures: int
    since: float
    seconds: float
    until: float
    """Unix seconds at which it ends."""
    by_hand: bool


class BanChanges(msgspec.Struct, frozen=True):
    """What is to be written."""

    written: Sequence[KeptBan]
    removed: Sequence[str]
    all: bool
    """Whether there are no others than those that are written."""

    def __bool__(self) -> bool:
        return bool(self.written or self.removed or self.all)


def read_bans(database: sqlite3.Connection, most: int) -> list[KeptBan]:
    """The bans, the oldest first.

    :param most: of them; those that were set first are left out where there are more.
    :raises sqlite3.Error: they cannot be read.
    """
    rows = database.execute(
        "SELECT address, service, reason, failures, since, seconds, until, by_hand FROM bans "
        "ORDER BY number DESC LIMIT ?",
        (most,),
    ).fetchall()
    return [
        KeptBan(address, service, reason, failures, since, seconds, until, bool(by_hand))
        for address, service, reason, failures, since, seconds, until, by_hand in reversed(rows)
    ]


def write_bans(database: sqlite3.Connection, changes: BanChanges) -> None:
    """Writes what has changed, within the transaction that is open.

    :raises sqlite3.Error: it cannot be written.
    """
    if changes.all:
        database.execute("DELETE FROM bans")
    database.executemany("DELETE FROM bans WHERE address = ?", [(address,) for address in changes.removed])
    database.executemany(
        "INSERT OR REPLACE INTO bans (address, service, reason, failures, since, seconds, until, by_hand) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [msgspec.structs.astuple(ban) for ban in changes.written],
    )
