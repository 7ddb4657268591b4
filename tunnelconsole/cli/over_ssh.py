"""The console of an engine elsewhere: OpenSSH's client, on this terminal."""

from __future__ import annotations

import os
import shutil

import click

from tunnelconsole.engine.wire.ssh_url import SCHEME, parse_ssh_url
from tunnelconsole.errors import TunnelConsoleError

PROGRAM = "ssh"


def become(command: list[str]) -> None:
    """Becomes another program; returns never.

    :param command: of :func:`ssh_command`.
    :raises TunnelConsoleError: it is not on this machine.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise TunnelConsoleError(
            f"a console elsewhere is shown by the program {PROGRAM}, and there is none on the PATH",
            "install OpenSSH's client: the package is called openssh-client or openssh-clients",
        )
    os.execv(program, command)  # noqa: S606 - no shell is wanted


def ssh_command(url: str, identity: str | None, known_hosts: str | None) -> list[str]:
    """The command line that shows the console at ``url``.

    :raises click.BadParameter: it is no such URL.
    """
    try:
        user, host, port, behind = parse_ssh_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    if behind:
        raise click.BadParameter(f"nothing stands behind the host: {SCHEME}user@host:port", param_hint="URL")
    options = ["-t"]
    if port is not None:
        options += ["-p", str(port)]
    if identity is not None:
        options += ["-i", identity, "-o", "IdentitiesOnly=yes"]
    if known_hosts is not None:
        options += ["-o", f'UserKnownHostsFile="{known_hosts}"']
    return [PROGRAM, *options, "--", f"{user}@{host}" if user else host]
