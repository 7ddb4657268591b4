"""The engine's state as the rows that travel over the control socket."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

import msgspec
import psutil

from tunnelconsole.control.attempts import AttemptRow, CandidateRow, MomentRow, NatRow
from tunnelconsole.control.audit import AuditRow
from tunnelconsole.control.bans import BanRow
from tunnelconsole.control.messages import (
    LEVELS,
    ChannelRow,
    ChidRow,
    EventRow,
    History,
    Level,
    ServiceRow,
    SessionRow,
    Status,
)
from tunnelconsole.engine.attempts import Attempt, Behind
from tunnelconsole.engine.audit import AuditEntry
from tunnelconsole.engine.bans import Ban
from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.engine import Engine, Supervised
from tunnelconsole.engine.live_limits import by_hand, limits_of
from tunnelconsole.engine.meters import TICK, Meter
from tunnelconsole.engine.services.channel.party import Party
from tunnelconsole.engine.services.channel.server import ChannelServer
from tunnelconsole.engine.sessions import Channel, Session
from tunnelconsole.engine.store import StoredEvent
from tunnelconsole.engine.transport.listener import is_loopback

PROCESSOR_WINDOW = 2.0
"""Seconds over which the processor's share is taken: long enough to be steady, short enough to be news."""

SETTLED_AT_ONCE = 256
"""Channels up to which a snapshot first counts what moved in this very moment, for at most 0.1 ms. With more, totals
are those of the meters' last tick; each channel's own figures are exact always."""


class ProcessorShare:
    """Percent of one processor that this process used over the last :data:`PROCESSOR_WINDOW`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._marked = (time.monotonic(), time.process_time())
        self._percent: float | None = None
        self._timer = self._loop.call_later(PROCESSOR_WINDOW, self._sample)

    @property
    def percent(self) -> float:
        """The share; before the first window is over, that since the start."""
        return self._since_mark() if self._percent is None else self._percent

    def _since_mark(self) -> float:
        then, used = self._marked
        elapsed = time.monotonic() - then
        return 100 * (time.process_time() - used) / elapsed if elapsed else 0.0

    def _sample(self) -> None:
        self._percent = self._since_mark()
        self._marked = (time.monotonic(), time.process_time())
        self._timer = self._loop.call_later(PROCESSOR_WINDOW, self._sample)

    def close(self) -> None:
        """Samples no more."""
        self._timer.cancel()


class Snapshot:
    """Reads a started engine; every answer is of the moment it is asked for.

    :param version: of this program.
    :param config: gives the path of the configuration in force, or "".
    """

    def __init__(self, engine: Engine, version: str, config: Callable[[], str]) -> None:
        self._engine = engine
        self._node = engine.node
        self._version = version
        self._config = config
        self._process = psutil.Process()
        self._processor = ProcessorShare()
        self._earlier = _earlier_rows(engine.earlier_events)

    def close(self) -> None:
        """Ends what runs in the background."""
        self._processor.close()

    def status(self) -> Status:
        """The node in one row; its bytes are those since the engine started."""
        engine, node = self._engine, self._node
        self._settle()
        meter = node.meters.node
        return Status(
            version=self._version,
            pid=os.getpid(),
            uptime=time.time() - engine.started_at,
            services=len(engine.supervised),
            sessions=len(node.sessions.sessions),
            channels=len(node.sessions.channels),
            bytes_in=meter.bytes_in,
            bytes_out=meter.bytes_out,
            rate_in=meter.rate_in,
            rate_out=meter.rate_out,
            memory=self._process.memory_info().rss,
            cpu=round(self._processor.percent, 2),
            faults=sum(service.state in ("backoff", "failed") for service in engine.services.values()),
            config=self._config(),
            draining=engine.draining,
            metrics=node.metrics,
            metrics_exposed=node.metrics != "" and not is_loopback(node.metrics.rpartition(":")[0].strip("[]")),
        )

    def services(self) -> list[ServiceRow]:
        """Every service, in the configuration's order."""
        self._settle()
        return [self._service(supervised) for supervised in self._engine.supervised.values()]

    def _service(self, supervised: Supervised) -> ServiceRow:
        service = supervised.service
        meter = self._node.meters.service(service.name)
        return ServiceRow(
            name=service.name,
            kind=service.kind,
            state=supervised.state,
            address=service.address,
            sessions=len(service.attached),
            channels=service.channels,
            bytes_in=meter.bytes_in,
            bytes_out=meter.bytes_out,
            rate_in=meter.rate_in,
            rate_out=meter.rate_out,
            error=service.error,
            since=service.since,
            retry_at=supervised.retry_at,
            restarts=supervised.restarts,
            exposed=service.exposed,
            target=service.target,
            notes=service.notes | ({"limits": "changed by hand"} if by_hand(service) else {}),
            limits=limits_of(service),
            drain_ends=supervised.drain_ends,
        )

    def sessions(self, service: str = "") -> list[Session]:
        """The sessions, of one service when named; see :func:`session_row`."""
        self._settle()
        found = self._node.sessions.sessions.values()
        return [session for session in found if session.service == service] if service else list(found)

    def channels(self, service: str = "", session: str = "") -> list[Channel]:
        """The channels, of one service or session when named; see :func:`channel_row`."""
        found = list(self._node.sessions.channels.values())
        if service:
            found = [channel for channel in found if channel.session.service == service]
        return [channel for channel in found if channel.session.id == session] if session else found

    def chids(self, service: str = "", session: str = "") -> list[tuple[ChannelServer, Party]]:
        """The clients of the channel servers, of one service or session when named; see :func:`chid_row`."""
        servers = [found for found in self._engine.running if isinstance(found, ChannelServer)]
        found = [(server, party) for server in servers if service in ("", server.name) for party in server.hub.parties]
        if session:
            found = [(server, party) for server, party in found if party.session and party.session.id == session]
        return found

    def attempts(self, service: str = "", key: str = "") -> list[Attempt]:
        """The attempts that are kept, of one service when named, or the one of this id; see :func:`attempt_row`."""
        found = list(self._node.attempts)
        if service:
            found = [attempt for attempt in found if attempt.service == service]
        return [attempt for attempt in found if attempt.id == key] if key else found

    def events(self, after: int, limit: int, level: Level) -> list[Record | EventRow]:
        """The newest ``limit`` events whose id is above ``after``, of ``level`` or above, oldest first.

        See :func:`event_row`.
        """
        levels = LEVELS[LEVELS.index(level) :]
        found: list[Record | EventRow] = []
        found += [row for row in self._earlier if row.id > after and row.level in levels]
        found += [record for record in self._node.bus.recent() if record.id > after and record.event.level in levels]
        return found[-limit:] if limit > 0 else []

    def history(self, service: str = "") -> History:
        """Throughput of the node, or of one service when named; empty for one that there is not."""
        meters = self._node.meters
        if service and service not in self._engine.supervised:
            return History(service=service, interval=TICK, rate_in=[], rate_out=[])
        return history_row(service, meters.service(service) if service else meters.node)

    def sampled(self, told: Mapping[str, int]) -> list[tuple[str, Meter]]:
        """The services with samples beyond those told, with their meters.

        :param told: by service, how many samples there had been.
        """
        meters = ((name, self._node.meters.service(name)) for name in self._engine.supervised)
        return [(name, meter) for name, meter in meters if meter.samples > told.get(name, 0)]

    def _settle(self) -> None:
        if len(self._node.sessions.channels) <= SETTLED_AT_ONCE:
            self._node.sessions.settle()


def session_row(session: Session) -> SessionRow:
    """A session as it stands."""
    return SessionRow(
        id=session.id,
        service=session.service,
        kind=session.kind,
        peer=session.peer,
        identity=session.identity,
        since=session.since,
        channels=session.channels,
        bytes_in=session.bytes_in,
        bytes_out=session.bytes_out,
        rate_in=session.rate_in,
        rate_out=session.rate_out,
        note=session.note,
        address=session.address,
        limits={} if session.pace is None else {"rate": session.pace.rate},
        token="" if session.grant is None else session.grant.identity,
    )


def channel_row(channel: Channel) -> ChannelRow:
    """A channel as it stands, its bytes up to this moment."""
    session, flow = channel.session, channel.flow
    return ChannelRow(
        id=channel.id,
        session=session.id,
        service=session.service,
        label=channel.label,
        peer=channel.peer,
        since=channel.since,
        bytes_in=flow.bytes_in,
        bytes_out=flow.bytes_out,
        rate_in=channel.rate_in,
        rate_out=channel.rate_out,
        path=flow.path,
        identity=session.identity,
    )


def chid_row(client: tuple[ChannelServer, Party], most: int) -> ChidRow:
    """A client of a channel server as it stands, its bytes up to this moment.

    :param most: receivers that are named, at least 1; of more, those who are there come first.
    """
    server, party = client
    receivers = party.receivers
    if len(receivers) > most:
        present = server.hub.routes.present
        there = (chid for chid in receivers if chid in present)
        receivers = tuple(islice(chain(there, (chid for chid in party.receivers if chid not in present)), most))
    session, channel = party.session, party.channel
    return ChidRow(
        service=server.name,
        session=session.id if session is not None else "",
        channel=channel.id if channel is not None else "",
        chid=party.chid,
        peer=party.peer,
        identity=party.identity,
        since=channel.since if channel is not None else 0.0,
        receivers=list(receivers),
        more_receivers=len(party.receivers) - len(receivers),
        senders=server.hub.routes.count_senders(party),
        bytes_in=party.bytes_in,
        bytes_out=party.bytes_out,
        rate_in=channel.rate_in if channel is not None else 0.0,
        rate_out=channel.rate_out if channel is not None else 0.0,
        waiting=party.waiting,
        dropped=party.dropped,
        undelivered=party.undelivered,
        ended=party.ended,
        waits_for=party.blocked_on.chid if party.blocked_on is not None else "",
        path=party.path,
    )


def attempt_row(attempt: Attempt, *, whole: bool) -> AttemptRow:
    """An attempt as it stands.

    :param whole: with its candidates and its timeline.
    """
    candidates = list(attempt.candidates.values())
    return AttemptRow(
        id=attempt.id,
        service=attempt.service,
        room=attempt.room,
        peer=attempt.peer,
        state=attempt.state,
        method=attempt.method,
        reason=attempt.reason,
        error=attempt.error,
        started=attempt.started,
        waited=attempt.waited,
        seconds=attempt.seconds,
        syns=attempt.syns,
        ours=_nat_row(attempt.ours),
        theirs=_nat_row(attempt.theirs),
        candidates=[
            CandidateRow(
                address=tried.address,
                kind=tried.kind,
                side=tried.side,
                fate=tried.fate,
                reason=tried.reason,
                tries=tried.tries,
                ms=None if tried.ms is None else round(tried.ms, 1),
            )
            for tried in candidates[: None if whole else 0]
        ],
        timeline=[
            MomentRow(ms=round(moment.ms, 1), what=moment.what, candidate=moment.candidate)
            for moment in attempt.timeline[: None if whole else 0]
        ],
        more_candidates=0 if whole else len(candidates),
        more_moments=0 if whole else len(attempt.timeline),
    )


def _nat_row(behind: Behind) -> NatRow:
    return NatRow(mapping=behind.mapping, filtering=behind.filtering, words=behind.words, address=behind.address)


def history_row(service: str, meter: Meter, told: int = 0) -> History:
    """The samples of a meter, as far as they are kept, without the first ``told`` that there have been."""
    count = min(meter.samples - told, len(meter.history_in))
    return History(
        service=service,
        first=meter.samples - count,
        interval=TICK,
        rate_in=_newest(meter.history_in, count),
        rate_out=_newest(meter.history_out, count),
    )


def _newest(values: deque[float], count: int) -> list[float]:
    """The last values, oldest first, in whole bytes per second: nobody sees less of them, and they are half as long."""
    newest: list[float] = [round(value) for value in islice(reversed(values), count)]
    return newest[::-1]


def event_row(event: Record | EventRow) -> EventRow:
    """An event as the bus numbered it; one of an earlier run is a row already."""
    if isinstance(event, EventRow):
        return event
    return EventRow(
        id=event.id,
        time=event.time,
        level=event.event.level,
        type=event.event.type,
        service=event.event.service,
        session=event.event.session,
        channel=event.event.channel,
        text=event.event.text(),
        identity=event.identity,
    )


def audit_row(entry: tuple[int, AuditEntry]) -> AuditRow:
    """An entry of the audit trail, with its number."""
    number, told = entry
    return AuditRow(id=number, **msgspec.structs.asdict(told))


def ban_row(found: tuple[Ban, float]) -> BanRow:
    """A ban, with the seconds that it has left."""
    ban, left = found
    return BanRow(
        address=ban.address,
        service=ban.service,
        reason=ban.reason,
        failures=ban.failures,
        turned_away=ban.turned_away,
        since=ban.since,
        until=time.time() + left,
    )


def _earlier_rows(events: Sequence[StoredEvent]) -> list[EventRow]:
    """Events of earlier runs; their ids are negative, the newest's is -1."""
    return [
        EventRow(
            id=number,
            time=event.time,
            level=event.level,
            type=event.type,
            service=event.service,
            session="",
            channel="",
            text=event.text,
        )
        for number, event in enumerate(events, -len(events))
    ]
