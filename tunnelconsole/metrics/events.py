"""What happens at the listener for metrics."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level


class MetricsListening(Event, frozen=True, kw_only=True):
    """Metrics can be read."""

    type: ClassVar[str] = "metrics-listening"
    level: ClassVar[Level] = "info"
    address: str
    exposed: bool

    def text(self) -> str:
        return f"metrics are served on {self.address}" + (", beyond loopback" if self.exposed else "")
