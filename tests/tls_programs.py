"""Programs that speak TLS, and the certificates for it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import socket
import ssl
import tempfile
from pathlib import Path

from tcp import PATIENCE, Program
from tunnelconsole.engine.transport import ends
from tunnelconsole.engine.transport.certificates import make_self_signed
from tunnelconsole.engine.transport.tls import TLSEnd, client_context, complete_handshake, server_context

NAME = "server.example"
"""The name in the certificate."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="certificates-")
    atexit.register(folder.cleanup)
    return folder


def certificate(name: str = NAME) -> tuple[Path, Path]:
    """A self-signed certificate for ``name`` and its key, the same ones in every test."""
    folder = Path(_folder().name)
    files = folder / f"{name}.crt", folder / f"{name}.key"
    make_self_signed(*files, name)
    return files


@functools.cache
def serving() -> ssl.SSLContext:
    """A server's context with that certificate."""
    return server_context(*certificate())


@functools.cache
def trusting() -> ssl.SSLContext:
    """A client's context that trusts it."""
    return client_context(certificate()[0], "")


def ends_of(near: socket.socket, far: socket.socket) -> tuple[TLSEnd, TLSEnd]:
    """A client's and a server's end over a connection, before their handshake."""
    return TLSEnd(near, trusting(), server_side=False, server_name=NAME), TLSEnd(far, serving(), server_side=True)


async def shake_hands(*pair: TLSEnd) -> None:
    """Completes the handshake of two ends with each other."""
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(complete_handshake, pair))


class SecureProgram(Program):
    """A program at a TLS end."""

    def __init__(self, end: TLSEnd) -> None:
        super().__init__(end.socket)
        self.end = end

    async def send(self, data: bytes | memoryview) -> None:
        async with asyncio.timeout(PATIENCE):
            await ends.send_all(self.end, bytes(data))

    async def read(self, size: int = ends.READ_SIZE) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await ends.receive(self.end, size)

    async def half_close(self) -> None:
        self.end.send_eof()
        await self.send(b"")

    def close(self) -> None:
        self.end.close()
