"""One session of the tunnel client with its server: where visitors come from, by data connections and by streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.services.native import MAX_DATA_CONNECTIONS
from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.services.tunnel.delivery import Delivery
from tunnelconsole.engine.services.tunnel.inspector import Log
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.transport.link import EndLink
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from tunnelconsole.engine.transport.stream_link import StreamLink
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.tunnel import ConnectAnswer, Established, Refused, data_request
from tunnelconsole.engine.wire.tunnel_lines import (
    GREETING,
    GREETING_ANSWER,
    Greeting,
    Leave,
    VisitorComing,
    Want,
    encode_health,
    message_reader,
    parse_message,
)
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, HostTaken, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.client import TunnelClient

ANSWER_READ: Final = 4096
"""Bytes read at once of the server's answer."""

TAKEN: Final = 409
"""The refusal of a host that somebody else has."""

PASSING_STATUSES: Final = frozenset((408, 429))
"""Refusals of a tunnel that may be another thing a while later, as those from 500 on."""


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
    if refused.status == TAKEN or (refused.status == 400 and "exist" in refused.reason):
        return HostTaken(f"the tunnel server refused the tunnel: {refused.reason}")
    if passes:
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
        self._control = control.stream_id
        self._mux.send(self._control, GREETING)
        client.began(self)

    @property
    def knows_visitors(self) -> bool:
        """Whether the server is one of ours, whose word on visitors' addresses counts; an original passes theirs on."""
        return self._key is not None

    def got_greeting(self) -> None:
        """The server greets: from now on visitors may come."""
        if self.greeted.done():
            return
        self.session = self.client.open_session(str(self.client.settings.server), self.close)
        self.greeted.set_result(None)
        if not self.client.healthy:
            self.tell_health()
        self.dial(self.client.settings.spare_connections)

    def tell_health(self) -> None:
        """Tells a server of ours whether visitors can be served; an original does not listen."""
        line = encode_health(healthy=self.client.healthy)
        if self._key is None or self.session is None or self._mux.over:
            return
        if self._mux.room(self._control) >= len(line):  # else each visitor is told
            self._mux.send(self._control, line)

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

    def sent_away(self, reason: str) -> None:
        """The server is about to end the session."""
        self._cause = self._cause or f"the server ended the session: {reason}"

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
        waiting = len(self._dials) + sum(not delivery.used for delivery in self.deliveries)
        for _ in range(min(count, MAX_DATA_CONNECTIONS - waiting)):
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
            self.client.refused(str(self.client.settings.server), "it is too far behind to be given streams", "limit")
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
            self.left.set_result(self._cause)
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
                    case Leave(reason):
                        self._attachment.sent_away(reason)
                    case Want(count):
                        self._attachment.dial(count)
        except ProtocolError as error:
            self._attachment.broke_protocol(str(error))

    def half_closed(self) -> None:
        self._attachment.control_lost("the server closed the control stream")

    def lost(self, reason: str) -> None:
        self._attachment.control_lost(reason)
