"""The audit trail: what is recorded, what is kept, and what happens where it cannot be written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from left_behind import nothing_left_behind
from loopback import FREE, hears, told
from tunnelconsole.engine import audit, backoff, keeping, store
from tunnelconsole.engine.audit import (
    ENGINE,
    REFUSED_EACH,
    Actor,
    AuditEntry,
    AuditTrail,
    accounted_for,
    difference,
    printable,
    user,
)
from tunnelconsole.engine.audit_events import Audited, AuditLost
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import StoreFailed, StoreRecovered
from tunnelconsole.engine.schema import STEPS
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.engine.store import Store
from tunnelconsole.errors import RequestRefused
from waiting import until

__all__ = ["nothing_left_behind"]

NAME = "state.sqlite3"

ALICE = Actor("ssh alice SHA256:abc", "ssh")
OWN = user(os.geteuid())


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again without much waiting, and writes nothing unless it is due."""
    monkeypatch.setattr(keeping, "SAVE_INTERVAL", 3600.0)
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.02)
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 0.01)


@pytest_asyncio.fixture
async def engine(tmp_path: Path, soon: None) -> AsyncIterator[Engine]:
    """An engine whose start is in the store."""
    async with Engine(state_dir=tmp_path) as made:
        await until(lambda: actions(tmp_path) == ["start-engine"])
        yield made


@contextmanager
def looking(folder: Path) -> Iterator[sqlite3.Connection]:
    """Another program that looks at the state."""
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as database:
        yield database


def actions(folder: Path) -> list[str]:
    """What is kept, in order."""
    with looking(folder) as database:
        return [action for (action,) in database.execute("SELECT action FROM audit ORDER BY number")]


def remove(folder: Path) -> None:
    for file in folder.glob(f"{NAME}*"):
        if not file.name.endswith(".lock"):
            file.unlink()


def entries(trail: AuditTrail) -> list[tuple[str, str, str, str, str]]:
    return [(each.who, each.action, each.object, each.outcome, each.text) for _, each in trail.rows()]


def act(engine: Engine, *names: str) -> None:
    for name in names:
        engine.audit.record(ALICE, name, "home", "done")


# what is recorded


async def test_an_engine_says_who_started_it_and_why_it_ended(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        assert engine.node.audit is engine.audit
    process = f"process {os.getpid()}"
    assert entries(engine.audit) == [
        ("engine", "start-engine", process, "done", f"started by {OWN}"),
        ("engine", "stop-engine", process, "done", "stopped: the program that embeds it is done"),
    ]
    assert actions(tmp_path) == ["start-engine", "stop-engine"]


async def test_an_entry_is_an_event() -> None:
    async with Engine() as engine:
        engine.audit.record(ALICE, "stop-service", "home", "done", "service home is stopped")
        event = told(engine, Audited)[-1]
        assert event.text() == "ssh alice SHA256:abc: stop-service home: done: service home is stopped"
        engine.audit.record(Actor(OWN, "console"), "reload-config", "", "refused")
        assert told(engine, Audited)[-1].text() == f"{OWN} by console: reload-config: refused"


async def test_what_a_program_does_that_embeds_the_engine_is_recorded_once() -> None:
    async with Engine({"edge": RelayServerSettings(listen=FREE)}) as engine:
        await engine.settled()
        await engine.stop_service("edge")
        with pytest.raises(RequestRefused):
            engine.kick("s1")
        await engine.apply({})
        assert [each.via for _, each in engine.audit.rows()][1:] == ["api"] * 3
        assert entries(engine.audit)[1:] == [
            (OWN, "stop-service", "edge", "done", ""),
            (OWN, "kick-session", "s1", "refused", "there is no session s1"),
            (OWN, "reload-config", "", "done", "0 added, 0 changed, 1 removed, 0 untouched"),
        ]


async def test_a_token_that_a_program_makes_is_recorded_without_its_secret() -> None:
    async with Engine() as engine:
        secrets = [await engine.node.tokens.create(name="laptop"), await engine.node.tokens.rotate("laptop")]
        await engine.node.tokens.revoke("laptop")
        assert entries(engine.audit)[1:] == [
            (OWN, "create-token", "laptop", "done", ""),
            (OWN, "rotate-token", "laptop", "done", ""),
            (OWN, "revoke-token", "laptop", "done", "token laptop revoked"),
        ]
        assert not any(secret in str(engine.audit.rows()) for secret in secrets)


async def test_what_somebody_else_accounts_for_is_not_recorded_twice() -> None:
    async with Engine({"edge": RelayServerSettings(listen=FREE)}) as engine:
        await engine.settled()
        with accounted_for():
            await engine.restart_service("edge")
            begun = engine.node.tasks_of("test").start(engine.stop_service("edge"), "what is begun meanwhile")
        await begun
        assert [each.action for _, each in engine.audit.rows()] == ["start-engine", "stop-service"]


def test_a_reload_is_told_by_the_names_of_services() -> None:
    one, other = object(), object()
    before: dict[str, object] = {"home": one, "edge": one, "old": one}
    after: dict[str, object] = {"home": one, "edge": other, "new": one, "web": one}
    assert difference(before, after) == "added: new, web; changed: edge; removed: old"
    assert difference(before, before) == ""


@given(st.text(st.characters(codec=None), max_size=60), st.integers(1, 40))
def test_whatever_strangers_choose_is_printable_and_bounded(text: str, longest: int) -> None:
    shown = printable(text, longest)
    assert len(shown) <= longest
    assert shown.isprintable()
    shown.encode()


def test_what_is_printable_and_short_stays_as_it_is_and_lines_become_one() -> None:
    assert printable("größer … 字", 12) == "größer … 字"
    assert printable("one\ntwo\n", 40) == "one; two"
    assert printable("\x1b[2J\u202e", 40) == "\\x1b[2J\\u202e"
    assert printable("abcdef", 4) == "abc…"


# who asks again and again


def test_many_refusals_of_one_party_become_one_entry_and_push_out_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trail = AuditTrail(Bus())
    for number in range(REFUSED_EACH + 30):
        trail.record(ALICE, "kick-session", f"s{number}", "refused", "its role is view")
    trail.record(ALICE, "stop-service", "home", "done")
    trail.record(Actor(OWN, "command"), "kick-session", "s1", "refused", "there is no session s1")
    assert len(trail.rows()) == REFUSED_EACH + 2
    trail.tell_refused()
    assert len(trail.rows()) == REFUSED_EACH + 2
    monkeypatch.setattr(audit, "REFUSED_INTERVAL", 0.0)
    trail.tell_refused()
    assert entries(trail)[-1] == (
        ALICE.who,
        "various",
        "",
        "refused",
        "30 more requests were refused within 0 s",
    )
    trail.record(ALICE, "kick-session", "s1", "refused", "again")
    assert entries(trail)[-1][-1] == "again"


async def test_what_was_counted_is_told_at_the_end(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        for _ in range(REFUSED_EACH + 1):
            engine.audit.record(ALICE, "kick-session", "s1", "refused")
    assert actions(tmp_path)[-2:] == ["various", "stop-engine"]


# what is kept


async def test_it_is_written_at_once(tmp_path: Path, engine: Engine) -> None:
    act(engine, "one", "two")
    await until(lambda: actions(tmp_path) == ["start-engine", "one", "two"])


async def test_it_survives_a_restart_with_negative_numbers(tmp_path: Path, engine: Engine) -> None:
    act(engine, "one")
    await engine.stop(drain=0.0)
    async with Engine(state_dir=tmp_path) as later:
        rows = [(number, entry.action) for number, entry in later.audit.rows()]
        assert rows == [(-3, "start-engine"), (-2, "one"), (-1, "stop-engine"), (1, "start-engine")]
        assert [entry.action for _, entry in later.audit.rows(limit=2)] == ["stop-engine", "start-engine"]
        (_, last) = later.audit.rows()[-1]
        assert later.audit.rows(since=last.time) == [(1, last)]
        assert later.audit.rows(limit=0) == []


async def test_so_many_are_kept_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soon: None) -> None:
    monkeypatch.setattr(audit, "KEPT_ENTRIES", 3)
    monkeypatch.setattr(store, "KEPT_ENTRIES", 3)
    async with Engine(state_dir=tmp_path) as engine:
        act(engine, "one", "two")
    assert actions(tmp_path) == ["one", "two", "stop-engine"]
    async with Engine(state_dir=tmp_path) as engine:
        assert [each.action for _, each in engine.audit.rows()] == ["two", "stop-engine", "start-engine"]


async def test_a_store_of_the_first_version_takes_it(tmp_path: Path) -> None:
    with looking(tmp_path) as database:
        database.executescript(STEPS[0])
        database.execute("PRAGMA user_version = 1")
    async with Engine(state_dir=tmp_path) as engine:
        act(engine, "one")
    assert actions(tmp_path) == ["start-engine", "one", "stop-engine"]


async def test_every_field_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = AuditEntry(1.5, "who", "via", "action", "object", "outcome", "text 字")
    opened = Store(tmp_path / NAME)
    await opened.open()
    await opened.save({}, [], [kept])
    assert await opened.audit() == [kept]
    await opened.close()


# where it cannot be written


async def test_while_the_database_is_locked_it_waits_in_memory_and_nothing_is_lost(
    tmp_path: Path, engine: Engine
) -> None:
    with looking(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        act(engine, "one")
        await hears(engine, StoreFailed, "database is locked")
        act(engine, "two", "three")
        assert [each.action for _, each in engine.audit.rows()][1:] == ["one", "two", "three"]
        other.execute("COMMIT")
    await hears(engine, StoreRecovered)
    await until(lambda: actions(tmp_path) == ["start-engine", "one", "two", "three"])
    assert not told(engine, AuditLost)
    assert len(told(engine, StoreFailed)) == 1


async def test_a_disk_that_was_full_for_a_moment_costs_no_entry(tmp_path: Path, engine: Engine) -> None:
    database = engine._keeper._store._database
    assert database is not None
    database.execute("PRAGMA max_page_count = 1")
    names = [f"{number}-{'x' * 100}" for number in range(300)]
    act(engine, *names)
    await hears(engine, StoreFailed, "database or disk is full")
    await hears(engine, StoreRecovered)
    await until(lambda: actions(tmp_path)[1:] == names)


async def test_a_file_that_was_removed_is_made_again_with_all_that_is_known(tmp_path: Path, engine: Engine) -> None:
    remove(tmp_path)
    act(engine, "one")
    await hears(engine, StoreRecovered)
    assert actions(tmp_path) == ["start-engine", "one"]


async def test_what_cannot_wait_any_longer_is_counted_and_told(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "KEPT_ENTRIES", 3)
    with looking(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        act(engine, "one")
        await hears(engine, StoreFailed)
        act(engine, "two", "three", "four", "five", "six")
        assert [event.count for event in told(engine, AuditLost)] == [1]
        other.execute("COMMIT")
    await until(lambda: [event.count for event in told(engine, AuditLost)] == [1, 2])
    assert actions(tmp_path) == ["start-engine", "four", "five", "six"]


async def test_what_the_last_write_cannot_keep_is_told_too(tmp_path: Path, engine: Engine) -> None:
    with looking(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        act(engine, "one")
        await hears(engine, StoreFailed)
        await engine.stop(drain=0.0)
        other.execute("COMMIT")
    assert [event.count for event in told(engine, AuditLost)] == [2]
    engine.audit.record(ENGINE, "late", "", "done")
    assert [event.count for event in told(engine, AuditLost)] == [2, 1]


async def test_where_the_first_read_fails_earlier_entries_come_later(tmp_path: Path, soon: None) -> None:
    async with Engine(state_dir=tmp_path):
        pass
    with looking(tmp_path) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        engine = Engine(state_dir=tmp_path)
        await engine.start()
        assert [number for number, _ in engine.audit.rows()] == [1]
        other.execute("COMMIT")
    await until(lambda: [number for number, _ in engine.audit.rows()] == [-2, -1, 1])
    await engine.stop(drain=0.0)
    assert actions(tmp_path) == ["start-engine", "stop-engine"] * 2
