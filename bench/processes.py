"""Starting programs so that none outlives the benchmark, and what they cost while they run."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import psutil

START_TIME = 20.0
"""Seconds a program may take until it serves; the slowest is an interpreter on a busy machine."""

STOP_TIME = 10.0
"""Seconds a program has to end after SIGTERM, before it is killed."""

PAUSE = 0.05
"""Seconds between two looks at something that has no descriptor to wait on."""


class BenchError(Exception):
    """Something could not be measured; the message says what and why."""


def wait_until(condition: Callable[[], bool], what: str, within: float = START_TIME) -> None:
    """Looks again and again until ``condition`` holds.

    :raises BenchError: it did not within ``within`` seconds.
    """
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} within {within:g} seconds")
        time.sleep(PAUSE)  # noqa: TID251 a poll, of something that cannot be waited on


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody listens on this TCP port of loopback now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """A running program, whose end is the end of all that it started.

    :param log: the file that takes what the program says and nobody reads.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self._unread = b""

    def read_line(self, within: float) -> str:
        """The next line of standard output, without its end.

        :raises BenchError: none came within ``within`` seconds, or the program ended.
        """
        output = self._output
        deadline = time.monotonic() + within
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise BenchError(f"{self.name} said nothing within {within:g} seconds{self._last_words()}")
                data = os.read(output.fileno(), 65536)
                if not data:
                    raise BenchError(f"{self.name} ended early{self._last_words()}")
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def stay_silent(self, seconds: float) -> None:
        """Lets ``seconds`` pass in which the program runs on and says nothing.

        :raises BenchError: it said something, or ended.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if selector.select(seconds):
                raise BenchError(f"{self.name} spoke or ended while it should have waited{self._last_words()}")

    def say(self, line: str) -> None:
        """Writes a line to standard input."""
        if self.process.stdin is None:
            raise BenchError(f"the input of {self.name} is not open")
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    @property
    def name(self) -> str:
        """The program's file name."""
        arguments = self.process.args
        return Path(str(arguments[0] if isinstance(arguments, Sequence) else arguments)).name

    @property
    def _output(self) -> IO[bytes]:
        if self.process.stdout is None:
            raise BenchError(f"the output of {self.name} goes to its log")
        return self.process.stdout

    def _last_words(self) -> str:
        words = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        return "".join(f"\n    {line}" for line in words)

    def stop(self) -> None:
        """Ends the program and all that it started: asked first, then killed."""
        family = [] if self.process.poll() is not None else _family([self])
        for process in family:
            with suppress(psutil.NoSuchProcess):  # it went by itself, or with its parent
                process.terminate()
        _, alive = psutil.wait_procs(family, timeout=STOP_TIME)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def running(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    read_output: bool = False,
) -> Iterator[Program]:
    """Starts a program and ends it when the block is left, however it is left.

    :param folder: takes the program's log; it is also where the program runs.
    :param environment: variables on top of our own.
    :param read_output: whether standard output can be read line by line; else it goes to the log.
    :raises BenchError: the program cannot be started.
    """
    log = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
    with log.open("wb") as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if read_output else errors,
                stderr=errors,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                process_group=0,  # Ctrl-C reaches the benchmark alone, which then ends its programs in order
            )
        except OSError as error:
            raise BenchError(f"{command[0]} cannot be started: {error}") from error
    program = Program(process, log)
    try:
        yield program
    finally:
        program.stop()


def end_on_signals() -> None:
    """Lets Ctrl-C and SIGTERM end the benchmark through every ``finally``; a second one does not cut that short."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # what was started must end first, which takes seconds at the most
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


def memory(programs: Sequence[Program]) -> int:
    """Bytes of resident memory of the programs and all that they started."""
    return sum(process.memory_info().rss for process in _family(programs))


def cpu_seconds(programs: Sequence[Program]) -> float:
    """Processor seconds, user and system, that the programs and what they started have used."""
    times = [process.cpu_times() for process in _family(programs)]
    return sum(each.user + each.system for each in times)


def _family(programs: Sequence[Program]) -> list[psutil.Process]:
    parents = [psutil.Process(program.process.pid) for program in programs]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]
