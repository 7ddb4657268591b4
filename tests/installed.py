"""The installed program, run as a user runs it: its own folder, its own environment, and nothing of it left behind."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from prepared import PIPE, Copy, possible, run_copy
from tunnelconsole.cli import main
from waiting import until_true

COMMAND_TIMEOUT = 30.0
"""Seconds a command that ends by itself may take: it needs a fifth of one, and a busy machine has patience."""

_STANDING = re.compile(r"^(?:listening|connected) service=(\S+) kind=\S+ address=(\S+)", re.MULTILINE)


def installed() -> str:
    """The path of the program in the environment that runs the tests."""
    path = shutil.which("tunnelconsole", path=sysconfig.get_path("scripts"))
    if path is None:
        raise LookupError("tunnelconsole is not installed beside the Python that runs the tests; run: pip install -e .")
    return path


class Process:
    """A process in a group of its own, whose output goes to files.

    :param name: of its files, in ``folder``.
    :param copied: the command is the program, and a copy of the prepared one does.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        name: str,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        *,
        copied: bool = False,
    ) -> None:
        self.stdout, self.stderr = folder / f"{name}.out", folder / f"{name}.err"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.popen: subprocess.Popen[bytes] | Copy
            if copied:
                self.popen = Copy(command, stdin, out, err, env, folder)
            else:
                self.popen = subprocess.Popen(
                    command, stdin=stdin, stdout=out, stderr=err, env=env, cwd=folder, start_new_session=True
                )

    @property
    def out(self) -> str:
        """What it has written to standard output so far."""
        return self.stdout.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self.stderr.read_text(errors="replace")

    @property
    def said(self) -> str:
        """Both, for a test that fails."""
        return f"stdout:\n{self.out}\nstderr:\n{self.err}"

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def says(self, text: str) -> None:
        """Waits until ``text`` is in its output.

        :raises AssertionError: it ended without having said so, or did not say it in time.
        """
        until_true(lambda: text in self.out + self.err or not self.running)
        assert text in self.out + self.err, f"{text!r} was never said\n{self.said}"

    def sends(self, number: signal.Signals) -> None:
        """Sends it a signal; to it alone."""
        self.popen.send_signal(number)

    def returns(self, within: float = 10.0) -> int:
        """Waits for its end, and gives its exit code."""
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.popen.args!r} did not end within {within:g} s\n{self.said}") from None

    def end(self) -> None:
        """Kills what is left of it and of what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdin is not None:
            self.popen.stdin.close()


FEW_DESCRIPTORS = 256
"""Descriptors that :func:`few_descriptors` lets a program have, unless it takes more."""


def few_descriptors(*command: str) -> list[str]:
    """``command``, with a soft limit of descriptors that is low; the hard one stays as it is."""
    return ["/bin/sh", "-c", f'ulimit -Sn {FEW_DESCRIPTORS}; exec "$0" "$@"', *command]


def descriptors_allowed(process: Process) -> int:
    """Descriptors that a process may have at present."""
    soft, _ = psutil.Process(process.popen.pid).rlimit(psutil.RLIMIT_NOFILE)
    return soft


class Program:
    """The installed program in a folder of its own; :meth:`close` ends whatever was started from here.

    :param folder: short, because sockets live in it.
    :param anew: each start is one of the program itself, not of a copy of what :mod:`prepared` has loaded.
    """

    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        self.path = installed()
        self._anew = anew
        self.folder = folder
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "LANG": "C.UTF-8",
            "PYTHONFAULTHANDLER": "1",
        }
        (folder / "run").mkdir(mode=0o700)
        self._processes: list[Process] = []
        self._names = 0

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file in the folder; nobody else may read it."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def run(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Runs the program to its end."""
        return self.run_other([self.path, *arguments], stdin=stdin, env=env)

    def run_other(self, command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Runs another program to its end."""
        process = self._run(command, stdin.encode(), env)
        return Done(process.returncode, process.stdout.decode(errors="replace"), process.stderr.decode())

    def run_bytes(self, command: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """What another program writes, once it is sure that it did what it should."""
        process = self._run(command, stdin, env)
        assert process.returncode == 0, f"exit code {process.returncode}: {process.stderr.decode()}"
        return process.stdout

    def _run(
        self, command: Sequence[str], stdin: bytes, env: Mapping[str, str] | None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = self.env | dict(env or {})
        if self._copied(command, environment) and len(stdin) <= PIPE:
            return run_copy(command, stdin, environment, self.folder, COMMAND_TIMEOUT)
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            env=environment,
            cwd=self.folder,
            check=False,
        )

    def _copied(self, command: Sequence[str], env: Mapping[str, str]) -> bool:
        return not self._anew and possible(command, self.path, env)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL) -> Process:
        """Starts the program."""
        return self.start_other([self.path, *arguments], env=env, stdin=stdin)

    def start_other(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> Process:
        """Starts another program, to be ended with the rest."""
        self._names += 1
        environment = self.env | dict(env or {})
        copied = self._copied(command, environment)
        process = Process(command, self.folder, f"{self._names}", environment, stdin, copied=copied)
        self._processes.append(process)
        return process

    def daemon(self, services: str, *, engine: str = "", env: Mapping[str, str] | None = None) -> Daemon:
        """Starts a daemon and waits until it is ready.

        :param services: the ``[service.NAME]`` tables.
        :param engine: lines for the ``[engine]`` table besides the folder and the socket.
        """
        daemon = Daemon(self, services, engine)
        daemon.start(env)
        return daemon

    def close(self) -> None:
        """Ends everything that was started here."""
        for process in reversed(self._processes):
            process.end()


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        """What it printed, once it is sure that it did what it should.

        :raises AssertionError: it failed.
        """
        assert self.code == 0, f"exit code {self.code}\nstdout:\n{self.out}\nstderr:\n{self.err}"
        return self.out


def document(control: Path, *command: str) -> Any:
    """The document that a command prints about the engine at a control socket.

    The command runs in this process: tests ask hundreds of times, and to start the program takes a quarter of a second.
    """
    out = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(out, write_through=True)):
        code = main([*command, "--json", "--socket", str(control)])
    assert code == 0, f"{command} failed with exit code {code}; why is on standard error"
    return json.loads(out.getvalue())


class Daemon:
    """An engine without a console, with a folder, a state and a control socket of its own."""

    def __init__(self, program: Program, services: str, engine: str = "") -> None:
        self.program = program
        self.folder = program.folder / f"d{len(list(program.folder.glob('d[0-9]*')))}"
        self.folder.mkdir()
        self.control = self.folder / "control.sock"
        self.config = self.folder / "config.toml"
        self._engine = engine
        self.configure(services)
        self.process: Process

    def configure(self, services: str, engine: str | None = None) -> None:
        """Writes the configuration; a running engine reads it when it is told to reload."""
        own = f'state_dir = "{self.folder}/state"\ncontrol = "{self.control}"'
        self._engine = self._engine if engine is None else engine
        self.config.write_text(f"version = 1\n[engine]\n{own}\n{self._engine}\n{services}")
        self.config.chmod(0o600)

    def launch(self, env: Mapping[str, str] | None = None) -> None:
        """Starts it, without waiting."""
        self.process = self.program.start("--daemon", "-c", str(self.config), env=env)

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Starts it, and waits until it is ready."""
        self.launch(env)
        until_true(lambda: self.ready or not self.process.running)
        assert self.ready, f"it never became ready\n{self.process.said}"

    @property
    def ready(self) -> bool:
        """Whether it has said so."""
        return "ready" in self.process.out.splitlines()

    def address(self, service: str) -> str:
        """Where a service listens or can be reached, as its line on standard output says."""
        found: dict[str, str] = dict(_STANDING.findall(self.process.out))
        assert service in found, f"no line about {service}\n{self.process.said}"
        return found[service]

    def ask(self, *command: str) -> Done:
        """Runs a command about this engine."""
        return self.program.run(*command, "--socket", str(self.control))

    def json(self, *command: str) -> Any:
        """The document that a command prints."""
        return document(self.control, *command)

    def service(self, name: str) -> dict[str, Any]:
        """The row of one service."""
        rows: list[dict[str, Any]] = self.json("services")
        return next(row for row in rows if row["name"] == name)

    def reaches(self, service: str, state: str) -> dict[str, Any]:
        """Waits until a service is in a state, and gives its row."""

        def row() -> dict[str, Any]:
            found = self.service(service)
            return found if found["state"] == state else {}

        return until_true(row)

    def stops(self, within: float = 10.0) -> int:
        """Ends it as systemd does, and gives its exit code."""
        self.process.sends(signal.SIGTERM)
        return self.process.returns(within)

    def is_killed(self) -> None:
        """Ends it as a power cut does."""
        self.process.sends(signal.SIGKILL)
        self.process.returns()
