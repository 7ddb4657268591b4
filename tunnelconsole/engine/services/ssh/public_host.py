"""A public hostname of an SSH client (``ssh -R 80:localhost:3000``), which a tunnel server gives it.

To the tunnel server it is a backend like any other: it has a session there, its visitors are channels of that, and the
inspector keeps what they ask for.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.backoff import LONGEST_DELAY_FOR_A_PLACE, Backoff
from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.services.native import SPARE_CONNECTIONS
from tunnelconsole.engine.services.ssh.public_place import OPEN_PATIENCE, PublicPlace
from tunnelconsole.engine.services.tunnel.backend import Backend, Caller
from tunnelconsole.engine.services.tunnel.hooks import Request
from tunnelconsole.engine.services.tunnel.idle_links import IdleLinks
from tunnelconsole.engine.services.tunnel.routes import Tunnel
from tunnelconsole.engine.services.tunnel.server import TunnelServer
from tunnelconsole.engine.transport.link import Link
from tunnelconsole.engine.transport.ssh_channel import ChannelLink
from tunnelconsole.engine.wire.http.head import HttpError, check_host
from tunnelconsole.errors import RequestRefused, TunnelConsoleError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.public_places import PublicPlaces

OWN_DOMAIN: Final = "localhost"
"""Where hostnames are without a ``public_url``: browsers take every name in it for this machine (RFC 6761, 6.3)."""

UNNAMED: Final = ("", "localhost", "*", "0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - a name, not listened on
"""Hosts that say nothing of a name: OpenSSH sends "localhost" where the user gave none."""

NAME_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Of made-up names: none that is taken for another."""

NAME_LENGTH: Final = 10
"""Letters of a made-up name: 50 bits, so that nobody finds it by guessing."""

MOST_SPARE: Final = 64
"""Channels to a client's service that are kept for the next requests: more than visitors usually ask at once."""


class PublicHost(PublicPlace):
    """The hostname."""

    def __init__(self, places: PublicPlaces, host: str, port: int) -> None:
        super().__init__(places, host, port)
        self._owner = ("ssh key", self.login.entry.key)
        self._backend: HostBackend | None = None
        self.host = ""
        """The hostname, once it is known."""
        self._closed = False
        self._coming_back: asyncio.Task[None] | None = None

    async def open(self) -> None:
        web = self._web()
        name = self._name_in(self._domain(), web)
        if self._places.has_host(name):
            raise RequestRefused(f"this connection has {name} already", "name another host")
        self.host = name
        await self._claim(web)

    def _web(self) -> TunnelServer:
        """:raises RequestRefused: there is no tunnel server, or it does not run."""
        return self._server.find_running(TunnelServer, "tunnel", self._server.settings.tunnel)

    def _domain(self) -> str:
        url = self._server.settings.public_url
        return url.address.host if url is not None else OWN_DOMAIN

    def _name_in(self, domain: str, web: TunnelServer) -> str:
        """The hostname that is meant; one label is a name in the domain, more are a name of their own.

        :raises RequestRefused: no host can have it.
        """
        asked = self.asked[0]
        if asked in UNNAMED:
            while True:
                name = f"{''.join(secrets.choice(NAME_LETTERS) for _ in range(NAME_LENGTH))}.{domain}"
                if web.routes.find(name) is None:
                    return name
        name = asked.removesuffix(".")
        name = name if "." in name else f"{name}.{domain}"
        try:
            check_host(name)
        except HttpError as error:
            raise _no_hostname(asked) from error
        if ":" in name:  # a port, or an address of IPv6: no visitor could name it
            raise _no_hostname(asked)
        return name

    async def _claim(self, web: TunnelServer) -> None:
        """Has the tunnel server give the hostname; judged again each time that it is claimed.

        :raises RequestRefused: it does not.
        """
        entry, peer = self.login.entry, self.login.peer
        granted = entry.forward.grants(self.host)
        if entry.forward.hosts and not granted:
            raise RequestRefused(f"this key may not have {self.host}", "host in its line says which it may")
        grant = self._server.check_token(entry, "tunnel", peer)
        if grant is not None and not grant.rights.grants_host(self.host):
            raise RequestRefused(f"the token is not for the host {self.host}")
        request = Request(self.host, peer, "CONNECT", self.host, ())
        # Without an identity: what is reserved for a token's is not for a key that has the same name behind it.
        _, refused = await web.admission.judge(request, "", self._owner, granted=granted)
        if not refused and self.login.over:
            refused = "the connection ended meanwhile"
        if not refused and web.state != "listening":  # judging may have taken its time
            refused = f"the tunnel-server {web.name} stops"
        if refused:
            raise RequestRefused(refused)
        backend = HostBackend(web, web.tunnel_of(self.host, self._owner), peer, self)
        backend.grant = grant
        web.backends.add(backend)
        if full := web.admission.enter(backend, self._owner, entry.identity, self._url(web)):
            web.backends.discard(backend)
            raise RequestRefused(full)
        self._backend = backend
        self.address = backend.address

    def _url(self, web: TunnelServer) -> str:
        url = self._server.settings.public_url
        if url is None:
            return web.url_of(self.host)
        return f"{url.scheme}://{self.host}{url.host.removeprefix(url.address.host)}"

    def tell_visit(self, caller: Caller) -> None:
        """Shows on the client's terminal who asks for what."""
        method, _, path = caller.label.partition(" ")
        self._places.tell_visit(caller.peer, f"{method} {self.host}{path}")

    def bring(self, caller: Caller, got: partial[None], failed: partial[None]) -> ChannelLink:
        """Opens a channel to the client for a request."""
        return self.login.channels.bring(self.asked, caller.peer, got, failed)

    def backend_gone(self, reason: str, *, comes_back: bool) -> None:
        """The tunnel server has let go of the hostname.

        :param comes_back: whether the tunnel server stops, or is about to be another: then it is asked again.
        """
        self._backend = None
        if self._closed:
            return
        if not comes_back:
            self._closed = True
            self._places.is_over(self, reason)
            return
        self._places.tell(f"waiting    {self.address}: its tunnel server stops")
        self._coming_back = self._server.tasks.start(self._come_back(), f"hostname {self.host} again")

    async def _come_back(self) -> None:
        backoff, told = Backoff(), ""
        while not self._closed:
            await asyncio.sleep(backoff.next(LONGEST_DELAY_FOR_A_PLACE))
            try:
                await self._claim(self._web())
            except TunnelConsoleError as error:
                if error.message != told:
                    told = error.message
                    self._places.tell(f"waiting    {self.address}: {told}")
                continue
            self._places.tell(f"forwarding {self.address} again")
            return

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._coming_back is not None:
            self._coming_back.cancel()
        self._places.closed(self)
        if self._backend is not None:
            self._backend.retire()


def _no_hostname(asked: str) -> RequestRefused:
    return RequestRefused(f"{asked[:64]!r} is no hostname", "letters, digits and hyphens are, with dots between them")


class HostBackend(Backend):
    """The hostname as the tunnel server sees it."""

    def __init__(self, server: TunnelServer, tunnel: Tunnel, peer: str, place: PublicHost) -> None:
        super().__init__(server, tunnel, peer)
        self._place = place
        self._opening: dict[Caller, ChannelLink] = {}
        self._spare: IdleLinks[ChannelLink] = IdleLinks(self._loop, MOST_SPARE, ChannelLink.close)
        self._spare.kept = SPARE_CONNECTIONS
        self._over = False

    def take(self, caller: Caller, *, websocket: bool) -> Link | None:
        self.load += 1
        self._place.tell_visit(caller)
        link = self._spare.take() if caller.repeatable and not websocket else None
        if link is not None:
            return link
        if full := self._place.login.channels.refusal:
            self._loop.call_soon(caller.no_link, 503, full)
            return None
        caller.deadline = self._loop.time() + OPEN_PATIENCE
        self._opening[caller] = self._place.bring(caller, partial(self._got, caller), partial(self._failed, caller))
        return None

    def _got(self, caller: Caller, link: ChannelLink) -> None:
        del self._opening[caller]
        caller.got_link(link)

    def _failed(self, caller: Caller, reason: str) -> None:
        del self._opening[caller]
        self.is_down()
        bus, peer = self._server.node.bus, self._place.login.peer
        bus.publish(TargetFailed(service=self._server.name, peer=caller.peer, target=peer, reason=reason))
        caller.no_link(502, f"the tunnel is there, but its client cannot reach the local service: {reason}")

    def impatient(self, caller: Caller) -> bool:
        return False

    def give_up(self, caller: Caller) -> None:
        link = self._opening.pop(caller, None)
        if link is not None:
            link.abort()
        super().give_up(caller)

    def give_back(self, link: Link, *, reusable: bool) -> None:
        if reusable and isinstance(link, ChannelLink) and not (link.blocked or link.ended or self.leaving):
            self.load -= 1
            self._spare.keep(link)
        else:
            super().give_back(link, reusable=reusable)

    def close(self, reason: str) -> None:
        self._end(reason)

    def retire(self) -> None:
        if not self.leaving:
            self.leaving = True
            self._spare.close()
            self._server.routes.leave(self.tunnel, self)
            self.close_if_done()

    def close_if_done(self) -> None:
        if self.leaving and not self.load:
            self._end("")

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        stopping, self.leaving = self.leaving, True
        self.left(reason or "the tunnel's client left", reason)
        self._spare.close()
        for link in self._opening.values():
            link.abort()
        self._opening.clear()
        self._place.backend_gone(reason, comes_back=stopping)
