"""What whoever has a key may forward: the options of its line that are about that."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.wire.hostport import format_host_port
from tunnelconsole.engine.wire.printable import printable

HIGHEST_PORT = 65535
"""Ports have 16 bits."""


LONGEST_SHOWN = 64
"""Characters of a host that a client asks for which are shown: it may be anything."""


def shown(host: str, port: int) -> str:
    """What was asked for, fit to be shown."""
    return format_host_port(printable(host[:LONGEST_SHOWN]), port)


class NotAKey(ValueError):
    """A line that lets nobody in; the text says why."""


class Place(NamedTuple):
    """What ``permitlisten`` or ``permitopen`` names: a host, where ``*`` stands for any letters, and a port."""

    host: str
    port: int
    """0 for any."""

    def covers(self, host: str, port: int) -> bool:
        """Whether this place is meant. Nothing is looked up: a name is its letters."""
        return self.port in (0, port) and fnmatch.fnmatchcase(host.lower(), self.host)

    @classmethod
    def parse(cls, option: str, text: str, *, any_host: bool) -> Self:
        """Reads ``host:port`` as sshd(8) has it, IPv6 in brackets.

        :param any_host: whether the host may be left out, for any.
        :raises NotAKey: it is not that.
        """
        host, _, port = text.strip().rpartition(":")
        if port == "*":
            port = "0"
        elif not (port.isascii() and port.isdecimal() and 1 <= int(port) <= HIGHEST_PORT):
            raise NotAKey(f"its option {option!r} has no port in {text[:64]!r}; end it with a number or with *")
        if not host and not any_host:
            raise NotAKey(f"its option {option!r} names no host in {text[:64]!r}; write one as example.com:443")
        return cls(host.removeprefix("[").removesuffix("]").lower() or "*", int(port))


@dataclass(frozen=True)
class ForwardRights:
    """What a key may forward, where the service forwards at all."""

    permitted: bool = True
    """Whether it may forward anything."""
    listens: tuple[Place, ...] = ()
    """What it may have opened here (``-R``); all that the settings permit when empty."""
    opens: tuple[Place, ...] = ()
    """Where it may connect to (``-L``, ``-W``); wherever the jump server permits when empty."""
    hosts: tuple[HostPattern, ...] = ()
    """Public hostnames that it may have, reserved ones among them; any that is not reserved when empty."""
    token: str = ""
    """The token of this node whose rights and limits hold besides; empty for none."""

    def may_listen(self, host: str, port: int) -> bool:
        """Whether it may ask for this place with ``-R``, as it was asked for."""
        return self.permitted and (not self.listens or any(place.covers(host, port) for place in self.listens))

    def may_open(self, host: str, port: int) -> bool:
        """Whether it may ask for a connection to this place, as it was asked for."""
        return self.permitted and (not self.opens or any(place.covers(host, port) for place in self.opens))

    def grants(self, host: str) -> bool:
        """Whether this public hostname is one that its line names."""
        return any(pattern.names(host) for pattern in self.hosts)

    def with_option(self, name: str, value: str | None) -> Self | None:
        """These rights with an option of a key's line; None where it is about something else.

        :raises NotAKey: it cannot be read.
        """
        match name, value:
            case (("restrict" | "no-port-forwarding"), None):
                return replace(self, permitted=False)
            case "port-forwarding", None:
                return replace(self, permitted=True)
            case "role", "view":
                return replace(self, permitted=False)
            case "permitlisten", str(text):
                return replace(self, listens=(*self.listens, Place.parse(name, text, any_host=True)))
            case "permitopen", str(text):
                return replace(self, opens=(*self.opens, Place.parse(name, text, any_host=False)))
            case "host", str(text):
                return replace(self, hosts=(*self.hosts, *_hosts(text)))
            case "token", str(text) if text:
                return replace(self, token=text)
            case _:
                return None


def _hosts(names: str) -> list[HostPattern]:
    """The patterns of ``host``, between commas."""
    try:
        return [HostPattern.parse(name) for name in names.split(",")]
    except ValueError as error:
        raise NotAKey(f"its option 'host' cannot be read: {error}") from error
