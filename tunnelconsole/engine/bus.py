"""The bus: events in order, numbered and timed. The console, the log and the store all learn from here.

Publishing never waits: a reader that is too slow loses the oldest of its events and is told how many. What strangers
can cause without end is told some times, then counted; see :mod:`tunnelconsole.engine.floods`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from tunnelconsole.engine.events import Crashed, Event, Repeated
from tunnelconsole.engine.floods import Floods, Sort

RECENT = 2000
"""Events of any level kept for a console that attaches later: the last few dozen screenfuls."""

RECENT_NOTABLE = 500
"""Warnings and errors kept besides, so that a burst of connections does not push them out."""

READER_BACKLOG = 1000
"""Events a reader may be behind before its oldest are dropped and counted."""


class Record(msgspec.Struct, frozen=True):
    """An event as the bus numbered and timed it."""

    id: int
    """1 for the first since the engine started, rising by one."""
    time: float
    """Unix seconds."""
    event: Event
    identity: str = ""
    """Who it is about, as that was proved; empty where it is about nobody who has."""


Listener = Callable[[Record], None]

Counter = Callable[[Event], None]


class Reader:
    """One slow-or-fast reader's queue of events."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: deque[Record] = deque()
        self._dropped = 0

    def offer(self, record: Record) -> None:
        """Queues a record; the oldest goes when the queue is full."""
        if len(self._queue) >= READER_BACKLOG:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(record)

    def take(self) -> tuple[list[Record], int]:
        """All that came since the last call, and how many were dropped meanwhile."""
        records, dropped = list(self._queue), self._dropped
        self._queue.clear()
        self._dropped = 0
        return records, dropped

    def close(self) -> None:
        """Takes no more events."""
        self._bus.forget(self)


class Bus:
    """Where events are published. Listeners are called at once and must not block; readers take when they like."""

    def __init__(self) -> None:
        self.identity_of: Callable[[str], str] = lambda _: ""
        """Gives the identity of a session by its id; "" for one that is not there."""
        self._last_id = 0
        self._recent: deque[Record] = deque(maxlen=RECENT)
        self._notable: deque[Record] = deque(maxlen=RECENT_NOTABLE)
        self._listeners: list[Listener] = []
        self._counters: list[Counter] = []
        self._readers: set[Reader] = set()
        self._floods = Floods()

    def publish(self, event: Event) -> None:
        """Numbers, keeps and hands out an event; one of a flood is counted, to be told by :meth:`tell_repeated`."""
        for counter in list(self._counters):
            self._count(counter, event)
        cause = event.flooded_by()
        if cause is None or self._floods.admits(Sort(event.service, event.type), cause, time.monotonic()):
            self._hand_out(event)

    def tell_repeated(self, *, early: bool = False) -> None:
        """Tells what was counted; to be called about once a second, and ``early`` when nothing comes any more."""
        tallies, seconds = self._floods.over(time.monotonic(), early=early)
        for sort, (who, why), times in tallies:
            self._hand_out(
                Repeated(service=sort.service, of=sort.type, who=who, reason=why, count=times, seconds=seconds)
            )

    def _hand_out(self, event: Event) -> None:
        self._last_id += 1
        record = Record(self._last_id, time.time(), event, event.identity or self._identity(event))
        self._recent.append(record)
        if event.level in ("warning", "error"):
            self._notable.append(record)
        for listener in list(self._listeners):
            self._tell(listener, record)
        for reader in self._readers:
            reader.offer(record)

    def _identity(self, event: Event) -> str:
        return self.identity_of(event.session) if event.session else ""

    def _tell(self, listener: Listener, record: Record) -> None:
        try:
            listener(record)
        except Exception as error:  # noqa: BLE001 - whoever publishes must not suffer from whoever listens
            if listener in self._listeners:
                self._listeners.remove(listener)
                self.publish(Crashed.by(error, "a listener of events, which hears no more of them,"))

    def listen(self, listener: Listener) -> None:
        """Calls ``listener`` with every record from now on, until it raises; it must be quick."""
        self._listeners.append(listener)

    def count(self, counter: Counter) -> None:
        """Calls ``counter`` with every event that happens from now on, until it raises or :meth:`stop_counting`.

        Unlike a listener it gets each of a flood, and no sums of one, so that it can count exactly. It must be quick.
        """
        self._counters.append(counter)

    def stop_counting(self, counter: Counter) -> None:
        """Ends what :meth:`count` began; safe to call twice."""
        if counter in self._counters:
            self._counters.remove(counter)

    def _count(self, counter: Counter, event: Event) -> None:
        try:
            counter(event)
        except Exception as error:  # noqa: BLE001 - as in _tell
            if counter in self._counters:
                self._counters.remove(counter)
                self.publish(Crashed.by(error, "a counter of events, which counts no more of them,"))

    def reader(self) -> Reader:
        """A new queue of its own."""
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def forget(self, reader: Reader) -> None:
        """Ends a reader; see :meth:`Reader.close`."""
        self._readers.discard(reader)

    def recent(self) -> Iterator[Record]:
        """What is kept, oldest first, each once."""
        oldest_recent = self._recent[0].id if self._recent else self._last_id + 1
        for record in self._notable:
            if record.id < oldest_recent:
                yield record
        yield from list(self._recent)
