"""A tunnel's client as a backend: its control connection, and the links on which visitors' requests reach it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.services.tunnel.backend import Backend, Caller
from tunnelconsole.engine.services.tunnel.idle_links import IdleLinks
from tunnelconsole.engine.services.tunnel.routes import Tunnel
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.link import EndLink, Link
from tunnelconsole.engine.transport.listener import BACKLOG
from tunnelconsole.engine.transport.mux import Mux, QuietUser
from tunnelconsole.engine.transport.stream_link import StreamLink
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.tunnel import TunnelAsked
from tunnelconsole.engine.wire.tunnel_lines import (
    GREETING,
    GREETING_ANSWER,
    MAX_WANTED,
    Greeting,
    Leave,
    Message,
    VisitorComing,
    Want,
    encode_message,
    message_reader,
    parse_health,
)

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.server import TunnelServer

DATA_CONNECTION_PATIENCE: Final = 2.0
"""Seconds a request waits for a data connection before it is led through yamux instead."""

STREAM_PATIENCE: Final = 10.0
"""Seconds a client has to open the stream that it was asked for."""

MAX_QUEUED: Final = BACKLOG
"""Requests that wait for a link to one client: as many visitors as the kernel would hold in their place."""

MAX_REJECTED: Final = 256
"""Streams that a client may open in vain: HashiCorp's backlog, so that one which errs a little lives on."""


class ClientBackend(Backend):
    """A client that is attached; entered in its tunnel once it has ``greeted``.

    :param key: of its data connections; None when it makes none.
    :param end: the control connection, owned from here on.
    :param early: what the client sent behind its request.
    """

    def __init__(
        self,
        server: TunnelServer,
        tunnel: Tunnel,
        asked: TunnelAsked,
        key: bytes | None,
        end: End,
        peer: str,
        early: bytes,
    ) -> None:
        super().__init__(server, tunnel, peer)
        self.key = key
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._spare: IdleLinks[EndLink] = IdleLinks(self._loop, MAX_WANTED, EndLink.close)
        self._spare.kept = asked.spare
        self._waiting: dict[Caller, bool] = {}
        """Who waits for a data connection, the longest waiting first; and whether for a WebSocket."""
        self._queued: deque[Caller] = deque()
        """Who waits for a stream that the client was asked to open."""
        self._owed = 0
        """Streams that the client was asked for and has not opened."""
        self._control = 0
        self._doubted = False
        """Whether data connections that were asked for have failed to come."""
        self._rejected = 0
        self._cause = ""
        self._mux = Mux(
            self._loop,
            end,
            client=False,
            opened=self._opened,
            closed=self._closed,
            keepalive=server.settings.keepalive,
            farewells=server.node.farewells,
            early=early,
            leaving=self.retire,
        )

    # -- for visitors ----------------------------------------------------------------------------------------------

    def take(self, caller: Caller, *, websocket: bool) -> Link | None:
        """A link for a request; None when ``caller`` will get one, or hear that there is none."""
        self.load += 1
        link = self._spare.take()
        if link is not None:
            return link
        now = self._loop.time()
        if len(self._waiting) + len(self._queued) >= MAX_QUEUED:
            self._loop.call_soon(caller.no_link, 503, "too many requests wait for the service behind this tunnel")
        elif self.key is not None and self._say(Want(1)) and not self._doubted:
            caller.deadline = now + DATA_CONNECTION_PATIENCE
            self._waiting[caller] = websocket
        else:
            self._ask_for_stream(caller, websocket)
        return None

    def _ask_for_stream(self, caller: Caller, websocket: bool) -> None:
        if self._say(VisitorComing(websocket)):
            caller.deadline = self._loop.time() + STREAM_PATIENCE
            self._owed += 1
            self._queued.append(caller)
        else:
            self._loop.call_soon(caller.no_link, 503, "the tunnel's client is too far behind to be given requests")

    def impatient(self, caller: Caller) -> bool:
        """The caller's time is over; False when all ways have been tried."""
        if caller not in self._waiting:
            return False
        self._doubted = True
        self._ask_for_stream(caller, self._waiting.pop(caller))
        return True

    def give_up(self, caller: Caller) -> None:
        self._waiting.pop(caller, None)
        if caller in self._queued:
            self._queued.remove(caller)
        super().give_up(caller)

    def give_back(self, link: Link, *, reusable: bool) -> None:
        if reusable and isinstance(link, EndLink) and not (link.blocked or link.ended or self.leaving):
            self.load -= 1
            self._keep(link)
        elif isinstance(link, StreamLink) and self._mux.crowded:
            self.lost(
                link
            )  # all of the answer has come, and an original leaves a stream open as long as its service does
        else:
            super().give_back(link, reusable=reusable)

    def told_health(self, *, healthy: bool) -> None:
        """The client says whether its service works."""
        changed, self.healthy = healthy != self.healthy, healthy
        if healthy:
            self.down_until = 0.0
        if changed:
            self.show_health()

    def add_data_connection(self, end: End) -> None:
        """Takes a data connection that the client dialled."""
        self._doubted = False
        if self.leaving:
            end.close()
        else:
            self._keep(EndLink(self._loop, end))

    def _keep(self, link: EndLink) -> None:
        """Gives a data connection to who waits longest, or keeps it ready."""
        if self._waiting:
            caller = next(iter(self._waiting))
            del self._waiting[caller]
            caller.got_link(link)
            return
        self._spare.keep(link)

    # -- the session -----------------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Ends the session with everything in it, and tells a client of ours why."""
        self._cause = self._cause or reason
        told = self.key is not None and self._say(Leave(reason))
        self._mux.close("" if told else reason)  # with a reason it would be closed before that has left

    def retire(self) -> None:
        """Takes no new visitors; what is under way goes on, and the session ends with the last of it."""
        if self.leaving:
            return
        self.leaving = True
        self._server.routes.leave(self.tunnel, self)
        if not self._mux.over:
            self._mux.go_away()
        self._spare.close()
        for caller in list(self._waiting):
            self.impatient(caller)
        self.close_if_done()

    def close_if_done(self) -> None:
        if self.leaving and not self.load:
            self._mux.close()

    def _say(self, message: Message) -> bool:
        """Writes a line on the control stream; False when the client has closed it or does not read."""
        line = encode_message(message)
        if not self._control or self._mux.over or self._mux.room(self._control) < len(line):
            return False
        self._mux.send(self._control, line)
        return True

    def got_greeting(self, stream_id: int) -> None:
        """The client greets: answers, and may be asked for streams from now on."""
        self._control = stream_id
        if self._mux.room(stream_id) >= len(GREETING_ANSWER):
            self._mux.send(stream_id, GREETING_ANSWER)
        if not self.greeted.done():
            self.greeted.set_result(None)

    def broke_protocol(self, reason: str) -> None:
        """Ends the session because of what the client sent."""
        self._mux.close(f"protocol error: {reason}")

    def control_lost(self, reason: str) -> None:
        """The control stream is over; without it there is no tunnel, as in the original."""
        self._mux.close(reason)

    def _opened(self, stream_id: int) -> None:
        if not self._control and not self.greeted.done():
            self._mux.accept(stream_id, ControlStream(self, self._mux, stream_id))
            self._control = stream_id
        elif self._queued:
            self._owed -= 1
            caller = self._queued.popleft()
            link = StreamLink(self._loop, self._mux, caller)
            link.bind(stream_id)
            self._mux.accept(stream_id, link)
            caller.got_link(link)
        elif self._owed:  # whoever wanted it has left meanwhile
            self._owed -= 1
            self._mux.reject(stream_id)
        elif self._rejected < MAX_REJECTED:
            self._rejected += 1
            self._mux.reject(stream_id)
        else:
            self.broke_protocol("the client opens stream after stream that it was not asked for")

    def _closed(self, reason: str) -> None:
        """The control connection is over, and with it everything: the host is free at once."""
        self._cause = self._cause or reason
        self._spare.close()
        self._waiting.clear()
        self._queued.clear()
        if not self.greeted.done():
            self.greeted.set_exception(ProtocolError(reason or "it closed before it greeted"))
            self.greeted.exception()  # looked at here, because nobody may be waiting any more
        self.left(reason or "the tunnel's client left", self._cause)


class ControlStream(QuietUser):
    """Stream 1, on which the client greets, and is asked for streams and data connections."""

    def __init__(self, backend: ClientBackend, mux: Mux, stream_id: int) -> None:
        self._backend = backend
        self._mux = mux
        self._stream_id = stream_id
        self._greeting: Greeting | None = Greeting(GREETING)
        self._lines = message_reader()

    def received(self, data: bytes) -> None:
        self._mux.consumed(self._stream_id, len(data))
        try:
            if self._greeting is not None:
                if not self._greeting.receive_data(data):
                    return
                data, self._greeting = self._greeting.leftover, None
                self._backend.got_greeting(self._stream_id)
            if self._backend.key is None:
                return  # the original reads nothing more here either
            for line in self._lines.feed(data):
                healthy = parse_health(line)
                if healthy is not None:
                    self._backend.told_health(healthy=healthy)
        except ProtocolError as error:
            self._backend.broke_protocol(str(error))

    def half_closed(self) -> None:
        self._backend.control_lost("the client closed the control stream")

    def lost(self, reason: str) -> None:
        self._backend.control_lost(reason)
