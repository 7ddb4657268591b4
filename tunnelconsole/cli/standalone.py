"""The commands that need no running engine: one-line clients, and standard input and output through others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tunnelconsole.daemon import loop_factory
from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import (
    Event,
    Repeated,
    ServiceConnected,
    ServiceFailed,
    ServiceRetrying,
    TargetFailed,
)
from tunnelconsole.engine.services.channel import connection as channel_connection
from tunnelconsole.engine.services.jump.connection import CONNECT_TIMEOUT, reach
from tunnelconsole.engine.services.relay.client import RelayClientSettings
from tunnelconsole.engine.services.server_dialer import dialer_of
from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
from tunnelconsole.engine.settings import HostPort, Secret, ServerAddress, SSHSettings, TLSSettings
from tunnelconsole.engine.transport.descriptors import raise_limit
from tunnelconsole.engine.transport.stdio import join_stdio, stdio_through
from tunnelconsole.engine.transport.tls import SHOW_ONE
from tunnelconsole.errors import CertificateRefused, CertificateRejected, TargetRefused, TunnelConsoleError

_NAME = "forwarding"

TOLD = (ServiceConnected, ServiceRetrying, ServiceFailed, TargetFailed, Repeated)
"""The events that :func:`forward` tells; sessions, channels and the rest are for a console."""


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs one of these on the loop that the daemon would run on, with as many descriptors as it would have."""
    raise_limit()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(coroutine)


async def forward(
    settings: RelayClientSettings | TunnelClientSettings,
    *,
    announce: Callable[[str], None],
    narrate: Callable[[str], None],
) -> None:
    """Runs one client until SIGINT, SIGTERM or SIGHUP; connects again by itself.

    :param announce: told the public address, first and whenever it has become another one.
    :param narrate: told in a sentence what goes wrong, and when it is well again.
    :raises TunnelConsoleError: the server refuses us for good.
    """
    happened: asyncio.Queue[Event | None] = asyncio.Queue()

    def note(record: Record) -> None:
        event = record.event
        if isinstance(event, ServiceRetrying | ServiceFailed) and isinstance(
            error := engine.supervised[_NAME].error, CertificateRejected | CertificateRefused
        ):
            event = msgspec.structs.replace(event, error=str(in_own_words(error)))
        if isinstance(event, TOLD):
            happened.put_nowait(event)

    announced = ""
    async with Engine({_NAME: settings}) as engine:
        for record in engine.node.bus.recent():
            note(record)
        engine.node.bus.listen(note)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            engine.node.loop.add_signal_handler(number, happened.put_nowait, None)
        while event := await happened.get():
            match event:
                case ServiceConnected(address=address) if address != announced:
                    announced = address
                    announce(address)
                case ServiceConnected():
                    narrate(f"{event.text()}, as before")
                case ServiceFailed(error=error):
                    raise TunnelConsoleError(error)
                case _:
                    narrate(event.text())


async def jump(
    server: ServerAddress, secret: Secret, target: HostPort, tls: TLSSettings | None, ssh: SSHSettings | None
) -> None:
    """Joins standard input and output with ``target`` through a jump server, until both directions have ended.

    :raises CredentialsRefused: the server does not accept the secret, or is not the one that was pinned.
    :raises ConnectFailed: the server cannot be reached, will not or cannot dial the target, or broke off.
    :raises OSError: standard input cannot be read, or standard output not written.
    """
    async with dialer_of(server, None, tls, ssh, CONNECT_TIMEOUT) as dialer:
        try:
            end, early = await reach(dialer, secret, target, CONNECT_TIMEOUT)
        except (CertificateRejected, CertificateRefused) as error:
            raise in_own_words(error) from error
        except TargetRefused as error:
            raise TargetRefused(f"the jump server did not connect to {target}: {error.message}", error.hint) from error
        await join_stdio(end, early)


async def channel(
    server: ServerAddress,
    who: channel_connection.Membership | None,
    key: Secret | None,
    password: Secret | None,
    token: Secret | None,
    tls: TLSSettings | None,
    ssh: SSHSettings | None,
) -> None:
    """Joins standard input and output with a channel server, until both directions have ended.

    A SIGTERM or SIGHUP, such as ssh's for its ProxyCommand, ends it once what was written just before has been sent;
    with a ``key`` the other end is told.

    :param who: who we are there, and who gets standard input; None for a server in broadcast mode.
    :param key: encrypts end to end; None for no encryption.
    :param password: the server's handshake password; None when it has none.
    :param token: what to prove to the server, where that is not in ``who``; None for nothing.
    :raises CredentialsRefused: the server does not accept the password, or is not the one that was pinned.
    :raises ConnectFailed: the server cannot be reached, does not let us in, or broke off; or what came is not what the
        other end had sealed.
    :raises OSError: standard input cannot be read, or standard output not written.
    """
    async with dialer_of(server, None, tls, ssh, CONNECT_TIMEOUT) as dialer:
        known = channel_connection.Password(password) if password is not None else None
        try:
            if who is None:
                end, _, early = await channel_connection.reach_broadcast(dialer, token or "", CONNECT_TIMEOUT)
            else:
                end, _, early = await channel_connection.reach(dialer, who, known, CONNECT_TIMEOUT)
        except (CertificateRejected, CertificateRefused) as error:
            raise in_own_words(error) from error
        except ValueError as error:
            raise TunnelConsoleError(str(error)) from error
        with cancelled_by(signal.SIGTERM, signal.SIGHUP):
            if key is None:
                await join_stdio(end, early)
                return
            # Only where there is a key: cryptography costs 10 MiB and a tenth of a second.
            from tunnelconsole.engine.services.channel.sealed_join import sealed_join  # noqa: PLC0415

            await stdio_through(sealed_join(end, key, early))


@contextmanager
def cancelled_by(*numbers: signal.Signals) -> Iterator[None]:
    """Cancels the task when one of these signals comes, and lets the signal do what it does once that is done."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    came: list[signal.Signals] = []

    def cancel(number: signal.Signals) -> None:
        came.append(number)
        if task is not None:
            task.cancel()

    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP
    for number in handled:
        loop.add_signal_handler(number, cancel, number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
        if came:
            os.kill(os.getpid(), came[0])


def in_own_words(error: CertificateRejected | CertificateRefused) -> CertificateRejected | CertificateRefused:
    """The same with the options of the commands in place of the keys of the configuration."""
    text = error.hint
    for key, option in (
        ("tls.fingerprint", "--fingerprint"),
        ("tls.ca", "--ca"),
        (SHOW_ONE, "give --certificate and --key that the server takes"),
    ):
        text = text.replace(key, option)
    return type(error)(error.message, text)
