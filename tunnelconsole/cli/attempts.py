"""The commands about attempts at hole punches."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import click

from tunnelconsole.cli.options import Command, Shared, pass_shared


@click.command(cls=Command, short_help="The tries at hole punches: what was reached, and how.")
@click.argument("attempt", metavar="[ID]", required=False)
@click.option("--service", default="", metavar="NAME", help="Of this service only.")
@pass_shared
def attempts(shared: Shared, attempt: str | None, service: str) -> None:
    """The tries at hole punches: what was reached, how, and why not.

    With the ID of one, all of it: both NATs, what became of each address, and what happened when.
    """
    from tunnelconsole.cli.attempt_tables import print_attempt, print_attempts
    from tunnelconsole.control.attempts import Attempts, GetAttempts

    rows = shared.ask(GetAttempts(service, attempt or ""), Attempts).rows
    if attempt is not None:
        print_attempt(rows[0], as_json=shared.json)
        return
    empty = f"no attempts: {service or 'no punch client'} has tried {'nothing' if service else 'anything'} yet"
    print_attempts(rows, empty=empty, as_json=shared.json)


@click.command(cls=Command, short_help="Have a punch client look for a direct way now.")
@click.argument("service")
@pass_shared
def retry(shared: Shared, service: str) -> None:
    """Have SERVICE, a punch client on the relay, look for a direct way to the other end now.

    It does so by itself after 30 seconds, and then less and less often, up to ten minutes.
    """
    from tunnelconsole.cli.tables import print_done
    from tunnelconsole.control.attempts import PunchAgain
    from tunnelconsole.control.messages import Done

    print_done(shared.ask(PunchAgain(service), Done), as_json=shared.json)
