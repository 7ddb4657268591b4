"""Reaching a target through a jump server, for the client service, the command and a program's own use."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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
    end = await dialer.reach("jump server")
    heard = bytearray()
    try:
        async with asyncio.timeout(timeout):
            return end, await _shake_hands(end, secret, target, heard)
    except TimeoutError as error:
        end.abort()
        raise ConnectFailed(
            f"the jump server did not finish its handshake within {timeout:g} s",
            dialer.advice("jump server", "jump", bytes(heard)),
        ) from error
    except ProtocolError as error:
        end.abort()
        raise ConnectFailed(str(error), dialer.advice("jump server", "jump", bytes(heard))) from error
    except OSError as error:
        end.abort()
        raise ConnectFailed(f"the jump server broke off: {error.strerror or error}") from error
    except BaseException:
        end.abort()
        raise


async def _shake_hands(end: End, secret: Secret, target: HostPort, heard: bytearray) -> bytes:
    """Goes through the handshake; returns bytes of the target that came early.

    :param heard: takes what the server says, so that it is known when this fails.
    """
    handshake = JumpClientHandshake(secret.encode(), target.host, target.port)
    while True:
        data = await receive(end, HANDSHAKE_READ)
        heard += data
        for event in handshake.receive_data(data) if data else handshake.receive_eof():
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

    Half-close works (``writer.write_eof()``), with TLS too; a connection that breaks raises from the streams.

    :param server: the jump server, ``host:port``.
    :param secret: what proves who we are.
    :param target: where to go, ``host:port``; a name is resolved by the server.
    :param tls: settings when the server's listener is a TLS one.
    :param connect_to: the address to dial when it is not the one that ``server`` names.
    :param timeout: seconds to reach the server, again for its handshake, and at the end for the target to take what was
        written and not yet delivered.
    :raises CredentialsRefused: the server does not accept the secret.
    :raises TargetRefused: the server would not or could not dial the target.
    :raises ConnectFailed: the server cannot be reached.
    :raises ValueError: an address is not ``host:port``.
    """
    where = HostPort.parse(target)
    dialer = ServerDialer(HostPort.parse(server), HostPort.parse(connect_to) if connect_to else None, tls, timeout)
    end, early = await reach(dialer, Secret(secret), where, timeout)
    if isinstance(end, SocketEnd):
        async with _streams(end.socket, timeout, early) as (reader, writer):
            yield reader, writer
        return
    near, far = socket.socketpair()
    bridge = _Bridge(far, end, early)
    try:
        async with _streams(near, timeout) as (reader, writer):
            bridge.tells(reader)
            yield reader, writer
        await bridge.deliver(timeout)
    finally:
        await bridge.close()


@asynccontextmanager
async def _streams(
    sock: socket.socket, timeout: float, early: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The streams of asyncio over a connected socket, which they own; the reader begins with ``early``.

    At the end of the block what was written is delivered, within ``timeout`` seconds. When the block fails, the
    connection is reset, so that the far side does not take half a message for a whole one.
    """
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    reader = asyncio.StreamReader()
    if early:
        reader.feed_data(early)
    protocol = asyncio.StreamReaderProtocol(reader)
    connect_socket = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    transport, _ = await connect_socket(lambda: protocol, sock=sock)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield reader, writer
    except BaseException:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        raise
    writer.close()
    try:
        async with asyncio.timeout(timeout):
            await writer.wait_closed()
    except OSError:  # the far side went first, or it does not read (TimeoutError): there is nothing left to deliver
        transport.abort()


class _Bridge:
    """Joins a TLS end with one end of a socket pair: asyncio cannot half-close TLS, so its streams get the other."""

    def __init__(self, far: socket.socket, end: End, early: bytes) -> None:
        far.setblocking(False)
        self._far = _PairEnd(far)
        self._over = asyncio.Event()
        self._reader: asyncio.StreamReader | None = None
        self._plane = Plane(asyncio.get_running_loop())
        self._pump = Pump(self._plane, self._far, end, self._ended, early_right=early)

    def tells(self, reader: asyncio.StreamReader) -> None:
        """``reader`` learns when the connection breaks."""
        self._reader = reader

    def _ended(self, reason: str) -> None:
        self._over.set()
        if self._far.cut and self._reader is not None:
            self._reader.set_exception(ConnectionResetError(reason))

    async def deliver(self, timeout: float) -> None:
        """Waits until what was written is with the far side; after ``timeout`` seconds no more."""
        self._pump.stop_receiving()
        with suppress(TimeoutError):  # a far side that does not read is cut by close()
            async with asyncio.timeout(timeout):
                await self._over.wait()

    async def close(self) -> None:
        """Cuts what is not over yet."""
        self._pump.abort("the program is done with it")
        await self._over.wait()
        self._plane.close()


class _PairEnd(SocketEnd):
    """An end of a socket pair: remembers that it was cut, because a pair has no reset that would show it."""

    __slots__ = ("cut",)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.cut = False

    def abort(self) -> None:
        self.cut = True
        super().abort()
