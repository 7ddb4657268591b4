"""Somebody who has connected to the tunnel server: TLS, and the first bytes, which tell a client from a visitor."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.refusals import RefusalKind, kind_of
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.link import LINK_READ
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.http.answer import status_page
from tunnelconsole.engine.wire.tunnel import is_tunnel

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.server import TunnelServer


class Arrival:
    """One of them, until it is known who it is.

    :param place: among those inside their handshake; handed on with the end, and with the deadline: one for all that it
        takes to tell who has come, and for the first head.
    """

    __slots__ = ("_end", "_first", "_input", "_looked", "_peer", "_place", "_server", "deadline")

    def __init__(self, server: TunnelServer, end: End, peer: str, place: Place) -> None:
        self._server = server
        self._end = end
        self._peer = peer
        self._place = place
        self._first = b""
        self._looked = False
        loop = server.node.loop
        self.deadline = loop.time() + server.settings.limits.handshake_timeout
        self._input = InputWatch(loop, end.fileno(), self._readable)
        self._input.start()
        place.lost = partial(self._turn_away, kind="limit")
        server.arrivals.add(self)

    def _readable(self) -> None:
        end = self._end
        try:
            if isinstance(end, TLSEnd) and not end.established:
                if not self._looked and self._speaks_http(end):
                    return
                end.handshake()
            while True:
                data = end.receive(LINK_READ)
                if not data:
                    self.leave()  # without a word, as browsers do that connected in advance
                    return
                self._first += data
                known = is_tunnel(self._first)
                if known is not None:
                    self._hand_on(is_client=known)
                    return
                if not end.holds_input():
                    return
        except BlockingIOError:
            return
        except OSError as error:
            if end.heard if isinstance(end, TLSEnd) else self._first:
                self._turn_away(self._server.explain(error), kind_of(error))
            else:
                self.leave()  # without a word too: so ends a proxy's check whether somebody listens

    def _speaks_http(self, end: TLSEnd) -> bool:
        """Tells whoever came by HTTP that this is HTTPS, before TLS does in words that it does not understand."""
        self._looked = True
        if not end.socket.recv(1, socket.MSG_PEEK).isalpha():  # as no TLS handshake begins, and every method does
            return False
        self._server.refused(self._peer, "it came by HTTP, and this is HTTPS", "tls")
        self._let_go()
        page = status_page(400, "this is HTTPS; begin the address with https://", connection="close")
        self._server.node.farewells.bid(SocketEnd(end.socket), page)
        return True

    def _hand_on(self, *, is_client: bool) -> None:
        self._server.arrivals.discard(self)
        if is_client:
            self._input.stop()
            self._server.greet(self._end, self._peer, self._place, self._first, self.deadline)
        else:
            self._input.hand_over()
            self._server.visit(self._end, self._peer, self._place, self._first, self.deadline)

    def late(self) -> None:
        """Its time is over; a visitor that said nothing is no news."""
        if self._first or (isinstance(self._end, TLSEnd) and not self._end.established):
            self._turn_away(self._server.explain(TimeoutError()), "timeout")
        else:
            self.leave()

    def _turn_away(self, reason: str, kind: RefusalKind) -> None:
        self._server.refused(self._peer, reason, kind)
        self.leave()

    def leave(self) -> None:
        """Closes the connection."""
        self._let_go()
        self._end.close()

    def _let_go(self) -> None:
        self._server.arrivals.discard(self)
        self._input.stop()
        self._place.leave()
