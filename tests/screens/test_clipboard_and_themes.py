"""Copying from the console, and changing its colours."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from screens.desk import Desk, console
from screens.stories import evening, nothing, quiet
from tunnelconsole.screens import copying, themes
from tunnelconsole.screens.preferences import Preferences, PreferencesFile


def _copied(desk: Desk) -> str:
    return base64.b64decode(desk.app.sent[-1].removeprefix("\x1b]52;c;").removesuffix("\a")).decode()


@pytest.mark.parametrize(
    ("screen", "value"),
    [
        ("overview", "partner"), ("services", "0.0.0.0:7000"), ("sessions", "198.51.100.7:40001"),
        ("channels", "www.example.com:443"), ("events", "bob attached from [2001:db8::17]:40002"),
    ],
)  # fmt: skip
async def test_y_copies_what_matters_most_of_a_row(tmp_path: Path, screen: str, value: str) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command(screen)
        await desk.arrive()
        await desk.press("y")
        assert _copied(desk) == value
        assert value in desk.toasts[-1]
        assert "through the terminal (OSC 52)" in desk.toasts[-1]


async def test_capital_y_copies_the_row_as_the_commands_print_it(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        await desk.press("2", "Y")
        assert json.loads(_copied(desk))["name"] == "home"


async def test_the_desktops_clipboard_is_used_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    def to_desktop(text: str) -> bool:
        copied.append(text)
        return True

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(copying, "to_desktop", to_desktop)
    async with console(tmp_path, quiet()) as desk:
        await desk.press("2", "y")
        assert copied == ["127.0.0.1:9527"]
        assert desk.app.sent == []
        assert "to the clipboard" in desk.toasts[-1]


async def test_a_desktop_without_a_clipboard_falls_back_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(copying, "to_desktop", lambda _text: False)
    async with console(tmp_path, quiet()) as desk:
        await desk.press("2", "y")
        assert _copied(desk) == "127.0.0.1:9527"


async def test_with_nothing_selected_there_is_nothing_to_copy(tmp_path: Path) -> None:
    async with console(tmp_path, nothing()) as desk:
        await desk.press("2", "y")
        assert "Nothing is selected" in desk.toasts[-1]


async def test_text_marked_with_the_mouse_is_copied_with_ctrl_c(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2")
        lines = desk.text().splitlines()
        at = next(at for at, line in enumerate(lines) if "public ports" in line)
        start = lines[at].index("public")
        await desk.pilot.mouse_down(offset=(start, at))
        await desk.pilot.hover(offset=(start + 5, at))
        await desk.pilot.hover(offset=(start + 11, at))
        await desk.pilot.mouse_up(offset=(start + 11, at))
        await desk.press("ctrl+c")
        assert _copied(desk) == "public ports"
        assert desk.app.is_running


@pytest.mark.parametrize("name", themes.names())
async def test_every_theme_can_be_chosen_while_the_console_runs(tmp_path: Path, name: str) -> None:
    async with console(tmp_path, evening()) as desk:
        before = desk.text()
        await desk.command(f"theme {name}")
        assert desk.app.theme == name
        assert desk.text().splitlines()[:8] == before.splitlines()[:8]
        brand = themes.load(name).style("brand")
        assert brand.color in {style.color for style in desk.styles() if style}


async def test_a_chosen_theme_is_there_the_next_time(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        await desk.command("theme day")
    async with console(tmp_path, quiet()) as desk:
        assert desk.app.theme == "day"


async def test_t_shows_one_theme_after_the_other(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        seen = [desk.app.theme]
        for _ in themes.names():
            await desk.press("t")
            seen.append(desk.app.theme)
        assert sorted(seen[1:]) == sorted(themes.names())
        assert seen[0] == seen[-1]


async def test_a_theme_that_is_gone_gives_way_to_the_default_and_says_so(tmp_path: Path) -> None:
    file = PreferencesFile(tmp_path / "console.json")
    file.save(Preferences(theme="dusk"))
    async with console(tmp_path, quiet()) as desk:
        assert desk.app.theme == themes.DEFAULT
        assert "there is no theme 'dusk'" in desk.toasts[0]


async def test_a_theme_that_cannot_be_remembered_is_shown_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    preferences = PreferencesFile(blocked / "console.json")
    async with console(tmp_path, quiet(), preferences=preferences) as desk:
        await desk.command("theme day")
        assert desk.app.theme == "day"
        assert any("cannot be remembered" in toast for toast in desk.toasts)


async def test_no_color_in_the_environment_takes_every_colour_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with console(tmp_path, evening(), no_color=None) as desk:
        assert desk.app.theme == themes.WITHOUT_COLOUR
        for style in desk.styles():
            if style is not None:
                assert style.color is None or style.color.is_default
                assert style.bgcolor is None or style.bgcolor.is_default


async def test_states_are_told_in_words_beside_their_colours(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2")
        for word in ("listening", "connected", "backoff", "failed", "stopped", "exposed"):
            assert word in desk.text()
