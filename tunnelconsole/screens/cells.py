"""How facts are written on every screen: the word first, a sign and a colour beside it."""

from __future__ import annotations

from tunnelconsole.control import figures
from tunnelconsole.control.messages import ServiceRow
from tunnelconsole.screens.spans import Line, Span

STATES = {
    "failed": ("✖", "error"),
    "backoff": ("▲", "warning"),
    "connecting": ("◌", "busy"),
    "starting": ("◌", "busy"),
    "draining": ("◍", "busy"),
    "stopped": ("○", "off"),
    "connected": ("●", "ok"),
    "listening": ("●", "ok"),
}
"""Sign and role of each state of a service, the worst first."""

LEVELS = {"error": ("✖", "error"), "warning": ("▲", "warning"), "info": ("·", "dim"), "debug": ("·", "faint")}
"""Sign and role of each level of an event, the worst first."""

EXPOSED = "◆ exposed"
"""Stands beside an address that can be reached from other machines."""

NOTHING = Span("·", "faint")
"""A figure of zero: it is there, but nothing to look at."""


def state(row: ServiceRow, now: float) -> Span:
    """A service's state, with the seconds to the next try while it is in backoff, or to the end of a drain."""
    sign, role = STATES.get(row.state, ("?", "dim"))
    left = until_retry(row, now)
    return Span(f"{sign} {row.state} {left}".rstrip(), role)


def until_retry(row: ServiceRow, now: float) -> str:
    """How long until a service in backoff is tried again, or one that drains is stopped; empty where neither is."""
    if row.state == "draining" and row.drain_ends is not None:
        return figures.duration(max(0.0, row.drain_ends - now))
    if row.state != "backoff" or row.retry_at is None:
        return ""
    return figures.duration(max(0.0, row.retry_at - now))


def badness(row: ServiceRow) -> int:
    """Orders services by state, the worst first."""
    return list(STATES).index(row.state) if row.state in STATES else len(STATES)


def level(name: str) -> Span:
    """An event's level."""
    sign, role = LEVELS.get(name, ("?", "dim"))
    return Span(f"{sign} {name}", role)


def address(row: ServiceRow) -> Span:
    """Where a service can be reached, and whether others can."""
    if not row.address:
        return Span("–", "faint")
    return Span(f"{row.address} {EXPOSED}", "notice") if row.exposed else Span(row.address)


def rate(value: float, role: str) -> Span:
    """A rate that is going on now."""
    return Span(figures.rate(value), role) if value >= 0.5 else NOTHING


def size(value: int) -> Span:
    """Bytes so far."""
    return Span(figures.size(value), "dim") if value else NOTHING


def number(value: int) -> Span:
    """How many there are."""
    return Span(figures.count(value)) if value else NOTHING


def age(since: float, now: float) -> Span:
    """How long it has been so."""
    return Span(figures.duration(now - since), "dim")


def both_ways(inward: str, outward: str) -> Line:
    """A figure for each way."""
    return (Span("in ", "dim"), Span(inward, "in"), Span("  out ", "dim"), Span(outward, "out"))


def flow(rate_in: float, rate_out: float) -> Line:
    """Both rates, for a sentence."""
    return both_ways(figures.rate(rate_in), figures.rate(rate_out))
