"""Pictures of every screen, kept in ``tests/snapshots``.

After an intended change: ``pytest tests/screens/test_pictures.py --snapshot-update``, and look at them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion
from syrupy.location import PyTestLocation
from textual.widgets import Input

import waiting
from screens.desk import Desk, console
from screens.scripted_engine import Script
from screens.stories import credentials, crowded_hub, evening, hub, nothing, punches, quiet, trail, tunnels
from tunnelconsole.control.messages import Refused
from tunnelconsole.control.tokens import CreateToken
from tunnelconsole.screens import themes
from tunnelconsole.screens.places import Place

SMALL, USUAL, LARGE, PHONE = (80, 24), (120, 36), (200, 50), (40, 20)


class Pictures(SVGImageExtension):
    """One SVG file for each test."""

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(Path(test_location.filepath).parents[1] / "snapshots" / test_location.basename)


@pytest.fixture
def kept(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """The picture that was kept of this test."""
    return snapshot.use_extension(Pictures)


async def _picture(desk: Desk) -> str:
    await desk.settle()
    return desk.app.export_screenshot()


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("screen", ["overview", "services", "sessions", "channels", "events", "help"])
async def test_screen(tmp_path: Path, kept: SnapshotAssertion, screen: str, size: tuple[int, int]) -> None:
    async with console(tmp_path, evening(), size) as desk:
        await desk.command(screen)
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("story", [hub, crowded_hub], ids=["few", "fifty"])
async def test_chids(
    tmp_path: Path, kept: SnapshotAssertion, story: Callable[[], Script], size: tuple[int, int]
) -> None:
    async with console(tmp_path, story(), size) as desk:
        await desk.command("chids")
        await desk.arrive()
        assert await _picture(desk) == kept


async def test_chids_without_colour(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, hub(), SMALL, no_color=True) as desk:
        await desk.command("chids")
        await desk.arrive()
        await desk.press("j", "right")
        assert await _picture(desk) == kept


async def test_chids_while_bytes_are_lost(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, hub(), USUAL) as desk:
        await desk.command("chids")
        await desk.arrive()
        desk.clock.time += 1
        rows = desk.engine.script.chids
        desk.engine.script.chids = [replace(row, dropped=2 * row.dropped) for row in rows]
        await desk.tick()
        await desk.press("G", "up")
        assert await _picture(desk) == kept


async def test_chids_as_a_list(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, crowded_hub(), SMALL) as desk:
        await desk.command("chids")
        await desk.arrive()
        await desk.press("m")
        assert await _picture(desk) == kept


async def test_receivers_being_changed(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, hub(), SMALL) as desk:
        await desk.command("chids")
        await desk.arrive()
        await desk.press("e")
        await desk.write("*")
        assert await _picture(desk) == kept
        await desk.press("enter")
        await desk.settle()
        assert "It shall send to all others. Now it sends to laptop, wall." in desk.text()


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_tunnels(tmp_path: Path, kept: SnapshotAssertion, size: tuple[int, int]) -> None:
    async with console(tmp_path, tunnels(), size) as desk:
        await desk.command("tunnels")
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("key", ["x5", "x6", "x7"])
async def test_request(tmp_path: Path, kept: SnapshotAssertion, key: str, size: tuple[int, int]) -> None:
    async with console(tmp_path, tunnels(), size) as desk:
        desk.app.go(Place("request", "web", request=key))
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_punches(tmp_path: Path, kept: SnapshotAssertion, size: tuple[int, int]) -> None:
    async with console(tmp_path, punches(), size) as desk:
        await desk.command("punches")
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("key", ["p1", "p2", "p3", "p5"])
async def test_punch(tmp_path: Path, kept: SnapshotAssertion, key: str, size: tuple[int, int]) -> None:
    async with console(tmp_path, punches(), size) as desk:
        desk.app.go(Place("attempt", attempt=key))
        await desk.arrive()
        assert await _picture(desk) == kept


async def test_punch_without_colour(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, punches(), SMALL, no_color=True) as desk:
        desk.app.go(Place("attempt", attempt="p3"))
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_tokens(tmp_path: Path, kept: SnapshotAssertion, size: tuple[int, int]) -> None:
    async with console(tmp_path, credentials(), size) as desk:
        await desk.command("tokens")
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_token(tmp_path: Path, kept: SnapshotAssertion, size: tuple[int, int]) -> None:
    async with console(tmp_path, credentials(), size) as desk:
        await desk.command("tokens alice")
        await desk.arrive()
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, USUAL], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_token_being_changed(tmp_path: Path, kept: SnapshotAssertion, size: tuple[int, int]) -> None:
    async with console(tmp_path, credentials(), size) as desk:
        await desk.command("tokens alice")
        await desk.arrive()
        await desk.press("e", "down")
        desk.app.screen.query_one("#field-hosts", Input).cursor_blink = False
        await desk.press("down", "up")
        assert await _picture(desk) == kept


async def test_token_refused_at_its_form_without_colour(tmp_path: Path, kept: SnapshotAssertion) -> None:
    script = credentials()
    message = 'a token cannot have these rights: rate: "fast" is not a rate; write one as "10MB/s"'
    script.refusals[CreateToken] = Refused(message)
    async with console(tmp_path, script, SMALL, no_color=True) as desk:
        await desk.command("create dave")
        desk.app.screen.query_one("#field-rate", Input).cursor_blink = False
        await desk.press("ctrl+s")
        await waiting.until(lambda: "is not a rate" in desk.text())
        assert await _picture(desk) == kept


async def test_secret_of_a_token(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, credentials(), SMALL) as desk:
        await desk.command("rotate alice")
        await desk.press("enter")
        await waiting.until(lambda: "tc_" in desk.text())
        assert await _picture(desk) == kept


async def test_request_further_down(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, tunnels(), SMALL) as desk:
        desk.app.go(Place("request", "web", request="x5"))
        await desk.arrive()
        await desk.press("b", "pagedown")
        assert await _picture(desk) == kept


async def test_request_without_colour(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, tunnels(), SMALL, no_color=True) as desk:
        desk.app.go(Place("request", "web", request="x5"))
        await desk.arrive()
        await desk.press("v", "y")
        await desk.settle()
        assert await _picture(desk) == kept


async def test_replaying_asks_first(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, tunnels(), SMALL) as desk:
        desk.app.go(Place("request", "web", request="x5"))
        await desk.arrive()
        await desk.press("r")
        assert await _picture(desk) == kept


@pytest.mark.parametrize("theme", themes.names())
async def test_theme(tmp_path: Path, kept: SnapshotAssertion, theme: str) -> None:
    async with console(tmp_path, evening(), (100, 30), theme=theme) as desk:
        assert await _picture(desk) == kept


@pytest.mark.parametrize(
    "screen", ["overview", "services", "sessions", "channels", "events", "chids", "tunnels", "tokens"]
)
async def test_empty(tmp_path: Path, kept: SnapshotAssertion, screen: str) -> None:
    async with console(tmp_path, nothing(), SMALL) as desk:
        await desk.command(screen)
        await desk.arrive()
        assert await _picture(desk) == kept


async def test_quiet(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, quiet(), SMALL) as desk:
        assert await _picture(desk) == kept


async def test_drilled_in(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.command("sessions home")
        await desk.arrive()
        assert await _picture(desk) == kept


async def test_filtered(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.press("2", "slash")
        await desk.type("!relay")
        assert await _picture(desk) == kept


async def test_filtered_to_nothing(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.press("2")
        await desk.command("filter zebra")
        assert await _picture(desk) == kept


async def test_command_line(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.press("colon")
        await desk.type("s")
        assert await _picture(desk) == kept


async def test_frozen(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.press("4")
        await desk.arrive()
        await desk.press("p")
        assert await _picture(desk) == kept


async def test_question(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.press("2")
        await desk.settle()  # what is below a question is drawn before it is asked
        await desk.press("j", "x")
        assert await _picture(desk) == kept


async def test_leaving(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL, owns_engine=True) as desk:
        await desk.press("q")
        await waiting.until(lambda: len(desk.app.screen_stack) > 1)
        assert await _picture(desk) == kept


async def test_toast(tmp_path: Path, kept: SnapshotAssertion) -> None:
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.command("stop nobody")
        assert await _picture(desk) == kept


async def test_waiting_for_the_engine(tmp_path: Path, kept: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tunnelconsole.screens.feed.LONGEST_WAIT", 0.1)  # so that the next try is never far off
    async with console(Path(), quiet(), SMALL, running=False) as desk:
        await waiting.until(lambda: desk.app.link.error)
        assert await _picture(desk) == kept
        await desk.engine.start()


async def test_engine_lost(tmp_path: Path, kept: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.screens.feed.FIRST_WAIT", 5.0)
    async with console(tmp_path, evening(), SMALL) as desk:
        await desk.engine.stop()
        await waiting.until(lambda: desk.app.link.state == "lost")
        desk.clock.time += 2
        desk.app.present()
        assert await _picture(desk) == kept
        await desk.engine.start()


async def test_demonstration(tmp_path: Path, kept: SnapshotAssertion) -> None:
    script = evening()
    script.status = replace(script.status, faults=0)
    async with console(tmp_path, script, SMALL, demo=True) as desk:
        assert await _picture(desk) == kept


@pytest.mark.parametrize("size", [PHONE, SMALL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_audit(tmp_path: Path, kept: SnapshotAssertion, size: tuple[int, int]) -> None:
    async with console(tmp_path, trail(), size) as desk:
        await desk.command("audit")
        await desk.arrive()
        assert await _picture(desk) == kept
