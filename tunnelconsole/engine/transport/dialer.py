"""Dialling: one address after the other, by callbacks, with error texts in the form that Go programs print."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.ends import SocketEnd, tune
from tunnelconsole.engine.transport.lookup import LOOKUPS
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.errors import ConnectFailed

DIAL_TIMEOUT = 5.0
"""Seconds for one address to answer: the original jump host's."""

LOWEST_OWN_PORT = 1024
"""The lowest port that the kernel may take for our end of a connection, however ``ip_local_port_range`` is set."""

_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY)


SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""A numeric address as :mod:`socket` takes it, IPv4 or IPv6."""


@dataclass(frozen=True, slots=True)
class Address:
    """One numeric address: family, and ``(host, port, ...)`` as :mod:`socket` takes it."""

    family: int
    sockaddr: SocketAddress

    @property
    def host(self) -> str:
        """The numeric host, without an IPv6 scope."""
        return self.sockaddr[0].partition("%")[0]

    def __str__(self) -> str:
        return format_host_port(self.sockaddr[0], self.sockaddr[1])


def numeric(host: str, port: int) -> Address | None:
    """``host`` as an address when it is written as a number; None when it is a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return Address(family, (host, port) if family == socket.AF_INET else (host, port, 0, 0))
    return None


async def resolve(host: str, port: int, timeout: float = DIAL_TIMEOUT) -> list[Address]:
    """The addresses of ``host`` in the system's order of preference.

    :param timeout: seconds to find them, the wait for a thread that looks them up included.
    :raises ConnectFailed: there are none, or none in that time.
    """
    address = numeric(host, port)
    if address is not None:
        return [address]
    try:
        async with asyncio.timeout(timeout):
            found = await LOOKUPS.find(host, port)
    except TimeoutError as error:
        raise ConnectFailed(f"dial tcp: lookup {host}: i/o timeout") from error
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"dial tcp: lookup {host}: no such host") from error
    return [Address(family, cast("SocketAddress", sockaddr)) for family, sockaddr in found]


Dialled = Callable[[socket.socket | None, str], None]
"""Told the connected non-blocking socket, or None and the text of the error."""


class Dial:
    """Dials the addresses one after the other until one answers; never blocks.

    ``done`` is called once, from the loop or, when the kernel connects at once, from within :meth:`start`.
    """

    __slots__ = ("_addresses", "_done", "_error", "_loop", "_next", "_socket", "_timeout", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, addresses: Sequence[Address], timeout: float, done: Dialled
    ) -> None:
        self._loop = loop
        self._addresses = addresses
        self._timeout = timeout
        self._done = done
        self._next = 0
        self._error = "dial tcp: no address"
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tries the next address."""
        while self._next < len(self._addresses):
            address = self._addresses[self._next]
            self._next += 1
            try:
                sock = socket.socket(address.family, socket.SOCK_STREAM)
            except OSError as error:
                self._error = f"dial tcp {address}: socket: {os.strerror(error.errno or 0).lower()}"
                continue
            if sock.fileno() >= descriptors.ceiling():
                sock.close()
                self._error = f"dial tcp {address}: socket: {os.strerror(errno.EMFILE).lower()}"
                continue
            sock.setblocking(False)
            tune(sock)
            code = sock.connect_ex(address.sockaddr)
            if code in _PENDING:
                code = sock.connect_ex(address.sockaddr)  # on loopback it is through by now, which saves a wake-up
            if code in (0, errno.EISCONN) and not _is_connected_to_itself(sock, address):
                self._done(sock, "")
                return
            if code in _PENDING:
                self._socket = sock
                self._timer = self._loop.call_later(self._timeout, self._late)
                self._loop.add_writer(sock.fileno(), self._writable)
                return
            sock.close()
            self._error = f"dial tcp {address}: connect: {_cause(code)}"
        self._done(None, self._error)

    def _writable(self) -> None:
        sock = self._release()
        if sock is None:
            return
        address = self._addresses[self._next - 1]
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and not _is_connected_to_itself(sock, address):
            self._done(sock, "")
            return
        sock.close()
        self._error = f"dial tcp {address}: connect: {_cause(code)}"
        self.start()

    def _late(self) -> None:
        sock = self._release()
        if sock is None:
            return
        sock.close()
        self._error = f"dial tcp {self._addresses[self._next - 1]}: i/o timeout"
        self.start()

    def _release(self) -> socket.socket | None:
        """Takes the socket that is being connected off the loop; None when there is none."""
        sock, timer = self._socket, self._timer
        if sock is not None and timer is not None:
            timer.cancel()
            self._loop.remove_writer(sock.fileno())
            self._socket = self._timer = None
        return sock

    def cancel(self) -> None:
        """Gives up; ``done`` is not called any more."""
        self._next = len(self._addresses)
        sock = self._release()
        if sock is not None:
            sock.close()


def _is_connected_to_itself(sock: socket.socket, address: Address) -> bool:
    """True where nobody listens and the kernel took the dialled port for our own: TCP's simultaneous open with oneself.

    It happens on loopback, once in some ten thousand dials, and would give a visitor an echo in place of a refusal. Go
    programs guard against it too (``selfConnect`` in ``net/tcpsock_posix.go``).
    """
    return address.sockaddr[1] >= LOWEST_OWN_PORT and sock.getsockname()[:2] == address.sockaddr[:2]


def _cause(code: int) -> str:
    if code in (0, errno.EISCONN, errno.ECONNREFUSED):  # the first two: connected to itself
        return "connection refused"
    if code == errno.EHOSTUNREACH:
        return "no route to host"
    if code == errno.ENETUNREACH:
        return "network is unreachable"
    return os.strerror(code).lower()


async def dial(host: str, port: int, timeout: float = DIAL_TIMEOUT) -> SocketEnd:
    """Connects to ``host`` and ``port``.

    :param timeout: seconds to look the name up, and then for each address.
    :raises ConnectFailed: there is no address, or none answered; the text names the last one and why.
    """
    return await dial_any(await resolve(host, port, timeout), timeout)


async def dial_any(addresses: Sequence[Address], timeout: float = DIAL_TIMEOUT) -> SocketEnd:
    """Connects to the first of these addresses that answers.

    :param timeout: seconds for each address.
    :raises ConnectFailed: there is none, or none answered; the text names the last one and why.
    """
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[socket.socket] = loop.create_future()

    def done(sock: socket.socket | None, error: str) -> None:
        if sock is None:
            connected.set_exception(ConnectFailed(error))
        else:
            connected.set_result(sock)

    attempt = Dial(loop, addresses, timeout, done)
    attempt.start()
    try:
        return SocketEnd(await asyncio.shield(connected))  # shielded, so that nobody ends it between the two
    except asyncio.CancelledError:
        attempt.cancel()
        if connected.done() and connected.exception() is None:
            connected.result().close()  # it came in the very moment in which we were given up
        raise
