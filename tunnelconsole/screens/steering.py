"""What an operator does to the engine: each asked about first where it cuts something, and told how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from tunnelconsole.control import figures, reload_words
from tunnelconsole.control.messages import (
    ChannelRow,
    Channels,
    ChidRow,
    Chids,
    CloseChannel,
    Done,
    GetChannels,
    GetChids,
    GetSessions,
    KickSession,
    ReloadConfig,
    Reply,
    Request,
    RestartService,
    ServiceRow,
    SessionRow,
    Sessions,
    SetReceivers,
    StartService,
    Status,
    StopService,
)
from tunnelconsole.control.reload_words import changes_something, preview_words
from tunnelconsole.control.steering import DrainService, PreviewReload, ReloadPreview, SetLimits
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens import sending
from tunnelconsole.screens.picture import Picture
from tunnelconsole.screens.sending import Web

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

    async def inform(self, title: str, sentences: Sequence[str]) -> None:
        """Tells the operator what takes more than a toast."""

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


def chid_cost(row: ChidRow) -> str:
    """What disconnecting a client of a channel server cuts."""
    flight = f"cuts {figures.rate(row.rate_in + row.rate_out)} in flight"
    return f"{flight}, loses {figures.size(row.waiting)} that wait for it" if row.waiting else flight


def receivers_cost(row: ChidRow, cut: Sequence[str]) -> str:
    """What it costs that these do not get any more what a client sends."""
    if not cut:
        return "cuts nobody off"
    return f"cuts off {sending.named(cut)}, {figures.rate(row.rate_in)} in flight"


def why_receivers_stay(row: ChidRow, service: ServiceRow | None) -> str:
    """Why a client's receivers cannot be changed; empty where they can."""
    if service is not None and service.notes.get("mode") == "broadcast":
        return f"{row.service} is in broadcast mode: everything goes to everybody"
    if row.ended:
        return f"{row.chid} has closed its sending side, and sends to nobody any more"
    return ""


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
        if row.state not in STILL and row.state != "draining":
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

    async def drain(self, name: str) -> None:
        """Lets what a service carries finish, and then stops it."""
        row = self._service(name)
        if row is None:
            return
        if row.state == "stopped":
            self._operator.tell(f"Service {name} is stopped, so there is nothing to drain", hint="s starts it")
            return
        carries = f"{figures.counted(row.sessions, 'session')}, {figures.counted(row.channels, 'channel')}"
        sentences = [
            "It takes nothing new. Its channels may finish for as long as drain in [engine] says; what is left is cut.",
            "Sessions without a channel end at once. Then it is stopped; until then s takes it back.",
        ]
        if await self._operator.confirm(f"Drain service {name}: {carries}", sentences, "Drain it"):
            await self._carry_out(DrainService(name))

    async def limit(self, request: SetLimits) -> None:
        """Changes limits of a service or a session, which cuts nobody."""
        await self._carry_out(request)

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
        if row is None:
            found = await self._asked(GetSessions())
            if found is None:
                return
            row = next((each for each in found.rows if each.id == key), None) if isinstance(found, Sessions) else None
        if row is None:
            self._operator.tell(f"There is no session {key}", hint="it may have ended; 3 lists them", trouble=True)
        else:
            await self.kick(row)

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
        if row is None:
            found = await self._asked(GetChannels())
            if found is None:
                return
            row = next((each for each in found.rows if each.id == key), None) if isinstance(found, Channels) else None
        if row is None:
            self._operator.tell(f"There is no channel {key}", hint="it may have ended; 4 lists them", trouble=True)
        else:
            await self.close(row)

    async def _asked(self, request: Request) -> Reply | None:
        """The answer to a question; None where there is none, and the operator is told why."""
        try:
            return await self._operator.ask(request)
        except TunnelConsoleError as error:
            self._operator.tell(error.message, hint=error.hint, trouble=True)
            return None

    async def disconnect(self, row: ChidRow) -> None:
        """Disconnects a client of a channel server."""
        now, _ = await self._now(row)
        if now is None:
            return
        senders = figures.counted(now.senders, "sends", "send")
        who = (
            f"It is {now.identity} from {now.peer}, at {now.service}. It sends to {sending.destination(now)}; "
            f"{senders} to it. Nothing keeps it from connecting again."
        )
        if await self._operator.confirm(f"Disconnect {now.chid}: {chid_cost(now)}", [who], "Disconnect it"):
            await self._carry_out(KickSession(now.session))

    async def disconnect_named(self, chid: str) -> None:
        """Disconnects the client of this chid."""
        row = await self.find_chid(chid)
        if row is not None:
            await self.disconnect(row)

    async def set_receivers(self, row: ChidRow, receivers: Sequence[str]) -> None:
        """Has a client of a channel server send to others; none stand for all."""
        now, rows = await self._now(row)
        now = None if now is None else await self.with_every_receiver(now)
        if now is None:
            return
        if set(now.receivers) == set(receivers):
            self._operator.tell(f"{now.chid} sends to {sending.destination(now)} already")
            return
        web, changed = Web(rows), replace(now, receivers=list(receivers))
        before, after = web.targets(now), web.targets(changed)
        cut, gained = [name for name in before if name not in after], [name for name in after if name not in before]
        sentences = [f"It shall send to {sending.destination(changed)}. Now it sends to {sending.destination(now)}."]
        if gained:
            sentences.append(f"New: {sending.named(gained)}.")
        if absent := web.absent(changed):
            lost = "What it sends there is lost, but for what the service holds"
            sentences.append(f"Not connected: {sending.named(absent)}. {lost}.")
        title = f"Change to whom {now.chid} sends: {receivers_cost(now, cut)}"
        if await self._operator.confirm(title, sentences, "Change it"):
            await self._carry_out(SetReceivers(now.session, list(receivers)))

    async def find_chid(self, chid: str) -> ChidRow | None:
        """The client of this chid; None, and told, where there is none or more than one."""
        rows = await self._chids()
        if rows is None:
            return None
        found = [row for row in rows if row.chid == chid]
        if len(found) == 1:
            return found[0]
        if found:
            places = sending.named([row.service for row in found])
            self._operator.tell(f"There is a {chid} at each of {places}", hint="select the one that is meant")
        else:
            known = sending.named([row.chid for row in rows]) or "none"
            self._operator.tell(f"There is no chid {chid!r}", hint=f"there are: {known}", trouble=True)
        return None

    async def with_every_receiver(self, row: ChidRow) -> ChidRow | None:
        """The same client with all its receivers named; None, and told, where it has left or nobody answers."""
        if not row.more_receivers:
            return row
        rows = await self._chids(row.session)
        if rows is not None and not rows:
            self._operator.tell(f"{row.chid} has left already")
        return rows[0] if rows else None

    async def _now(self, row: ChidRow) -> tuple[ChidRow | None, Sequence[ChidRow]]:
        """A client as it is now, and all there are; None, and told, where it has left or nobody answers."""
        rows = await self._chids()
        if rows is None:
            return None, ()
        now = next((other for other in rows if other.session == row.session), None)
        if now is None:
            self._operator.tell(f"{row.chid} has left already")
        return now, rows

    async def _chids(self, session: str = "") -> Sequence[ChidRow] | None:
        """The clients of all channel servers, whatever is on the screen; None, and told, when nobody answers.

        :param session: whose alone, with every receiver.
        """
        try:
            reply = await self._operator.ask(GetChids(session=session))
        except TunnelConsoleError as error:
            self._operator.tell(error.message, hint=error.hint, trouble=True)
            return None
        return reply.rows if isinstance(reply, Chids) else ()

    async def reload(self) -> None:
        """Shows what would change were the configuration read again, and has that done where it is wanted."""
        found = await self._asked(PreviewReload())
        if not isinstance(found, ReloadPreview):
            return
        if found.problems:
            await self._operator.inform("The configuration has mistakes, the old one stays", found.problems)
        elif not changes_something(found) or await self._operator.confirm(
            f"Reload, which {reload_words.cost(found)}", preview_words(found), "Reload"
        ):
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
