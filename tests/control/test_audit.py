"""Each change asked for over the control socket is in the audit trail once, with who asked and what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controlled import controlled
from loopback import FREE
from tunnel_peers import HOST, app
from tunnelconsole.cli.audit import json_lines
from tunnelconsole.control import messages
from tunnelconsole.control.attempts import PunchAgain
from tunnelconsole.control.audit import Audit, AuditRow, GetAudit
from tunnelconsole.control.auditing import action_of, is_change, object_of
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.origins import Origin
from tunnelconsole.control.tokens import CreateToken, RevokeToken, TokenMade
from tunnelconsole.engine import operators
from tunnelconsole.engine.audit import user
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.operators import Ended, Operators
from tunnelconsole.engine.services.relay.server import RelayServerSettings
from tunnelconsole.errors import RequestRefused
from waiting import until

OWN = user(os.geteuid())

CONNECT = """
import socket, sys
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""
"""A process that connects, and stays until it is told to go."""


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[tuple[Engine, ControlClient]]:
    """An engine with a service, and a client of its control socket."""
    async with Engine({"edge": RelayServerSettings(listen=FREE)}, state_dir=folder / "state") as engine:
        await engine.settled()
        async with controlled(engine, folder) as client:
            yield engine, client


async def asked(client: ControlClient, *, limit: int = 500, since: float = 0.0) -> list[AuditRow]:
    """The entries, without those of the engine itself."""
    reply = await client.ask(GetAudit(limit, since))
    assert isinstance(reply, Audit)
    return [row for row in reply.rows if row.who != "engine"]


def test_whatever_does_more_than_read_is_a_change_and_showing_secrets_is() -> None:
    assert is_change(messages.StopService("home"))
    assert is_change(messages.StopEngine())
    assert is_change(messages.ReplayExchange("x1"))
    assert is_change(messages.GetExchange("x1", reveal=True))
    assert not is_change(messages.GetExchange("x1"))
    assert not is_change(messages.Watch(["audit"]))
    assert not is_change(GetAudit())


def test_the_object_is_what_a_request_is_about() -> None:
    assert action_of(messages.StopService("home")) == "stop-service"
    assert object_of(messages.StopService("home")) == "home"
    assert object_of(messages.SetReceivers("s1", ["a", "b"])) == "s1"
    assert object_of(PunchAgain("to-desk")) == "to-desk"
    assert object_of(messages.ReloadConfig()) == ""
    assert action_of(messages.GetExchange("x1", reveal=True)) == "reveal-secrets"


async def test_what_was_done_and_what_was_refused_is_recorded_once_each(tmp_path: Path) -> None:
    async with node(tmp_path) as (_, client):
        await client.ask(messages.StopService("edge"))
        with pytest.raises(RequestRefused):
            await client.ask(messages.StopService("edge"))
        await client.ask(messages.GetServices())
        rows = await asked(client)
        assert [(row.who, row.via, row.action, row.object, row.outcome, row.text) for row in rows] == [
            (OWN, "command", "stop-service", "edge", "done", "service edge is stopped"),
            (OWN, "command", "stop-service", "edge", "refused", "service edge is stopped already"),
        ]
        assert [row.id for row in rows] == [2, 3]
        assert rows[0].time <= rows[1].time


async def test_a_console_is_told_from_a_command(tmp_path: Path) -> None:
    async with node(tmp_path) as (_, client):
        async with await ControlClient.connect(tmp_path / "control.sock", "console") as console:
            await console.ask(messages.ReloadConfig())
        (row,) = await asked(client)
        assert (row.who, row.via, row.action) == (OWN, "console", "reload-config")


async def test_what_may_only_look_is_refused_and_recorded(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, client):
        assert engine.node.control is not None
        async with await ControlClient.connect(await engine.node.control("view"), "console") as viewer:
            for request in (messages.StopService("edge"), messages.GetExchange("x1", reveal=True)):
                with pytest.raises(RequestRefused, match="its role is view"):
                    await viewer.ask(request)
            assert len(await asked(viewer)) == 2  # which all may see who may look
        assert [(row.action, row.object, row.outcome) for row in await asked(client)] == [
            ("stop-service", "edge", "refused"),
            ("reveal-secrets", "x1", "refused"),
        ]


async def test_secrets_that_are_shown_and_requests_sent_again_are_recorded_without_what_is_in_them(
    tmp_path: Path,
) -> None:
    async with app() as at, controlled(at.web.engine, tmp_path) as client:
        async with at.visiting() as visitor:
            await visitor.get("/users?token=abc", "Authorization: Bearer s3cret")
        kept = at.web.service.inspector
        await until(lambda: kept.count)
        reply = await client.ask(messages.GetExchanges())
        assert isinstance(reply, messages.Exchanges)
        key = reply.rows[0].id
        await client.ask(messages.GetExchange(key))
        shown = await client.ask(messages.GetExchange(key, reveal=True))
        assert "s3cret" in str(shown)
        await client.ask(messages.ReplayExchange(key))
        rows = await asked(client)
        assert [(row.action, row.object, row.outcome) for row in rows] == [
            ("reveal-secrets", key, "done"),
            ("replay-exchange", key, "done"),
        ]
        assert rows[0].text == f"GET {HOST}, request {key}"
        assert "s3cret" not in str(rows)
        assert "abc" not in str(rows)


async def test_a_token_is_made_without_its_secret_in_the_trail(tmp_path: Path) -> None:
    async with node(tmp_path) as (_, client):
        made = await client.ask(CreateToken("laptop", {}))
        assert isinstance(made, TokenMade)
        await client.ask(RevokeToken("laptop"))
        rows = await asked(client)
        assert [(row.action, row.object, row.outcome) for row in rows] == [
            ("create-token", "laptop", "done"),
            ("revoke-token", "laptop", "done"),
        ]
        assert rows[0].text == made.text
        assert made.secret not in str(rows)


async def test_a_reload_names_what_it_changed(tmp_path: Path) -> None:
    async with node(tmp_path) as (engine, client):
        edge = RelayServerSettings(listen=FREE, public_host="other")
        settings = {"edge": edge, "new": RelayServerSettings(listen=FREE)}

        async def reload() -> str:
            return await engine.apply(settings)

        async with controlled(engine, tmp_path / "state", reload) as other:
            await other.ask(messages.ReloadConfig())
        (row,) = await asked(client)
        assert row.text == "1 added, 1 changed, 0 removed, 0 untouched; added: new; changed: edge"


async def test_what_strangers_chose_is_escaped(tmp_path: Path) -> None:
    async with node(tmp_path) as (_, client):
        with pytest.raises(RequestRefused):
            await client.ask(messages.StopService("\x1b[2J" + "x" * 1000))
        (row,) = await asked(client)
        assert row.object.startswith("\\x1b[2Jxxx")
        assert len(row.object) == 200


async def test_what_was_cut_off_is_recorded_as_such(tmp_path: Path) -> None:
    async with Engine({"edge": RelayServerSettings(listen=FREE)}, state_dir=tmp_path / "state") as engine:
        begun = asyncio.Event()

        async def reload() -> str:
            begun.set()
            await asyncio.Event().wait()
            return ""

        async with controlled(engine, tmp_path, reload) as client:
            asking = engine.node.tasks_of("test").start(client.ask(messages.ReloadConfig()), "asking")
            await begun.wait()
        await asyncio.gather(asking, return_exceptions=True)
        (_, last) = engine.audit.rows()[-1]
        assert (last.action, last.outcome) == ("reload-config", "broken off")


async def test_what_a_faulty_client_says_of_itself_is_no_request(tmp_path: Path) -> None:
    async with node(tmp_path) as (_, client):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control.sock"))
        writer.write(b'{"id":1,"request":{"type":"stop-service","name":"edge"},"protocol":4,"means":"ssh"}\n')
        assert b"this is not a request" in await reader.read()
        writer.close()
        assert await asked(client) == []


# who it is


def test_an_export_has_an_object_a_line_with_stable_keys() -> None:
    row = AuditRow(
        id=1, time=1.25, who="ssh alice", via="ssh", action="stop-service", object="größe", outcome="done", text=""
    )
    first, second = json_lines([row, row]).splitlines()
    assert first == second
    assert first.isascii()
    assert json.loads(first) == {
        "time": "1970-01-01T00:00:01.250Z",
        "unix": 1.25,
        "who": "ssh alice",
        "via": "ssh",
        "action": "stop-service",
        "object": "größe",
        "outcome": "done",
        "text": "",
    }


class Peers:
    """A socket, and processes that connect to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.sock"
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.operators = Operators()

    def start(self, *before: str) -> subprocess.Popen[str]:
        """A process of a session of its own that has connected."""
        process = subprocess.Popen(
            [*before, sys.executable, "-c", CONNECT, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        return process

    def origin(self) -> Origin:
        """Who has connected."""
        accepted, _ = self.listening.accept()
        with accepted:
            return Origin(accepted, self.operators)


def ends(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    made = Peers(tmp_path)
    yield made
    made.listening.close()


def test_a_process_of_an_operator_is_the_operator_whatever_it_says(peers: Peers) -> None:
    process = peers.start()
    with peers.operators.behind("ssh alice") as begun:
        begun(process.pid)
        assert peers.origin().actor("console") == ("ssh alice", "ssh")
    ends(process)


def test_so_is_what_it_has_started(peers: Peers) -> None:
    shell = peers.start("/bin/sh", "-c", '"$@"; exit 0', "sh")
    with peers.operators.behind("ssh alice") as begun:
        begun(shell.pid)
        assert peers.origin().actor("command") == ("ssh alice", "ssh")
    os.killpg(shell.pid, signal.SIGKILL)
    shell.communicate()


def test_and_what_has_left_its_session_as_long_as_it_descends_from_it(peers: Peers) -> None:
    shell = peers.start("/bin/sh", "-c", 'setsid "$@"; exit 0', "sh")
    with peers.operators.behind("ssh alice") as begun:
        begun(shell.pid)
        origin = peers.origin()
        assert origin.actor("command") == ("ssh alice", "ssh")
    shell.communicate()


def test_what_it_asked_last_is_its_operators_though_it_is_gone_when_that_is_read(peers: Peers) -> None:
    with peers.operators.behind("ssh alice") as begun:
        process = peers.start()
        begun(process.pid)
        ends(process)
    assert peers.origin().actor("command") == ("ssh alice", "ssh")


def test_another_process_with_the_number_of_one_that_has_ended_is_not_the_operator(peers: Peers) -> None:
    process = peers.start()
    peers.operators._ended[process.pid] = Ended("ssh alice", 1.0)  # long before this one began
    assert peers.origin().actor("command") == (OWN, "command")
    ends(process)


def test_whoever_else_connects_is_the_user_meanwhile(peers: Peers) -> None:
    one, other = peers.start(), peers.start()
    with peers.operators.behind("ssh alice") as begun:
        begun(one.pid)
        assert [peers.origin().actor("command").who for _ in range(2)] == ["ssh alice", OWN]
    ends(one)
    ends(other)


def test_only_so_many_that_have_ended_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "REMEMBERED", 2)
    known = Operators()
    for pid in (101, 102, 103):
        with known.behind("ssh alice") as begun:
            begun(pid)
            assert known.running(pid) == "ssh alice"
    assert [bool(known.ended(pid)) for pid in (101, 102, 103)] == [False, True, True]
