"""The jump client: a local SOCKS5 proxy, HTTP CONNECT proxy or fixed target, through a jump server."""

from __future__ import annotations

import asyncio
import socket
from typing import ClassVar, Literal, Protocol

from tunnelconsole.engine.events import TargetFailed
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.refusals import kind_of
from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.services.jump.connection import reach
from tunnelconsole.engine.services.server_dialer import ClientService, ClientSettings, ServerDialer, ssh_rules
from tunnelconsole.engine.settings import HostPort, ListenAddress, Secret, ServerAddress
from tunnelconsole.engine.transport.ends import SocketEnd, receive, send_all
from tunnelconsole.engine.transport.listener import Listener
from tunnelconsole.engine.transport.pump import Finished, Pump
from tunnelconsole.engine.wire import http_connect, socks5
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, TargetRefused, TunnelConsoleError

PROXY_READ = 4096
"""Bytes read at once while a local program says where it wants to go."""

_TIMED_OUT = ("i/o timeout", "connection timed out", "did not answer within", "did not finish its handshake")


def _proxy_or_target(proxy: str | None, target: HostPort | None) -> list[Problem]:
    if proxy is not None and target is not None:
        return [("target", "a fixed target and a proxy exclude each other; leave one out")]
    return []


def _no_empty_secret(secret: Secret) -> list[Problem]:
    return [] if secret else [("secret", "the secret is empty; no jump server accepts that")]


class JumpClientSettings(ClientSettings, frozen=True, kw_only=True):
    """``kind = "jump-client"``."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("proxy", "target"), _proxy_or_target),
        Rule(("secret",), _no_empty_secret),
        *ssh_rules(),
    )

    server: ServerAddress | HostPort
    secret: Secret
    listen: ListenAddress
    proxy: Literal["socks5", "http"] | None = None
    """What local programs speak; ``socks5`` unless there is a ``target``."""
    target: HostPort | None = None
    """One fixed destination, in place of a proxy."""


class Doorman(Protocol):
    """Asks a local program where it wants to go, and tells it what became of that."""

    @property
    def leftover(self) -> bytes:
        """Payload that came along with the question."""

    def receive_data(self, data: bytes) -> HostPort | None:
        """Takes bytes; the destination once it is known.

        :raises ProtocolError: the program speaks something else; :meth:`data_to_send` may hold an answer.
        """

    def receive_eof(self) -> None:
        """Takes the program's end, before the destination is known.

        :raises ProtocolError: always; the message says at which step.
        """

    def data_to_send(self) -> bytes:
        """What to send to the program now."""

    def welcome(self) -> None:
        """Says that the destination is connected."""

    def turn_down(self, error: TunnelConsoleError) -> None:
        """Says why not."""


class Socks5Doorman:
    """For programs that speak SOCKS5 (RFC 1928)."""

    def __init__(self) -> None:
        self._handshake = socks5.Socks5Handshake()

    @property
    def leftover(self) -> bytes:
        return self._handshake.leftover

    def receive_data(self, data: bytes) -> HostPort | None:
        for event in self._handshake.receive_data(data):
            match event:
                case socks5.ConnectAsked(host, port):
                    return HostPort(host, port)
                case socks5.Refused(reason):
                    raise ProtocolError(reason)
        return None

    def receive_eof(self) -> None:
        self._handshake.receive_eof()

    def data_to_send(self) -> bytes:
        return self._handshake.data_to_send()

    def welcome(self) -> None:
        self._handshake.accept()  # the far end's address is the jump server's business

    def turn_down(self, error: TunnelConsoleError) -> None:
        self._handshake.refuse(_socks_reply(error))


class HttpDoorman:
    """For programs that speak HTTP CONNECT (RFC 9110, section 9.3.6)."""

    def __init__(self) -> None:
        self._handshake = http_connect.HttpConnectHandshake()

    @property
    def leftover(self) -> bytes:
        return self._handshake.leftover

    def receive_data(self, data: bytes) -> HostPort | None:
        for event in self._handshake.receive_data(data):
            match event:
                case http_connect.ConnectAsked(host, port):
                    return HostPort(host, port)
                case http_connect.Refused():
                    raise ProtocolError(event.reason)
        return None

    def receive_eof(self) -> None:
        self._handshake.receive_eof()

    def data_to_send(self) -> bytes:
        return self._handshake.data_to_send()

    def welcome(self) -> None:
        self._handshake.accept()

    def turn_down(self, error: TunnelConsoleError) -> None:
        self._handshake.refuse(_http_status(error), error.message)


class FixedDoorman:
    """For one fixed target: there is nothing to ask, and nobody to answer."""

    leftover = b""

    def __init__(self, target: HostPort) -> None:
        self._target = target

    def receive_data(self, data: bytes) -> HostPort | None:
        return self._target

    def receive_eof(self) -> None:
        return None

    def data_to_send(self) -> bytes:
        return b""

    def welcome(self) -> None:
        return None

    def turn_down(self, error: TunnelConsoleError) -> None:
        return None


def _socks_reply(error: TunnelConsoleError) -> socks5.Reply:
    # The reason is a sentence of the jump server's, ours or Go's; no host name in it can hold these words.
    reason = error.message
    if "not allowed" in reason:
        return socks5.Reply.NOT_ALLOWED
    if "connection refused" in reason and isinstance(error, TargetRefused):
        return socks5.Reply.CONNECTION_REFUSED
    if "network is unreachable" in reason:
        return socks5.Reply.NETWORK_UNREACHABLE
    if any(words in reason for words in ("no such host", "no route to host", *_TIMED_OUT)):
        return socks5.Reply.HOST_UNREACHABLE
    return socks5.Reply.GENERAL_FAILURE


def _http_status(error: TunnelConsoleError) -> int:
    if "not allowed" in error.message:
        return 403
    return 504 if any(words in error.message for words in _TIMED_OUT) else 502


class JumpClient(ClientService[JumpClientSettings]):
    """Offers a jump server's way out to local programs."""

    kind = "jump-client"

    def __init__(self, name: str, settings: JumpClientSettings, node: Node) -> None:
        super().__init__(name, settings, node, settings.server)
        self._timeout = settings.limits.handshake_timeout
        self._listener: Listener | None = None
        self._refused: asyncio.Future[None] | None = None

    @property
    def target(self) -> str:
        settings = self.settings
        return f"{settings.target or settings.proxy or 'socks5'} via {settings.server}{self.through}"

    async def run(self) -> None:
        settings = self.settings
        self._dialer = ServerDialer(settings.server, settings.connect, settings.tls, self._timeout, way=self.way)
        self._refused = self.node.loop.create_future()
        self._listener = await self.listen(settings.listen, self._accepted)
        self.listening(self._listener)
        try:
            await self._refused
        finally:
            self.stop_accepting()

    def stop_accepting(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self.leave_newcomers()

    def _accepted(self, sock: socket.socket, peer: str) -> None:
        full = self.gate.refuses(new_session=True, new_channel=True)
        if full:
            self.refused(peer, full, "limit")
            sock.close()
            return
        place = self.admit(sock, peer)
        if place is not None:
            local = SocketEnd(sock)
            self.receive_newcomer(self._serve(local, peer), local, peer, place)

    async def _serve(self, local: SocketEnd, peer: str) -> None:
        doorman = self._doorman()
        target = await self._ask(local, peer, doorman)
        if target is not None:
            await self._lead(local, peer, doorman, target)

    def _doorman(self) -> Doorman:
        if self.settings.target is not None:
            return FixedDoorman(self.settings.target)
        return HttpDoorman() if self.settings.proxy == "http" else Socks5Doorman()

    async def _ask(self, local: SocketEnd, peer: str, doorman: Doorman) -> HostPort | None:
        """Where the local program wants to go; None when it has been turned away."""
        target = doorman.receive_data(b"")
        try:
            async with asyncio.timeout(self._timeout):
                while target is None:
                    data = await receive(local, PROXY_READ)
                    if not data:
                        doorman.receive_eof()
                    target = doorman.receive_data(data)
                    if target is None:
                        await send_all(local, doorman.data_to_send())
        except ProtocolError as error:
            self.refused(peer, str(error), kind_of(error))
            self.node.farewells.bid(local, doorman.data_to_send())
            return None
        except TimeoutError:
            self.refused(peer, f"it did not say where to go within {self._timeout:g} s", "timeout")
            local.close()
            return None
        except OSError as error:
            self.refused(peer, f"it broke off: {error.strerror or error}", "left")
            local.close()
            return None
        return target

    async def _lead(self, local: SocketEnd, peer: str, doorman: Doorman, target: HostPort) -> None:
        try:
            far, early = await reach(self._dialer, self.settings.secret, target, self._timeout)
        except ValueError as error:
            self._turn_down(local, peer, doorman, target, ConnectFailed(str(error)))
            return
        except CredentialsRefused as error:
            self._turn_down(local, peer, doorman, target, error)
            if self._refused is not None and not self._refused.done():
                self._refused.set_exception(error)
            return
        except ConnectFailed as error:
            self._turn_down(local, peer, doorman, target, error)
            return
        full = self.gate.refuses(new_session=True, new_channel=True)
        if full:  # others were let in meanwhile
            far.close()
            self._turn_down(local, peer, doorman, target, ConnectFailed(full))
            return
        doorman.welcome()
        try:
            await send_all(local, doorman.data_to_send())
        except OSError as error:
            far.close()
            local.close()
            self.refused(peer, f"it broke off: {error.strerror or error}", "left")
            return
        except BaseException:
            far.abort()
            raise
        plane, pace = self.node.plane, self.pace_for(peer)

        def start(finished: Finished) -> Pump:
            return Pump(plane, local, far, finished, early_left=doorman.leftover, early_right=early, pace=pace)

        self.carry_alone(peer, str(target), start)

    def _turn_down(
        self, local: SocketEnd, peer: str, doorman: Doorman, target: HostPort, error: TunnelConsoleError
    ) -> None:
        self.node.bus.publish(TargetFailed(service=self.name, peer=peer, target=str(target), reason=str(error)))
        doorman.turn_down(error)
        words = doorman.data_to_send()
        if words:
            self.node.farewells.bid(local, words)
        else:
            local.abort()  # a fixed target has no words for it; a reset is what a refused connection looks like
