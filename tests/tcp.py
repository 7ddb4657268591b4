"""TCP connections on loopback as bare sockets, and the two programs that a pump joins."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE = 30.0
"""Seconds until a send or a read counts as stuck."""

READ = 64 * 1024
"""Bytes a program reads at once."""


def connected(buffer: int | None = None, host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """Both ends of a new TCP connection, non-blocking.

    :param buffer: bytes that the kernel may hold for each end (it takes twice as many); None for its default.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server, socket.socket(family, socket.SOCK_STREAM) as near:
        for sock in (server, near):
            if buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        server.bind((host, 0))
        server.listen()
        near.connect(server.getsockname())
        far, _ = server.accept()
        kept = socket.socket(fileno=near.detach())
    for sock in (kept, far):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return kept, far


class Program:
    """A program at the end of a connection: it sends and reads as it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    async def send(self, data: bytes | memoryview) -> None:
        """Sends all of it, however long the other end takes."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read(self, size: int = READ) -> bytes:
        """What is there, once there is something; ``b""`` at the end."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().sock_recv(self.socket, size)

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes; fewer only where the connection ends before."""
        pieces = []
        while count and (piece := await self.read(min(count, READ))):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    async def read_to_end(self) -> bytes:
        """All until the other end closes its side.

        :raises ConnectionResetError: the connection broke instead.
        """
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def read_until_broken(self) -> tuple[bytes, bool]:
        """All there is, and whether the connection broke after it (True) or ended in order (False)."""
        pieces = []
        try:
            while piece := await self.read():
                pieces.append(piece)
        except ConnectionResetError:
            return b"".join(pieces), True
        return b"".join(pieces), False

    @property
    def unacknowledged(self) -> int:
        """Bytes sent that the other end's kernel has not confirmed; a reset would lose them."""
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0])

    def fill(self, piece: bytes = bytes(READ)) -> int:
        """Sends until nothing more is taken; returns how many bytes were."""
        sent = 0
        with suppress(BlockingIOError):
            while True:
                sent += self.socket.send(piece)
        return sent

    async def half_close(self) -> None:
        """Sends its end; reading goes on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


@contextmanager
def programs(buffer: int | None = None) -> Iterator[tuple[Program, socket.socket, socket.socket, Program]]:
    """A client and a target that are not joined yet: the client, its socket's other end, the target's, the target."""
    near, left = connected(buffer)
    right, far = connected(buffer)
    try:
        yield Program(near), left, right, Program(far)
    finally:
        for sock in (near, left, right, far):
            sock.close()
