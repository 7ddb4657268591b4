"""The command about the audit trail, and what it prints."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnelconsole.cli.options import Command, Shared, pass_shared
from tunnelconsole.errors import TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.control.audit import AuditRow

SHOWN = 50
"""Entries of a table unless told otherwise: a screen full."""

LONGEST_OBJECT = 40
"""Characters of an object in a table: strangers choose some, and a column is as wide as its widest cell."""

ALL = 2**31
"""More entries than there can be."""

STDOUT = "-"


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    from tunnelconsole.engine.units import Duration

    try:
        return None if value is None else Duration.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(cls=Command, short_help="Who had the engine do what, and when.")
@click.option("--limit", "-n", type=click.IntRange(min=1), help=f"The newest; {SHOWN} in a table, else all.")
@click.option("--since", callback=_seconds, metavar="DURATION", help="Not older than that, such as 1h or 7d.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="JSON lines in a new file; - prints.")
@pass_shared
def audit(shared: Shared, limit: int | None, since: float | None, export: Path | None) -> None:
    """Who had the engine do what, through what, when, and what came of it; the newest last.

    With --export, one JSON object a line: time (ISO 8601), unix (seconds), who, via, action, object, outcome, text.
    """
    from tunnelconsole.cli.tables import Column, print_rows
    from tunnelconsole.control.audit import Audit, GetAudit
    from tunnelconsole.control.figures import counted, date_and_time
    from tunnelconsole.control.har import save_private

    if export is not None:
        shared.no_json()
    asked = limit or (SHOWN if export is None and not shared.json else ALL)
    rows = shared.ask(GetAudit(asked, 0.0 if since is None else time.time() - since), Audit).rows
    if export is None:
        columns: tuple[Column[AuditRow], ...] = (
            Column("TIME", lambda row, now: date_and_time(row.time)),
            Column("WHO", lambda row, now: row.who),
            Column("VIA", lambda row, now: row.via),
            Column("ACTION", lambda row, now: row.action),
            Column("OBJECT", lambda row, now: _shortened(row.object) or "-"),
            Column("OUTCOME", lambda row, now: row.outcome),
            Column("TEXT", lambda row, now: row.text),
        )
        when = "" if since is None else " in this time"
        empty = f"no entries: nobody has had the engine do anything{when}"
        print_rows(columns, rows, empty=empty, as_json=shared.json)
        return
    lines = json_lines(rows)
    if str(export) == STDOUT:
        click.echo(lines, nl=False)
        return
    try:
        save_private(export, lines.encode())
    except FileExistsError as error:
        raise TunnelConsoleError(f"there is a file {export} already", "name a new one") from error
    except OSError as error:
        raise TunnelConsoleError(f"{export} cannot be written: {error.strerror}", "name another file") from error
    click.echo(f"{counted(len(rows), 'entry', 'entries')} written to {export}")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_OBJECT else text[: LONGEST_OBJECT - 1] + "…"


def json_lines(rows: Sequence[AuditRow]) -> str:
    """Entries as JSON in ASCII, an object a line; their keys are stable."""
    return "".join(
        json.dumps(
            {
                "time": datetime.fromtimestamp(row.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "unix": row.time,
                "who": row.who,
                "via": row.via,
                "action": row.action,
                "object": row.object,
                "outcome": row.outcome,
                "text": row.text,
            }
        )
        + "\n"
        for row in rows
    )
