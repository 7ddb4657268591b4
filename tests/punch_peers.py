"""A rendezvous on loopback, and the settings of clients that meet there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from loopback import FREE, address_of, running
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.services.punch.client import PunchClientSettings
from tunnelconsole.engine.services.punch.server import PunchServer, PunchServerSettings
from tunnelconsole.engine.settings import HostPort, Secret

ROOM = "desk"
SECRET = "only we know"


@dataclass
class Rendezvous:
    """A running punch server named ``meet``."""

    engine: Engine

    @property
    def service(self) -> PunchServer:
        """The service itself."""
        service = self.engine.services["meet"]
        assert isinstance(service, PunchServer)
        return service

    @property
    def address(self) -> str:
        """Where seats are taken."""
        return address_of(self.engine, "meet")

    @property
    def seats(self) -> int:
        """How many are taken."""
        return len(self.service.rooms.seats)

    @property
    def fingerprint(self) -> str:
        """Of its certificate."""
        return self.service.notes["fingerprint"]

    def client(self, **settings: Any) -> PunchClientSettings:
        """What a client sets to meet others here."""
        settings.setdefault("room", ROOM)
        settings.setdefault("secret", Secret(SECRET))
        return PunchClientSettings(server=HostPort.parse(self.address), **settings)


@asynccontextmanager
async def rendezvous(**settings: Any) -> AsyncIterator[Rendezvous]:
    """A running rendezvous."""
    settings.setdefault("listen", FREE)
    async with running(meet=PunchServerSettings(**settings)) as engine:
        yield Rendezvous(engine)
