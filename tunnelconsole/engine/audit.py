"""The audit trail: who had the engine do what, through what, when, and what came of it.

Every change that is asked of the engine becomes an entry, whether it is done or refused: :meth:`AuditTrail.record` is
the one way in. An entry holds no secret. It is an event at once, and the keeper writes it into the store at once; what
cannot be written waits here, and what cannot wait any longer is counted.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pwd
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Final, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import msgspec

from tunnelconsole.engine.audit_events import Audited, AuditLost
from tunnelconsole.engine.bus import Bus
from tunnelconsole.errors import TunnelConsoleError

KEPT_ENTRIES: Final = 10_000
"""Entries kept, in the store and in memory; the oldest go first. At a hundred changes a day these are three months; in
memory they are 5 MB, and 15 MB at the very most."""

LONGEST_NAME: Final = 200
"""Characters of who, and of what it was done to: strangers choose some of these names."""

LONGEST_SENTENCE: Final = 1000
"""Characters of what came of it: a configuration may have many mistakes."""

REFUSED_EACH: Final = 20
"""Refusals of one party that are entries of their own in an interval; further ones are counted, and become one entry:
who may do nothing could push out what others have done otherwise."""

REFUSED_INTERVAL: Final = 600.0
"""Seconds of such an interval: with 21 entries in each, pushing out all that is kept takes more than three days."""

Via = Literal["command", "console", "ssh", "signal", "api", "engine"]
"""Through what: a command or a console of this machine, either of them over SSH, a signal, a program that embeds the
engine; ``engine`` for what it does by itself."""

Outcome = Literal["done", "refused", "broken off"]
"""What came of it; ``broken off``: who asked was gone, or the engine ended, before it was known."""

P = ParamSpec("P")
R = TypeVar("R")


class Actor(NamedTuple):
    """Who asks, and through what."""

    who: str
    """``user NAME (uid N)``, ``ssh IDENTITY SHA256:...``, ``signal``, ``engine``."""
    via: Via


ENGINE: Final = Actor("engine", "engine")
SIGNAL: Final = Actor("signal", "signal")


class AuditEntry(msgspec.Struct, frozen=True):
    """One thing that somebody had the engine do. All texts are printable and bounded."""

    time: float
    """Unix seconds: when it was known what came of it."""
    who: str
    via: str
    action: str
    """``stop-service`` and the like: the name of the request, as it travels over the control socket."""
    object: str
    """What it was done to: a service, a session; may be empty."""
    outcome: str
    """One of :data:`Outcome`."""
    text: str
    """A sentence of what was done, or why not; may be empty."""


@dataclass
class _Refusals:
    """What one party was refused in an interval."""

    via: Via
    since: float
    told: int = 0
    untold: int = 0


class AuditTrail:
    """All entries that are kept, and those that have yet to be written."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._recorded = 0
        self._earlier: list[AuditEntry] = []
        self._entries: deque[AuditEntry] = deque(maxlen=KEPT_ENTRIES)
        self._unsaved: deque[AuditEntry] = deque()
        self._lost = 0
        self._loss_told = False
        self._closed = False
        self._refusals: dict[str, _Refusals] = {}
        self.due: Callable[[], None] = lambda: None
        """Called when there is something to be written; whoever writes sets it."""

    # what is asked of it

    def record(self, actor: Actor, action: str, object_: str, outcome: Outcome, text: str = "") -> None:
        """Adds an entry; one of many refusals of the same party is counted instead.

        :param object_: what it was done to; no secret, like the text.
        """
        if outcome == "refused" and not self._admits(actor):
            return
        self._add(actor, action, object_, outcome, text)

    def rows(self, limit: int = KEPT_ENTRIES, since: float = 0.0) -> list[tuple[int, AuditEntry]]:
        """The last ``limit`` entries from ``since`` (Unix seconds) on, the oldest first.

        Each has a number that rises by one; those from before the engine started are negative.
        """
        first = self._recorded - len(self._entries) + 1
        gone = max(0, len(self._earlier) + len(self._entries) - KEPT_ENTRIES)
        both = [*enumerate(self._earlier[gone:], gone - len(self._earlier)), *enumerate(self._entries, first)]
        found = [(number, entry) for number, entry in both if entry.time >= since] if since else both
        return found[-limit:] if limit > 0 else []

    def tell_refused(self, *, early: bool = False) -> None:
        """Makes an entry of the refusals that were counted, once their interval is over, or ``early``."""
        now = time.monotonic()
        for who, refusals in list(self._refusals.items()):
            seconds = now - refusals.since
            if seconds >= REFUSED_INTERVAL or early:
                del self._refusals[who]
                if refusals.untold:
                    text = f"{refusals.untold:,} more requests were refused within {seconds:.0f} s"
                    self._add(Actor(who, refusals.via), "various", "", "refused", text)

    def _admits(self, actor: Actor) -> bool:
        refusals = self._refusals.setdefault(actor.who, _Refusals(actor.via, time.monotonic()))
        if refusals.told < REFUSED_EACH:
            refusals.told += 1
            return True
        refusals.untold += 1
        return False

    def _add(self, actor: Actor, action: str, object_: str, outcome: Outcome, text: str) -> None:
        entry = AuditEntry(
            time.time(),
            printable(actor.who, LONGEST_NAME),
            actor.via,
            action,
            printable(object_, LONGEST_NAME),
            outcome,
            printable(text, LONGEST_SENTENCE),
        )
        self._recorded += 1
        self._entries.append(entry)
        self._unsaved.append(entry)
        self._bus.publish(
            Audited(
                who=entry.who,
                via=entry.via,
                action=entry.action,
                object=entry.object,
                outcome=entry.outcome,
                sentence=entry.text,
            )
        )
        self._bound()
        self.due()

    # what is written

    def restore(self, entries: list[AuditEntry]) -> None:
        """Takes over what was kept of earlier runs, the oldest first."""
        self._earlier = entries[-KEPT_ENTRIES:]

    def take(self) -> list[AuditEntry]:
        """What has yet to be written; whoever takes it says :meth:`written`, or :meth:`give_back`."""
        entries = list(self._unsaved)
        self._unsaved.clear()
        return entries

    def written(self) -> None:
        """What was taken is written; tells what was lost before."""
        self._tell_lost()
        self._loss_told = False

    def give_back(self, entries: Iterable[AuditEntry]) -> None:
        """What was taken could not be written, and waits here."""
        self._unsaved.extendleft(reversed(list(entries)))
        self._bound()

    def close(self) -> None:
        """Nothing more will be written: what waits is lost."""
        self._closed = True
        self._bound()
        self._tell_lost()

    def _bound(self) -> None:
        """Drops what can wait no longer, the oldest first; the first that is lost is told at once, then sums are."""
        while len(self._unsaved) > (0 if self._closed else KEPT_ENTRIES):
            self._unsaved.popleft()
            self._lost += 1
        if self._lost and (self._closed or not self._loss_told):
            self._loss_told = True
            self._tell_lost()

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            self._bus.publish(AuditLost(count=lost))


def printable(text: str, longest: int) -> str:
    """The text in at most so many characters, on one line, all of them printable: others are escaped, as in the log."""
    text = "; ".join(text.splitlines()) if "\n" in text else text
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    escaped = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return escaped if len(escaped) <= longest else escaped[: longest - 1] + "…"


@lru_cache(maxsize=64)
def user(uid: int) -> str:
    """Who a user of this machine is, in words; kept, because a directory service may have to be asked for it."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"user {uid} (uid {uid})"


def difference(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Which services a reload has added, changed and removed, by name; "" for none.

    :param before: what stood for each service, by its name; another object stands for another service.
    """
    told = {
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and after[name] is not before[name]],
        "removed": [name for name in before if name not in after],
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in told.items() if names)


# what a program does that embeds the engine

_ACCOUNTED_FOR: ContextVar[object] = ContextVar("accounted_for", default=None)
"""The task in which somebody accounts for what is done; a task that this one begins inherits it, and is another one."""


@contextmanager
def accounted_for() -> Iterator[None]:
    """What is done to the engine in the block is no entry of its own: whoever does it makes one."""
    token = _ACCOUNTED_FOR.set(asyncio.current_task())
    try:
        yield
    finally:
        _ACCOUNTED_FOR.reset(token)


def _is_accounted_for() -> bool:
    task = _ACCOUNTED_FOR.get()
    return task is not None and task is asyncio.current_task()


class _Audited(Protocol):
    @property
    def audit(self) -> AuditTrail: ...


def by_program(action: str, *, says: bool = True) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes an entry of each call of a method of the engine that is nobody else's to account for.

    The entry's object is the method's first argument where that is a text.

    :param says: whether what the method returns is the entry's sentence; never where that is a secret.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @contextmanager
        def recorded(arguments: tuple[Any, ...], said: list[Any]) -> Iterator[None]:
            engine, *rest = arguments
            trail = cast(_Audited, engine).audit
            object_ = rest[0] if rest and isinstance(rest[0], str) else ""
            actor = Actor(user(os.geteuid()), "api")
            outcome: Outcome = "broken off"
            text = ""
            try:
                with accounted_for():
                    yield
                outcome, text = "done", next((each for each in said if says and isinstance(each, str)), "")
            except TunnelConsoleError as error:
                outcome, text = "refused", error.message
                raise
            finally:
                trail.record(actor, action, object_, outcome, text)

        @wraps(method)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            if _is_accounted_for():
                return method(*arguments, **named)
            said: list[Any] = []
            with recorded((*arguments, *named.values()), said):
                said.append(result := method(*arguments, **named))
            return result

        @wraps(method)
        async def wait(*arguments: P.args, **named: P.kwargs) -> Any:
            if _is_accounted_for():
                return await cast(Any, method)(*arguments, **named)
            said: list[Any] = []
            with recorded((*arguments, *named.values()), said):
                said.append(result := await cast(Any, method)(*arguments, **named))
            return result

        return cast(Callable[P, R], wait if inspect.iscoroutinefunction(method) else call)

    return decorate
