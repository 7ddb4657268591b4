"""Tokens in words, the same in the console and in the commands."""

from __future__ import annotations

from typing import Any

from tunnelconsole.control import figures
from tunnelconsole.control.tokens import TokenRow

LISTS = ("kinds", "hosts", "ports", "chids", "rooms", "destinations", "clients")
"""The rights that are lists, in the order in which they are told."""

NEVER = "never"


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


def today_words(row: TokenRow) -> str:
    """What it has moved today, and of how much: ``1.2 MiB``, ``1.2 MiB of 10 GiB``."""
    used, most = figures.size(row.bytes_today), row.rights.get("bytes_per_day")
    return f"{used} of {figures.size(most)}" if most else used


def rights_words(rights: dict[str, Any]) -> str:
    """What a token may do: ``relay; ports 7001-7010; 1.0 MB/s; 5 sessions``, or ``everything``."""
    parts = []
    for key in LISTS:
        if given := rights.get(key):
            text = ", ".join(map(str, given))
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
