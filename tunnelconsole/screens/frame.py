"""The console's frame: what stands around the screens, what supplies them, and how it speaks to the operator."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import tzinfo
from enum import Enum
from functools import partial
from math import isfinite
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.containers import Container
from textual.screen import Screen

from tunnelconsole.control.messages import LEVELS, MIN_INTERVAL, Events, Reply, Request, Update, Watch
from tunnelconsole.screens import copying, themes
from tunnelconsole.screens.attempt import AttemptPane
from tunnelconsole.screens.audit import AuditPane
from tunnelconsole.screens.bans import BansPane
from tunnelconsole.screens.channels import ChannelsPane
from tunnelconsole.screens.chids import ChidsPane
from tunnelconsole.screens.commands import Takes, complete
from tunnelconsole.screens.events import EventsPane
from tunnelconsole.screens.feed import Feed, Link
from tunnelconsole.screens.help import HelpPane
from tunnelconsole.screens.overview import OverviewPane
from tunnelconsole.screens.pane import Pane, Scene
from tunnelconsole.screens.picture import Gathering, Picture
from tunnelconsole.screens.places import Place, Trail
from tunnelconsole.screens.preferences import Preferences, PreferencesFile
from tunnelconsole.screens.punches import PunchesPane
from tunnelconsole.screens.request import RequestPane
from tunnelconsole.screens.services import ServicesPane
from tunnelconsole.screens.sessions import SessionsPane
from tunnelconsole.screens.spans import clean
from tunnelconsole.screens.themes import Look
from tunnelconsole.screens.token import TokenPane
from tunnelconsole.screens.tokens import TokensPane
from tunnelconsole.screens.tunnels import TunnelsPane
from tunnelconsole.screens.widgets import chrome
from tunnelconsole.screens.widgets.dialog import Choice, Question, yes_or_no
from tunnelconsole.screens.widgets.lines import Lines
from tunnelconsole.screens.widgets.prompt import Prompt

INTERVAL = 0.5
"""Seconds between updates: as often as figures can be read."""

INTERVAL_VARIABLE = "TUNNELCONSOLE_INTERVAL"
"""The variable of the environment that gives other seconds; the engine gives four updates a second at the most."""

TICK = 1.0
"""Seconds after which the time of day goes on where no update does: it is shown in seconds."""

SLOW_INTERVAL = 1.0
"""Seconds between updates where there are many rows: nobody reads thousands twice a second."""

MANY = 2000
"""Sessions, channels or tokens from which updates come at :data:`SLOW_INTERVAL`."""

NEW_PANE = 0.02
"""Seconds until a screen that was just made is looked at again: it has no size before it has been laid out, and is not
always told when it has."""

TOAST, TROUBLE_TOAST = 4.0, 9.0
"""Seconds that a toast stays; one that says what went wrong has a hint to read."""

PANES: tuple[type[Pane], ...] = (
    OverviewPane, ServicesPane, SessionsPane, ChannelsPane, EventsPane, ChidsPane, TunnelsPane, PunchesPane, TokensPane,
    HelpPane, RequestPane, AttemptPane, AuditPane, BansPane, TokenPane,
)  # fmt: skip
"""The screens, in the order of their tabs."""


def interval(environ: Mapping[str, str]) -> float:
    """Seconds between updates, as the environment says; :data:`INTERVAL` where it says nothing that makes sense."""
    try:
        asked = float(environ.get(INTERVAL_VARIABLE, ""))
    except ValueError:
        return INTERVAL
    return max(MIN_INTERVAL, asked) if isfinite(asked) else INTERVAL


class ConsoleOutcome(Enum):
    """How the operator left."""

    LEAVE_RUNNING = "leave-running"
    """The engine goes on."""
    STOP_ENGINE = "stop-engine"
    """The engine is to be stopped."""


class MainScreen(Screen[None], inherit_bindings=False):
    """The one screen of Textual's that ours are shown on. It has no keys of its own: all are in the table of keys."""

    BLANK = True


class Body(Container):
    """Holds the screens, which cover it."""

    BLANK = True


class Frame(App[ConsoleOutcome], inherit_bindings=False):
    """Everything of the console but what its keys do.

    :param socket_path: the engine's control socket.
    :param owns_engine: the engine was started for this console, so leaving asks what becomes of it.
    :param demo: the engine is a demonstration, and ends with the console.
    :param theme: name of a theme; None: the one chosen last.
    :param no_color: no colours at all; None: as the environment's NO_COLOR says.
    :param clock: the Unix time.
    :param zone: where times of day are shown; None: where this machine is.
    :param preferences: where the theme is remembered.
    """

    TITLE = "TunnelConsole"
    ESCAPE_TO_MINIMIZE: ClassVar[bool] = False
    CSS = """
    #body { height: 1fr; }
    #body.-old { opacity: 60%; }
    #body.-old:ansi { opacity: 100%; }
    #header, #tabs, #footer { height: 1; background: $bar; }
    #banner { height: auto; }
    Pane { width: 1fr; height: 1fr; }
    Toast { background: $toast; max-width: 80%; padding: 0 1; }
    """

    def __init__(
        self,
        socket_path: Path,
        *,
        owns_engine: bool = False,
        demo: bool = False,
        theme: str | None = None,
        no_color: bool | None = None,
        clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
        preferences: PreferencesFile | None = None,
    ) -> None:
        colourless = bool(os.environ.get("NO_COLOR")) if no_color is None else no_color
        super().__init__(ansi_color=True if colourless else None)
        self.animation_level = "none"
        self.interval = interval(os.environ)
        self.socket_path = socket_path
        self.owns_engine = owns_engine
        self.demo = demo
        self.clock = clock
        self.zone = zone
        self.preferences = preferences or PreferencesFile.usual()
        self.trail = Trail(Place("overview"))
        self.frozen: Picture | None = None
        self.frozen_at: float | None = None
        self.link = Link(since=clock())
        self.gathering = Gathering()
        self.feed = Feed(socket_path, clock, self._updated, self._earlier, self._linked)
        self._wanted: Watch | None = None
        self._panes: dict[str, Pane] = {}
        self._cursors: dict[tuple[str, str, str], Hashable] = {}
        self._shown: tuple[Pane, int] | None = None
        self._presented = 0.0
        self._theme_trouble = ""
        self.look = self._first_look(theme or (themes.WITHOUT_COLOUR if colourless else self.preferences.load().theme))
        self.register_theme(self.look.textual())
        self.theme = self.look.name
        self._header, self._tabs = Lines(id="header"), Lines(id="tabs")
        self._banner, self._footer = Lines(id="banner"), Lines(id="footer")
        self._body = Body(id="body")
        self.prompt = Prompt(self.completions)

    def get_default_screen(self) -> Screen[None]:
        return MainScreen()

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._tabs
        yield self._banner
        yield self._body
        yield self.prompt
        yield self._footer

    def on_mount(self) -> None:
        self.arrive()
        self.run_worker(self.feed.run(), name="feed")
        self.set_interval(TICK, self._tick, name="clock")
        if self._theme_trouble:
            self.tell(self._theme_trouble, trouble=True)

    # what is known

    @property
    def latest(self) -> Picture:
        """What is known now, even while the view is frozen."""
        return self.gathering.picture

    @property
    def place(self) -> Place:
        """The place that is shown."""
        return self.trail.here

    @property
    def pane(self) -> Pane:
        """The screen that is shown, made when it is first asked for."""
        name = self.place.screen
        if name not in self._panes:
            made = next(kind for kind in PANES if kind.screen_name == name)()
            self._panes[name] = made
            self._body.mount(made)
        return self._panes[name]

    def _tick(self) -> None:
        """Lets the time go on where no update does."""
        if time.monotonic() - self._presented > TICK / 2:
            self.present()

    def _updated(self, update: Update) -> None:
        self.gathering.update(update, self.clock())
        self.watch_what_is_shown()
        self.present()

    def _earlier(self, events: Events) -> None:
        self.gathering.earlier(events.rows)
        self.present()

    def _linked(self, link: Link) -> None:
        self.link = link
        self.present()

    def watch_what_is_shown(self) -> None:
        """Asks the engine for what the present screen needs, and for no more."""
        status = self.latest.status
        tokens = len(self.latest.tokens or ())
        many = status is not None and max(status.sessions, status.channels, tokens) > MANY
        narrowed = self.place.service if self.place.screen in ("sessions", "channels", "chids") else ""
        watch = Watch(self.pane.topics(status), max(SLOW_INTERVAL, self.interval) if many else self.interval, narrowed)
        if watch != self._wanted:
            self._wanted = watch
            want = partial(self.feed.want, watch)  # not begun: another may take its place before it is
            self.run_worker(want, name="want", group="want", exclusive=True)  # type: ignore[arg-type]

    # what is shown

    def arrive(self) -> None:
        """Shows the present place, which is another than before."""
        pane, place = self.pane, self.place
        for other in self._panes.values():
            other.display = other is pane
        pane.entered(self._cursors.get((place.screen, place.service, place.session)))
        self.watch_what_is_shown()
        self.present()
        self.call_after_refresh(self.focus_table)

    def go(self, place: Place) -> None:
        """Shows another place."""
        if place != self.place:
            self.depart()
            self.trail.go(place)
            self.arrive()

    def depart(self) -> None:
        """Keeps in mind where the cursor is, for when the present place is shown again."""
        place, table = self.place, self.pane.table
        if table is not None:
            self._cursors[place.screen, place.service, place.session] = table.pinned

    def focus_table(self) -> None:
        """Gives the keys to the table of the present screen."""
        if self.prompt.is_open or len(self.screen_stack) > 1:
            return
        # now, and not a turn later: by then the prompt may be open, whose keys they are then
        self.screen.set_focus(self.pane.table, scroll_visible=False)

    def scene(self, *, live: bool = False) -> Scene:
        """What the present screen shows: as it was when it was frozen, unless ``live``."""
        frozen = None if live else self.frozen
        now = self.clock() if frozen is None or self.frozen_at is None else self.frozen_at
        return Scene(self.latest if frozen is None else frozen, self.place, now, self.zone, self.link, self.socket_path)

    def present(self) -> None:
        """Shows everything as it stands; what has not changed is not painted."""
        if not self.is_running:
            return
        self._presented = time.monotonic()
        width, now, live = self.size.width, self.clock(), self.scene(live=True)
        self._header.show([chrome.header(live, now, self.frozen_at, width, demo=self.demo)])
        self._tabs.show([chrome.tabs(live, width)])
        said = chrome.banner(self.link, now, self.latest.time)
        self._banner.show(said)
        self._body.set_class(bool(said), "-old")
        self._footer.show([chrome.footer(self.place.screen, width, deeper=self.can_go_back)])
        pane = self.pane
        pane.show(self.scene())
        self._shown = (pane, pane.size.width)
        if not pane.size.width:
            self.set_timer(NEW_PANE, self.present)

    @property
    def fits(self) -> bool:
        """True when the present screen was last shown as wide as it is."""
        return self._shown == (self.pane, self.pane.size.width) and self.pane.size.width > 0

    @property
    def can_go_back(self) -> bool:
        """True when Esc does something."""
        return bool(self.trail.depth or self.place.filter.text)

    def on_resize(self) -> None:
        self.watch_what_is_shown()
        self.present()

    # how it speaks

    def tell(self, text: str, *, hint: str = "", trouble: bool = False) -> None:
        """Shows a toast: what happened, and below it what to do."""
        message = clean(text) + (f"\n{clean(hint)}" if hint else "")
        severity, stays = ("error", TROUBLE_TOAST) if trouble else ("information", TOAST)
        self.notify(message, severity=severity, timeout=stays, markup=False)  # type: ignore[arg-type]

    async def confirm(self, title: str, sentences: Sequence[str], doing: str) -> bool:
        """Asks the operator, and waits for the answer; only to be awaited in a worker."""
        return await self.push_screen_wait(yes_or_no(title, sentences, doing))

    async def inform(self, title: str, sentences: Sequence[str]) -> None:
        """Shows what takes more than a toast, until it has been read; only to be awaited in a worker."""
        await self.push_screen_wait(Question(title, sentences, [Choice("n", "Go on", None)]))

    async def ask(self, request: Request) -> Reply:
        """Asks the engine; raises what :meth:`Feed.ask` raises."""
        return await self.feed.ask(request)

    # the clipboard

    def copy_to_clipboard(self, text: str) -> None:
        """Copies what was marked with the mouse."""
        self.run_worker(self._copy("what was marked", "\n".join(map(clean, text.splitlines()))), name="copy")

    async def copy(self, name: str, text: str) -> None:
        """Copies ``text`` and says so, calling it ``name``."""
        await self._copy(name, clean(text))

    async def copy_unseen(self, name: str, secret: str) -> None:
        """Copies a secret and says so, calling it ``name``, without showing it."""
        await self._copy(name, secret, seen=False)

    async def _copy(self, name: str, harmless: str, *, seen: bool = True) -> None:
        environ = os.environ
        if copying.way(environ) == "desktop" and await asyncio.to_thread(copying.to_desktop, harmless):
            copied = copying.Copied("desktop", len(harmless))
        else:
            sequence, copied = copying.osc52(harmless, environ)
            self.to_terminal(sequence)
        seen = seen and len(harmless) <= 60 and "\n" not in harmless
        shown = harmless if seen else f"{len(harmless):,} characters"
        self.tell(f"Copied {name}: {shown}", hint=copied.how)

    def to_terminal(self, sequence: str) -> None:
        """Sends a control sequence of ours to the terminal."""
        if self._driver is not None:
            self._driver.write(sequence)

    # the theme

    def _first_look(self, name: str) -> Look:
        try:
            return themes.load(name or themes.DEFAULT)
        except themes.ThemeUnreadable as error:
            self._theme_trouble = str(error)
            return themes.load(themes.DEFAULT)

    def choose_theme(self, name: str) -> None:
        """Changes the colours, now and for the next time.

        :raises ThemeUnreadable: there is no such theme, or its file is wrong.
        """
        self.look = themes.load(name)
        self.register_theme(self.look.textual())
        self.theme = name
        for screen in self.screen_stack:
            for widget in screen.walk_children():
                widget.refresh()
        try:
            self.preferences.save(Preferences(theme=name))
        except OSError as error:
            self.tell(f"The theme cannot be remembered: {error}", hint="it lasts until the console ends", trouble=True)

    # what may be typed

    def completions(self, text: str) -> list[str]:
        """What a command could become, best first."""
        picture = self.latest
        known: dict[Takes, Iterable[str]] = {
            "service": [row.name for row in picture.services or ()],
            "session": [row.id for row in picture.sessions or ()],
            "channel": [row.id for row in picture.channels or ()],
            "chid": [row.chid for row in picture.chids or ()],
            "address": [row.address for row in picture.bans or ()],
            "token": [row.name for row in picture.tokens or ()],
            "theme": themes.names(),
            "column": self.pane.column_names(),
            "level": LEVELS,
        }
        return complete(text, known)
