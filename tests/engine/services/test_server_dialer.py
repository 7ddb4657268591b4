"""A client's way to its server: the address, TLS, and the time for it all."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from loopback import Handler, blackhole, nobody, target
from tunnelconsole.engine.services.server_dialer import ServerDialer
from tunnelconsole.engine.settings import Fingerprint, HostPort, TLSSettings
from tunnelconsole.errors import ConnectFailed

PINNED = TLSSettings(fingerprint=Fingerprint("ab" * 32))
HELLO = 256
"""Bytes that are less than a client's first TLS message."""


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes its side once the client has begun with TLS."""
    await reader.read(1 << 16)
    writer.write_eof()
    await reader.read()


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Resets the connection once the client has begun with TLS."""
    await reader.read(HELLO)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Takes what comes, and never answers."""
    await reader.read()


async def speak_something_else(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-something\r\n")
    await writer.drain()


async def refusal(
    server: HostPort, *, connect: HostPort | None = None, tls: TLSSettings | None = None, timeout: float = 10.0
) -> str:
    """Why the server cannot be reached."""
    with pytest.raises(ConnectFailed) as caught:
        await ServerDialer(server, connect, tls, timeout).dial()
    return str(caught.value)


async def test_the_address_to_connect_to_stands_in_for_the_servers() -> None:
    async with target() as server:
        end = await ServerDialer(HostPort("home.invalid", 1), server.address, None, 10.0).dial()
        end.close()


async def test_a_server_that_is_not_there_is_told_by_the_address_that_was_dialled() -> None:
    closed = nobody()
    assert f"dial tcp {closed}: connect: connection refused" in await refusal(
        HostPort("home.invalid", 1), connect=closed
    )


async def test_a_server_that_does_not_take_the_connection_is_given_up_after_the_time_for_it_all() -> None:
    with blackhole() as silent:
        assert await refusal(silent, timeout=0.05) == "the server did not answer within 0.05 s"


async def test_a_server_that_does_not_answer_in_tls_is_given_up_after_the_time_for_it_all() -> None:
    async with target(say_nothing) as server:
        reason = await refusal(server.address, tls=PINNED, timeout=0.05)
        assert reason == "the server did not answer within 0.05 s"


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (hang_up, "the TLS handshake failed: the other side closed the connection; is the server's listener a TLS one"),
        (break_off, "the server broke off the TLS handshake: Connection reset by peer"),
        (speak_something_else, "the server does not speak TLS; it began like plain SSH; leave tls out at this client"),
    ],
)
async def test_a_server_that_ends_the_tls_handshake_is_told_so(handler: Handler, said: str) -> None:
    async with target(handler) as server:
        assert said in await refusal(server.address, tls=PINNED)
