"""An engine that is not there yet, goes away, falls silent, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

import waiting
from screens.desk import console
from screens.rows import event, service
from screens.stories import evening, quiet
from tunnelconsole.screens.widgets.chrome import STALE_AFTER


async def test_the_console_paints_before_there_is_an_engine_and_says_what_it_waits_for(tmp_path: Path) -> None:
    async with console(tmp_path, quiet(), running=False) as desk:
        assert "waiting for the engine" in desk.text()
        assert f"Nothing answers yet at {tmp_path}"[:60] in desk.text()
        await desk.engine.start()
        await desk.arrive()
        assert "● running" in desk.text()
        assert "home" in desk.text()


async def test_an_engine_that_went_away_is_said_so_and_what_was_known_stays(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2")
        await desk.engine.stop()
        await waiting.until(lambda: desk.app.link.state == "lost")
        await desk.settle()
        assert "The engine went away" in desk.text()
        assert "what is shown is old" in desk.text()
        assert len(desk.column("NAME")) == 6
        desk.clock.time += 75
        desk.app.present()
        await desk.settle()
        assert "1m15s ago" in desk.text()
        await desk.engine.start()


async def test_an_engine_that_comes_back_is_found_and_shown(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        await desk.press("2")
        await desk.engine.stop()
        await waiting.until(lambda: desk.app.link.state == "lost")
        desk.engine.script.services = [service("home"), service("second")]
        await desk.engine.start()
        await waiting.until(lambda: desk.app.link.state == "live" and len(desk.app.latest.services or ()) == 2)
        await desk.settle()
        assert "went away" not in desk.text()
        assert desk.column("NAME") == ["home", "second"]


async def test_the_banner_can_be_clicked_to_try_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.screens.feed.FIRST_WAIT", 3600.0)
    async with console(tmp_path, quiet()) as desk:
        await desk.engine.stop()
        await waiting.until(lambda: desk.app.link.state == "lost")
        await desk.engine.start()
        await desk.settle()
        line = desk.text().splitlines()[2]
        await desk.pilot.click(offset=(line.index("trying again"), 2))
        await desk.arrive()
        assert desk.app.link.state == "live"
        assert "went away" not in desk.text()


async def test_an_engine_that_falls_silent_is_said_so(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        desk.clock.time += STALE_AFTER + 1
        desk.app.present()
        await desk.settle()
        assert "The engine is silent" in desk.text()
        await desk.tick()
        assert "silent" not in desk.text()


async def test_events_from_before_the_console_came_are_shown(tmp_path: Path) -> None:
    script = quiet()
    script.events = [event(-1, "from before the last start"), event(1, "since")]
    async with console(tmp_path, script) as desk:
        await desk.press("5")
        assert "from before the last start" in desk.text()


async def test_a_draining_engine_says_so(tmp_path: Path) -> None:
    script = quiet()
    script.status = replace(script.status, draining=True)
    async with console(tmp_path, script) as desk:
        assert "engine is draining" in desk.text()
