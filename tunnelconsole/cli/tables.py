"""What the commands print: rows as aligned tables for people, or as they are for programs."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
import msgspec
from rich.cells import cell_len

from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.figures import count, counted, date_and_time, duration, percent, rate, size
from tunnelconsole.control.messages import (
    LEVELS,
    MIN_INTERVAL,
    ChannelRow,
    ChidRow,
    Done,
    EventRow,
    Events,
    GetEvents,
    ServiceRow,
    SessionRow,
    Status,
    Watch,
)
from tunnelconsole.screens.limiting import in_words
from tunnelconsole.screens.spans import clean

Row = TypeVar("Row")

GAP = "  "
"""What stands between two columns."""

_ERROR: dict[str, Any] = {"fg": "red", "bold": True}
_WARNING: dict[str, Any] = {"fg": "yellow"}

ALARMS = {"failed": _ERROR, "error": _ERROR, "backoff": _WARNING, "warning": _WARNING}
"""States and levels that are painted, and how; the word itself is always there too."""


MAX_RECEIVERS_SHOWN = 5
"""Receivers of a client that a table names; with ``--json`` there are all."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    :param title: its heading.
    :param cell: what it shows of a row at a moment (Unix time).
    :param right: figures stand at the right.
    :param alarming: words of :data:`ALARMS` are painted.
    :param shown: False leaves the column out of a table of these rows.
    """

    title: str
    cell: Callable[[Row, float], str]
    right: bool = False
    alarming: bool = False
    shown: Callable[[Sequence[Row]], bool] = bool


SERVICES: tuple[Column[ServiceRow], ...] = (
    Column("NAME", lambda row, now: row.name),
    Column("KIND", lambda row, now: row.kind),
    Column("STATE", lambda row, now: row.state, alarming=True),
    Column("ADDRESS", lambda row, now: row.address or "-"),
    Column(
        "HTTP",
        lambda row, now: row.notes.get("http", "-"),
        shown=lambda rows: any("http" in row.notes for row in rows),
    ),
    Column("TARGET", lambda row, now: row.target or "-"),
    Column(
        "PATH",
        lambda row, now: row.notes.get("path", "-"),
        shown=lambda rows: any("path" in row.notes for row in rows),
    ),
    Column("SESSIONS", lambda row, now: count(row.sessions), right=True),
    Column("CHANNELS", lambda row, now: count(row.channels), right=True),
    Column("IN", lambda row, now: size(row.bytes_in), right=True),
    Column("OUT", lambda row, now: size(row.bytes_out), right=True),
    Column("RATE IN", lambda row, now: rate(row.rate_in), right=True),
    Column("RATE OUT", lambda row, now: rate(row.rate_out), right=True),
    Column("EXPOSED", lambda row, now: "yes" if row.exposed else "-", shown=lambda rows: any(r.exposed for r in rows)),
    Column("AT MOST", lambda row, now: in_words(row.limits) or "-", shown=lambda rows: any(r.limits for r in rows)),
    Column("ERROR", lambda row, now: row.error or "", shown=lambda rows: any(r.error for r in rows)),
)

SESSIONS: tuple[Column[SessionRow], ...] = (
    Column("ID", lambda row, now: row.id),
    Column("SERVICE", lambda row, now: row.service),
    Column("KIND", lambda row, now: row.kind),
    Column("PEER", lambda row, now: row.peer),
    Column("IDENTITY", lambda row, now: row.identity),
    Column("AGE", lambda row, now: duration(now - row.since), right=True),
    Column("CHANNELS", lambda row, now: count(row.channels), right=True),
    Column("IN", lambda row, now: size(row.bytes_in), right=True),
    Column("OUT", lambda row, now: size(row.bytes_out), right=True),
    Column("RATE IN", lambda row, now: rate(row.rate_in), right=True),
    Column("RATE OUT", lambda row, now: rate(row.rate_out), right=True),
    Column("ADDRESS", lambda row, now: row.address or "-", shown=lambda rows: any(r.address for r in rows)),
    Column("AT MOST", lambda row, now: in_words(row.limits) or "-", shown=lambda rows: any(r.limits for r in rows)),
    Column("NOTE", lambda row, now: row.note or "-", shown=lambda rows: any(r.note for r in rows)),
)

CHANNELS: tuple[Column[ChannelRow], ...] = (
    Column("ID", lambda row, now: row.id),
    Column("SESSION", lambda row, now: row.session),
    Column("IDENTITY", lambda row, now: row.identity),
    Column("SERVICE", lambda row, now: row.service),
    Column("PEER", lambda row, now: row.peer),
    Column("LABEL", lambda row, now: row.label),
    Column("PATH", lambda row, now: row.path),
    Column("AGE", lambda row, now: duration(now - row.since), right=True),
    Column("IN", lambda row, now: size(row.bytes_in), right=True),
    Column("OUT", lambda row, now: size(row.bytes_out), right=True),
    Column("RATE IN", lambda row, now: rate(row.rate_in), right=True),
    Column("RATE OUT", lambda row, now: rate(row.rate_out), right=True),
)

CHIDS: tuple[Column[ChidRow], ...] = (
    Column("CHID", lambda row, now: row.chid),
    Column("SERVICE", lambda row, now: row.service),
    Column("SESSION", lambda row, now: row.session),
    Column("PEER", lambda row, now: row.peer),
    Column("IDENTITY", lambda row, now: row.identity),
    Column("SENDS TO", lambda row, now: "nobody any more" if row.ended else receivers_text(row)),
    Column("SENDERS", lambda row, now: count(row.senders), right=True),
    Column("IN", lambda row, now: size(row.bytes_in), right=True),
    Column("OUT", lambda row, now: size(row.bytes_out), right=True),
    Column("RATE IN", lambda row, now: rate(row.rate_in), right=True),
    Column("RATE OUT", lambda row, now: rate(row.rate_out), right=True),
    Column("WAITING", lambda row, now: size(row.waiting), right=True, shown=lambda rows: any(r.waiting for r in rows)),
    Column("DROPPED", lambda row, now: size(row.dropped), right=True, shown=lambda rows: any(r.dropped for r in rows)),
    Column(
        "UNDELIVERED",
        lambda row, now: size(row.undelivered),
        right=True,
        shown=lambda rows: any(row.undelivered for row in rows),
    ),
)

EVENTS: tuple[Column[EventRow], ...] = (
    Column("TIME", lambda row, now: date_and_time(row.time)),
    Column("LEVEL", lambda row, now: row.level, alarming=True),
    Column("SERVICE", lambda row, now: row.service or "-"),
    Column("TYPE", lambda row, now: row.type),
    Column("TEXT", lambda row, now: row.text),
)

EVENT_WIDTHS = (19, 7, 12, 18, 0)
"""Cells of the columns where events are printed one by one, as they come: nobody knows the widest yet."""


def receivers_text(row: ChidRow) -> str:
    """To whom a client sends, in the width of a column."""
    if not row.receivers:
        return "all"
    shown = row.receivers[:MAX_RECEIVERS_SHOWN]
    more = len(row.receivers) - len(shown) + row.more_receivers
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def print_rows(columns: Sequence[Column[Row]], rows: Sequence[Row], *, empty: str, as_json: bool) -> None:
    """Prints a table, or the rows as one JSON document.

    :param empty: what is said on standard error when there are no rows.
    """
    if as_json:
        print_json(rows)
    elif rows:
        _print("\n".join(table(columns, rows, time.time())))
    else:
        click.echo(empty, err=True)


def table(columns: Sequence[Column[Row]], rows: Sequence[Row], now: float) -> Iterable[str]:
    """The lines of a table: the headings, then the rows, every column as wide as its widest cell."""
    shown = [column for column in columns if column.shown(rows)]
    cells = [[clean(column.cell(row, now)) for column in shown] for row in rows]
    widths = [
        max(cell_len(text) for text in texts) for texts in zip([column.title for column in shown], *cells, strict=True)
    ]
    yield _line(shown, [column.title for column in shown], widths)
    for row in cells:
        yield _line(shown, row, widths)


def print_line(columns: Sequence[Column[Row]], row: Row, widths: Sequence[int]) -> None:
    """Prints one row by itself; a cell that is wider than its column pushes the others on."""
    now = time.time()
    _print(_line(columns, [clean(column.cell(row, now)) for column in columns], widths))


def print_event(row: EventRow, *, as_json: bool) -> None:
    """Prints one event as it comes; as JSON, a document on a line of its own."""
    if as_json:
        click.echo(msgspec.json.encode(row))
    else:
        print_line(EVENTS, row, EVENT_WIDTHS)


async def follow_events(connect: Callable[[], Awaitable[ControlClient]], question: GetEvents, *, as_json: bool) -> None:
    """Prints the events that ``question`` asks for and then each one of its level as it comes, until the engine goes.

    :raises EngineUnreachable: it went away, or there is none.
    """
    levels = LEVELS[LEVELS.index(question.level) :]
    async with await connect() as watching, await connect() as asking:
        shown: int | None = None
        async for update in watching.watch(Watch(["events"], interval=MIN_INTERVAL)):
            if shown is None:  # asked for after the watch has begun, so that no event falls between the two
                shown = await _print_newest(asking, question, as_json=as_json)
            if update.events is None:
                continue
            if update.events.dropped:
                click.echo(f"{counted(update.events.dropped, 'event')} missed: they came too fast", err=True)
            for row in update.events.rows:
                if row.id > shown and row.level in levels:
                    print_event(row, as_json=as_json)
                    shown = row.id


async def _print_newest(asking: ControlClient, question: GetEvents, *, as_json: bool) -> int:
    """Prints what has happened so far; returns the id of the last event that was printed."""
    reply = await asking.ask(question)
    rows = reply.rows if isinstance(reply, Events) else []
    for row in rows:
        print_event(row, as_json=as_json)
    return rows[-1].id if rows else question.after


def announcement(target: str, scheme: str = "", *, as_json: bool) -> Callable[[str], None]:
    """What prints where a one-line client can be reached, on one line that a script can look for.

    :param scheme: stands before the address for people.
    """

    def announce(address: str) -> None:
        if as_json:
            print_json({"address": address, "target": target})
        else:
            click.echo(f"forwarding {scheme}{address} -> {target}")

    return announce


def print_status(status: Status, *, as_json: bool) -> None:
    """Prints the node's figures, one a line, or as one JSON document."""
    if as_json:
        document = msgspec.to_builtins(status)
        del document["type"]  # tells messages of the control socket apart; here there is only one
        print_json(document)
        return
    faults = f", {counted(status.faults, 'fault')}" if status.faults else ""
    exposed = ", beyond loopback" if status.metrics_exposed else ""
    facts = {
        "version": status.version,
        "pid": str(status.pid),
        "uptime": duration(status.uptime) + (", draining" if status.draining else ""),
        "services": count(status.services) + faults,
        "sessions": count(status.sessions),
        "channels": count(status.channels),
        "in": f"{size(status.bytes_in)}, {rate(status.rate_in)}",
        "out": f"{size(status.bytes_out)}, {rate(status.rate_out)}",
        "memory": size(status.memory),
        "cpu": percent(status.cpu),
        "config": status.config or "none",
        **({"metrics": f"http://{status.metrics}/metrics{exposed}"} if status.metrics else {}),
    }
    _print("\n".join(f"{name:<8}{GAP}{clean(value)}" for name, value in facts.items()))


def print_done(done: Done, *, as_json: bool) -> None:
    """What was done, in one sentence."""
    if as_json:
        print_json({"text": done.text})
    else:
        click.echo(clean(done.text))


def print_json(document: object) -> None:
    """Prints one JSON document, indented so that people can read it too."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def _line(columns: Sequence[Column[Any]], texts: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for column, text, width in zip(columns, texts, widths, strict=True):
        padding = " " * (width - cell_len(text))
        painted = click.style(text, **ALARMS[text]) if column.alarming and text in ALARMS else text
        cells.append(padding + painted if column.right else painted + padding)
    return GAP.join(cells).rstrip()


def _print(text: str) -> None:
    """Prints lines; colour goes to terminals only, and nowhere with NO_COLOR (https://no-color.org)."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
