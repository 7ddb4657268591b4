"""Attempts at hole punches in words, the same in the console and in the commands."""

from __future__ import annotations

from typing import Final

from tunnelconsole.control.attempts import AttemptRow, CandidateRow, MomentRow, NatRow

METHODS: Final = {
    "relay": "through the rendezvous",
    "host": "at an address of its own",
    "mapped": "at the address where it is seen",
    "predicted": "at the port that its NAT was to take next",
    "many ports": "at one of many ports of its NAT",
    "accepted": "it came through to us",
    "given": "at the address that was given",
}
"""How the other side was reached."""

OUTCOMES: Final = {
    "waiting": "waits for the other side",
    "observing": "asks where it is seen from",
    "racing": "races for a direct connection",
    "direct": "direct",
    "relay": "stays on the relay",
    "failed": "failed",
    "left": "broken off",
}
"""What each state means."""

MAPPINGS: Final = {
    "none": "no NAT",
    "independent": "one port",
    "sequential": "next port",
    "random": "random port",
    "unknown": "unknown",
}
"""What a NAT does with ports, in two words."""

FATES: Final = {
    "untried": "not dialled",
    "trying": "no answer yet",
    "refused": "refused",
    "silent": "no answer",
    "unreachable": "unreachable from here",
    "wrong peer": "somebody else is there",
    "ourselves": "it is ourselves",
    "connected": "connected, not proved yet",
    "won": "won",
    "lost": "connected too, not needed",
    "rejected": "never dialled",
}
"""What became of a candidate."""

MOMENTS: Final = {
    "observing": "asks the rendezvous where it is seen from",
    "offered": "tells the other side its addresses",
    "racing": "both are ready, the race begins",
    "trying": "dials {}",
    "refused": "{} refuses",
    "silent": "nothing came back from {}",
    "unreachable": "{} cannot be reached from here",
    "wrong peer": "somebody else is at {}",
    "ourselves": "{} is ourselves",
    "accepted": "{} has dialled us",
    "connected": "{} is connected",
    "verified": "{} has proved to be the other side",
    "won": "{} is chosen",
    "lost": "{} is not needed",
    "secured": "TLS with {}",
    "direct": "the link goes directly",
    "relay": "the link stays on the relay",
    "failed": "no way was found",
    "left": "broken off",
}
"""What happened, around the address that it was about."""

MOVING: Final = frozenset({"sequential", "random"})
"""Mappings whose next port the other side can guess at best."""


def outcome(row: AttemptRow) -> str:
    """What an attempt has come to."""
    words = OUTCOMES.get(row.state, row.state)
    return f"{words}, {METHODS.get(row.method, row.method)}" if row.state == "direct" and row.method else words


def why(row: AttemptRow) -> str:
    """Why it came to that; empty when there is nothing to say."""
    return row.error or row.reason


def nat(row: NatRow) -> str:
    """What a side is behind, in full."""
    return row.words or "not known"


def behind(row: NatRow, *, theirs: bool) -> str:
    """What a side is behind, and where it is seen; of the other side that is its own word."""
    seen = "says that it is seen at" if theirs else "seen at"
    return f"{nat(row)}, {seen} {row.address}" if row.address else nat(row)


def became(row: CandidateRow) -> str:
    """What became of an address; one of ours is only told to the other side."""
    if row.side == "ours":
        return "told to the other side"
    words = FATES.get(row.fate, row.fate)
    return f"{words}: {row.reason}" if row.reason else words


def happened(row: MomentRow) -> str:
    """A moment, as a sentence."""
    return MOMENTS.get(row.what, row.what).replace("{}", row.candidate or "it")


def advice(row: AttemptRow) -> str:
    """What whoever runs either end can do, so that it goes directly; empty where it does, or nobody knows yet."""
    if row.state not in ("relay", "failed") or row.error:
        return ""
    ours, theirs = row.ours, row.theirs
    if not theirs.words:
        return "see at the other end whether it runs, and reaches the rendezvous and both its observe ports"
    if ours.mapping in MOVING and theirs.mapping in MOVING:
        return (
            "have IPv6 at both ends, or at one end a NAT that keeps one port for all destinations (called cone, static "
            "port or endpoint-independent mapping)"
        )
    if "unknown" in (ours.mapping, theirs.mapping):
        where = "here" if ours.mapping == "unknown" else "at the other end"
        return f"let TCP out to the observe ports of the rendezvous {where}, and give it an alternate address"
    if ours.address and ours.address.rpartition(":")[0] == theirs.address.rpartition(":")[0]:
        return (
            "let the two networks behind that NAT reach each other, or have it lead back inside (hairpin, NAT loopback)"
        )
    return "let TCP out to every port at both ends: a firewall may drop what it does not know"
