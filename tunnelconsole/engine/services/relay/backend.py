"""One backend at the relay server: its public port, its visitors, and its pool of waiting data connections."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from tunnelconsole.engine.services.relay.spare import SparePool
from tunnelconsole.engine.services.service import Start
from tunnelconsole.engine.sessions import Flow, Session
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.farewell import FAREWELL_TIME
from tunnelconsole.engine.transport.listener import BACKLOG, Listener
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from tunnelconsole.engine.transport.pacing import Pace
from tunnelconsole.engine.transport.pump import Pump
from tunnelconsole.engine.transport.stream_pump import StreamPump
from tunnelconsole.engine.wire.errors import NoRoom, NotAllowed, ProtocolError
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.relay import (
    KEY_LENGTH,
    MAX_PUBLIC_ADDRESS,
    NATIVE_WINDOW,
    LineReader,
    NativeHello,
    NativeKey,
    VisitorStream,
    Want,
    encode_message,
    encode_visitor,
    parse_message,
)
from tunnelconsole.errors import ListenFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.services.relay.server import RelayServer

DATA_CONNECTION_PATIENCE = 2.0
"""Seconds a visitor waits for a data connection before it is led through yamux instead."""

MAX_QUEUED = BACKLOG
"""Visitors who wait until the backend has taken those before them: as many as the kernel would hold in their place."""

MAX_REJECTED = 256
"""Streams that a backend may open in vain: HashiCorp's backlog, so that a client of it which errs a little lives on."""


class Backend:
    """A session of the relay server.

    :param end: the control connection, owned from here on.
    :param first: what the backend sent already, of its protocol.
    :param grant: what it has proved before that, if that was a token.
    """

    def __init__(self, server: RelayServer, end: End, peer: str, first: bytes, grant: Grant | None) -> None:
        self._server = server
        self._peer = peer
        self._grant = grant
        self._identity = server.identity_of(end, grant=grant)
        self._loop = server.node.loop
        self._key = secrets.token_bytes(KEY_LENGTH)
        self._address_stream: asyncio.Future[int] = self._loop.create_future()
        self._listener: Listener | None = None
        self._session: Session | None = None
        self._native_stream: int | None = None
        self._told_stream: int | None = None
        """Where the backend wants to be told who comes through yamux; None where it does not."""
        self._spare = SparePool(self._loop)
        self._waiting: deque[WaitingVisitor] = deque()
        """Visitors for whom a data connection was asked for."""
        self._queued: deque[WaitingVisitor] = deque()
        """Visitors whose yamux streams the backend is too far behind to be given."""
        self._flows: set[Flow] = set()
        self._cause = ""
        self._retired = False
        self._native_opened = False
        self._rejected = 0
        self._doubted = False
        """Whether data connections that were asked for have failed to come."""
        self._gone = asyncio.Event()
        self._mux = Mux(
            self._loop,
            end,
            client=False,
            opened=self._opened,
            closed=self._closed,
            keepalive=server.settings.keepalive,
            farewells=server.node.farewells,
            early=first,
            caught_up=self._lead_queued,
            leaving=self._release_port,  # it takes no more visitors, and whoever comes in its place needs the port
        )

    @property
    def waiting(self) -> int:
        """Visitors who wait to be led to the backend."""
        return len(self._waiting) + len(self._queued)

    async def attach(self) -> None:
        """Opens a public port and tells the backend which.

        :raises ProtocolError: the backend did not ask for one, or there is none.
        """
        self._server.backends[self._key] = self  # data connections may come before the port is open
        try:
            await self._give_port(await self._address_stream)
        except BaseException as error:
            self._mux.close(str(error) or "it left during the handshake")
            self._release_port()
            raise

    async def _give_port(self, stream_id: int) -> None:
        if barred := self._server.barred(self._grant, self._peer):
            await self._turn_down(stream_id, barred)
            raise NotAllowed(barred)
        full = self._no_room()
        if not full:
            among = self._grant.rights.ports if self._grant is not None else ()
            try:
                visited = self._server.judged(self._visited)
                self._listener = await self._server.ports.open(visited, self._server.exhausted, among)
            except ListenFailed as error:
                full = str(error)
            else:
                full = self._no_room()  # others may have attached meanwhile
                if not full and self._grant is not None and self._grant.rights.ports != among:
                    full = "the ports of the token changed"
        if full or self._listener is None:
            await self._turn_down(stream_id, full)
            raise NoRoom(full)
        address = format_host_port(self._server.settings.public_host, self._listener.port)
        if self._mux.remote_leaving or not self._say(stream_id, address.encode()):
            raise ProtocolError("it left during the handshake")
        self._mux.send_eof(stream_id)
        self._session = self._server.open_session(
            self._peer, self._end_session, identity=self._identity, address=address, grant=self._grant
        )

    def _no_room(self) -> str:
        """Why it cannot have a session now; "" when it can."""
        return self._server.no_room(self._peer, self._identity, self._grant, new_session=True, new_channel=False)

    async def _turn_down(self, stream_id: int, reason: str) -> None:
        """Tells the backend, in place of an address, why there is none, and lets it read that."""
        self._say(stream_id, reason.encode()[:MAX_PUBLIC_ADDRESS])
        self._mux.send_eof(stream_id)
        self._mux.go_away()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_TIME):
                await self._gone.wait()

    def _say(self, stream_id: int, text: bytes) -> bool:
        """Writes a short text on a stream; False when the backend has closed it or does not read."""
        if self._mux.over or self._mux.room(stream_id) < len(text):
            return False
        self._mux.send(stream_id, text)
        return True

    def stop_accepting(self) -> None:
        """Takes no new visitors; those there are go on, and the session ends with the last of them."""
        if self._retired:
            return
        self._retired = True
        self._release_port()
        while self._waiting:  # a data connection cannot come any more
            visitor = self._waiting.popleft()
            visitor.leave_queue()
            self._lead_through_yamux(visitor)
        self._mux.go_away()
        self._lead_queued()  # nowhere: what is asked of the backend from now on comes too late
        if not self._flows:
            self._mux.close()

    def add_data_connection(self, end: End) -> None:
        """Takes a data connection that the backend dialled: for a visitor who waits, or to keep."""
        self._doubted = False
        while self._waiting:
            visitor = self._waiting.popleft()
            if visitor.leave_queue() and not self._turned_away(visitor):
                if not self._join(visitor, end):
                    self._lead_through_yamux(visitor)
                return
        if self._retired or not self._spare.add(end):
            end.close()

    def _opened(self, stream_id: int) -> None:
        if not self._address_stream.done():
            self._mux.accept(stream_id, QuietUser(), NATIVE_WINDOW if self._server.settings.native else 0)
            self._address_stream.set_result(stream_id)
        elif self._server.settings.native and not self._native_opened:
            self._native_opened = True
            self._mux.accept(stream_id, NativeStream(self, self._mux, stream_id))
        elif self._rejected < MAX_REJECTED:
            self._rejected += 1
            self._mux.reject(stream_id)
        else:
            self.broke_protocol("the backend opens stream after stream, and none is for it to open")

    def speaks_native(self, stream_id: int, hello: NativeHello) -> None:
        """The backend can dial data connections; tells it with which key, once."""
        if hello.visitors:
            self._told_stream = stream_id
        if not hello.data:
            return
        if hello.spare is not None:
            self._spare.kept = hello.spare
        if self._native_stream is None and self._say(stream_id, encode_message(NativeKey(self._key))):
            self._native_stream = stream_id

    def broke_protocol(self, reason: str) -> None:
        """Ends the session because of what the backend sent."""
        self._mux.close(f"protocol error: {reason}")

    def native_lost(self) -> None:
        """The stream for native messages is over: visitors go through yamux from now on."""
        self._native_stream = self._told_stream = None

    def _visited(self, sock: socket.socket, peer: str) -> None:
        if self._session is None:  # its public address is about to be told
            sock.close()
            return
        full = self._server.no_channel(self._session, peer)
        if self._listener is None:  # closed while a proxy said who comes
            full = "its public port is closed"
        if full:
            self._server.refused(peer, full, "limit")
            sock.close()
            return
        visitor = WaitingVisitor(self, SocketEnd(sock), peer)
        while (end := self._spare.take()) is not None:
            if self._join(visitor, end):
                return
        asked = self._native_stream is not None and self._say(self._native_stream, encode_message(Want(1)))
        if asked and not self._doubted:
            visitor.wait(self._loop)
            self._waiting.append(visitor)
        else:
            self._lead_through_yamux(visitor)

    def _join(self, visitor: WaitingVisitor, end: End) -> bool:
        """Leads a visitor over a data connection; False when that connection is dead."""
        frame = encode_visitor(visitor.peer)
        try:
            if end.send(frame) != len(frame) or not end.flush():
                end.close()
                return False
        except OSError:
            end.close()
            return False
        plane, pace = self._server.node.plane, self._pace_for(visitor)
        self._carry(visitor.peer, lambda finished: Pump(plane, end, visitor.end, finished, pace=pace))
        return True

    def _announce(self, visitor: WaitingVisitor) -> bool:
        """Tells a backend that wants to know who comes on the next stream; False when it cannot be told."""
        stream_id = self._mux.next_stream
        if self._told_stream is None or stream_id is None:
            return True
        return self._say(self._told_stream, encode_message(VisitorStream(stream_id, visitor.peer)))

    def _turned_away(self, visitor: WaitingVisitor) -> bool:
        """Turns away somebody for whom there is no channel any more: others who have waited too were led before."""
        full = self._server.no_channel(self._session, visitor.peer) if self._session is not None else ""
        if full:
            self._server.refused(visitor.peer, full, "limit")
            visitor.end.abort()
        return bool(full)

    def _lead_through_yamux(self, visitor: WaitingVisitor) -> None:
        if self._turned_away(visitor):
            return
        if not self._announce(visitor):
            # Led on all the same, it could pass for somebody else: its target may trust whoever is not named.
            self._server.refused(visitor.peer, "its backend is too far behind to be told who comes", "limit")
            visitor.end.abort()
            return
        stream_id = self._mux.open(QuietUser())
        if stream_id is None and self._mux.behind and len(self._queued) < MAX_QUEUED:
            self._queued.append(visitor)
            return
        if stream_id is None:
            self._server.refused(visitor.peer, "its backend takes no more visitors", "limit")
            visitor.end.abort()
            return
        pace = self._pace_for(visitor)
        self._carry(
            visitor.peer,
            lambda finished: StreamPump(self._loop, self._mux, stream_id, visitor.end, finished, pace=pace),
        )

    def _pace_for(self, visitor: WaitingVisitor) -> Pace | None:
        return self._server.pace_in(self._session, visitor.peer) if self._session is not None else None

    def _lead_queued(self) -> None:
        """The backend has taken visitors: leads on those who came behind them, as many as it takes now."""
        while self._queued and not self._mux.behind:
            self._lead_through_yamux(self._queued.popleft())

    def patience_over(self, visitor: WaitingVisitor) -> None:
        """No data connection came in time; nobody else waits for one until one has come."""
        self._doubted = True
        self._waiting.remove(visitor)
        self._lead_through_yamux(visitor)

    def _carry(self, visitor: str, start: Start) -> None:
        """Pipes a visitor, and takes note when it has gone."""
        if self._session is None:
            raise RuntimeError("a visitor came before there was a public port")

        def ended(reason: str) -> None:
            self._flows.discard(flow)
            if self._gone.is_set():
                self._close_session_when_empty()
            elif self._retired and not self._flows:
                self._mux.close()

        flow = self._server.carry(self._session, self._session.peer, start, ended, visitor)
        self._flows.add(flow)

    def _end_session(self, reason: str) -> None:
        self._cause = reason
        self._mux.close(reason)

    def _release_port(self) -> None:
        if self._listener is not None:
            self._server.ports.release(self._listener)
            self._listener = None

    def _closed(self, reason: str) -> None:
        """The control connection is over, and with it everything: the port is free at once."""
        self._gone.set()
        self._cause = self._cause or reason
        self._release_port()
        self._server.backends.pop(self._key, None)
        self._spare.close()
        for visitor in self._waiting:
            visitor.leave_queue()
            visitor.end.abort()
        self._waiting.clear()
        for visitor in self._queued:
            visitor.end.abort()
        self._queued.clear()
        if not self._address_stream.done():
            self._address_stream.set_exception(ProtocolError(reason or "it closed before it asked for a port"))
        for flow in list(self._flows):
            flow.abort(reason or "the backend left")
        self._close_session_when_empty()

    def _close_session_when_empty(self) -> None:
        if self._session is not None and not self._flows:
            self._server.close_session(self._session, self._cause)


class NativeStream(QuietUser):
    """Stream 3, on which our own client says that it can dial data connections."""

    def __init__(self, backend: Backend, mux: Mux, stream_id: int) -> None:
        self._backend = backend
        self._mux = mux
        self._stream_id = stream_id
        self._lines = LineReader()

    def received(self, data: bytes) -> None:
        self._mux.consumed(self._stream_id, len(data))
        try:
            for line in self._lines.feed(data):
                message = parse_message(line)
                if isinstance(message, NativeHello):
                    self._backend.speaks_native(self._stream_id, message)
        except ProtocolError as error:
            self._backend.broke_protocol(str(error))

    def half_closed(self) -> None:
        self._mux.send_eof(self._stream_id)
        self._mux.forget(self._stream_id)
        self._backend.native_lost()

    def lost(self, reason: str) -> None:
        self._backend.native_lost()


class WaitingVisitor:
    """A visitor who has connected and is not yet led anywhere."""

    def __init__(self, backend: Backend, end: SocketEnd, peer: str) -> None:
        self._backend = backend
        self._timer: asyncio.TimerHandle | None = None
        self.end = end
        self.peer = peer

    def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to wait for a data connection."""
        self._timer = loop.call_later(DATA_CONNECTION_PATIENCE, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self._backend.patience_over(self)

    def leave_queue(self) -> bool:
        """Stops waiting; False when the waiting was over already."""
        if self._timer is None:
            return False
        self._timer.cancel()
        self._timer = None
        return True
