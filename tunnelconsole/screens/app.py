"""The console itself: what every key and command does.

The keys are in :mod:`~tunnelconsole.screens.keys` and the commands in :mod:`~tunnelconsole.screens.commands`; each
names one of the actions here.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from tunnelconsole.control.attempts import AttemptRow
from tunnelconsole.control.audit import AuditRow
from tunnelconsole.control.bans import BanRow
from tunnelconsole.control.exchange_rows import ExchangeRow
from tunnelconsole.control.messages import (
    LEVELS,
    ChannelRow,
    ChidRow,
    EventRow,
    Role,
    ServiceRow,
    SessionRow,
)
from tunnelconsole.control.tokens import TokenRow
from tunnelconsole.screens import keys, themes
from tunnelconsole.screens.banning import Banning
from tunnelconsole.screens.chids import LIST_BELOW, ChidsPane
from tunnelconsole.screens.commands import COMMANDS, NotACommand, parse
from tunnelconsole.screens.events import EventsPane
from tunnelconsole.screens.frame import ConsoleOutcome
from tunnelconsole.screens.pane import TablePane
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.steering import engine_cost
from tunnelconsole.screens.widgets.dialog import Choice, Question
from tunnelconsole.screens.widgets.prompt import Prompt
from tunnelconsole.screens.widgets.table import LineTable

__all__ = ["ConsoleApp", "ConsoleOutcome", "run_console"]


YOUNG_OBJECTS = 10_000
"""Objects made between two looks of the garbage collector. A picture is some thousands, nearly all of which go with the
next one by themselves: with the default of 700 a twentieth of a console's time goes into looking for the others."""

PLAIN_NAME = re.compile(r"[\w.-]+")
"""Names of services that the palette offers: it would read brackets in others as markup."""


class ConsoleApp(Banning):
    """The console of one engine; its parameters are those of :class:`~tunnelconsole.screens.frame.Frame`."""

    # With priority each key does its work before the next one is looked at, so that what is typed ahead, or comes in
    # one read over a slow line, does what it would have done if typed slowly.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, f"pressed('{key}')", show=False, priority=True) for key in keys.physical()
    ]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves the keys to the prompt or the dialog while one is open."""
        if action == "pressed":
            return not self.prompt.is_open and len(self.screen_stack) == 1
        return super().check_action(action, parameters)

    async def action_pressed(self, key: str) -> None:
        """A key was pressed, and nothing that takes keys of its own is open."""
        await self.action_key(key)

    async def action_key(self, key: str) -> None:
        """Does what a key means on this screen, or says why it does nothing."""
        row = keys.meaning(key, self.place.screen)
        if row is None:
            self.tell(keys.elsewhere(key))
            return
        if self.permits(row.action):
            await self.run_action(row.action)

    # where to go

    def action_show(self, screen: keys.Screen, service: str = "") -> None:
        """Shows a screen, narrowed to one service where one is named."""
        if service and screen not in ("sessions", "channels", "events", "chids", "tunnels", "punches"):
            service = ""
        self.go(Place(screen, service))

    def action_next_screen(self, by: int) -> None:
        """Shows the screen that is so many places further in the row of tabs."""
        screens = keys.offered({row.kind for row in self.latest.services or ()}, self.place.screen)
        here = keys.INSIDE.get(self.place.screen, self.place.screen)
        self.go(Place(screens[(screens.index(here) + by) % len(screens)]))

    def action_reveal(self, service: str) -> None:
        """Shows the services, with one of them selected."""
        self.go(Place("services"))
        self.call_after_refresh(self._select_service, service)

    def _select_service(self, name: str) -> None:
        table = self.pane.table
        if table is not None:
            found = [at for at, row in enumerate(table.rows) if isinstance(row, ServiceRow) and row.name == name]
            if found:
                table.move_to(found[0])

    def action_open(self) -> None:
        """Goes into the selected row."""
        row = self._selected()
        if (place := self._inside(row)) is not None:
            self.go(place)
        elif isinstance(row, AuditRow):
            self.show_entry(row)
        elif isinstance(row, EventRow):
            self.tell("This event belongs to no service")
        elif isinstance(row, BanRow):
            self.tell("A ban has nothing inside", hint="u lifts it")
        elif isinstance(row, ChannelRow):
            self.tell("A channel has nothing inside", hint="y copies where it leads, x closes it")

    def _inside(self, row: object) -> Place | None:
        """The place that Enter leads to from a row; None where that is no place."""
        match row:
            case ServiceRow():
                return Place("sessions", row.name)
            case SessionRow():
                return Place("channels", row.service, row.id)
            case ExchangeRow():
                return Place("request", row.service, request=row.id)
            case AttemptRow():
                return Place("attempt", row.service, attempt=row.id)
            case TokenRow():
                return Place("token", token=row.name)
            case EventRow() if not (row.session and self.latest.session(row.session)):
                return Place("sessions", row.service) if row.service else None
            case ChidRow() | EventRow():
                return Place("channels", row.service, row.session)
        return Place("sessions", token=self.place.token) if self.place.screen == "token" else None

    def action_go_back(self) -> None:
        """Clears the filter, or goes back."""
        if self.place.filter.text:
            self.trail.back()
            self.present()
        elif self.trail.depth:
            self.depart()
            self.trail.back()
            self.arrive()

    def action_command(self) -> None:
        """Opens the command line."""
        self.prompt.open("command")

    def action_leave(self) -> None:
        """Leaves; where the engine was started for this console, asks what becomes of it."""
        if self.demo or not self.owns_engine:
            self.exit(ConsoleOutcome.STOP_ENGINE if self.demo else ConsoleOutcome.LEAVE_RUNNING)
            return
        status = self.latest.status if self.link.state == "live" else None
        choices: list[Choice[ConsoleOutcome | None]] = [
            Choice("s", "Stop it", ConsoleOutcome.STOP_ENGINE),
            Choice("l", "Leave it running", ConsoleOutcome.LEAVE_RUNNING),
            Choice("c", "Cancel", None),
        ]
        question: Question[ConsoleOutcome | None] = Question(
            "Leaving. What about the engine, which was started with this console?",
            [f"Stopping it {engine_cost(status)}.", "Left running, it is found again with: tunnelconsole attach"],
            choices,
        )
        self.push_screen(question, self._left)

    def _left(self, outcome: ConsoleOutcome | None) -> None:
        if outcome is not None:
            self.exit(outcome)

    def action_interrupt(self) -> None:
        """Copies what the mouse has marked, or else leaves."""
        marked = self.screen.get_selected_text()
        if marked:
            self.copy_to_clipboard(marked)
            self.screen.clear_selection()
        else:
            self.action_leave()

    def action_try_now(self) -> None:
        """Tries at once to reach an engine that went away."""
        self.feed.try_now()

    # what to see

    def action_filter(self) -> None:
        """Opens the filter's line."""
        self.prompt.open("filter", self.place.filter.text)

    def action_filter_text(self, text: str = "") -> None:
        """Filters by what was typed."""
        self.trail.filter(text)
        self.present()

    def action_freeze(self) -> None:
        """Holds the view, or lets it go."""
        if self.frozen is None:
            self.frozen, self.frozen_at = self.latest, self.clock()
        else:
            self.frozen = self.frozen_at = None
        self.present()

    def action_copy(self) -> None:
        """Copies what matters most of the selected row."""
        value = self.pane.value()
        if value is None:
            self.tell("Nothing is selected, so there is nothing to copy")
            return
        self.run_worker(self.copy(value.name, value.text), name="copy")

    def action_copy_row(self) -> None:
        """Copies the selected row as the commands' ``--json`` has it."""
        row = self._selected()
        if row is not None:
            self.run_worker(self.copy("the row", msgspec.json.encode(row).decode()), name="copy")

    def action_level(self) -> None:
        """Shows the next level of events."""
        pane = self.pane
        if isinstance(pane, EventsPane):
            pane.next_level()

    def action_level_named(self, level: str) -> None:
        """Shows events from a level up."""
        matching = [name for name in LEVELS if name.startswith(level.lower())]
        if not matching:
            self.tell(f"There is no level {level!r}", hint=f"there are: {', '.join(LEVELS)}", trouble=True)
            return
        self.go(Place("events", self.place.service))
        cast(EventsPane, self.pane).set_level(matching[0])

    def action_details(self) -> None:
        """Shows or hides the details of the selected row."""
        pane = self.pane
        if isinstance(pane, TablePane):
            pane.toggle_details()

    def action_matrix(self) -> None:
        """Shows or hides the matrix of who sends to whom."""
        pane = self.pane
        if isinstance(pane, ChidsPane) and not pane.toggle_matrix():
            self.tell("There is no room for the matrix", hint=f"it needs a terminal of {LIST_BELOW} columns")

    def action_aim(self, by: int) -> None:
        """Aims at another receiver in the matrix."""
        pane = self.pane
        if isinstance(pane, ChidsPane):
            pane.aim(by)

    def action_sort(self, column: str) -> None:
        """Sorts by a column; the same again turns it round."""
        try:
            self.pane.sort(column)
        except KeyError:
            known = ", ".join(self.pane.column_names()) or "none here"
            self.tell(f"There is no column {column!r} to sort by", hint=f"there are: {known}", trouble=True)

    def action_next_theme(self) -> None:
        """Shows the next theme."""
        names = themes.names()
        at = names.index(self.look.name) if self.look.name in names else -1
        self.action_theme_named(names[(at + 1) % len(names)])

    def action_theme_named(self, name: str) -> None:
        """Shows a theme."""
        try:
            self.choose_theme(name)
        except themes.ThemeUnreadable as error:
            self.tell(error.message, hint=error.hint, trouble=True)
            return
        self.tell(f"Theme {name}", hint=self.look.about)

    # moving

    def action_move(self, by: int) -> None:
        """Moves down, or up."""
        self.pane.move(by)

    def action_page(self, by: int) -> None:
        """Moves down by pages, or up."""
        self.pane.turn(by)

    def action_top(self) -> None:
        """Moves to the first row."""
        self.pane.to_end(last=False)

    def action_bottom(self) -> None:
        """Moves to the last row."""
        self.pane.to_end(last=True)

    # what the parts report

    def on_prompt_changed(self, message: Prompt.Changed) -> None:
        """The filter's text changed."""
        self.action_filter_text(message.text)

    def on_prompt_stepped(self, message: Prompt.Stepped) -> None:
        """An arrow key was pressed in the filter."""
        self.pane.move(message.by)

    def on_prompt_closed(self) -> None:
        """The table has the keys again."""
        self.prompt.hide()
        self.focus_table()

    async def on_prompt_entered(self, message: Prompt.Entered) -> None:
        """A command was typed."""
        await self.carry_out(message.text)

    async def carry_out(self, text: str) -> None:
        """Does what a command says, or tells what is wrong with it."""
        try:
            called = parse(text)
        except NotACommand as error:
            self.tell(f"{text!r} was not done: {error}", trouble=True)
            return
        if not self.permits(called.command.action):
            return
        name, _, given = called.command.action.partition("(")
        arguments = [given.strip("')")] if given else []
        if called.argument:
            arguments.append(called.argument)
        getattr(self, f"action_{name}")(*arguments)

    def on_line_table_opened(self) -> None:
        """A row was clicked twice."""
        self.action_open()

    def on_line_table_heading_clicked(self, message: LineTable.HeadingClicked) -> None:
        """A heading was clicked."""
        self.action_sort(message.column)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette (Ctrl-P) finds: the commands that need nothing more, the services' own, and the themes."""
        for command in COMMANDS:
            if not command.needs and command.takes != "text":
                yield SystemCommand(command.name, command.help, partial(self.carry_out, command.name))
        for name in (row.name for row in self.latest.services or () if PLAIN_NAME.fullmatch(row.name)):
            for verb in ("sessions", "start", "stop", "restart"):
                yield SystemCommand(f"{verb} {name}", "This service", partial(self.carry_out, f"{verb} {name}"))
        for name in themes.names():
            yield SystemCommand(f"theme {name}", "Change the colours", partial(self.carry_out, f"theme {name}"))


def run_console(
    socket_path: Path, *, owns_engine: bool, demo: bool, role: Role = "operate", files: bool = True
) -> ConsoleOutcome:
    """Runs the console until the operator leaves.

    It paints at once, and finds the engine when it is there.

    :param owns_engine: the engine was started for this console, so leaving asks what becomes of it.
    :param demo: the engine is a demonstration, which ends with the console.
    :param role: ``view`` refuses whatever changes something.
    :param files: False saves nothing on this machine.
    """
    gc.freeze()  # what the framework is made of stays for good
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    outcome = ConsoleApp(socket_path, owns_engine=owns_engine, demo=demo, role=role, files=files).run()
    return ConsoleOutcome.LEAVE_RUNNING if outcome is None else outcome
