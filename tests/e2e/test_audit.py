"""The audit trail of the installed program: commands, signals, a restart, and a disk that is full."""

from __future__ import annotations

import getpass
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from installed import Daemon, Program
from waiting import until_true

pytestmark = pytest.mark.e2e

EDGE = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:0"
"""

NEW = EDGE.replace("edge", "new")


def told(daemon: Daemon) -> list[tuple[str, str, str, str, str]]:
    rows = daemon.json("audit")
    return [(row["who"], row["via"], row["action"], row["object"], row["outcome"]) for row in rows]


def test_it_tells_of_commands_and_signals_and_outlives_the_engine(program: Program) -> None:
    daemon = program.daemon(EDGE)
    user = f"user {getpass.getuser()} (uid {os.getuid()})"
    daemon.ask("stop", "edge").ok()
    assert daemon.ask("kick", "s9").code == 1
    daemon.configure(EDGE + NEW)
    daemon.process.sends(signal.SIGHUP)
    until_true(lambda: len(told(daemon)) == 4)
    daemon.configure(EDGE + "surprise = 1")
    daemon.process.sends(signal.SIGHUP)
    until_true(lambda: len(told(daemon)) == 5)
    daemon.configure(EDGE)
    first = f"process {daemon.process.popen.pid}"
    daemon.stops()
    logged = [line for line in daemon.process.err.splitlines() if " info audited " in line]
    assert len(logged) == 7
    assert f'text="{user} by command: kick-session s9: refused: there is no session s9"' in logged[2]
    daemon.start()
    second = f"process {daemon.process.popen.pid}"
    assert told(daemon) == [
        ("engine", "engine", "start-engine", first, "done"),
        (user, "command", "stop-service", "edge", "done"),
        (user, "command", "kick-session", "s9", "refused"),
        ("signal", "signal", "reload-config", "SIGHUP", "done"),
        ("signal", "signal", "reload-config", "SIGHUP", "refused"),
        ("signal", "signal", "stop-engine", "SIGTERM", "done"),
        ("engine", "engine", "stop-engine", first, "done"),
        ("engine", "engine", "start-engine", second, "done"),
    ]
    reloaded, mistaken = (row["text"] for row in daemon.json("audit")[3:5])
    assert reloaded.endswith("; added: new")
    assert "service.edge.surprise" in mistaken


def test_it_is_a_table_a_document_or_lines_in_a_new_file_that_is_nobody_elses(program: Program) -> None:
    daemon = program.daemon(EDGE)
    daemon.ask("stop", "edge").ok()
    heading, *lines = daemon.ask("audit").ok().splitlines()
    assert heading.split() == ["TIME", "WHO", "VIA", "ACTION", "OBJECT", "OUTCOME", "TEXT"]
    assert "service edge is stopped" in lines[-1]
    assert len(daemon.ask("audit", "--limit", "1").ok().splitlines()) == 2
    assert len(daemon.json("audit", "--since", "1h")) == 2
    file = daemon.folder / "audit.jsonl"
    assert daemon.ask("audit", "--export", str(file)).ok() == f"2 entries written to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    last: dict[str, Any] = json.loads(file.read_text().splitlines()[-1])
    assert list(last) == ["time", "unix", "who", "via", "action", "object", "outcome", "text"]
    assert daemon.ask("audit", "--export", "-").ok() == file.read_text()
    done = daemon.ask("audit", "--export", str(file))
    assert (done.code, done.err) == (1, f"tunnelconsole: there is a file {file} already; name a new one\n")
    assert daemon.ask("audit", "--since", "yesterday").code == 2


def test_what_cannot_be_written_for_a_moment_is_there_afterwards(program: Program) -> None:
    daemon = program.daemon(EDGE)
    folder = daemon.folder / "state"
    away = folder.with_name("away")
    folder.rename(away)
    Path(folder).write_text("in the way")
    daemon.ask("stop", "edge").ok()
    daemon.process.says("store-failed")
    daemon.ask("start", "edge").ok()
    folder.unlink()
    away.rename(folder)
    daemon.process.says("store-recovered")
    daemon.is_killed()
    daemon.start()
    assert [action for _, _, action, _, _ in told(daemon)] == [
        "start-engine", "stop-service", "start-service", "start-engine",
    ]  # fmt: skip
