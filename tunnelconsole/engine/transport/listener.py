"""Listening sockets: bound to the first address of a name that this machine has, accepting in batches."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable

from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.dialer import numeric
from tunnelconsole.engine.transport.ends import tune
from tunnelconsole.engine.transport.lookup import LOOKUPS, Found
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.errors import ListenFailed

BACKLOG = 4096
"""Connections the kernel holds until they are accepted; Linux caps it at ``net.core.somaxconn`` (4096)."""

ACCEPT_BATCH = 64
"""Connections accepted per wake-up: enough for a burst, few enough that traffic goes on meanwhile."""

EXHAUSTED_PAUSE = 0.25
"""Seconds without accepting once only the reserve of descriptors is left; the backlog holds newcomers meanwhile."""

Accepted = Callable[[socket.socket, str], None]
"""Told of each connection: the non-blocking socket, and the peer as ``host:port``."""

Exhausted = Callable[[OSError], None]
"""Told when accepting must pause because descriptors or memory have run out; once, until nobody waits any more."""


class Listener:
    """One listening address.

    :param address: as bound, ``host:port``; a port of 0 in the request becomes the one taken.
    :param reserve: whether it may take of the reserve of descriptors: for those who look after the engine.
    """

    def __init__(self, sock: socket.socket, accepted: Accepted, exhausted: Exhausted, *, reserve: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._accepted = accepted
        self._reserve = reserve
        self._exhausted = exhausted
        self._pause: asyncio.TimerHandle | None = None
        self._out_of_resources = False
        host, port = sock.getsockname()[:2]
        self.host: str = host
        self.port: int = port
        self.address = format_host_port(host, port)
        self._loop.add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        if not self._reserve and not descriptors.spare(self._socket.fileno()):
            self._wait_for_resources(descriptors.exhausted())
            return
        highest = sys.maxsize if self._reserve else descriptors.ceiling() - 1
        for _ in range(ACCEPT_BATCH):
            try:
                sock, peer = self._socket.accept()
            except BlockingIOError:
                self._out_of_resources = False
                return
            except OSError as error:
                if self._socket.fileno() < 0:
                    return  # whoever was told of the connection before has closed us
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._wait_for_resources(error)
                    return
                continue  # the visitor left before it was accepted (accept(2), "Error handling")
            number = sock.fileno()
            sock.setblocking(False)
            self._accepted(sock, format_host_port(peer[0], peer[1]))
            if number >= highest and self._socket.fileno() >= 0:
                self._wait_for_resources(descriptors.exhausted())
                return

    def _wait_for_resources(self, error: OSError) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(EXHAUSTED_PAUSE, self._accept_again)
        if not self._out_of_resources:
            self._out_of_resources = True
            self._exhausted(error)

    def _accept_again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stops listening; connections accepted before live on. Safe to call twice."""
        if self._socket.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


async def listen(host: str, port: int, accepted: Accepted, exhausted: Exhausted) -> Listener:
    """Listens as :func:`bound` does, and accepts.

    :raises ListenFailed: the address is in use, not ours, not permitted, or unknown.
    """
    return Listener(await bound(host, port), accepted, exhausted)


async def bound(host: str, port: int) -> socket.socket:
    """A listening socket on ``host`` and ``port`` (0 takes a free one); of a name, on its first address that we have.

    :raises ListenFailed: the address is in use, not ours, not permitted, or unknown; the hint goes on with where it is
        set.
    """
    wanted = format_host_port(host, port) if port else host
    address = numeric(host, port)
    found: Found
    try:
        found = [(address.family, address.sockaddr)] if address else await LOOKUPS.find(host, port, socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        raise ListenFailed(f"cannot listen on {wanted}: {reason or error}", "check the host name") from error
    try:
        return _first_bound(found)
    except OSError as error:
        code = error.errno or 0
        raise ListenFailed(f"cannot listen on {wanted}: {os.strerror(code)}", _advice(error)) from error


def _first_bound(addresses: Found) -> socket.socket:
    """A listening socket on the first of these addresses that this machine has.

    :raises OSError: there cannot be one.
    """
    *others, last = addresses
    for family, address in others:
        try:
            return _bound(family, address)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bound(*last)


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sock.fileno() >= descriptors.ceiling():
            raise descriptors.exhausted()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tune(sock)  # accepted sockets inherit this, which saves four calls for each
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _advice(error: OSError) -> str:
    code = error.errno
    if code == errno.EMFILE:
        return descriptors.exhausted().strerror or ""
    if code == errno.EADDRINUSE:
        return "another program has this port; stop it or choose another port"
    if code in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return "this machine does not have that address; choose one that it has"
    if code in (errno.EACCES, errno.EPERM):
        return "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE); or choose a higher one"
    return "choose another address"


def is_loopback(host: str) -> bool:
    """True when a listener on this numeric ``host`` can be reached from this machine only."""
    return host == "::1" or host.startswith("127.")
