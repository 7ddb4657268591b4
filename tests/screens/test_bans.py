"""The screen of bans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from screens.desk import Desk, console
from screens.stories import guessed
from tunnelconsole.control.bans import BanAddress, LiftBan
from tunnelconsole.control.messages import Refused
from tunnelconsole.screens.banning import read_ban


@asynccontextmanager
async def at_bans(folder: Path, **options: Any) -> AsyncIterator[Desk]:
    """A console that shows the bans."""
    async with console(folder, guessed(), **options) as desk:
        await desk.command("bans")
        await desk.arrive()
        yield desk


def shown(desk: Desk) -> list[str]:
    table = desk.app.pane.table
    assert table is not None
    return [row.address for row in table.rows]


async def test_bans_are_listed_the_newest_first_with_why_and_how_long_still(tmp_path: Path) -> None:
    async with at_bans(tmp_path, size=(160, 36)) as desk:
        assert shown(desk) == ["192.0.2.7", "2001:db8:0:1::/64", "203.0.113.9"]
        line = " ".join(desk.line("192.0.2.7").split())
        assert line.startswith("192.0.2.7 wrong secret home 10 1,234")
        assert "9m00s" in line
        assert "by hand" in desk.line("203.0.113.9")


async def test_the_details_tell_all_in_words(tmp_path: Path) -> None:
    async with at_bans(tmp_path, size=(160, 36)) as desk:
        text = " ".join(desk.text().split())
        assert "wrong secret 10 failures, the last at home" in text
        assert "for 9m00s still" in text
        assert "1,234 connections" in text


async def test_they_are_reached_from_the_sessions_and_left_again(tmp_path: Path) -> None:
    async with console(tmp_path, guessed()) as desk:
        await desk.press("3")
        await desk.press("b")
        await desk.arrive()
        assert shown(desk)[0] == "192.0.2.7"
        await desk.press("escape")
        assert "Nobody is attached." in desk.text()


async def test_one_is_lifted_without_a_question(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        await desk.press("j", "u")
        await desk.asked(LiftBan("2001:db8:0:1::/64"))


async def test_one_is_lifted_by_name_from_any_screen(tmp_path: Path) -> None:
    async with console(tmp_path, guessed()) as desk:
        await desk.command("unban 192.0.2.7")
        await desk.asked(LiftBan("192.0.2.7"))


async def test_what_the_engine_refuses_is_told(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        desk.engine.script.refusals[LiftBan] = Refused("192.0.2.7 is not banned", "list them again")
        await desk.press("u")
        await desk.asked(LiftBan("192.0.2.7"))
        await desk.settle()
        assert "192.0.2.7 is not banned" in desk.toasts[-1]


async def test_one_is_set_by_hand(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        await desk.press("n")
        await desk.type("198.51.100.4 7d")
        await desk.press("enter")
        await desk.asked(BanAddress("198.51.100.4", 7 * 86_400.0))


async def test_what_is_no_ban_is_told_and_not_asked_for(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        await desk.command("ban 198.51.100.4 soon")
        assert "write one as 192.0.2.7" in desk.toasts[-1]
        assert not any(isinstance(request, BanAddress) for request in desk.engine.asked)


async def test_no_ban_says_why(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        desk.engine.script.bans.clear()
        await desk.tick()
        assert "Nobody is banned." in desk.text()
        await desk.press("u")
        assert "No ban is selected" in desk.toasts[-1]


async def test_who_may_only_look_sees_them_and_lifts_none(tmp_path: Path) -> None:
    async with at_bans(tmp_path, role="view") as desk:
        assert len(shown(desk)) == 3
        await desk.press("u")
        assert "your role is view" in desk.toasts[-1]


async def test_they_are_sorted_by_who_was_turned_away_most(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        await desk.press("W")
        assert shown(desk)[0] == "192.0.2.7"
        await desk.press("L")
        assert shown(desk)[0] == "192.0.2.7"


async def test_an_address_is_copied(tmp_path: Path) -> None:
    async with at_bans(tmp_path) as desk:
        await desk.press("y")
        assert desk.toasts[-1].startswith("Copied address")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("192.0.2.7", 3600), (" 192.0.2.7  30m ", 1800), ("192.0.2.7 2d", 172_800)],
)
def test_a_ban_is_written_with_a_time_or_without(text: str, seconds: float) -> None:
    assert read_ban(text) == BanAddress("192.0.2.7", seconds)


@pytest.mark.parametrize("text", ["", " ", "192.0.2.7 h", "192.0.2.7 ٣h", "192.0.2.7 1.5h", f"192.0.2.7 {'9' * 30}d"])
def test_what_is_no_ban_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no ban"):
        read_ban(text)
