"""Servers behind a proxy that speaks the PROXY protocol: who really comes, before anything else is said.

From the addresses in ``proxy_protocol_from`` the header has to come first, before TLS too, and whom it names is the
peer from then on: for ``clients_allow``, limits, sessions, events and what services are told. From every other address
bytes are what they are, so that nobody else can say to be somebody.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from tunnelconsole.engine.access import Clients
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.refusals import RefusalKind, kind_of
from tunnelconsole.engine.services.service import Service
from tunnelconsole.engine.transport.listener import Accepted
from tunnelconsole.engine.transport.watch import InputWatch
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.proxy_protocol import MAX_V2, ProxyHeader

WHO = "it is in proxy_protocol_from"
"""Why a header was expected of somebody."""


class ProxyHeaders:
    """What stands between a service's listeners and those who take their connections.

    :param networks: of the proxies whose word is taken.
    """

    def __init__(self, service: Service[Any], networks: Sequence[str]) -> None:
        self.service = service
        self.reading: set[HeaderReading] = set()
        """Connections of proxies whose header is not complete."""
        self._proxies = Clients(networks, [])

    def before(self, accepted: Accepted) -> Accepted:
        """What a listener is to call so that ``accepted`` hears of everybody once it is known who has come."""

        def arrived(sock: socket.socket, peer: str) -> None:
            if not self._proxies.permit(peer):
                accepted(sock, peer)
                return
            place = self.service.gate.enter_handshake(peer)
            if place is None:
                self.service.refused(peer, "too many connections are inside their handshake", "limit")
                sock.close()
                return
            HeaderReading(self, sock, peer, place, accepted)

        return arrived

    def leave(self) -> None:
        """Closes the connections whose header is not complete, because the service takes nobody any more."""
        for reading in list(self.reading):
            reading.leave()


class HeaderReading:
    """A proxy's connection until its header is complete. It owns the socket until then.

    Exactly the header is taken from the socket: what comes behind may be TLS, which reads for itself.

    :param place: among those inside their handshake; the visitor takes one of its own afterwards.
    """

    __slots__ = ("_accepted", "_header", "_headers", "_input", "_peer", "_place", "_socket", "_timer")

    def __init__(self, headers: ProxyHeaders, sock: socket.socket, peer: str, place: Place, accepted: Accepted) -> None:
        service = headers.service
        self._headers = headers
        self._socket = sock
        self._peer = peer
        self._place = place
        self._accepted = accepted
        self._header = ProxyHeader()
        self._timer = service.node.loop.call_later(service.settings.limits.handshake_timeout, self._late)
        self._input = InputWatch(service.node.loop, sock.fileno(), self._readable)
        self._input.start()
        place.lost = partial(self._turn_away, kind="limit")
        headers.reading.add(self)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(MAX_V2, socket.MSG_PEEK)
            if data:
                # What belongs to the header is taken at once, however little it is: left in the kernel, it would keep
                # the descriptor readable, and so the loop busy, until the rest comes.
                self._socket.recv(self._header.receive_data(data))
            elif self._header.begun:
                self._header.receive_eof()
            else:
                self.leave()  # without a word, as a check whether somebody listens
                return
        except BlockingIOError:
            return
        except OSError as error:
            if not self._header.begun:
                self.leave()  # as HAProxy ends such a check
                return
            self._turn_away(f"it broke off before its PROXY header was complete: {error.strerror or error}", "left")
            return
        except ProtocolError as error:
            self._turn_away(f"{error}; {WHO}", kind_of(error))
            return
        told = self._header.told
        if told is not None:
            self._let_go()
            source = told.source
            self._accepted(self._socket, self._peer if source is None else format_host_port(*source))

    def _late(self) -> None:
        timeout = self._headers.service.settings.limits.handshake_timeout
        self._turn_away(f"no complete PROXY header within {timeout:g} s; {WHO}", "timeout")

    def _turn_away(self, reason: str, kind: RefusalKind) -> None:
        self._headers.service.refused(self._peer, reason, kind)
        self.leave()

    def leave(self) -> None:
        """Closes the connection."""
        self._let_go()
        self._socket.close()

    def _let_go(self) -> None:
        self._timer.cancel()
        self._input.stop()
        self._place.leave()
        self._headers.reading.discard(self)
