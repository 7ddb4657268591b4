"""Events: typed, with a time, on a bounded bus. The console, the log and the store all learn from here.

Publishing never waits: a reader that is too slow loses the oldest of its events and is told how many.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import msgspec

Level = Literal["debug", "info", "warning", "error"]

RECENT = 2000
"""Events of any level kept for a console that attaches later: the last few dozen screenfuls."""

RECENT_NOTABLE = 500
"""Warnings and errors kept besides, so that a burst of connections does not push them out."""

READER_BACKLOG = 1000
"""Events a reader may be behind before its oldest are dropped and counted."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. ``type`` and ``level`` are fixed per class; ``text`` is one sentence without secrets."""

    type: ClassVar[str]
    level: ClassVar[Level]
    service: str = ""
    session: str = ""
    channel: str = ""

    def text(self) -> str:
        """One sentence for a person."""
        raise NotImplementedError


class ServiceListening(Event, frozen=True, kw_only=True):
    """A server has its listening socket."""

    type: ClassVar[str] = "service-listening"
    level: ClassVar[Level] = "info"
    kind: str
    address: str
    exposed: bool

    def text(self) -> str:
        return f"listening on {self.address}" + (", beyond loopback" if self.exposed else "")


class ServiceConnected(Event, frozen=True, kw_only=True):
    """A client is connected to its server."""

    type: ClassVar[str] = "service-connected"
    level: ClassVar[Level] = "info"
    kind: str
    address: str
    server: str

    def text(self) -> str:
        return f"connected to {self.server}" + (f", reachable at {self.address}" if self.address else "")


class ServiceRetrying(Event, frozen=True, kw_only=True):
    """A service failed and will be started again."""

    type: ClassVar[str] = "service-retrying"
    level: ClassVar[Level] = "warning"
    error: str
    delay: float

    def text(self) -> str:
        return f"{self.error}; next try in {self.delay:.1f} s"


class ServiceFailed(Event, frozen=True, kw_only=True):
    """A service failed in a way that trying again cannot mend."""

    type: ClassVar[str] = "service-failed"
    level: ClassVar[Level] = "error"
    error: str

    def text(self) -> str:
        return f"failed for good: {self.error}"


class ServiceStopped(Event, frozen=True, kw_only=True):
    """A service ended because it was told to."""

    type: ClassVar[str] = "service-stopped"
    level: ClassVar[Level] = "info"
    cause: str

    def text(self) -> str:
        return f"stopped: {self.cause}"


class SessionOpened(Event, frozen=True, kw_only=True):
    """A remote party was let in."""

    type: ClassVar[str] = "session-opened"
    level: ClassVar[Level] = "debug"
    peer: str
    identity: str

    def text(self) -> str:
        return f"{self.identity} from {self.peer}"


class SessionClosed(Event, frozen=True, kw_only=True):
    """A remote party has gone."""

    type: ClassVar[str] = "session-closed"
    level: ClassVar[Level] = "debug"
    peer: str
    identity: str
    seconds: float
    bytes_in: int
    bytes_out: int
    cause: str

    def text(self) -> str:
        end = self.cause or "ended"
        return (
            f"{self.identity} from {self.peer}: {end} after {self.seconds:.1f} s, "
            f"{self.bytes_in} bytes in, {self.bytes_out} out"
        )


class BackendAttached(SessionOpened, frozen=True, kw_only=True):
    """A session that offers something to others, rather than asking for it."""

    type: ClassVar[str] = "backend-attached"
    level: ClassVar[Level] = "info"
    address: str

    def text(self) -> str:
        return f"backend {self.peer} is reachable at {self.address}"


class BackendLeft(SessionClosed, frozen=True, kw_only=True):
    """A session that offered something has gone."""

    type: ClassVar[str] = "backend-left"
    level: ClassVar[Level] = "info"
    address: str

    def text(self) -> str:
        return f"backend {self.peer} left {self.address}: {self.cause or 'ended'} after {self.seconds:.1f} s"


class ChannelOpened(Event, frozen=True, kw_only=True):
    """A byte stream is being piped."""

    type: ClassVar[str] = "channel-opened"
    level: ClassVar[Level] = "debug"
    label: str

    def text(self) -> str:
        return f"to {self.label}"


class ChannelClosed(Event, frozen=True, kw_only=True):
    """A byte stream has ended."""

    type: ClassVar[str] = "channel-closed"
    level: ClassVar[Level] = "debug"
    label: str
    bytes_in: int
    bytes_out: int
    seconds: float
    cause: str

    def text(self) -> str:
        end = self.cause or "ended"
        return f"to {self.label}: {end} after {self.seconds:.1f} s, {self.bytes_in} bytes in, {self.bytes_out} out"


class PeerRefused(Event, frozen=True, kw_only=True):
    """Somebody was turned away: a wrong secret, a forbidden address, a limit, a broken handshake."""

    type: ClassVar[str] = "peer-refused"
    level: ClassVar[Level] = "warning"
    peer: str
    reason: str

    def text(self) -> str:
        return f"refused {self.peer}: {self.reason}"


class TargetFailed(Event, frozen=True, kw_only=True):
    """A target could not be dialled, or is not allowed."""

    type: ClassVar[str] = "target-failed"
    level: ClassVar[Level] = "warning"
    peer: str
    target: str
    reason: str

    def text(self) -> str:
        return f"{self.peer} wanted {self.target}: {self.reason}"


class ResourcesExhausted(Event, frozen=True, kw_only=True):
    """The process has no descriptors or memory left for newcomers."""

    type: ClassVar[str] = "resources-exhausted"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"cannot accept connections: {self.reason}; trying again shortly"


class Crashed(Event, frozen=True, kw_only=True):
    """A task ended with an exception that nobody expected: a fault of this program."""

    type: ClassVar[str] = "crashed"
    level: ClassVar[Level] = "error"
    task: str
    error: str
    trace: str = ""
    """The traceback; for the log alone."""

    @classmethod
    def by(cls, error: BaseException, task: str, service: str = "") -> Crashed:
        """The event of a task that ``error`` ended."""
        trace = "".join(traceback.format_exception(error))
        return cls(service=service, task=task, error=f"{type(error).__name__}: {error}", trace=trace)

    def text(self) -> str:
        return f"{self.task} failed unexpectedly: {self.error}"


class ConfigReloaded(Event, frozen=True, kw_only=True):
    """A new configuration is in force."""

    type: ClassVar[str] = "config-reloaded"
    level: ClassVar[Level] = "info"
    summary: str

    def text(self) -> str:
        return f"configuration read again: {self.summary}"


class ConfigRefused(Event, frozen=True, kw_only=True):
    """A new configuration has mistakes and was not taken."""

    type: ClassVar[str] = "config-refused"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"the new configuration is refused, the old one stays: {self.reason}"


class EngineStopping(Event, frozen=True, kw_only=True):
    """The engine takes nothing new and lets channels finish."""

    type: ClassVar[str] = "engine-stopping"
    level: ClassVar[Level] = "info"
    cause: str
    channels: int

    def text(self) -> str:
        return f"stopping ({self.cause}); {self.channels} channels may finish"


class StoreFailed(Event, frozen=True, kw_only=True):
    """The state file cannot be read or written."""

    type: ClassVar[str] = "store-failed"
    level: ClassVar[Level] = "error"
    reason: str

    def text(self) -> str:
        return f"state is not being saved: {self.reason}"


class Record(msgspec.Struct, frozen=True):
    """An event as the bus numbered and timed it."""

    id: int
    """1 for the first since the engine started, rising by one."""
    time: float
    """Unix seconds."""
    event: Event


Listener = Callable[[Record], None]


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
        self._last_id = 0
        self._recent: deque[Record] = deque(maxlen=RECENT)
        self._notable: deque[Record] = deque(maxlen=RECENT_NOTABLE)
        self._listeners: list[Listener] = []
        self._readers: set[Reader] = set()

    def publish(self, event: Event) -> None:
        """Numbers, keeps and hands out an event."""
        self._last_id += 1
        record = Record(self._last_id, time.time(), event)
        self._recent.append(record)
        if event.level in ("warning", "error"):
            self._notable.append(record)
        for listener in list(self._listeners):
            self._tell(listener, record)
        for reader in self._readers:
            reader.offer(record)

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
