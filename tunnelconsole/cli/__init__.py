"""The commands: what a person, a script or systemd types.

Data goes to standard output; narration and errors go to standard error, each error in one line that says what happened
and what to do. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

Each command imports what it needs when it runs, so that ``tunnelconsole status`` waits for neither the console nor the
engine to load.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnelconsole import __version__
from tunnelconsole.cli.attempts import attempts, retry
from tunnelconsole.cli.audit import audit
from tunnelconsole.cli.bans import ban, bans, unban
from tunnelconsole.cli.complaint import PROGRAM, complain
from tunnelconsole.cli.options import (
    LEVELS,
    SECRET_VARIABLE,
    SERVER_FORMS,
    Commands,
    Shared,
    address,
    local_address,
    pass_shared,
    secret_from,
    secret_of,
    secret_of_environment,
    send_proxy_option,
    server_address,
    ssh_options,
    ssh_settings,
    tls_options,
    tls_settings,
    token_from,
    token_option,
)
from tunnelconsole.cli.punch import nat, punch
from tunnelconsole.cli.steering import drain, limit, reload, steer
from tunnelconsole.cli.tokens import token
from tunnelconsole.cli.web import http, replay, request, requests
from tunnelconsole.errors import ConfigError, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.control.messages import Level, Role
    from tunnelconsole.engine.settings import HostPort, ServerAddress
    from tunnelconsole.engine.wire.proxy_protocol import Version

STDERR = 2
"""The last of the standard descriptors."""

EVENTS_SHOWN = 50
"""Events shown unless --limit asks for others: a screen full."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    :param arguments: those of the command line when None.
    """
    _take_standard_descriptors()
    try:
        return cli.main(arguments, prog_name=PROGRAM, standalone_mode=False) or 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else PROGRAM
        sentence = error.format_message().rstrip(".")
        if not sentence[1:2].isupper():  # a word that is written in capitals stays as it is
            sentence = f"{sentence[:1].lower()}{sentence[1:]}"
        complain(f"{sentence}; {command} -h shows how it is used")
        return error.exit_code
    except ConfigError as error:
        complain(*error.problems)
    except TunnelConsoleError as error:
        complain(str(error))
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    return 1


def _take_standard_descriptors() -> None:
    """Opens those that were closed by whoever started us, so that no socket becomes standard output by chance."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command: the console of the running engine, or of one that is started in the background.",
)
@click.option("--demo", is_flag=True, help="The console, with every system running on loopback and real traffic.")
@click.option("--daemon", "--headless", is_flag=True, help="The engine alone, in the foreground, logging.")
@click.version_option(__version__, "--version", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, *, demo: bool, daemon: bool) -> int | None:
    """One console for every kind of TCP tunnel."""
    shared: Shared = context.obj
    if context.invoked_subcommand is not None:
        if demo or daemon:
            raise click.UsageError(f"--demo and --daemon take no command such as {context.invoked_subcommand}")
        return None
    shared.no_json()
    if demo and daemon:
        raise click.UsageError("--demo and --daemon exclude each other")
    if daemon:
        from tunnelconsole.daemon import run

        return run(shared.config, socket=shared.socket, log_level=shared.log_level, log_format=shared.log_format)
    from tunnelconsole.cli import consoles

    if demo:
        consoles.demonstrate()
    else:
        consoles.open_console(shared.config, shared.control(), shared.log_level, shared.log_format)
    return None


@cli.command(short_help="The console of an engine that runs already, here or elsewhere.")
@click.argument("url", required=False, metavar="[ssh://USER@HOST:PORT]")
@click.option("--role", type=click.Choice(["operate", "view"]), help="view refuses what steers.")
@click.option("--no-files", is_flag=True, help="Save nothing here: for a console that is shown elsewhere.")
@ssh_options
@pass_shared
def attach(
    shared: Shared,
    url: str | None,
    role: Role | None,
    identity: str | None,
    known_hosts: str | None,
    *,
    no_files: bool,
) -> None:
    """The console of an engine that runs already: of this user's here, or of one with an ssh-server elsewhere."""
    from tunnelconsole.cli import consoles
    from tunnelconsole.control.messages import GetStatus, Status

    shared.no_json()
    if url is not None:
        from tunnelconsole.cli.over_ssh import become, ssh_command

        here = {"--role": role, "--no-files": no_files, "--socket": shared.socket, "--config": shared.config}
        if needless := [name for name, value in here.items() if value]:
            raise click.UsageError(f"{needless[0]} is for an engine on this machine; leave it out, or {url}")
        command = ssh_command(url, identity, known_hosts)
        consoles.check_terminal()
        become(command)
    if identity or known_hosts:
        raise click.UsageError("--identity and --known-hosts are for ssh://USER@HOST:PORT")
    consoles.take_terminal()
    shared.ask(GetStatus(), Status)  # says why not where there is none
    consoles.attach(shared.control(), role=role or "operate", files=not no_files)


@cli.command()
@pass_shared
def check(shared: Shared) -> int:
    """Read the configuration, and print what is wrong with it."""
    from tunnelconsole.cli.tables import print_json
    from tunnelconsole.config import examine
    from tunnelconsole.control.figures import counted

    report = examine(shared.config)
    ok = report.config is not None
    services = len(report.config.services) if report.config is not None else 0
    if shared.json:
        print_json({"ok": ok, "services": services, "problems": report.problems, "warnings": report.warnings})
    else:
        complain(*report.problems, *(f"warning: {sentence}" for sentence in report.warnings))
        if report.config is not None and report.config.path is not None:
            click.echo(f"config ok: {counted(services, 'service')}")
    return 0 if ok else 1


@cli.command()
@pass_shared
def status(shared: Shared) -> None:
    """The engine in a few figures."""
    from tunnelconsole.cli.tables import print_status
    from tunnelconsole.control.messages import GetStatus, Status

    print_status(shared.ask(GetStatus(), Status), as_json=shared.json)


@cli.command()
@pass_shared
def services(shared: Shared) -> None:
    """The services: what runs, where, and what is wrong."""
    from tunnelconsole.cli.tables import SERVICES, print_rows
    from tunnelconsole.control.messages import GetServices, GetStatus, Services, Status

    rows = shared.ask(GetServices(), Services).rows
    empty = "" if rows else _no_services(shared.ask(GetStatus(), Status).config)
    print_rows(SERVICES, rows, empty=empty, as_json=shared.json)


def _no_services(config: str) -> str:
    """Why an engine has none, and what to do.

    :param config: of the configuration in force; "" when there is none.
    """
    from tunnelconsole.config import default_path

    if config:
        return f"no services: add [service.NAME] tables to {config}, then run: tunnelconsole reload"
    where = f"write one to {default_path()} and run: tunnelconsole reload"
    return f"no services: the engine runs without a configuration; {where}"


@cli.command()
@click.option("--service", default="", metavar="NAME", help="Of this service only.")
@pass_shared
def sessions(shared: Shared, service: str) -> None:
    """The sessions: who is attached to which service."""
    from tunnelconsole.cli.tables import SESSIONS, print_rows
    from tunnelconsole.control.messages import GetSessions, Sessions

    empty = "no sessions: nobody is attached" + (f" to {service}" if service else "") + " at the moment"
    print_rows(SESSIONS, shared.ask(GetSessions(service), Sessions).rows, empty=empty, as_json=shared.json)


@cli.command()
@click.option("--service", default="", metavar="NAME", help="Of this service only.")
@click.option("--session", default="", metavar="ID", help="Of this session only.")
@pass_shared
def channels(shared: Shared, service: str, session: str) -> None:
    """The channels: every byte stream, with its rate."""
    from tunnelconsole.cli.tables import CHANNELS, print_rows
    from tunnelconsole.control.messages import Channels, GetChannels

    rows = shared.ask(GetChannels(service, session), Channels).rows
    print_rows(CHANNELS, rows, empty="no channels: nothing is piped at the moment", as_json=shared.json)


@cli.command()
@click.option("--service", default="", metavar="NAME", help="Of this service only.")
@pass_shared
def chids(shared: Shared, service: str) -> None:
    """The clients of the channel servers: who sends to whom."""
    from tunnelconsole.cli.tables import CHIDS, print_rows
    from tunnelconsole.control.messages import Chids, GetChids

    empty = "no chids: nobody is attached to a channel server at the moment"
    print_rows(CHIDS, shared.ask(GetChids(service), Chids).rows, empty=empty, as_json=shared.json)


@cli.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens; with --json, a document a line.")
@click.option("--limit", "-n", type=click.IntRange(min=1), default=EVENTS_SHOWN, show_default=True, help="The newest.")
@click.option("--level", type=click.Choice(LEVELS), help="The least that is shown: info, or debug with --json.")
@pass_shared
def events(shared: Shared, limit: int, level: Level | None, *, follow: bool) -> None:
    """What happened, the newest last."""
    from tunnelconsole.cli.tables import EVENTS, follow_events, print_rows
    from tunnelconsole.control.messages import Events, GetEvents

    question = GetEvents(limit=limit, level=level or ("debug" if shared.json else "info"))
    if follow:
        asyncio.run(follow_events(shared.connect, question, as_json=shared.json))
        return
    rows = shared.ask(question, Events).rows
    empty = f"no events of level {question.level} or above: nothing of the kind has happened yet"
    print_rows(EVENTS, rows, empty=empty, as_json=shared.json)


for command in (attempts, audit, bans, ban, unban, requests, request):
    cli.add_command(command)


@cli.command()
@click.argument("service")
@pass_shared
def start(shared: Shared, service: str) -> None:
    """Start a service that does not run, or try it now."""
    from tunnelconsole.control.messages import StartService

    steer(shared, StartService(service))


@cli.command()
@click.argument("service")
@pass_shared
def stop(shared: Shared, service: str) -> None:
    """Stop a service, with every session of it."""
    from tunnelconsole.control.messages import StopService

    steer(shared, StopService(service))


@cli.command()
@click.argument("service")
@pass_shared
def restart(shared: Shared, service: str) -> None:
    """Stop a service and start it again."""
    from tunnelconsole.control.messages import RestartService

    steer(shared, RestartService(service))


@cli.command()
@click.argument("session")
@pass_shared
def kick(shared: Shared, session: str) -> None:
    """End a session, with every channel in it."""
    from tunnelconsole.control.messages import KickSession

    steer(shared, KickSession(session))


@cli.command(short_help="Have a client of a channel server send to others.")
@click.argument("session")
@click.argument("chids", metavar="CHID[,CHID...]")
@pass_shared
def receivers(shared: Shared, session: str, chids: str) -> None:
    """Have SESSION, a client of a channel server, send to these chids and no others; * stands for all."""
    from tunnelconsole.control.messages import SetReceivers

    steer(shared, SetReceivers(session, [] if chids == "*" else chids.split(",")))


cli.add_command(replay)
cli.add_command(retry)
cli.add_command(drain)
cli.add_command(limit)
cli.add_command(reload)


@cli.command(short_help="Give a port here a public port at a relay server.")
@click.argument("target", callback=local_address)
@click.option(
    "--server", callback=server_address, required=True, metavar="ADDRESS", help=f"The relay server, {SERVER_FORMS}."
)
@send_proxy_option
@token_option
@tls_options
@ssh_options
@pass_shared
def tcp(
    shared: Shared,
    target: HostPort,
    server: ServerAddress,
    send_proxy: Version | None,
    token_file: Path | None,
    identity: str | None,
    known_hosts: str | None,
    *,
    tls: bool,
    fingerprint: str | None,
    ca: str | None,
) -> None:
    """Give TARGET, a port here or HOST:PORT, a public port at a relay server.

    Prints where it can be reached, connects again when the server goes away, and ends on Ctrl-C.
    """
    from tunnelconsole.cli.standalone import forward, run
    from tunnelconsole.cli.tables import announcement
    from tunnelconsole.engine.services.relay.client import RelayClientSettings

    settings = RelayClientSettings(
        server=server,
        target=target,
        send_proxy=send_proxy,
        token=token_from(token_file),
        tls=tls_settings(fingerprint, ca, tls=tls),
        ssh=ssh_settings(identity, known_hosts, server),
    )
    run(forward(settings, announce=announcement(str(target), "tcp://", as_json=shared.json), narrate=complain))


cli.add_command(http)


@cli.command(short_help="Standard input and output through a jump server.")
@click.argument("target", callback=address)
@click.option(
    "--via", callback=server_address, required=True, metavar="ADDRESS", help=f"The jump server, {SERVER_FORMS}."
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Holds the secret; else the variable {SECRET_VARIABLE} does.",
)
@tls_options
@ssh_options
@pass_shared
def jump(
    shared: Shared,
    target: HostPort,
    via: ServerAddress,
    secret_file: Path | None,
    identity: str | None,
    known_hosts: str | None,
    *,
    tls: bool,
    fingerprint: str | None,
    ca: str | None,
) -> None:
    """Standard input and output through a jump server to TARGET; fit for ssh's ProxyCommand."""
    from tunnelconsole.cli.standalone import jump as join
    from tunnelconsole.cli.standalone import run

    shared.no_json()
    ssh = ssh_settings(identity, known_hosts, via)
    run(join(via, secret_from(secret_file), target, tls_settings(fingerprint, ca, tls=tls), ssh))


@cli.command(short_help="Standard input and output through a channel server.")
@click.argument("chid", required=False)
@click.option(
    "--server", callback=server_address, required=True, metavar="ADDRESS", help=f"The channel server, {SERVER_FORMS}."
)
@click.option("--broadcast", is_flag=True, help="It is in broadcast mode, without chids: to and from everybody else.")
@click.option("--to", default="", metavar="CHID,...", help="Who gets standard input; all others unless given.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the key that encrypts end to end; the other end has the same.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Holds the server's handshake password, where it has one; else the variable {SECRET_VARIABLE} does.",
)
@token_option
@tls_options
@ssh_options
@pass_shared
def channel(
    shared: Shared,
    chid: str | None,
    server: ServerAddress,
    to: str,
    key_file: Path | None,
    password_file: Path | None,
    token_file: Path | None,
    identity: str | None,
    known_hosts: str | None,
    *,
    broadcast: bool,
    tls: bool,
    fingerprint: str | None,
    ca: str | None,
) -> None:
    """Standard input and output as CHID of a channel server; fit for pipes and for ssh's ProxyCommand.

    Standard input goes to those named with --to, standard output is what others send to CHID. With a key the end of
    either is told to the other; without, the server ends it when nobody is left who sends to CHID.
    """
    from tunnelconsole.cli.standalone import channel as join
    from tunnelconsole.cli.standalone import run
    from tunnelconsole.engine.services.channel.connection import Membership

    shared.no_json()
    given = {"CHID": chid, "--to": to, "--password-file": password_file}
    if broadcast and (needless := [name for name, value in given.items() if value]):
        raise click.UsageError(
            f"--broadcast takes no {needless[0]}: nobody says there who they are, or to whom they send"
        )
    if not broadcast and chid is None:
        raise click.UsageError("missing argument CHID; or give --broadcast, for a server in that mode")
    token = token_from(token_file)
    receivers = tuple(name.strip() for name in to.split(",")) if to else ()
    who = None if chid is None else Membership(chid, receivers, token=token or "")
    key, password = secret_of("--key-file", key_file), secret_of("--password-file", password_file)
    password = None if broadcast else password or secret_of_environment()
    ssh = ssh_settings(identity, known_hosts, server)
    run(join(server, who, key, password, token, tls_settings(fingerprint, ca, tls=tls), ssh))


cli.add_command(punch)
cli.add_command(nat)
cli.add_command(token)
