"""The tunnel client: keeps a session with the tunnel server, and leads visitors' requests to the local service."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import ClassVar, Final

from tunnelconsole.engine.events import TunnelConnected, TunnelConnecting, TunnelDisconnected
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rules import Problem, Rule, above_zero
from tunnelconsole.engine.services.native import (
    KEEPALIVE,
    KEEPALIVE_RULE,
    SPARE_CONNECTIONS,
    SPARE_RULE,
)
from tunnelconsole.engine.services.send_proxy import SendProxy
from tunnelconsole.engine.services.server_dialer import ClientService, ClientSettings, ServerDialer, ssh_rules
from tunnelconsole.engine.services.tunnel.attachment import Attachment, read_answer
from tunnelconsole.engine.services.tunnel.folder import Folder
from tunnelconsole.engine.services.tunnel.health import (
    HEALTH_FAILURES,
    HEALTH_INTERVAL,
    HEALTH_TIMEOUT,
    Health,
    HealthCheck,
)
from tunnelconsole.engine.services.tunnel.health_events import TargetHealthy, TargetUnhealthy
from tunnelconsole.engine.services.tunnel.inspector import Inspector
from tunnelconsole.engine.services.tunnel.server import RESPONSE_TIMEOUT, SWEEP
from tunnelconsole.engine.services.tunnel.target import Target, TunnelURL
from tunnelconsole.engine.settings import Secret, TLSSettings
from tunnelconsole.engine.transport.ends import send_all
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.http.head import MAX_TARGET, HttpError, check_host
from tunnelconsole.engine.wire.http.told_host import ToldHost
from tunnelconsole.engine.wire.tunnel import check_token, tunnel_request
from tunnelconsole.engine.wire.tunnel_lines import (
    MAX_WANTED,
)
from tunnelconsole.errors import ConnectFailed, TunnelConsoleError

OWN_TOKEN_BYTES: Final = 32
"""Bytes of the token that a client without one makes up: nobody can guess it, and so take the client's place."""


def _usable_host(host_header: str) -> list[Problem]:
    try:
        if host_header:
            check_host(host_header)
    except HttpError:
        return [("host_header", "is not a host name with or without a port")]
    return []


def _usable_token(token: Secret | None) -> list[Problem]:
    try:
        if token:
            check_token(token)
    except ValueError as error:
        return [("token", str(error).removeprefix("the token "))]
    return []


def _checkable(check: HealthCheck, target: Target) -> list[Problem]:
    if check != "none" and target.address is None:
        return [("health_check", "is for services, and target is a folder, which is always there")]
    return []


def _dialled(send_proxy: SendProxy | None, target: Target) -> list[Problem]:
    if send_proxy is not None and target.address is None:
        return [("send_proxy", "is for services, and target is a folder, which asks nobody who comes")]
    return []


def _usable_path(path: str) -> list[Problem]:
    if re.fullmatch(r"/[\x21\x22\x24-\x7e]*", path) and len(path) <= MAX_TARGET:
        return []
    return [("health_path", 'is not a path; write one as "/health", other characters than ASCII escaped')]


def _tls_by_url(server: TunnelURL, tls: TLSSettings | None) -> list[Problem]:
    if tls is not None and server.scheme == "http":
        return [("tls", "is for a server whose URL begins with https")]
    return []


class TunnelClientSettings(ClientSettings, frozen=True, kw_only=True):
    """``kind = "tunnel-client"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("host_header",), _usable_host),
        Rule(("token",), _usable_token),
        SPARE_RULE,
        Rule(("server", "tls"), _tls_by_url),
        *ssh_rules(lambda url: url.address),
        KEEPALIVE_RULE,
        Rule(("health_check", "target"), _checkable),
        Rule(("send_proxy", "target"), _dialled),
        Rule(("health_path",), _usable_path),
        above_zero("health_interval", "the service would be asked without a pause"),
        above_zero("health_timeout", "no service could answer in no time"),
        above_zero("health_failures", "a service that never failed would be unhealthy"),
        above_zero("response_timeout", "no service could answer in no time"),
    )

    server: TunnelURL
    """The public URL: its host is the public hostname."""
    token: Secret | None = None
    """What proves who we are."""
    target: Target
    """A local port, ``host:port``, or a folder."""
    send_proxy: SendProxy | None = None
    """The version of the PROXY protocol in which the service is told who each visitor is; None: it is not told so.

    Visitors then share no connection to it. Of those whom a server brings that makes no data connections, it is told
    that nobody knows: such a server may pass on what a visitor says of itself.
    """
    host_header: str = ""
    """What the service is told as ``Host``, in place of what the visitor asked for."""
    native: bool = True
    """Whether to bring visitors over data connections when the server is one of ours; False uses yamux always.

    Through an SSH host they take TLS, because only so a visitor is told when we break off.
    """
    spare_connections: int = SPARE_CONNECTIONS
    """Data connections kept ready."""
    health_check: HealthCheck = "none"
    """How the service is asked whether it works; while it does not, visitors are not led to it."""
    health_path: str = "/"
    """What a check by HTTP asks for."""
    health_interval: Duration = Duration(HEALTH_INTERVAL)
    """Seconds between two checks."""
    health_timeout: Duration = Duration(HEALTH_TIMEOUT)
    """Seconds that one may take."""
    health_failures: int = HEALTH_FAILURES
    """Checks that fail in a row until the service counts as unhealthy."""
    inspect: bool = True
    """Whether the last exchanges are kept in memory to be looked at."""
    response_timeout: Duration = Duration(RESPONSE_TIMEOUT)
    """Seconds the service has to begin its answer."""
    keepalive: Duration = Duration(KEEPALIVE)
    """Seconds between two questions whether the server lives; unanswered, it is gone after twice that."""


def _told_host(settings: TunnelClientSettings) -> ToldHost | None:
    if not settings.host_header:
        return None
    address = settings.target.address
    return ToldHost(settings.host_header, *((address.host, address.port) if address is not None else ()))


class TunnelClient(ClientService[TunnelClientSettings]):
    """Gives a web service a public hostname at a tunnel server, the original program included."""

    kind = "tunnel-client"
    shares_rates = False

    def __init__(self, name: str, settings: TunnelClientSettings, node: Node) -> None:
        super().__init__(name, settings, node, settings.server.address, secure=settings.server.scheme == "https")
        self.inspector = Inspector()
        self.folder = Folder(Path(settings.target.folder))
        self.token = settings.token or secrets.token_urlsafe(OWN_TOKEN_BYTES)
        self.told = _told_host(settings)
        """What the service is told as ``Host``; None for what the visitor asked for."""
        self._health = self._checked()
        """None where the service is not checked."""
        self._attachments: set[Attachment] = set()
        self.attachment: Attachment | None = None
        """The session with the server; None while there is none."""
        self._stopping = False
        self._sweeping: asyncio.TimerHandle | None = None

    def _checked(self) -> Health | None:
        settings, target = self.settings, self.settings.target.address
        if settings.health_check == "none" or target is None:
            return None
        self.notes["health"] = "healthy"
        return Health(
            target,
            settings.health_path if settings.health_check == "http" else None,
            host=settings.host_header or settings.server.host,
            interval=settings.health_interval,
            timeout=settings.health_timeout,
            failures=settings.health_failures,
            changed=self._health_changed,
            send_proxy=settings.send_proxy,
        )

    @property
    def healthy(self) -> bool:
        """Whether the service may be given visitors, as far as is known."""
        return self._health is None or self._health.healthy

    def doubt(self) -> None:
        """A visitor could not be led to the service."""
        if self._health is not None:
            self._health.doubt()

    def _health_changed(self, healthy: bool, reason: str) -> None:
        target = str(self.settings.target)
        self.notes["health"] = "healthy" if healthy else f"unhealthy: {reason}"
        if healthy:
            self.node.bus.publish(TargetHealthy(service=self.name, target=target))
        else:
            self.node.bus.publish(TargetUnhealthy(service=self.name, target=target, reason=reason))
        for attachment in self._attachments:
            attachment.tell_health()

    @property
    def target(self) -> str:
        return f"{self.settings.target} via {self.settings.server}{self.through}"

    async def run(self) -> None:
        checking = self.tasks.start(self._health.watch(), "health check") if self._health is not None else None
        try:
            await self._connect()
        finally:
            if checking is not None:
                checking.cancel()

    async def _connect(self) -> None:
        settings, url = self.settings, str(self.settings.server)
        timeout = settings.limits.handshake_timeout
        tls = settings.tls
        if tls is None and settings.server.scheme == "https":
            tls = TLSSettings()
        if tls is not None and settings.server.scheme == "http":
            raise ConnectFailed(f"{url} is without TLS, and there is a tls table", "leave that out, or write https://")
        dialer = ServerDialer(
            settings.server.address,
            settings.connect,
            tls,
            timeout,
            way=self.way,
            without_tls="begin the URL with http://",
        )
        await self._wait_if_stopping()
        self.enter("connecting")
        self.node.bus.publish(TunnelConnecting(service=self.name, url=url))
        try:
            with dialer.judging():
                await self._attach(dialer, timeout)
        except (TunnelConsoleError, OSError) as error:
            self.node.bus.publish(TunnelDisconnected(service=self.name, url=url, reason=str(error)))
            raise

    async def _attach(self, dialer: ServerDialer, timeout: float) -> None:
        settings, url = self.settings, str(self.settings.server)
        attachment: Attachment | None = None
        try:
            try:
                async with asyncio.timeout(timeout):
                    attachment = self.attachment = await self._ask(dialer)
                    await attachment.greeted
            except TimeoutError as error:
                raise ConnectFailed(f"{url} did not answer within {timeout:g} s") from error
            await self._wait_if_stopping()
            self.connected(settings.server.address, url)
            self.node.bus.publish(TunnelConnected(service=self.name, url=url))
            reason = await attachment.left
            await self._wait_if_stopping()
            raise ConnectFailed(f"{url}: {reason or 'the server closed the session'}")
        finally:
            if attachment is not None and not attachment.server_leaves:  # else its requests finish meanwhile
                attachment.close("the service stopped")
            self.attachment = None

    async def _ask(self, dialer: ServerDialer) -> Attachment:
        """Asks the server for the tunnel.

        :raises CredentialsRefused: it says no, for good.
        :raises ConnectFailed: it cannot be reached, says no for now, or is no tunnel server.
        """
        settings = self.settings
        spare = min(settings.spare_connections, MAX_WANTED) if settings.native and self.shows_breaks else None
        end = await dialer.reach("tunnel server")
        try:
            await send_all(end, tunnel_request(settings.server.host, token=self.token, spare=spare))
            established, early = await read_answer(end)
        except BaseException as error:
            end.close()
            if isinstance(error, ProtocolError | OSError):
                raise ConnectFailed(f"{settings.server}: {error}") from error
            raise
        return Attachment(self, dialer, end, established.key, early)

    async def _wait_if_stopping(self) -> None:
        """A session that ends while the service drains is not followed by another: the engine cancels the run."""
        if self._stopping:
            await self.node.loop.create_future()

    def stop_accepting(self) -> None:
        self._stopping = True
        for attachment in list(self._attachments):
            attachment.stop_accepting()

    def began(self, attachment: Attachment) -> None:
        """A session has begun."""
        self._attachments.add(attachment)
        if self._sweeping is None:
            self._sweeping = self.node.loop.call_later(SWEEP, self._sweep)

    def over(self, attachment: Attachment) -> None:
        """A session is over, and all that belonged to it."""
        self._attachments.discard(attachment)

    def _sweep(self) -> None:
        """Looks whose time is over: cheaper than a timer for each request."""
        now = self.node.loop.time()
        self._sweeping = self.node.loop.call_later(SWEEP, self._sweep) if self._attachments else None
        for attachment in list(self._attachments):
            for delivery in list(attachment.deliveries):
                if now >= delivery.deadline:
                    with self.node.contain("a request whose time is over", self.name):
                        delivery.late(now)
