"""What operators over SSH have the engine do is theirs in the audit trail, by commands and out of a shell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loopback import FREE
from ssh_peers import SSHDesk, ssh_desk
from tunnelconsole.engine.services.relay.server import RelayServerSettings

pytestmark = pytest.mark.system("sh", "setsid")

EDGE = {"edge": RelayServerSettings(listen=FREE)}

SHELL = {"shell": ("/bin/sh",)}


def trail(desk: SSHDesk) -> list[tuple[str, str, str, str, str]]:
    """The entries that are not the engine's own."""
    rows = [entry for _, entry in desk.engine.audit.rows() if entry.who != "engine"]
    return [(row.who, row.via, row.action, row.object, row.outcome) for row in rows]


def who(desk: SSHDesk, name: str) -> str:
    key = desk.alice if name == "alice" else desk.viola
    return f"ssh {name} {key.get_fingerprint()}"


async def test_a_command_is_its_operators_and_one_that_is_refused_before_it_begins_too(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, EDGE) as desk:
        async with desk.connect(desk.alice) as operator, desk.connect(desk.viola) as viewer:
            done = await operator.run("kick s99")
            assert "there is no session s99" in str(done.stderr)
            assert (await viewer.run("tunnelconsole stop edge")).exit_status == 1
            assert (await viewer.run("no-command-at-all")).exit_status == 1
        assert trail(desk) == [
            (who(desk, "alice"), "ssh", "kick-session", "s99", "refused"),
            (who(desk, "viola"), "ssh", "run-command", "tunnelconsole stop edge", "refused"),
        ]


async def test_a_shell_is_an_entry_and_so_is_what_is_done_out_of_it(tmp_path: Path) -> None:
    program = f"{sys.executable} -P -m tunnelconsole --socket {tmp_path}/control.sock"
    async with ssh_desk(tmp_path, EDGE, programs=SHELL) as desk:
        async with desk.connect(desk.alice) as operator, desk.connect(desk.viola) as viewer:
            assert (await viewer.run("shell")).exit_status == 1
            done = await operator.run("shell", input=f"{program} stop edge\nsetsid -w {program} start edge\n")
            assert "service edge is starting" in str(done.stdout)
        alice = who(desk, "alice")
        assert trail(desk) == [
            (who(desk, "viola"), "ssh", "run-program", "shell", "refused"),
            (alice, "ssh", "run-program", "shell", "done"),
            (alice, "ssh", "stop-service", "edge", "done"),
            (alice, "ssh", "start-service", "edge", "done"),
        ]


async def test_a_program_that_cannot_be_started_is_not_done(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, programs={"gone": ("/no/such/program",)}) as desk:
        async with desk.connect(desk.alice) as operator:
            assert (await operator.run("gone")).exit_status == 1
        assert trail(desk) == []
