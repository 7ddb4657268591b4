"""The node: what one running engine shares with its services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tunnelconsole.engine.attempts import Attempts
from tunnelconsole.engine.audit import AuditTrail
from tunnelconsole.engine.bans import Bans
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.events import Crashed
from tunnelconsole.engine.meters import Meters
from tunnelconsole.engine.operators import Operators
from tunnelconsole.engine.request_times import RequestTimes
from tunnelconsole.engine.sessions import Sessions
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.tokens.register import Tokens
from tunnelconsole.engine.transport.farewell import Farewells
from tunnelconsole.engine.transport.plane import Plane

Role = Literal["view", "operate"]
"""What somebody who has been let in to the console may do: only look, or steer too."""


class Node:
    """The registers and the data plane of one engine, on the running loop.

    :param state_dir: the folder for what must survive a restart.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.loop = asyncio.get_running_loop()
        self.bus = Bus()
        self.meters = Meters()
        self.sessions = Sessions(self.bus, self.meters)
        self.attempts = Attempts(self.bus)
        self.audit = AuditTrail(self.bus)
        self.bans = Bans(self.bus)
        self.operators = Operators()
        self.tokens = Tokens(self.bus, state_dir, audit=self.audit)
        self.plane = Plane(self.loop)
        self.farewells = Farewells(self.loop)
        self.request_times: RequestTimes | None = None
        """Counts requests through HTTP tunnels and how long they took; None where nobody wants to know."""
        self.metrics = ""
        """Where metrics are served, ``host:port``; empty: nowhere."""
        self.control: Callable[[Role], Awaitable[Path]] | None = None
        """Gives the control socket for consoles of a role; None where the engine has none. May raise ListenFailed."""
        self.services: Callable[[], Mapping[str, object]] = dict
        """Gives the services by name, for one that leads to another: an SSH server to a tunnel server."""

    @contextmanager
    def contain(self, what: str, service: str = "") -> Iterator[None]:
        """Makes an exception in the block an event, where what comes after must be done all the same.

        :param what: what the block does, with a name in it.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self.bus.publish(Crashed.by(error, what, service))

    def tasks_of(self, owner: str, service: str = "") -> Tasks:
        """An owner of tasks whose failures become events."""

        def report(task: str, error: BaseException) -> None:
            self.bus.publish(Crashed.by(error, task, service))

        return Tasks(owner, report)
