"""Counts of what only passes by as an event; everything else is read from the registers when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tunnelconsole.engine.events import (
    BytesDropped,
    ChannelOpened,
    Event,
    PeerRefused,
    SessionClosed,
    SessionOpened,
    TargetFailed,
)
from tunnelconsole.engine.identities import OTHERS
from tunnelconsole.engine.punch_events import AttemptEnded
from tunnelconsole.engine.services.ssh.events import RefusedRequest, WrongAnswer
from tunnelconsole.metrics.reasons import failure

MAX_IDENTITIES: Final = 200
"""Identities, of all services together, that have series of their own; with three for each, a screenful of a store of
thousands. They are those that came first, so that no series ever goes back; the rest of a service is one."""

SELF_NAMED: Final = frozenset({"punch-server"})
"""Kinds whose sessions have a name that they chose themselves, such as a room's: those are never labels."""

METHODS: Final = frozenset({"relay", "host", "mapped", "predicted", "many ports", "accepted", "given"})
"""How an attempt may have reached the other side, as labels say it; anything else is ``none``."""

Pair = tuple[str, str]
"""A service and an identity, or :data:`OTHERS`."""


class Counts:
    """What has happened since the engine's start, or since somebody wanted to know.

    :param kind_of: gives the kind of a service by its name; empty where there is none of that name.
    """

    def __init__(self, kind_of: Callable[[str], str]) -> None:
        self._kind_of = kind_of
        self.events: Counter[tuple[str, str]] = Counter()
        """By type and level."""
        self.handshakes: Counter[str] = Counter()
        """Sessions that were let in, by service."""
        self.channels: Counter[str] = Counter()
        """Channels that were opened, by service."""
        self.refusals: Counter[tuple[str, str]] = Counter()
        """By service and reason, one of :data:`~tunnelconsole.engine.refusals.REFUSAL_KINDS`."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """Targets that were not reached, by service and reason."""
        self.dropped: Counter[str] = Counter()
        """Bytes that were lost, by service."""
        self.punches: Counter[tuple[str, str, str]] = Counter()
        """Attempts that are over, by service, result and method."""
        self.closed: dict[Pair, tuple[int, int]] = {}
        """Bytes in and out of sessions that are over."""
        self._named: set[Pair] = set()
        self._handlers: dict[type[Event], Callable[[Any], None] | None] = {
            SessionOpened: self._opened,
            SessionClosed: self._closed,
            ChannelOpened: self._channel_opened,
            PeerRefused: self._refused,
            WrongAnswer: self._wrong_answer,
            RefusedRequest: self._refused_request,
            TargetFailed: self._failed,
            BytesDropped: self._dropped,
            AttemptEnded: self._punched,
        }

    def count(self, event: Event) -> None:
        """Counts an event; to be called with each that happens."""
        kind = type(event)
        self.events[kind.type, kind.level] += 1
        try:
            handler = self._handlers[kind]
        except KeyError:  # one that is looked for the first time, which may be a sort of one that is known
            bases = (self._handlers.get(base) for base in kind.__mro__)
            handler = self._handlers[kind] = next(filter(None, bases), None)
        if handler is not None:
            handler(event)

    def label(self, service: str, identity: str) -> Pair:
        """Under which name a session is counted."""
        pair = service, identity
        if pair in self._named:
            return pair
        if len(self._named) >= MAX_IDENTITIES or self._kind_of(service) in ("", *SELF_NAMED):
            return service, OTHERS
        self._named.add(pair)
        return pair

    def _opened(self, event: SessionOpened) -> None:
        self.handshakes[event.service] += 1
        self.label(event.service, event.identity)  # those that come first have a name

    def _closed(self, event: SessionClosed) -> None:
        pair = self.label(event.service, event.identity)
        bytes_in, bytes_out = self.closed.get(pair, (0, 0))
        self.closed[pair] = bytes_in + event.bytes_in, bytes_out + event.bytes_out

    def _channel_opened(self, event: ChannelOpened) -> None:
        self.channels[event.service] += 1

    def _refused(self, event: PeerRefused) -> None:
        self.refusals[event.service, event.kind] += 1

    def _wrong_answer(self, event: WrongAnswer) -> None:
        self.refusals[event.service, "credentials"] += 1

    def _refused_request(self, event: RefusedRequest) -> None:
        self.refusals[event.service, "not_allowed"] += 1

    def _failed(self, event: TargetFailed) -> None:
        self.failures[event.service, failure(event.reason)] += 1

    def _dropped(self, event: BytesDropped) -> None:
        self.dropped[event.service] += event.count

    def _punched(self, event: AttemptEnded) -> None:
        self.punches[event.service, event.state, event.method if event.method in METHODS else "none"] += 1
