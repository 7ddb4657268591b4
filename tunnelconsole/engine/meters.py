"""Meters: bytes both ways, rates over the last second, and the history that the charts show."""

from __future__ import annotations

from collections import deque

TICK = 1.0
"""Seconds between two samples: the window of every rate, and the step of the charts."""

HISTORY = 600
"""Samples kept for the charts, of the node and of each service: ten minutes, 40 kB for both ways."""


class Meter:
    """Bytes of a service or of the node, with rates and history.

    ``bytes_in`` is what came from remote parties.
    """

    __slots__ = (
        "_marked_in",
        "_marked_out",
        "bytes_in",
        "bytes_out",
        "history_in",
        "history_out",
        "rate_in",
        "rate_out",
        "samples",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.rate_in = 0.0
        self.rate_out = 0.0
        self.samples = 0
        """How many there have been, with those that are not kept any more."""
        self.history_in: deque[float] = deque(maxlen=HISTORY)
        self.history_out: deque[float] = deque(maxlen=HISTORY)
        self._marked_in = 0
        self._marked_out = 0

    def add(self, bytes_in: int, bytes_out: int) -> None:
        """Counts more bytes."""
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def carry_over(self, bytes_in: int, bytes_out: int) -> None:
        """Counts bytes of before the engine's start, which are part of no rate."""
        self.add(bytes_in, bytes_out)
        self._marked_in += bytes_in
        self._marked_out += bytes_out

    def sample(self, elapsed: float) -> None:
        """Takes the rates since the last sample, ``elapsed`` seconds ago, and appends them to the history."""
        self.rate_in = (self.bytes_in - self._marked_in) / elapsed
        self.rate_out = max(0, self.bytes_out - self._marked_out) / elapsed  # less: some turned out to be lost
        self._marked_in = self.bytes_in
        self._marked_out = self.bytes_out
        self.samples += 1
        self.history_in.append(self.rate_in)
        self.history_out.append(self.rate_out)


class Meters:
    """The node's meter and one per service name; a service's meter outlives its restarts."""

    def __init__(self) -> None:
        self.node = Meter()
        self._services: dict[str, Meter] = {}

    def service(self, name: str) -> Meter:
        """The meter of the service of that name, made when it is first asked for."""
        meter = self._services.get(name)
        if meter is None:
            meter = self._services[name] = Meter()
        return meter

    def restore(self, totals: dict[str, tuple[int, int]]) -> None:
        """Takes over totals by service name (bytes in, bytes out) from before the engine's start, once."""
        for name, (bytes_in, bytes_out) in totals.items():
            self.service(name).carry_over(bytes_in, bytes_out)

    def totals(self) -> dict[str, tuple[int, int]]:
        """Totals by service name: bytes in, bytes out."""
        return {name: (meter.bytes_in, meter.bytes_out) for name, meter in self._services.items()}

    def sample(self, elapsed: float) -> None:
        """Samples every meter; ``elapsed`` seconds since the last time."""
        self.node.sample(elapsed)
        for meter in self._services.values():
            meter.sample(elapsed)
