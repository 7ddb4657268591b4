"""How long a user waits for TunnelConsole: for a command, and for the console's first frame."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from bench.ours import COMMAND_TIME, tunnelconsole_command
from bench.processes import BenchError

ROWS, COLUMNS = 40, 120
"""The terminal's size: what a window has on an ordinary screen."""

FRAME_CHARACTERS = 80
"""Visible characters, blanks not counted, that make a first frame: every screen has more, and nothing comes before."""

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


def first_paint_seconds(config: Path) -> float:
    """How long the console takes from its start until its first frame is written to the terminal.

    :raises BenchError: no frame came within :data:`COMMAND_TIME`.
    """
    terminal, inner = pty.openpty()
    try:
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        start = time.monotonic()
        console = subprocess.Popen(
            [*tunnelconsole_command(), "-c", str(config)],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        try:
            _read_a_frame(terminal, start + COMMAND_TIME)
            return time.monotonic() - start
        finally:
            console.kill()
            console.wait()
    finally:
        os.close(terminal)
        os.close(inner)


def _read_a_frame(terminal: int, deadline: float) -> None:
    written = b""
    while len(NOT_VISIBLE.sub(b"", written)) < FRAME_CHARACTERS:
        if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise BenchError(f"the console painted nothing within {COMMAND_TIME:g} seconds")
        written += os.read(terminal, 65536)
