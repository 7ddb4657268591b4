"""Going about the console: screens, drilling in and back, filter, sort, freeze, details and help."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.events import Key

import waiting
from screens.desk import console
from screens.rows import event, service, session
from screens.stories import evening, hub, nothing, quiet
from tunnelconsole.control.messages import Watch
from tunnelconsole.screens import keys
from tunnelconsole.screens.pane import Value
from tunnelconsole.screens.places import Place


@pytest.mark.parametrize("screen", keys.SCREENS)
async def test_each_screen_has_a_key_that_shows_it(tmp_path: Path, screen: keys.Screen) -> None:
    (key,) = (row.keys[0] for row in keys.KEYS if row.action == f"show('{screen}')")
    async with console(tmp_path, evening()) as desk:
        await desk.press(key)
        assert desk.app.place.screen == screen
        assert desk.app.pane.display


@pytest.mark.parametrize("screen", keys.SCREENS)
async def test_each_screen_is_a_command_too(tmp_path: Path, screen: keys.Screen) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command(screen)
        assert desk.app.place == Place(screen)


async def test_enter_goes_from_a_service_to_its_sessions_to_their_channels_and_esc_back(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "j", "enter")
        await desk.arrive()
        assert "Sessions of home  3" in desk.text()
        await desk.press("enter")
        await desk.arrive()
        assert "Channels of session s1  2" in desk.text()
        await desk.press("escape", "escape")
        assert desk.app.place == Place("services")
        assert desk.app.pane.value() == Value("address", "127.0.0.1:9527")


async def test_only_the_service_that_is_looked_at_is_watched(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command("sessions home")
        await desk.arrive()
        assert desk.engine.watched == [Watch(["services", "sessions", "events"], 0.5, "home")]


async def test_a_screen_asks_the_engine_for_no_more_than_it_shows(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("5")
        await desk.arrive()
        assert desk.engine.watched == [Watch(["services", "events"], 0.5)]


async def test_thousands_of_rows_are_asked_for_less_often(tmp_path: Path) -> None:
    script = evening()
    script.status = replace(script.status, channels=5000)
    async with console(tmp_path, script) as desk:
        await desk.press("4")
        await desk.arrive()
        assert [watch.interval for watch in desk.engine.watched] == [1.0]


async def test_an_event_leads_to_the_session_it_is_about(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("3")
        await desk.arrive()
        await desk.press("5", "enter")
        assert desk.app.place == Place("sessions", "home")


async def test_tab_shows_the_next_screen_and_shift_tab_the_one_before(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("tab", "tab")
        assert desk.app.place == Place("sessions")
        await desk.press("shift+tab")
        assert desk.app.place == Place("services")


async def test_tab_leaves_out_a_screen_about_services_that_there_are_none_of(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("5", "tab")
        assert desk.app.place == Place("tokens")
    async with console(tmp_path, hub()) as desk:
        await desk.press("5", "tab")
        assert desk.app.place == Place("chids")


async def test_a_filter_works_as_it_is_typed_and_esc_clears_it(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "slash")
        await desk.type("relay")
        assert desk.column("NAME") == ["edge", "partner"]
        await desk.press("enter")
        assert "Services  2 of 6  /relay" in desk.text()
        await desk.press("escape")
        assert len(desk.column("NAME")) == 6
        assert desk.app.place.screen == "services"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["slash", *"jump", "enter", "p"], "jump"),
        (["slash", *"jump", "escape", "p"], ""),
        (
            ["slash", *"jux", "backspace", *"mm", "left", "delete", *"p", "enter", "p", "question_mark", "escape"],
            "jump",
        ),
        (["colon", *"sessions", "enter", "escape", "slash", *"lab", "enter", "p"], "lab"),
    ],
    ids=["kept", "cleared", "edited", "behind a command"],
)
async def test_keys_that_come_in_one_burst_do_what_they_do_one_by_one(
    tmp_path: Path, typed: list[str], kept: str
) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2")
        for key in typed:
            desk.app.post_message(Key(key, key if len(key) == 1 else None))
        await waiting.until(lambda: desk.app.frozen is not None)
        await waiting.until(lambda: desk.app.place.screen == "services")
        await desk.settle()
        assert desk.app.place.filter.text == kept
        assert not desk.app.prompt.is_open


async def test_an_inverse_filter_hides_what_it_finds(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "slash")
        await desk.type("!relay")
        assert desk.column("NAME") == ["home", "lab", "old", "via-home"]


async def test_a_filter_that_hides_everything_says_so(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command("services")
        await desk.command("filter zebra")
        assert "No service matches /zebra" in desk.text()
        assert "Esc clears the filter, which hides 6 services" in desk.text()


async def test_arrows_move_in_the_table_while_a_filter_is_typed(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "slash")
        await desk.type("relay")
        await desk.press("down")
        assert desk.app.pane.value() == Value("name", "partner")


async def test_a_sort_key_sorts_and_the_same_again_turns_it_round(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "I")
        assert desk.column("NAME")[:3] == ["home", "via-home", "edge"]
        assert "IN/S▼" in desk.text()
        await desk.press("I")
        assert desk.column("NAME")[-1] == "home"
        assert "IN/S▲" in desk.text()


@pytest.mark.parametrize("screen", sorted(keys.TABLES))
async def test_every_sort_key_of_a_screen_sorts_it(tmp_path: Path, screen: keys.Screen) -> None:
    async with console(tmp_path, evening(), (200, 50)) as desk:
        desk.app.action_show(screen)
        await desk.arrive()
        for row in (row for row in keys.KEYS if row.group == "sort" and screen in row.where):
            before = desk.app.pane.table.order  # type: ignore[union-attr]
            await desk.app.action_key(row.keys[0])
            order = desk.app.pane.table.order  # type: ignore[union-attr]
            assert order is not None
            assert f"sort('{order.column}')" == row.action
            assert order != before


async def test_sorting_by_no_column_says_which_there_are(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command("sort beauty")
        assert "There is no column 'beauty'" in desk.toasts[-1]
        assert "name, state" in desk.toasts[-1]


async def test_a_frozen_view_says_so_and_stands_still_until_it_is_let_go(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "p")
        desk.clock.time += 5
        desk.engine.script.services = [service("new")]
        await desk.tick()
        assert "FROZEN 15:06:40" in desk.text()
        assert len(desk.column("NAME")) == 6
        assert "backoff 12s" in desk.text()
        await desk.press("p")
        assert "FROZEN" not in desk.text()
        assert desk.column("NAME") == ["new"]


async def test_a_question_in_a_frozen_view_tells_what_is_cut_now(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "j", "p")
        desk.engine.script.services = [service("home", sessions=99, channels=100)]
        await desk.tick()
        await desk.press("x")
        assert "cuts 99 sessions, 100 channels" in desk.text()


async def test_a_key_that_does_nothing_here_says_where_it_does(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("5", "x")
        assert desk.toasts[-1].startswith("x does nothing on this screen")
        assert "kick on sessions" in desk.toasts[-1]


@pytest.mark.parametrize("screen", keys.SCREENS)
async def test_every_key_of_a_screen_is_carried_out_there(tmp_path: Path, screen: keys.Screen) -> None:
    async with console(tmp_path, evening()) as desk:
        desk.app.action_show(screen)
        await desk.arrive()
        for row in (row for row in keys.KEYS if screen in row.where and row.group in ("look", "steer")):
            await desk.press(row.keys[0])
            assert desk.app.done[-1] == row.action
            while len(desk.app.screen_stack) > 1 or desk.app.prompt.is_open:
                await desk.press("escape")


async def test_events_are_shown_from_a_level_up(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("5")
        assert "Events  7" in desk.text()
        await desk.press("l")
        assert "Events  4" in desk.text()
        assert "warning and above" in desk.text()
        await desk.command("level error")
        assert "Events  1" in desk.text()
        await desk.press("l")
        assert "Events  8" in desk.text()
        assert "all levels" in desk.text()


async def test_events_of_one_service_are_a_command(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command("events lab")
        assert "Events of lab  1" in desk.text()


async def test_events_that_were_missed_are_counted(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("5")
        desk.engine.dropped = 12
        desk.engine.script.events.append(event(21, "the thirteenth"))
        await desk.tick()
        assert "12 events missed" in desk.text()


async def test_details_of_the_selected_row_follow_the_cursor_and_can_be_hidden(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("2", "G")
        assert "SOCKS5 through home.example.net:9527" in desk.text()
        await desk.press("up")
        assert "the far end does not accept our secret" in desk.text()
        await desk.press("d")
        assert "Selected" not in desk.text()


async def test_the_help_shows_on_a_question_mark_and_scrolls(tmp_path: Path) -> None:
    async with console(tmp_path, evening(), (80, 24)) as desk:
        await desk.press("question_mark")
        assert "Where to go" in desk.text()
        await desk.press("G")
        await waiting.until(lambda: "one running engine" in desk.text())
        await desk.press("g", "escape")
        assert desk.app.place.screen == "overview"


async def test_the_palette_finds_commands(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("ctrl+p")
        found = {command.title for command in desk.app.get_system_commands(desk.app.screen)}
        assert {"sessions", "stop home", "theme day", "reload"} <= found
        await desk.press("escape")


async def test_tab_completes_a_command(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.press("colon")
        await desk.type("cha")
        await desk.press("tab")
        await desk.type(" ed")
        await desk.press("tab", "enter")
        assert desk.app.place == Place("channels", "edge")


async def test_the_up_key_brings_back_the_last_command(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        await desk.command("events lab")
        await desk.press("1", "colon", "up", "enter")
        assert desk.app.place == Place("events", "lab")


@pytest.mark.parametrize(
    ("command", "reason", "what_to_do"),
    [
        ("overview", "No services are configured.", "press R to reload"),
        ("services", "No services are configured.", "/etc/tunnelconsole/config.toml"),
        ("sessions", "Nobody is attached.", "2 shows where the services can be reached"),
        ("channels", "No channel is open.", "3 shows who is attached"),
        ("events", "Nothing has happened yet", "show here as they happen"),
        ("chids", "There is no channel server.", "2 shows the services there are"),
    ],
)
async def test_an_empty_screen_says_why_and_what_to_do(
    tmp_path: Path, command: str, reason: str, what_to_do: str
) -> None:
    async with console(tmp_path, nothing()) as desk:
        await desk.command(command)
        await desk.arrive()
        assert reason in desk.text()
        assert what_to_do in desk.text()


async def test_a_service_without_sessions_says_where_it_can_be_reached(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        await desk.press("2", "enter")
        await desk.arrive()
        assert "Nobody is attached to home." in desk.text()
        assert "It can be reached at 127.0.0.1:9527." in desk.text()


async def test_a_session_that_has_ended_says_so(tmp_path: Path) -> None:
    script = quiet()
    script.sessions = [session("s1", channels=1)]
    async with console(tmp_path, script) as desk:
        await desk.press("3")
        await desk.arrive()
        await desk.press("enter")
        desk.engine.script.sessions = []
        await desk.tick()
        assert "Session s1 has no channel open." in desk.text()
        assert "It has ended." in desk.text()


async def test_the_overview_begins_with_what_is_wrong(tmp_path: Path) -> None:
    async with console(tmp_path, evening()) as desk:
        attention = desk.text().splitlines()[3:7]
        assert [line.split()[1:3] for line in attention] == [
            ["failed", "partner"], ["backoff", "lab"], ["warning", "home"], ["exposed", "edge"],
        ]  # fmt: skip
        assert "next try in 12s" in attention[1]


async def test_on_a_small_screen_services_come_before_the_last_events(tmp_path: Path) -> None:
    script = quiet()
    script.services = [service(f"s{number}") for number in range(13)]
    async with console(tmp_path, script, (80, 24)) as desk:
        assert sum(f" s{number} " in desk.text() for number in range(13)) >= 9
        assert "Last events" not in desk.text()
    script.services = script.services[:7]
    async with console(tmp_path, script, (80, 24)) as desk:
        assert all(f" s{number} " in desk.text() for number in range(7))
        assert "Last events" in desk.text()


async def test_tabs_whose_names_do_not_fit_are_shortened_alike(tmp_path: Path) -> None:
    script = hub()
    script.services += [service("web", kind="tunnel-server"), service("nat", kind="punch-server")]
    async with console(tmp_path, script, (80, 24)) as desk:
        words = desk.text().splitlines()[1].split()
        assert words[:6] == ["1", "overview", "2", "serv", "3", "sess"]
        assert words[-2:] == ["?", "help"]


async def test_what_stands_last_in_a_line_does_not_touch_the_scroll_bar(tmp_path: Path) -> None:
    script = quiet()
    script.services = [service(f"s{number}") for number in range(30)]
    async with console(tmp_path, script, (80, 14)) as desk:
        await desk.press("2")
        table = desk.app.pane.table
        assert table is not None
        assert table.show_vertical_scrollbar
        assert not [line for line in desk.text().splitlines()[3:9] if line[table.line_width - 1].strip()]


async def test_the_overview_says_that_all_is_well(tmp_path: Path) -> None:
    async with console(tmp_path, quiet()) as desk:
        assert "All is well: no fault, and no warning in the last 10 minutes" in desk.text()


async def test_the_same_warning_again_and_again_is_one_line(tmp_path: Path) -> None:
    script = quiet()
    script.events = [event(number, "refused", level="warning", type="session-refused") for number in range(1, 8)]
    async with console(tmp_path, script) as desk:
        assert "7 times: refused" in desk.line("▲ warning")
