"""Bans: who guesses secrets is turned away for a time, at every service of the node.

Failures are counted per source, an IPv4 address or an IPv6 network of 64 bits, over all services together; each service
says by its limits how many are too many. A ban ends by itself, and the next one soon after is twice as long. The store
has bans survive a restart, but no counts of failures. Sessions that are open already stay.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tunnelconsole.engine.access import Clients, plain_address, source_of
from tunnelconsole.engine.ban_events import AddressBanned, AddressUnbanned, BansRestored, FailuresForgotten
from tunnelconsole.engine.ban_table import BanChanges, KeptBan
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.units import Frequency
from tunnelconsole.errors import RequestRefused

LONGEST: Final = 86_400.0
"""Seconds to which bans double, a day, unless ``ban_time`` is longer: addresses change hands, and people make
mistakes."""

SOON: Final = 86_400.0
"""Seconds after the end of a ban within which the next one is twice as long."""

MAX_BANS: Final = 10_000
"""Bans at once, some 4 MB at the most; beyond that the oldest that the engine has set makes room."""

MAX_BY_HAND: Final = 1000
"""Bans by hand among them; whoever wants to keep out more has ``clients_deny`` or a firewall."""

MAX_SOURCES: Final = 10_000
"""Sources whose failures, or handshakes, are counted, some 3 MB at the most; beyond that those are forgotten that were
heard of the longest ago. Who has as many addresses is no matter for bans."""

LONGEST_BY_HAND: Final = 100 * 366 * 86_400.0
"""Seconds that a ban by hand may last, a century: nobody means more, and infinity is no time."""

CLOCK_SET: Final = 2.0
"""Seconds by which the time of day goes another way than the clock where it has been set: adjusting takes longer."""

BY_HAND: Final = "by hand"
"""Why an operator's ban is there."""

NO_ADDRESS: Final = "write one as 192.0.2.7 or 2001:db8::7; whole networks belong in clients_deny"


@dataclass(slots=True)
class Ban:
    """One source that is turned away."""

    address: str
    """An IPv4 address, or an IPv6 network of 64 bits."""
    service: str
    """At which it failed the last time; empty where it is banned by hand."""
    reason: str
    """What failed then, or :data:`BY_HAND`."""
    failures: int
    """How many there were; 0 where it is banned by hand."""
    since: float
    """Unix seconds."""
    seconds: float
    """How long it lasts."""
    over_at: float
    """By the clock of the register."""
    by_hand: bool = False
    turned_away: int = 0
    """Connections of it that were closed meanwhile, since this engine was started."""


class Policy:
    """What one service makes of failures and bans.

    :raises ValueError: an entry of ``bans_exempt`` is not an address or a network.
    """

    __slots__ = ("_exempt", "after", "seconds", "within")

    def __init__(self, limits: LimitSettings) -> None:
        self.after = limits.ban_after
        self.within = float(limits.ban_within)
        self.seconds = float(limits.ban_time)
        self._exempt = Clients(limits.bans_exempt, []) if limits.bans_exempt else None

    def concerns(self, peer: str) -> bool:
        """Whether bans that the engine has set are for this peer, here."""
        return self.seconds > 0 and not (self._exempt is not None and self._exempt.permit(peer))


class _Offender:
    """What a source has done lately."""

    __slots__ = ("banned_until", "failures", "last_ban", "since")

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.since = now
        self.last_ban = 0.0
        self.banned_until = 0.0


class Bans:
    """The register of bans. Its one writer is the engine's loop.

    :param clock: seconds that never go back.
    :param wall: Unix seconds, for people.
    """

    def __init__(
        self, bus: Bus, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._wall = wall
        self._bans: dict[str, Ban] = {}
        self._offenders: dict[str, _Offender] = {}
        self._next_end = float("inf")
        self._changed: set[str] = set()
        """Addresses whose bans are kept otherwise than they are."""
        self._all_changed = False
        self._off = wall() - clock()
        """What the time of day is ahead of the clock."""
        self.due: Callable[[], None] = lambda: None
        """Called when they should be kept at once: an operator has changed them."""

    def __len__(self) -> int:
        return len(self._bans)

    @property
    def counted(self) -> int:
        """Sources whose failures are remembered."""
        return len(self._offenders)

    def rows(self) -> list[tuple[Ban, float]]:
        """The bans with the seconds that each has left, the newest first."""
        self.tick()
        now = self._clock()
        return [(ban, ban.over_at - now) for ban in reversed(self._bans.values())]

    def turns_away(self, peer: str, policy: Policy) -> bool:
        """Whether somebody who has just connected is banned; to be asked before anything is spent on them.

        :param peer: numeric ``host:port``.
        """
        if not self._bans:
            return False
        ban = self._bans.get(source_of(peer))
        if ban is None or (not ban.by_hand and not policy.concerns(peer)):
            return False
        if self._clock() >= ban.over_at:
            self.tick()
            return False
        ban.turned_away += 1
        return True

    def failed(self, peer: str, service: str, reason: str, policy: Policy) -> None:
        """Counts a wrong guess of a secret, and bans where it was one too many.

        :param peer: numeric ``host:port``; nobody else can be banned.
        """
        try:
            if not policy.concerns(peer):
                return
            source = source_of(peer)
        except ValueError:  # who comes through another stream has no address of its own
            return
        now = self._clock()
        if (ban := self._bans.get(source)) is not None and now < ban.over_at:
            ban.failures += 1  # it was inside already
            return
        offender = self._offenders.pop(source, None) or _Offender(now)
        if now - offender.since > policy.within:
            offender.failures, offender.since = 0, now
        offender.failures += 1
        self._offenders[source] = offender  # at the end: of those who are heard of the last
        if len(self._offenders) > MAX_SOURCES:
            del self._offenders[next(iter(self._offenders))]
            self._bus.publish(FailuresForgotten(service=service, most=MAX_SOURCES))
        if offender.failures < policy.after:
            return
        seconds = policy.seconds
        if offender.last_ban and now - offender.banned_until <= SOON:
            seconds = max(seconds, min(2 * offender.last_ban, LONGEST))
        ban = Ban(source, service, reason, offender.failures, self._wall(), seconds, now + seconds)
        offender.failures, offender.last_ban, offender.banned_until = 0, seconds, ban.over_at
        self._add(ban)

    def ban(self, text: str, seconds: float) -> str:
        """Bans by hand, at every service and whatever is exempt; returns what was done, in a sentence.

        :param text: an address, or an IPv6 network of 64 bits.
        :param seconds: for how long.
        :raises RequestRefused: it is no address, or the time is none.
        """
        source = source_named(text)
        if not 0 < seconds <= LONGEST_BY_HAND:
            raise RequestRefused(f"nobody can be banned for {seconds:g} s", "say for how long, such as 1h")
        before = self._bans.get(source)
        others = sum(ban.by_hand for ban in self._bans.values() if ban is not before)
        if others >= MAX_BY_HAND:
            raise RequestRefused(f"{others} addresses are banned by hand already", "lift some, or use clients_deny")
        self._bans.pop(source, None)
        now = self._clock()
        self._add(Ban(source, "", BY_HAND, 0, self._wall(), seconds, now + seconds, by_hand=True))
        self.due()
        return f"{source} is banned; its sessions that are open stay"

    def lift(self, text: str) -> str:
        """Ends a ban, and forgets what led to it; returns what was done, in a sentence.

        :param text: an address, or an IPv6 network of 64 bits.
        :raises RequestRefused: it is not banned.
        """
        source = source_named(text)
        self.tick()
        if source not in self._bans:
            raise RequestRefused(f"{source} is not banned", "tunnelconsole bans lists who is")
        self._offenders.pop(source, None)
        self._remove(source, "it was lifted")
        self.due()
        return f"{source} may connect again"

    def tick(self) -> None:
        """Ends the bans whose time is over, and has all be kept anew where the time of day has been set."""
        now, off = self._clock(), self._wall() - self._clock()
        if abs(off - self._off) > CLOCK_SET:
            self._off = off
            self._all_changed |= bool(self._bans)
        if now < self._next_end:
            return
        for ban in [ban for ban in self._bans.values() if now >= ban.over_at]:
            self._remove(ban.address, "its time is over")
        self._next_end = min((ban.over_at for ban in self._bans.values()), default=float("inf"))

    def take_changes(self) -> BanChanges:
        """What has changed since this was asked last, to be kept; :meth:`put_back` takes it where it could not be."""
        changed, every, self._all_changed = self._changed, self._all_changed, False
        self._changed = set()
        names = self._bans.keys() if every else changed & self._bans.keys()
        written = [self._kept(ban) for name, ban in self._bans.items() if name in names] if names else []
        return BanChanges(written, () if every else sorted(changed - self._bans.keys()), every)

    def put_back(self, changes: BanChanges) -> None:
        """Has changes be kept later that could not be now."""
        self._all_changed |= changes.all
        for address in (*changes.removed, *(ban.address for ban in changes.written)):
            self._note(address)

    def all_changed(self) -> None:
        """Has all be kept anew: nobody knows what is kept."""
        self._all_changed = True

    def _note(self, address: str) -> None:
        """Notes that a ban has changed; of too many changes no more is noted than that there are."""
        self._changed.add(address)
        if len(self._changed) > 2 * MAX_BANS:
            self._changed.clear()
            self._all_changed = True

    def _kept(self, ban: Ban) -> KeptBan:
        until = ban.over_at + self._wall() - self._clock()
        return KeptBan(ban.address, ban.service, ban.reason, ban.failures, ban.since, ban.seconds, until, ban.by_hand)

    def restore(self, kept: Iterable[KeptBan]) -> None:
        """Has bans of an earlier run last for as long as they had left.

        From now on none lasts longer than it was to last in all, whatever has become of the time of day meanwhile.
        Those of addresses that are banned already do not count.

        :param kept: such as :func:`usable` gives.
        """
        now, restored = self._clock(), 0
        for each in kept:
            left = min(each.until - self._wall(), each.seconds)
            if left <= 0 or each.address in self._bans or len(self._bans) >= MAX_BANS:
                continue
            over_at, hand = now + left, each.by_hand
            self._bans[each.address] = Ban(
                each.address, each.service, each.reason, each.failures, each.since, each.seconds, over_at, by_hand=hand
            )
            self._next_end = min(self._next_end, over_at)
            if not hand:
                offender = self._offenders[each.address] = _Offender(now)
                offender.last_ban, offender.banned_until = each.seconds, over_at
            restored += 1
        if restored:
            self._bus.publish(BansRestored(count=restored))

    def _add(self, ban: Ban) -> None:
        self._note(ban.address)
        if len(self._bans) >= MAX_BANS:
            oldest = next(other.address for other in self._bans.values() if not other.by_hand)
            self._remove(oldest, f"{MAX_BANS} are banned, and this was the oldest")
        self._bans[ban.address] = ban
        self._next_end = min(self._next_end, ban.over_at)
        self._bus.publish(
            AddressBanned(
                service=ban.service, address=ban.address, failures=ban.failures, seconds=ban.seconds, reason=ban.reason
            )
        )

    def _remove(self, source: str, cause: str) -> None:
        ban = self._bans.pop(source)
        self._note(source)
        self._bus.publish(
            AddressUnbanned(service=ban.service, address=source, turned_away=ban.turned_away, cause=cause)
        )


def source_named(text: str) -> str:
    """The source that an operator means.

    :raises RequestRefused: it is no address, nor an IPv6 network of 64 bits.
    """
    shown = text.strip()[:64]
    host, slash, _ = shown.partition("/")
    try:
        address = plain_address(host.strip("[]"))
        source = source_of(f"[{address}]:0" if address.version == 6 else f"{address}:0")
        if slash and ipaddress.ip_network(shown, strict=False) != ipaddress.ip_network(source):
            raise RequestRefused(f"{shown} is a network, and one address is banned at a time", NO_ADDRESS)
    except ValueError:
        raise RequestRefused(f"{shown or 'nothing'} is not an IP address", NO_ADDRESS) from None
    return source


def usable(kept: Iterable[KeptBan]) -> list[KeptBan]:
    """Those that an engine can have written; for :meth:`Bans.restore`, and for another thread than the loop's."""
    return [
        each
        for each in kept
        if 0 < each.seconds <= LONGEST_BY_HAND
        and math.isfinite(each.since)
        and math.isfinite(each.until)
        and _is_source(each.address)
    ]


def _is_source(text: str) -> bool:
    """Whether this is how an address is written that can be banned."""
    try:
        return source_named(text) == text
    except RequestRefused:
        return False


class HandshakeRate:
    """How often a source may begin a handshake at one service: so many at once, and then as they are made up for.

    :param frequency: how many in how many seconds.
    :param clock: seconds that never go back.
    """

    def __init__(self, frequency: Frequency, clock: Callable[[], float] = time.monotonic) -> None:
        self._each = frequency.seconds / frequency.times
        self._at_once = frequency.seconds
        self._clock = clock
        self._due: dict[str, float] = {}
        """When each source has nothing on its account any more; those who were heard of the last come last."""

    def __len__(self) -> int:
        return len(self._due)

    def admits(self, peer: str) -> bool:
        """Whether somebody may begin a handshake now, which then counts.

        :param peer: numeric ``host:port``.
        """
        now, source = self._clock(), source_of(peer)
        due = max(now, self._due.pop(source, now))
        admitted = due + self._each - now <= self._at_once * (1 + 1e-9)  # sums of fractions are not exact
        self._due[source] = due + self._each if admitted else due
        self._forget(now)
        return admitted

    def _forget(self, now: float) -> None:
        """Forgets one or two who have waited long enough, or the one who was heard of the longest ago."""
        for source in self._first(2):
            if self._due[source] <= now or len(self._due) > MAX_SOURCES:
                del self._due[source]

    def _first(self, count: int) -> Iterable[str]:
        return [source for _, source in zip(range(count), self._due, strict=False)]
