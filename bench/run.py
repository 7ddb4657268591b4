"""One run of the benchmark: every contender, in turns."""

from __future__ import annotations

import resource
import shutil
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import consoles, limits, openssh
from bench.console import first_paint_seconds, status_seconds
from bench.flow import Flow
from bench.measures import MEASUREMENTS, Effort, hold_idle, iperf3, take_wear
from bench.ours import tunnel_memory, tunnelconsole_command
from bench.processes import BenchError, free_port, running, wait_until
from bench.results import Failure, Results
from bench.route import Contender, Route

DESCRIPTORS_EACH = 2
"""Descriptors that a relay needs for a channel."""

TUNNEL = "tunnel, native"
"""The contender whose server's memory is measured with many tunnels, and which is asked for many requests."""

DESCRIPTORS_SPARE = 500
"""Descriptors that a relay needs besides."""


def tell(text: str) -> None:
    """Says how far the run is; the table alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


class Run:
    """One run.

    :param folder: takes configurations and logs, and goes with the run.
    :param contenders: who is measured; the first is what the others are compared with.
    """

    def __init__(self, flow: Flow, folder: Path, effort: Effort, contenders: list[Contender]) -> None:
        self._flow = flow
        self._folder = folder
        self._effort = effort
        self._contenders = contenders
        self.results = Results(effort, contenders[0].name)

    def run(self) -> None:
        """Measures everything; what fails is noted, and the rest goes on.

        :raises BenchError: the far end of all routes is gone, so that nothing measured means anything.
        """
        with self._flow.sink() as sink:
            self._take_rounds(sink)
            self._check_sink(sink)
            self._hold_channels(sink)
            self._check_sink(sink)
            self._hold_tunnels(sink)
            self._wear_tunnel(sink)
        if shutil.which("iperf3"):
            server = free_port()
            with running(["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(server)], self._folder):
                tell("one stream by iperf3, as a second opinion")
                self._ask_iperf3(server)

    def run_consoles(self) -> None:
        """Measures consoles over SSH, where there is OpenSSH's client; what fails is noted, and the rest goes on."""
        contender = Contender(consoles.NAME, lambda *_: Route(0), openssh.NEEDS, ours=True)
        if contender.missing():
            self.results.absent.append(contender.name)
            return

        def failed(what: str, error: BenchError) -> None:
            self._failed(contender, what, error)

        self.results.consoles = consoles.take_all(self._flow, self._folder, self._effort, failed, tell)

    def run_limits(self) -> None:
        """Measures how limits hold; what fails is noted, and the rest goes on."""
        contender = Contender(limits.NAME, lambda *_: Route(0), (), ours=True)

        def failed(what: str, error: BenchError) -> None:
            self._failed(contender, what, error)

        self.results.limits = limits.take_all(self._folder, self._effort, failed, tell)

    def _check_sink(self, sink: int) -> None:
        try:
            self._flow.ping(Route(sink), 1)
        except BenchError as error:
            raise BenchError(f"the sink is gone ({error}); measure again") from error

    def _take_rounds(self, sink: int) -> None:
        with ExitStack() as stack:
            routes = [(each, route) for each in self._contenders if (route := self._open(stack, each, sink))]
            for number in range(1, self._effort.rounds + 1):
                tell(f"round {number} of {self._effort.rounds}")
                self._check_sink(sink)
                for contender, _ in routes:
                    self.results.rounds.setdefault(contender.name, []).append({})
                for measurement in MEASUREMENTS:
                    for contender, route in routes:
                        try:
                            taken = measurement(self._flow, route, self._effort)
                            self.results.rounds[contender.name][-1].update(taken)
                        except BenchError as error:
                            self._failed(contender, measurement.__name__.removeprefix("take_"), error)

    def _hold_channels(self, sink: int) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        possible = (soft - DESCRIPTORS_SPARE) // DESCRIPTORS_EACH
        for contender in self._contenders:
            count = min(self._effort.held, contender.most_held, possible)
            with ExitStack() as stack:
                route = self._open(stack, contender, sink)
                if route is None or not route.programs or route.speaks != "tcp":
                    continue
                tell(f"{contender.name}: {count} idle channels for {self._effort.hold_seconds:g} s")
                try:
                    self.results.idle[contender.name] = hold_idle(
                        self._flow, route, self._effort, count, partial(self._take_waits, route)
                    )
                except BenchError as error:
                    self._failed(contender, "idle channels", error)

    def _hold_tunnels(self, sink: int) -> None:
        for contender in self._contenders:
            if contender.name != TUNNEL:
                continue
            tell(f"{self._effort.tunnels} tunnels at one server")
            try:
                self.results.tunnel_bytes = tunnel_memory(self._folder, sink, self._effort.tunnels)
            except BenchError as error:
                self._failed(contender, "tunnels", error)

    def _wear_tunnel(self, sink: int) -> None:
        for contender in self._contenders:
            if contender.name != TUNNEL:
                continue
            with ExitStack() as stack:
                route = self._open(stack, contender, sink)
                if route is None:
                    continue
                tell(f"{contender.name}: {self._effort.wear_requests:,} requests")
                try:
                    self.results.wear = take_wear(route, self._effort)
                except BenchError as error:
                    self._failed(contender, "many requests", error)

    def _take_waits(self, route: Route) -> None:
        if route.config is None or not route.handshake:  # once is enough: with the jump server
            return
        for _ in range(self._effort.repeats):
            self.results.status_seconds.append(status_seconds(route.config))
            self.results.first_paint_seconds.append(
                first_paint_seconds([*tunnelconsole_command(), "-c", str(route.config)])
            )

    def _ask_iperf3(self, server: int) -> None:
        for contender in self._contenders:
            with ExitStack() as stack:
                try:
                    route = contender.open(stack, self._folder, server)
                    if not route.handshake and route.speaks == "tcp":  # iperf3 speaks nothing of ours
                        self.results.iperf3[contender.name] = self._first_iperf3(route)
                except BenchError as error:
                    self._failed(contender, "iperf3", error)

    def _first_iperf3(self, route: Route) -> float:
        taken: list[float] = []

        def answers() -> bool:
            try:
                taken.append(iperf3(route.port, self._effort.bulk_seconds))
            except BenchError:
                return False
            return True

        wait_until(answers, "iperf3 did not get through")
        return taken[0]

    def _open(self, stack: ExitStack, contender: Contender, target: int) -> Route | None:
        try:
            route = contender.open(stack, self._folder, target)
            self._flow.wait_until_open(route)
        except BenchError as error:
            self._failed(contender, "", error)
            return None
        return route

    def _failed(self, contender: Contender, what: str, error: BenchError) -> None:
        failure = Failure(contender, what, str(error))
        tell(str(failure))
        self.results.failures.append(failure)
