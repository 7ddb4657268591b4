"""The tunnel client: keeps a session with the tunnel server, and leads visitors' requests to the local service."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import ClassVar, Final

from tunnelconsole.engine.events import TunnelConnected, TunnelConnecting, TunnelDisconnected
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rules import Problem, Rule, above_zero
from tunnelconsole.engine.services.native import (
    KEEPALIVE,
    KEEPALIVE_RULE,
    MAX_DATA_CONNECTIONS,
    SPARE_CONNECTIONS,
    SPARE_RULE,
)
from tunnelconsole.engine.services.service import ServerDialer, Service, ServiceSettings
from tunnelconsole.engine.services.tunnel.delivery import Delivery
from tunnelconsole.engine.services.tunnel.folder import Folder
from tunnelconsole.engine.services.tunnel.inspector import Inspector, Log
from tunnelconsole.engine.services.tunnel.server import RESPONSE_TIMEOUT, SWEEP
from tunnelconsole.engine.services.tunnel.target import Target, TunnelURL
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.settings import HostPort, Secret, TLSSettings
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.transport.link import EndLink, StreamLink
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.http.head import HttpError, check_host
from tunnelconsole.engine.wire.tunnel import ConnectAnswer, Established, Refused, data_request, tunnel_request
from tunnelconsole.engine.wire.tunnel_lines import (
    GREETING,
    GREETING_ANSWER,
    MAX_WANTED,
    Greeting,
    VisitorComing,
    Want,
    message_reader,
    parse_message,
)
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, TunnelConsoleError

ANSWER_READ: Final = 4096
"""Bytes read at once of the server's answer."""

OWN_TOKEN_BYTES: Final = 32
"""Bytes of the token that a client without one makes up: nobody can guess it, and so take the client's place."""

PASSING_STATUSES: Final = frozenset((408, 409, 429))
"""Refusals of a tunnel that may be another thing a while later, as those from 500 on."""


def _usable_host(host_header: str) -> list[Problem]:
    try:
        if host_header:
            check_host(host_header)
    except HttpError:
        return [("host_header", "is not a host name with or without a port")]
    return []


def _tls_by_url(server: TunnelURL, tls: TLSSettings | None) -> list[Problem]:
    if tls is not None and server.scheme == "http":
        return [("tls", "is for a server whose URL begins with https")]
    return []


class TunnelClientSettings(ServiceSettings, frozen=True, kw_only=True):
    """``kind = "tunnel-client"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("host_header",), _usable_host),
        SPARE_RULE,
        Rule(("server", "tls"), _tls_by_url),
        KEEPALIVE_RULE,
        above_zero("response_timeout", "no service could answer in no time"),
    )

    server: TunnelURL
    """The public URL: its host is the public hostname."""
    connect: HostPort | None = None
    """The address to dial when it is not the one that ``server`` names."""
    token: Secret | None = None
    """What proves who we are."""
    target: Target
    """A local port, ``host:port``, or a folder."""
    host_header: str = ""
    """What the service is told as ``Host``, in place of what the visitor asked for."""
    native: bool = True
    """Whether to bring visitors over data connections when the server is one of ours; False uses yamux always."""
    spare_connections: int = SPARE_CONNECTIONS
    """Data connections kept ready."""
    inspect: bool = True
    """Whether the last exchanges are kept in memory to be looked at."""
    response_timeout: Duration = Duration(RESPONSE_TIMEOUT)
    """Seconds the service has to begin its answer."""
    keepalive: Duration = Duration(KEEPALIVE)
    """Seconds between two questions whether the server lives; unanswered, it is gone after twice that."""


class TunnelClient(Service[TunnelClientSettings]):
    """Gives a web service a public hostname at a tunnel server, the original program included."""

    kind = "tunnel-client"

    def __init__(self, name: str, settings: TunnelClientSettings, node: Node) -> None:
        super().__init__(name, settings, node)
        self.inspector = Inspector()
        self.folder = Folder(Path(settings.target.folder))
        self.token = settings.token or secrets.token_urlsafe(OWN_TOKEN_BYTES)
        self._attachments: set[Attachment] = set()
        self.attachment: Attachment | None = None
        """The session with the server; None while there is none."""
        self._stopping = False
        self._sweeping: asyncio.TimerHandle | None = None

    @property
    def target(self) -> str:
        return f"{self.settings.target} via {self.settings.server}"

    async def run(self) -> None:
        settings, url = self.settings, str(self.settings.server)
        timeout = settings.limits.handshake_timeout
        tls = settings.tls
        if tls is None and settings.server.scheme == "https":
            tls = TLSSettings()
        dialer = ServerDialer(settings.server.address, settings.connect, tls, timeout)
        await self._wait_if_stopping()
        self.enter("connecting")
        self.node.bus.publish(TunnelConnecting(service=self.name, url=url))
        try:
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
        spare = min(settings.spare_connections, MAX_WANTED) if settings.native else None
        end = await dialer.dial()
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


async def read_answer(end: End) -> tuple[Established, bytes]:
    """What the server answers to a request for a tunnel or to a data connection, and what came behind it.

    :raises CredentialsRefused: it says no, for good.
    :raises ConnectFailed: it says no for now.
    :raises ProtocolError: it is no tunnel server.
    :raises OSError: the connection broke.
    """
    answer = ConnectAnswer()
    event = None
    while event is None:
        data = await receive(end, ANSWER_READ)
        event = answer.receive_data(data) if data else answer.receive_eof()
    if isinstance(event, Refused):
        raise _refusal(event)
    return event, answer.leftover


def _refusal(refused: Refused) -> TunnelConsoleError:
    passes = refused.status in PASSING_STATUSES or refused.status >= 500
    # An original says 400 to everything; of what it says, this alone passes by itself: its dead session is found out.
    if passes or (refused.status == 400 and "exist" in refused.reason):
        return ConnectFailed(f"the tunnel server refused the tunnel: {refused.reason}")
    return CredentialsRefused(f"the tunnel server refused the tunnel: {refused.reason}", "see its administrator")


class Attachment:
    """One session with the tunnel server, from its yes to its end.

    :param key: of data connections; None where there are none.
    :param early: what came behind the server's answer.
    """

    def __init__(self, client: TunnelClient, dialer: ServerDialer, end: End, key: bytes | None, early: bytes) -> None:
        self.client = client
        self._dialer = dialer
        self._loop = client.node.loop
        self._key = key
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self.left: asyncio.Future[str] = self._loop.create_future()
        """Why no visitor can come any more: the session has ended, or ends with what is under way."""
        self.server_leaves = False
        """Whether the server takes no more visitors for this session, and may for another."""
        self.session: Session | None = None
        host = client.settings.server.address.host.lower()
        self.log: Log | None = client.inspector.log(host) if client.settings.inspect else None
        self.deliveries: set[Delivery] = set()
        self._dials: set[asyncio.Task[None]] = set()
        """Data connections that are being dialled."""
        self._dial_failed = False
        """Whether the last of them failed: its reason has been told, and need not be told for each."""
        self._retired = False
        self._ended = False
        self._cause = ""
        self._mux = Mux(
            self._loop,
            end,
            client=True,
            opened=self._opened,
            closed=self._closed,
            keepalive=client.settings.keepalive,
            farewells=client.node.farewells,
            early=early,
            leaving=self._server_leaves,
        )
        control = ControlStream(self, self._mux)
        control.stream_id = self._mux.open(control) or 0
        self._mux.send(control.stream_id, GREETING)
        client.began(self)

    def got_greeting(self) -> None:
        """The server greets: from now on visitors may come."""
        if self.greeted.done():
            return
        self.session = self.client.open_session(str(self.client.settings.server), self.close)
        self.greeted.set_result(None)
        self.dial(self.client.settings.spare_connections)

    def close(self, reason: str) -> None:
        """Ends the session and every request."""
        self._cause = self._cause or reason
        self._mux.close(reason)

    def stop_accepting(self) -> None:
        """Takes no new requests; those there are go on, and the session ends with the last of them."""
        if self._retired:
            return
        self._retired = True
        self._mux.go_away()
        for task in list(self._dials):
            task.cancel()
        for delivery in list(self.deliveries):
            delivery.finish()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self.deliveries:
            self.close("")

    def _server_leaves(self) -> None:
        """The server stops, or was configured anew."""
        if self.session is None or self._retired:
            return
        self.server_leaves = True
        if not self.left.done():
            self.left.set_result("the server takes no new visitors")
        self.stop_accepting()

    def broke_protocol(self, reason: str) -> None:
        """Ends the session because of what the server sent."""
        self.close(f"protocol error: {reason}")

    def control_lost(self, reason: str) -> None:
        """The control stream is over; without it no visitor can come."""
        self.close(reason)

    def dial(self, count: int) -> None:
        """Dials so many data connections more."""
        if self._key is None or self._retired or self._mux.over:
            return
        for _ in range(min(count, MAX_DATA_CONNECTIONS - len(self._dials))):
            task = self.client.tasks.start(self._dial_data_connection(self._key), "data connection")
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _dial_data_connection(self, key: bytes) -> None:
        end: End | None = None
        try:
            async with asyncio.timeout(self.client.settings.limits.handshake_timeout):
                end = await self._dialer.dial()
                await send_all(end, data_request(self.client.settings.server.host, key))
                _, early = await read_answer(end)
        except (TunnelConsoleError, OSError, ProtocolError) as error:
            if end is not None:
                end.close()
            self._dial_has_failed(str(error) or "it did not answer in time")
            return
        except BaseException:
            if end is not None:
                end.abort()
            raise
        self._dial_failed = False
        if self._mux.over or self._retired:
            end.close()
            return
        link = EndLink(self._loop, end)
        delivery = Delivery(self, link)
        link.resume()
        delivery.begin(early)

    def _dial_has_failed(self, reason: str) -> None:
        if not self._dial_failed and not self._mux.over:
            self._dial_failed = True
            self.client.refused(str(self.client.settings.server), f"no data connection to it: {reason}")

    def open_stream(self) -> None:
        """The server has a visitor who comes through yamux."""
        if self._retired:
            return
        link = StreamLink(self._loop, self._mux)
        stream_id = self._mux.open(link)
        if stream_id is None:
            self.client.refused(str(self.client.settings.server), "it is too far behind to be given streams")
            return
        link.bind(stream_id)
        Delivery(self, link).begin()

    def delivered(self, delivery: Delivery) -> None:
        """A connection is over."""
        self.deliveries.discard(delivery)
        if self._ended:
            self._leave_if_done()
        else:
            self._close_if_done()

    def _opened(self, stream_id: int) -> None:
        """The server opens no streams: the client does, when it is asked to."""
        self._mux.reject(stream_id)

    def _closed(self, reason: str) -> None:
        self._cause = self._cause or reason
        self._ended = True
        for task in list(self._dials):
            task.cancel()
        if not self.greeted.done():
            self.greeted.set_exception(
                ConnectFailed(f"{self.client.settings.server} {reason or 'closed before it greeted'}")
            )
            self.greeted.exception()  # looked at here, because nobody may be waiting any more
        if not self.left.done():  # cancelled where the service stops
            self.left.set_result(reason)
        for delivery in list(self.deliveries):
            delivery.abort(reason or "the server closed the session")
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self.deliveries:
            return
        self.client.over(self)
        if self.session is not None:
            self.client.close_session(self.session, self._cause)


class ControlStream(QuietUser):
    """Stream 1: we greet, and the server asks for streams and data connections."""

    def __init__(self, attachment: Attachment, mux: Mux) -> None:
        self._attachment = attachment
        self._mux = mux
        self._greeting: Greeting | None = Greeting(GREETING_ANSWER)
        self._lines = message_reader()
        self.stream_id = 0

    def received(self, data: bytes) -> None:
        self._mux.consumed(self.stream_id, len(data))
        try:
            if self._greeting is not None:
                if not self._greeting.receive_data(data):
                    return
                data, self._greeting = self._greeting.leftover, None
                self._attachment.got_greeting()
            for line in self._lines.feed(data):
                match parse_message(line):
                    case VisitorComing():
                        self._attachment.open_stream()
                    case Want(count):
                        self._attachment.dial(count)
        except ProtocolError as error:
            self._attachment.broke_protocol(str(error))

    def half_closed(self) -> None:
        self._attachment.control_lost("the server closed the control stream")

    def lost(self, reason: str) -> None:
        self._attachment.control_lost(reason)
