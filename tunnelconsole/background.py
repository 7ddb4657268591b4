"""An engine as a background process: started in a session of its own, and waited for until it is ready.

The engine says that it is ready as it says it to systemd: by a datagram to the socket that ``NOTIFY_SOCKET`` names
(sd_notify(3)). So nobody guesses from a file that appears or a port that answers.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.log_file import VARIABLE as LOG_VARIABLE
from tunnelconsole.log_file import open_log

START_TIMEOUT = 15.0
"""Seconds until an engine must be ready: it needs half of one, and a busy machine has patience."""

NOTE_SIZE = 4096
"""Bytes of one notification at most; the engine's have a few dozen."""

LOOK_INTERVAL = 0.05
"""Seconds between two looks at whether the process has died instead of becoming ready."""

LAST_LINES = 5
"""Lines of the log that are shown when an engine does not start."""

LOG_TAIL = 8192
"""Bytes of the log that are looked through for them."""


class StartFailed(TunnelConsoleError):
    """The engine's process ended, or did not become ready; the message shows the end of its log."""


class BackgroundEngine:
    """An engine's process, started when this is made; :meth:`wait_until_ready` tells what became of it.

    :param command: what runs it.
    :param log: where its output is appended; made with mode 0600, its folder with 0700, and moved aside when large.
    :param stdin: a descriptor for its standard input.
    :raises NotPrivate: others could change what is in the log's folder.
    :raises OSError: the log cannot be written, or the program cannot be run.
    """

    def __init__(self, command: Sequence[str], log: Path, *, stdin: int = subprocess.DEVNULL) -> None:
        self._log = log
        output = open_log(log)
        self._folder = tempfile.TemporaryDirectory(prefix="tunnelconsole-")
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(Path(self._folder.name, "notify"))
        try:
            self._notes.bind(address)
            self._logged_before = os.fstat(output).st_size
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                env={**os.environ, "NOTIFY_SOCKET": address, LOG_VARIABLE: str(log)},
                start_new_session=True,  # the terminal's Ctrl-C and hang-up are for the console, not for tunnels
            )
        except BaseException:
            self._stop_listening()
            raise
        finally:
            os.close(output)

    def wait_until_ready(self) -> None:
        """Waits until the engine serves its control socket; call once.

        :raises StartFailed: it ended, or is not ready after :data:`START_TIMEOUT` seconds (it is killed then).
        """
        try:
            if self._becomes_ready():
                return
        finally:
            self._stop_listening()
        if self.process.poll() is None:
            self.process.kill()
            what = f"the engine was not ready within {START_TIMEOUT:g} seconds"
        else:
            what = "the engine ended as soon as it was started"
        self.process.wait()
        said = self._last_lines()
        raise StartFailed(f"{what}: {said}" if said else what, f"its log is {self._log}")

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        self._notes.settimeout(LOOK_INTERVAL)
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in self._notes.recv(NOTE_SIZE).split(b"\n"):
                    return True
            except TimeoutError:
                if self.process.poll() is not None:
                    return False
        return False

    def _stop_listening(self) -> None:
        self._notes.close()
        self._folder.cleanup()

    def _last_lines(self) -> str:
        """The last lines that the engine logged, in one line."""
        with self._log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            before = self._logged_before if self._logged_before <= size else 0  # it has been moved aside meanwhile
            file.seek(max(before, size - LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip())
