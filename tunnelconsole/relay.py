"""The relay system in a program: give a service behind NAT a public TCP port.

::

    async with tunnelconsole.relay.expose("edge.example.net:7000", "127.0.0.1:22") as exposed:
        print(exposed.address)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.relay.client import RelayClientSettings
from tunnelconsole.engine.settings import HostPort, Secret, ServerAddress, SSHSettings, TLSSettings
from tunnelconsole.engine.wire.proxy_protocol import Version
from tunnelconsole.errors import ConnectFailed, CredentialsRefused

__all__ = ["Exposed", "SSHSettings", "TLSSettings", "expose"]

_NAME = "exposed"


class Exposed:
    """A target that visitors can reach."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def address(self) -> str:
        """The public ``host:port``; empty while the server is being reconnected to, and perhaps another one then."""
        return str(self._engine.services[_NAME].address)

    @property
    def visitors(self) -> int:
        """Visitors connected now."""
        return int(self._engine.services[_NAME].channels)


@asynccontextmanager
async def expose(
    server: str,
    target: str,
    *,
    tls: TLSSettings | None = None,
    ssh: SSHSettings | None = None,
    native: bool = True,
    send_proxy: Version | None = None,
    token: str | None = None,
) -> AsyncIterator[Exposed]:
    """Gives ``target`` a public port at a relay server until the block ends; reconnects by itself meanwhile.

    :param server: the relay server, ``host:port``; ``ssh://user@host:port/host:port`` through an SSH host.
    :param target: where visitors are led, ``host:port``.
    :param tls: settings when the server's listener is a TLS one.
    :param ssh: settings for the SSH host on the way.
    :param native: False never uses data connections, only yamux.
    :param send_proxy: tells the target who comes, by this version of the PROXY protocol.
    :param token: what to prove to the server.
    :raises CredentialsRefused: the server does not take the token or is not the one that was pinned, or the SSH
        host does not let us in.
    :raises ConnectFailed: the server cannot be reached, or has no public port to give.
    :raises ValueError: an address is not ``host:port``, or a setting is wrong.
    """
    settings = RelayClientSettings(
        server=ServerAddress.parse(server),
        target=HostPort.parse(target),
        tls=tls,
        ssh=ssh,
        native=native,
        send_proxy=send_proxy,
        token=None if token is None else Secret(token),
    )
    if problems := settings.problems():
        raise ValueError("; ".join(f"{key} {sentence}" for key, sentence in problems))
    async with Engine({_NAME: settings}) as engine:
        await engine.settled()
        service = engine.services[_NAME]
        if service.state == "failed":
            raise CredentialsRefused(service.error or "the relay server refused us")
        if service.state == "backoff":
            raise ConnectFailed(service.error or "the relay server cannot be reached")
        yield Exposed(engine)
