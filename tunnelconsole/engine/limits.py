"""The limits of one service, and the counting that keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import msgspec

from tunnelconsole.engine.access import source_of
from tunnelconsole.engine.identities import Holder
from tunnelconsole.engine.rules import Rule, above_zero
from tunnelconsole.engine.settings import NetworkPattern
from tunnelconsole.engine.shares import Shares
from tunnelconsole.engine.transport.pacing import Pace, together
from tunnelconsole.engine.units import Duration, Frequency, Rate

MAX_HANDSHAKES = 1024
"""Connections of one service that may be inside their handshake at once, unless its limits say otherwise. A slow or
silent crowd fills these places and no others; beyond them newcomers are turned away until one is free, or its holder
must make room for them."""

HANDSHAKE_GRACE = 3.0
"""Seconds that a newcomer keeps its place whatever comes behind it from the same source: a handshake round half the
world takes less than one. Those who take longer may be a silent crowd, which would keep its own neighbours out."""


BAN_AFTER = 10
"""Failures that are no mistake any more: several people behind one address may each have mistyped."""

BAN_WITHIN = 600.0
"""Seconds for which a failure is remembered against an address, as fail2ban has it by default."""

BAN_TIME = 600.0
"""Seconds that a first ban lasts, as fail2ban has it by default: ten guesses in twenty minutes find no secret."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[service.NAME.limits]``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        above_zero("handshake_timeout", "nobody finishes a handshake in no time"),
        above_zero("ban_after", 'who never failed would be banned; ban_time = "0s" bans nobody'),
        above_zero("ban_within", 'no failure would count; ban_time = "0s" bans nobody'),
    )

    sessions: int = 0
    """Sessions at once; 0 for as many as come."""
    channels: int = 0
    """Channels at once, over all sessions; 0 for as many as come."""
    rate: Rate | None = None
    """Bytes per second of the whole service, both ways together; None for no limit."""
    sessions_per_address: int = 0
    """Sessions at once of one address, or of one IPv6 network of 64 bits; 0 for as many as come."""
    channels_per_address: int = 0
    """Channels at once of one address, or of one IPv6 network of 64 bits; 0 for as many as come."""
    rate_per_address: Rate | None = None
    """Bytes per second of one address, or of one IPv6 network of 64 bits, both ways together; None for no limit."""
    sessions_per_identity: int = 0
    """Sessions at once of one identity that is not ``anonymous``; 0 for as many as come."""
    channels_per_identity: int = 0
    """Channels at once of one identity that is not ``anonymous``; 0 for as many as come."""
    rate_per_identity: Rate | None = None
    """Bytes per second of one identity that is not ``anonymous``, both ways together; None for no limit."""
    handshakes: int = 0
    """Connections that may be inside their handshake at once; 0 for :data:`MAX_HANDSHAKES`."""
    handshake_timeout: Duration = Duration(10)
    """Seconds a newcomer has until its handshake is done: the original jump host's."""
    idle_timeout: Duration = Duration(0)
    """Seconds a channel may move nothing before it is cut; 0 for ever."""
    handshakes_per_address: Frequency | None = None
    """How often one address, or one IPv6 network of 64 bits, may begin a handshake; None for as often as it likes."""
    ban_after: int = BAN_AFTER
    """Wrong guesses of a secret, token or key within ``ban_within``, at any service, after which an address is banned
    that makes the last of them here."""
    ban_within: Duration = Duration(BAN_WITHIN)
    """Seconds for which failures count."""
    ban_time: Duration = Duration(BAN_TIME)
    """Seconds that a first ban lasts; 0 neither counts failures here nor turns anybody away who is banned elsewhere."""
    bans_exempt: tuple[NetworkPattern, ...] = (NetworkPattern("127.0.0.0/8"), NetworkPattern("::1/128"))
    """Networks that are not banned: those who come through a proxy or an SSH server on this machine come from it."""


class Place:
    """A newcomer's place among those inside their handshake.

    :param source: the party that holds it, see :func:`~tunnelconsole.engine.access.source_of`.
    """

    __slots__ = ("_gate", "lost", "since", "source")

    def __init__(self, gate: Gate, source: str, since: float) -> None:
        self._gate = gate
        self.source = source
        self.since = since
        self.lost: Callable[[str], None] = _ignore
        """Told the reason when another is given the place; turns the newcomer away. Set by whoever holds it."""

    def leave(self) -> None:
        """Gives the place back; safe to call twice."""
        self._gate.take_back(self)
        self.lost = _ignore  # so that holder and place do not keep each other


def _party_of(peer: str) -> str:
    """Whose share somebody has: that of its source, or its own where it has a name alone, as a client's server does."""
    try:
        return source_of(peer) or peer
    except ValueError:
        return peer


def _ignore(reason: str) -> None:
    """For a place whose holder has not come yet."""


class Gate:
    """Counts one service's handshakes, sessions and channels against its limits.

    :param counts: returns the service's sessions and channels at this moment.
    :param clock: returns seconds that never go back.
    """

    def __init__(
        self,
        settings: LimitSettings,
        counts: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.settings = settings
        self.pace = Pace(settings.rate) if settings.rate else None
        self._counts = counts
        self.addresses = Shares(
            "address", settings.sessions_per_address, settings.channels_per_address, settings.rate_per_address
        )
        self.identities = Shares(
            "identity", settings.sessions_per_identity, settings.channels_per_identity, settings.rate_per_identity
        )
        self._handshakes = 0
        self._places: dict[str, dict[Place, None]] = {}
        """Those taken, by source, and of each the oldest first."""

    @property
    def handshakes(self) -> int:
        """Connections that are inside their handshake now."""
        return self._handshakes

    def enter_handshake(self, peer: str) -> Place | None:
        """A place for a newcomer from ``peer``; None when there is none.

        When all are taken, the source that has the most loses its oldest to one that has fewer: so nobody can keep
        others out, and yet anybody may use what nobody else needs. A source may also take the place of its own oldest,
        once that has had it for :data:`HANDSHAKE_GRACE`.
        """
        source, now = source_of(peer), self._clock()
        if self._handshakes >= (self.settings.handshakes or MAX_HANDSHAKES) and not self._make_room(source, now):
            return None
        place = Place(self, source, now)
        self._places.setdefault(source, {})[place] = None
        self._handshakes += 1
        return place

    def _make_room(self, source: str, now: float) -> bool:
        most, own = max(self._places.values(), key=len), self._places.get(source, {})
        if len(most) > len(own) + 1:
            oldest = next(iter(most))
        elif own and now - next(iter(own)).since >= HANDSHAKE_GRACE:
            oldest = next(iter(own))
        else:
            return False
        lost = oldest.lost
        oldest.leave()
        lost("its place is given to others: its address has the most connections inside their handshake")
        return True

    def take_back(self, place: Place) -> None:
        """See :meth:`Place.leave`."""
        places = self._places.get(place.source, {})
        if place in places:
            del places[place]
            self._handshakes -= 1
            if not places:
                del self._places[place.source]

    def refuses_to(self, peer: str, identity: Holder | str, *, new_session: bool, new_channel: bool) -> str:
        """Why there can be no further session or channel for somebody now; "" when there can.

        :param peer: numeric ``host:port``.
        :param identity: whose it is, as :func:`~tunnelconsole.engine.identities.holder_of` says; empty for nobody.
        """
        full = self.refuses(new_session=new_session, new_channel=new_channel)
        if not full and self.addresses.limited:
            full = self.addresses.refuses(_party_of(peer), new_session=new_session, new_channel=new_channel)
        if not full and identity and self.identities.limited:
            full = self.identities.refuses(identity, new_session=new_session, new_channel=new_channel)
        return full

    def pace_for(self, peer: str, identity: Holder | str) -> Pace | None:
        """What a flow of somebody has to keep to; None for no limit. The parameters are those of :meth:`refuses_to`."""
        return together(
            (
                self.pace,
                self.addresses.pace(_party_of(peer)) if self.addresses.limited else None,
                self.identities.pace(identity) if identity and self.identities.limited else None,
            )
        )

    @property
    def rate(self) -> float | None:
        """Bytes per second of the whole service that are in force; None for no limit."""
        return None if self.pace is None else self.pace.rate

    def set_rate(self, rate: float | None) -> None:
        """Has flows to come keep to another rate of the whole service, in bytes per second; None for no limit.

        Those there are have to be told: see :meth:`~tunnelconsole.engine.services.service.Service.repace`.
        """
        if rate is None:
            self.pace = None
        elif self.pace is None:
            self.pace = Pace(rate)
        else:
            self.pace.set_rate(rate)

    def count_session(self, peer: str, identity: Holder | str, more: int) -> None:
        """Somebody has one session more (1) or less (-1)."""
        if self.addresses.limited:
            self.addresses.count_sessions(_party_of(peer), more)
        if identity and self.identities.limited:
            self.identities.count_sessions(identity, more)

    def count_channel(self, peer: str, identity: Holder | str, more: int) -> None:
        """Somebody has one channel more (1) or less (-1)."""
        if self.addresses.limited:
            self.addresses.count_channels(_party_of(peer), more)
        if identity and self.identities.limited:
            self.identities.count_channels(identity, more)

    def refuses(self, *, new_session: bool, new_channel: bool) -> str:
        """Why there can be no further session or channel for anybody now; "" when there can."""
        settings = self.settings
        if not settings.sessions and not settings.channels:
            return ""
        sessions, channels = self._counts()
        if new_session and settings.sessions and sessions >= settings.sessions:
            return f"the limit of {settings.sessions} sessions is reached"
        if new_channel and settings.channels and channels >= settings.channels:
            return f"the limit of {settings.channels} channels is reached"
        return ""
