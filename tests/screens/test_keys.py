"""The table of keys: complete, without contradiction, and the only place where keys are written."""

from __future__ import annotations

from itertools import combinations

from textual.keys import Keys, _character_to_key

from tunnelconsole.screens import keys
from tunnelconsole.screens.app import ConsoleApp
from tunnelconsole.screens.commands import COMMANDS
from tunnelconsole.screens.frame import PANES
from tunnelconsole.screens.help import page
from tunnelconsole.screens.keys import KEYS, SCREENS
from tunnelconsole.screens.spans import plain


def test_no_key_means_two_things_on_one_screen() -> None:
    for one, other in combinations(KEYS, 2):
        assert not set(one.keys) & set(other.keys) or not one.where & other.where, (one, other)


def test_every_key_and_every_command_has_something_that_does_it() -> None:
    for action in [*(key.action for key in KEYS), *(command.action for command in COMMANDS)]:
        assert callable(getattr(ConsoleApp, f"action_{action.partition('(')[0]}"))


def test_every_key_is_one_that_the_terminal_can_send() -> None:
    known = {key.value for key in Keys} | {_character_to_key(chr(code)) for code in range(0x21, 0x7F)}
    assert set(keys.physical()) <= known


def test_the_app_binds_the_table_and_nothing_else() -> None:
    assert [binding.key for binding in ConsoleApp.BINDINGS] == keys.physical()  # type: ignore[union-attr]


def test_every_screen_has_a_digit_or_a_question_mark_and_a_pane() -> None:
    shown = [keys.tab_key(screen) for screen in SCREENS]
    assert shown == [*map(str, range(1, len(SCREENS))), "?"]
    assert [pane.screen_name for pane in PANES] == [*SCREENS, *keys.INSIDE]


def test_the_help_shows_every_key_and_every_command() -> None:
    text = "\n".join(plain(line) for line in page(200))
    narrow = "\n".join(plain(line) for line in page(80))
    for row in [*KEYS, *keys.DIALOG_KEYS]:
        assert f" {row.shown} " in narrow, row
    for command in COMMANDS:
        assert command.help in text, command


def test_every_sort_key_names_a_column_of_its_screens() -> None:
    columns = {pane.screen_name: pane().column_names() for pane in PANES}
    for row in KEYS:
        if row.group == "sort":
            column = row.action.removeprefix("sort('").removesuffix("')")
            assert all(column in columns[screen] for screen in row.where), row


def test_a_key_of_other_screens_says_what_it_does_there() -> None:
    assert (
        keys.elsewhere("l")
        == "l does nothing on this screen. It means level on events; limits on overview, services and sessions"
    )
    assert "kick on sessions" in keys.elsewhere("x")


def test_the_footer_puts_what_is_done_here_first() -> None:
    assert [row.label for row in keys.footer("sessions")][:3] == ["open", "back", "kick"]


def test_a_screen_about_a_kind_of_service_has_a_tab_where_there_is_one_or_somebody_is_on_it() -> None:
    assert "chids" not in keys.offered({"jump-server"}, "overview")
    assert "chids" in keys.offered({"jump-server", "channel-server"}, "overview")
    assert "chids" in keys.offered(set(), "chids")
    assert "tunnels" in keys.offered({"tunnel-client"}, "overview")
    assert "tunnels" in keys.offered(set(), "request")
    assert keys.offered(set(), "help") == [screen for screen in SCREENS if screen not in keys.ABOUT]
