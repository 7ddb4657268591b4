"""A console on the operator's desk: the app without a terminal, at a scripted engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from textual._compositor import Compositor
from textual._context import visible_screen_stack
from textual.message_pump import MessagePump
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

import waiting
from screens.rows import NOW
from screens.scripted_engine import Script, ScriptedEngine
from tunnelconsole.control.messages import Request
from tunnelconsole.screens.app import ConsoleApp, ConsoleOutcome
from tunnelconsole.screens.preferences import PreferencesFile

_DRAW = Compositor.render_update


def draw_when_looked_at(
    compositor: Compositor, full: bool = False, screen_stack: list[Screen[Any]] | None = None, simplify: bool = False
) -> RenderableType | None:
    """Draws nothing for a terminal that is not there: a third of a test's time. A picture of all is drawn as ever."""
    if full:
        return _DRAW(compositor, full, screen_stack, simplify)
    visible_screen_stack.set(screen_stack or [])
    compositor._dirty_regions.clear()
    return None


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        return self.time


class DeskApp(ConsoleApp):
    """The console, with what it sends to the terminal kept."""

    def __init__(self, socket_path: Path, **options: Any) -> None:
        super().__init__(socket_path, **options)
        self.sent: list[str] = []
        """What went to the terminal beside the picture."""
        self.done: list[str] = []
        """The actions that keys led to."""
        self.told: list[str] = []
        """What the operator was told, oldest first."""

    def to_terminal(self, sequence: str) -> None:
        self.sent.append(sequence)

    def notify(self, message: str, **options: Any) -> None:
        self.told.append(message)
        super().notify(message, **options)

    async def run_action(self, action: Any, *arguments: Any, **options: Any) -> bool:
        self.done.append(action)
        return await super().run_action(action, *arguments, **options)


@dataclass
class Desk:
    """An operator at a console."""

    app: DeskApp
    pilot: Pilot[ConsoleOutcome]
    engine: ScriptedEngine
    clock: Clock

    async def press(self, *keys: str) -> None:
        """Presses keys, and after each lets all that follows happen."""
        for key in keys:
            await self.pilot.press(key)
            await self.settle()

    async def settle(self) -> None:
        """Waits until nothing is under way any more, or a question is asked, and until the screen stands still.

        What changes on a screen is drawn in steps of 17 ms; here it is drawn at once, the screens below a question too.
        """
        await waiting.until(lambda: len(self.app.screen_stack) > 1 or not self._busy())
        await waiting.until(lambda: self.app._resize_event is None)  # one of a terminal is taken in after 8 ms
        await waiting.until(lambda: self.app.fits)
        before: list[Any] = []
        while (shown := self._strips()) != before or self._under_way():
            before = shown
            for screen in self.app._background_screens:
                screen._on_timer_update()
            await self.pilot.pause()

    def _under_way(self) -> bool:
        """Whether the screen has to be laid out anew, has calls to make when it has been drawn, or has not heard all.

        Textual's own pause takes a process for idle that is not given a processor, on a busy machine.
        """
        if not self.app.is_running:
            return False
        screen = self.app.screen
        listening = (self.app, *screen.walk_children(with_self=True))
        return bool(screen._layout_required or screen._callbacks) or any(map(_has_news, listening))

    def _busy(self) -> bool:
        return any(not worker.is_finished for worker in self.app.workers if worker.name != "feed")

    async def type(self, text: str) -> None:
        """Types text."""
        names = {" ": "space", "!": "exclamation_mark", ".": "full_stop", "-": "minus", ":": "colon", "/": "slash"}
        await self.press(*(names.get(character, character) for character in text))

    async def command(self, text: str) -> None:
        """Enters a command, pasted in one piece."""
        await self.press("colon")
        await self.write(text)
        await self.press("enter")

    async def write(self, text: str) -> None:
        """Puts this, in one piece, in place of what stands in the prompt."""
        self.app.prompt.query_one(Input).value = text
        await self.settle()

    async def tick(self) -> None:
        """Has the engine send an update, and the console show it."""
        seen = self.app.latest
        self.engine.tick()
        await waiting.until(lambda: self.app.latest is not seen)
        await self.settle()

    async def arrive(self) -> None:
        """Waits until the console shows what the engine has."""
        await waiting.until(lambda: self.app.link.state == "live" and self.app.latest.status is not None)
        wanted = self.app.pane.topics(self.app.latest.status)
        await waiting.until(lambda: all(self._has(topic) for topic in wanted))
        await self.settle()

    def _has(self, topic: str) -> bool:
        if topic == "events":
            return len(self.app.latest.events) == len(self.engine.script.events)
        if topic == "histories":
            return len(self.app.latest.flows) == len(self.engine.script.histories)
        return getattr(self.app.latest, topic) is not None

    async def asked(self, request: Request) -> None:
        """Waits until the engine was asked this."""
        await waiting.until(lambda: request in self.engine.asked)

    def text(self) -> str:
        """What is on the screen."""
        return "\n".join("".join(segment.text for segment in strip) for strip in self._strips())

    def styles(self) -> set[Any]:
        """The styles of what is on the screen."""
        return {segment.style for strip in self._strips() for segment in strip}

    def _strips(self) -> list[Any]:
        # without it, what is below a question would be drawn as nothing, and kept so
        visible_screen_stack.set(self.app._background_screens)
        return self.app.screen._compositor.render_strips()

    def line(self, word: str) -> str:
        """The first line of the screen with this word in it."""
        found = [line for line in self.text().splitlines() if word in line]
        assert found, f"{word!r} is not on the screen:\n{self.text()}"
        return found[0]

    def column(self, first: str) -> list[str]:
        """The first words of a table's lines, below the heading that begins with ``first``."""
        lines = self.text().splitlines()
        at = next(at for at, line in enumerate(lines) if line.strip().startswith(first))
        body = []
        for line in lines[at + 1 :]:
            if not line.strip() or "─" in line:
                break
            body.append(line.split()[0])
        return body

    @property
    def toasts(self) -> list[str]:
        """What the operator was told, oldest first."""
        return self.app.told


def _has_news(listener: MessagePump) -> bool:
    return listener.is_running and (listener.message_queue_size > 0 or listener._pending_message is not None)


@asynccontextmanager
async def console(
    folder: Path, script: Script, size: tuple[int, int] = (120, 36), *, running: bool = True, **options: Any
) -> AsyncIterator[Desk]:
    """A console that has arrived at an engine with this script; where not ``running``, at none."""
    clock = Clock()
    engine = ScriptedEngine(folder / "control.sock", script)
    options.setdefault("preferences", PreferencesFile(folder / "console.json"))
    options.setdefault("no_color", False)
    app = DeskApp(engine.path, clock=clock, zone=UTC, **options)
    if running:
        await engine.start()
    try:
        async with app.run_test(size=size, notifications=True) as pilot:
            desk = Desk(app, pilot, engine, clock)
            app.prompt.query_one(Input).cursor_blink = False
            if running:
                await desk.arrive()
            else:
                await desk.settle()
            yield desk
    finally:
        await engine.stop()
