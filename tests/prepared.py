"""The installed program, loaded once: each start of it is a copy of a process that has imported everything already.

To start the program anew takes a third of a second of a processor, and tests start it hundreds of times; a copy takes
a hundredth. A copy is a process as any other: it has an environment, a folder, descriptors, signals and an exit code of
its own, and goes through the entry point that is installed. Only ``ps`` does not show its arguments, and what it has
imported says nothing about what it needs: a test about these starts the program itself.

Run as a script this is the process that is copied: it gets a socket, over which come the starts.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.metadata
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from io import BufferedWriter
from pathlib import Path
from typing import IO, Any

MESSAGE = 65536
"""Bytes of the longest message: arguments and environment."""

PIPE = 65536
"""Bytes that a pipe of Linux takes before anybody reads."""

DESCRIPTORS = 4096
"""More than the prepared program has open at any time."""

PACKAGE = "tunnelconsole"
TOLD = {"LANG": "C.UTF-8", "PYTHONFAULTHANDLER": "1"}
"""What of its environment Python itself reads, once, when it starts."""
LEFT_OUT = ("tunnelconsole.screens", "tunnelconsole.demo", "tunnelconsole.__main__")
"""What is not imported beforehand: the console needs a terminal, and is started in one by others."""


class Copy:
    """A copy of the prepared program, with what of :class:`subprocess.Popen` the tests use.

    :param command: the path of the program, and its arguments.
    :param stdin: ``subprocess.PIPE`` or ``subprocess.DEVNULL``.
    """

    def __init__(
        self,
        command: Sequence[str],
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        self.args = list(command)
        self.returncode: int | None = None
        self.stdin: BufferedWriter | None = None
        if stdin == subprocess.DEVNULL:
            theirs = os.open(os.devnull, os.O_RDONLY)
        else:
            theirs, ours = os.pipe()
            self.stdin = os.fdopen(ours, "wb")
        self._told, teller = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with teller:
            message = json.dumps({"command": self.args, "env": dict(env), "cwd": str(cwd)}).encode()
            assert len(message) <= MESSAGE, "arguments and environment are too long for the prepared program"
            descriptors = (theirs, stdout.fileno(), stderr.fileno(), teller.fileno())
            socket.send_fds(prepared(), [message], descriptors)
        os.close(theirs)
        self.pid = self._next()

    def _next(self) -> int:
        said = self._told.recv(64)
        assert said, "the prepared program is gone"
        return int(said)

    def poll(self) -> int | None:
        """Its exit code, once it has ended; that of a signal is negative."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end.

        :raises subprocess.TimeoutExpired: it did not end within ``timeout`` seconds.
        """
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._ended()
        assert self.returncode is not None
        return self.returncode

    def _ended(self) -> None:
        self.returncode = self._next()
        self._told.close()

    def send_signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.send_signal(signal.SIGKILL)


def run_copy(
    command: Sequence[str], stdin: bytes, env: Mapping[str, str], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    """Runs a copy to its end, as :func:`subprocess.run` runs a program.

    :param stdin: at most as much as a pipe takes at once, see :data:`PIPE`.
    :raises subprocess.TimeoutExpired: it did not end within ``timeout`` seconds, and was killed.
    """
    deadline = time.monotonic() + timeout
    written: dict[int, bytes] = {}
    with ExitStack() as ends:
        pipes = [os.pipe(), os.pipe()]
        for reading, _ in pipes:
            ends.callback(os.close, reading)
            written[reading] = b""
        with os.fdopen(pipes[0][1], "wb") as out, os.fdopen(pipes[1][1], "wb") as err:
            copy = Copy(command, subprocess.PIPE, out, err, env, cwd)
        assert copy.stdin is not None
        with suppress(BrokenPipeError), copy.stdin:
            copy.stdin.write(stdin)
        open_ones = list(written)
        try:
            while open_ones:
                ready = select.select(open_ones, [], [], max(deadline - time.monotonic(), 0))[0]
                if not ready:
                    raise subprocess.TimeoutExpired(copy.args, timeout)
                for reading in ready:
                    if data := os.read(reading, PIPE):
                        written[reading] += data
                    else:
                        open_ones.remove(reading)
            code = copy.wait(max(deadline - time.monotonic(), 0))
        finally:
            copy.kill()
            copy.wait()
    return subprocess.CompletedProcess(copy.args, code, *written.values())


def possible(command: Sequence[str], program: str, env: Mapping[str, str]) -> bool:
    """Whether a copy can stand for this: it is the program, and its Python is told what the prepared one was told."""
    told = {name: value for name, value in env.items() if name.startswith(("PYTHON", "LANG", "LC_"))}
    return sys.platform == "linux" and command[0] == program and told == TOLD


@cache
def prepared() -> socket.socket:
    """The socket of the process that is copied; it ends with the process that runs the tests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), **TOLD},
            cwd="/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def load() -> None:
    """Imports the program; what is there now is not looked at by the collector of any copy."""
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        if not module.name.startswith(LEFT_OUT):
            importlib.import_module(module.name)
    gc.freeze()


def serve(starts: socket.socket) -> dict[str, Any]:
    """Copies this process for each start that comes, and tells how each copy ends; returns in the copies only.

    :return: what the copy is to be.
    """
    running: dict[int, tuple[int, int]] = {}  # by the descriptor that tells the end of a copy: it, and where to tell
    while True:
        for ready in select.select([starts.fileno(), *running], [], [])[0]:
            if ready in running:
                pid, teller = running.pop(ready)
                tell(teller, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(teller)
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(starts, MESSAGE, 4)
            if not message:
                sys.exit()  # so have the tests
            *standard, teller = descriptors
            if (pid := os.fork()) == 0:
                for number, descriptor in enumerate(standard):
                    os.dup2(descriptor, number)
                starts.detach()
                os.closerange(len(standard), DESCRIPTORS)
                start: dict[str, Any] = json.loads(message)
                return start
            for descriptor in standard:
                os.close(descriptor)
            running[os.pidfd_open(pid)] = pid, teller
            tell(teller, pid)


def tell(teller: int, number: int) -> None:
    """Tells who started a copy; who does not wait for its end may be gone."""
    with suppress(OSError):
        os.write(teller, b"%d" % number)


def become(start: dict[str, Any]) -> None:
    """What Python does when it starts: this process gets a session, an environment, a folder and standard files."""
    os.setsid()
    os.environ.clear()
    os.environ.update(start["env"])
    os.chdir(start["cwd"])
    sys.argv = start["command"]
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        prepared_file = getattr(sys, name)
        lines = 1 if name == "stderr" or os.isatty(number) else -1
        file = open(  # noqa: SIM115 it stays open as long as the program runs
            number, mode, lines, encoding=prepared_file.encoding, errors=prepared_file.errors, closefd=False
        )
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


def run(starts: socket.socket) -> int:
    """Serves; in a copy, runs the program as its script does."""
    load()
    become(serve(starts))
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=PACKAGE)
    code: int = script.load()()
    return code


if __name__ == "__main__":
    sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
