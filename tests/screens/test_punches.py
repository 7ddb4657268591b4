"""The screens of hole punches: the list, one with the picture of its race, and trying again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from attempt_rows import attempt, candidate, direct, moments, relayed
from screens.desk import Desk, console
from screens.rows import NOW, service, status
from screens.scripted_engine import Script
from screens.stories import evening, nothing, punches
from tunnelconsole.control.attempts import AttemptRow, GetAttempts, PunchAgain
from tunnelconsole.control.messages import Done, Refused, Watch
from tunnelconsole.engine import attempts
from tunnelconsole.screens import punches as punches_screen
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.race import MARKS, Scale, picture, runners
from tunnelconsole.screens.spans import plain, width_of

HOST, MAPPED = "192.168.1.20:40777", "203.0.113.7:40777"


@asynccontextmanager
async def at_punches(folder: Path, script: Script | None = None, command: str = "punches") -> AsyncIterator[Desk]:
    """A console that shows the punches."""
    async with console(folder, script or punches()) as desk:
        await desk.command(command)
        await desk.arrive()
        yield desk


@asynccontextmanager
async def at_punch(folder: Path, key: str, script: Script | None = None) -> AsyncIterator[Desk]:
    """A console that shows one of them."""
    async with console(folder, script or punches()) as desk:
        desk.app.go(Place("attempt", attempt=key))
        await desk.arrive()
        yield desk


def keys(desk: Desk) -> list[str]:
    table = desk.app.pane.table
    assert table is not None
    return [row.id for row in table.rows]


def lines(row: AttemptRow, width: int = 80, now: float = NOW) -> list[str]:
    return [plain(line) for line in picture(row, now, width)]


# the list


async def test_punches_are_listed_the_newest_first(tmp_path: Path) -> None:
    async with at_punches(tmp_path) as desk:
        assert keys(desk) == ["p5", "p6", "p4", "p3", "p2", "p1"]
        assert "1 failed  1 relayed  1 under way  1 direct" in desk.text()
        assert desk.engine.watched == [Watch(["services", "attempts", "events"], 0.5)]


async def test_a_row_says_what_was_reached_or_why_nothing_was(tmp_path: Path) -> None:
    async with at_punches(tmp_path) as desk:
        assert "mapped       412 ms  203.0.113.7:40777" in desk.line("● direct")
        assert "both NATs pick random ports" in desk.line("▲ relay")
        assert "random port  random port" in desk.line("▲ relay")
        assert "1.2 s" in desk.line("◌ racing")
        assert "3m20s" in desk.line("◌ waiting")


async def test_punches_of_one_service_are_a_command(tmp_path: Path) -> None:
    async with at_punches(tmp_path, command="punches to-lab") as desk:
        assert keys(desk) == ["p5", "p3", "p2"]


@pytest.mark.parametrize(("text", "count"), [("lab", 3), ("random", 1), ("mapped", 1), ("!lab", 3), ("next port", 1)])
async def test_a_filter_finds_what_is_known_of_a_punch(tmp_path: Path, text: str, count: int) -> None:
    async with at_punches(tmp_path) as desk:
        await desk.command(f"filter {text}")
        assert len(keys(desk)) == count


async def test_the_worst_come_first_when_sorted_by_what_they_came_to(tmp_path: Path) -> None:
    async with at_punches(tmp_path) as desk:
        await desk.press("O")
        assert keys(desk)[0] == "p3"
        assert keys(desk)[-1] == "p1"


async def test_a_frozen_list_stands_still(tmp_path: Path) -> None:
    async with at_punches(tmp_path) as desk:
        await desk.press("p")
        desk.engine.script.attempts.append(direct("p7", started=NOW))
        await desk.tick()
        assert "p7" not in keys(desk)
        await desk.press("p")
        assert keys(desk)[0] == "p7"


@pytest.mark.parametrize(
    ("moves", "copied"),
    [
        ("G", "Copied address reached: 203.0.113.7:40777"),
        ("j", "Copied room: attic"),
        ("G k", "Copied reason: both NATs"),
    ],
)
async def test_what_matters_of_a_punch_is_copied(tmp_path: Path, moves: str, copied: str) -> None:
    async with at_punches(tmp_path) as desk:
        await desk.press(*moves.split(), "y")
        assert desk.toasts[-1].startswith(copied)


async def test_the_tab_is_there_where_there_is_a_punch_client(tmp_path: Path) -> None:
    async with console(tmp_path, punches()) as desk:
        assert "8 punches" in desk.text()
    async with console(tmp_path, evening()) as desk:
        assert "8 punches" not in desk.text()
        await desk.press("8")
        assert "8 punches" in desk.text()


async def test_without_punches_it_says_why_and_what_to_press(tmp_path: Path) -> None:
    async with at_punches(tmp_path, nothing()) as desk:
        assert "There is no punch client." in desk.text()
        assert "2 shows the services there are" in desk.text()
    script = Script(status=status(), services=[service("meet", kind="punch-server")])
    async with at_punches(tmp_path, script) as desk:
        assert "A rendezvous is not told what its clients try: look at theirs." in desk.text()
    script.services = [service("to-desk", kind="punch-client", state="backoff", error="nobody answers")]
    async with at_punches(tmp_path, script) as desk:
        assert "Nothing has been tried yet." in desk.text()
        assert "to-desk is backoff: nobody answers" in desk.text()


# one punch


async def test_enter_opens_a_punch_and_esc_goes_back_to_it(tmp_path: Path) -> None:
    async with at_punches(tmp_path) as desk:
        await desk.press("G", "enter")
        assert desk.app.place == Place("attempt", "to-desk", attempt="p1")
        assert desk.engine.asked[-1] == GetAttempts(id="p1")
        assert "Punch p1" in desk.text()
        await desk.press("escape")
        assert desk.app.place == Place("punches")
        table = desk.app.pane.table
        assert table is not None
        assert table.pinned == "p1"


async def test_a_punch_is_shown_with_both_nats_its_addresses_and_its_moments(tmp_path: Path) -> None:
    async with console(tmp_path, punches(), (120, 60)) as desk:
        desk.app.go(Place("attempt", attempt="p1"))
        await desk.arrive()
        assert "● direct, at the address where it is seen" in desk.line("outcome")
        assert "NAT with one port for all; drops strangers, seen at 198.51.100.2:40000" in desk.line(" here  ")
        assert "says that it is seen at 203.0.113.7:40777" in desk.line(" there  ")
        assert "412 ms  with 6 SYNs" in desk.text()
        assert "after 1m15s alone" in desk.line("when")
        assert "never dialled: it is in a private network that is not ours" in desk.line("10.8.0.3:40777")
        assert "342 ms  203.0.113.7:40777 is chosen" in desk.text()
        await desk.press("y")
        assert desk.toasts[-1].startswith(f"Copied address reached: {MAPPED}")


async def test_one_that_stays_on_the_relay_says_why_and_what_helps(tmp_path: Path) -> None:
    async with at_punch(tmp_path, "p2") as desk:
        assert "both NATs pick random ports" in desk.line("why")
        assert "have IPv6 at both ends" in desk.line("to do")
        assert "r tries again now" in desk.line("Punch p2")
        assert "nobody was dialled" in desk.text()


async def test_one_under_way_is_followed_to_its_end(tmp_path: Path) -> None:
    async with at_punch(tmp_path, "p5") as desk:
        assert "and goes on" in desk.text()
        script = desk.engine.script
        script.attempts = [direct("p5") if row.id == "p5" else row for row in script.attempts]
        await desk.tick()
        assert "● direct" in desk.text()
        assert any(MAPPED in line and "★ chosen" in line for line in desk.text().splitlines())


async def test_a_frozen_punch_stands_still(tmp_path: Path) -> None:
    async with at_punch(tmp_path, "p5") as desk:
        await desk.press("p")
        desk.engine.script.attempts = [direct("p5")]
        await desk.tick()
        assert "and goes on" in desk.text()
        await desk.press("p")
        await desk.tick()
        assert "● direct" in desk.text()


async def test_one_that_is_not_kept_any_more_says_so(tmp_path: Path) -> None:
    async with at_punch(tmp_path, "p99") as desk:
        assert "There is no attempt p99." in desk.text()
        await desk.press("y")
        assert desk.toasts == ["Nothing is selected, so there is nothing to copy"]


# trying again


async def test_r_tries_again_from_the_list_and_from_a_punch(tmp_path: Path) -> None:
    async with at_punches(tmp_path) as desk:
        await desk.press("G", "k", "r")
        await desk.asked(PunchAgain("to-lab"))
        assert desk.toasts[-1].startswith("carried out PunchAgain")
        await desk.press("G", "enter", "r")
        await desk.asked(PunchAgain("to-desk"))


async def test_a_command_tries_again_from_anywhere_and_a_refusal_is_told(tmp_path: Path) -> None:
    script = punches()
    script.refusals = {PunchAgain: Refused("room lab has a direct path already", "a round begins by itself")}
    async with console(tmp_path, script) as desk:
        await desk.command("retry to-lab")
        await desk.asked(PunchAgain("to-lab"))
        assert desk.toasts == ["room lab has a direct path already\na round begins by itself"]
        assert isinstance(Done("x"), Done)


async def test_with_nothing_selected_r_says_what_to_do(tmp_path: Path) -> None:
    async with at_punches(tmp_path, nothing()) as desk:
        await desk.press("r")
        assert desk.toasts == ["No punch is selected\n:retry SERVICE names the punch client"]


# the picture


def test_each_address_has_a_line_with_its_marks_where_they_belong() -> None:
    scale, stages, won, host, legend = lines(direct())
    assert scale.split() == ["0", "ms", "100", "200", "300"]
    assert "├asks─┼offers┼races" in stages
    assert won.startswith(f" {MAPPED}")
    track = won[26:-18]
    assert track.strip()[0] == "○"
    assert [mark for mark in track if mark not in " ╌━"] == ["○", "●", "★", "■"]
    assert track.index("●") < track.index("★") < track.index("■")
    assert "╌" in track[: track.index("●")]
    assert "━" in track[track.index("●") :]
    assert host.startswith(f" {HOST}")
    assert host.rstrip().endswith(" ✖ refused")
    assert "10.8.0.3" not in "".join(lines(direct()))
    assert legend == " ○ dialled  ✖ refused  ● connected  ◆ proved  ■ TLS  ★ chosen "


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("row", [direct(), relayed(), *punches().attempts], ids=lambda row: row.id)
def test_a_picture_is_no_wider_than_the_screen(row: AttemptRow, width: int) -> None:
    assert all(width_of(line) <= max(width, 26) for line in picture(row, NOW, width))


def test_where_the_marks_are_follows_the_clock() -> None:
    scale = Scale(41, 400.0)
    assert [scale.cell(ms) for ms in (-5.0, 0.0, 100.0, 200.0, 400.0, 900.0)] == [0, 0, 10, 20, 40, 40]
    assert scale.ticks() == [0, 100, 200, 300, 400]


@pytest.mark.parametrize("end", [0.5, 1.0, 3.0, 17.0, 999.0, 60_000.0, 3.6e6])
def test_a_scale_has_figures_for_any_length(end: float) -> None:
    assert 1 <= len(Scale(40, end).ticks()) <= 6


def test_a_line_that_goes_on_reaches_the_present() -> None:
    row = attempt(state="racing", started=NOW - 2, candidates=[candidate(MAPPED, "mapped", "trying")],
                  timeline=moments((0.0, "observing"), (500.0, "racing"), (500.0, "trying", MAPPED)))  # fmt: skip
    (track,) = [line for line in lines(row) if MAPPED in line]
    assert track[26:-18].endswith("╌")
    over = replace(row, state="left", seconds=2.0)
    assert lines(over)[2][26:-18].strip() == "○"


def test_before_anything_has_happened_there_is_no_picture() -> None:
    assert picture(attempt(), NOW, 80) == []


def test_the_winner_comes_first_and_others_as_they_were_dialled() -> None:
    assert [tried.address for tried in runners(direct())] == [MAPPED, HOST]


def test_a_hundred_moments_in_one_cell_show_what_matters_most() -> None:
    told = moments((0.0, "observing"), *((1.0, what, MAPPED) for what in MARKS), (1000.0, "direct"))
    row = attempt(state="direct", seconds=1.0, candidates=[candidate(MAPPED, "mapped", "won")], timeline=told)
    (track,) = [line for line in lines(row) if MAPPED in line]
    assert track[26:-18].strip() == "★"


def test_every_state_and_every_fate_has_a_sign() -> None:
    assert set(punches_screen.STATES) == set(attempts.AttemptState.__args__)  # type: ignore[attr-defined]
    assert set(attempts.Fate.__args__) - {"untried"} <= set(MARKS)  # type: ignore[attr-defined]
    signs = [sign for sign, _, _ in MARKS.values()]
    assert len(set(signs)) == len(signs)
