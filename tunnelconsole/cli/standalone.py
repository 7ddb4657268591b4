"""The commands that need no running engine: a one-line relay client, and standard input and output through a jump."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
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
from tunnelconsole.engine.services.jump.connection import CONNECT_TIMEOUT, reach
from tunnelconsole.engine.services.relay.client import RelayClientSettings
from tunnelconsole.engine.services.service import ServerDialer
from tunnelconsole.engine.settings import HostPort, Secret, TLSSettings
from tunnelconsole.engine.transport.stdio import join_stdio
from tunnelconsole.errors import CertificateRejected, TargetRefused, TunnelConsoleError

_NAME = "tcp"

TOLD = (ServiceConnected, ServiceRetrying, ServiceFailed, TargetFailed, Repeated)
"""The events that :func:`forward` tells; sessions, channels and the rest are for a console."""


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs :func:`forward` or :func:`jump` on the loop that the daemon would run on."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(coroutine)


async def forward(
    server: HostPort,
    target: HostPort,
    tls: TLSSettings | None,
    *,
    announce: Callable[[str], None],
    narrate: Callable[[str], None],
) -> None:
    """Gives ``target`` a public port at a relay server until SIGINT, SIGTERM or SIGHUP; connects again by itself.

    :param announce: told the public ``host:port``, first and whenever it has become another one.
    :param narrate: told in a sentence what goes wrong, and when it is well again.
    :raises TunnelConsoleError: the server refuses us for good.
    """
    happened: asyncio.Queue[Event | None] = asyncio.Queue()

    def note(record: Record) -> None:
        event = record.event
        if isinstance(event, ServiceRetrying) and isinstance(
            error := engine.supervised[_NAME].error, CertificateRejected
        ):
            event = msgspec.structs.replace(event, error=str(_in_own_words(error)))
        if isinstance(event, TOLD):
            happened.put_nowait(event)

    announced = ""
    async with Engine({_NAME: RelayClientSettings(server=server, target=target, tls=tls)}) as engine:
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


async def jump(server: HostPort, secret: Secret, target: HostPort, tls: TLSSettings | None) -> None:
    """Joins standard input and output with ``target`` through a jump server, until both directions have ended.

    :raises CredentialsRefused: the server does not accept the secret, or is not the one that was pinned.
    :raises ConnectFailed: the server cannot be reached, will not or cannot dial the target, or broke off.
    :raises OSError: standard input cannot be read, or standard output not written.
    """
    dialer = ServerDialer(server, None, tls, CONNECT_TIMEOUT)
    try:
        end, early = await reach(dialer, secret, target, CONNECT_TIMEOUT)
    except CertificateRejected as error:
        raise _in_own_words(error) from error
    except TargetRefused as error:
        raise TargetRefused(f"the jump server did not connect to {target}: {error.message}", error.hint) from error
    await join_stdio(end, early)


def _in_own_words(error: CertificateRejected) -> CertificateRejected:
    """The same with the options of the commands in place of the keys of the configuration."""
    return CertificateRejected(
        error.message, "pin a self-signed certificate with --fingerprint, or name its authority with --ca"
    )
