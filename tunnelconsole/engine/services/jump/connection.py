"""Reaching a target through a jump server, for the client service, the command and a program's own use."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.service import ServerDialer
from tunnelconsole.engine.settings import HostPort, Secret, TLSSettings
from tunnelconsole.engine.transport.ends import End, SocketEnd, receive, send_all
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Pump
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.jump import Connected, DialRefused, JumpClientHandshake, SecretRefused
from tunnelconsole.errors import ConnectFailed, CredentialsRefused, TargetRefused

HANDSHAKE_READ = 512
"""Bytes read at once during the handshake: the longest answer and a little more."""

CONNECT_TIMEOUT = LimitSettings().handshake_timeout
"""Seconds to reach the jump server, and again seconds for its handshake and its dial."""


async def reach(dialer: ServerDialer, secret: Secret, target: HostPort, timeout: float) -> tuple[End, bytes]:
    """Connects to ``target`` through the jump server that ``dialer`` dials.

    :param timeout: seconds for the server's side of the handshake, its own dial included.
    :returns: the connection, and bytes of the target that came early.
    :raises CredentialsRefused: the server does not accept the secret, or is not the one that was pinned.
    :raises TargetRefused: the server would not or could not dial the target; the text is the server's.
    :raises ConnectFailed: the server cannot be reached, broke off, or is no jump server.
    """
    end = await dialer.dial()
    try:
        async with asyncio.timeout(timeout):
            return end, await _shake_hands(end, secret, target)
    except TimeoutError as error:
        end.abort()
        raise ConnectFailed(f"the jump server did not finish its handshake within {timeout:g} s") from error
    except ProtocolError as error:
        end.abort()
        raise ConnectFailed(
            str(error), "is there a jump server at that address, and with TLS on both sides or none?"
        ) from error
    except OSError as error:
        end.abort()
        raise ConnectFailed(f"the jump server broke off: {error.strerror or error}") from error
    except BaseException:
        end.abort()
        raise


async def _shake_hands(end: End, secret: Secret, target: HostPort) -> bytes:
    handshake = JumpClientHandshake(secret.encode(), target.host, target.port)
    while True:
        data = await receive(end, HANDSHAKE_READ)
        if not data:
            handshake.receive_eof()
        for event in handshake.receive_data(data):
            match event:
                case Connected():
                    return handshake.leftover
                case SecretRefused(reason):
                    raise CredentialsRefused(f"the jump server refused the secret: {reason}", "check the secret")
                case DialRefused(reason):
                    raise TargetRefused(reason)
        await send_all(end, handshake.data_to_send())


@asynccontextmanager
async def connect(
    server: str,
    secret: str,
    target: str,
    *,
    tls: TLSSettings | None = None,
    connect_to: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to ``target`` through a jump server, as asyncio streams, closed at the end of the block.

    :param server: the jump server, ``host:port``.
    :param secret: what proves who we are.
    :param target: where to go, ``host:port``; a name is resolved by the server.
    :param tls: settings when the server's listener is a TLS one.
    :param connect_to: the address to dial when it is not the one that ``server`` names.
    :param timeout: seconds to reach the server, and again seconds for its handshake.
    :raises CredentialsRefused: the server does not accept the secret.
    :raises TargetRefused: the server would not or could not dial the target.
    :raises ConnectFailed: the server cannot be reached.
    :raises ValueError: an address is not ``host:port``.
    """
    dialer = ServerDialer(HostPort.parse(server), HostPort.parse(connect_to) if connect_to else None, tls, timeout)
    end, early = await reach(dialer, Secret(secret), HostPort.parse(target), timeout)
    if isinstance(end, SocketEnd) and not early:
        reader, writer = await asyncio.open_connection(sock=end.socket)
        try:
            yield reader, writer
        finally:
            await _close(writer)
        return
    # Streams cannot be given early bytes, nor half-close TLS: so they get one end of a socket pair, the pump the other.
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    far.setblocking(False)
    finished = loop.create_future()
    plane = Plane(loop)
    pump = Pump(plane, SocketEnd(far), end, finished.set_result, early_right=early)
    near.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=near)
    try:
        yield reader, writer
    finally:
        await _close(writer)
        pump.stop_receiving()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(finished)
        except TimeoutError:
            pump.abort("the target does not read")
            await finished
        plane.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return  # the far side went first; there is nothing left to close
