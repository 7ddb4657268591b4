"""A console that may only look, and one that may save nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from screens.desk import console
from screens.stories import evening
from tunnelconsole.screens.commands import COMMANDS
from tunnelconsole.screens.preferences import Preferences, PreferencesFile
from tunnelconsole.screens.roles import STEERING, refusal


@pytest.mark.parametrize("action", sorted(STEERING))
def test_who_may_only_look_is_refused_whatever_steers(action: str) -> None:
    assert refusal(action, "view", files=True)[0]
    assert refusal(f"{action}_named", "view", files=True)[0]
    assert refusal(action, "operate", files=True) == ("", "")


def test_every_command_that_steers_is_known_for_it() -> None:
    steers = {command.name for command in COMMANDS if refusal(command.action, "view", files=True)[0]}
    assert steers == {
        "start", "stop", "restart", "kick", "close", "disconnect", "receivers", "retry", "reload"
    }  # fmt: skip


@pytest.mark.parametrize("keys", [("2", "j", "x"), ("3", "x"), ("4", "x"), ("R",)])
async def test_a_key_that_steers_says_why_it_does_nothing(tmp_path: Path, keys: tuple[str, ...]) -> None:
    async with console(tmp_path, evening(), role="view") as desk:
        asked = len(desk.engine.asked)
        await desk.press(*keys)
        assert any("your role is view" in told for told in desk.app.told)
        assert len(desk.app.screen_stack) == 1
        assert all(type(request).__name__.startswith(("Get", "Watch")) for request in desk.engine.asked[asked:])


async def test_a_command_that_steers_says_so_too(tmp_path: Path) -> None:
    async with console(tmp_path, evening(), role="view") as desk:
        await desk.command("stop home")
        assert any("your role is view" in told for told in desk.app.told)


async def test_nothing_is_saved_where_no_file_may_be(tmp_path: Path) -> None:
    async with console(tmp_path, evening(), files=False) as desk:
        await desk.command("har never")
        assert any("saves no files" in told for told in desk.app.told)


def test_a_choice_that_is_not_saved_is_not_there_the_next_time(tmp_path: Path) -> None:
    PreferencesFile(tmp_path / "kept", saved=False).save(Preferences(theme="mono"))
    assert not (tmp_path / "kept").exists()
