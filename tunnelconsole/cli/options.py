"""What the commands are given: the options that mean the same everywhere, addresses, secrets and TLS."""

# ruff: noqa: PLC0415 - what a command does not use, it does not wait for

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tunnelconsole.errors import EngineUnreachable, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.control.client import ControlClient
    from tunnelconsole.control.messages import Reply, Request
    from tunnelconsole.engine.settings import (
        HostPort,
        RendezvousAddress,
        Secret,
        ServerAddress,
        SSHSettings,
        TLSSettings,
    )

SERVER_FORMS = "HOST:PORT, or ssh://USER@HOST/HOST:PORT through an SSH host"
"""How a server is named."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the signal's number, as shells have it."""

SECRET_VARIABLE = "TUNNELCONSOLE_SECRET"  # noqa: S105 - a variable's name
"""The environment variable that may hold a secret; an argument never does, because everybody can see those."""

TOKEN_VARIABLE = "TUNNELCONSOLE_TOKEN"  # noqa: S105 - a variable's name
"""The same for a token."""

LEVELS = ("debug", "info", "warning", "error")
"""The levels of events and of the log, the mildest first."""

Wanted = TypeVar("Wanted", bound="Reply")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Shared:
    """What the options that every command has were given as; behind the command counts more than before it."""

    config: Path | None = None
    socket: Path | None = None
    json: bool = False
    log_level: str | None = None
    log_format: str | None = None

    def control(self) -> Path:
        """Where the control socket is.

        :raises ConfigError: the configuration does not say.
        """
        if self.socket is not None:
            return self.socket
        from tunnelconsole.config import control_path

        return control_path(self.config)

    def ask(self, request: Request, wanted: type[Wanted]) -> Wanted:
        """Asks the running engine one thing.

        :raises RequestRefused: the engine refused.
        :raises EngineUnreachable: there is none, or it did not answer.
        """

        async def ask() -> Reply:
            async with await self.connect() as client:
                return await client.ask(request)

        reply = asyncio.run(ask())
        if not isinstance(reply, wanted):
            raise EngineUnreachable("the engine answered something else than it was asked", "restart the engine")
        return reply

    async def connect(self) -> ControlClient:
        """A connection to the running engine.

        :raises EngineUnreachable: there is none.
        """
        from tunnelconsole.config import default_path
        from tunnelconsole.control.client import ControlClient

        try:
            return await ControlClient.connect(self.control())
        except EngineUnreachable as error:
            if self.socket is not None or self.config is not None or default_path().exists():
                raise
            nowhere = f"there is no configuration at {default_path()} that says where else; -c FILE names another"
            raise EngineUnreachable(error.message, f"{error.hint}; {nowhere}") from error

    def no_json(self) -> None:
        """Says so where there is no document to print."""
        if self.json:
            raise click.UsageError("--json is for commands that print data")


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    shared = context.ensure_object(Shared)
    if value and parameter.name:
        setattr(shared, parameter.name, value)


def _shared_options() -> list[click.Parameter]:
    kept: dict[str, Any] = {"expose_value": False, "callback": _keep}
    path = click.Path(path_type=Path)
    levels, formats = click.Choice(LEVELS), click.Choice(["text", "json"])
    return [
        click.Option(["-c", "--config"], type=path, metavar="FILE", help="The configuration.", **kept),
        click.Option(["--socket"], type=path, metavar="PATH", help="The engine's control socket.", **kept),
        click.Option(["--json"], is_flag=True, help="Print one JSON document.", **kept),
        click.Option(["--log-level"], type=levels, help="The least that an engine started here logs.", **kept),
        click.Option(["--log-format"], type=formats, help="How an engine started here logs.", **kept),
    ]


class Command(click.Command):
    """A command with the shared options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params += _shared_options()


class Commands(click.Group):
    """Commands, in the order in which they were written, with the shared options before and behind each."""

    command_class = Command

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params += _shared_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the file: what is asked first, first

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def address(context: click.Context, parameter: click.Parameter, value: str) -> HostPort:
    """What is written as ``host:port``."""
    from tunnelconsole.engine.settings import HostPort

    try:
        return HostPort.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def server_address(context: click.Context, parameter: click.Parameter, value: str) -> ServerAddress:
    """What is written as ``host:port``, with or without an SSH host before it."""
    from tunnelconsole.engine.settings import ServerAddress

    try:
        return ServerAddress.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def rendezvous_address(context: click.Context, parameter: click.Parameter, value: str) -> RendezvousAddress:
    """What is written as the ``host:port`` of a punch server."""
    from tunnelconsole.engine.settings import RendezvousAddress

    try:
        return RendezvousAddress.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def local_address(context: click.Context, parameter: click.Parameter, value: str) -> HostPort:
    """What is written as ``host:port``, or as a port of this machine."""
    return address(context, parameter, f"127.0.0.1:{value}" if value.isdecimal() else value)


pass_shared = click.make_pass_decorator(Shared, ensure=True)
"""Gives a command its :class:`Shared` as the first argument."""


def tls_options(command: Function) -> Function:
    """Gives a command --tls and :func:`trust_options`, which :func:`tls_settings` takes."""
    return click.option("--tls", is_flag=True, help="The server's listener is a TLS one.")(trust_options(command))


def _keep_for_tls(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Keeps what an option names until :func:`tls_settings` asks, so that no command has to hand it on."""
    context.meta[f"{__name__}.{parameter.name}"] = value


_OWN: Final[dict[str, Any]] = {
    "type": click.Path(exists=True, dir_okay=False),
    "callback": _keep_for_tls,
    "expose_value": False,
}


def trust_options(command: Function) -> Function:
    """Gives a command --fingerprint, --ca, --certificate and --key."""
    for option in (
        click.option("--key", **_OWN, help="PEM file with the private key of --certificate."),
        click.option("--certificate", **_OWN, help="PEM file with our certificate, for a server that wants one."),
        click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="PEM file of who may vouch for it."),
        click.option("--fingerprint", metavar="SHA256", help="Pins the certificate of the server, which is a TLS one."),
    ):
        command = option(command)
    return command


def send_proxy_option(command: Function) -> Function:
    """Gives a command --send-proxy."""
    return click.option(
        "--send-proxy", type=click.Choice(("v1", "v2")), help="Tell TARGET who comes, by the PROXY protocol."
    )(command)


def ssh_options(command: Function) -> Function:
    """Gives a command --identity and --known-hosts, which :func:`ssh_settings` takes."""
    for option in (
        click.option("--known-hosts", metavar="FILE", help="Where ssh:// finds the keys of hosts that are known."),
        click.option("--identity", metavar="FILE", help="The private key for ssh://; else an agent's or ~/.ssh/id_*."),
    ):
        command = option(command)
    return command


def ssh_settings(identity: str | None, known_hosts: str | None, *addresses: HostPort | None) -> SSHSettings | None:
    """What --identity and --known-hosts ask for; None where nothing is asked for.

    :param addresses: those that may lead through an SSH host.
    :raises click.UsageError: none of them does.
    :raises TunnelConsoleError: a file cannot be used.
    """
    from tunnelconsole.config.ssh_files import wrong_with
    from tunnelconsole.engine.settings import FilePath, SSHSettings, via_of

    given = {"identity": identity, "known_hosts": known_hosts}
    files = {name: FilePath(file).resolve(Path.cwd()) for name, file in given.items() if file is not None}
    for name, file in files.items():
        option = f"--{name.replace('_', '-')}"
        if not any(address is not None and via_of(address) is not None for address in addresses):
            raise click.UsageError(f"{option} is for a server that is reached through ssh://")
        if sentence := wrong_with(name, file):
            raise TunnelConsoleError(f"{option}: {sentence}")
    return SSHSettings(identity=files.get("identity"), known_hosts=files.get("known_hosts")) if files else None


def token_option(function: Function) -> Function:
    """``--token-file``, for a server that wants a token; see :func:`token_from`."""
    return click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Holds the token, where the server wants one; else the variable {TOKEN_VARIABLE} does.",
    )(function)


def token_from(file: Path | None) -> Secret | None:
    """The token in a file, or else in the environment; None when there is none.

    :raises TunnelConsoleError: the file cannot be read, everybody can read it, or it holds something else.
    """
    from tunnelconsole.engine.wire.token_proof import is_secret

    token = secret_of("--token-file", file) or secret_of_environment(TOKEN_VARIABLE)
    if token is not None and not is_secret(token):
        where = f"--token-file: {file}" if file is not None else TOKEN_VARIABLE
        raise TunnelConsoleError(f'{where} holds no token: one has 46 characters, of which the first are "tc_"')
    return token


def secret_from(file: Path | None) -> Secret:
    """The secret in a file, or else in the environment.

    :raises TunnelConsoleError: the file cannot be read, or everybody can read it.
    :raises click.UsageError: there is neither.
    """
    secret = secret_of("--secret-file", file) or secret_of_environment()
    if secret is None:
        raise click.UsageError(f"the secret is missing: give --secret-file, or set {SECRET_VARIABLE}")
    return secret


def secret_of(option: str, file: Path | None) -> Secret | None:
    """The secret in the file that an option names; None when it names none.

    :raises TunnelConsoleError: the file cannot be read, or everybody can read it.
    """
    from tunnelconsole.config.secret_file import read_secret_file
    from tunnelconsole.engine.settings import Secret

    if file is None:
        return None
    try:
        return Secret(read_secret_file(file))
    except ValueError as error:
        raise TunnelConsoleError(f"{option}: {error}") from error


def secret_of_environment(variable: str = SECRET_VARIABLE) -> Secret | None:
    """The secret in the environment; None when there is none."""
    from tunnelconsole.engine.settings import Secret

    secret = os.environ.get(variable, "")
    return Secret(secret) if secret else None


def tls_settings(fingerprint: str | None, ca: str | None, *, tls: bool) -> TLSSettings | None:
    """What --tls, --fingerprint, --ca, --certificate and --key ask for; None for no TLS.

    :raises click.UsageError: the fingerprint is none, or a certificate has no key.
    :raises TunnelConsoleError: a file cannot be used.
    """
    from tunnelconsole.engine.services.server_dialer import context_of
    from tunnelconsole.engine.settings import FilePath, Fingerprint, TLSSettings
    from tunnelconsole.engine.transport.tls import client_context

    kept = click.get_current_context().meta
    own = {name: kept.get(f"{__name__}.{name}") for name in ("certificate", "key")}
    if not tls and fingerprint is None and ca is None and not any(own.values()):
        return None
    if sum(file is not None for file in own.values()) == 1:
        raise click.UsageError("--certificate and --key go together")
    try:
        pin = Fingerprint.parse(fingerprint) if fingerprint is not None else None
    except ValueError as error:
        raise click.UsageError(f"--fingerprint: {error}") from error
    if ca is not None:
        try:
            client_context(Path(ca), "")
        except OSError as error:  # of a file that can be read, OpenSSL says too little
            reason = error.strerror if isinstance(error, PermissionError) else "it has no certificates in PEM form"
            raise TunnelConsoleError(f"--ca: {ca} cannot be used: {reason}") from error
    files = {name: FilePath(file) for name, file in {"ca": ca, **own}.items() if file is not None}
    settings = TLSSettings(
        fingerprint=pin, ca=files.get("ca"), certificate=files.get("certificate"), key=files.get("key")
    )
    context_of(settings)
    return settings
