"""The tunnel system in a program: give a local web service a public hostname, or be the server that does.

::

    async with tunnelconsole.tunnel.expose("http://app.example.net:8080", "3000") as exposed:
        print(exposed.url)

    def authenticate(request):
        if request.get("X-Team") != "blue":
            raise tunnelconsole.tunnel.Refused("only the blue team may")

    async with tunnelconsole.tunnel.TunnelServer("127.0.0.1:8080", authenticate=authenticate) as server:
        print(server.address)
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import TunnelConnected, TunnelConnecting, TunnelDisconnected
from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.rates import RateSettings
from tunnelconsole.engine.services.tunnel.client import TunnelClient as _ClientService
from tunnelconsole.engine.services.tunnel.client import TunnelClientSettings
from tunnelconsole.engine.services.tunnel.hooks import Hooks, Judge, Request, Verdict
from tunnelconsole.engine.services.tunnel.server import TunnelServer as _ServerService
from tunnelconsole.engine.services.tunnel.server import TunnelServerSettings
from tunnelconsole.engine.services.tunnel.target import Target, TunnelURL
from tunnelconsole.engine.settings import FilePath, ListenAddress, Secret, ServerAddress, SSHSettings, TLSSettings
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, ListenFailed

__all__ = [
    "Exposed",
    "RateSettings",
    "Refused",
    "Request",
    "SSHSettings",
    "State",
    "TLSSettings",
    "TunnelClient",
    "TunnelServer",
    "expose",
]

_SERVER, _CLIENT = "tunnel-server", "tunnel-client"

DRAIN = 5.0
"""Seconds that requests under way may take when a server or client is left: an embedding program wants to end."""


class Refused(Exception):
    """Raised by a callback to refuse a tunnel or a visit; the message is the reason that is told."""


class State(IntEnum):
    """A tunnel client's state, with the original's numbers."""

    CONNECTING = 1
    CONNECTED = 2
    DISCONNECTED = 3


Callback = Callable[[Request], Verdict]
"""Returns None to let it be or a reason to refuse it, or raises :class:`Refused`; may be a coroutine function."""


def _judge(callback: Callback | None) -> Judge | None:
    if callback is None:
        return None

    def judge(request: Request) -> Verdict:
        try:
            verdict = callback(request)
        except Refused as refusal:
            return str(refusal) or "refused"
        return _wait(verdict) if inspect.isawaitable(verdict) else verdict

    return judge


async def _wait(verdict: Awaitable[str | None]) -> str | None:
    try:
        return await verdict
    except Refused as refusal:
        return str(refusal) or "refused"


class TunnelServer:
    """A tunnel server, for as long as ``async with`` lasts.

    :param listen: where clients and visitors come, ``host:port``; port 0 takes a free one.
    :param certificate: a PEM file; with ``key``, the server speaks HTTPS.
    :param tokens: a token for each identity; without any, everybody may have a tunnel.
    :param authenticate: asked when somebody wants a tunnel.
    :param access: asked on each visit.
    :param on_connection: told the public URL of each tunnel that is there now, and its client's ``host:port``.
    :param on_disconnection: told the same of each that is gone, and why.
    :param more: other settings of ``kind = "tunnel-server"``, as :class:`TunnelServerSettings` has them.
    :raises ValueError: a setting is wrong.
    """

    def __init__(
        self,
        listen: str = "127.0.0.1:0",
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        tokens: Mapping[str, str] | None = None,
        hosts_allow: tuple[str, ...] = (),
        hosts_deny: tuple[str, ...] = (),
        authenticate: Callback | None = None,
        access: Callback | None = None,
        on_connection: Callable[[str, str], None] | None = None,
        on_disconnection: Callable[[str, str, str], None] | None = None,
        **more: Any,
    ) -> None:
        self._settings = TunnelServerSettings(
            listen=ListenAddress.parse(listen),
            certificate=FilePath(certificate) if certificate is not None else None,
            key=FilePath(key) if key is not None else None,
            tokens={identity: Secret(token) for identity, token in (tokens or {}).items()},
            hosts_allow=tuple(map(HostPattern.parse, hosts_allow)),
            hosts_deny=tuple(map(HostPattern.parse, hosts_deny)),
            **more,
        )
        if problems := self._settings.problems():
            raise ValueError("; ".join(f"{key} {sentence}" for key, sentence in problems))
        self._hooks = Hooks(_judge(authenticate), _judge(access), on_connection, on_disconnection)
        self._engine = Engine({_SERVER: self._settings})

    @property
    def service(self) -> _ServerService:
        """The service behind it."""
        service = self._engine.services[_SERVER]
        if not isinstance(service, _ServerService):
            raise TypeError("not a tunnel server")
        return service

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``."""
        return self.service.address

    @property
    def tunnels(self) -> list[str]:
        """The public URLs of the tunnels there are."""
        return sorted(session.address for session in self.service.attached)

    async def __aenter__(self) -> Self:
        await self._engine.start()
        service = self.service
        service.hooks = self._hooks  # before its run has begun, which is on the next turn of the loop
        await self._engine.settled()
        if service.state != "listening":
            error = service.error or "the tunnel server does not listen"
            await self._engine.stop(drain=0.0)
            raise ListenFailed(error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.stop(drain=DRAIN, cause="the program that embeds it is done")


class TunnelClient:
    """A tunnel client, for as long as ``async with`` lasts; it connects again by itself, unless it is refused.

    :param server: the public URL, ``http://app.example.net:8080``; its host is the public hostname.
    :param target: a port of this machine, ``host:port``, or a folder.
    :param token: what proves who we are.
    :param connect: the address to dial when it is not the one that ``server`` names, ``host:port``; with
        ``ssh://user@host:port/`` before it, or before ``server``, where an SSH host is on the way.
    :param host_header: what the service is told as ``Host``.
    :param on_state: told each change of state.
    :param more: other settings of ``kind = "tunnel-client"``, as :class:`TunnelClientSettings` has them.
    :raises ValueError: a setting is wrong.
    """

    def __init__(
        self,
        server: str,
        target: str | int,
        *,
        token: str = "",
        connect: str = "",
        host_header: str = "",
        tls: TLSSettings | None = None,
        on_state: Callable[[State], None] | None = None,
        **more: Any,
    ) -> None:
        self._settings = TunnelClientSettings(
            server=TunnelURL.parse(server),
            target=Target.parse(str(target)).resolve(Path.cwd()),
            token=Secret(token) if token else None,
            connect=ServerAddress.parse(connect) if connect else None,
            host_header=host_header,
            tls=tls,
            **more,
        )
        if problems := self._settings.problems():
            raise ValueError("; ".join(f"{key} {sentence}" for key, sentence in problems))
        self._on_state = on_state
        self._engine = Engine({_CLIENT: self._settings})
        self.state = State.DISCONNECTED
        """Where it stands now."""

    @property
    def service(self) -> _ClientService:
        """The service behind it."""
        service = self._engine.services[_CLIENT]
        if not isinstance(service, _ClientService):
            raise TypeError("not a tunnel client")
        return service

    @property
    def url(self) -> str:
        """The public URL; empty while there is no tunnel."""
        return self.service.address

    @property
    def error(self) -> str:
        """Why there is no tunnel; empty while there is one."""
        return self.service.error or ""

    async def __aenter__(self) -> Self:
        await self._engine.start()
        self._engine.node.bus.listen(self._happened)
        await self._engine.settled()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.stop(drain=DRAIN, cause="the program that embeds it is done")
        self._enter(State.DISCONNECTED)

    def _happened(self, record: Record) -> None:
        match record.event:
            case TunnelConnecting():
                self._enter(State.CONNECTING)
            case TunnelConnected():
                self._enter(State.CONNECTED)
            case TunnelDisconnected():
                self._enter(State.DISCONNECTED)

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            if self._on_state is not None:
                self._on_state(state)


class Exposed:
    """A local service that visitors can reach."""

    def __init__(self, client: TunnelClient) -> None:
        self._client = client

    @property
    def url(self) -> str:
        """The public URL; empty while the server is being reconnected to."""
        return self._client.url


@asynccontextmanager
async def expose(
    server: str, target: str | int, *, token: str = "", tls: TLSSettings | None = None, **more: Any
) -> AsyncIterator[Exposed]:
    """Gives ``target`` a public hostname until the block ends; reconnects by itself meanwhile.

    :param server: the public URL, ``http://app.example.net:8080``.
    :param target: a port of this machine, ``host:port``, or a folder.
    :param token: what proves who we are.
    :param tls: settings for a server whose URL begins with https, where its certificate needs some.
    :param more: as for :class:`TunnelClient`.
    :raises CredentialsRefused: the server refuses the tunnel for good.
    :raises ConnectFailed: the server cannot be reached, or refuses the tunnel for now.
    :raises ValueError: a setting is wrong.
    """
    async with TunnelClient(server, target, token=token, tls=tls, **more) as client:
        service = client.service
        if service.state == "failed":
            raise CredentialsRefused(service.error or "the tunnel server refused the tunnel")
        if service.state == "backoff":
            raise ConnectFailed(service.error or "the tunnel server cannot be reached")
        yield Exposed(client)
