"""What health checks of tunnels find out."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level
from tunnelconsole.engine.floods import Cause


class TargetUnhealthy(Event, frozen=True, kw_only=True):
    """A health check found that a target does not work."""

    type: ClassVar[str] = "target-unhealthy"
    level: ClassVar[Level] = "warning"
    target: str
    reason: str

    def text(self) -> str:
        return f"{self.target} is not healthy and gets no visitors: {self.reason}"


class TargetHealthy(Event, frozen=True, kw_only=True):
    """A target works again."""

    type: ClassVar[str] = "target-healthy"
    level: ClassVar[Level] = "info"
    target: str

    def text(self) -> str:
        return f"{self.target} is healthy again"


class BackendUnhealthy(Event, frozen=True, kw_only=True):
    """A tunnel's client says that its service does not work."""

    type: ClassVar[str] = "backend-unhealthy"
    level: ClassVar[Level] = "warning"
    peer: str
    address: str

    def text(self) -> str:
        return f"the service of {self.peer} is not healthy: no visitors of {self.address} are led to it"

    def flooded_by(self) -> Cause:
        return Cause(self.peer.rpartition(":")[0], "not healthy")


class BackendHealthy(Event, frozen=True, kw_only=True):
    """A tunnel's client says that its service works again."""

    type: ClassVar[str] = "backend-healthy"
    level: ClassVar[Level] = "info"
    peer: str
    address: str

    def text(self) -> str:
        return f"the service of {self.peer} is healthy again: visitors of {self.address} are led to it"

    def flooded_by(self) -> Cause:
        return Cause(self.peer.rpartition(":")[0], "healthy again")
