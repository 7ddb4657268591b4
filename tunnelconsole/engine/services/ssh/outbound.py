"""The way through an SSH host: one connection to it for all that a client dials, there while it is used.

Importing this loads asyncssh; :class:`~tunnelconsole.engine.services.server_dialer.SSHWay` does, with the first dial.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import asyncssh

from tunnelconsole.engine.services.ssh.client_connection import Connection, log_in
from tunnelconsole.engine.settings import SSHHost, SSHSettings
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.bridge import Bridge, BridgedEnd
from tunnelconsole.engine.transport.ssh_channel import MAX_PACKET, WINDOW, ChannelLink
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.errors import ConnectFailed, TunnelConsoleError

CLOSE_TIME: Final = 2.0
"""Seconds that what was written has to arrive when the connection is given up on purpose."""

_CODES: Final = {
    asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED: (
        "administratively prohibited",
        "it allows no forward there: see AllowTcpForwarding and PermitOpen in its sshd_config",
    ),
    asyncssh.OPEN_CONNECT_FAILED: ("", "is the server running there, as seen from that host?"),
    asyncssh.OPEN_RESOURCE_SHORTAGE: ("resource shortage", ""),
    asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE: ("it forwards nothing", "use an SSH host that does"),
}
"""RFC 4254, section 5.1: what to call a refusal, and what to do about it."""


class Outbound:
    """The way through one SSH host.

    :param host: the SSH host.
    :param settings: how we prove ourselves to it, and know it.
    :param tasks: whose the connection is; it ends with them.
    """

    def __init__(self, host: SSHHost, settings: SSHSettings, tasks: Tasks) -> None:
        self._host = host
        self._settings = settings
        self._tasks = tasks
        self._connection: Connection | None = None
        self._logging_in: asyncio.Task[Connection | TunnelConsoleError] | None = None

    @property
    def undone(self) -> str:
        """What the SSH host has not done yet, for the error of who has waited too long for a dial."""
        if self._connection is None or self._connection.over:
            return f"the SSH host {self._host.address} did not let us in"
        return f"the SSH host {self._host.address} did not connect to the server"

    async def dial(self, host: str, port: int) -> BridgedEnd:
        """A connection from the SSH host to ``host``, whose name is looked up there. The caller sets the time limit.

        :raises HostKeyRejected: the SSH host is not known, or not the one that is.
        :raises CredentialsRefused: it does not want our key.
        :raises ConnectFailed: it cannot be reached, or would not connect.
        """
        known = self._connection
        connection = await self._connected()
        try:
            return await self._open(connection, host, port)
        except ConnectFailed:
            if not (connection is known and connection.over):
                raise
        return await self._open(await self._connected(), host, port)  # it had broken, and nobody had noticed yet

    async def _connected(self) -> Connection:
        """The connection; a new one where there is none."""
        if self._connection is not None and not self._connection.over:
            return self._connection
        if self._logging_in is None:
            self._logging_in = self._tasks.start(self._log_in(), "login at the SSH host")
        found = await asyncio.shield(self._logging_in)  # others may wait for it too
        if isinstance(found, TunnelConsoleError):
            raise found
        return found

    async def _log_in(self) -> Connection | TunnelConsoleError:
        try:
            connection = self._connection = await log_in(self._host, self._settings)
        except TunnelConsoleError as error:
            return error
        finally:
            self._logging_in = None
        self._tasks.start(self._keep(connection), "connection to the SSH host")
        return connection

    async def _keep(self, connection: Connection) -> None:
        """Holds a connection while it is used, and ends it in order."""
        try:
            connection.rest()
            await connection.unused.wait()
            while connection.links and not connection.over:  # somebody came in that very moment
                await connection.unused.wait()
        finally:
            if self._connection is connection:
                self._connection = None
            await _close(connection)

    async def _open(self, connection: Connection, host: str, port: int) -> BridgedEnd:
        link = connection.add()
        opening = self._tasks.start(_open_channel(connection, link, self._host, (host, port)), "channel")
        try:
            failure = await asyncio.shield(opening)
            if failure is not None:
                raise failure
            return Bridge(asyncio.get_running_loop(), link).end
        except OSError as error:
            link.abort()
            raise ConnectFailed(f"no connection through {self._host}: {error.strerror or error}") from error
        except BaseException:
            link.abort()
            raise


async def _open_channel(
    connection: Connection, link: ChannelLink, host: SSHHost, target: tuple[str, int]
) -> ConnectFailed | None:
    """Has the SSH host connect to ``target``; ``link`` leads there then. Returns why it would not, or could not.

    To be cancelled with the connection only: else asyncssh would keep a channel that nobody knows. Abort ``link``.
    """
    try:
        await connection.create_connection(lambda: link, *target, "127.0.0.1", 0, window=WINDOW, max_pktsize=MAX_PACKET)
    except asyncssh.ChannelOpenError as error:
        connection.forget(link)
        if connection.over:
            return ConnectFailed(f"lost the SSH host {host.address}: {error.reason}")
        said, hint = _CODES.get(error.code, ("", ""))
        reason = ": ".join(dict.fromkeys(part for part in (said, error.reason) if part))
        where = format_host_port(*target)
        return ConnectFailed(f"the SSH host {host.address} would not connect to {where}: {reason}", hint)
    except (asyncssh.Error, OSError) as error:
        connection.forget(link)
        return ConnectFailed(f"lost the SSH host {host.address}: {error}")
    return None


async def _close(connection: Connection) -> None:
    """Ends a connection once what was written to its channels has arrived, or its time is up."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIME):
                await connection.empty.wait()
    finally:
        if connection.links:
            connection.abort()
        else:
            connection.close()
        await connection.wait_closed()
