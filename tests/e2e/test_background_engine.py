"""``tunnelconsole`` without a command: the engine it starts in the background, and what becomes of that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from installed import Program
from ports import steady_port
from terminal import Terminal
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("tmux")]

CONFIG = """
version = 1

[engine]
drain = "1s"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{port}"
"""


@pytest.fixture
def config(program: Program) -> Iterator[Path]:
    """A configuration in the place where it is looked for; an engine that still runs with it is killed at the end."""
    (program.folder / "config" / "tunnelconsole").mkdir(parents=True)
    yield program.write("config/tunnelconsole/config.toml", CONFIG.format(port=steady_port()))
    engine = engine_of(program)
    if engine is not None:
        engine.kill()


def engine_of(program: Program) -> psutil.Process | None:
    """The engine that answers at the usual place."""
    answer = program.run("status", "--json")
    return psutil.Process(json.loads(answer.out)["pid"]) if answer.code == 0 else None


def console(program: Program, *arguments: str) -> Terminal:
    return Terminal(program.folder, [program.path, *arguments], program.env)


def test_an_engine_is_started_and_stopped_again_on_leaving(program: Program, config: Path) -> None:
    with console(program) as terminal:
        terminal.shows("edge", "listening")
        engine = engine_of(program)
        assert engine is not None
        terminal.press("q")
        terminal.shows("Stop it", "Leave it running")
        terminal.press("s")
        assert terminal.exit_code() == 0
    assert not engine.is_running()
    assert "ready\n" in (program.folder / "state" / "tunnelconsole" / "engine.log").read_text()


def test_an_engine_that_is_left_running_is_found_again(program: Program, config: Path) -> None:
    with console(program) as terminal:
        terminal.shows("edge", "listening")
        terminal.press("q")
        terminal.shows("Leave it running")
        terminal.press("l")
        assert terminal.exit_code() == 0
        terminal.shows("the engine goes on", "tunnelconsole attach")
    engine = engine_of(program)
    assert engine is not None
    with console(program, "attach") as terminal:
        terminal.shows("edge", "listening")
        terminal.press("q")
        assert terminal.exit_code() == 0
    assert engine.is_running()


def test_the_console_attaches_to_the_engine_that_runs_already(program: Program, config: Path) -> None:
    daemon = program.start("--daemon")
    daemon.says("ready")
    with console(program) as terminal:
        terminal.shows("edge", "listening", rf"pid {daemon.popen.pid}")
        terminal.press("q")
        assert terminal.exit_code() == 0
    assert daemon.running


def test_the_engine_outlives_a_terminal_that_is_closed(program: Program, config: Path) -> None:
    with console(program) as terminal:
        terminal.shows("edge", "listening")
        engine = engine_of(program)
        assert engine is not None
        (shown,) = engine.parents()[:1]
    until_true(lambda: not shown.is_running())
    assert engine_of(program) == engine


def test_an_engine_that_cannot_start_shows_why(program: Program, config: Path) -> None:
    config.write_text(config.read_text().replace("127.0.0.1", "192.0.2.1"))
    with console(program) as terminal:
        assert terminal.exit_code() == 1
        screen = " ".join(terminal.screen.split())
    assert "tunnelconsole: the engine ended as soon as it was started: " in screen
    assert "cannot listen on 192.0.2.1:" in screen
    assert "engine.log" in screen


def test_a_wrong_configuration_is_told_before_anything_is_started(program: Program, config: Path) -> None:
    config.write_text(config.read_text().replace("listen", "lisen"))
    with console(program) as terminal:
        assert terminal.exit_code() == 1
        assert 'tunnelconsole: service.edge.lisen: unknown key; did you mean "listen"?' in terminal.screen
    assert not (program.folder / "state" / "tunnelconsole" / "engine.log").exists()


def test_the_demonstration_ends_with_its_console(program: Program) -> None:
    with console(program, "--demo") as terminal:
        terminal.shows("demo", "edge-desk", "connected")
        terminal.press("q")
        assert terminal.exit_code() == 0
    assert not any("tunnelconsole-demo" in " ".join(process.cmdline()) for process in children_of(program))


def children_of(program: Program) -> list[psutil.Process]:
    """The processes whose home is the program's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(program.folder):
                found.append(process)
        except psutil.Error:
            continue
    return found
