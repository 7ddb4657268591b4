"""Tokens in words, the same in the console and in the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunnelconsole.control import figures
from tunnelconsole.control.tokens import TokenRow

LISTS = ("kinds", "hosts", "ports", "chids", "rooms", "destinations", "clients")
"""The rights that are lists, in the order in which they are told."""

SCOPE = (*LISTS, "one_time")
"""The rights whose change ends the sessions of a token; see :data:`tunnelconsole.engine.tokens.register.SCOPE`."""

NEVER = "never"

WRONG_RIGHTS = "a token cannot have these rights: "
"""Stands before the right, a colon, and what is wrong with it."""

WRONG_EXPIRY = "a token cannot expire then: "
WRONG_OVERLAP = "the old secret cannot stay good so long: "
"""Stand before what is wrong."""

STATES = {
    "exhausted": "its bytes of today are used up; it is good again after midnight in UTC",
    "expired": "its time is over",
    "disabled": "somebody made it good for nothing, until it is enabled again",
    "used": "it was for one session, and has been used",
    "active": "it is good",
}
"""What each state of a token means, the worst first."""

ANY = {
    "kinds": "every system",
    "hosts": "any hostname",
    "ports": "any port",
    "chids": "any chid",
    "rooms": "any room",
    "destinations": "anywhere",
    "clients": "anywhere",
    "rate": "no limit",
    "sessions": "no limit",
    "channels": "no limit",
    "requests": "no limit",
    "bytes_per_day": "no limit",
    "one_time": "no: as often as one likes",
}
"""What a token may where a right says nothing, for every right, in the order in which they are told."""


def expiry_words(expires: float | None, now: float) -> str:
    """When something stops being good: ``never``, ``in 3d04h``, ``12s ago``."""
    if expires is None:
        return NEVER
    left = expires - now
    return f"in {figures.duration(left)}" if left > 0 else f"{figures.duration(-left)} ago"


def last_use_words(row: TokenRow, now: float) -> str:
    """When somebody last came in with it: ``never``, ``now``, ``3d04h ago``."""
    if row.sessions:
        return "now"
    return NEVER if row.last_used is None else f"{figures.duration(now - row.last_used)} ago"


def old_secret_words(row: TokenRow, now: float) -> str:
    """For how long a secret from before a rotation stays good: ``23h59m more``; ``-`` where there is none."""
    ends = [secret.expires for secret in row.secrets if secret.expires is not None and secret.expires > now]
    return f"{figures.duration(max(ends) - now)} more" if ends else "-"


def today_words(row: TokenRow) -> str:
    """What it has moved today, and of how much: ``1.2 MiB``, ``1.2 MiB of 10 GiB``."""
    used, most = figures.size(row.bytes_today), row.rights.get("bytes_per_day")
    return f"{used} of {figures.size(most)}" if most else used


def right_words(key: str, value: Any) -> str:
    """One right in words: ``relay, tunnel``, ``1.0 MB/s``, ``no limit``.

    :param key: one of :data:`ANY`.
    :param value: as in :class:`~tunnelconsole.control.tokens.TokenRow`; None where it says nothing.
    """
    if not value:
        return ANY[key]
    if key in LISTS:
        return _list(key, value)
    if key == "rate":
        return f"{figures.rate(value)}, all its channels together"
    if key == "requests":
        return f"{value:g} a second"
    if key == "bytes_per_day":
        return f"{figures.size(value)}, both ways together"
    return "yes: for one session only" if key == "one_time" else f"{figures.count(value)} at once"


def _list(key: str, given: Sequence[Any]) -> str:
    return ", ".join(port_words(ports) for ports in given) if key == "ports" else ", ".join(map(str, given))


def port_words(ports: str) -> str:
    """A range of ports as people write it: ``7001-7010``, and ``9000`` where it is one alone."""
    first, _, last = ports.partition("-")
    return first if first == last else ports


def share_of_today(row: TokenRow) -> float | None:
    """What part of its bytes of today a token has moved, from 0 to 1; None where it may move as many as it likes."""
    most = row.rights.get("bytes_per_day")
    return min(1.0, row.bytes_today / most) if most else None


def rights_words(rights: dict[str, Any]) -> str:
    """What a token may do: ``relay; ports 7001-7010; 1.0 MB/s; 5 sessions``, or ``everything``."""
    parts = []
    for key in LISTS:
        if given := rights.get(key):
            text = _list(key, given)
            parts.append(text if key in ("kinds", "hosts") else f"{_NOUNS.get(key, key)} {text}")
    if rate := rights.get("rate"):
        parts.append(figures.rate(rate))
    parts += [
        figures.counted(rights[key], key.removesuffix("s")) for key in ("sessions", "channels") if rights.get(key)
    ]
    if requests := rights.get("requests"):
        parts.append(f"{requests:g} requests/s")
    if most := rights.get("bytes_per_day"):
        parts.append(f"{figures.size(most)} a day")
    if rights.get("one_time"):
        parts.append("once")
    return "; ".join(parts) or "everything"


_NOUNS = {"destinations": "to", "clients": "from"}
