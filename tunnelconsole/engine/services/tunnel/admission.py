"""Who may have a tunnel at the tunnel server: the handshake of its clients, and of their data connections."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.refusals import RefusalKind, kind_of
from tunnelconsole.engine.services.listening import TOKEN_NEEDED
from tunnelconsole.engine.services.tunnel.backend import Backend
from tunnelconsole.engine.services.tunnel.client_backend import ClientBackend
from tunnelconsole.engine.services.tunnel.hooks import NOT_JUDGED, Request
from tunnelconsole.engine.services.tunnel.routes import HostRules
from tunnelconsole.engine.sessions import ANONYMOUS
from tunnelconsole.engine.tokens.grants import Grant
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.transport.tls import TLSEnd
from tunnelconsole.engine.wire.errors import NoRoom, NotAllowed, ProtocolError
from tunnelconsole.engine.wire.token_proof import NOT_KNOWN, is_secret
from tunnelconsole.engine.wire.tunnel import KEY_LENGTH, DataOffered, Rejected, TunnelAsked, TunnelServerHandshake

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.server import TunnelServer

FIRST_READ: Final = 4096
"""Bytes read at once of a client's request."""

UNKNOWN: Final = 401
"""Says that nobody who is known asks for a tunnel."""

FULL: Final = 503
"""Says that there is no room for a tunnel."""

LATER: Final = 503
"""Says that it cannot be told now who asks for a tunnel."""


class Admission:
    """Lets clients in, or turns them away."""

    def __init__(self, server: TunnelServer) -> None:
        self._server = server
        settings = server.settings
        self._rules = HostRules(settings.hosts_allow, settings.hosts_deny, settings.reserved)
        self._tokens = {identity: token.encode() for identity, token in settings.tokens.items()}
        self._keys: dict[bytes, ClientBackend] = {}
        """Clients that make data connections, by the key of these."""
        self._promised: list[tuple[str, object]] = []
        """Hosts that have been promised to clients which have not greeted yet, and to whom."""

    def forget(self, backend: Backend) -> None:
        """A client's session is over."""
        if backend.key is not None:
            self._keys.pop(backend.key, None)

    async def greet(self, end: End, peer: str, first: bytes, deadline: float) -> None:
        """Finds out what somebody wants that begins as a client does, and lets it in or turns it away.

        :param first: what it has said already.
        :param deadline: when it is turned away, by the loop's clock.
        """
        handshake = TunnelServerHandshake()
        try:
            async with asyncio.timeout_at(deadline):
                events = handshake.receive_data(first)
                while not events:
                    data = await receive(end, FIRST_READ)
                    if not data:
                        handshake.receive_eof()
                    events = handshake.receive_data(data)
                match events[0]:
                    case TunnelAsked() as asked:
                        await self._attach(end, peer, handshake, asked)
                    case DataOffered(key):
                        await self._attach_data(end, peer, handshake, key)
                    case Rejected(_, reason):
                        self._turn_away(end, peer, handshake, reason, "protocol")
        except (ProtocolError, OSError) as error:
            self._server.refused(peer, self._server.explain(error), kind_of(error))
            end.close()

    def _turn_away(self, end: End, peer: str, handshake: TunnelServerHandshake, reason: str, kind: RefusalKind) -> None:
        self._server.refused(peer, reason, kind)
        self._server.node.farewells.bid(end, handshake.data_to_send())

    # -- a tunnel --------------------------------------------------------------------------------------------------

    async def _attach(self, end: End, peer: str, handshake: TunnelServerHandshake, asked: TunnelAsked) -> None:
        try:
            grant = self._server.node.tokens.bear(asked.token) if asked.token else None
        except NotAllowed as error:
            handshake.refuse(LATER if asked.native else 400, str(error))
            self._turn_away(end, peer, handshake, str(error), kind_of(error))
            return
        identity, owner = (grant.identity, grant.token) if grant is not None else self._identify(asked.token)
        request = Request(asked.name, peer, asked.head.method, asked.head.target, asked.head.fields)
        status, reason = 401, NOT_KNOWN if asked.token else TOKEN_NEEDED
        if identity:
            status, reason = self._bar(grant, identity, asked.name, peer)
        if identity and not status:
            status, reason = await self.judge(request, identity if grant is None else "", owner, grant=grant)
        if status:
            # An original knows 400 and nothing else.
            handshake.refuse(status if asked.native else 400, reason)
            kind: RefusalKind = "not_allowed"
            if reason == NOT_KNOWN:
                kind = "credentials"
            elif status == FULL:
                kind = "limit"
            self._turn_away(end, peer, handshake, reason, kind)
            return
        promise = (asked.name, owner)
        self._promised.append(promise)
        try:
            await self._let_in(end, peer, handshake, asked, identity, owner, grant)
        finally:
            self._promised.remove(promise)

    async def _let_in(
        self,
        end: End,
        peer: str,
        handshake: TunnelServerHandshake,
        asked: TunnelAsked,
        identity: str,
        owner: object,
        grant: Grant | None,
    ) -> None:
        key = secrets.token_bytes(KEY_LENGTH) if asked.native and self._server.settings.native else None
        handshake.accept(key)
        answer = handshake.data_to_send()
        if end.send(answer) != len(answer) or not end.flush():
            raise ProtocolError("it does not read its side of the handshake")
        tunnel = self._server.tunnel_of(asked.name, owner)
        backend = ClientBackend(self._server, tunnel, asked, key, end, peer, handshake.leftover)
        backend.token_identity = identity if grant is None else ""
        backend.grant = grant
        self._server.backends.add(backend)
        if key is not None:
            self._keys[key] = backend  # data connections may come before the client has greeted
        try:
            await backend.greeted
        except BaseException as error:
            backend.close(str(error) or "it left during the handshake")
            raise
        if full := self.enter(
            backend, owner, identity, f"{'https' if isinstance(end, TLSEnd) else 'http'}://{asked.host}"
        ):
            backend.close(full)
            raise NoRoom(full)

    def _identify(self, token: str) -> tuple[str, object]:
        """Who brings a token, "" for nobody that is known; and what tells one owner of a host from another."""
        given = token.encode()
        if is_secret(token) and not self._tokens:
            return "", ""  # one that was revoked must not become anybody's
        if not self._tokens:  # everybody may come, and is told from others by the token that it made up
            return ANONYMOUS, hashlib.sha256(given).digest() if token else object()
        known = ""
        for identity, secret in self._tokens.items():
            if hmac.compare_digest(secret, given):
                known = identity
        return known, known

    def _bar(self, grant: Grant | None, identity: str, host: str, peer: str) -> tuple[int, str]:
        """The status and the reason with which nobody is let in who has this grant, or none; 0 and "" for none."""
        if grant is None and identity != ANONYMOUS:
            return 0, ""  # a token of the settings
        if barred := self._server.barred(grant, peer):
            return (401 if grant is None else 403), barred
        if grant is not None and not grant.rights.grants_host(host):
            return 403, f"the token is not for the host {host}"
        return 0, ""

    async def judge(
        self,
        request: Request,
        identity: str,
        owner: object,
        *,
        granted: bool = False,
        grant: Grant | None = None,
    ) -> tuple[int, str]:
        """The status and the reason with which a tunnel is refused; 0 and "" when it is not.

        :param identity: who asks, as the token proved; "" for whoever has proved something else.
        :param owner: what tells one owner of a host from another.
        :param granted: whether the host was granted to whoever asks, by name.
        :param grant: what whoever asks has proved, if that was a token of this node.
        """
        server, host = self._server, request.host
        # What is reserved for an identity of the settings is not for a token of the node that has the same name, unless
        # only those of the node are let in here.
        tokens_only = grant is not None and server.settings.require_token and not self._tokens
        claimed = grant.identity if grant is not None and tokens_only else identity
        if reason := self._rules.refuses(host, claimed, granted=granted):
            return 403, reason
        if reason := self._taken(host, owner):
            return 409, reason
        if reason := self._full(host, identity, request.peer, grant):
            return 503, reason
        if server.hooks.authenticate is not None:
            verdict: str | None = NOT_JUDGED
            with server.node.contain("the authenticate callback", server.name):
                answer = server.hooks.authenticate(request)
                verdict = answer if answer is None or isinstance(answer, str) else await answer
            if verdict:
                return 403, verdict
            if reason := self._taken(host, owner):  # by somebody who came while it was judged
                return 409, reason
        return 0, ""

    def _taken(self, host: str, owner: object) -> str:
        tunnel = self._server.routes.find(host)
        owners = [promised for name, promised in self._promised if name == host]
        if tunnel is not None:
            owners.append(tunnel.owner)
        return f"a tunnel for {host} exists already" if any(other != owner for other in owners) else ""

    def _full(self, host: str, identity: str, peer: str, grant: Grant | None) -> str:
        """Why there can be no further session for a host; whoever takes the place of another needs none."""
        if self._server.routes.find(host) is not None and not self._server.shares(identity):
            return ""
        name = grant.identity if grant is not None else identity
        return self._server.no_room(peer, name, grant, new_session=True, new_channel=False)

    def enter(self, backend: Backend, owner: object, identity: str, url: str) -> str:
        """From now on the backend's visitors may come; returns why not, "" where they may."""
        server, host = self._server, backend.tunnel.host
        rights = backend.token_identity
        barred = ""
        if backend.grant is not None:  # it may have been revoked, used or changed since it was proved
            _, barred = self._bar(backend.grant, identity, host, backend.peer)
        full = barred or self._taken(host, owner) or self._full(host, rights, backend.peer, backend.grant)
        if full:  # others have come meanwhile
            return full
        tunnel = backend.tunnel = server.routes.find(host) or backend.tunnel
        shares = server.shares(rights)
        older = [] if shares else list(tunnel.backends)
        tunnel.backends = [*tunnel.backends, backend] if shares else [backend]
        tunnel.token = backend.grant.token if backend.grant is not None else None
        server.routes.add(tunnel)
        backend.address = url
        backend.session = server.open_session(
            backend.peer, backend.close, identity=identity, address=url, grant=backend.grant
        )
        for other in older:
            other.close("the same identity came back and took its place")
        if not backend.healthy:
            backend.show_health()
        server.entered(backend)
        return ""

    # -- a data connection -----------------------------------------------------------------------------------------

    async def _attach_data(self, end: End, peer: str, handshake: TunnelServerHandshake, key: bytes) -> None:
        backend = self._keys.get(key)  # 256 random bits: a guess tells an attacker nothing by its timing
        if backend is None or backend.leaving:
            reason = "its key belongs to no client that is here"
            handshake.refuse(403, reason)
            self._turn_away(end, peer, handshake, reason, "not_allowed")
            return
        handshake.accept()
        await send_all(end, handshake.data_to_send())
        if handshake.leftover:
            raise ProtocolError("a data connection said something before it had a visitor")
        backend.add_data_connection(end)
