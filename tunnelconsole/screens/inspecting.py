"""What an operator does with requests that came through tunnels: opens, copies and saves them, and sends them again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tunnelconsole.control import figures
from tunnelconsole.control.curl import curl_of
from tunnelconsole.control.exchange_rows import ExchangeRow
from tunnelconsole.control.har import har_of, save_private
from tunnelconsole.control.messages import Exchange, GetExchange, ReplayExchange, Request, Update
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens import copying
from tunnelconsole.screens.frame import Frame
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.request import RequestPane


class Inspecting(Frame):
    """The frame, with the actions about requests; its parameters are those of :class:`Frame`."""

    # what is shown

    def arrive(self) -> None:
        super().arrive()
        pane = self._opened()
        if pane is not None:  # anew each time: another engine may have another request of this id
            pane.begin(self.place.request)
            self._load(reveal=False)

    def _updated(self, update: Update) -> None:
        super()._updated(update)
        pane = self._opened()
        if pane is None or pane.exchange is None or self.frozen is not None or pane.is_gone(self.latest.status):
            return
        row, shown = self.latest.exchange(pane.key), pane.exchange.row
        if row is not None and shown.seconds is None and _progress(row) != _progress(shown):
            self._load(reveal=pane.exchange.revealed)

    def _opened(self) -> RequestPane | None:
        pane = self.pane
        return pane if isinstance(pane, RequestPane) else None

    def _load(self, *, reveal: bool) -> None:
        self.run_worker(self._bring(self.place.request, reveal=reveal), name="request", group="request", exclusive=True)

    async def _bring(self, key: str, *, reveal: bool) -> None:
        try:
            reply = await self.ask(GetExchange(key, reveal))
        except TunnelConsoleError as error:
            self._cannot_bring(key, error)
            return
        pane = self._opened()
        status = self.latest.status
        if pane is not None and pane.key == key and isinstance(reply, Exchange):
            pane.bring(reply, status.pid if status is not None else 0)

    def _cannot_bring(self, key: str, error: TunnelConsoleError) -> None:
        pane = self._opened()
        if pane is None or pane.key != key:
            return
        if pane.exchange is None:
            pane.fail(error.message, error.hint)
        else:
            self.tell(error.message, hint=error.hint, trouble=True)

    def action_bytes(self) -> None:
        """Shows bodies byte by byte, or as text again."""
        pane = self._opened()
        if pane is not None:
            pane.toggle_bytes()

    def action_secrets(self) -> None:
        """Shows the secrets of the request, or hides them again."""
        pane = self._opened()
        if pane is None or pane.exchange is None:
            self.tell("The request is not here yet")
        elif pane.is_gone(self.latest.status):
            self._tell_gone(pane.key)
        elif pane.exchange.revealed:
            self._load(reveal=False)
        elif not pane.exchange.hidden:
            self.tell("Nothing in this request is hidden")
        else:
            self._inspect(self._reveal(pane.exchange))

    async def _reveal(self, exchange: Exchange) -> None:
        hidden = figures.counted(exchange.hidden, "secret")
        sentences = [
            "Credentials, cookies and tokens then stand on the screen for whoever looks at it, until you go back."
        ]
        if await self.confirm(f"Show {hidden} of request {exchange.row.id}", sentences, "Show them"):
            self._load(reveal=True)

    def _tell_gone(self, key: str) -> None:
        self.tell(f"Request {key} went with its engine", hint="another runs now; c and w still save what is shown")

    # what is done

    def _inspect(self, doing: Coroutine[Any, Any, None]) -> None:
        self.run_worker(doing, name="inspect")

    def _chosen(self) -> str:
        """The id of the request that is opened, or selected."""
        pane = self._opened()
        if pane is not None:
            return pane.key
        row = self.pane.table.selected if self.pane.table is not None else None
        if isinstance(row, ExchangeRow):
            return row.id
        self.tell("No request is selected")
        return ""

    async def _whole(self, key: str) -> Exchange | None:
        """All of a request, as it is shown where it is; None, and told, where it cannot be had."""
        pane = self._opened()
        if pane is not None and pane.key == key and pane.exchange is not None:
            return pane.exchange
        return await self._asked(GetExchange(key))

    async def _asked(self, request: Request) -> Exchange | None:
        try:
            reply = await self.ask(request)
        except TunnelConsoleError as error:
            self.tell(error.message, hint=error.hint, trouble=True)
            return None
        return reply if isinstance(reply, Exchange) else None

    def action_curl(self) -> None:
        """Copies the request as a command of curl."""
        if key := self._chosen():
            self._inspect(self._copy_curl(key))

    async def _copy_curl(self, key: str) -> None:
        exchange = await self._whole(key)
        if exchange is None:
            return
        try:
            command = curl_of(exchange)
        except TunnelConsoleError as error:
            self.tell(error.message, hint=error.hint, trouble=True)
            return
        if copying.way(os.environ) == "terminal" and len(command) > copying.LARGEST:
            self.tell(
                f"The command has {len(command):,} characters, more than a terminal can copy",
                hint=f"print it with: tunnelconsole request {key} --curl",
                trouble=True,
            )
            return
        await self.copy(f"the command{_without_secrets(exchange)}", command)

    def action_har(self, name: str = "") -> None:
        """Saves the request in a new file."""
        if key := self._chosen():
            self._inspect(self._save_har(key, name))

    async def _save_har(self, key: str, name: str) -> None:
        exchange = await self._whole(key)
        if exchange is None:
            return
        try:
            path = await asyncio.to_thread(_save, exchange, name)
        except (OSError, RuntimeError) as error:  # the latter where there is no home folder
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.tell(f"The file cannot be written: {reason}", hint="name another with :har FILE", trouble=True)
            return
        self.tell(f"Saved request {key}{_without_secrets(exchange)}", hint=str(path))

    def action_replay(self) -> None:
        """Sends the request to its service again."""
        pane = self._opened()
        if pane is not None and pane.is_gone(self.latest.status):
            self._tell_gone(pane.key)  # and not what another engine has under this id
        elif key := self._chosen():
            self._inspect(self._replay(key))

    async def _replay(self, key: str) -> None:
        exchange = await self._whole(key)
        if exchange is None:
            return
        row = exchange.row
        title = f"Send {row.method} {row.host}{row.target} again"
        how = (
            f"It goes through {row.service} as a visitor's would, with its secrets. What it changes, it changes again."
        )
        if not await self.confirm(title, [how], "Send it"):
            return
        again = await self._asked(ReplayExchange(key))
        if again is None:
            return
        self.go(Place("request", again.row.service, request=again.row.id))
        took = f" in {figures.brief(again.row.seconds)}" if again.row.seconds is not None else ""
        self.tell(
            f"Sent again; answered with {again.row.status}{took}" if again.row.status else "Sent again; no answer yet"
        )


def _progress(row: ExchangeRow) -> tuple[float | None, int, int, int]:
    return row.seconds, row.status, row.request_bytes, row.response_bytes


def _without_secrets(exchange: Exchange) -> str:
    return f", {figures.counted(exchange.hidden, 'secret')} hidden" if exchange.hidden else ""


def _save(exchange: Exchange, name: str) -> Path:
    """Saves it in a new file, of this name or else of one that is free in the present folder.

    :raises OSError: it cannot be written, or is there already.
    """
    number = 1
    path = Path(name).expanduser().absolute() if name else Path.cwd() / f"request-{exchange.row.id}.har"
    while not name and path.exists():
        number += 1
        path = path.with_name(f"request-{exchange.row.id}-{number}.har")
    save_private(path, har_of([exchange]))
    return path
