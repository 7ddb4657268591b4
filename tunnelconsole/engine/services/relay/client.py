"""The relay client: the backend. Keeps a session with the relay server, and leads its visitors to the target."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.rules import Rule
from tunnelconsole.engine.services.native import (
    KEEPALIVE,
    KEEPALIVE_RULE,
    MAX_DATA_CONNECTIONS,
    SPARE_CONNECTIONS,
    SPARE_RULE,
)
from tunnelconsole.engine.services.send_proxy import SendProxy, announce
from tunnelconsole.engine.services.server_dialer import ClientService, ClientSettings, ServerDialer, ssh_rules
from tunnelconsole.engine.services.service import Start
from tunnelconsole.engine.services.token_door import TOKEN_RULE, show_token
from tunnelconsole.engine.sessions import Flow, Session
from tunnelconsole.engine.settings import HostPort, Secret, ServerAddress
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.early_stream import EarlyStream
from tunnelconsole.engine.transport.ends import End, SocketEnd, receive, send_all
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.pump import Finished, Pump
from tunnelconsole.engine.transport.stream_pump import StreamPump
from tunnelconsole.engine.units import Duration
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.relay import (
    MAX_PUBLIC_ADDRESS,
    NATIVE_WINDOW,
    LineReader,
    NativeHello,
    NativeKey,
    VisitorFrame,
    VisitorStream,
    Want,
    encode_data_hello,
    encode_message,
    parse_message,
    parse_public_address,
)
from tunnelconsole.errors import ConnectFailed, TunnelConsoleError

FRAME_READ = 4096
"""Bytes read at once while a data connection waits for its visitor."""


class RelayClientSettings(ClientSettings, frozen=True, kw_only=True):
    """``kind = "relay-client"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        KEEPALIVE_RULE,
        SPARE_RULE,
        TOKEN_RULE,
        *ssh_rules(),
    )

    server: ServerAddress | HostPort
    token: Secret | None = None
    """What we prove to the server, one of ours; None: nothing."""
    target: HostPort
    """Where visitors are led."""
    send_proxy: SendProxy | None = None
    """The version of the PROXY protocol in which the target is told who each visitor is; None: it is not told.

    Of visitors whom another server than ours brings, or one with ``native = false``, it is told that nobody knows.
    """
    native: bool = True
    """Whether to bring visitors over data connections when the server is one of ours; False uses yamux always.

    Through an SSH host they take TLS, because only so a visitor is told when we break off.
    """
    spare_connections: int = SPARE_CONNECTIONS
    """Data connections kept ready."""
    keepalive: Duration = Duration(KEEPALIVE)
    """Seconds between two keepalives."""


class RelayClient(ClientService[RelayClientSettings]):
    """Attaches a target to a relay server, the original program included."""

    kind = "relay-client"
    shares_rates = False

    def __init__(self, name: str, settings: RelayClientSettings, node: Node) -> None:
        super().__init__(name, settings, node, settings.server)
        self.arriving = 0
        """Visitors for whom the target is being dialled."""
        self._attachment: Attachment | None = None
        self._stopping = False

    @property
    def target(self) -> str:
        return f"{self.settings.target} via {self.settings.server}{self.through}"

    async def run(self) -> None:
        settings = self.settings
        timeout = settings.limits.handshake_timeout
        dialer = ServerDialer(settings.server, settings.connect, settings.tls, timeout, way=self.way)
        await self._wait_if_stopping()
        self.enter("connecting")
        with dialer.judging():
            end = await dialer.reach("relay server")
            early = b""
            if settings.token is not None:
                try:
                    early = await show_token(end, settings.token, f"relay server {settings.server}", timeout)
                except BaseException:
                    end.close()
                    raise
            attachment = self._attachment = Attachment(self, dialer, end, early)
            try:
                await self._wait_if_stopping()
                try:
                    async with asyncio.timeout(timeout):
                        address = await attachment.public_address
                except TimeoutError as error:
                    raise attachment.no_address(f"did not give a public port within {timeout:g} s") from error
                self.connected(settings.server, address)
                reason = await attachment.left
                await self._wait_if_stopping()
                raise ConnectFailed(
                    f"lost the session with the relay server {settings.server}: {reason or 'it closed the connection'}"
                )
            finally:
                if not attachment.server_leaves:  # else its visitors finish while the next session begins
                    attachment.close("the service stopped")
                self._attachment = None

    async def _wait_if_stopping(self) -> None:
        """A session that ends while the service drains is not followed by another: the engine cancels the run."""
        if self._stopping:
            await self.node.loop.create_future()

    def stop_accepting(self) -> None:
        self._stopping = True
        if self._attachment is not None:
            self._attachment.stop_accepting()

    def _count(self) -> tuple[int, int]:
        sessions, channels = super()._count()
        return sessions, channels + self.arriving


class Attachment:
    """One session with the relay server, from the dial to its end."""

    def __init__(self, client: RelayClient, dialer: ServerDialer, end: End, early: bytes) -> None:
        self._client = client
        self._dialer = dialer
        self._loop = client.node.loop
        self.public_address: asyncio.Future[str] = self._loop.create_future()
        self.left: asyncio.Future[str] = self._loop.create_future()
        """Why no visitor can come any more: the session has ended, or ends with the visitors there are."""
        self.server_leaves = False
        """Whether the server takes no more visitors for this session, and may for another."""
        self._session: Session | None = None
        self._key: bytes | None = None
        self._announced: VisitorStream | None = None
        """Who comes on the stream that the server is about to open, where it has said so."""
        self._spare: set[asyncio.Task[None]] = set()
        """Data connections that are being dialled, or wait for their visitor."""
        self._spare_failed = False
        """Whether the last of them failed: its reason has been told, and need not be told for each."""
        self._flows: set[Flow] = set()
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
            leaving=self._server_leaves,
            early=early,
        )
        request = AddressRequest(self)
        request.stream_id = self._mux.open(request) or 0

    def close(self, reason: str) -> None:
        """Ends the session and every visitor's channel."""
        self._cause = self._cause or reason
        self._mux.close(reason)

    def stop_accepting(self) -> None:
        """Takes no new visitors; those there are go on, and the session ends with the last of them."""
        if self._retired:
            return
        self._retired = True
        self._mux.go_away()
        self._drop_spare()
        if not self._flows:
            self.close("")

    def _pace(self) -> Pace | None:
        return None if self._session is None else self._client.pace_in(self._session)

    def _server_leaves(self) -> None:
        """The server stops, or was configured anew."""
        if self._session is None or self._retired:
            return  # it gives no port, and says why; or we leave ourselves
        self.server_leaves = True
        self.left.set_result("the server takes no new visitors")
        self.stop_accepting()

    def server_is_ours(self) -> None:
        """The server showed that it takes data connections."""
        settings = self._client.settings
        data, visitors = settings.native and self._client.shows_breaks, settings.send_proxy is not None
        if data or visitors:
            hello = NativeHello(settings.spare_connections if data else None, visitors, data)
            request = NativeRequest(self, self._mux, hello)
            request.stream_id = self._mux.open(request) or 0

    def got_address(self, text: bytes, stream_id: int) -> None:
        """The server wrote all that it has to say on stream 1: from now on visitors may come."""
        self._mux.send_eof(stream_id)
        self._mux.forget(stream_id)
        if self.public_address.done():
            return
        try:
            address = parse_public_address(text)
        except ProtocolError:
            said = text.decode("utf-8", "replace")
            server = f"the relay server {self._client.settings.server}"
            if not text:
                reason = f"{server} gave no public port, and said nothing of why"
            elif " " in said:  # a sentence
                reason = f"{server} gave no public port: {said}"
            else:
                reason = f'{server} gave no public port, but "{said}", which is no host:port'
            self.public_address.set_exception(ConnectFailed(reason))
            return
        self._session = self._client.open_session(str(self._client.settings.server), self.close)
        self.public_address.set_result(address)

    def no_address(self, what: str) -> ConnectFailed:
        """The error of a session that came to nothing; ``what`` the server did or did not."""
        return ConnectFailed(
            f"the relay server {self._client.settings.server} {what}",
            self._dialer.advice("relay server", "yamux", self._mux.first),
        )

    def broke_protocol(self, reason: str) -> None:
        """Ends the session because of what the server sent."""
        self.close(f"protocol error: {reason}")

    def got_key(self, key: bytes) -> None:
        """The server takes data connections with this key."""
        self._key = key
        self._keep_spare()

    def announced(self, visitor: VisitorStream) -> None:
        """The server says who comes on its next stream."""
        self._announced = visitor

    def dial_data_connections(self, count: int) -> None:
        """Dials so many data connections more."""
        if self._key is None or self._retired or self._mux.over:
            return
        for _ in range(min(count, MAX_DATA_CONNECTIONS - len(self._spare))):
            task = self._client.tasks.start(self._offer_data_connection(self._key), "data connection")
            self._spare.add(task)
            task.add_done_callback(self._spare.discard)

    def _keep_spare(self) -> None:
        self.dial_data_connections(self._client.settings.spare_connections - len(self._spare))

    def _drop_spare(self) -> None:
        for task in list(self._spare):
            task.cancel()

    async def _offer_data_connection(self, key: bytes) -> None:
        """Dials one data connection, waits for its visitor, and leads it to the target."""
        end: End | None = None
        frame = VisitorFrame()
        try:
            end = await self._dialer.dial()
            await send_all(end, encode_data_hello(key))
            visitor = await self._receive_visitor(end, frame)
        except (TunnelConsoleError, OSError, ProtocolError) as error:
            visitor = None
            self._spare_is_lost(str(error))
        except BaseException:
            if end is not None:
                end.abort()
            raise
        finally:
            if task := asyncio.current_task():
                self._spare.discard(task)
        if visitor is None or end is None:
            if end is not None:
                end.close()
            return
        self._spare_failed = False
        self._keep_spare()
        await self._lead(end, visitor, frame.leftover)

    async def _receive_visitor(self, end: End, frame: VisitorFrame) -> str | None:
        """Who the visitor of a data connection is; None when the server has no use for it any more.

        :raises OSError: the connection broke.
        :raises ProtocolError: what the server says is no visitor.
        """
        while True:
            data = await receive(end, FRAME_READ)
            if not data:
                frame.receive_eof()
                return None
            visitor = frame.receive_data(data)
            if visitor is not None:
                return visitor

    def _spare_is_lost(self, reason: str) -> None:
        if not self._spare_failed and not self._mux.over:
            self._spare_failed = True
            self._client.refused(
                str(self._client.settings.server), f"no data connection to it, so visitors share the session: {reason}"
            )

    async def _lead(self, end: End, visitor: str, early: bytes) -> None:
        if not self._admits(visitor):
            end.abort()
            return
        self._client.arriving += 1
        try:
            target = await self._dial_target(visitor, visitor)
        except BaseException:
            end.abort()
            raise
        finally:
            self._client.arriving -= 1
        if target is None:
            end.abort()
            return
        plane, pace = self._client.node.plane, self._pace()
        self._carry(visitor, lambda finished: Pump(plane, end, target, finished, early_left=early, pace=pace))

    def _opened(self, stream_id: int) -> None:
        """The server opened a stream: a visitor who comes through yamux."""
        announced, self._announced = self._announced, None
        address = announced.visitor if announced is not None and announced.stream_id == stream_id else ""
        visitor = EarlyStream(address or f"stream {stream_id}")
        if not self._admits(visitor.name):
            self._mux.reject(stream_id)
            return
        self._client.arriving += 1
        self._mux.accept(stream_id, visitor)
        self._client.tasks.start(self._lead_stream(stream_id, visitor, address), visitor.name)

    async def _lead_stream(self, stream_id: int, visitor: EarlyStream, address: str) -> None:
        try:
            target = await self._dial_target(visitor.name, address)
        finally:
            self._client.arriving -= 1
        if target is None:
            self._mux.reject(stream_id)
            return
        if visitor.gone:
            target.abort()
            return

        def start(finished: Finished) -> StreamPump:
            early, ended, pace = visitor.early, visitor.ended, self._pace()
            return StreamPump(
                self._loop, self._mux, stream_id, target, finished, early=early, early_end=ended, pace=pace
            )

        self._carry(visitor.name, start)

    def _admits(self, visitor: str) -> bool:
        """Whether a visitor may come in now; an event says why not."""
        full = self._client.gate.refuses(new_session=False, new_channel=True)
        if self._retired or self._session is None:
            full = "the service takes no visitors now"
        if full:
            self._client.refused(visitor, full, "limit")
        return not full

    async def _dial_target(self, visitor: str, address: str = "") -> SocketEnd | None:
        """A connection to the target; None, and an event, when there is none or the session is over meanwhile.

        :param address: of the visitor, where it is known.
        """
        settings = self._client.settings
        end: SocketEnd | None = None
        try:
            end = await dial(settings.target.host, settings.target.port)
            if settings.send_proxy is not None:
                announce(end.socket, settings.send_proxy, address, self.public_address.result())
        except (ConnectFailed, OSError) as error:
            reason = error.message if isinstance(error, ConnectFailed) else error.strerror or str(error)
            self._client.node.bus.publish(
                TargetFailed(service=self._client.name, peer=visitor, target=str(settings.target), reason=reason)
            )
            if end is not None:
                end.abort()
            return None
        if self._mux.over:
            end.abort()
            return None
        return end

    def _carry(self, visitor: str, start: Start) -> None:
        """Pipes a visitor, and takes note when it has gone."""
        if self._session is None:
            raise RuntimeError("a visitor came before there was a public port")

        def ended(reason: str) -> None:
            self._flows.discard(flow)
            if self._ended:
                self._close_session_when_empty()
            elif self._retired and not self._flows:
                self.close("")

        flow = self._client.carry(self._session, str(self._client.settings.target), start, ended, visitor)
        self._flows.add(flow)

    def _closed(self, reason: str) -> None:
        self._cause = self._cause or reason
        self._drop_spare()
        if not self.public_address.done():
            self.public_address.set_exception(
                self.no_address(f"gave no public port: {reason}" if reason else "closed before it gave a public port")
            )
            self.public_address.exception()  # looked at here, because nobody may be waiting any more
        self._ended = True
        if not self.left.done():  # cancelled where the service stops
            self.left.set_result(reason)
        for flow in list(self._flows):
            flow.abort(reason or "the server closed the session")
        self._close_session_when_empty()

    def _close_session_when_empty(self) -> None:
        if self._session is not None and not self._flows:
            self._client.close_session(self._session, self._cause)


class AddressRequest(QuietUser):
    """Stream 1: the server writes the public address on it and closes its side, and we ours."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._text = b""
        self.stream_id = 0

    def accepted(self, extra_window: int) -> None:
        if extra_window == NATIVE_WINDOW:
            self._attachment.server_is_ours()

    def received(self, data: bytes) -> None:
        self._text += data
        if len(self._text) > MAX_PUBLIC_ADDRESS:
            self._attachment.broke_protocol("the public address is too long")

    def half_closed(self) -> None:
        self._attachment.got_address(self._text, self.stream_id)


class NativeRequest(QuietUser):
    """Stream 3: we say what we can and want to know; the server says by which key to dial data connections, and when.

    Where we have asked, it also says who comes without one.
    """

    def __init__(self, attachment: Attachment, mux: Mux, hello: NativeHello) -> None:
        self._attachment = attachment
        self._mux = mux
        self._hello = hello
        self._lines = LineReader()
        self.stream_id = 0

    def accepted(self, extra_window: int) -> None:
        line = encode_message(self._hello)
        if self._mux.room(self.stream_id) >= len(line):  # else the server has reset the stream meanwhile
            self._mux.send(self.stream_id, line)

    def received(self, data: bytes) -> None:
        self._mux.consumed(self.stream_id, len(data))
        try:
            for line in self._lines.feed(data):
                match parse_message(line):
                    case NativeKey(key) if self._hello.data:
                        self._attachment.got_key(key)
                    case Want(count):  # does nothing without a key
                        self._attachment.dial_data_connections(count)
                    case VisitorStream() as visitor:
                        self._attachment.announced(visitor)
        except ProtocolError as error:
            self._attachment.broke_protocol(str(error))
