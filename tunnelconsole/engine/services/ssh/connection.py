"""One SSH connection: from its first byte until it has proven a key, and then until its session ends.

There are the console, its commands, forwards, and the programs that the settings name; everything else is refused.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import asyncssh

from tunnelconsole.engine.access import source_of
from tunnelconsole.engine.limits import Place
from tunnelconsole.engine.refusals import RefusalKind
from tunnelconsole.engine.services.ssh.algorithms import CIPHERS, MACS, SIGNATURES, key_exchanges
from tunnelconsole.engine.services.ssh.channels import Channels
from tunnelconsole.engine.services.ssh.console import ConsoleSession, SessionChannel
from tunnelconsole.engine.services.ssh.elsewhere import Elsewhere
from tunnelconsole.engine.services.ssh.events import FactorWithoutKey, KeysIgnored, RefusedRequest
from tunnelconsole.engine.services.ssh.host_key import load_host_key
from tunnelconsole.engine.services.ssh.keys import AuthorizedKeys, Entry
from tunnelconsole.engine.services.ssh.proof import Challenge, Proof
from tunnelconsole.engine.services.ssh.public_places import PublicPlaces
from tunnelconsole.engine.services.ssh.second_factor import SecondFactors
from tunnelconsole.engine.services.ssh.throttle import Throttle
from tunnelconsole.engine.transport.ssh_connection import LeanConnection
from tunnelconsole.errors import ListenFailed

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.server import SSHServer
    from tunnelconsole.engine.sessions import Session

WINDOW = 128 * 1024
"""Bytes that a client may send ahead of a console that does not read: a screen of pasted text fits many times."""

KEEPALIVE = 30.0
"""Seconds between two looks whether a quiet client is still there."""

KEEPALIVE_TRIES = 4
"""Looks without an answer after which it is gone: somebody whose laptop slept for two minutes logs in again."""

MOST_OPEN = 10
"""Consoles and commands in one connection: what OpenSSH takes (MaxSessions)."""

PARTING = 0.5
"""Seconds that a client has to take its leave before its connection is cut: one that reads needs a round trip."""

REFUSED_FORWARD = "this server forwards TCP and nothing else"
"""Said to every other forward."""


class Door:
    """What all connections of one server share: the host key, who may come in, and what is offered.

    :raises ListenFailed: the host key or the file of keys cannot be used.
    :raises NotPrivate: others could put another host key in its place.
    """

    def __init__(self, server: SSHServer) -> None:
        self.server = server
        settings = server.settings
        host_key = load_host_key(Path(settings.host_key) if settings.host_key else None, server.own_host_key)
        self.fingerprint = host_key.get_fingerprint()
        path = Path(settings.authorized_keys)
        self.factors = SecondFactors(settings.one_time_codes, settings.passwords)
        try:
            self.keys = AuthorizedKeys(path, self._report, has_read=self._compare)
        except OSError as error:
            raise ListenFailed(
                f"the keys in {path} cannot be read: {error.strerror or error}",
                f"name another file in service.{server.name}.authorized_keys",
            ) from error
        self.options = asyncssh.SSHServerConnectionOptions(
            config=None,
            server_factory=_Owner,
            server_version="TunnelConsole",
            server_host_keys=[host_key],
            kex_algs=key_exchanges(server.name, server.settings),
            encryption_algs=CIPHERS,
            mac_algs=MACS,
            compression_algs=None,
            signature_algs=SIGNATURES,
            public_key_auth=True,
            password_auth=False,
            kbdint_auth=bool(self.factors),
            host_based_auth=False,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            x509_trusted_certs=None,
            login_timeout=0,
            keepalive_interval=KEEPALIVE,
            keepalive_count_max=KEEPALIVE_TRIES,
            allow_pty=True,
            line_editor=False,
            encoding=None,
            window=WINDOW,
            agent_forwarding=False,
            x11_forwarding=False,
            rdns_lookup=False,
        )

        self.throttle = Throttle()

    def _report(self, sentence: str) -> None:
        self.server.node.bus.publish(KeysIgnored(service=self.server.name, reason=sentence))

    def _compare(self, identities: set[str]) -> None:
        """Tells of second factors that are nobody's: a name that is mistyped, or a key that is gone."""
        file = self.server.settings.authorized_keys
        for identity, table in self.factors.named().items():
            if identity not in identities:
                reason = f"{table} names {identity}, and no key in {file} is theirs"
                self.server.node.bus.publish(FactorWithoutKey(service=self.server.name, reason=reason))

    def judge(self, entry: Entry, peer: str) -> str:
        """Why a key opens nothing for ``peer`` now; "" when it does, if need be together with a second factor."""
        if self.factors and not entry.key_only and not self.factors.kind(entry.identity):
            return f"the key of {entry.identity} has no one-time code or password here"
        return self.keys.judge(entry, peer) or self.server.token_refuses(entry, peer)

    def login(self, peer: str, place: Place) -> Login:
        """Begins with somebody who has connected."""
        return Login(self, peer, place)


class Login:
    """Somebody who has connected, before and after they have proven who they are.

    :param place: among those who are logging in.
    """

    def __init__(self, door: Door, peer: str, place: Place) -> None:
        self.door = door
        self.server = door.server
        self.peer = peer
        self.consoles: set[ConsoleSession] = set()
        self.channels = Channels(self)
        self.places = PublicPlaces(self)
        self.elsewhere = Elsewhere(self)
        self.proof = Proof(door, peer)
        self._place = place
        self._over = False
        self._cause = ""
        self._session: Session | None = None
        self._loop = door.server.node.loop
        self.connection = Connection(self._loop, door.options, self)
        place.lost = partial(self.turn_away, kind="limit")
        self._turned_away = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._parting: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        """Whether the connection is over, or about to be."""
        return self._over or self.connection.over

    async def take(self, sock: socket.socket) -> None:
        """Begins to speak SSH over a connected socket, at once or when it is this source's turn."""
        own = socket.socket(fileno=sock.detach())
        try:
            wait = self.door.throttle.begin(source_of(self.peer))
            if wait is None:
                self.turn_away("too many logins at once from its address", "rate")
            else:
                await self._wait(wait)
            if not self._over:
                settings = self.server.settings
                self._timers = [
                    self._loop.call_later(settings.login_timeout, self._late),
                    self._loop.call_later(settings.limits.handshake_timeout, self._silent),
                ]
                await self._loop.connect_accepted_socket(lambda: self.connection, own)
        except OSError as error:
            self.turn_away(f"it broke off: {error.strerror or error}", "left")
        finally:
            if not self.connection.below:
                own.close()
                self._leave_login()
            elif self._over:
                self.connection.abort()

    async def _wait(self, seconds: float) -> None:
        """Waits for this source's turn, unless it is turned away meanwhile: then its socket is free at once."""
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._turned_away.wait()

    def _silent(self) -> None:
        if not self.connection.get_extra_info("client_version"):
            self.turn_away(
                f"it said nothing of SSH within {self.server.settings.limits.handshake_timeout:g} s", "timeout"
            )

    def _late(self) -> None:
        self.turn_away(f"{self.proof.missing} within {self.server.settings.login_timeout:g} s", "timeout")

    def turn_away(self, reason: str, kind: RefusalKind = "other", *, tell: bool = True) -> None:
        """Ends a connection that has not logged in."""
        if self._over or self._session is not None:
            return
        self._over = True
        self._turned_away.set()
        self._leave_login()
        if tell:
            self.proof.turned_away(kind)
            self.server.refused(self.peer, reason, self.proof.kind)
        self.connection.abort()

    def _leave_login(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._place.leave()
        self.server.left_login(self)

    def logged_in(self) -> None:
        """A key was proven, and so there is a session.

        :raises asyncssh.DisconnectError: there can be none.
        """
        if self._over:
            return
        entry = self.proof.whole
        full = self.server.no_session(self)
        if entry is None or full:
            self.proof.why = full or self.proof.missing
            self.proof.turned_away("limit" if full else "not_allowed")
            raise asyncssh.DisconnectError(asyncssh.DISC_TOO_MANY_CONNECTIONS, self.proof.why)
        self._leave_login()
        self.door.throttle.give_back(source_of(self.peer))
        self._session = self.server.let_in(self, entry)

    @property
    def entry(self) -> Entry:
        """Who has logged in.

        :raises RuntimeError: nobody has.
        """
        if self._session is None or self.proof.proven is None:
            raise RuntimeError("nobody has logged in")
        return self.proof.proven

    @property
    def session(self) -> Session:
        """The session.

        :raises RuntimeError: nobody has logged in.
        """
        if self._session is None:
            raise RuntimeError("nobody has logged in")
        return self._session

    def refuse(self, reason: str) -> None:
        """Reports that something was not done for who has logged in."""
        self.server.node.bus.publish(
            RefusedRequest(
                service=self.server.name,
                session=self.session.id,
                peer=self.peer,
                identity=self.session.identity,
                reason=reason,
            )
        )

    def open_console(self) -> ConsoleSession:
        """A new channel, on which a console or a command may be asked for.

        :raises asyncssh.ChannelOpenError: there are too many in this connection.
        """
        if self._cause:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, self._cause)
        if len(self.consoles) >= MOST_OPEN:
            reason = f"{MOST_OPEN} consoles and commands are open in this connection already"
            self.refuse(reason)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, reason)
        console = ConsoleSession(self)
        self.consoles.add(console)
        return console

    def end(self, reason: str) -> None:
        """Ends the session, and tells its owner why."""
        self._cause = self._cause or reason
        if not self.consoles:
            self._part()
        elif self._parting is None:  # a client takes no last word of ours any more once it is disconnected
            self._parting = self._loop.call_later(PARTING, self._part)
            for console in list(self.consoles):
                console.end(reason)

    def end_if_idle(self, reason: str) -> None:
        """Ends the session where nothing is left in it: no public place, no connection to elsewhere, no command."""
        if not (self.places or self.elsewhere.count or any(console.runs_program for console in self.consoles)):
            self.end(reason)

    def _part(self) -> None:
        self.connection.disconnect(asyncssh.DISC_BY_APPLICATION, self._cause)

    def lost(self, error: Exception | None) -> None:
        """The connection is over."""
        self._over = True
        if self._parting is not None:
            self._parting.cancel()
        if self._session is None:
            if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolError):
                self.proof.why = error.reason
                self.proof.turned_away("protocol")
            if self in self.server.logins:
                self._leave_login()
                self.server.refused(self.peer, self.proof.why, self.proof.kind)
            return
        for console in list(self.consoles):
            console.connection_lost(error)
        self.places.stop_accepting()
        self.elsewhere.lost()
        self.server.left(self, self._session, self._cause or _gone(error))


def _gone(error: Exception | None) -> str:
    """Why a session ended, in a few words; "" when its owner left."""
    match error:
        case None:
            return ""
        case asyncssh.DisconnectError():
            return "" if error.code == asyncssh.DISC_BY_APPLICATION else error.reason
        case OSError():
            return f"the connection broke: {error.strerror or os.strerror(error.errno or 0)}"
        case _:
            return f"the connection broke: {error}"


class Connection(LeanConnection, asyncssh.SSHServerConnection):
    """asyncssh's connection, which knows what was proven and what a client does not read."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions, login: Login
    ) -> None:
        super().__init__(loop, options)
        self.login = login

    def pause_writing(self) -> None:
        """Answers no more either, when the client reads no more: else its requests would fill the memory."""
        self.stop_reading("what was sent")
        super().pause_writing()
        for console in self.login.consoles:
            console.hold("connection")

    def resume_writing(self) -> None:
        self.read_on("what was sent")
        super().resume_writing()
        for console in list(self.login.consoles):
            console.go_on("connection")

    def create_server_channel(
        self, encoding: str | None = "", errors: str = "", window: int = 0, max_pktsize: int = 0
    ) -> SessionChannel:
        return SessionChannel(self, self._loop, True, False, False, 0, 0, encoding or None, errors, window, max_pktsize)

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Notes who has proven a key: here, where the signature is verified, and nowhere else."""
        valid = await super().validate_public_key(username, key_data, msg, signature)
        if valid and msg:
            self.login.proof.prove()
        return valid

    async def send_userauth_success(self) -> None:
        """Lets in who has given all that is asked of them; who has proven a key and nothing else yet is told so."""
        if self.login.proof.whole is None:
            self.send_userauth_failure(partial_success=True)
        else:
            await super().send_userauth_success()


class _Owner(asyncssh.SSHServer):
    """What asyncssh asks."""

    _login: Login

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._login = cast(Connection, conn).login

    def connection_lost(self, exc: Exception | None) -> None:
        self._login.lost(exc)

    def begin_auth(self, username: str) -> bool:
        self._login.proof.forget()  # another user name: what was proven for the last one is void (RFC 4252, section 5)
        return True

    def public_key_auth_supported(self) -> bool:
        return not self._login.proof.wanted

    def kbdint_auth_supported(self) -> bool:
        return bool(self._login.proof.wanted)

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Challenge:
        return self._login.proof.ask()

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        return self._login.proof.answer(responses)

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._login.proof.offer(key.public_data)

    def auth_completed(self) -> None:
        self._login.logged_in()

    def session_requested(self) -> ConsoleSession:
        return self._login.open_console()

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        return self._login.elsewhere.connect(dest_host, dest_port)

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._no_forward("a connection to a socket")

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        return self._login.places.open(listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> bool:
        self._login.refuse("it asked for a socket here; " + REFUSED_FORWARD)
        return False

    def tun_requested(self, unit: int | None) -> bool:
        return self._no_forward("a network of its own")

    def tap_requested(self, unit: int | None) -> bool:
        return self._no_forward("a network of its own")

    def _no_forward(self, asked: str) -> bool:
        self._login.refuse(f"it asked for {asked}; {REFUSED_FORWARD}")
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, REFUSED_FORWARD)
