"""What an operator does to the engine: each asked about first where it cuts something, and told how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunnelconsole.control import figures
from tunnelconsole.control.messages import (
    ChannelRow,
    CloseChannel,
    Done,
    KickSession,
    ReloadConfig,
    Reply,
    Request,
    RestartService,
    ServiceRow,
    SessionRow,
    StartService,
    Status,
    StopService,
)
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens.picture import Picture

STILL = frozenset({"stopped", "failed"})
"""The states of a service that does not run and is not about to."""


class Operator(Protocol):
    """The app, as far as steering needs it."""

    @property
    def latest(self) -> Picture:
        """What is known now, even while the view is frozen."""

    async def ask(self, request: Request) -> Reply:
        """Asks the engine."""

    async def confirm(self, title: str, sentences: Sequence[str], doing: str) -> bool:
        """Asks the operator."""

    def tell(self, text: str, *, hint: str = "", trouble: bool = False) -> None:
        """Shows a toast."""


def cost(sessions: int, channels: int, rate: float) -> str:
    """What ending something cuts: ``cuts 3 sessions, 12 channels, 4.2 MB/s in flight``."""
    cut = []
    if sessions:
        cut.append(figures.counted(sessions, "session"))
    if channels:
        cut.append(figures.counted(channels, "channel"))
    if not cut:
        return "cuts nothing, nobody is attached"
    return f"cuts {', '.join(cut)}, {figures.rate(rate)} in flight"


def service_cost(row: ServiceRow) -> str:
    """What stopping a service cuts."""
    return cost(row.sessions, row.channels, row.rate_in + row.rate_out)


def session_cost(row: SessionRow) -> str:
    """What ending a session cuts."""
    if not row.channels:
        return "cuts no channel, it has none open"
    return cost(0, row.channels, row.rate_in + row.rate_out)


def channel_cost(row: ChannelRow) -> str:
    """What closing a channel cuts."""
    moved = figures.size(row.bytes_in + row.bytes_out)
    return f"cuts {figures.rate(row.rate_in + row.rate_out)} in flight, after {moved}"


def engine_cost(status: Status | None) -> str:
    """What stopping the engine cuts."""
    if status is None:
        return "cuts whatever it carries"
    return cost(status.sessions, status.channels, status.rate_in + status.rate_out)


class Steering:
    """Carries out what keys and commands ask for."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    async def start(self, name: str) -> None:
        """Starts a service."""
        row = self._service(name)
        if row is None:
            return
        if row.state not in STILL:
            self._operator.tell(f"Service {name} runs already, it is {row.state}", hint="x stops it, r restarts it")
            return
        await self._carry_out(StartService(name))

    async def stop(self, name: str) -> None:
        """Stops a service."""
        row = self._service(name)
        if row is None:
            return
        if row.state == "stopped":
            self._operator.tell(f"Service {name} is stopped already", hint="s starts it")
            return
        title = f"Stop service {name}: {service_cost(row)}"
        if await self._operator.confirm(title, ["It stays stopped until it is started again."], "Stop it"):
            await self._carry_out(StopService(name))

    async def restart(self, name: str) -> None:
        """Stops a service and starts it again."""
        row = self._service(name)
        if row is None:
            return
        if row.state == "stopped":
            self._operator.tell(f"Service {name} is stopped, so there is nothing to restart", hint="s starts it")
            return
        title = f"Restart service {name}: {service_cost(row)}"
        if await self._operator.confirm(
            title, ["It comes back at once; those attached have to connect again."], "Restart it"
        ):
            await self._carry_out(RestartService(name))

    async def kick(self, row: SessionRow) -> None:
        """Ends a session and every channel in it."""
        known = self._operator.latest
        if known.sessions is not None:
            now = known.session(row.id)
            if now is None:
                self._operator.tell(f"Session {row.id} has ended already")
                return
            row = now
        title = f"Kick session {row.id}: {session_cost(row)}"
        who = (
            f"It is {row.identity} from {row.peer}, attached to {row.service}. Nothing keeps it from connecting again."
        )
        if await self._operator.confirm(title, [who], "Kick it"):
            await self._carry_out(KickSession(row.id))

    async def kick_id(self, key: str) -> None:
        """Ends the session of this id."""
        row = self._operator.latest.session(key)
        if row is not None:
            await self.kick(row)
        elif await self._operator.confirm(f"Kick session {key}: cuts every channel in it", [], "Kick it"):
            await self._carry_out(KickSession(key))

    async def close(self, row: ChannelRow) -> None:
        """Closes a channel."""
        known = self._operator.latest
        if known.channels is not None:
            now = known.channel(row.id)
            if now is None:
                self._operator.tell(f"Channel {row.id} has ended already")
                return
            row = now
        title = f"Close channel {row.id}: {channel_cost(row)}"
        where = f"It leads to {row.label or 'an unnamed place'} through {row.service}."
        if await self._operator.confirm(title, [where], "Close it"):
            await self._carry_out(CloseChannel(row.id))

    async def close_id(self, key: str) -> None:
        """Closes the channel of this id."""
        row = self._operator.latest.channel(key)
        if row is not None:
            await self.close(row)
        elif await self._operator.confirm(f"Close channel {key}: cuts what it carries", [], "Close it"):
            await self._carry_out(CloseChannel(key))

    async def reload(self) -> None:
        """Has the engine read its configuration again."""
        await self._carry_out(ReloadConfig())

    def _service(self, name: str) -> ServiceRow | None:
        row = self._operator.latest.service(name)
        if row is None:
            known = ", ".join(row.name for row in self._operator.latest.services or ()) or "none"
            self._operator.tell(f"There is no service {name!r}", hint=f"there are: {known}", trouble=True)
        return row

    async def _carry_out(self, request: Request) -> None:
        try:
            reply = await self._operator.ask(request)
        except TunnelConsoleError as error:
            self._operator.tell(error.message, hint=error.hint, trouble=True)
            return
        self._operator.tell(reply.text if isinstance(reply, Done) else "Done")
