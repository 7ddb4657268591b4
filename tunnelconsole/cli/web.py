"""The commands about web services behind tunnels: a one-line client, and the requests that came."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnelconsole.cli.complaint import complain
from tunnelconsole.cli.options import (
    TOKEN_VARIABLE,
    Command,
    Shared,
    pass_shared,
    secret_of,
    secret_of_environment,
    send_proxy_option,
    server_address,
    ssh_options,
    ssh_settings,
    tls_settings,
    token_option,
    trust_options,
)

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
    from tunnelconsole.engine.services.tunnel.target import Target, TunnelURL
    from tunnelconsole.engine.settings import ServerAddress
    from tunnelconsole.engine.wire.proxy_protocol import Version

REQUESTS_SHOWN = 50
"""Requests shown unless --limit asks for others: a screen full."""

OPTIONS = {"tls": "--fingerprint and --ca", "token": f"--token-file, or {TOKEN_VARIABLE}"}
"""What some settings are called here."""

STDOUT = "-"
"""Names standard output where a file is asked for."""


def _url(context: click.Context, parameter: click.Parameter, value: str) -> TunnelURL:
    """What is written as the URL of a tunnel."""
    from tunnelconsole.engine.services.tunnel.target import TunnelURL

    try:
        return TunnelURL.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _optional_address(context: click.Context, parameter: click.Parameter, value: str | None) -> ServerAddress | None:
    return None if value is None else server_address(context, parameter, value)


def _optional_target(context: click.Context, parameter: click.Parameter, value: str | None) -> Target | None:
    """What is written as ``host:port``, or as a port of this machine."""
    from tunnelconsole.engine.services.tunnel.target import Target

    if value is None:
        return None
    try:
        target = Target.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if target.address is None:
        raise click.BadParameter("a folder is given with --folder", context, parameter)
    return target


@click.command(cls=Command, short_help="Give a web service here a public URL at a tunnel server.")
@click.argument("target", required=False, callback=_optional_target)
@click.option(
    "--server",
    callback=_url,
    required=True,
    metavar="URL",
    help="The public URL that it is to have, with or without ssh://USER@HOST/ before it.",
)
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Serve this in place of TARGET."
)
@send_proxy_option
@click.option("--host-header", default="", metavar="HOST", help="What the service is told as Host.")
@token_option
@click.option(
    "--connect", callback=_optional_address, metavar="ADDRESS", help="Where to dial, if not at the URL's host."
)
@trust_options
@ssh_options
@pass_shared
def http(
    shared: Shared,
    target: Target | None,
    server: TunnelURL,
    folder: Path | None,
    send_proxy: Version | None,
    host_header: str,
    token_file: Path | None,
    connect: ServerAddress | None,
    identity: str | None,
    known_hosts: str | None,
    *,
    fingerprint: str | None,
    ca: str | None,
) -> None:
    """Give TARGET, a port here or HOST:PORT, or a folder, a public URL at a tunnel server.

    Prints the URL, connects again when the server goes away, and ends on Ctrl-C.
    """
    from tunnelconsole.cli.standalone import forward, run
    from tunnelconsole.cli.tables import announcement
    from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
    from tunnelconsole.engine.services.tunnel.target import Target

    if (target is None) == (folder is None):
        raise click.UsageError("give either TARGET or --folder")
    leads_to = target or Target(None, str(folder.resolve() if folder is not None else ""))
    settings = TunnelClientSettings(
        server=server,
        connect=connect,
        target=leads_to,
        send_proxy=send_proxy,
        host_header=host_header,
        token=secret_of("--token-file", token_file) or secret_of_environment(TOKEN_VARIABLE),
        tls=tls_settings(fingerprint, ca, tls=server.scheme == "https"),
        ssh=ssh_settings(identity, known_hosts, server.address, connect),
        inspect=False,  # nobody could look
    )
    _check(settings)
    run(forward(settings, announce=announcement(str(leads_to), as_json=shared.json), narrate=complain))


def _check(settings: TunnelClientSettings) -> None:
    for key, problem in settings.problems():
        option = OPTIONS.get(key, f"--{key.replace('_', '-')}")
        raise click.UsageError(f"{option}: {problem}")


@click.command(cls=Command)
@click.option("--follow", "-f", is_flag=True, help="Go on with those that come; with --json, a document a line.")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=REQUESTS_SHOWN, show_default=True, help="The newest."
)
@click.option("--service", default="", metavar="NAME", help="Of this service only.")
@pass_shared
def requests(shared: Shared, limit: int, service: str, *, follow: bool) -> None:
    """The last requests that came through tunnels, the newest last."""
    from tunnelconsole.cli.exchanges import REQUESTS, follow_requests
    from tunnelconsole.cli.tables import print_rows
    from tunnelconsole.control.messages import Exchanges, GetExchanges

    question = GetExchanges(service, limit)
    if follow:
        asyncio.run(follow_requests(shared.connect, question, as_json=shared.json))
        return
    rows = shared.ask(question, Exchanges).rows
    where = f" through {service}" if service else " through a tunnel"
    print_rows(REQUESTS, rows, empty=f"no requests: nobody has come{where} yet", as_json=shared.json)


@click.command(cls=Command)
@click.argument("request", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show credentials, cookies and tokens, which are hidden otherwise.")
@click.option("--curl", is_flag=True, help="Print the command that sends it again.")
@click.option(
    "--har",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Write it to a new file; - prints it.",
)
@pass_shared
def request(shared: Shared, request: str, har: Path | None, *, reveal: bool, curl: bool) -> None:
    """One request and its answer, with their heads and bodies."""
    from tunnelconsole.cli.exchanges import print_exchange
    from tunnelconsole.control.curl import curl_of
    from tunnelconsole.control.har import har_of, save_private
    from tunnelconsole.control.messages import Exchange, GetExchange

    if curl or har is not None:
        shared.no_json()
    if curl and har is not None:
        raise click.UsageError("--curl and --har exclude each other")
    found = shared.ask(GetExchange(request, reveal), Exchange)
    if curl:
        click.echo(curl_of(found))
    elif har is None:
        print_exchange(found, as_json=shared.json)
    elif str(har) == STDOUT:
        click.echo(har_of([found]))
    else:
        save_private(har, har_of([found]))
    if found.hidden and not shared.json:
        from tunnelconsole.control.figures import counted

        complain(f"{counted(found.hidden, 'secret')} hidden; --reveal shows what is")


@click.command(cls=Command)
@click.argument("request", metavar="ID")
@pass_shared
def replay(shared: Shared, request: str) -> None:
    """Send a request to its service again, with its secrets, and show what comes of it."""
    from tunnelconsole.cli.exchanges import print_exchange, replayed

    print_exchange(asyncio.run(replayed(shared.connect, request)), as_json=shared.json)
