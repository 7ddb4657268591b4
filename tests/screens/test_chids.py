"""The screen of the channel servers' clients: its table, its matrix, and what can be done to a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual.events import MouseScrollDown

from screens.desk import Desk, console
from screens.rows import chid, service
from screens.scripted_engine import Script
from screens.stories import crowded_hub, evening, hub, quiet
from tunnelconsole.control.messages import KickSession, Refused, SetReceivers, Watch
from tunnelconsole.screens.chids import ChidsPane, Share, head_lines, share
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.sending import Receiver
from tunnelconsole.screens.widgets.dialog import Question
from tunnelconsole.screens.widgets.matrix import Matrix
from waiting import until


@asynccontextmanager
async def at_chids(
    folder: Path, script: Script, size: tuple[int, int] = (120, 36), command: str = "chids"
) -> AsyncIterator[Desk]:
    """A console that shows the chids."""
    async with console(folder, script, size) as desk:
        await desk.command(command)
        await desk.arrive()
        yield desk


def pane(desk: Desk) -> ChidsPane:
    assert isinstance(desk.app.pane, ChidsPane)
    return desk.app.pane


def matrix(desk: Desk) -> Matrix:
    return pane(desk).query_one(Matrix)


def marks(desk: Desk, name: str) -> str:
    """The marks of a sender, one for each receiver."""
    view = matrix(desk)
    table = pane(desk).table
    at = next(at for at, row in enumerate(table.rows) if row.chid == name) - table.scroll_offset.y
    region = view.region
    line = desk.text().splitlines()[region.y + view.heads.height + at]
    shown = line[region.x : region.right]
    count = min(len(view.heads.receivers), view.columns_in_view)
    return shown[len(shown) - count * view.heads.cell :: view.heads.cell]


def heads(desk: Desk) -> list[str]:
    """The receivers' names, as they stand above the matrix."""
    view = matrix(desk)
    region = view.region
    lines = [line[region.x : region.right] for line in desk.text().splitlines()[region.y :][: view.heads.height]]
    columns = zip(*lines, strict=True)
    return [name for name in ("".join(column).strip() for column in columns) if name]


async def change(desk: Desk, name: str, **facts: Any) -> None:
    """Has the engine tell something else of a client."""
    rows = desk.engine.script.chids
    desk.engine.script.chids = [replace(row, **facts) if row.chid == name else row for row in rows]
    desk.clock.time += 1
    await desk.tick()


# the table and the matrix


async def test_a_matrix_shows_who_sends_to_whom(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        assert heads(desk) == ["desk", "laptop", "news", "printer", "probe-7", "recorder", "wall", "archive"]
        assert [mark for mark in marks(desk, "desk") if mark not in " ┊"] == ["╲", "▅", "▅"]
        assert marks(desk, "desk").index("▅") == heads(desk).index("laptop")
        assert marks(desk, "probe-7").index("▲") == heads(desk).index("recorder")
        assert marks(desk, "wall").index("?") == heads(desk).index("archive")


async def test_who_sends_to_all_has_a_band_through_its_row(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        assert marks(desk, "news") == "░░╲░░░░ "


async def test_fifty_chids_are_all_in_view_on_a_small_terminal(tmp_path: Path) -> None:
    async with at_chids(tmp_path, crowded_hub(), (80, 24)) as desk:
        assert len(heads(desk)) == 50
        assert len(marks(desk, "cam-01")) == 50
        await desk.press("G")
        assert marks(desk, "wall-1").index("·") == heads(desk).index("di…tor")


async def test_a_narrow_terminal_shows_a_list_of_who_sends_to_whom(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub(), (44, 20)) as desk:
        assert not matrix(desk).display
        assert "desk      → laptop, wall" in desk.text()
        assert "wall      → recorder, archive" in desk.text()
        await desk.press("m")
        assert "There is no room for the matrix" in desk.toasts[-1]


async def test_the_matrix_can_be_put_away(tmp_path: Path) -> None:
    async with at_chids(tmp_path, crowded_hub(), (80, 24)) as desk:
        assert "SENDS TO" not in desk.text()
        await desk.press("m")
        assert not matrix(desk).display
        assert "cam-02  → wall-2, cam-03" in desk.text()
        await desk.press("m")
        assert matrix(desk).display
        assert "SENDS TO" not in desk.text()


async def test_the_matrix_goes_with_the_rows_of_the_table(tmp_path: Path) -> None:
    async with at_chids(tmp_path, crowded_hub(), (80, 24)) as desk:
        await desk.press("G")
        assert marks(desk, "cam-45").count("▅") == 2
        await desk.press("I", "g")
        assert pane(desk).table.rows[0].chid == "cam-04"
        assert marks(desk, "cam-04").count("█") == 2


async def test_the_wheel_over_the_matrix_moves_the_rows(tmp_path: Path) -> None:
    async with at_chids(tmp_path, crowded_hub(), (80, 24)) as desk:
        await desk.pilot._post_mouse_events([MouseScrollDown], matrix(desk), offset=(5, 5))
        await desk.settle()
        assert pane(desk).table.scroll_offset.y > 0
        top = pane(desk).table.rows[pane(desk).table.scroll_offset.y].chid
        assert "╲" in marks(desk, top)


async def test_more_receivers_than_fit_are_reached_with_the_arrows_and_with_the_wheel(tmp_path: Path) -> None:
    async with at_chids(tmp_path, crowded_hub(), (64, 24)) as desk:
        view = matrix(desk)
        assert view.columns_in_view < 50
        assert heads(desk)[-1].startswith("›")
        await desk.press(*["right"] * 50)
        assert view.left == 50 - view.columns_in_view
        assert heads(desk)[0].startswith("‹")
        assert "wall-4" in desk.line("aimed at")
        await desk.press(*["left"] * 51)
        assert view.left == 0
        assert "aimed at" not in desk.text()
        await desk.pilot._post_mouse_events([MouseScrollDown], view, offset=(5, 5), shift=True)
        await desk.settle()
        assert view.left == 1


async def test_a_click_in_the_matrix_tells_what_is_between_the_two(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        view = matrix(desk)
        column = view.size.width - view.heads.cell * (len(view.heads.receivers) - heads(desk).index("wall"))
        row = view.heads.height + [row.chid for row in pane(desk).table.rows].index("desk")
        await desk.pilot.click(view, offset=(column, row))
        await desk.settle()
        assert "wall  gets from desk 1.2 MB/s" in desk.line("aimed at")
        await desk.pilot.click(view, offset=(column, row + 1))
        await desk.settle()
        assert "wall  gets nothing from laptop" in desk.line("aimed at")
        await desk.pilot.click(view, offset=(column, row + 1), times=2)
        await desk.settle()
        assert desk.app.place == Place("channels", "hub", "s-laptop")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("probe-7", "recorder  holds up probe-7"),
        ("wall", "recorder  gets from wall 0 B/s"),
        ("recorder", "recorder  itself"),
    ],
)
async def test_the_receiver_that_is_aimed_at_is_told_of_the_selected_sender(
    tmp_path: Path, name: str, told: str
) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press(*["right"] * (heads(desk).index("recorder") + 1))
        while pane(desk).table.selected.chid != name:  # type: ignore[union-attr]
            await desk.press("j")
        assert told in desk.line("aimed at")


async def test_a_receiver_that_is_not_there_can_be_aimed_at(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("G", *["right"] * 8)
        assert "archive  is not there for what wall sends" in desk.line("aimed at")
        await change(desk, "wall", receivers=["recorder"])
        assert "archive" not in desk.text()


async def test_the_details_name_senders_receivers_and_who_holds_one_up(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        assert "laptop, wall" in desk.line("sends to  ")
        assert "laptop, news, recorder" in desk.line("gets from")
        await desk.press("j", "j", "j", "j")
        assert "held up by  recorder" in desk.text()
        await desk.press("j")
        assert "too slow    it does not take what is sent to it" in desk.text()
        assert "1.2 MiB for it" in desk.line("lost  ")


async def test_lost_bytes_are_a_fault_while_they_are_news(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        assert "✖" not in desk.text()
        assert "▲ 1 with losses" in desk.text()
        await change(desk, "laptop", dropped=4096)
        assert "✖ laptop" in desk.text()
        assert "▲ 1 with losses" in desk.text()
        assert "✖ 1 losing bytes" in desk.text()
        desk.clock.time += 90
        desk.app.present()
        assert "▲ laptop" in desk.text()
        assert "✖" not in desk.text()


async def test_the_title_counts_troubles_the_worst_first_and_leaves_out_what_does_not_fit(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub(), (120, 24)) as desk:
        assert "▲ 1 too slow  ‖ 1 held up  ▲ 1 with losses  in 1.2 MB/s  out 2.4 MB/s" in desk.text()
        await desk.pilot.resize_terminal(80, 24)
        await desk.settle()
        assert "▲ 1 too slow  ‖ 1 held up  ▲ 1 with losses " in desk.text()
        await desk.pilot.resize_terminal(44, 24)
        await desk.settle()
        assert "▲ 1 too slow " in desk.text()


async def test_who_is_held_up_is_told_from_who_is_idle(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        assert "‖ probe-7" in desk.text()
        await change(desk, "probe-7", waits_for="")
        assert "○ probe-7" in desk.text()


async def test_a_filter_finds_who_sends_to_a_chid_and_narrows_the_matrix(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("slash")
        await desk.type("recorder")
        assert desk.column("CHID") == ["‖", "▲", "▲"]
        assert heads(desk) == ["desk", "probe-7", "recorder", "wall", "archive"]


async def test_a_frozen_matrix_stands_still(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("p")
        before = marks(desk, "desk")
        await change(desk, "desk", receivers=["news"])
        assert marks(desk, "desk") == before
        await desk.press("p")
        assert marks(desk, "desk") != before


async def test_the_chid_is_what_is_copied(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("y")
        assert "Copied chid: desk" in desk.toasts[-1]
        await desk.press("Y")
        assert "Copied the row" in desk.toasts[-1]


async def test_enter_goes_to_the_channel_of_a_chid(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("j", "enter")
        assert desk.app.place == Place("channels", "hub", "s-laptop")


async def test_one_channel_server_can_be_looked_at_alone(tmp_path: Path) -> None:
    script = hub()
    script.services.append(service("hub2", kind="channel-server"))
    script.chids.append(chid("desk", service="hub2", session="s-2"))
    async with at_chids(tmp_path, script, command="chids hub2") as desk:
        assert "Chids of hub2  1" in desk.text()
        assert desk.engine.watched == [Watch(["services", "chids", "events"], 0.5, "hub2")]


async def test_the_same_chid_at_two_servers_is_two(tmp_path: Path) -> None:
    script = hub()
    script.chids.append(chid("desk", service="hub2", session="s-2", rate_in=5.0))
    async with at_chids(tmp_path, script, (160, 36)) as desk:
        assert heads(desk).count("desk") == 2
        assert matrix(desk).heads.receivers[-2:] == (Receiver("hub2", "desk"), Receiver("hub", "archive"))
        assert [mark for mark in marks(desk, "laptop") if mark not in " ┊"] == ["▂", "╲"]


@pytest.mark.parametrize(
    ("change_it", "reason", "what_to_do"),
    [
        (lambda _script: None, "Nobody is connected.", "tunnelconsole channel CHID --server 127.0.0.1:8601"),
        (
            lambda script: script.services.__setitem__(
                0, service("hub", kind="channel-server", state="stopped", address="")
            ),
            "Nobody is connected.",
            "hub is stopped, and cannot be reached.",
        ),
        (
            lambda script: script.services.__setitem__(
                0, service("hub", kind="channel-server", notes={"mode": "broadcast"})
            ),
            "Nobody is connected.",
            "Who connects to 127.0.0.1:9527 shows here.",
        ),
    ],
)
async def test_a_channel_server_without_clients_says_how_to_join(
    tmp_path: Path, change_it: Callable[[Script], Any], reason: str, what_to_do: str
) -> None:
    script = hub()
    script.chids = []
    change_it(script)
    async with at_chids(tmp_path, script) as desk:
        assert reason in desk.text()
        assert what_to_do in desk.text()


@pytest.mark.parametrize("size", [(20, 6), (40, 12), (60, 10), (61, 16), (80, 24), (250, 80)])
async def test_the_chids_fill_every_terminal(tmp_path: Path, size: tuple[int, int]) -> None:
    async with at_chids(tmp_path, crowded_hub(), size) as desk:
        lines = desk.text().splitlines()
        assert (len(lines), {len(line) for line in lines}) == (size[1], {size[0]})


async def test_a_chid_of_wide_letters_keeps_the_columns_straight(tmp_path: Path) -> None:
    script = hub()
    script.chids.append(chid("カメラ", "desk", rate_in=5.0))
    async with at_chids(tmp_path, script, (100, 30)) as desk:
        assert {len(line.encode("utf-16-le")) // 2 <= 100 for line in desk.text().splitlines()} == {True}
        assert marks(desk, "laptop")[0] == "▂"


def test_the_width_goes_to_the_matrix_as_long_as_the_table_has_what_it_needs() -> None:
    assert share(59, 5) == Share(0, 1)
    assert share(80, 0) == Share(0, 1)
    assert share(80, 8) == Share(17, 2)
    assert share(80, 40) == Share(41, 1)
    assert share(80, 50) == Share(50, 1)
    assert share(80, 51) == Share(40, 1)
    assert share(200, 1000) == Share(140, 1)


def test_heads_are_as_high_as_the_longest_name_or_as_can_be_spared() -> None:
    assert head_lines(3, 20, 5) == 3
    assert head_lines(30, 20, 5) == 15
    assert head_lines(30, 13, 50) == 6
    assert head_lines(30, 9, 50) == 4


# what it costs


async def test_nothing_of_the_matrix_is_painted_when_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_chids(tmp_path, crowded_hub(), (120, 36)) as desk:
        await desk.tick()
        painted: list[int] = []
        view = matrix(desk)
        paint = view.paint

        def count(*arguments: Any) -> Any:
            painted.append(1)
            return paint(*arguments)

        monkeypatch.setattr(view, "paint", count)
        await desk.tick()
        assert painted == []
        await change(desk, "cam-03", rate_in=5.0)
        assert len(painted) == 1


# what can be done


async def test_disconnecting_a_chid_asks_first_and_says_what_it_cuts(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("G", "k", "x")
        assert "Disconnect recorder: cuts 0 B/s in flight, loses 256 KiB that wait for" in desk.text()
        assert "It is recorder from 192.0.2.45:40006, at hub. It sends to desk; 3 send" in desk.text()
        assert KickSession("s-recorder") not in desk.engine.asked
        await desk.press("y")
        await desk.asked(KickSession("s-recorder"))


async def test_changing_receivers_shows_the_list_and_asks_before_it_is_done(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("e")
        assert "desk sends to, * for all:" in desk.text()
        assert ">laptop, wall" in desk.text()
        await desk.write("wall, news, attic")
        await desk.press("enter")
        text = desk.text()
        assert "Change to whom desk sends: cuts off laptop, 1.2 MB/s in flight" in text
        assert "It shall send to wall, news, attic. Now it sends to laptop, wall." in text
        assert "New: news." in text
        assert "Not connected: attic." in text
        assert not any(isinstance(request, SetReceivers) for request in desk.engine.asked)
        await desk.press("y")
        await desk.asked(SetReceivers("s-desk", ["wall", "news", "attic"]))


@pytest.mark.parametrize("command", ["", "receivers desk"], ids=["key", "command"])
async def test_receivers_that_were_only_counted_are_asked_for_before_they_are_changed(
    tmp_path: Path, command: str
) -> None:
    script = hub()
    whole = next(row for row in script.chids if row.chid == "desk")
    script.chids = [replace(row, receivers=["wall"], more_receivers=1) if row == whole else row for row in script.chids]
    script.whole_chids = [whole]
    async with at_chids(tmp_path, script) as desk:
        await until(lambda: "→ wall and 1 more" in desk.text())
        await (desk.command(command) if command else desk.press("e"))
        await until(lambda: ">laptop, wall" in desk.text())
        await desk.write("wall")
        await desk.press("enter")
        await until(lambda: "Change to whom desk sends: cuts off laptop, 1.2 MB/s in flight" in desk.text())
        await desk.press("y")
        await desk.asked(SetReceivers("s-desk", ["wall"]))


async def test_a_receiver_of_whom_nobody_knows_is_no_receiver_of_nothing(tmp_path: Path) -> None:
    script = hub()
    script.chids = [
        replace(row, receivers=["wall"], more_receivers=9) if row.chid == "desk" else row for row in script.chids
    ]
    async with at_chids(tmp_path, script) as desk:
        assert "≈" in desk.text()
        await desk.press("right", "right")
        await until(lambda: "may get from desk, which sends to more than can all be named" in desk.text())


async def test_a_star_stands_for_all(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("e")
        await desk.write("*")
        await desk.press("enter")
        assert "Change to whom desk sends: cuts nobody off" in desk.text()
        assert "New: news, printer, probe-7, recorder." in desk.text()
        await desk.press("y")
        await desk.asked(SetReceivers("s-desk", []))


async def test_who_sends_to_all_is_shown_as_a_star(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("j", "j", "e")
        assert " >*" in desk.text()


async def test_what_is_typed_ahead_is_meant_for_the_list(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.pilot.press("e", "comma", "n", "e", "tab", "enter")
        await desk.settle()
        assert "It shall send to laptop, wall, news." in desk.text()


@pytest.mark.parametrize("answer", ["n", "escape", "enter"])
async def test_a_change_that_is_not_confirmed_is_not_made(tmp_path: Path, answer: str) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("e")
        await desk.write("news")
        await desk.press("enter", answer)
        assert not isinstance(desk.app.screen, Question)
        assert not any(isinstance(request, SetReceivers) for request in desk.engine.asked)


async def test_a_list_that_is_given_up_changes_nothing(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("e")
        await desk.write("news")
        await desk.press("escape")
        assert not isinstance(desk.app.screen, Question)
        assert not desk.app.prompt.is_open


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("wall, laptop", "desk sends to laptop, wall already"),
        ("", "nobody is named; * stands for all others"),
        ("* wall", "nobody can be named beside it"),
    ],
)
async def test_a_list_that_changes_nothing_or_says_nothing_is_told(tmp_path: Path, written: str, told: str) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("e")
        await desk.write(written)
        await desk.press("enter")
        assert told in desk.toasts[-1]
        assert not isinstance(desk.app.screen, Question)


async def test_a_refusal_of_the_engine_is_told(tmp_path: Path) -> None:
    script = hub()
    script.refusals[SetReceivers] = Refused("a chid has at most 128 bytes")
    async with at_chids(tmp_path, script) as desk:
        await desk.press("e")
        await desk.write("x" * 200)
        await desk.press("enter", "y")
        assert "a chid has at most 128 bytes" in desk.toasts[-1]


async def test_who_has_closed_its_side_has_no_receivers_to_change(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.command("receivers printer")
        assert "printer has closed its sending side" in desk.toasts[-1]
        assert not desk.app.prompt.is_open


async def test_in_broadcast_mode_there_are_no_receivers_to_change(tmp_path: Path) -> None:
    script = hub()
    script.services[0] = replace(script.services[0], notes={"mode": "broadcast"})
    async with at_chids(tmp_path, script) as desk:
        await desk.press("e")
        assert "hub is in broadcast mode" in desk.toasts[-1]


@pytest.mark.parametrize("key", ["x", "e"])
async def test_who_left_while_the_view_was_frozen_is_not_steered(tmp_path: Path, key: str) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("p")
        del desk.engine.script.chids[0]
        await desk.tick()
        await desk.press(key)
        assert "desk has left already" in desk.toasts[-1]


async def test_who_leaves_while_its_list_is_typed_is_not_steered(tmp_path: Path) -> None:
    async with at_chids(tmp_path, hub()) as desk:
        await desk.press("e")
        await desk.write("news")
        del desk.engine.script.chids[0]
        await desk.press("enter")
        assert "desk has left already" in desk.toasts[-1]


@pytest.mark.parametrize("key", ["x", "e", "right", "m"])
async def test_keys_for_a_chid_do_no_harm_where_there_is_none(tmp_path: Path, key: str) -> None:
    async with at_chids(tmp_path, quiet()) as desk:
        await desk.press(key)
        assert "There is no channel server." in desk.text()


async def test_a_chid_is_steered_by_name_from_any_screen(tmp_path: Path) -> None:
    async with console(tmp_path, hub()) as desk:
        await desk.command("disconnect laptop")
        await desk.press("y")
        await desk.asked(KickSession("s-laptop"))
        await desk.command("receivers laptop")
        await desk.write("news")
        await desk.press("enter", "y")
        await desk.asked(SetReceivers("s-laptop", ["news"]))


@pytest.mark.parametrize("command", ["disconnect", "receivers"])
async def test_a_chid_that_is_none_or_more_than_one_is_told(tmp_path: Path, command: str) -> None:
    script = hub()
    script.chids.append(chid("desk", service="hub2", session="s-2"))
    async with console(tmp_path, script) as desk:
        await desk.command(f"{command} nobody")
        assert "There is no chid 'nobody'\nthere are: desk, laptop" in desk.toasts[-1]
        await desk.command(f"{command} desk")
        assert "There is a desk at each of hub, hub2" in desk.toasts[-1]


async def test_an_engine_that_is_away_is_told_when_a_chid_is_named(tmp_path: Path) -> None:
    async with console(tmp_path, hub()) as desk:
        await desk.engine.stop()
        await desk.command("disconnect desk")
        assert "no engine is running" in desk.toasts[-1]
        await desk.engine.start()


async def test_a_tab_shows_where_there_is_a_channel_server(tmp_path: Path) -> None:
    async with console(tmp_path, hub()) as desk:
        assert "6 chids 7" in desk.text().splitlines()[1]
    async with console(tmp_path, evening()) as desk:
        assert "chids" not in desk.text().splitlines()[1]
