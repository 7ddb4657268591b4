"""Which host leads where: who may have it, and the clients that serve it, of which the least busy is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.rates import Allowance
from tunnelconsole.engine.services.tunnel.inspector import Log

if TYPE_CHECKING:
    from tunnelconsole.engine.services.tunnel.backend import Backend
    from tunnelconsole.engine.tokens.grants import Token

DOWN_TIME: Final = 5.0
"""Seconds for which a client whose service could not be reached gets no visitor, as long as another can take them;
after that a visitor tries it. As long as a dial may take."""


class HostRules:
    """Who may have which host.

    :param allow: the hosts there may be; any when empty.
    :param deny: those there may not be; wins over all else.
    :param reserved: hosts that are one identity's.
    """

    def __init__(self, allow: Sequence[HostPattern], deny: Sequence[HostPattern], reserved: Mapping[str, str]) -> None:
        self._allow = allow
        self._deny = deny
        self._reserved = [(HostPattern.parse(text), identity) for text, identity in reserved.items()]

    def refuses(self, host: str, identity: str, *, granted: bool = False) -> str:
        """Why ``identity`` may not have ``host``; "" when it may.

        :param granted: whether it was granted to whoever asks, by name: then only ``deny`` can keep it from them.
        """
        if any(pattern.names(host) for pattern in self._deny):
            return f"the host {host} is not allowed here"
        if granted:
            return ""
        owners = {owner for pattern, owner in self._reserved if pattern.names(host)}
        if owners:
            return "" if identity in owners else f"the host {host} is reserved for somebody else"
        if self._allow and not any(pattern.names(host) for pattern in self._allow):
            return f"the host {host} is not allowed here"
        return ""


class Tunnel:
    """A host, and the clients that serve it.

    :param owner: who has it: others are turned away. An identity's name, or what stands for one that has none.
    :param allowances: of the tunnel, and of its owner, where they are limited.
    """

    __slots__ = ("_next", "allowances", "backends", "host", "log", "owner", "token")

    def __init__(self, host: str, owner: object, allowances: Sequence[Allowance], log: Log | None) -> None:
        self.host = host
        self.owner = owner
        self.backends: list[Backend] = []
        self.allowances = allowances
        self.log = log
        self.token: Token | None = None
        """By which its clients have it, if by one of this node."""
        self._next = 0
        """Which client is looked at first, so that equals take turns."""

    def choose(self, now: float, last: Backend | None, failed: Backend | None) -> Backend | None:
        """The client with the least under way, those that are down only if there is no other; None when there is none.

        One that is not healthy is never chosen. Equals take turns.

        :param last: the one that the visitor came to before, which wins among equals.
        :param failed: tried in vain already.
        """
        if len(self.backends) == 1:
            only = self.backends[0]
            return only if only.healthy and only is not failed else None
        best, best_rank, chosen = None, (True, 0, True), 0
        for turn in range(self._next, self._next + len(self.backends)):
            backend = self.backends[turn % len(self.backends)]
            rank = (backend.down_until > now, backend.load, backend is not last)
            if backend.healthy and backend is not failed and (best is None or rank < best_rank):
                best, best_rank, chosen = backend, rank, turn
        if best is not None and best is not last:
            self._next = (chosen + 1) % len(self.backends)
        return best


class Routes:
    """The tunnels there are, by host."""

    def __init__(self) -> None:
        self._tunnels: dict[str, Tunnel] = {}

    def find(self, host: str) -> Tunnel | None:
        """The tunnel of ``host``, in lower case and without its port."""
        return self._tunnels.get(host)

    def add(self, tunnel: Tunnel) -> None:
        """A tunnel that visitors may be led to."""
        self._tunnels[tunnel.host] = tunnel

    def leave(self, tunnel: Tunnel, backend: Backend) -> None:
        """A client takes no more visitors; with the last one, the host is free."""
        if backend in tunnel.backends:
            tunnel.backends.remove(backend)
            if not tunnel.backends and self._tunnels.get(tunnel.host) is tunnel:
                del self._tunnels[tunnel.host]
