"""What two ends of ours have in common where one brings visitors to the other: keepalives, and data connections."""

from __future__ import annotations

from typing import Final

from tunnelconsole.engine.rules import Problem, Rule, above_zero

KEEPALIVE: Final = 10.0
"""Seconds between two questions whether the other end lives; unanswered, it is gone twice that long after it died. The
originals wait 30 s, which is long to hold a public place that leads nowhere."""

SPARE_CONNECTIONS: Final = 4
"""Data connections kept ready, so that a visitor need not wait for one: a browser's first burst is four to six."""

MAX_DATA_CONNECTIONS: Final = 256
"""Data connections dialled and waiting at once, whatever the server asks for."""


def _few_spare_connections(count: int) -> list[Problem]:
    if 0 <= count <= MAX_DATA_CONNECTIONS:
        return []
    return [("spare_connections", f"must be between 0 and {MAX_DATA_CONNECTIONS}")]


KEEPALIVE_RULE: Final = above_zero("keepalive", "the other end would be asked without a pause")
SPARE_RULE: Final = Rule(("spare_connections",), _few_spare_connections)
