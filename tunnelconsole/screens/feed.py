"""The line to the engine: it is watched on one connection, asked on others, and found again when it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.messages import Events, GetEvents, Reply, Request, Update, Watch
from tunnelconsole.errors import EngineUnreachable, TunnelConsoleError

FIRST_WAIT = 0.1
"""Seconds before the second try: an engine that is just starting is there in a moment."""

LONGEST_WAIT = 5.0
"""Seconds between two tries at the most: nobody should look at a dead console for longer."""

EVENTS_ASKED = 500
"""Events asked for when the console attaches: some screens full."""

State = Literal["waiting", "live", "lost"]


@dataclass(frozen=True)
class Link:
    """How it stands with the engine."""

    state: State = "waiting"
    """``waiting`` for an engine never seen yet, ``live``, or ``lost``."""
    error: str = ""
    """Why it is not live."""
    hint: str = ""
    since: float = 0.0
    """When it came into this state, in Unix seconds."""
    retry_at: float = 0.0
    """When the next try is due, in Unix seconds; 0.0 while one is under way."""


class Feed:
    """Keeps the console supplied.

    :param path: the control socket.
    :param clock: the Unix time.
    :param on_update: takes each update.
    :param on_events: takes the events from before the first update.
    :param on_link: takes each change of how it stands with the engine.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        on_update: Callable[[Update], None],
        on_events: Callable[[Events], None],
        on_link: Callable[[Link], None],
    ) -> None:
        self._path = path
        self._clock = clock
        self._on_update = on_update
        self._on_events = on_events
        self._on_link = on_link
        self._watch = Watch(["services", "events"])
        self._watching: ControlClient | None = None
        self._again = asyncio.Event()
        self.link = Link(since=clock())

    async def run(self) -> None:
        """Watches the engine for ever, through its ends and beginnings."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._follow()
            except TunnelConsoleError as error:
                if self.link.state == "live":
                    wait = FIRST_WAIT
                now = self._clock()
                state: State = "waiting" if self.link.state == "waiting" else "lost"
                since = now if self.link.state == "live" else self.link.since
                self._tell(Link(state, error.message, error.hint, since, now + wait))
            self._again.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._again.wait()
            except TimeoutError:
                wait = min(wait * 2, LONGEST_WAIT)
            self._tell(replace(self.link, retry_at=0.0))

    async def _follow(self) -> None:
        """Watches one engine until it goes away, which raises EngineUnreachable."""
        async with await ControlClient.connect(self._path, "console") as client:
            self._watching = client
            try:
                first = True
                async for update in client.watch(self._watch):
                    if first:
                        self._tell(Link("live", since=self._clock()))
                    self._on_update(update)
                    if first:
                        first = False
                        # after the first update, so that no event falls between what is asked and what is watched
                        await self._earlier()
            finally:
                self._watching = None
        raise EngineUnreachable(f"the engine at {self._path} ended the watch", "attach again")

    async def _earlier(self) -> None:
        reply = await self.ask(GetEvents(limit=EVENTS_ASKED))
        if isinstance(reply, Events):
            self._on_events(reply)

    async def want(self, watch: Watch) -> None:
        """Changes what is watched."""
        if watch == self._watch:
            return
        self._watch = watch
        if self._watching is not None:
            try:
                await self._watching.change_watch(watch)
            except EngineUnreachable:
                return  # the watch itself ends of the same cause, and tells it

    async def ask(self, request: Request) -> Reply:
        """Asks the engine one thing.

        :raises RequestRefused: the engine refused.
        :raises EngineUnreachable: it is away, or did not answer in time.
        """
        async with await ControlClient.connect(self._path, "console") as client:
            return await client.ask(request)

    def try_now(self) -> None:
        """Ends the wait before the next try."""
        self._again.set()

    def _tell(self, link: Link) -> None:
        self.link = link
        self._on_link(link)
