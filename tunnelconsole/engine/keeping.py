"""Keeping state: the store is written again and again while the engine runs, and tried again while it fails.

What cannot be written waits in memory: the totals, and as many of the last events as the store would keep. Nothing here
holds up a tunnel: the store has a thread of its own, and the task that waits for it waits alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from tunnelconsole.engine.audit import AuditEntry
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.ban_table import read_bans, write_bans
from tunnelconsole.engine.bans import MAX_BANS, usable
from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.events import StoreFailed, StoreRecovered, StoreUpdated
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.store import KEPT_EVENTS, Store, StoredEvent
from tunnelconsole.engine.tokens.table import read_tokens, write_tokens
from tunnelconsole.errors import NotPrivate

SAVE_INTERVAL = 5.0
"""Seconds between two writes: what a crash can lose."""

FILE_NAME = "state.sqlite3"


C = TypeVar("C")


class Register(Protocol[C]):
    """Something of which what has changed is kept."""

    def take_changes(self) -> C:
        """What has changed since this was asked last."""

    def put_back(self, changes: C) -> None:
        """Takes changes again that could not be kept."""


class Keeper:
    """Keeps the totals of a node's meters, and its warnings and errors, from when this is made.

    :param state_dir: the folder for the file.
    """

    def __init__(self, node: Node, state_dir: Path) -> None:
        self._bus = node.bus
        self._meters = node.meters
        self._audit = node.audit
        self._audit.due = self._entry_due
        self._tasks = node.tasks_of("store")
        self._store = Store(state_dir / FILE_NAME)
        self._opened = False
        self._failing = False
        self._unsaved: deque[StoredEvent] = deque(maxlen=KEPT_EVENTS)
        self._closing = asyncio.Event()
        self._due = asyncio.Event()
        """Set when something is to be written at once, unless that fails at the moment."""
        self._bans = node.bans
        self._bans.due = self._due.set
        self._tokens = node.tokens
        self._left_out: set[str] = set()
        """Names of tokens in the file that could not be read: they stay there."""
        self._writing_tokens = asyncio.Lock()
        node.tokens.keep = self.keep_tokens
        node.tokens.due = self._due.set
        self._saving: asyncio.Task[None] | None = None
        self.earlier_events: Sequence[StoredEvent] = ()
        """Warnings and errors of earlier runs, oldest first; empty where they could not be read at the start."""
        node.bus.listen(self._keep_notable)

    def _keep_notable(self, record: Record) -> None:
        event = record.event
        if event.level in ("warning", "error"):
            self._unsaved.append(StoredEvent(record.time, event.level, event.type, event.service, event.text()))

    def _entry_due(self) -> None:
        self._due.set()

    async def start(self) -> None:
        """Takes over what was kept, and keeps on; state that cannot be opened is an event, and is tried again.

        :raises NotPrivate: others could change what is in the folder.
        """
        try:
            self.earlier_events = await self._open()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        except NotPrivate:
            await self._store.close()
            raise
        self._saving = self._tasks.start(self._save_on(), "saving")

    async def _open(self) -> list[StoredEvent]:
        """Opens the file, adds to the meters what it has of them when it is the first time, and reads its events."""
        await self._store.open()
        if self._store.replaced is not None:
            reason = (
                f"{self._store.path} was not readable and has been moved to {self._store.replaced}; "
                "the new one is empty: there are no tokens, bans, totals and audit entries of before"
            )
            self._store.replaced = None
            self._bus.publish(StoreFailed(reason=reason))
        if self._store.copied is not None:
            self._bus.publish(StoreUpdated(path=str(self._store.path), copy=str(self._store.copied)))
            self._store.copied = None
        if not self._opened:
            totals, events = await self._store.totals(), await self._store.events()
            tokens = await self._store.transact(read_tokens)
            bans = await self._store.transact(lambda database: usable(read_bans(database, MAX_BANS)))
            self._audit.restore(await self._store.audit())  # from here on nothing fails: totals would be added twice
            self._meters.restore(totals)
            self._bans.restore(bans)
            self._tokens.load(tokens)
            self._left_out = {token.name for token in tokens} - {token.name for token in self._tokens}
            await self._tokens.keyring.open_loaded()
            self._opened = True
            return events
        # The file may be another one, such as a copy from before somebody's token was revoked, or a ban was set.
        self._bans.all_changed()
        found = {token.name for token in await self._store.transact(read_tokens)}
        self._tokens.all_changed(found - self._left_out)
        return []

    async def keep_tokens(self) -> str:
        """Writes what has changed of the tokens now; returns why that cannot be, "" when it was done."""
        try:
            await self._save_tokens()
        except (sqlite3.Error, OSError) as error:
            return _reason(error)
        return ""

    async def _save_tokens(self) -> None:
        async with self._writing_tokens:
            await self._save_changes(self._tokens, write_tokens)

    async def _save_changes(self, register: Register[C], write: Callable[[sqlite3.Connection, C], None]) -> None:
        changes = register.take_changes()
        if not changes:
            return
        try:
            await self._store.transact(lambda database: write(database, changes))
        except BaseException:
            register.put_back(changes)
            raise

    async def _save_on(self) -> None:
        """Writes every :data:`SAVE_INTERVAL`, and the audit trail at once; after a failure later and later."""
        backoff = Backoff()
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(backoff.next() if self._failing else SAVE_INTERVAL):
                    await (self._closing if self._failing else self._due).wait()
            except TimeoutError:
                await self._save()
            else:
                if not self._closing.is_set():
                    await self._save()
            if not self._failing:
                backoff = Backoff()

    async def _save(self) -> None:
        """Writes what there is; tells the first failure, and that it works again."""
        events = list(self._unsaved)
        self._unsaved.clear()
        self._due.clear()
        entries = self._audit.take()
        try:
            if self._failing:
                await self._open()
            await self._store.save(self._meters.totals(), events, await self._missing(entries))
            events, entries = [], []
            await self._save_tokens()
            await self._save_changes(self._bans, write_bans)
        except (sqlite3.Error, OSError, NotPrivate) as error:
            self._unsaved = deque([*events, *self._unsaved], maxlen=KEPT_EVENTS)
            self._audit.give_back(entries)
            self._fail(error)
            return
        self._audit.written()
        if self._failing:
            self._failing = False
            self._tokens.noting = True
            self._bus.publish(StoreRecovered(path=str(self._store.path)))

    async def _missing(self, entries: list[AuditEntry]) -> list[AuditEntry]:
        """The entries that the file lacks: after a failure it may be another one, in which there are none at all."""
        if self._failing and not await self._store.has_audit():
            return [entry for _, entry in self._audit.rows()]
        return entries

    def _fail(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self._tokens.noting = False
            self._bus.publish(StoreFailed(reason=f"{self._store.path}: {_reason(error)}"))

    async def close(self) -> None:
        """Writes for the last time, and leaves the folder to others."""
        self._closing.set()
        self._due.set()
        if self._saving is not None:
            await asyncio.wait({self._saving})
            await self._save()
            await self._store.close()
        self._audit.close()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
