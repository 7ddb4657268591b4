"""The commands of the punch system."""

# ruff: noqa: PLC0415 - what a command does not use, it does not wait for

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnelconsole.cli.complaint import complain
from tunnelconsole.cli.options import (
    SECRET_VARIABLE,
    Command,
    Shared,
    pass_shared,
    rendezvous_address,
    secret_from,
    tls_options,
    tls_settings,
    token_from,
    token_option,
)

if TYPE_CHECKING:
    from tunnelconsole.engine.services.punch.outside import Outside
    from tunnelconsole.engine.settings import HostPort

BY_HAND_WAIT = 300.0
"""Seconds for which a connection by hand is tried unless --wait says otherwise: the other user has to type, too."""

HIGHEST_PORT = 2**16 - 1


def _optional_address(context: click.Context, parameter: click.Parameter, value: str | None) -> HostPort | None:
    return rendezvous_address(context, parameter, value) if value is not None else None


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    from tunnelconsole.engine.units import Duration

    try:
        return Duration.parse(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _addresses(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """Addresses with commas between them, each ``host:port``."""
    from tunnelconsole.engine.wire.hostport import parse_host_port
    from tunnelconsole.engine.wire.punch_offer import MAX_CANDIDATES

    if value is None:
        return []
    parts = [part.strip() for part in value.split(",")]
    if len(parts) > MAX_CANDIDATES:
        raise click.BadParameter(f"at most {MAX_CANDIDATES} addresses are tried, not {len(parts)}", context, parameter)
    for part in parts:
        try:
            parse_host_port(part)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from error
    return parts


def _web_address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A URL of HTTP or HTTPS; without a password, which everybody could see among the arguments."""
    if value is not None and not _is_web_address(value):
        raise click.BadParameter("expected a URL that begins with http:// or https://, and a host", context, parameter)
    return value


def _is_web_address(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text and "@" not in url.netloc
    return plain and url.scheme in ("http", "https") and bool(url.hostname) and port != 0


def _first_given(options: dict[str, object]) -> str:
    """The first of these options that has a value; empty where none has."""
    return next((name for name, value in options.items() if value is not None), "")


@click.command(cls=Command, short_help="Standard input and output through a punched connection.")
@click.argument("room", required=False)
@click.option("--server", callback=_optional_address, metavar="HOST:PORT", help="The rendezvous, a punch server.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Holds the room's secret; else the variable {SECRET_VARIABLE} does.",
)
@click.option("--relay-only", is_flag=True, help="Stay on the relay; try no direct connection.")
@click.option(
    "--peer", callback=_addresses, metavar="ADDRESS,...", help="By hand: where the other side is, as its user told you."
)
@click.option("--port", type=click.IntRange(1, HIGHEST_PORT), help="By hand: the port here; any free one unless given.")
@click.option(
    "--public-from",
    callback=_web_address,
    metavar="URL",
    help="By hand: who answers with your public address, if not --server.",
)
@click.option("--wait", callback=_duration, metavar="DURATION", help="For the other side; by hand 5m unless given.")
@click.option("--verbose", is_flag=True, help="Tell each attempt in full at the end.")
@token_option
@tls_options
@pass_shared
def punch(
    shared: Shared,
    room: str | None,
    server: HostPort | None,
    secret_file: Path | None,
    token_file: Path | None,
    peer: list[str],
    port: int | None,
    public_from: str | None,
    wait: float | None,
    *,
    relay_only: bool,
    verbose: bool,
    tls: bool,
    fingerprint: str | None,
    ca: str | None,
) -> None:
    """Standard input and output through a punched connection; fit for ssh's ProxyCommand.

    With ROOM the other end is met there, by a secret that both know: encrypted, through the relay at once and directly
    as soon as there is a way. It is a command like this one, or a punch-client service.

    Without, by hand: prints the addresses here, takes the other side's from --peer or asks for them, and connects
    directly, in the clear, or not at all.
    """
    from tunnelconsole.cli import punching
    from tunnelconsole.cli.standalone import run
    from tunnelconsole.engine.services.punch.meeting import Meeting, wrong_with_room
    from tunnelconsole.engine.wire.punch_offer import Mode

    shared.no_json()
    trust = tls_settings(fingerprint, ca, tls=tls)
    if room is None:
        if needless := _first_given({"--secret-file": secret_file, "--relay-only": relay_only or None}):
            raise click.UsageError(f"{needless} is for a ROOM, which is missing")
        if server is not None and public_from is not None:
            raise click.UsageError("--server and --public-from exclude each other: one tells the public address")
        rendezvous = None
        if server is not None:
            from tunnelconsole.engine.services.punch.outside import Rendezvous

            rendezvous = Rendezvous(server, tls=trust, token=token_from(token_file))
        manners = punching.Manners(complain, BY_HAND_WAIT if wait is None else wait, verbose)
        run(punching.by_hand(port or 0, peer, rendezvous, public_from or "", manners))
        return
    if needless := _first_given({"--peer": peer or None, "--port": port, "--public-from": public_from}):
        raise click.UsageError(f"{needless} is for a connection by hand, without a ROOM")
    if server is None:
        raise click.UsageError("--server is missing: a room is at a punch server")
    if wrong := wrong_with_room(room):
        raise click.UsageError(f"ROOM {wrong}")
    secret, token = secret_from(secret_file), token_from(token_file)
    meeting = Meeting(server, room, secret, Mode.EITHER, tls=trust, direct=not relay_only, token=token)
    run(punching.room(meeting, punching.Manners(complain, wait, verbose)))


@click.command(cls=Command, short_help="What kind of NAT you are behind, and what will work.")
@click.option(
    "--server", callback=rendezvous_address, required=True, metavar="HOST:PORT", help="A punch server, which looks."
)
@token_option
@tls_options
@pass_shared
def nat(
    shared: Shared, server: HostPort, token_file: Path | None, *, tls: bool, fingerprint: str | None, ca: str | None
) -> None:
    """What kind of NAT this host is behind, as a punch server sees it, and what will work."""
    from tunnelconsole.cli.punching import examine
    from tunnelconsole.cli.tables import print_json
    from tunnelconsole.engine.services.punch.outside import Rendezvous

    trust = tls_settings(fingerprint, ca, tls=tls)
    seen = asyncio.run(examine(Rendezvous(server, tls=trust, token=token_from(token_file))))
    if shared.json:
        print_json(_document(seen))
        return
    click.echo(f"nat      {seen.nat}")
    click.echo(f"punches  {seen.nat.prospects()}")
    click.echo(f"local    {seen.local}")
    for endpoint, seen_as in seen.seen:
        click.echo(f"seen     {seen_as or 'no answer'}, by {endpoint}")
    click.echo(f"hosts    {', '.join(seen.hosts) or 'none but loopback'}")


def _document(seen: Outside) -> dict[str, object]:
    """What ``nat --json`` prints."""
    return {
        "mapping": seen.nat.mapping.value,
        "filtering": seen.nat.filtering.value,
        "keeps_port": seen.nat.keeps_port,
        "refuses": seen.nat.refuses,
        "words": str(seen.nat),
        "prospects": seen.nat.prospects(),
        "local": seen.local,
        "seen": [{"by": endpoint, "address": address} for endpoint, address in seen.seen],
        "hosts": list(seen.hosts),
    }
