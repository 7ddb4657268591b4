"""Ends: non-blocking byte streams with a descriptor, plain or TLS, which the data plane joins in pairs.

Everything here is driven by readiness: an operation that cannot proceed raises :class:`BlockingIOError`, and the caller
waits for the descriptor on the loop. No end has a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from typing import Protocol

READ_SIZE = 64 * 1024
"""Bytes asked for in one buffered read: the point from which larger reads stopped to pay on loopback."""

KEEPALIVE_IDLE = 60
"""Seconds of silence before the kernel asks whether a TCP peer is still there."""

KEEPALIVE_INTERVAL = 15
"""Seconds between the kernel's questions."""

KEEPALIVE_PROBES = 4
"""Unanswered questions after which a peer counts as dead: with the above, two minutes after it vanished."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class End(Protocol):
    """One end of a channel."""

    path: str
    """How bytes travel here: ``tcp``, ``tls`` or ``ssh``."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def receive(self, size: int) -> bytes:
        """Up to about ``size`` bytes; ``b""`` once the far side has sent its last.

        :raises BlockingIOError: nothing is there yet.
        :raises OSError: the connection is broken.
        """

    def send(self, data: bytes | memoryview) -> int:
        """Takes some of ``data`` and says how many bytes.

        :raises BlockingIOError: nothing can be taken now.
        :raises OSError: the connection is broken.
        """

    def flush(self) -> bool:
        """True when everything taken by :meth:`send` has been handed to the kernel; tries to get there."""

    def holds_input(self) -> bool:
        """True when :meth:`receive` may give bytes although the descriptor is not readable."""

    def send_eof(self) -> None:
        """Tells the far side that no more bytes come; receiving goes on. Call once all is flushed."""

    def close(self) -> None:
        """Closes in order; safe to call twice."""

    def abort(self) -> None:
        """Closes with a reset, so that the far side sees a broken connection and not a short one."""


class SocketEnd:
    """A plain TCP socket as an end."""

    __slots__ = ("socket",)
    path = "tcp"

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self, size: int) -> bytes:
        return self.socket.recv(size)

    def send(self, data: bytes | memoryview) -> int:
        return self.socket.send(data)

    def flush(self) -> bool:
        return True

    def holds_input(self) -> bool:
        return False

    def send_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def abort(self) -> None:
        reset(self.socket)


def reset(sock: socket.socket) -> None:
    """Closes ``sock`` with a TCP reset; safe on a socket that is closed already."""
    if sock.fileno() < 0:
        return
    with contextlib.suppress(OSError):  # a socket that is no longer connected has nobody to reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


def unacknowledged(end: End) -> int:
    """Bytes sent that the far side's kernel has not confirmed, which a reset would lose; 0 where nobody can tell."""
    if sys.platform != "linux":
        return 0
    return int(struct.unpack("i", fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, bytes(4)))[0])


def tune(sock: socket.socket) -> None:
    """Sets what every TCP socket of ours has: no delay, and keepalive so that a dead peer is noticed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


async def wait_readable(end: End) -> None:
    """Waits until the end's descriptor is readable."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = end.fileno()
    loop.add_reader(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def wait_writable(end: End) -> None:
    """Waits until the end's descriptor is writable."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = end.fileno()
    loop.add_writer(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def receive(end: End, size: int = READ_SIZE) -> bytes:
    """Waits for bytes and returns up to about ``size`` of them; ``b""`` at the far side's end.

    :raises OSError: the connection is broken.
    """
    while True:
        try:
            return end.receive(size)
        except BlockingIOError:
            await wait_readable(end)


async def send_all(end: End, data: bytes) -> None:
    """Sends all of ``data``, waiting as long as the far side does not take it.

    :raises OSError: the connection is broken.
    """
    rest = memoryview(data)
    while rest or not end.flush():
        try:
            rest = rest[end.send(rest) :] if rest else rest
        except BlockingIOError:
            await wait_writable(end)
            continue
        if not rest and not end.flush():
            await wait_writable(end)
