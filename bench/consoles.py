"""What consoles over SSH cost: how soon one is there, what twenty take, what five do to a tunnel, what 200 leave.

Each is shown by OpenSSH's client on a terminal of its own, and is read as a terminal reads it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from bench.console import Shown, being_read, first_paint_seconds, shown
from bench.flow import Flow
from bench.measures import Effort
from bench.openssh import Keys
from bench.ours import (
    COMMAND_TIME,
    JUMP_SERVER,
    SSH_SERVER,
    SSH_SERVICE,
    service_port,
    start_daemon,
    tunnelconsole_command,
)
from bench.processes import BenchError, wait_until
from bench.route import Route
from tunnelconsole import demo

NAME = "consoles over SSH"
"""How ``--only`` calls this part."""

AT_ONCE = 20
"""Consoles whose memory and processor time are taken: as many as an ssh-server has at once by default."""

UPDATES = 4
"""Updates a second of each: as many as the engine gives. A console asks for two unless it is told otherwise."""

BESIDE = 5
"""Consoles that are attached while a tunnel's round trips are timed."""

PINGS_FOR_ONE = 10
"""Times as many round trips as elsewhere: together they have to last for many updates of a console."""

FIRST = 20
"""Sessions before those that are counted, so that what is loaded and made once is there already."""

DEMO_SECONDS = 15.0
"""Until the demonstration's visitors have all come once."""

QUIET_SECONDS = 2.0
"""After the first frame of the last console: what its start costs is over by then."""

GONE_SECONDS = 10.0
"""Within which the engine must have forgotten sessions that have ended."""


@dataclass(frozen=True)
class Crowd:
    """What consoles that are shown at the same time cost, each."""

    count: int
    seconds: float
    resident: float
    """Bytes of resident memory (RSS), what it shares with the others counted in full."""
    proportional: float
    """Bytes of memory where what several share is shared out among them (PSS)."""
    cpu_percent: float
    """Of one processor: the median console's."""
    engine_percent: float
    """Of one processor: what the engine needs more for each of them than without any."""


@dataclass(frozen=True)
class Churn:
    """What sessions leave that were opened and closed."""

    opened: int
    processes: int
    """Processes that the engine had started and that are still there."""
    descriptors: int
    """Descriptors more than before."""
    sessions: int
    """Sessions in the engine's register."""
    grown: int
    """Bytes that the engine's resident memory has grown by."""


@dataclass
class Consoles:
    """All that was measured of consoles over SSH."""

    first_paint_seconds: list[float] = field(default_factory=list)
    crowd: Crowd | None = None
    alone_us: list[float] = field(default_factory=list)
    """The 99th percentile of a round trip in each round, with no console attached."""
    beside_us: list[float] = field(default_factory=list)
    """The same with :data:`BESIDE` consoles."""
    churn: Churn | None = None

    @property
    def ratio(self) -> float | None:
        """How much longer a round trip takes beside consoles: the median of each round's own."""
        ratios = [beside / alone for beside, alone in zip(self.beside_us, self.alone_us, strict=True)]
        return median(ratios) if ratios else None


class SSHHost:
    """An engine with an ssh-server.

    :param config: its configuration.
    """

    def __init__(self, keys: Keys, config: Path) -> None:
        self.config = config
        self._command = keys.client(service_port(config, SSH_SERVICE), "-tt")
        self.process = psutil.Process(int(self.status()["pid"]))

    @property
    def command(self) -> list[str]:
        """The client's command line."""
        return self._command

    def status(self) -> dict[str, str]:
        """What ``tunnelconsole status`` says."""
        command = [*tunnelconsole_command(), "status", "--json", "-c", str(self.config)]
        answer = subprocess.run(command, capture_output=True, check=True, timeout=COMMAND_TIME)
        found: dict[str, str] = json.loads(answer.stdout)
        return found

    def consoles(self) -> list[psutil.Process]:
        """The processes of the consoles: the engine starts no others."""
        return self.process.children()

    @contextmanager
    def showing(self, count: int) -> Iterator[list[psutil.Process]]:
        """Shows so many consoles while the block runs, which begins once they are at rest; gives their processes."""
        with ExitStack() as stack:
            there: list[Shown] = []
            for _ in range(count):
                console = stack.enter_context(shown(self.command))
                console.first_frame()
                there.append(console)
                stack.enter_context(being_read([console]))
            _pass(QUIET_SECONDS)
            found = self.consoles()
            if len(found) != count:
                raise BenchError(f"{len(found)} consoles run in place of {count}")
            yield found
        wait_until(lambda: not self.consoles(), "consoles outlived their sessions", GONE_SECONDS)


def take_first_paints(host: SSHHost, effort: Effort, into: Consoles) -> None:
    """From the start of ``ssh`` to the console's first frame."""
    for _ in range(effort.repeats):
        into.first_paint_seconds.append(first_paint_seconds(host.command))


def take_crowd(folder: Path, effort: Effort, into: Consoles) -> None:
    """Twenty consoles of the demonstration's engine, each on its overview, which changes all the time."""
    with _environment(TUNNELCONSOLE_INTERVAL=f"{1 / UPDATES:g}"), demo.running() as control:
        config = control.with_name("config.toml")
        keys = Keys.make(folder)
        with config.open("a") as file:
            file.write(SSH_SERVER.format(keys=keys.authorized, host=keys.host, more=""))
        reload = [*tunnelconsole_command(), "reload", "--socket", str(control)]
        if (answer := subprocess.run(reload, capture_output=True, check=False, timeout=COMMAND_TIME)).returncode:
            raise BenchError(f"the demonstration has no ssh-server: {answer.stderr.decode(errors='replace').strip()}")
        host = SSHHost(keys, config)
        _pass(DEMO_SECONDS)
        alone = _used([host.process])
        _pass(effort.hold_seconds)
        alone = _used([host.process]) - alone
        with host.showing(AT_ONCE) as found:
            before, engine, start = [_used([each]) for each in found], _used([host.process]), time.monotonic()
            _pass(effort.hold_seconds)
            seconds = time.monotonic() - start
            used = [_used([each]) - earlier for each, earlier in zip(found, before, strict=True)]
            memory = [each.memory_full_info() for each in found]
            into.crowd = Crowd(
                len(found),
                seconds,
                median(each.rss for each in memory),
                median(each.pss for each in memory),
                100 * median(used) / seconds,
                100 * (_used([host.process]) - engine - alone) / seconds / len(found),
            )


def take_neighbours(flow: Flow, host: SSHHost, route: Route, effort: Effort, into: Consoles) -> None:
    """Round trips through a tunnel of the same engine, with no console and with some, in turns."""
    for _ in range(effort.rounds):
        alone = flow.ping(route, PINGS_FOR_ONE * effort.pings).p99_us
        with host.showing(BESIDE):
            into.beside_us.append(flow.ping(route, PINGS_FOR_ONE * effort.pings).p99_us)
        into.alone_us.append(alone)


def take_churn(host: SSHHost, effort: Effort, into: Consoles) -> None:
    """Consoles that are opened and closed: every other one is left by its key, the others lose their window."""
    _open_and_close(host, FIRST)
    _forgotten(host)
    descriptors, resident = host.process.num_fds(), host.process.memory_info().rss
    _open_and_close(host, effort.sessions)
    _forgotten(host)
    into.churn = Churn(
        effort.sessions,
        len(host.process.children(recursive=True)),
        host.process.num_fds() - descriptors,
        int(host.status()["sessions"]),
        host.process.memory_info().rss - resident,
    )


def _open_and_close(host: SSHHost, count: int) -> None:
    for number in range(count):
        with shown(host.command) as console:
            console.first_frame()
            if number % 2:
                console.leave()


def _forgotten(host: SSHHost) -> None:
    """Waits until no session is there any more; what is there after that time is counted."""
    try:
        wait_until(lambda: not int(host.status()["sessions"]), "", GONE_SECONDS)
        wait_until(lambda: not host.process.children(), "", GONE_SECONDS)
    except BenchError:
        return


def take_all(
    flow: Flow, folder: Path, effort: Effort, failed: Callable[[str, BenchError], None], tell: Callable[[str], None]
) -> Consoles:
    """Everything; what fails is told, and the rest goes on."""
    consoles = Consoles()

    def step(what: str, take: Callable[[], None]) -> None:
        tell(f"consoles over SSH: {what}")
        try:
            take()
        except BenchError as error:
            failed(what, error)

    step(f"{AT_ONCE} at once for {effort.hold_seconds:g} s", lambda: take_crowd(folder, effort, consoles))
    with flow.sink() as sink, ExitStack() as stack:
        keys, secret = Keys.make(folder), secrets.token_hex(16)
        ssh = SSH_SERVER.format(keys=keys.authorized, host=keys.host, more="")
        try:
            _, config = start_daemon(stack, folder, "consoles", JUMP_SERVER.format(secret=secret) + ssh)
            host = SSHHost(keys, config)
            handshake = {"JUMP_TARGET": f"127.0.0.1:{sink}", "JUMP_SECRET": secret}
            route = Route(service_port(config, "jump"), handshake=handshake)
        except BenchError as error:
            failed("", error)
            return consoles
        step("the first frame", lambda: take_first_paints(host, effort, consoles))
        step(f"round trips beside {BESIDE}", lambda: take_neighbours(flow, host, route, effort, consoles))
        step(f"{effort.sessions} opened and closed", lambda: take_churn(host, effort, consoles))
    return consoles


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Sets variables of the environment for what is started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _used(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def _pass(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 what is measured is what happens in that time
