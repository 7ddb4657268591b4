"""Bans, as they travel over the control socket; see :mod:`tunnelconsole.control.messages`."""

from __future__ import annotations

import msgspec


class BanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One address that is turned away."""

    address: str
    """An IPv4 address, or an IPv6 network of 64 bits."""
    service: str
    """At which it failed the last time; empty where an operator banned it."""
    reason: str
    """What failed then; ``by hand`` where an operator banned it."""
    failures: int
    """0 where an operator banned it."""
    turned_away: int
    """Connections that were closed since."""
    since: float
    """Unix seconds, as ``until`` is."""
    until: float


class Bans(msgspec.Struct, frozen=True, tag="bans"):
    """Who is banned, the newest ban first."""

    rows: list[BanRow]


class GetBans(msgspec.Struct, frozen=True, tag="get-bans"):
    """Answered with :class:`Bans`."""


class BanAddress(msgspec.Struct, frozen=True, tag="ban-address"):
    """Bans an address at every service, for so many seconds; one that is banned already is so anew."""

    address: str
    seconds: float


class LiftBan(msgspec.Struct, frozen=True, tag="lift-ban"):
    """Lets a banned address connect again."""

    address: str
