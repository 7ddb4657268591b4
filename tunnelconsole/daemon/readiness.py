"""Tells the service manager how the engine is: ready, reloading, stopping, alive (sd_notify(3), systemd's protocol).

Without ``NOTIFY_SOCKET`` in the environment all of this does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

STOP_MARGIN = 5
"""Seconds asked for beyond the drain: what closing the rest takes at the most."""


class Readiness:
    """The line to the service manager.

    :param report: told when a notification could not be sent; the engine goes on without.
    """

    def __init__(self, report: Callable[[str], None], environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero byte that begins the name of an abstract socket (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._report = report
        self.alive_interval = _alive_interval(environment)

    def ready(self, status: str) -> None:
        """The engine serves; ``status`` is one line for ``systemctl status``."""
        self._notify("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; :meth:`ready` follows."""
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, drain: float) -> None:
        """The engine stops, and may take ``drain`` seconds until its channels have finished."""
        microseconds = int((drain + STOP_MARGIN) * 1_000_000)
        self._notify("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={microseconds}")

    def alive(self) -> None:
        """The loop turns; to be told every :attr:`alive_interval` seconds, where that is above 0."""
        self._notify("WATCHDOG=1")

    def _notify(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._report(f"the service manager could not be told {lines[0]}: {error.strerror or error}")


def _alive_interval(environment: Mapping[str, str]) -> float:
    """Seconds between two signs of life: half of what the manager waits (sd_watchdog_enabled(3)); 0 for none."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2_000_000 if for_us and microseconds.isdecimal() else 0.0
