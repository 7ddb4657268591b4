"""Commands that steer the engine by plan: a drain, and a reload that is looked at first."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tunnelconsole.cli.complaint import complain
from tunnelconsole.cli.options import Command, Shared, pass_shared

if TYPE_CHECKING:
    from tunnelconsole.control.messages import Request


def steer(shared: Shared, request: Request) -> None:
    """Asks the engine to do something, and prints what was done."""
    from tunnelconsole.cli.tables import print_json
    from tunnelconsole.control.messages import Done
    from tunnelconsole.screens.spans import clean

    done = shared.ask(request, Done)
    if shared.json:
        print_json({"text": done.text})
    else:
        click.echo(clean(done.text))


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    from tunnelconsole.engine.units import Duration

    try:
        return None if value is None else float(Duration.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(cls=Command, short_help="Have a service take nothing new, and stop once it carries nothing.")
@click.argument("service")
@click.option("--for", "seconds", callback=_seconds, metavar="DURATION", help="How long it may take; [engine] drain.")
@pass_shared
def drain(shared: Shared, service: str, seconds: float | None) -> None:
    """Have SERVICE take nothing new, let what it carries finish, and stop it then; what is left after a time is cut.

    `start SERVICE` takes it back, and what it carries goes on; `stop SERVICE` does not wait; `drain SERVICE --for` once
    more sets another time. `services` shows how much is left.
    """
    from tunnelconsole.control.steering import DrainService

    steer(shared, DrainService(service, seconds))


@click.command(cls=Command, short_help="Change the limits of a service or a session while it runs.")
@click.argument("target", metavar="SERVICE|SESSION")
@click.option("--rate", default="", metavar="RATE", help="Bytes per second, both ways together, such as 10MB/s.")
@click.option("--sessions", type=click.IntRange(min=1), metavar="N", help="At once, of a service.")
@click.option("--channels", type=click.IntRange(min=1), metavar="N", help="At once, of a service.")
@click.option("--none", "lifted", multiple=True, type=click.Choice(["rate", "sessions", "channels"]), help="No limit.")
@pass_shared
def limit(
    shared: Shared, target: str, rate: str, sessions: int | None, channels: int | None, lifted: tuple[str, ...]
) -> None:
    """Change the limits of SERVICE, or the rate of SESSION, at once and for what is open; nobody is cut.

    A service keeps them until it is started anew or a reload changes its settings, a session until it ends.
    """
    from tunnelconsole.control.steering import SetLimits

    if not (rate or sessions or channels or lifted):
        raise click.UsageError("name a limit: --rate, --sessions, --channels or --none")
    steer(shared, SetLimits(target=target, rate=rate, sessions=sessions, channels=channels, lifted=list(lifted)))


@click.command(cls=Command, short_help="Have the engine read its configuration again.")
@click.option("--preview", is_flag=True, help="Print what would change and who would be cut, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@pass_shared
def reload(shared: Shared, *, preview: bool, yes: bool) -> int:
    """Have the engine read its configuration again.

    On a terminal it prints first what would change and who would be cut, and asks; in a script it does not.
    """
    from tunnelconsole.control.messages import ReloadConfig

    if preview and yes:
        raise click.UsageError("--preview changes nothing, so --yes has nothing to answer")
    asks = not yes and not shared.json and sys.stdin.isatty() and sys.stdout.isatty()
    if (preview or asks) and not _look_ahead(shared, ask=asks and not preview):
        return 1
    if not preview:
        steer(shared, ReloadConfig())
    return 0


def _look_ahead(shared: Shared, *, ask: bool) -> bool:
    """Prints what a reload would do; returns whether it can be done, and shall be."""
    from tunnelconsole.cli.tables import print_json
    from tunnelconsole.control.reload_words import changes_something, cost, preview_words
    from tunnelconsole.control.steering import PreviewReload, ReloadPreview
    from tunnelconsole.screens.spans import clean

    found = shared.ask(PreviewReload(), ReloadPreview)
    if shared.json:
        print_json({key: getattr(found, key) for key in found.__struct_fields__})
    elif found.problems:
        complain(*found.problems)
    else:
        click.echo("\n".join(map(clean, preview_words(found))), err=ask)
    if found.problems or not ask or not changes_something(found):
        return not found.problems
    try:
        if click.confirm(f"Reload, which {cost(found)}?", err=True):
            return True
    except click.Abort:
        click.echo(err=True)
    complain("nothing was changed")
    return False
