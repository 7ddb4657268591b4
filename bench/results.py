"""All that one run has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from bench.consoles import Consoles
from bench.limits import Limits
from bench.measures import Effort, Figure, Idle, Taken, Wear
from bench.route import Contender


@dataclass(frozen=True)
class Failure:
    """Something that could not be measured."""

    contender: Contender
    what: str
    """What was measured; empty where the contender could not even be opened."""
    why: str

    def __str__(self) -> str:
        return f"{self.contender.name}{', ' if self.what else ''}{self.what}: {self.why}"


@dataclass
class Results:
    """The figures of one run; a contender goes by its name."""

    effort: Effort
    reference: str
    """The contender that the others are compared with."""
    rounds: dict[str, list[Taken]] = field(default_factory=dict)
    """What each round gave for each contender; a round that failed gave nothing."""
    idle: dict[str, Idle] = field(default_factory=dict)
    iperf3: dict[str, float] = field(default_factory=dict)
    """Gbit/s on one stream, where iperf3 is installed."""
    tunnel_bytes: float | None = None
    """Bytes of a tunnel server's memory for each of many tunnels; None where that was not measured."""
    wear: Wear | None = None
    """What many requests did to the tunnel; None where that was not measured."""
    status_seconds: list[float] = field(default_factory=list)
    first_paint_seconds: list[float] = field(default_factory=list)
    consoles: Consoles | None = None
    """What consoles over SSH cost; None where that was not measured."""
    limits: Limits | None = None
    """How limits hold; None where that was not measured."""
    failures: list[Failure] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Contenders whose programs are not installed."""

    @property
    def own_failures(self) -> list[Failure]:
        """Those that are ours to mend; the others say something about a peer, which is a result."""
        return [failure for failure in self.failures if not failure.contender.is_peer]

    def values(self, contender: str, figure: Figure) -> list[float]:
        """The figure's value in each round that has it."""
        return [taken[figure] for taken in self.rounds.get(contender, []) if figure in taken]

    def ratio(self, contender: str, figure: Figure, to: str = "") -> float | None:
        """The figure's ratio to another contender's: the median of the ratios within each round.

        Within a round both were measured seconds apart, so what else the machine does weighs on both.

        :param to: the other contender; the reference unless it is named.
        """
        pairs = zip(self.rounds.get(contender, []), self.rounds.get(to or self.reference, []), strict=False)
        ratios = [own[figure] / other[figure] for own, other in pairs if figure in own and figure in other]
        return median(ratios) if ratios else None
