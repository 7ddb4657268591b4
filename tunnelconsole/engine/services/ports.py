"""The pool of public ports, of a relay server and of an SSH server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from tunnelconsole.engine.settings import MAX_PORTS, PortRange
from tunnelconsole.engine.transport.dialer import LOWEST_OWN_PORT
from tunnelconsole.engine.transport.listener import Accepted, Listener, bound, listen
from tunnelconsole.errors import ListenFailed


def _common(ours: Sequence[PortRange], theirs: Sequence[PortRange]) -> Iterator[int]:
    """The ports that are in both, the lowest of each range first."""
    for one, other in itertools.product(theirs, ours):
        yield from range(max(one.first, other.first), min(one.last, other.last) + 1)


class PortPool:
    """Gives each who asks the lowest port that is free, ours or the system's.

    :param bind: the address on which ports are opened.
    :param ports: the ports to choose from.
    """

    def __init__(self, bind: str, ports: PortRange) -> None:
        self._bind = bind
        self._ports = ports
        self._taken: set[int] = set()

    async def check(self) -> str:
        """Makes sure that this machine has the address, without which no port could ever be opened; gives its number.

        :raises ListenFailed: it has not.
        """
        with await bound(self._bind, 0) as sock:
            return str(sock.getsockname()[0])

    def has(self, port: int) -> bool:
        """Whether a port is one of those to choose from, by name and not as any free one."""
        return self._ports.first <= port <= self._ports.last and port > 0

    async def open_port(self, port: int, accepted: Accepted, exhausted: Callable[[OSError], None]) -> Listener:
        """Listens on this port; give it back with :meth:`release`.

        :raises ListenFailed: it is none of those to choose from, or it is not free.
        """
        if self._ports.first and not self.has(port):
            raise ListenFailed(f"port {port} is not offered here", f"there are {self._ports.first}-{self._ports.last}")
        if not self._ports.first and port < LOWEST_OWN_PORT:
            raise ListenFailed(f"port {port} is not offered here", f"any from {LOWEST_OWN_PORT} on is")
        if port in self._taken:
            raise ListenFailed(f"port {port} is taken", "choose another, or 0 for a free one")
        return await self._listen(port, accepted, exhausted)

    async def open(
        self, accepted: Accepted, exhausted: Callable[[OSError], None], among: Sequence[PortRange] = ()
    ) -> Listener:
        """Listens on a free port; give it back with :meth:`release`.

        :param among: those that whoever asks may have; any when empty.
        :raises ListenFailed: none is free, or the address is not ours.
        """
        if not self._ports.first and not among:
            return await listen(self._bind, 0, accepted, exhausted)
        own = [self._ports] if self._ports.first else [PortRange(LOWEST_OWN_PORT, MAX_PORTS)]
        last_error = ""
        for port in _common(own, among or own):
            if port in self._taken:
                continue
            try:
                return await self._listen(port, accepted, exhausted)
            except ListenFailed as error:
                last_error = error.message
        wanted = ", ".join(f"{ports.first}-{ports.last}" for ports in among or own)
        raise ListenFailed(f"no public port of {wanted} is free", last_error)

    async def _listen(self, port: int, accepted: Accepted, exhausted: Callable[[OSError], None]) -> Listener:
        self._taken.add(port)
        try:
            return await listen(self._bind, port, accepted, exhausted)
        except BaseException:  # whoever wanted it may have been cancelled meanwhile
            self._taken.discard(port)
            raise

    def release(self, listener: Listener) -> None:
        """Closes the listener; its port is free from now on."""
        listener.close()
        self._taken.discard(listener.port)
