"""Addresses in two parts, and ports that a test names itself because something has to come back to them."""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import tempfile
from pathlib import Path
from random import SystemRandom

STEADY_PORTS = range(15000, 30000)
"""Below the ports that systems hand out by themselves, so that one stays free while nobody listens on it."""


def steady_port() -> int:
    """A port that nobody has, and that nobody gets by chance, another test that runs at the same time included."""
    return steady_ports(1)


def steady_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    while True:
        first = SystemRandom().choice(STEADY_PORTS[: len(STEADY_PORTS) - count])
        if all(_reserve(port) for port in range(first, first + count)):
            return first


def _reserve(port: int) -> bool:
    """Takes a port for the tests of this process, unless others have it: each port is a byte of a file, to lock."""
    try:
        if port in _reserved:
            return False
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        _reserved.add(port)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


_reserved: set[int] = set()


@functools.cache
def _reservations() -> int:
    """The file; it stays open, because its locks go when it is closed, as they do when the process ends."""
    path = Path(tempfile.gettempdir(), f"tunnelconsole-test-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def split(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, the host without brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
