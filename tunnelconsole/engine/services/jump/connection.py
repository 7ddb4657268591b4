"""Reaching a target through a jump server, for the client service, the command and a program's own use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.server_dialer import ServerDialer, dialer_of
from tunnelconsole.engine.settings import HostPort, Secret, ServerAddress, SSHSettings, TLSSettings
from tunnelconsole.engine.transport.ends import End, receive, send_all
from tunnelconsole.engine.transport.streams import Streams, streams_of
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
    :raises CertificateRefused: it does not take our certificate.
    :raises ConnectFailed: the server cannot be reached, broke off, or is no jump server.
    """
    with dialer.judging():
        return await _reach(dialer, secret, target, timeout)


async def _reach(dialer: ServerDialer, secret: Secret, target: HostPort, timeout: float) -> tuple[End, bytes]:
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
    ssh: SSHSettings | None = None,
    connect_to: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
) -> AsyncIterator[Streams]:
    """A connection to ``target`` through a jump server, as asyncio streams, closed at the end of the block.

    Half-close works (``writer.write_eof()``), with TLS too; a connection that breaks raises from the streams.

    :param server: the jump server, ``host:port``; ``ssh://user@host:port/host:port`` through an SSH host.
    :param secret: what proves who we are.
    :param target: where to go, ``host:port``; a name is resolved by the server.
    :param tls: settings when the server's listener is a TLS one.
    :param ssh: settings for the SSH host on the way.
    :param connect_to: the address to dial when it is not the one that ``server`` names.
    :param timeout: seconds to reach the server, again for its handshake, and at the end for the target to take what was
        written and not yet delivered.
    :raises CredentialsRefused: the server does not accept the secret, or the SSH host does not let us in.
    :raises TargetRefused: the server would not or could not dial the target.
    :raises ConnectFailed: the server cannot be reached.
    :raises ValueError: an address is not ``host:port``.
    """
    where = HostPort.parse(target)
    dialled = ServerAddress.parse(connect_to) if connect_to else None
    async with dialer_of(ServerAddress.parse(server), dialled, tls, ssh, timeout) as dialer:
        end, early = await reach(dialer, Secret(secret), where, timeout)
        async with streams_of(end, early, timeout) as streams:
            yield streams
