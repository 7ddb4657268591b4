"""An engine that says what a test tells it to: the real messages on a real control socket, and no tunnels behind it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from attempt_rows import brief
from tunnelconsole.control import messages
from tunnelconsole.control.attempts import AttemptRow, Attempts, GetAttempts
from tunnelconsole.control.audit import Audit, AuditRow, GetAudit, Means
from tunnelconsole.control.bans import BanRow
from tunnelconsole.control.exchange_rows import ExchangeRow
from tunnelconsole.control.messages import (
    Answer,
    Ask,
    ChannelRow,
    Channels,
    ChidRow,
    Chids,
    Done,
    EventRow,
    Events,
    Exchange,
    Exchanges,
    GetChannels,
    GetChids,
    GetEvents,
    GetExchange,
    GetServices,
    GetSessions,
    GetStatus,
    History,
    Refused,
    ReplayExchange,
    Reply,
    Request,
    ServiceRow,
    Services,
    SessionRow,
    Sessions,
    Status,
    Update,
    Watch,
)
from tunnelconsole.control.steering import PreviewReload, ReloadPreview
from tunnelconsole.control.tokens import CreateToken, GetTokens, RotateToken, TokenMade, TokenRow, Tokens


@dataclass
class Script:
    """What the engine has to say. Change it, then :meth:`ScriptedEngine.tick`."""

    status: Status
    services: list[ServiceRow] = field(default_factory=list)
    sessions: list[SessionRow] = field(default_factory=list)
    channels: list[ChannelRow] = field(default_factory=list)
    chids: list[ChidRow] = field(default_factory=list)
    whole_chids: list[ChidRow] = field(default_factory=list)
    """Those that are asked for alone, with every receiver."""
    exchanges: list[ExchangeRow] = field(default_factory=list)
    """Every update has them as they are."""
    missed: int = 0
    """Requests that every update says were missed."""
    opened: dict[tuple[str, bool], Exchange] = field(default_factory=dict)
    """Requests as they are shown, by id and whether their secrets are."""
    replayed: Exchange | None = None
    """What becomes of a request that is sent again."""
    attempts: list[AttemptRow] = field(default_factory=list)
    """As they are asked for; updates have them in brief."""
    audit: list[AuditRow] = field(default_factory=list)
    bans: list[BanRow] = field(default_factory=list)
    tokens: list[TokenRow] = field(default_factory=list)
    secret: str = "tc_not-a-real-secret"
    """Of every token that is made or rotated."""
    events: list[EventRow] = field(default_factory=list)
    history: History = field(default_factory=lambda: History(interval=1.0, rate_in=[], rate_out=[]))
    histories: list[History] = field(default_factory=list)
    """Of services; every update has them as they are."""
    preview: ReloadPreview = field(default_factory=lambda: ReloadPreview(problems=[]))
    """What a reload would do."""
    refusals: dict[type, Refused] = field(default_factory=dict)
    """Requests that are refused, and how."""


class ScriptedEngine:
    """Serves a :class:`Script` on a control socket."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.script = script
        self.dropped = 0
        """Events that every update says were missed."""
        self.asked: list[Request] = []
        """Every request that came, oldest first."""
        self.means: set[Means] = set()
        """What those who asked said that they are."""
        self._server: asyncio.Server | None = None
        self._watchers: dict[asyncio.StreamWriter, tuple[int, Watch]] = {}
        self._told: dict[asyncio.StreamWriter, int] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=messages.MAX_REQUEST)

    async def stop(self) -> None:
        """Goes away, as an engine that is killed: every connection ends."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._serving)
        self.path.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def watched(self) -> list[Watch]:
        """What is being watched now."""
        return [watch for _, watch in self._watchers.values()]

    def tick(self) -> None:
        """Sends an update to every watcher."""
        for writer in list(self._watchers):
            self._update(writer)

    def _update(self, writer: asyncio.StreamWriter) -> None:
        ask_id, watch = self._watchers[writer]
        script, topics = self.script, watch.topics
        last = self._told.get(writer, 0)
        fresh = [event for event in script.events if event.id > last] if writer in self._told else []
        self._told[writer] = max([last, *(event.id for event in script.events)])
        of = watch.service
        self._answer(writer, ask_id, Update(
            status=script.status,
            services=script.services if "services" in topics else None,
            sessions=[row for row in script.sessions if of in ("", row.service)] if "sessions" in topics else None,
            channels=[row for row in script.channels if of in ("", row.service)] if "channels" in topics else None,
            chids=[row for row in script.chids if of in ("", row.service)] if "chids" in topics else None,
            exchanges=Exchanges(script.exchanges, script.missed) if "exchanges" in topics else None,
            bans=script.bans if "bans" in topics else None,
            attempts=list(map(brief, script.attempts)) if "attempts" in topics else None,
            tokens=script.tokens if "tokens" in topics else None,
            events=Events(fresh, self.dropped) if "events" in topics else None,
            history=script.history if "history" in topics else None,
            histories=script.histories if "histories" in topics else None,
        ))  # fmt: skip

    def _answer(self, writer: asyncio.StreamWriter, ask_id: int, reply: Reply) -> None:
        writer.write(messages.encode(Answer(ask_id, reply)) + b"\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while line := await reader.readline():
                ask = messages.decode_ask(line)
                self.asked.append(ask.request)
                self.means.add(ask.means)
                self._reply(writer, ask)
                await writer.drain()
        except (ConnectionError, msgspec.MsgspecError):
            pass
        finally:
            self._watchers.pop(writer, None)
            self._told.pop(writer, None)
            self._writers.discard(writer)
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _about_token(self, request: GetTokens | CreateToken | RotateToken) -> Reply:
        """Its row, or its secret."""
        name = request.name
        if isinstance(request, GetTokens):
            named = [row for row in self.script.tokens if row.name == name]
            return Tokens(named) if named else Refused(f"there is no token {name}")
        what = "created" if isinstance(request, CreateToken) else "rotated"
        return TokenMade(name=name, secret=self.script.secret, text=f"token {name} {what}")

    def _one(self, request: GetExchange | GetAttempts | GetAudit | GetTokens | CreateToken | RotateToken) -> Reply:
        """What is opened by its id, what is about a token, or the audit trail."""
        if isinstance(request, GetTokens | CreateToken | RotateToken):
            return self._about_token(request)
        if isinstance(request, GetAudit):
            return Audit(self.script.audit)
        if isinstance(request, GetExchange):
            gone = Refused(f"there is no request {request.id}", "only the last of each tunnel are kept")
            return self.script.opened.get((request.id, request.reveal), gone)
        found = [row for row in self.script.attempts if row.id == request.id]
        return Attempts(found) if found else Refused(f"there is no attempt {request.id}", "only the last are kept")

    def _done(self, request: Request) -> Reply:
        """What comes of a request that is more than a question."""
        match request:
            case PreviewReload():
                return self.script.preview
            case ReplayExchange():
                assert self.script.replayed is not None
                return self.script.replayed
            case _:
                return Done(f"carried out {type(request).__name__}")

    def _reply(self, writer: asyncio.StreamWriter, ask: Ask) -> None:
        script, request = self.script, ask.request
        refusal = script.refusals.get(type(request))
        if refusal is not None:
            self._answer(writer, ask.id, refusal)
            return
        match request:
            case Watch():
                self._watchers[writer] = (ask.id, request)
                self._update(writer)
            case GetStatus():
                self._answer(writer, ask.id, script.status)
            case GetServices():
                self._answer(writer, ask.id, Services(script.services))
            case GetSessions():
                self._answer(writer, ask.id, Sessions(script.sessions))
            case GetChannels():
                self._answer(writer, ask.id, Channels(script.channels))
            case GetChids(session=session) if session:
                self._answer(writer, ask.id, Chids([row for row in script.whole_chids if row.session == session]))
            case GetChids():
                self._answer(writer, ask.id, Chids(script.chids))
            case GetExchange() | GetAttempts() | GetAudit() | GetTokens() | CreateToken() | RotateToken():
                self._answer(writer, ask.id, self._one(request))
            case GetEvents():
                self._answer(writer, ask.id, Events(script.events))
            case _:
                self._answer(writer, ask.id, self._done(request))
