"""What is answered to each request, and what a watcher is sent.

A large table is made a slice at a time with a turn of the loop between two slices, and for one client at a time:
whatever a console asks for, tunnels come first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from tunnelconsole.control import messages
from tunnelconsole.control.attempts import Attempts, GetAttempts, PunchAgain
from tunnelconsole.control.audit import Audit, GetAudit
from tunnelconsole.control.bans import BanAddress, Bans, GetBans, LiftBan
from tunnelconsole.control.inspection import Inspection, exchange_row
from tunnelconsole.control.inspection import Told as ToldOfExchanges
from tunnelconsole.control.messages import MIN_INTERVAL, Watch, encode
from tunnelconsole.control.previewing import answer_about_plans
from tunnelconsole.control.snapshot import (
    Snapshot,
    attempt_row,
    audit_row,
    ban_row,
    channel_row,
    chid_row,
    event_row,
    history_row,
    session_row,
)
from tunnelconsole.control.steering import ReloadPreview
from tunnelconsole.control.token_answers import carry_out_on_tokens, token_row, tokens_asked_for
from tunnelconsole.control.tokens import GetTokens, TokenRow, Tokens
from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.bus import Reader
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Crashed
from tunnelconsole.engine.meters import Meter
from tunnelconsole.engine.tokens.grants import Token
from tunnelconsole.engine.wire.channel_lines import MAX_RECEIVERS
from tunnelconsole.errors import RequestRefused, TunnelConsoleError

SLICE = 256
"""Rows made and encoded in one go: about 0.2 ms, the longest that a console may hold up a tunnel."""

HISTORIES_SLICE = 8
"""Histories made and encoded in one go: with 600 samples each about 0.5 ms."""

EXCHANGES_SLICE = 64
"""Exchanges made and encoded in one go: secrets are looked for in each one's path, which takes longer than the rest."""

CHIDS_SLICE = 16
"""Clients of a channel server made and encoded in one go: each may have a thousand receivers, which take as long."""

RECEIVERS_TOLD = 128
"""Receivers of a client that are named among others: more than a matrix has columns for on the widest terminal."""

RECEIVERS_TOLD_IN_ALL = 16_384
"""Receivers that an answer names in all, but for one of each client: strangers choose them, and at the most they have
258 bytes each in JSON, so that these are 4 MiB of the :data:`~.messages.MAX_ANSWER` that a console takes."""

ATTEMPTS_SLICE = 4
"""Attempts made and encoded in one go with all that is known of them: each has some hundred candidates and moments."""

BIG_TABLE = 1000
"""Rows from which on a watcher is served every :data:`BIG_TABLE_INTERVAL` at most."""

BIG_TABLE_INTERVAL = 1.0
"""Seconds between two updates with a big table: rates change once a second, and nobody reads 1,000 rows faster."""

FRESH = 0.1
"""Seconds for which what was made for one watcher is good for others too: nobody sees that it is so old, and rows are
made ten times a second at the most, however many consoles there are."""

MAX_INTERVAL = 60.0
"""Seconds between two updates at the most, whatever a watcher asks for."""

TOPICS = (
    "services",
    "sessions",
    "channels",
    "chids",
    "exchanges",
    "attempts",
    "bans",
    "events",
    "history",
    "histories",
    "tokens",
)
"""What a :class:`~tunnelconsole.control.messages.Watch` may name."""

SETTLED_WITHIN = 2.0
"""Seconds that a reload waits for what it has started: listening takes a few milliseconds, or fails in as many."""

T = TypeVar("T")


class Told:
    """What a watcher has been told, so that updates hold only what is new."""

    def __init__(self) -> None:
        self.samples: dict[str, int] = {}
        """How many of them, by service."""
        self.exchanges = ToldOfExchanges()


class _Made:
    """A part of an update that watchers share."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.json: msgspec.Raw | None = None


class Answers:
    """Answers for a started engine.

    :param reload: reads the configuration again and says what was done.
    :param stop: asks the engine's owner to drain and stop it; told the cause.
    :param preview: reads the configuration and says what a reload would do; None where there is nothing to be read.
    """

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        reload: Callable[[], Awaitable[str]],
        stop: Callable[[str], None],
        preview: Callable[[], Awaitable[ReloadPreview]] | None = None,
    ) -> None:
        self._engine = engine
        self._snapshot = snapshot
        self._inspection = Inspection(engine)
        self._reload = reload
        self._stop = stop
        self._preview = preview
        self._building = asyncio.Lock()
        self._made: dict[tuple[str, str], _Made] = {}

    async def answer(self, request: messages.Request) -> object:
        """The reply to any request but a watch, ready to be encoded; :class:`~.messages.Refused` when it failed."""
        try:
            if isinstance(request, messages.ReplayExchange):
                return await self._inspection.replay(request.id)
            if isinstance(request, GetTokens):
                found_tokens = tokens_asked_for(self._engine.tokens, request.name)
                return _tagged(Tokens, rows=await self._table(found_tokens, self._token_row))
            found = await carry_out_on_tokens(self._engine.tokens, request) or await self._look_up(request)
            found = found or await answer_about_plans(self._engine, self._preview, request)
            return await self._carry_out(request) if found is None else found
        except TunnelConsoleError as error:
            return messages.Refused(error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - one request's fault must not end the client, or the engine
            name = type(request).__name__
            crash = Crashed.by(error, f"control request {name}")
            self._engine.node.bus.publish(crash)
            return messages.Refused(
                f"the engine failed to answer {name}: {crash.error}", "this is a fault; see its log"
            )

    async def _look_up(self, request: messages.Request) -> object:
        """The answer to a question; None when the request is not one."""
        snapshot = self._snapshot
        match request:
            case messages.GetStatus():
                return snapshot.status()
            case messages.GetServices():
                return messages.Services(snapshot.services())
            case messages.GetSessions(service):
                self._must_exist(service)
                return _tagged(messages.Sessions, rows=await self._table(snapshot.sessions(service), session_row))
            case messages.GetChannels(service, session):
                self._must_exist(service)
                rows = await self._table(snapshot.channels(service, session), channel_row)
                return _tagged(messages.Channels, rows=rows)
            case messages.GetChids(service, session):
                self._must_exist(service)
                return _tagged(messages.Chids, rows=await self._chids(service, session))
            case messages.GetExchanges(service, limit):
                self._must_exist(service)
                rows = await self._table(self._inspection.last(service, limit), exchange_row, EXCHANGES_SLICE)
                return _tagged(messages.Exchanges, rows=rows)
            case messages.GetExchange(exchange_id, reveal):
                return await self._inspection.show(exchange_id, reveal=reveal)
            case GetAttempts(service, key):
                self._must_exist(service)
                rows = await self._table(self._attempts(service, key), partial(attempt_row, whole=True), ATTEMPTS_SLICE)
                return _tagged(Attempts, rows=rows)
            case GetAudit(limit, since):
                return _tagged(Audit, rows=await self._table(self._engine.audit.rows(limit, since), audit_row))
            case GetBans():
                return _tagged(Bans, rows=await self._table(self._engine.node.bans.rows(), ban_row))
            case messages.GetEvents(after, limit, level):
                return _tagged(messages.Events, rows=await self._table(snapshot.events(after, limit, level), event_row))
            case _:
                return None

    def _token_row(self, token: Token) -> TokenRow:
        return token_row(self._engine.tokens, token)

    def _attempts(self, service: str, key: str) -> list[Attempt]:
        found = self._snapshot.attempts(service, key)
        if key and not found:
            raise RequestRefused(f"there is no attempt {key[:64]}", "only the last are kept; list them again")
        return found

    def _must_exist(self, service: str) -> None:
        if service and service not in self._engine.supervised:
            known = ", ".join(self._engine.supervised) or "none"
            raise RequestRefused(f"there is no service {service}", f"services are: {known}")

    async def _carry_out(self, request: messages.Request) -> messages.Done:
        engine = self._engine
        match request:
            case messages.StartService(name):
                await engine.start_service(name)
                return messages.Done(f"service {name} is starting")
            case messages.StopService(name):
                await engine.stop_service(name)
                return messages.Done(f"service {name} is stopped")
            case messages.RestartService(name):
                await engine.restart_service(name)
                return messages.Done(f"service {name} is starting again")
            case messages.KickSession(session):
                return messages.Done(f"session {session} of {engine.kick(session)} is ended")
            case messages.CloseChannel(channel):
                return messages.Done(f"channel {channel} to {engine.close_channel(channel)} is closed")
            case messages.SetReceivers(session, receivers):
                return messages.Done(engine.set_receivers(session, receivers))
            case PunchAgain(service):
                return messages.Done(engine.punch_again(service))
            case BanAddress(address, seconds):
                return messages.Done(engine.node.bans.ban(address, seconds))
            case LiftBan(address):
                return messages.Done(engine.node.bans.lift(address))
            case messages.ReloadConfig():
                return await self._reload_config()
            case messages.StopEngine():
                self._stop("asked over the control socket")
                return messages.Done("the engine drains and stops")
            case _:
                raise RequestRefused(f"the engine does not know how to {type(request).__name__}")

    async def _reload_config(self) -> messages.Done:
        """Has the configuration read again, and waits a little for the services that this has started.

        :raises TunnelConsoleError: it is wrong, or one of them cannot run.
        """
        before = dict(self._engine.supervised)
        done = await self._reload()
        started = [name for name, found in self._engine.supervised.items() if before.get(name) is not found]
        failing = await self._engine.failing(started, SETTLED_WITHIN)
        if failing:
            hint = "the configuration is in force, and they are tried again; mend it and reload"
            raise RequestRefused(f"{done}; but {'; '.join(failing)}", hint)
        return messages.Done(done)

    async def _table(self, items: Sequence[T], row: Callable[[T], msgspec.Struct], at_once: int = SLICE) -> msgspec.Raw:
        """Rows as JSON; many are made a slice at a time, and other work of the loop goes on between two slices."""
        if len(items) <= at_once:
            return msgspec.Raw(encode([row(item) for item in items]))
        parts = []
        async with self._building:
            for start in range(0, len(items), at_once):
                parts.append(encode([row(item) for item in items[start : start + at_once]])[1:-1])
                await asyncio.sleep(0)
        return msgspec.Raw(b"[" + b",".join(parts) + b"]")

    def interval(self, watch: Watch) -> float:
        """Seconds between two updates of this watch, given what there is to show."""
        sessions = self._engine.node.sessions
        big = ("sessions" in watch.topics and len(sessions.sessions) > BIG_TABLE) or (
            not {"channels", "chids"}.isdisjoint(watch.topics) and len(sessions.channels) > BIG_TABLE
        )
        big |= "bans" in watch.topics and len(self._engine.node.bans) > BIG_TABLE
        return min(MAX_INTERVAL, max(MIN_INTERVAL, BIG_TABLE_INTERVAL if big else 0.0, watch.interval))

    async def update(self, watch: Watch, events: Reader | None, told: Told) -> dict[str, Any]:
        """An :class:`~.messages.Update` with what the watch names, ready to be encoded.

        :param told: brought up to date.
        """
        service = watch.service
        update = _tagged(messages.Update, status=await self._shared("status"))
        if "services" in watch.topics:
            update["services"] = await self._shared("services")
        for topic in ("sessions", "channels", "chids", "attempts", "history", "tokens", "bans"):
            if topic in watch.topics:
                update[topic] = await self._shared(topic, service)
        if "histories" in watch.topics:
            update["histories"] = await self._histories(told.samples)
        if "exchanges" in watch.topics:
            news, missed = told.exchanges.news(self._inspection, service)
            rows = await self._table(news, exchange_row, EXCHANGES_SLICE)
            update["exchanges"] = _tagged(messages.Exchanges, rows=rows, dropped=missed)
        if events is not None:
            records, dropped = events.take()
            update["events"] = _tagged(messages.Events, rows=await self._table(records, event_row), dropped=dropped)
        return update

    async def _shared(self, topic: str, service: str = "") -> msgspec.Raw:
        """A part of an update that depends on nobody: what was made for another watcher a moment ago, or a new one."""
        made = self._made.setdefault((topic, service), _Made())
        async with made.lock:
            if made.json is None:
                made.json = await self._make(topic, service)
                asyncio.get_running_loop().call_later(FRESH, self._made.pop, (topic, service), None)
        return made.json

    async def _make(self, topic: str, service: str) -> msgspec.Raw:
        snapshot = self._snapshot
        match topic:
            case "sessions":
                return await self._table(snapshot.sessions(service), session_row)
            case "channels":
                return await self._table(snapshot.channels(service), channel_row)
            case "chids":
                return await self._chids(service)
            case "attempts":
                return await self._table(snapshot.attempts(service), partial(attempt_row, whole=False))
            case "tokens":
                return await self._table(tokens_asked_for(self._engine.tokens, ""), self._token_row)
            case "bans":
                return await self._table(self._engine.node.bans.rows(), ban_row)
            case "history":
                return msgspec.Raw(encode(snapshot.history(service)))
            case "services":
                return msgspec.Raw(encode(snapshot.services()))
            case _:
                return msgspec.Raw(encode(snapshot.status()))

    async def _chids(self, service: str, session: str = "") -> msgspec.Raw:
        clients = self._snapshot.chids(service, session)
        most = MAX_RECEIVERS if session else receivers_told(len(clients))
        return await self._table(clients, partial(chid_row, most=most), CHIDS_SLICE)

    async def _histories(self, told: dict[str, int]) -> msgspec.Raw:
        def row(sampled: tuple[str, Meter]) -> messages.History:
            service, meter = sampled
            before = told.get(service, 0)
            told[service] = meter.samples
            return history_row(service, meter, before)

        return await self._table(self._snapshot.sampled(told), row, HISTORIES_SLICE)


def receivers_told(clients: int) -> int:
    """Receivers that are named of each of so many clients."""
    return max(1, min(RECEIVERS_TOLD, RECEIVERS_TOLD_IN_ALL // max(1, clients)))


def check_topics(topics: Sequence[str]) -> None:
    """Accepts the topics of a watch.

    :raises RequestRefused: one is unknown.
    """
    unknown = [topic for topic in topics if topic not in TOPICS]
    if unknown:
        raise RequestRefused(f"there is no topic {unknown[0][:64]}", f"topics are: {', '.join(TOPICS)}")


def _tagged(reply: type[msgspec.Struct], **fields: object) -> dict[str, Any]:
    """A reply whose tables are encoded already, which the typed one cannot hold."""
    return {"type": reply.__struct_config__.tag, **fields}
