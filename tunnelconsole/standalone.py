"""The commands that need no running engine: a one-line relay client, and standard input and output through a jump."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from tunnelconsole.daemon import loop_factory
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Record, ServiceConnected, ServiceFailed, ServiceRetrying, TargetFailed
from tunnelconsole.engine.services.jump.connection import CONNECT_TIMEOUT, reach
from tunnelconsole.engine.services.relay.client import RelayClientSettings
from tunnelconsole.engine.services.service import ServerDialer
from tunnelconsole.engine.settings import HostPort, Secret, TLSSettings
from tunnelconsole.engine.transport.stdio import join_stdio
from tunnelconsole.errors import TunnelConsoleError

_NAME = "tcp"


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
    """Gives ``target`` a public port at a relay server until SIGINT or SIGTERM; connects again by itself.

    :param announce: told the public ``host:port``, first and whenever it has become another one.
    :param narrate: told in a sentence what goes wrong, and when it is well again.
    :raises TunnelConsoleError: the server refuses us for good.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    announced = ""

    def told(record: Record) -> None:
        nonlocal announced
        match record.event:
            case ServiceConnected(address=address) if address != announced:
                announced = address
                announce(address)
            case ServiceConnected(server=name):
                narrate(f"connected to {name} again")
            case ServiceRetrying() | TargetFailed() as event:
                narrate(event.text())
            case ServiceFailed(error=error) if not ended.done():
                ended.set_exception(TunnelConsoleError(error))
            case _:
                pass  # sessions, channels and the rest are for a console

    settings = RelayClientSettings(server=server, target=target, tls=tls)
    async with Engine({_NAME: settings}) as engine:
        engine.node.bus.listen(told)  # before the service's task has had its first turn, so nothing is missed
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _end, ended)
        await ended


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


async def jump(server: HostPort, secret: Secret, target: HostPort, tls: TLSSettings | None) -> None:
    """Joins standard input and output with ``target`` through a jump server, until both directions have ended.

    :raises CredentialsRefused: the server does not accept the secret, or is not the one that was pinned.
    :raises ConnectFailed: the server cannot be reached, will not or cannot dial the target, or broke off.
    :raises OSError: standard input cannot be read, or standard output not written.
    """
    dialer = ServerDialer(server, None, tls, CONNECT_TIMEOUT)
    end, early = await reach(dialer, secret, target, CONNECT_TIMEOUT)
    await join_stdio(end, early)
