"""Opening the console: of an engine that runs, of one started for it in the background, or of a demonstration.

Where an engine is started, the console's framework is loaded while it starts: on two cores that takes the longer of the
two times and not their sum.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import termios
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import click

from tunnelconsole.background import BackgroundEngine, StartFailed
from tunnelconsole.config import load
from tunnelconsole.control.client import ControlClient, answers
from tunnelconsole.control.messages import Role, StopEngine
from tunnelconsole.demo import running
from tunnelconsole.errors import EngineUnreachable, TunnelConsoleError

PLAIN_TERMINALS = ("dumb", "unknown")
"""Values of TERM (terminfo) for a terminal that prints lines and nothing else, such as the shell in an editor."""

LOG_NAME = "engine.log"
"""The file in the state folder that an engine started in the background logs to."""


def open_console(config: Path | None, control: Path, log_level: str | None, log_format: str | None) -> None:
    """The console of the engine at ``control``; where none runs, of one that is started first.

    :raises ConfigError: the configuration is wrong.
    :raises TunnelConsoleError: there is no terminal, or the engine does not start.
    """
    check_terminal()
    engine = None if answers(control) else _start_engine(config, control, log_level, log_format)
    if _show(control, owns_engine=engine is not None):
        asyncio.run(_stop_engine(control))
        if engine is not None:
            click.echo("the engine stops; its channels may finish (Ctrl-C: do not wait for it)", err=True)
            engine.wait()
    elif engine is not None:
        click.echo(f"the engine goes on (process {engine.pid}); come back with: tunnelconsole attach", err=True)


def attach(control: Path, *, role: Role = "operate", files: bool = True) -> None:
    """The console of the engine at ``control``.

    :param role: ``view`` has it refuse whatever changes something.
    :param files: False has it save nothing on this machine.
    :raises TunnelConsoleError: there is no terminal.
    """
    check_terminal()
    if _show(control, role=role, files=files):
        asyncio.run(_stop_engine(control))


def demonstrate() -> None:
    """The console of a demonstration, which ends with it.

    :raises TunnelConsoleError: there is no terminal, or the demonstration does not start.
    """
    check_terminal()
    with running(meanwhile=_load_framework) as control:
        _show(control, owns_engine=True, demo=True)


def take_terminal() -> None:
    """Makes the terminal on standard input the one that controls this process, where it leads a session without one.

    So it was started by the SSH server. Without this nobody would tell it that the window has another size.
    """
    if os.getsid(0) == os.getpid() and os.isatty(0):
        with suppress(OSError):  # it has one already
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def check_terminal() -> None:
    """Makes sure that there is somebody to show a console to.

    :raises TunnelConsoleError: standard input, output or error is no terminal, or it says that it cannot show one.
    """
    instead = "without one, there are: tunnelconsole status, services, events ..."
    if not (os.isatty(0) and os.isatty(1) and os.isatty(2)):  # the screen is drawn on standard error
        raise TunnelConsoleError("the console needs a terminal", instead)
    kind = os.environ.get("TERM", "")
    if kind in PLAIN_TERMINALS:
        raise TunnelConsoleError(f"the console needs a terminal that can draw, and TERM={kind} is none", instead)


def _start_engine(
    config: Path | None, control: Path, log_level: str | None, log_format: str | None
) -> subprocess.Popen[bytes] | None:
    """Starts an engine; None when somebody else has started one meanwhile."""
    settings = load(config).engine
    options = {"--config": config, "--socket": control, "--log-level": log_level, "--log-format": log_format}
    command = [sys.executable, "-P", "-m", "tunnelconsole", "--daemon"]
    for option, value in options.items():
        command += [option, str(value)] if value is not None else []
    engine = BackgroundEngine(command, settings.state_dir / LOG_NAME)
    _load_framework()
    try:
        engine.wait_until_ready()
    except StartFailed:
        if answers(control):
            return None
        raise
    return engine.process


def _load_framework() -> None:
    import_module("tunnelconsole.screens.app")


def _show(
    control: Path, *, owns_engine: bool = False, demo: bool = False, role: Role = "operate", files: bool = True
) -> bool:
    """Runs the console until the operator leaves; True when the engine is to be stopped."""
    from tunnelconsole.screens.app import ConsoleOutcome, run_console  # noqa: PLC0415 - see above

    outcome = run_console(control, owns_engine=owns_engine, demo=demo, role=role, files=files)
    return outcome is ConsoleOutcome.STOP_ENGINE


async def _stop_engine(control: Path) -> None:
    try:
        async with await ControlClient.connect(control, "console") as client:
            await client.ask(StopEngine())
    except EngineUnreachable:
        return  # it has ended by itself, or as soon as it was told
