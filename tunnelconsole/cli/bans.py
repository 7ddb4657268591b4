"""The commands about bans."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tunnelconsole.cli.options import Command, Shared, pass_shared

if TYPE_CHECKING:
    from tunnelconsole.control.bans import BanAddress, BanRow, LiftBan

DEFAULT_TIME = "1h"
"""How long a ban by hand lasts unless --for says otherwise."""


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from tunnelconsole.engine.units import Duration

    try:
        return float(Duration.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(cls=Command, short_help="Who is banned, and until when.")
@pass_shared
def bans(shared: Shared) -> None:
    """The addresses that are turned away because they guessed too often, or by hand; the newest first."""
    from tunnelconsole.cli.tables import Column, print_rows
    from tunnelconsole.control.bans import Bans, GetBans
    from tunnelconsole.control.figures import date_and_time, duration

    columns: tuple[Column[BanRow], ...] = (
        Column("ADDRESS", lambda row, now: row.address),
        Column("SERVICE", lambda row, now: row.service or "-"),
        Column("FAILURES", lambda row, now: str(row.failures) if row.failures else "-"),
        Column("TURNED AWAY", lambda row, now: str(row.turned_away)),
        Column("SINCE", lambda row, now: date_and_time(row.since)),
        Column("LEFT", lambda row, now: duration(row.until - now)),
        Column("REASON", lambda row, now: row.reason),
    )
    print_rows(columns, shared.ask(GetBans(), Bans).rows, empty="nobody is banned", as_json=shared.json)


@click.command(cls=Command, short_help="Turn an address away for a time.")
@click.argument("address")
@click.option(
    "--for", "seconds", default=DEFAULT_TIME, show_default=True, callback=_seconds, metavar="DURATION", help="How long."
)
@pass_shared
def ban(shared: Shared, address: str, seconds: float) -> None:
    """Turn ADDRESS away at every service; of an IPv6 address, the network of 64 bits. Its open sessions stay."""
    from tunnelconsole.control.bans import BanAddress

    _change(shared, BanAddress(address, seconds))


@click.command(cls=Command, short_help="Let a banned address connect again.")
@click.argument("address")
@pass_shared
def unban(shared: Shared, address: str) -> None:
    """Let ADDRESS, which is banned, connect again; its failures so far are forgotten."""
    from tunnelconsole.control.bans import LiftBan

    _change(shared, LiftBan(address))


def _change(shared: Shared, request: BanAddress | LiftBan) -> None:
    from tunnelconsole.cli.tables import print_json
    from tunnelconsole.control.messages import Done
    from tunnelconsole.screens.spans import clean

    done = shared.ask(request, Done)
    if shared.json:
        print_json({"text": done.text})
    else:
        click.echo(clean(done.text))
