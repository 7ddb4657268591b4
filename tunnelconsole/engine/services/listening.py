"""What every server is: it listens, has TLS where that is on, and looks at newcomers before it lets them speak."""

from __future__ import annotations

import socket
import ssl
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from tunnelconsole.engine.identities import ANONYMOUS, Identity
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.certificate_pair import CertificatePair
from tunnelconsole.engine.services.proxy_headers import ProxyHeaders
from tunnelconsole.engine.services.server_tls import ServerTLS, client_trust
from tunnelconsole.engine.services.service import Service, ServiceSettings
from tunnelconsole.engine.sessions import Session
from tunnelconsole.engine.settings import ListenAddress, ProxyNetwork
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.tokens.rights import System
from tunnelconsole.engine.transport.ends import End, SocketEnd
from tunnelconsole.engine.transport.listener import Accepted, Listener
from tunnelconsole.engine.transport.tls import NotTLS, TLSEnd, brought_none, not_taken, why
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.first_bytes import TLS, spoken_by

if TYPE_CHECKING:
    from tunnelconsole.engine.transport.client_trust import ClientTrust

TOKEN_NEEDED = "a token is needed here; give it with --token-file or the setting token"  # noqa: S105 - a sentence
"""What is wrong with somebody who brings none where one is required."""

TLS_ON = "set [service.NAME.tls] on the client"
"""What to do about a client without TLS at a server with it."""


class ListeningSettings(ServiceSettings, frozen=True, kw_only=True):
    """What every server may have besides its own keys."""

    listen: ListenAddress
    proxy_protocol_from: tuple[ProxyNetwork, ...] = ()
    """Networks of proxies that say with the PROXY protocol who comes; they have to, before anything else, wherever this
    server listens. From all other addresses nobody is asked, nor believed."""
    require_token: bool = False
    """Whether only those are let in who prove a token of this node."""


L = TypeVar("L", bound=ListeningSettings)


class ListeningService(Service[L]):
    """A server. Whoever may connect and finds a place is handed to :meth:`newcomer`."""

    live_keys = Service.live_keys | {"limits.handshake_timeout", "tls.client_keys"}
    system: ClassVar[System]
    """Its system, as the rights of tokens name it."""

    def __init__(self, name: str, settings: L, node: Node) -> None:
        """Makes the service, stopped.

        :raises ValueError: nobody could come by its list of client keys as it is.
        """
        super().__init__(name, settings, node)
        self._listener: Listener | None = None
        self._tls: ServerTLS | None = None
        client_trust(settings.tls)  # so that what is wrong with it shows now
        self._authorities: frozenset[bytes] = frozenset()
        """Whose client certificates were taken when the files were read last."""
        self._headers = ProxyHeaders(self, settings.proxy_protocol_from) if settings.proxy_protocol_from else None

    async def prepare(self) -> None:
        """Does what must be done before anybody can come.

        :raises Exception: it cannot be done; the service then does not listen.
        """

    @abstractmethod
    def newcomer(self, end: End, peer: str, place: Place) -> None:
        """Takes somebody who has connected and has said nothing yet, its TLS handshake included.

        :param place: among those inside their handshake, to be left once that is done.
        """

    async def run(self) -> None:
        if self.settings.tls is not None:
            self._tls = ServerTLS(self.settings.tls, self.name, self.node.state_dir)
            self._look_at_files()
        await self.prepare()
        self._listener = await self.listen(self.settings.listen, self._accepted)
        self.listening(self._listener)
        try:
            await self.node.loop.create_future()
        finally:
            self.stop_accepting()

    def judged(self, accepted: Accepted) -> Accepted:
        """What a listener of this service calls, so that ``accepted`` is told of visitors in place of their proxies."""
        judged = super().judged(accepted)
        return self._headers.before(judged) if self._headers is not None else judged

    def stop_accepting(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._headers is not None:
            self._headers.leave()
        self.leave_newcomers()

    def refresh(self) -> None:
        if self._tls is not None:
            self._tls.refresh()
            self._look_at_files()

    def take(self, settings: L) -> None:
        before = self.settings.tls
        super().take(settings)
        if self._tls is not None and settings.tls is not None:
            self._tls.take(settings.tls)
            if before is None or before.client_keys != settings.tls.client_keys:
                self.leave_newcomers()  # who has shown a key already, and waits with the rest until it is off the list

    def cut_by(self, settings: ServiceSettings) -> Sequence[Session]:
        trust = client_trust(settings.tls)
        if trust is not None:
            with self.node.contain("reading the authorities of clients", self.name):
                trust.read()
                return [session for session in self.attached if _lost_trust(session, trust)]
        return ()

    def _look_at_files(self) -> None:
        """Acts on files of TLS that have been read again: who is in by an authority that has gone is not any more."""
        if self._tls is None:
            return
        self.notes["fingerprint"] = self._tls.fingerprint
        trust = self._tls.trust
        if trust is not None:
            before, self._authorities = self._authorities, trust.authorities
            if not before <= self._authorities:
                self.leave_newcomers()  # they are judged by the old file
                self.end_sessions(
                    [session for session in self.attached if _lost_trust(session, trust)],
                    "its client certificate is not taken any more",
                )

    @property
    def certificates(self) -> Sequence[CertificatePair]:
        return () if self._tls is None else (self._tls.pair,)

    def renewed(self) -> None:
        if self._tls is not None:
            self._tls.renewed()
            self._look_at_files()

    def barred(self, grant: Grant | None, peer: str) -> str:
        """Why somebody who has proved this token, or none, is not let in here; "" when that is no reason."""
        if grant is not None:
            return self.node.tokens.refuses(grant, self.system, peer)
        return TOKEN_NEEDED if self.settings.require_token else ""

    def identity_of(self, end: End, named: str = ANONYMOUS, grant: Grant | None = None) -> Identity:
        """Who is at an end, its handshakes done: whom a credential of the protocol names, or else a client certificate.

        :param named: by a secret that has a name; :data:`ANONYMOUS` when none does.
        :param grant: what was proved, if that was a token.
        """
        certified = end.peer_identity if isinstance(end, TLSEnd) and end.established else ""
        certificate = (end.peer_certificate() or b"") if certified and isinstance(end, TLSEnd) else b""
        if grant is not None:
            return Identity(grant.identity, "token", certificate)
        if named != ANONYMOUS:
            return Identity(named, "secret", certificate)
        return Identity(certified or ANONYMOUS, "certificate" if certified else "", certificate)

    def explain(self, error: ProtocolError | OSError) -> str:
        """Why a newcomer was not let in, in a few words."""
        match error:
            case ProtocolError():
                return str(error)
            case TimeoutError(errno=None):  # the clock; the kernel has a number for giving up
                return f"no handshake within {self.settings.limits.handshake_timeout:g} s"
            case NotTLS():
                return f"it spoke {f'plain {error.spoken}' if error.spoken else 'no TLS'} to a TLS listener; {TLS_ON}"
            case OSError() if reason := not_taken(error):
                return reason
            case OSError() if brought_none(error):
                return "it brought no client certificate, which is needed here"
            case ssl.SSLError():
                return f"the TLS handshake failed: {why(error)}"
            case _:
                return f"it broke off during the handshake: {error.strerror or error}"

    def mistaken(self, first: bytes) -> str:
        """What is wrong with who begins like this, when it is TLS and there is none here; "" otherwise."""
        if self._tls is not None or spoken_by(first) != TLS:
            return ""
        return f"it spoke TLS to a listener without it; set [service.{self.name}.tls], or leave tls out at the client"

    def _accepted(self, sock: socket.socket, peer: str) -> None:
        place = self.admit(sock, peer)
        if place is not None:
            tls = self._tls
            end = TLSEnd(sock, tls.context, server_side=True, identify=tls.identify) if tls else SocketEnd(sock)
            self.newcomer(end, peer, place)


def _lost_trust(session: Session, trust: ClientTrust) -> bool:
    return bool(session.certificate) and not trust.still_takes(session.certificate)
