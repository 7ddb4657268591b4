"""The screen of the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from screens.desk import Desk, console
from screens.rows import entry, event
from screens.scripted_engine import Script
from screens.stories import ALICE, trail
from tunnelconsole.control.audit import GetAudit
from tunnelconsole.control.messages import Refused, ReloadConfig, Watch
from tunnelconsole.screens.auditing import ENTRIES_ASKED


@asynccontextmanager
async def at_audit(folder: Path, script: Script | None = None, **options: Any) -> AsyncIterator[Desk]:
    """A console that shows the audit trail."""
    async with console(folder, script or trail(), **options) as desk:
        await desk.command("audit")
        await desk.arrive()
        yield desk


def keys(desk: Desk) -> list[int]:
    table = desk.app.pane.table
    assert table is not None
    return [row.id for row in table.rows]


async def test_entries_are_listed_the_newest_first(tmp_path: Path) -> None:
    async with at_audit(tmp_path, size=(160, 36)) as desk:
        assert keys(desk) == [3, 2, 1, -1]
        line = desk.line("kick-session")
        assert "▲ refused" in line
        assert "ssh alice SHA256:ZvO5Kj…" in line
        assert "there is no session s9" in line
        assert "2 refused" in desk.text()
        assert desk.engine.watched == [Watch(["services", "events"], 0.5)]
        assert GetAudit(ENTRIES_ASKED) in desk.engine.asked


async def test_it_is_reached_from_the_events_and_left_again(tmp_path: Path) -> None:
    async with console(tmp_path, trail()) as desk:
        await desk.press("5", "a")
        assert desk.app.pane.screen_name == "audit"
        await desk.press("escape")
        assert "WHAT HAPPENED" in desk.text()


async def test_enter_shows_all_of_an_entry_that_is_longer_than_its_line(tmp_path: Path) -> None:
    async with at_audit(tmp_path, size=(80, 40)) as desk:
        assert "service.s8.listen" not in desk.line("reload-config")
        await desk.press("enter")
        shown = " ".join(desk.text().split())
        assert "reload-config: refused" in shown
        assert "service.s8.listen: expected" in shown.replace("│ │ ", "")
        assert "By user root (uid 0), via console, 2025-06-15 15:05:03." in shown
        await desk.press("c")
        assert len(desk.app.screen_stack) == 1


@pytest.mark.parametrize(("text", "found"), [("alice", [2]), ("refused", [3, 2]), ("!root", [2, -1]), ("home", [1])])
async def test_a_filter_looks_through_all_of_an_entry(tmp_path: Path, text: str, found: list[int]) -> None:
    async with at_audit(tmp_path) as desk:
        await desk.command(f"filter {text}")
        assert keys(desk) == found


async def test_it_is_sorted_by_who_and_by_outcome(tmp_path: Path) -> None:
    async with at_audit(tmp_path) as desk:
        await desk.press("W")
        assert keys(desk) == [-1, 2, 1, 3]
        await desk.press("O")
        assert keys(desk)[:2] == [2, 3]


async def test_a_new_entry_comes_by_itself_but_for_a_frozen_picture(tmp_path: Path) -> None:
    async with at_audit(tmp_path) as desk:
        script = desk.engine.script
        for frozen in (True, False):
            await desk.press("p")
            if frozen:
                script.audit.append(entry(4, "start-service"))
                script.events.append(event(2, "an entry", type="audited"))
            await desk.tick()
            await desk.settle()
            assert (4 in keys(desk)) is not frozen


async def test_nothing_is_asked_where_nothing_was_done(tmp_path: Path) -> None:
    async with at_audit(tmp_path) as desk:
        asked = desk.engine.asked.count(GetAudit(ENTRIES_ASKED))
        desk.engine.script.events.append(event(2, "something else"))
        await desk.tick()
        await desk.tick()
        assert desk.engine.asked.count(GetAudit(ENTRIES_ASKED)) == asked


async def test_an_empty_trail_says_why(tmp_path: Path) -> None:
    script = trail()
    script.audit.clear()
    async with at_audit(tmp_path, script) as desk:
        assert "Nobody has had the engine do anything." in desk.text()


async def test_an_engine_that_does_not_know_the_trail_is_told(tmp_path: Path) -> None:
    script = trail()
    script.refusals[GetAudit] = Refused("this is not a request", "restart the engine")
    async with at_audit(tmp_path, script) as desk:
        assert "This is not a request." in desk.text()


async def test_an_entry_is_copied_whole(tmp_path: Path) -> None:
    async with at_audit(tmp_path) as desk:
        await desk.press("j", "y")
        assert desk.toasts[-1].startswith("Copied entry: ")


async def test_who_may_only_look_may_look_at_it(tmp_path: Path) -> None:
    async with at_audit(tmp_path, role="view") as desk:
        assert keys(desk) == [3, 2, 1, -1]


async def test_the_details_have_the_whole_fingerprint(tmp_path: Path) -> None:
    async with at_audit(tmp_path) as desk:
        await desk.press("j")
        assert ALICE in desk.text()


async def test_what_a_key_does_is_asked_for_as_a_console(tmp_path: Path) -> None:
    async with console(tmp_path, trail()) as desk:
        await desk.press("R")
        await desk.asked(ReloadConfig())
        assert desk.engine.means == {"console"}
