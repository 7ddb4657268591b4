"""What is measured on a route, how long, and what it gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from bench.flow import Flow, Way
from bench.processes import BenchError, cpu_seconds, memory
from bench.route import Route

WRK_CONNECTIONS = 16
"""Connections that wrk keeps busy: as many as a small web service sees at once."""

LARGE_ANSWER = 1_000_000
"""Bytes of the sink's answer to ``GET /large``."""

WRK_THREADS = 2
"""Threads of wrk: it must not be what is slow."""

CONNECTION_THREADS = 4
"""Threads that open connections at the same time."""

MOST_HELD = 5000
"""Idle channels held."""

SETTLE_SECONDS = 2.0
"""Between opening idle channels and taking their cost: what was borrowed for the opening is given back by then."""

SLACK = 30.0
"""Seconds that a program may take beyond the duration it was given."""


@dataclass(frozen=True)
class Effort:
    """How long each measurement takes; every figure is the median of ``rounds``."""

    rounds: int
    bulk_seconds: float
    pings: int
    connections: int
    wrk_seconds: int
    held: int
    hold_seconds: float
    tunnels: int
    """Tunnels that one server holds while its memory is taken."""
    repeats: int
    """How often a command is timed."""
    wear_requests: int
    """Requests that a tunnel answers until it is asked whether it has become slower."""
    wear_seconds: int
    """For which its rate is taken before and after."""
    sessions: int
    """SSH sessions with a console that are opened and closed."""


FULL = Effort(
    rounds=5,
    bulk_seconds=2,
    pings=5000,
    connections=4000,
    wrk_seconds=2,
    held=MOST_HELD,
    hold_seconds=60,
    tunnels=2000,
    repeats=5,
    wear_requests=1_000_000,
    wear_seconds=10,
    sessions=200,
)
QUICK = Effort(
    rounds=2,
    bulk_seconds=0.5,
    pings=1000,
    connections=1000,
    wrk_seconds=1,
    held=1000,
    hold_seconds=3,
    tunnels=200,
    repeats=2,
    wear_requests=20_000,
    wear_seconds=1,
    sessions=20,
)


@dataclass(frozen=True)
class Figure:
    """One column of the table."""

    name: str
    unit: str
    digits: int
    """Digits after the decimal point."""


BULK_UP = Figure("bulk to the target", "Gbit/s", 1)
BULK_DOWN = Figure("bulk from the target", "Gbit/s", 1)
PING_P50 = Figure("64-byte round trip, p50", "µs", 0)
PING_P99 = Figure("64-byte round trip, p99", "µs", 0)
CONNECTIONS = Figure("new connections", "/s", 0)
REQUESTS = Figure(f"HTTP requests over {WRK_CONNECTIONS} connections", "/s", 0)
REQUEST_P99 = Figure("HTTP request, p99", "ms", 1)
LARGE = Figure("HTTP answers of 1 MB", "Gbit/s", 1)
TCP_FIGURES = (BULK_UP, BULK_DOWN, PING_P50, PING_P99, CONNECTIONS)
HTTP_FIGURES = (REQUESTS, REQUEST_P99, LARGE)
FIGURES = (*TCP_FIGURES, *HTTP_FIGURES)

Taken = dict[Figure, float]


def take_bulk(flow: Flow, route: Route, effort: Effort) -> Taken:
    """One stream, each way in turn. A lost byte is an error, not a slow result."""
    if route.speaks == "http":
        return {}
    if route.speaks == "channel":
        fanned = flow.fan(route, effort.bulk_seconds)
        if fanned.lost:
            raise BenchError(f"{fanned.lost} bytes were lost")
        return {BULK_UP: fanned.gbit_per_second}
    taken: Taken = {}
    ways: tuple[tuple[Figure, Way], ...] = ((BULK_UP, "up"), (BULK_DOWN, "down"))
    for figure, way in ways:
        result = flow.bulk(route, way, effort.bulk_seconds)
        if result.lost:
            raise BenchError(f"{result.lost} bytes were lost")
        taken[figure] = result.gbit_per_second
    return taken


def take_pings(flow: Flow, route: Route, effort: Effort) -> Taken:
    """Round trips on one connection."""
    if route.speaks != "tcp":
        return {}
    result = flow.ping(route, effort.pings)
    return {PING_P50: result.p50_us, PING_P99: result.p99_us}


def take_connections(flow: Flow, route: Route, effort: Effort) -> Taken:
    """New connections, each with an echoed byte, from a few threads. One that fails is an error."""
    if route.speaks != "tcp":
        return {}
    result = flow.connections(route, effort.connections, CONNECTION_THREADS)
    if result.failed:
        raise BenchError(f"{result.failed} of {effort.connections} connections failed")
    return {CONNECTIONS: result.per_second}


def take_requests(_flow: Flow, route: Route, effort: Effort) -> Taken:
    """HTTP requests by wrk, for small answers and for large ones.

    Nothing where wrk is missing, or where it would need a handshake that it cannot speak.
    """
    wrk = shutil.which("wrk")
    if wrk is None or route.handshake or route.speaks == "channel":
        return {}
    small, large = (_wrk(wrk, route, path, effort.wrk_seconds) for path in ("/", "/large"))
    return {
        REQUESTS: requests_per_second(small),
        REQUEST_P99: p99_milliseconds(small),
        LARGE: requests_per_second(large) * LARGE_ANSWER * 8 / 1e9,
    }


@dataclass(frozen=True)
class Wear:
    """What many requests did to a route."""

    requests: int
    first: float
    """Requests a second of the first ones."""
    last: float
    """And of the last ones."""
    grown: int
    """Bytes that the memory of all its programs together has grown by, from after the first ones on."""


def take_wear(route: Route, effort: Effort) -> Wear | None:
    """Asks a route for small answers, so many times that what is kept of each would show; None where wrk is missing.

    :raises BenchError: a request failed.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        return None
    rates, seconds = [requests_per_second(_wrk(wrk, route, "/", effort.wear_seconds))], effort.wear_seconds
    before = memory(route.programs)
    while sum(rates) * seconds < effort.wear_requests:
        rates.append(requests_per_second(_wrk(wrk, route, "/", seconds)))
    rates.append(requests_per_second(_wrk(wrk, route, "/", seconds)))
    return Wear(round(sum(rates) * seconds), rates[0], rates[-1], memory(route.programs) - before)


def _wrk(wrk: str, route: Route, path: str, seconds: int) -> str:
    options = [f"-t{WRK_THREADS}", f"-c{WRK_CONNECTIONS}", f"-d{seconds}s", "--latency"]
    command = [wrk, *options, "-H", f"Host: {route.host}", f"http://127.0.0.1:{route.port}{path}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + SLACK)
    return answer.stdout


def requests_per_second(report: str) -> float:
    """The rate in what wrk prints.

    :raises BenchError: there is none, or some requests failed.
    """
    if failed := re.search(r"Socket errors:.*|Non-2xx.*", report):
        raise BenchError(f"wrk: {failed[0]}")
    if found := re.search(r"Requests/sec:\s*([\d.]+)", report):
        return float(found[1])
    raise BenchError("wrk gave no rate")


def p99_milliseconds(report: str) -> float:
    """The time within which 99 of 100 requests were answered, in what ``wrk --latency`` prints.

    :raises BenchError: there is none.
    """
    if found := re.search(r"^\s*99%\s+([\d.]+)(us|ms|s)$", report, re.MULTILINE):
        return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]
    raise BenchError("wrk gave no latencies")


MEASUREMENTS: tuple[Callable[[Flow, Route, Effort], Taken], ...] = (
    take_bulk,
    take_pings,
    take_connections,
    take_requests,
)
"""What is done to each route in every round."""


@dataclass(frozen=True)
class Idle:
    """What idle channels cost."""

    held: int
    seconds: float
    bytes_each: float
    """Resident memory that came with each channel, in all programs of the route together."""
    cpu_percent: float
    """Of one processor, while nothing moved."""
    lost: int
    """Channels that did not echo a byte afterwards."""


def hold_idle(
    flow: Flow, route: Route, effort: Effort, count: int, meanwhile: Callable[[], None] | None = None
) -> Idle:
    """Holds ``count`` channels on a route that nothing has used before, so that its memory is theirs.

    :param meanwhile: called while they are held, after their cost was taken.
    """
    before = memory(route.programs)
    with flow.holding(route, count) as (opened, holder):
        if opened.failed:
            raise BenchError(f"{opened.failed} of {count} connections could not be opened")
        holder.stay_silent(SETTLE_SECONDS)
        grown = memory(route.programs) - before
        used = cpu_seconds(route.programs)
        holder.stay_silent(effort.hold_seconds)
        used = cpu_seconds(route.programs) - used
        if meanwhile is not None:
            meanwhile()
        ended = flow.release(holder)
    return Idle(count, effort.hold_seconds, grown / count, 100 * used / effort.hold_seconds, ended.lost)


def iperf3(port: int, seconds: float) -> float:
    """What iperf3 measures on one stream to the server that ``port`` leads to, in Gbit/s.

    :raises BenchError: iperf3 reports an error.
    """
    command = ["iperf3", "--client", "127.0.0.1", "--port", str(port), "--time", f"{max(1, round(seconds))}", "--json"]
    answer = subprocess.run(command, capture_output=True, check=False, timeout=seconds + SLACK)
    report = json.loads(answer.stdout)
    if "error" in report:
        raise BenchError(f"iperf3: {report['error']}")
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9
