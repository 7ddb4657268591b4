"""The metrics themselves: each family with its name, its help and its samples, read off the engine when it is scraped.

Names follow https://prometheus.io/docs/practices/naming/. Figures of the process have the names that every exporter
gives them.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from itertools import accumulate
from typing import Final, get_args

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.request_times import BOUNDS, RequestTimes
from tunnelconsole.engine.services.service import State
from tunnelconsole.engine.sessions import SLICE
from tunnelconsole.metrics.counts import Counts
from tunnelconsole.metrics.lag import LoopLag
from tunnelconsole.metrics.readiness import unready

PREFIX: Final = "tunnelconsole_"
"""What the name of every metric of ours begins with."""

STATES: Final[tuple[str, ...]] = get_args(State)
"""Every state of a service."""

SETTLED_AT_ONCE: Final = 256
"""Channels up to which a scrape first counts what moved in this very moment, for at most 0.1 ms. With more, totals are
those of the meters' last tick, one second old at most."""

SERVICES_AT_ONCE: Final = 32
"""Services whose states are taken in one go: each has seven samples."""

_BUCKETS: Final = (*map(str, BOUNDS), "+Inf")


class Families:
    """Reads a started engine.

    :param version: of this program.
    """

    def __init__(self, engine: Engine, version: str, counts: Counts, times: RequestTimes, lag: LoopLag) -> None:
        self._engine = engine
        self._version = version
        self._counts = counts
        self._times = times
        self._lag = lag
        self._process = psutil.Process()
        self._highest: dict[Hashable, float] = {}

    def read(self) -> Iterator[Metric | None]:
        """Every family, one after another; None between two steps of one that is long.

        The tunnels may go on after each. Nothing is said twice or left out if they do.
        """
        if len(self._engine.node.sessions.channels) <= SETTLED_AT_ONCE:
            self._engine.node.sessions.settle()
        yield from self._of_the_engine()
        yield from self._of_the_services()
        yield from self._of_the_events()
        yield from self._of_the_identities()
        yield from self._of_the_requests()
        yield from self._of_the_process()

    def _risen(self, key: Hashable, value: float) -> float:
        """The value, unless it has been higher: a counter that went back would look like one that began anew.

        Bytes do so when some turn out to be lost after all.
        """
        highest = self._highest[key] = max(value, self._highest.get(key, 0.0))
        return highest

    def _of_the_engine(self) -> Iterator[Metric]:
        engine = self._engine
        info = GaugeMetricFamily(f"{PREFIX}info", "1, with the version of the engine.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        yield GaugeMetricFamily(
            f"{PREFIX}ready", "1 when every service that shall run has come up, as /readyz says.", not unready(engine)
        )
        yield GaugeMetricFamily(
            f"{PREFIX}draining", "1 while the engine stops and lets channels finish.", engine.draining
        )
        yield GaugeMetricFamily(
            f"{PREFIX}loop_lag_seconds", "By how much the event loop was late when last looked at.", self._lag.last
        )
        yield GaugeMetricFamily(
            f"{PREFIX}loop_lag_max_seconds", "The highest lag of the event loop in the last minute.", self._lag.worst
        )

    def _of_the_services(self) -> Iterator[Metric | None]:
        supervised = list(self._engine.supervised.values())
        state = GaugeMetricFamily(
            f"{PREFIX}service_state", "1 for the state that a service is in.", labels=["service", "kind", "state"]
        )
        for number, each in enumerate(supervised):
            service = each.service
            if number % SERVICES_AT_ONCE == SERVICES_AT_ONCE - 1:
                yield None
            for name in STATES:
                state.add_metric([service.name, service.kind, name], service.state == name)
        yield state
        by_service = {each.service.name: each for each in supervised}
        yield _counter(
            "service_restarts_total",
            "Times a service was started again after a failure.",
            ((name, each.restarts) for name, each in by_service.items()),
        )
        yield _gauge(
            "service_exposed",
            "1 for a service that listens beyond loopback.",
            ((name, each.service.exposed) for name, each in by_service.items()),
        )
        running = self._engine.running  # with those that are replaced and still carry something
        for name, text, figures in (
            ("sessions", "Sessions open now.", ((each.name, len(each.attached)) for each in running)),
            ("channels", "Channels open now.", ((each.name, each.channels) for each in running)),
            (
                "handshakes_open",
                "Connections inside their handshake now.",
                ((each.name, each.gate.handshakes) for each in running),
            ),
        ):
            sums: Counter[str] = Counter(dict.fromkeys(by_service, 0))
            for service_name, figure in figures:
                sums[service_name] += figure
            yield _gauge(name, text, sums.items())
        moved = CounterMetricFamily(
            f"{PREFIX}bytes_total",
            "Bytes moved since a service was first configured; in is what came from remote parties.",
            labels=["service", "direction"],
        )
        for name in by_service:
            meter = self._engine.node.meters.service(name)
            moved.add_metric([name, "in"], self._risen(("service", name, "in"), meter.bytes_in))
            moved.add_metric([name, "out"], self._risen(("service", name, "out"), meter.bytes_out))
        yield moved

    def _of_the_events(self) -> Iterator[Metric]:
        counts, services = self._counts, list(self._engine.supervised)
        yield _counter("handshakes_total", "Remote parties let in.", _all(services, counts.handshakes))
        yield _counter("channels_opened_total", "Channels opened.", _all(services, counts.channels))
        yield _counter("dropped_bytes_total", "Bytes that did not arrive.", _all(services, counts.dropped))
        yield _counter(
            "refusals_total",
            "Remote parties turned away, by reason.",
            ((*key, count) for key, count in counts.refusals.items()),
            ["service", "reason"],
        )
        yield _counter(
            "target_failures_total",
            "Targets that could not be reached, by reason.",
            ((*key, count) for key, count in counts.failures.items()),
            ["service", "reason"],
        )
        yield _counter(
            "punch_results_total",
            "Hole punches that are over, by what they came to and how.",
            ((*key, count) for key, count in counts.punches.items()),
            ["service", "result", "method"],
        )
        yield _counter(
            "events_total",
            "Events of the engine, those of a flood among them.",
            ((*key, count) for key, count in counts.events.items()),
            ["type", "level"],
        )

    def _of_the_identities(self) -> Iterator[Metric | None]:
        """Sums of the sessions, taken a slice at a time; those that end meanwhile count as they stood at the end."""
        counts = self._counts
        totals = {pair: list(moved) for pair, moved in counts.closed.items()}
        open_now: Counter[tuple[str, str]] = Counter(dict.fromkeys(totals, 0))
        for number, session in enumerate(list(self._engine.node.sessions.sessions.values())):
            pair = counts.label(session.service, session.identity)
            open_now[pair] += 1
            total = totals.setdefault(pair, [0, 0])
            total[0] += session.bytes_in
            total[1] += session.bytes_out
            if number % SLICE == SLICE - 1:
                yield None
        yield _gauge(
            "identity_sessions",
            "Sessions open now, by identity.",
            ((*pair, count) for pair, count in open_now.items()),
            ["service", "identity"],
        )
        moved = CounterMetricFamily(
            f"{PREFIX}identity_bytes_total",
            "Bytes moved in sessions of an identity since the engine started.",
            labels=["service", "identity", "direction"],
        )
        for pair, (bytes_in, bytes_out) in totals.items():
            moved.add_metric([*pair, "in"], self._risen((pair, "in"), bytes_in))
            moved.add_metric([*pair, "out"], self._risen((pair, "out"), bytes_out))
        yield moved

    def _of_the_requests(self) -> Iterator[Metric]:
        services = self._times.services
        yield _counter(
            "http_requests_total",
            "Requests through HTTP tunnels, by class of status; none: the visitor left before there was an answer.",
            ((name, code, count) for name, times in services.items() for code, count in times.answers.items()),
            ["service", "code"],
        )
        durations = HistogramMetricFamily(
            f"{PREFIX}http_request_duration_seconds",
            "From the head of a request through an HTTP tunnel to the end of its answer.",
            labels=["service"],
        )
        for name, times in services.items():
            durations.add_metric([name], list(zip(_BUCKETS, accumulate(times.buckets), strict=True)), times.seconds)
        yield durations

    def _of_the_process(self) -> Iterator[Metric]:
        process = self._process
        yield CounterMetricFamily(
            "process_cpu_seconds_total", "Processor time of the engine's process.", time.process_time()
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory of the engine's process.", process.memory_info().rss
        )
        yield GaugeMetricFamily(
            "process_open_fds", "Descriptors open in the engine's process.", _open_descriptors(process)
        )
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield GaugeMetricFamily(
            "process_max_fds",
            "Descriptors that it may have.",
            float("inf") if limit == resource.RLIM_INFINITY else limit,
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds", "When the engine's process started, in Unix time.", process.create_time()
        )


def _open_descriptors(process: psutil.Process) -> int:
    """How many there are; where the kernel counts them, they are not listed, which takes milliseconds for 10,000."""
    try:
        counted = os.stat("/proc/self/fd").st_size  # noqa: PTH116 - Linux since 6.2: proc_pid_fd(5)
    except OSError:
        counted = 0
    return counted or process.num_fds()


def _all(services: Iterable[str], counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """What was counted, and 0 of each service of which there is nothing: a series that is there can be seen to rise."""
    yield from {**dict.fromkeys(services, 0), **counts}.items()


def _counter(
    name: str, text: str, samples: Iterable[tuple[str | float, ...]], labels: tuple[str, ...] | list[str] = ("service",)
) -> Metric:
    """A family of counters; each sample has its labels' values and its own behind them."""
    return _filled(CounterMetricFamily(f"{PREFIX}{name}", text, labels=labels), samples)


def _gauge(
    name: str, text: str, samples: Iterable[tuple[str | float, ...]], labels: tuple[str, ...] | list[str] = ("service",)
) -> Metric:
    """The same of gauges."""
    return _filled(GaugeMetricFamily(f"{PREFIX}{name}", text, labels=labels), samples)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, samples: Iterable[tuple[str | float, ...]]
) -> CounterMetricFamily | GaugeMetricFamily:
    for *values, value in samples:
        family.add_metric([str(each) for each in values], float(value))
    return family
