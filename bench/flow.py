"""The load generator: ``flow.c``, compiled once, and its answers as values."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from bench.processes import BenchError, Program, running, wait_until
from bench.route import Route

SOURCE = Path(__file__).with_name("flow.c")

COMPILE_TIME = 60.0
"""Seconds the compiler may take."""

SLACK = 60.0
"""Seconds a measurement may take beyond its own duration: flow itself gives up on a stuck read after 30."""


FIRST_FAN = 0.01
"""Seconds of the first look at whether bytes go from one client of a channel server to others."""


class Bulk(msgspec.Struct, frozen=True):
    """One stream, one way."""

    bytes: int
    seconds: float
    gbit_per_second: float
    lost: int
    """Bytes that were sent and did not arrive; anything but 0 is a fault of the relay."""


class Ping(msgspec.Struct, frozen=True):
    """Round trips of 64 bytes, in microseconds."""

    count: int
    p50_us: float
    p99_us: float


class Connections(msgspec.Struct, frozen=True):
    """New connections, each with one echoed byte."""

    opened: int
    failed: int
    seconds: float
    per_second: float


class Opened(msgspec.Struct, frozen=True):
    """Idle connections that are open."""

    held: int
    failed: int


class Held(msgspec.Struct, frozen=True):
    """Idle connections after the wait: each was asked for one more echo."""

    held: int
    lost: int


class Sink(msgspec.Struct, frozen=True):
    """Where the sink listens."""

    port: int


Way = Literal["up", "down"]
"""To the sink, or from it."""

T = TypeVar("T", bound=msgspec.Struct)


def build(folder: Path) -> Path:
    """Compiles ``flow.c`` into ``folder``, unless what is there is newer.

    :raises BenchError: there is no C compiler, or it refuses.
    """
    program = folder / "flow"
    if program.exists() and program.stat().st_mtime > SOURCE.stat().st_mtime:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O2", "-pthread", "-o", str(program), str(SOURCE)]
    try:
        answer = subprocess.run(command, capture_output=True, check=False, timeout=COMPILE_TIME)
    except FileNotFoundError as error:
        raise BenchError("flow.c needs a C compiler; on Debian: apt-get install gcc libc6-dev") from error
    if answer.returncode != 0:
        raise BenchError(f"flow.c does not compile:\n{answer.stderr.decode(errors='replace')}")
    return program


class Flow:
    """Runs the load generator.

    :param program: as :func:`build` gave it.
    :param folder: takes logs.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = str(program)
        self._folder = folder

    def bulk(self, route: Route, way: Way, seconds: float) -> Bulk:
        """Sends for ``seconds`` on one connection, to the sink or from it."""
        return self._measure(Bulk, route, "bulk", way, f"{seconds:g}", within=seconds + SLACK)

    def ping(self, route: Route, count: int) -> Ping:
        """Makes ``count`` round trips on one connection."""
        return self._measure(Ping, route, "ping", f"{count}")

    def connections(self, route: Route, count: int, threads: int) -> Connections:
        """Opens ``count`` connections from ``threads`` threads."""
        return self._measure(Connections, route, "conn", f"{count}", f"{threads}")

    def fan(self, route: Route, seconds: float) -> Bulk:
        """Sends for ``seconds`` to all receivers of a channel; what arrived at all of them together is counted."""
        return self._measure(Bulk, route, "fan", f"{route.receivers}", f"{seconds:g}", within=seconds + SLACK)

    @contextmanager
    def holding(self, route: Route, count: int) -> Iterator[tuple[Opened, Program]]:
        """Holds ``count`` idle connections while the block runs; :meth:`release` ends them with a last look."""
        command = [self._program, "hold", str(route.port), str(count)]
        with running(command, self._folder, route.handshake, read_output=True) as program:
            yield _decode(program.read_line(SLACK), Opened), program

    def release(self, holder: Program) -> Held:
        """Asks each held connection for one more echo, then closes them all."""
        holder.say("done")
        return _decode(holder.read_line(SLACK), Held)

    @contextmanager
    def sink(self) -> Iterator[int]:
        """Runs the far end of every relay, and gives its port."""
        with running([self._program, "sink", "0"], self._folder, read_output=True) as program:
            yield _decode(program.read_line(SLACK), Sink).port

    def wait_until_open(self, route: Route) -> None:
        """Waits until bytes go through a route and come back.

        :raises BenchError: they do not within the time that programs have to start.
        """

        def answers() -> bool:
            try:
                self._ask_once(route)
            except (BenchError, OSError, HTTPException):
                return False
            return True

        wait_until(answers, "no bytes came through")

    def _ask_once(self, route: Route) -> None:
        if route.speaks == "tcp":
            self.ping(route, 1)
        elif route.speaks == "channel":
            self.fan(route, FIRST_FAN)
        else:
            _get(route)

    def _measure(self, kind: type[T], route: Route, what: str, *arguments: str, within: float = SLACK) -> T:
        command = [self._program, what, str(route.port), *arguments]
        environment = {**os.environ, **route.handshake}
        try:
            answer = subprocess.run(command, capture_output=True, check=False, timeout=within, env=environment)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{what} did not end within {within:g} seconds") from error
        if not answer.stdout:
            raise BenchError(f"{what} ended with {answer.returncode}: {answer.stderr.decode(errors='replace').strip()}")
        return _decode(answer.stdout.decode(), kind)


def _get(route: Route) -> None:
    connection = HTTPConnection("127.0.0.1", route.port, timeout=SLACK)
    with closing(connection):
        connection.request("GET", "/", headers={"Host": route.host})
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise BenchError(f"a request to {route.host} was answered with {answer.status}")


def _decode(line: str, kind: type[T]) -> T:
    try:
        answer = msgspec.json.decode(line, type=dict[str, Any])
        if "error" in answer:
            raise BenchError(str(answer["error"]))
        return msgspec.convert(answer, kind)
    except msgspec.MsgspecError as error:
        raise BenchError(f"flow gave no answer: {line!r}") from error
