"""Saying on standard error what is wrong."""

from __future__ import annotations

import click

PROGRAM = "tunnelconsole"


def complain(*sentences: str) -> None:
    """One line each on standard error, whatever strangers have put into them."""
    from tunnelconsole.screens.spans import clean  # noqa: PLC0415 - most commands have nothing to complain of

    for sentence in sentences:
        click.echo(f"{PROGRAM}: {clean(' '.join(sentence.split()))}", err=True)
