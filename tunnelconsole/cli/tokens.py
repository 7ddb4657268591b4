"""The commands about tokens."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from tunnelconsole.cli.complaint import complain
from tunnelconsole.cli.options import Command, Commands, Shared, pass_shared

if TYPE_CHECKING:
    from tunnelconsole.control.tokens import TokenMade, TokenRow

Function = TypeVar("Function", bound=Callable[..., Any])

NONE = "none"
"""What takes a limit away."""

NEVER = "never"

KINDS = ("jump", "channel", "punch", "relay", "tunnel")


@click.group(cls=Commands, short_help="Credentials for clients: create, list, change, rotate, revoke.")
def token() -> None:
    """Credentials for clients of this engine's servers, each with rights and limits of its own.

    The secret is shown once, when it is made. What is taken from a token is taken from those who are in with it, at
    once.
    """


_SEVERAL = (
    ("kind", "kinds", "KIND", f"What it may use: {', '.join(KINDS)}; all unless given."),
    ("host", "hosts", "PATTERN", "Public hostnames, such as '*.example.com'."),
    ("port", "ports", "PORTS", "Public ports of relays, such as 7001-7010."),
    ("chid", "chids", "PATTERN", "Chids that it may be, and send to."),
    ("room", "rooms", "PATTERN", "Rooms that it may enter."),
    ("to", "destinations", "HOST:PORT", "Where jumps may lead: '*:443'."),
    ("from", "clients", "NETWORK", "Where it may be used: 10.0.0.0/8."),
)
"""Rights of which there may be several: option, key, what it takes, and what it is."""

_SINGLE = (
    ("rate", "RATE", "Of all its channels together, such as 1MB/s."),
    ("sessions", "N", "Sessions at once."),
    ("channels", "N", "Channels at once."),
    ("requests", "N", "Requests a second of its tunnels' visitors."),
    ("bytes-per-day", "SIZE", "Both ways, such as 10GB; then its sessions end."),
    ("expires", "DURATION", f"From now on, such as 30d; or {NEVER}."),
)


def _rights_options(function: Function) -> Function:
    """The options for rights; each of which there may be several may be given several times."""
    options = [
        click.option(f"--{name}", key, metavar=form, help=text, multiple=True) for name, key, form, text in _SEVERAL
    ]
    options += [click.option(f"--{name}", metavar=form, help=text) for name, form, text in _SINGLE]
    for option in reversed(options):
        function = option(function)
    return function


_out_option = click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the secret in this file, for you alone, instead of printing it.",
)


@token.command(cls=Command)
@click.argument("name")
@_rights_options
@click.option("--one-time", is_flag=True, help="Good for one session only.")
@_out_option
@pass_shared
def create(
    shared: Shared, /, name: str, expires: str | None, *, one_time: bool, out: Path | None, **given: Any
) -> None:
    """Make a token and print its secret, on a line of its own. What is not limited may be used without limit.

    The secret is not shown again: keep it in a file for --token-file, or as the secret of a jump client.
    """
    from tunnelconsole.control.tokens import CreateToken, TokenMade

    rights = {key: value for key, value in _rights(given).items() if value is not None}
    if one_time:
        rights["one_time"] = True
    if out is not None and out.exists():
        raise click.UsageError(f"{out} exists already, and may hold another secret: name another file")
    with _secret_file(out) as file:
        _hand_over(shared, shared.ask(CreateToken(name, rights, _expiry(expires)), TokenMade), file)


@token.command(cls=Command)
@click.argument("name")
@click.option(
    "--overlap", metavar="DURATION", help="For which the old secret stays good; 24h unless given, 0s for none."
)
@_out_option
@pass_shared
def rotate(shared: Shared, name: str, overlap: str | None, out: Path | None) -> None:
    """Give a token another secret and print it. The old one stays good for a while."""
    from tunnelconsole.control.tokens import RotateToken, TokenMade

    request = RotateToken(name, None if overlap is None else _seconds("--overlap", overlap))
    with _secret_file(out) as file:
        _hand_over(shared, shared.ask(request, TokenMade), file)


@token.command(cls=Command)
@click.argument("name")
@_rights_options
@click.option("--disable/--enable", "disabled", default=None, help="Make it good for nothing, or good again.")
@pass_shared
def change(shared: Shared, /, name: str, expires: str | None, disabled: bool | None, **given: Any) -> None:
    """Change a token at once; what is not named stays, and 'none' takes a limit away.

    Limits change for those who are in; who is in by a right that changes is out, and may come again.
    """
    import msgspec

    from tunnelconsole.cli.tables import print_done
    from tunnelconsole.control.messages import Done
    from tunnelconsole.control.tokens import ChangeToken

    rights = _rights(given)
    if not rights and expires is None and disabled is None:
        raise click.UsageError("nothing to change: name a right, --expires, --disable or --enable")
    until = msgspec.UNSET if expires is None else _expiry(expires)
    print_done(shared.ask(ChangeToken(name, rights, until, disabled), Done), as_json=shared.json)


@token.command(cls=Command)
@click.argument("name")
@pass_shared
def revoke(shared: Shared, name: str) -> None:
    """Take a token away for good, and end its sessions at once."""
    from tunnelconsole.cli.tables import print_done
    from tunnelconsole.control.messages import Done
    from tunnelconsole.control.tokens import RevokeToken

    print_done(shared.ask(RevokeToken(name), Done), as_json=shared.json)


@token.command(name="list", cls=Command)
@pass_shared
def list_tokens(shared: Shared) -> None:
    """The tokens there are: state, expiry, last use, who is in, and what they may."""
    from tunnelconsole.cli.tables import Column, print_rows
    from tunnelconsole.control.figures import size
    from tunnelconsole.control.token_words import expiry_words, last_use_words, old_secret_words, rights_words
    from tunnelconsole.control.tokens import GetTokens, Tokens

    columns: tuple[Column[TokenRow], ...] = (
        Column("NAME", lambda row, now: row.name),
        Column("STATE", lambda row, now: row.state),
        Column("EXPIRES", lambda row, now: expiry_words(row.expires, now)),
        Column("OLD SECRET", old_secret_words),
        Column("LAST USE", last_use_words),
        Column("SESSIONS", lambda row, now: str(row.sessions)),
        Column("TODAY", lambda row, now: size(row.bytes_today)),
        Column("RIGHTS", lambda row, now: rights_words(row.rights)),
    )
    rows = shared.ask(GetTokens(), Tokens).rows
    print_rows(columns, rows, empty="no tokens: make one with: tunnelconsole token create NAME", as_json=shared.json)


def _rights(given: dict[str, Any]) -> dict[str, Any]:
    """Those rights that were named; None for one that is to be taken away."""
    rights: dict[str, Any] = {}
    for key, value in given.items():
        if value is None or value == ():
            continue
        if value in (NONE, (NONE,)):
            rights[key] = None
        elif key in ("sessions", "channels", "requests"):
            rights[key] = _number(f"--{key}", value)
        else:
            rights[key] = list(value) if isinstance(value, tuple) else value
    return rights


def _number(option: str, text: str) -> int | float:
    try:
        return float(text) if option == "--requests" else int(text)
    except ValueError:
        raise click.UsageError(f"{option}: {text!r} is not a number; {NONE!r} takes the limit away") from None


def _expiry(text: str | None) -> float | None:
    return None if text in (None, NEVER, NONE) else time.time() + _seconds("--expires", str(text))


def _seconds(option: str, text: str) -> float:
    from tunnelconsole.engine.units import Duration

    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


@contextmanager
def _secret_file(path: Path | None) -> Iterator[_SecretFile | None]:
    """A file for a secret that is still to be made: whether it can be written is found out before that."""
    if path is None:
        yield None
        return
    from tunnelconsole.engine.private_files import FILE_MODE, open_private

    file = _SecretFile(path, path.with_name(f"{path.name}.new"))
    try:
        descriptor = open_private(file.draft, os.O_WRONLY | os.O_TRUNC)
        try:
            os.fchmod(descriptor, FILE_MODE)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise click.UsageError(f"--out: cannot write {path}: {error.strerror or error}; nothing was done") from error
    try:
        yield file
    finally:
        file.draft.unlink(missing_ok=True)


class _SecretFile(NamedTuple):
    path: Path
    draft: Path
    """What is renamed to it once the secret is in."""

    def keep(self, secret: str) -> str:
        """Puts the secret there; returns why that cannot be, "" when it was done."""
        try:
            self.draft.write_text(f"{secret}\n")
            self.draft.replace(self.path)
        except OSError as error:
            return f"{self.path} cannot be written: {error.strerror or error}"
        return ""


def _hand_over(shared: Shared, made: TokenMade, file: _SecretFile | None) -> None:
    from tunnelconsole.cli.tables import print_json

    unwritten = file.keep(made.secret) if file is not None else ""
    kept = str(file.path) if file is not None and not unwritten else ""
    if unwritten:
        complain(f"{unwritten}; so the secret stands here")
    if shared.json:
        shown = {} if kept else {"secret": made.secret}
        print_json({"name": made.name, **shown, "text": made.text})
    elif kept:
        complain(f"{made.text}; its secret is in {kept} and nowhere else")
    else:
        click.echo(made.secret)
        complain(f"{made.text}; its secret is not shown again")
        if sys.stdout.isatty():
            complain("keep it in a file that only you can read, for --token-file")
    if unwritten:
        raise SystemExit(1)
