"""A connection to an SSH host, and logging in there."""

from __future__ import annotations

import asyncio
import getpass
import os
from functools import partial
from pathlib import Path
from typing import Final, cast

import asyncssh

from tunnelconsole.engine.services.ssh.algorithms import CIPHERS, MACS, SIGNATURES, known_key_exchanges
from tunnelconsole.engine.services.ssh.client_keys import MEND_KEY, named_key, own_keys
from tunnelconsole.engine.services.ssh.known_hosts import KnownHosts
from tunnelconsole.engine.settings import SSHHost, SSHSettings
from tunnelconsole.engine.transport.dialer import dial
from tunnelconsole.engine.transport.ssh_channel import ChannelLink
from tunnelconsole.engine.transport.ssh_connection import LeanConnection
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, HostKeyRejected

KEEPALIVE: Final = 30.0
"""Seconds between two looks whether a quiet SSH host is still there."""

KEEPALIVE_TRIES: Final = 4
"""Looks without an answer after which it is gone: two minutes, as for every TCP connection of ours."""

LOGIN_TIME: Final = 30.0
"""Seconds to connect and log in: an agent may have to ask its user to touch a key."""

_TOO_MANY_TRIES: Final = "Too many authentication failures"
"""What OpenSSH says to who has shown too many keys, with the code of a mistake in the protocol."""

IDLE_TIME: Final = 60.0
"""Seconds that a connection is kept on which nothing is open: a client that comes back logs in but once."""


class Connection(LeanConnection, asyncssh.SSHClientConnection):
    """asyncssh's connection, which holds its channels up while the SSH host does not read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHClientConnectionOptions,
        known: KnownHosts,
        passed_over: list[str],
    ) -> None:
        super().__init__(loop, options, wait="auth")
        self.known = known
        self.passed_over = passed_over
        """Why keys of ours are not shown, a sentence for each."""
        self.rejected: asyncssh.SSHKey | None = None
        """The key that the host has shown, where it is not a known one."""
        self.keys = 0
        """Keys that we had to show."""
        self.empty = asyncio.Event()
        """Set while there is nothing."""
        self.unused = asyncio.Event()
        """Set once there has been nothing for :data:`IDLE_TIME`, or the connection is over."""
        self._resting: asyncio.TimerHandle | None = None

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        found = await super().public_key_auth_requested()
        self.keys += found is not None
        return found

    def add(self) -> ChannelLink:
        """A channel to be opened."""
        self.empty.clear()
        self.unused.clear()
        self._wake()
        return self.new_link()

    def forget(self, link: ChannelLink) -> None:
        super().forget(link)
        self.rest()

    def rest(self) -> None:
        """Ends after a while, unless something is open on it."""
        if self.links:
            return
        self.empty.set()
        if not self.over:
            self._wake()
            self._resting = self._loop.call_later(IDLE_TIME, self.unused.set)

    def _wake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _cleanup(self, exc: Exception | None) -> None:
        super()._cleanup(exc)
        self._wake()
        self.unused.set()


class _Owner(asyncssh.SSHClient):
    """What asyncssh asks and tells."""

    _connection: Connection

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = cast(Connection, conn)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked of a key that is not among the known ones."""
        self._connection.rejected = key
        return False


async def log_in(host: SSHHost, settings: SSHSettings) -> Connection:
    """Connects to an SSH host and logs in.

    :raises HostKeyRejected: it is not known, or not the one that is.
    :raises CredentialsRefused: it does not want our key, or there is none to show.
    :raises ConnectFailed: it cannot be reached, or broke off.
    """
    loop = asyncio.get_running_loop()
    known = await asyncio.to_thread(KnownHosts, host, _path(settings.known_hosts))
    options, passed_over = await _options(host, settings, known)
    options.waiter = loop.create_future()
    try:
        end = await dial(host.host, host.port)
    except ConnectFailed as error:
        raise ConnectFailed(f"cannot reach the SSH host {host.address}: {error.message}", error.hint) from error
    connection: Connection | None = None
    try:
        _, connection = await loop.create_connection(
            partial(Connection, loop, options, known, passed_over), sock=end.socket
        )
        await options.waiter
    except BaseException as error:
        if connection is None:
            end.abort()
        else:
            connection.abort()
        if isinstance(error, asyncssh.Error | OSError | ValueError | ArithmeticError):  # the last of a damaged key
            raise _explain(error, host, connection) from error
        raise
    return connection


async def _options(
    host: SSHHost, settings: SSHSettings, known: KnownHosts
) -> tuple[asyncssh.SSHClientConnectionOptions, list[str]]:
    """Everything that asyncssh is to know, and why keys of ours are not shown."""
    identity = _path(settings.identity)
    keys, passed_over = await asyncio.to_thread(_keys, identity, settings)
    options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
        None,
        config=None,
        client_factory=_Owner,
        client_version="TunnelConsole",
        host=host.host,
        port=host.port,
        username=user_of(host),
        known_hosts=lambda *_: known.match,
        server_host_key_algs=known.algorithms,
        kex_algs=known_key_exchanges(),
        encryption_algs=CIPHERS,
        mac_algs=MACS,
        compression_algs=None,
        signature_algs=SIGNATURES,
        x509_trusted_certs=None,
        client_keys=None,
        preferred_auth="publickey",
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        gss_kex=False,
        gss_auth=False,
        login_timeout=LOGIN_TIME,
        keepalive_interval=KEEPALIVE,
        keepalive_count_max=KEEPALIVE_TRIES,
    )
    # Behind the constructor, which would look for keys itself where it is given none.
    options.client_keys = keys
    options.agent_path = os.environ.get("SSH_AUTH_SOCK", "") if identity is None else None
    return options, passed_over


def _keys(identity: Path | None, settings: SSHSettings) -> tuple[list[asyncssh.SSHKeyPair], list[str]]:
    return own_keys(settings.passphrase) if identity is None else (named_key(identity, settings.passphrase), [])


def _path(file: str | None) -> Path | None:
    return Path(file).expanduser() if file else None


def user_of(host: SSHHost) -> str:
    """Whom we log in as.

    :raises ConnectFailed: nobody is named, and this process has no user's name.
    """
    try:
        return host.user or getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConnectFailed(f"{host} names no user, and the user of this process has no name", "write user@") from error


def _explain(error: Exception, host: SSHHost, connection: Connection | None) -> ConnectFailed | CredentialsRefused:
    """Why we could not log in, in our own words."""
    if connection is not None and connection.rejected is not None:
        return connection.known.rejection(connection.rejected)
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return HostKeyRejected(  # it is revoked, or its certificate is not right
                f"the SSH host {host.address} is not to be trusted: {error.reason}",
                "somebody may pretend to be that host; ask its administrator",
            )
        case asyncssh.PermissionDenied() | asyncssh.IllegalUserName():
            own = error.reason.startswith("Permission denied")  # asyncssh's own words, which say less than ours
            return _refused(host, connection, "" if own else f": {error.reason}")
        case asyncssh.DisconnectError():
            reason = error.reason
            if reason == _TOO_MANY_TRIES:
                return _refused(host, connection, f": {reason}")
        case OSError():
            reason = error.strerror or str(error)
        case _:
            reason = str(error)
    return ConnectFailed(f"cannot reach the SSH host {host.address}: {reason}", "is there an SSH server at that port?")


def _refused(host: SSHHost, connection: Connection | None, reason: str = "") -> CredentialsRefused:
    user = user_of(host)
    passed_over = "".join(f"; passed over: {why}" for why in connection.passed_over) if connection is not None else ""
    if connection is not None and not connection.keys:
        return CredentialsRefused(
            f"{host} wants a key, and there is none to show: none of an agent (SSH_AUTH_SOCK), and none in ~/.ssh"
            f"{reason}{passed_over}",
            MEND_KEY,
        )
    return CredentialsRefused(
        f"{host} refused our key (user {user}){reason}{passed_over}",
        f"add the public key to ~/.ssh/authorized_keys of {user} there, or {MEND_KEY}",
    )
