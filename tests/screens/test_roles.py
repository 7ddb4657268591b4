"""A console that may only look, and one that may save nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from screens.desk import Desk, console
from screens.scripted_engine import Script
from screens.stories import credentials, evening, guessed, hub, punches, tunnels
from tunnelconsole.control.messages import Request, Role
from tunnelconsole.screens.commands import COMMANDS
from tunnelconsole.screens.keys import KEYS, Screen
from tunnelconsole.screens.places import Place
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
        "start", "stop", "restart", "drain", "kick", "close", "disconnect", "receivers", "retry", "reload",
        "ban", "unban",
        "create", "rotate", "revoke",
    }  # fmt: skip


WAYS: dict[Screen, tuple[Callable[[], Script], Place, tuple[str, ...], str]] = {
    "overview": (evening, Place("overview"), (), "s x ctrl+d r f l R"),
    "services": (evening, Place("services"), ("g", *"jjjj"), "s x ctrl+d r f l R"),
    "sessions": (evening, Place("sessions"), (), "x ctrl+d l R"),
    "channels": (evening, Place("channels"), (), "x ctrl+d R"),
    "events": (evening, Place("events"), (), "R"),
    "chids": (hub, Place("chids"), (), "x ctrl+d e R"),
    "tunnels": (tunnels, Place("tunnels"), ("g", *"jjjjj"), "r R"),
    "request": (tunnels, Place("request", "web", request="x5"), (), "r v R"),
    "punches": (punches, Place("punches"), ("G", "k"), "r R"),
    "attempt": (punches, Place("attempt", attempt="p5"), (), "r R"),
    "help": (evening, Place("help"), (), "R"),
    "audit": (evening, Place("audit"), (), "R"),
    "bans": (guessed, Place("bans"), (), "u n R"),
    "tokens": (credentials, Place("tokens"), (), "c e r o x ctrl+d R"),
    "token": (credentials, Place("token", token="alice"), (), "e r o x ctrl+d R"),
}
"""The story and the place in it of each screen, the keys that select something, and the keys that steer there."""

STEERING_KEYS = [(screen, key) for screen, (_, _, _, keys) in WAYS.items() for key in keys.split()]


def test_every_key_that_steers_is_among_them() -> None:
    asking = [row for row in KEYS if row.group == "steer" or row.action == "secrets"]
    assert set(STEERING_KEYS) == {(screen, key) for row in asking for screen in row.where for key in row.keys}


def changing(requests: Sequence[Request]) -> list[Request]:
    """Those that change something, or show what is hidden."""
    looking = ("Get", "Watch", "Preview")
    return [
        request
        for request in requests
        if not type(request).__name__.startswith(looking) or getattr(request, "reveal", False)
    ]


@asynccontextmanager
async def at(folder: Path, screen: Screen, role: Role) -> AsyncIterator[Desk]:
    """A console with this role on a screen, at a row where there is one."""
    story, place, selecting, _ = WAYS[screen]
    async with console(folder, story(), role=role) as desk:
        desk.app.go(place)
        await desk.arrive()
        await desk.press(*selecting)
        assert desk.app.pane.screen_name == screen
        yield desk


@pytest.mark.parametrize(("screen", "key"), STEERING_KEYS)
async def test_a_key_that_steers_says_why_it_does_nothing(tmp_path: Path, screen: Screen, key: str) -> None:
    async with at(tmp_path, screen, "view") as desk:
        asked = len(desk.engine.asked)
        await desk.press(key)
        assert len(desk.app.screen_stack) == 1, "it asks a question"
        assert [told for told in desk.app.told if "your role is view" in told]
        await desk.press("y")  # whatever was asked
        assert changing(desk.engine.asked[asked:]) == []


@pytest.mark.parametrize(("screen", "key"), STEERING_KEYS)
async def test_the_same_key_steers_for_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen: Screen, key: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where an archive would be saved
    async with at(tmp_path, screen, "operate") as desk:
        asked = len(desk.engine.asked)
        await desk.press(key)
        assert len(desk.app.screen_stack) > 1 or desk.app.prompt.is_open or changing(desk.engine.asked[asked:])


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
