"""The pool of public ports."""

from __future__ import annotations

from collections.abc import Callable

from tunnelconsole.engine.settings import PortRange
from tunnelconsole.engine.transport.listener import Accepted, Listener, bound, listen
from tunnelconsole.errors import ListenFailed


class PortPool:
    """Gives each backend the lowest port that is free, ours or the system's.

    :param bind: the address on which ports are opened.
    :param ports: the ports to choose from.
    """

    def __init__(self, bind: str, ports: PortRange) -> None:
        self._bind = bind
        self._ports = ports
        self._taken: set[int] = set()

    async def check(self) -> None:
        """Makes sure that this machine has the address, without which no port could ever be opened.

        :raises ListenFailed: it has not.
        """
        (await bound(self._bind, 0)).close()

    async def open(self, accepted: Accepted, exhausted: Callable[[OSError], None]) -> Listener:
        """Listens on a free port; give it back with :meth:`release`.

        :raises ListenFailed: none is free, or the address is not ours.
        """
        if not self._ports.first:
            return await listen(self._bind, 0, accepted, exhausted)
        last_error = ""
        for port in range(self._ports.first, self._ports.last + 1):
            if port in self._taken:
                continue
            self._taken.add(port)
            try:
                return await listen(self._bind, port, accepted, exhausted)
            except ListenFailed as error:
                self._taken.discard(port)
                last_error = error.message
            except BaseException:  # whoever wanted it has been cancelled meanwhile
                self._taken.discard(port)
                raise
        wanted = f"{self._ports.first}-{self._ports.last}"
        raise ListenFailed(f"no public port of {wanted} is free", last_error)

    def release(self, listener: Listener) -> None:
        """Closes the listener; its port is free from now on."""
        listener.close()
        self._taken.discard(listener.port)
