"""How long a user waits for TunnelConsole, for a command and for the console's first frame; and consoles shown."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.ours import COMMAND_TIME, tunnelconsole_command
from bench.processes import STOP_TIME, BenchError

ROWS, COLUMNS = 40, 120
"""The terminal's size: what a window has on an ordinary screen."""

FRAME_CHARACTERS = 80
"""Visible characters, blanks not counted, that make a first frame: every screen has more, and nothing comes before."""

DRAIN_PAUSE = 0.2
"""Seconds after which who reads the terminals looks whether it is still wanted."""

NOT_VISIBLE = re.compile(
    rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[PX^_].*?\x1b\\|[ -/]*[0-~])|[\x00-\x20\x7f]", re.DOTALL
)
"""Escape sequences as ECMA-48 has them, control characters and blanks."""


def status_seconds(config: Path) -> float:
    """How long ``tunnelconsole status`` takes, from its start to its end.

    :raises BenchError: it fails.
    """
    start = time.monotonic()
    command = [*tunnelconsole_command(), "status", "-c", str(config)]
    answer = subprocess.run(command, capture_output=True, check=False, timeout=COMMAND_TIME)
    if answer.returncode != 0:
        raise BenchError(f"`tunnelconsole status` failed: {answer.stderr.decode(errors='replace').strip()}")
    return time.monotonic() - start


class Shown:
    """A program that shows a console on a terminal of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self._terminal, inner = pty.openpty()
        try:
            fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            self._started = time.monotonic()
            self._process = subprocess.Popen(
                command,
                stdin=inner,
                stdout=inner,
                stderr=inner,
                env={**os.environ, "TERM": "xterm-256color"},
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._terminal)
            raise BenchError(f"{command[0]} cannot be started: {error}") from error
        finally:
            os.close(inner)

    def fileno(self) -> int:
        """The terminal, to wait for what is written there."""
        return self._terminal

    def first_frame(self) -> float:
        """Waits for the first frame, and gives the seconds from the start.

        :raises BenchError: none came within :data:`COMMAND_TIME`.
        """
        written, deadline = b"", self._started + COMMAND_TIME
        while len(NOT_VISIBLE.sub(b"", written)) < FRAME_CHARACTERS:
            if not select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BenchError(f"the console painted nothing within {COMMAND_TIME:g} seconds")
            data = self.read()
            if not data:
                words = written.decode(errors="replace").strip()
                raise BenchError(f"the console ended before it had painted anything: {words}")
            written += data
        return time.monotonic() - self._started

    def read(self) -> bytes:
        """What has been written; empty at the end."""
        try:
            return os.read(self._terminal, 65536)
        except OSError:  # EIO: nobody has the terminal any more (pty(7))
            return b""

    def leave(self) -> None:
        """Presses the key that leaves the console, and waits until it has gone.

        :raises BenchError: it stays.
        """
        os.write(self._terminal, b"q")
        deadline = time.monotonic() + STOP_TIME
        while self.read():  # what it says at last; it waits for whoever reads
            if time.monotonic() > deadline:
                raise BenchError(f"the console did not leave within {STOP_TIME:g} seconds")
        self._process.wait(STOP_TIME)

    def close(self) -> None:
        """Ends the program, as when its window is closed; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1


@contextmanager
def shown(command: Sequence[str]) -> Iterator[Shown]:
    """Shows a console while the block runs."""
    console = Shown(command)
    try:
        yield console
    finally:
        console.close()


def first_paint_seconds(command: Sequence[str]) -> float:
    """How long a console takes from its start until its first frame is written to the terminal.

    :raises BenchError: see :meth:`Shown.first_frame`.
    """
    with shown(command) as console:
        return console.first_frame()


@contextmanager
def being_read(consoles: Sequence[Shown]) -> Iterator[None]:
    """Reads what consoles write while the block runs, as terminals do."""
    over = threading.Event()

    def read() -> None:
        there = list(consoles)
        while there and not over.is_set():
            for console in select.select(there, [], [], DRAIN_PAUSE)[0]:
                if not console.read():
                    there.remove(console)

    reader = threading.Thread(target=read, name="terminals", daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        with suppress(RuntimeError):
            reader.join()
