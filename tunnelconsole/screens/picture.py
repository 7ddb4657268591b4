"""What the console knows of the engine: the newest of everything, put together from updates."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

from tunnelconsole.control.attempts import AttemptRow
from tunnelconsole.control.bans import BanRow
from tunnelconsole.control.exchange_rows import ExchangeRow
from tunnelconsole.control.messages import (
    ChannelRow,
    ChidRow,
    EventRow,
    Exchanges,
    History,
    ServiceRow,
    SessionRow,
    Status,
    Update,
)
from tunnelconsole.control.tokens import TokenRow

EVENTS_KEPT = 2000
"""Events in memory, the newest: an afternoon's worth, under 1 MB."""

DEBUG_KEPT = 1000
"""Events of level debug in memory, counted apart: each channel has some, and they must not push out what matters."""

FLOW_KEPT = 600
"""Rates kept of each service: as many as the engine keeps, which are those of ten minutes."""

EXCHANGES_KEPT = 1000
"""Requests in memory, the newest: those that ten tunnels keep, under 1 MB."""

KEPT_PER_TUNNEL = 100
"""Requests of each tunnel among them: as many as the engine keeps, so that those which are listed can be opened."""

TROUBLE_AGE = 600.0
"""Seconds for which a warning is recent: long enough to be seen after a coffee."""

TROUBLES = frozenset({"warning", "error"})
"""The levels of events that somebody should look at."""

FAULTY = frozenset({"backoff", "failed"})
"""The states of a service that is not well."""

UP = frozenset({"listening", "connected"})
"""The states of a service that does its work."""


class Flow(NamedTuple):
    """The rates of a service over the last minutes, oldest first, in bytes per second."""

    rate_in: tuple[float, ...] = ()
    rate_out: tuple[float, ...] = ()
    spacing: float = 1.0
    """Seconds that each stands for."""
    end: int = 0
    """How many there have been, with those that are not kept."""

    def both(self, last: int = FLOW_KEPT) -> list[float]:
        """Both ways together, of the ``last`` ones."""
        return [one + other for one, other in zip(self.rate_in[-last:], self.rate_out[-last:], strict=True)]

    def followed_by(self, more: History) -> Flow:
        """These and what came after them; where something is missing in between, only what came."""
        before = self if more.first == self.end else Flow()
        return Flow(
            (*before.rate_in, *more.rate_in)[-FLOW_KEPT:],
            (*before.rate_out, *more.rate_out)[-FLOW_KEPT:],
            more.interval,
            more.first + len(more.rate_in),
        )


@dataclass(frozen=True)
class Picture:
    """Everything as of one moment. Rows that were not asked for are None.

    Frozen by key ``p``, it is simply kept; so nothing in it may change after it was made.
    """

    time: float = 0.0
    """When its update came, in Unix seconds; 0.0 before the first."""
    status: Status | None = None
    services: tuple[ServiceRow, ...] | None = None
    sessions: tuple[SessionRow, ...] | None = None
    channels: tuple[ChannelRow, ...] | None = None
    chids: tuple[ChidRow, ...] | None = None
    exchanges: tuple[ExchangeRow, ...] | None = None
    attempts: tuple[AttemptRow, ...] | None = None
    bans: tuple[BanRow, ...] | None = None
    tokens: tuple[TokenRow, ...] | None = None
    history: History | None = None
    events: tuple[EventRow, ...] = ()
    """Oldest first."""
    dropped: int = 0
    """Events this console missed because it read too slowly."""
    missed: int = 0
    """Requests through tunnels that came too fast to be kept until this console was told of them."""
    flows: dict[str, Flow] = field(default_factory=dict)
    """Of each service, what it moved over the last minutes."""
    warned: tuple[EventRow, ...] | None = None
    """The warnings and errors among the events, newest first, where they have been looked for already."""

    def service(self, name: str) -> ServiceRow | None:
        """The service of this name."""
        return next((row for row in self.services or () if row.name == name), None)

    def session(self, key: str) -> SessionRow | None:
        """The session of this id, where sessions are known."""
        return next((row for row in self.sessions or () if row.id == key), None)

    def channel(self, key: str) -> ChannelRow | None:
        """The channel of this id, where channels are known."""
        return next((row for row in self.channels or () if row.id == key), None)

    def chid(self, session: str) -> ChidRow | None:
        """The client of a channel server whose session this is, where chids are known."""
        return next((row for row in self.chids or () if row.session == session), None)

    def exchange(self, key: str) -> ExchangeRow | None:
        """The request of this id, where requests are known."""
        return next((row for row in self.exchanges or () if row.id == key), None)

    def attempt(self, key: str) -> AttemptRow | None:
        """The hole punch of this id, where they are known; see there what is left out of it."""
        return next((row for row in self.attempts or () if row.id == key), None)

    def token(self, name: str) -> TokenRow | None:
        """The token of this name, where tokens are known."""
        return next((row for row in self.tokens or () if row.name == name), None)

    def faults(self) -> list[ServiceRow]:
        """The services that are not well, what is final before what is being retried."""
        return sorted(
            (row for row in self.services or () if row.state in FAULTY),
            key=lambda row: (row.state != "failed", row.name),
        )

    def exposed(self) -> list[ServiceRow]:
        """The services that listen beyond loopback."""
        return [row for row in self.services or () if row.exposed and row.state != "stopped"]

    def troubles(self, now: float) -> list[EventRow]:
        """Recent warnings and errors, newest first."""
        warned = _warned(self.events) if self.warned is None else self.warned
        return [row for row in warned if now - row.time < TROUBLE_AGE]


_age = attrgetter("time", "id")


def _warned(events: Sequence[EventRow]) -> tuple[EventRow, ...]:
    return tuple([row for row in reversed(events) if row.level in TROUBLES])


def _end(row: ExchangeRow) -> float:
    return math.inf if row.seconds is None else row.started + row.seconds


class Gathering:
    """Puts pictures together; its one writer is the feed."""

    def __init__(self) -> None:
        self.picture = Picture()
        self._events: deque[EventRow] = deque(maxlen=EVENTS_KEPT)
        self._debug: deque[EventRow] = deque(maxlen=DEBUG_KEPT)
        self._seen: set[int] = set()
        self._all_events: tuple[EventRow, ...] = ()
        self._warned: tuple[EventRow, ...] = ()
        self._flows: dict[str, Flow] = {}
        self._dropped = 0
        self._exchanges: dict[str, ExchangeRow] = {}
        self._missed = 0

    def update(self, update: Update, time: float) -> None:
        """Takes in one update that came at ``time``."""
        before = self.picture.status
        if before is not None and before.pid != update.status.pid:
            self._forget()
        if update.events is not None:
            self._dropped += update.events.dropped
            self._add_events(update.events.rows)
        if update.exchanges is not None:
            self._add_exchanges(update.exchanges)
        for history in update.histories or ():
            self._flows[history.service] = self._flows.get(history.service, Flow()).followed_by(history)
        if update.services is not None:
            there = {row.name for row in update.services}
            self._flows = {name: flow for name, flow in self._flows.items() if name in there}
        self.picture = Picture(
            time=time,
            status=update.status,
            services=None if update.services is None else tuple(update.services),
            sessions=None if update.sessions is None else tuple(update.sessions),
            channels=None if update.channels is None else tuple(update.channels),
            chids=None if update.chids is None else tuple(update.chids),
            exchanges=None if update.exchanges is None else tuple(self._exchanges.values()),
            attempts=None if update.attempts is None else tuple(update.attempts),
            bans=None if update.bans is None else tuple(update.bans),
            tokens=None if update.tokens is None else tuple(update.tokens),
            history=update.history,
            events=self._all_events,
            warned=self._warned,
            dropped=self._dropped,
            missed=self._missed,
            flows=dict(self._flows),
        )

    def earlier(self, rows: Iterable[EventRow]) -> None:
        """Takes in events that were asked for, older than those that updates bring."""
        known = self._merged()
        self._forget_events()
        self._add_events(sorted({row.id: row for row in (*rows, *known)}.values(), key=_age))
        self.picture = replace(self.picture, events=self._all_events, warned=self._warned)

    def _add_events(self, rows: Iterable[EventRow]) -> None:
        """Takes in events; those which are known already are left out, and the oldest make room."""
        news = [row for row in rows if row.id not in self._seen]
        forgotten: list[EventRow] = []
        for row in news:
            kept = self._debug if row.level == "debug" else self._events
            if len(kept) == kept.maxlen:
                self._seen.discard(kept[0].id)
                forgotten.append(kept[0])
            self._seen.add(row.id)
            kept.append(row)
        if news:
            self._all_events = self._followed_by(news, forgotten)
        if any(row.level in TROUBLES for row in (*news, *forgotten)):
            self._warned = _warned(self._events)

    def _add_exchanges(self, news: Exchanges) -> None:
        """Takes in what is new; what was under way and is not told of any more has ended, and nobody knows how."""
        told = {row.id: row for row in news.rows}
        before = [row for row in self._exchanges.values() if row.seconds is not None and row.id not in told]
        rows = sorted((*before, *told.values()), key=_end)  # in the order in which the engine forgets them
        there: Counter[tuple[str, str]] = Counter()
        kept: list[ExchangeRow] = []
        for row in reversed(rows):
            there[row.service, row.host] += 1
            if row.seconds is None or there[row.service, row.host] <= KEPT_PER_TUNNEL:
                kept.append(row)
        self._exchanges = {row.id: row for row in reversed(kept[:EXCHANGES_KEPT])}
        self._missed += news.dropped

    def _followed_by(self, news: list[EventRow], forgotten: list[EventRow]) -> tuple[EventRow, ...]:
        """All events, where those that are new come behind the others, as they do but for what was asked for."""
        gone = {row.id for row in forgotten}
        kept = [row for row in self._all_events if row.id not in gone] if gone else self._all_events
        ages = [_age(row) for row in (*kept[-1:], *news)]
        if ages != sorted(ages) or not gone.isdisjoint(row.id for row in news):
            return self._merged()
        return (*kept, *news)

    def _merged(self) -> tuple[EventRow, ...]:
        both = [*self._events, *self._debug]
        both.sort(key=_age)  # two runs, each in order, which sorting finds and merges
        return tuple(both)

    def _forget_events(self) -> None:
        self._events.clear()
        self._debug.clear()
        self._seen.clear()
        self._all_events = self._warned = ()

    def _forget(self) -> None:
        """Another engine runs now: its event numbers begin anew."""
        self._forget_events()
        self._flows.clear()
        self._dropped = 0
        self._exchanges.clear()
        self._missed = 0
