"""Attempts at hole punches, as the control socket tells of them: any fact changed by name."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from tunnelconsole.control.attempts import AttemptRow, CandidateRow, MomentRow, NatRow

STARTED = 1_750_000_000.0
"""2025-06-15 15:06:40 UTC."""

UNKNOWN = NatRow(mapping="unknown", filtering="unknown", words="", address="")

CONE = NatRow(
    mapping="independent", filtering="port", words="NAT with one port for all; drops strangers",
    address="198.51.100.2:40000",
)  # fmt: skip

RANDOM = NatRow(
    mapping="random", filtering="port", words="NAT with a random port for each destination; drops strangers",
    address="203.0.113.7:51811",
)  # fmt: skip


def candidate(address: str, kind: str, fate: str = "untried", **facts: Any) -> CandidateRow:
    """An address of the other side's."""
    usual: dict[str, Any] = {"side": "theirs", "reason": "", "tries": 1, "ms": None}
    return CandidateRow(address=address, kind=kind, fate=fate, **(usual | facts))


def moments(*told: tuple[float, str] | tuple[float, str, str]) -> list[MomentRow]:
    """A timeline: each moment its milliseconds, what it was, and the address."""
    return [MomentRow(ms=moment[0], what=moment[1], candidate=moment[2] if len(moment) == 3 else "") for moment in told]


def attempt(key: str = "p1", **facts: Any) -> AttemptRow:
    """One that waits for the other side."""
    usual: dict[str, Any] = {
        "service": "to-desk", "room": "desk", "peer": "", "state": "waiting", "method": "", "reason": "", "error": "",
        "started": STARTED, "waited": 0.0, "seconds": None, "syns": 0, "ours": UNKNOWN, "theirs": UNKNOWN,
        "candidates": [], "timeline": [], "more_candidates": 0, "more_moments": 0,
    }  # fmt: skip
    return AttemptRow(id=key, **(usual | facts))


def direct(key: str = "p1", **facts: Any) -> AttemptRow:
    """One that reached the other side at its mapped address, after its own network refused."""
    host, mapped, foreign = "192.168.1.20:40777", "203.0.113.7:40777", "10.8.0.3:40777"
    usual: dict[str, Any] = {
        "state": "direct", "method": "mapped", "peer": mapped, "seconds": 0.4123, "waited": 75.0, "syns": 6,
        "ours": CONE, "theirs": replace(CONE, address=mapped),
        "candidates": [
            candidate("192.168.1.5:40000", "host", side="ours", tries=0),
            candidate("198.51.100.2:40000", "mapped", side="ours", tries=0),
            candidate(host, "host", "refused", tries=4, ms=171.0),
            candidate(foreign, "host", "rejected", tries=0, ms=120.0,
                      reason="it is in a private network that is not ours"),
            candidate(mapped, "mapped", "won", tries=1, ms=342.0),
        ],
        "timeline": moments(
            (0.0, "observing"), (81.2, "offered"), (120.0, "plans to dial its addresses"), (161.0, "racing"),
            (162.0, "trying", host), (162.4, "trying", mapped), (171.0, "refused", host), (301.0, "connected", mapped),
            (341.0, "verified", mapped), (342.0, "won", mapped), (411.0, "secured", mapped), (412.3, "direct"),
        ),
    }  # fmt: skip
    return attempt(key, **(usual | facts))


def relayed(key: str = "p2", **facts: Any) -> AttemptRow:
    """One between two NATs that cannot be punched."""
    usual: dict[str, Any] = {
        "state": "relay", "method": "relay", "reason": "both NATs pick random ports", "seconds": 1.31,
        "ours": RANDOM, "theirs": RANDOM,
        "candidates": [candidate("203.0.113.7:51811", "mapped", tries=0)],
        "timeline": moments((0.0, "observing"), (1290.0, "offered"), (1310.0, "relay")),
    }  # fmt: skip
    return attempt(key, **(usual | facts))


def brief(row: AttemptRow) -> AttemptRow:
    """As updates have it."""
    return replace(row, candidates=[], timeline=[], more_candidates=len(row.candidates), more_moments=len(row.timeline))
