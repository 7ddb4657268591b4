"""What the commands print of attempts at hole punches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from tunnelconsole.cli.tables import Column, print_json, print_rows
from tunnelconsole.control.attempts import AttemptRow, CandidateRow, MomentRow
from tunnelconsole.control.figures import brief, count, counted, date_and_time, duration
from tunnelconsole.control.punch_words import MAPPINGS, advice, became, behind, happened, outcome, why
from tunnelconsole.screens.spans import clean

ATTEMPTS: tuple[Column[AttemptRow], ...] = (
    Column("ID", lambda row, now: row.id),
    Column("TIME", lambda row, now: date_and_time(row.started)),
    Column("SERVICE", lambda row, now: row.service),
    Column("ROOM", lambda row, now: row.room or "-"),
    Column("STATE", lambda row, now: row.state, alarming=True),
    Column("METHOD", lambda row, now: row.method or "-"),
    Column("PEER", lambda row, now: row.peer or "-"),
    Column("TOOK", lambda row, now: "under way" if row.seconds is None else brief(row.seconds), right=True),
    Column("SYNS", lambda row, now: count(row.syns), right=True),
    Column("HERE", lambda row, now: MAPPINGS.get(row.ours.mapping, row.ours.mapping)),
    Column("THERE", lambda row, now: MAPPINGS.get(row.theirs.mapping, row.theirs.mapping)),
    Column("WHY", lambda row, now: why(row), shown=lambda rows: any(map(why, rows))),
)

CANDIDATES: tuple[Column[CandidateRow], ...] = (
    Column("ADDRESS", lambda tried, now: tried.address),
    Column("KIND", lambda tried, now: tried.kind),
    Column("SIDE", lambda tried, now: tried.side),
    Column("TRIES", lambda tried, now: count(tried.tries), right=True),
    Column("AT", lambda tried, now: "-" if tried.ms is None else brief(tried.ms / 1000), right=True),
    Column("BECAME", lambda tried, now: became(tried)),
)

MOMENTS: tuple[Column[MomentRow], ...] = (
    Column("AT", lambda moment, now: brief(moment.ms / 1000), right=True),
    Column("WHAT", lambda moment, now: happened(moment)),
)


def print_attempts(rows: Sequence[AttemptRow], *, empty: str, as_json: bool) -> None:
    """Prints attempts as a table, or as one JSON document.

    :param empty: what is said where there are none.
    """
    print_rows(ATTEMPTS, rows, empty=empty, as_json=as_json)


def print_attempt(row: AttemptRow, *, as_json: bool) -> None:
    """Prints all that is known of one."""
    if as_json:
        print_json(row)
        return
    alone = f", after {duration(row.waited)} alone" if row.waited >= 1 else ""
    facts = {
        "attempt": f"{row.id} of {row.service}",
        "room": row.room,
        "outcome": outcome(row),
        "reached": row.peer,
        "why": why(row),
        "to do": advice(row),
        "here": behind(row.ours, theirs=False),
        "there": behind(row.theirs, theirs=True),
        "began": date_and_time(row.started) + alone,
        "took": "under way" if row.seconds is None else brief(row.seconds),
        "syns": count(row.syns),
    }
    click.echo("\n".join(f"{name:<9}{clean(value)}" for name, value in facts.items() if value) + "\n")
    theirs_first = sorted(row.candidates, key=lambda tried: tried.side != "theirs")
    print_rows(CANDIDATES, theirs_first, empty="no addresses yet", as_json=False)
    click.echo()
    print_rows(MOMENTS, row.timeline, empty="nothing has happened yet", as_json=False)


def told(row: AttemptRow) -> Iterator[str]:
    """All that is known of one in sentences, for where there is no room for tables."""
    took = f", {'under way' if row.seconds is None else brief(row.seconds)}, {counted(row.syns, 'SYN')}"
    yield f"attempt {row.id}: {outcome(row)}{took}"
    facts = {
        "reached": row.peer,
        "why": why(row),
        "to do": advice(row),
        "here": behind(row.ours, theirs=False) if row.ours.words else "",
        "there": behind(row.theirs, theirs=True) if row.theirs.words else "",
    }
    yield from (f"{name}: {value}" for name, value in facts.items() if value)
    for tried in row.candidates:
        if tried.side == "theirs":
            yield f"{tried.address} ({tried.kind}): {became(tried)}"
    yield from (f"after {brief(moment.ms / 1000)}: {happened(moment)}" for moment in row.timeline)
