"""Hosts of the lab used with plain sockets: what a mapping and a filter look like from outside."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum

from natlab.lab import Lab
from natlab.namespaces import Namespace
from natlab.network import RENDEZVOUS

ANSWER_TIME = 30.0
"""Seconds for what must come: far beyond a round trip of 20 to 40 ms on a busy machine."""

SILENCE = 0.3
"""Seconds without an answer that count as silence: at least seven round trips. A machine too busy for that would hide a
connection that should not be, and never fail a test for one that should."""

PORTS = (7900, 7901)
"""Where the rendezvous's host observes."""

Address = tuple[str, int]


class Fate(Enum):
    """What becomes of a dial."""

    CONNECTED = "connected"
    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


def dial(namespace: Namespace, to: Address, *, source: Address | None = None, within: float = SILENCE) -> Fate:
    """Dials once, from any port unless ``source`` names one, and hangs up."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with namespace.socket(family) as sock:
        if source is not None:
            _share(sock)
            sock.bind(source)
        sock.settimeout(within)
        try:
            sock.connect(to)
        except ConnectionRefusedError:
            return Fate.REFUSED
        except TimeoutError:
            return Fate.SILENT
        except OSError as error:
            if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
                return Fate.UNREACHABLE
            raise
        return Fate.CONNECTED


class Observatory:
    """Listens on both IPv4 addresses and both ports of the rendezvous's host."""

    def __init__(self, lab: Lab) -> None:
        self._sockets = ExitStack()
        self._listeners = {
            (host, port): self._sockets.enter_context(_listening(lab.srv, (host, port)))
            for host in RENDEZVOUS[:2]
            for port in PORTS
        }

    def sees(self, at: Address) -> Address:
        """From where the next connection to one of the addresses comes."""
        accepted, peer = self._listeners[at].accept()
        accepted.close()
        return str(peer[0]), int(peer[1])

    def close(self) -> None:
        self._sockets.close()


class PunchingPort:
    """A port of a client on which it listens, and from which it dials."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._sockets = ExitStack()
        self._listener = self._sockets.enter_context(_listening(namespace, ("0.0.0.0", 0)))
        self.port = int(self._listener.getsockname()[1])

    def mapping(self, observatory: Observatory, at: Address) -> Address:
        """Its address as the rendezvous's host sees it; the connection stays, so the mapping does."""
        sock = self._sockets.enter_context(dialled_from(self._namespace, self.port))
        sock.connect(at)
        return observatory.sees(at)

    def is_reached(self, caller: Namespace, at: Address) -> bool:
        """Whether a plain dial comes here, and not to somebody else who has this address where the caller is."""
        if dial(caller, at) is not Fate.CONNECTED:
            return False
        self._listener.settimeout(SILENCE)
        try:
            accepted, _ = self._listener.accept()
        except TimeoutError:
            return False
        accepted.close()
        return True

    def close(self) -> None:
        self._sockets.close()


@contextmanager
def observed(lab: Lab) -> Iterator[Observatory]:
    """An observatory for as long as the block runs."""
    observatory = Observatory(lab)
    try:
        yield observatory
    finally:
        observatory.close()


@contextmanager
def punching_port(namespace: Namespace) -> Iterator[PunchingPort]:
    """A punching port for as long as the block runs."""
    port = PunchingPort(namespace)
    try:
        yield port
    finally:
        port.close()


def dialled_from(namespace: Namespace, port: int) -> socket.socket:
    """A socket that dials from this port, which others may have too; 0 takes a free one."""
    sock = namespace.socket()
    _share(sock)
    sock.bind(("0.0.0.0", port))
    sock.settimeout(ANSWER_TIME)
    return sock


def _listening(namespace: Namespace, at: Address) -> socket.socket:
    sock = namespace.socket()
    _share(sock)
    sock.bind(at)
    sock.listen()
    sock.settimeout(ANSWER_TIME)
    return sock


def _share(sock: socket.socket) -> None:
    """Lets several sockets have the same port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
