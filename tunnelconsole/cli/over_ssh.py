"""The console of an engine elsewhere: OpenSSH's client, on this terminal."""

from __future__ import annotations

import os
import shutil

import click

from tunnelconsole.engine.wire.ssh_url import SCHEME, parse_ssh_url
from tunnelconsole.errors import TunnelConsoleError

PROGRAM = "ssh"


def attach_over_ssh(url: str, identity: str | None, known_hosts: str | None) -> None:
    """Becomes ssh; returns never.

    :param url: ``ssh://user@host:port``, where an ssh-server of ours listens.
    :param identity: the private key; ssh's own choice when None.
    :param known_hosts: where ssh looks the host's key up; its own choice when None.
    :raises click.BadParameter: it is no such URL.
    :raises TunnelConsoleError: there is no ssh on this machine.
    """
    command = ssh_command(url, identity, known_hosts)
    program = shutil.which(PROGRAM)
    if program is None:
        raise TunnelConsoleError(
            f"the console of {url} needs the program {PROGRAM}, and there is none on the PATH",
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
