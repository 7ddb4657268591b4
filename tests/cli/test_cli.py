"""The commands, run as a user runs them, against a daemon with real traffic."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import tunnelconsole
from complaint import is_one_line
from echo import EchoServer, connect, echoed
from installed import Daemon, Process, Program
from ports import steady_port
from waiting import until_true

SECRET = "only for these tests"

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{jump}"
allow = ["127.0.0.1:*"]
deny = ["127.0.0.1:1"]
secrets = {{ alice = "{secret}" }}

[service.fixed]
kind = "jump-client"
server = "127.0.0.1:{jump}"
secret = "{secret}"
listen = "127.0.0.1:0"
target = "{echo}"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{relay}"
ports = "0"

[service.nowhere]
kind = "relay-client"
server = "127.0.0.1:1"
target = "{echo}"

[service.spare]
kind = "relay-server"
listen = "127.0.0.1:0"
ports = "0"
enabled = false
"""

FLOOR = {
    "services": ["name", "kind", "state", "address", "sessions", "bytes_in", "bytes_out", "error"],
    "sessions": ["id", "service", "kind", "peer", "identity", "since", "channels", "bytes_in", "bytes_out"],
    "channels": ["id", "session", "service", "label", "since", "bytes_in", "bytes_out", "rate_in", "rate_out"],
    "events": ["id", "time", "level", "type", "service", "session", "channel", "text"],
}
"""The keys that the rows of each document have at least."""

STATUS_FLOOR = {
    *("version", "pid", "uptime", "services", "sessions", "channels"),
    *("bytes_in", "bytes_out", "memory", "cpu"),
}


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("cli"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def node(program: Program, echo: EchoServer) -> Daemon:
    """A daemon that every test of this module may ask and steer; none counts on what another one did."""
    return program.daemon(
        SERVICES.format(jump=steady_port(), relay=steady_port(), secret=SECRET, echo=echo.address),
        engine='drain = "1s"',
    )


@pytest.fixture
def visitor(node: Daemon) -> Iterator[socket.socket]:
    """Somebody who is connected through the jump client, and has got an answer."""
    with connect(node.service("fixed")["address"]) as connection:
        assert echoed(connection, b"hello") == b"hello"
        yield connection
    until_true(lambda: node.json("channels") == [])


def documents(process: Process) -> list[dict[str, Any]]:
    """What a command has printed so far, a document a line; the last line may still be on its way."""
    return [json.loads(line) for line in process.out.splitlines(keepends=True) if line.endswith("\n")]


# usage


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(program: Program, flag: str) -> None:
    named = re.findall(r"^  (\w+)  ", program.run(flag).ok(), re.MULTILINE)
    assert named == [
        *("attach", "check", "status", "services", "sessions", "channels", "chids", "events", "attempts", "audit"),
        *("bans", "ban", "unban", "requests", "request", "start", "stop", "restart", "kick", "receivers", "replay"),
        *("retry", "drain", "limit", "reload", "tcp", "http", "jump", "channel", "punch", "nat", "token"),
    ]


def test_the_version_is_the_projects(program: Program) -> None:
    assert importlib.metadata.version("tunnelconsole") == tunnelconsole.__version__
    assert program.run("--version").ok() == f"tunnelconsole {tunnelconsole.__version__}\n"


def test_running_the_package_is_running_the_program(program: Program) -> None:
    command = [sys.executable, "-m", "tunnelconsole", "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout == program.run("--version").ok()


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "status --nonsense",
        "start",
        "kick",
        "receivers s1",
        "events --limit 0",
        "status --log-level loud",
        "tcp 22",
        "tcp port --server 127.0.0.1:7000",
        "tcp 22 --server 127.0.0.1",
        "tcp 22 --server 127.0.0.1:7000 --fingerprint short",
        "jump 127.0.0.1:22",
        "jump 127.0.0.1:22 --via 127.0.0.1:1",
        "jump 127.0.0.1:22 --via 127.0.0.1:1 --json",
        "--demo --daemon",
        "--daemon status",
        "--daemon --json",
    ],
)
def test_wrong_usage_is_told_in_one_line(program: Program, line: str) -> None:
    answer = program.run(*line.split())
    assert answer.code == 2
    assert answer.out == ""
    assert is_one_line(answer.err)
    assert "-h shows how it is used" in answer.err


@pytest.mark.parametrize("arguments", [[], ["--demo"], ["attach"]], ids=["console", "demo", "attach"])
def test_the_console_needs_a_terminal(node: Daemon, arguments: list[str]) -> None:
    answer = node.ask(*arguments)
    assert answer.code == 1
    assert is_one_line(answer.err)
    assert "the console needs a terminal" in answer.err


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_the_console_needs_a_terminal_that_can_draw(program: Program, node: Daemon, kind: str) -> None:
    ours, theirs = pty.openpty()
    command = [program.path, "attach", "--socket", str(node.control)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=program.env | {"TERM": kind}
    ) as console:
        os.close(theirs)
        said = os.read(ours, 1 << 16).decode()
        assert console.wait(20) == 1
    os.close(ours)
    assert said.startswith(f"tunnelconsole: the console needs a terminal that can draw, and TERM={kind} is none; ")
    assert said.count("\n") == 1


def test_the_shared_options_stand_before_or_behind_the_command(program: Program, node: Daemon) -> None:
    before = program.run("-c", str(node.config), "--json", "check").ok()
    behind = program.run("check", "--json", "--config", str(node.config)).ok()
    assert json.loads(before) == json.loads(behind)


def test_the_option_behind_the_command_counts_more(program: Program, node: Daemon) -> None:
    program.run("--socket", "nobody", "status", "--socket", str(node.control)).ok()


# without an engine


@pytest.mark.parametrize("command", ["status", "services", "sessions", "channels", "events", "reload", "attach"])
def test_no_engine_is_told_in_one_line(program: Program, command: str) -> None:
    answer = program.run(command, "--socket", "nobody.sock")
    assert answer.code == 1
    assert answer.out == ""
    assert is_one_line(answer.err)
    assert "no engine is running at nobody.sock" in answer.err
    assert "tunnelconsole --daemon" in answer.err


def test_check_counts_the_services_of_a_good_configuration(program: Program, node: Daemon) -> None:
    answer = program.run("check", "-c", str(node.config))
    assert (answer.code, answer.out, answer.err) == (0, "config ok: 5 services\n", "")


def test_check_names_every_mistake_on_a_line_of_its_own(program: Program) -> None:
    config = program.write(
        "mistakes.toml",
        'version = 1\n[service.a]\nkind = "bridge"\n[service.b]\nkind = "relay-server"\nlisten = 5\n',
    )
    answer = program.run("check", "-c", str(config))
    assert answer.code == 1
    assert answer.out == ""
    first, second = answer.err.splitlines()
    assert first.startswith("tunnelconsole: service.a.kind: ")
    assert second.startswith("tunnelconsole: service.b.listen: ")
    document = json.loads(program.run("check", "--json", "-c", str(config)).out)
    assert document["ok"] is False
    assert [f"tunnelconsole: {problem}" for problem in document["problems"]] == [first, second]


def test_check_warns_of_secrets_that_others_can_read(program: Program) -> None:
    text = 'version = 1\n[service.a]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\nsecret = "hush"\n'
    config = program.write("open.toml", text, mode=0o644)
    answer = program.run("check", "-c", str(config))
    assert (answer.code, answer.out) == (0, "config ok: 1 service\n")
    assert is_one_line(answer.err)
    assert answer.err.endswith(f"run: chmod 600 {config}\n")
    (warning,) = json.loads(program.run("check", "--json", "-c", str(config)).ok())["warnings"]
    assert answer.err == f"tunnelconsole: warning: {warning}\n"


def test_check_without_a_configuration_says_where_it_looked(program: Program) -> None:
    answer = program.run("check")
    assert (answer.code, answer.out) == (0, "")
    assert is_one_line(answer.err)
    assert f"there is no configuration at {program.folder / 'config/tunnelconsole/config.toml'}: " in answer.err
    assert "-c FILE" in answer.err


@pytest.mark.parametrize("command", [["services"], ["events", "--follow"]], ids=["services", "events"])
def test_without_an_engine_and_a_configuration_both_places_are_told(program: Program, command: list[str]) -> None:
    answer = program.run(*command)
    assert answer.code == 1
    assert is_one_line(answer.err)
    assert f"no engine is running at {program.folder / 'run/tunnelconsole/control.sock'}; " in answer.err
    assert f"no configuration at {program.folder / 'config/tunnelconsole/config.toml'} " in answer.err


def test_an_engine_without_services_says_which_configuration_to_add_them_to(program: Program) -> None:
    configured = program.daemon("")
    answer = configured.ask("services")
    assert answer.ok() == ""
    assert f"add [service.NAME] tables to {configured.config}, then run" in answer.err
    socket_path = str(program.folder / "bare.sock")
    bare = program.start("--daemon", "--socket", socket_path)
    bare.says("ready\n")
    default = program.folder / "config/tunnelconsole/config.toml"
    assert f"write one to {default} and run" in program.run("services", "--socket", socket_path).err


@pytest.mark.parametrize("command", ["check", "status"])
def test_a_configuration_that_is_not_there_is_told(program: Program, command: str) -> None:
    answer = program.run(command, "-c", "none.toml")
    assert answer.code == 1
    assert is_one_line(answer.err)
    assert "none.toml" in answer.err


# what runs


@pytest.mark.parametrize("command", FLOOR)
def test_a_document_is_a_list_of_rows_with_the_promised_keys(
    node: Daemon, visitor: socket.socket, command: str
) -> None:
    rows = node.json(command)
    assert rows
    assert all(row.keys() >= set(FLOOR[command]) for row in rows)


def test_the_status_document_has_the_promised_keys(node: Daemon, visitor: socket.socket) -> None:
    status = node.json("status")
    assert status.keys() >= STATUS_FLOOR
    assert "type" not in status
    assert status["pid"] == node.process.popen.pid
    assert status["channels"] == 2  # in the client, and in the server


def test_status_prints_a_figure_a_line(node: Daemon, visitor: socket.socket) -> None:
    facts = dict(line.split(None, 1) for line in node.ask("status").ok().splitlines())
    assert facts["pid"] == str(node.process.popen.pid)
    assert facts["services"] == "5, 1 fault"
    assert facts["channels"] == "2"
    assert facts["config"] == str(node.config)


def test_services_prints_a_row_for_each(node: Daemon) -> None:
    heading, *rows = node.ask("services").ok().splitlines()
    assert heading.split()[:5] == ["NAME", "KIND", "STATE", "ADDRESS", "TARGET"]
    assert [row.split()[:2] for row in rows] == [
        ["home", "jump-server"],
        ["fixed", "jump-client"],
        ["edge", "relay-server"],
        ["nowhere", "relay-client"],
        ["spare", "relay-server"],
    ]
    assert "connection refused" in rows[3]


def test_sessions_show_who_it_is(node: Daemon, visitor: socket.socket) -> None:
    (row,) = node.json("sessions", "--service", "home")
    assert row["identity"] == "alice"
    assert row["channels"] == 1
    heading, line = node.ask("sessions", "--service", "home").ok().splitlines()
    assert heading.startswith("ID ")
    assert line.split()[:5] == [row["id"], "home", "jump-server", row["peer"], "alice"]


def test_channels_show_where_they_go_and_count_every_byte(
    node: Daemon, visitor: socket.socket, echo: EchoServer
) -> None:
    (row,) = node.json("channels", "--service", "home")
    assert row["label"] == echo.address
    assert (row["bytes_in"], row["bytes_out"]) == (5, 5)
    assert echo.address in node.ask("channels", "--session", row["session"]).ok()


def test_an_empty_table_prints_nothing_and_says_what_would_be_there(node: Daemon) -> None:
    answer = node.ask("sessions", "--service", "edge")
    assert answer.ok() == ""
    assert answer.err == "no sessions: nobody is attached to edge at the moment\n"
    assert node.json("sessions", "--service", "edge") == []


def test_events_end_with_the_newest(node: Daemon) -> None:
    node.ask("restart", "edge").ok()
    newest = node.json("events", "--limit", "3")
    assert len(newest) == 3
    assert [event["id"] for event in newest] == sorted(event["id"] for event in newest)
    assert "edge" in [event["service"] for event in newest]
    assert len(node.ask("events", "-n", "3").ok().splitlines()) == 4  # the headings, and three


def test_events_have_their_date_and_no_debug_unless_it_is_asked_for(node: Daemon) -> None:
    with connect(node.service("fixed")["address"]) as visitor:
        assert echoed(visitor, b"hello") == b"hello"
    until_true(lambda: node.json("channels") == [])
    everything = node.ask("events", "--level", "debug").ok()
    assert " channel-closed " in everything
    _, *lines = node.ask("events").ok().splitlines()
    assert lines
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (info|warning|error) ", line)
    warnings = node.ask("events", "--level", "warning").ok()
    assert " warning  nowhere " in warnings
    assert " info " not in warnings


def test_documents_of_events_have_every_level_unless_one_is_asked_for(node: Daemon) -> None:
    with connect(node.service("fixed")["address"]) as visitor:
        assert echoed(visitor, b"hello") == b"hello"
    until_true(lambda: node.json("channels") == [])
    assert "debug" in {row["level"] for row in node.json("events")}
    assert {row["level"] for row in node.json("events", "--level", "warning")} <= {"warning", "error"}


def test_a_level_without_events_says_so(node: Daemon) -> None:
    answer = node.ask("events", "--level", "error")
    assert answer.ok() == ""
    assert answer.err == "no events of level error or above: nothing of the kind has happened yet\n"


def test_following_events_of_a_level_leaves_out_those_below(program: Program, node: Daemon) -> None:
    following = program.start("events", "--follow", "--level", "info", "--json", "--socket", str(node.control))
    until_true(lambda: documents(following))
    with connect(node.service("fixed")["address"]) as visitor:
        assert echoed(visitor, b"hello") == b"hello"
    until_true(lambda: node.json("channels") == [])
    node.ask("restart", "edge").ok()
    last = node.json("events", "--level", "info", "--limit", "1")[0]["id"]
    until_true(lambda: documents(following)[-1]["id"] >= last)
    assert "debug" not in {row["level"] for row in documents(following)}
    following.sends(signal.SIGINT)
    assert following.returns() == 130


def test_following_events_goes_on_with_what_happens_and_misses_nothing(program: Program, node: Daemon) -> None:
    following = program.start("events", "--follow", "--json", "--socket", str(node.control))
    until_true(lambda: documents(following))
    before = node.json("events", "--limit", "1")[0]["id"]
    node.ask("restart", "edge").ok()
    last = node.json("events", "--limit", "1")[0]["id"]
    assert last > before
    until_true(lambda: documents(following)[-1]["id"] >= last)
    ids = [event["id"] for event in documents(following) if event["id"] >= before]
    assert ids == list(range(before, ids[-1] + 1))
    following.sends(signal.SIGINT)
    assert following.returns() == 130
    assert following.err == ""


def test_a_reader_that_goes_away_is_no_traceback(program: Program, node: Daemon) -> None:
    command = [program.path, "events", "--follow", "--socket", str(node.control)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as following:  # type: ignore[call-overload]
        following.stdout.readline()
        following.stdout.close()
        node.ask("restart", "edge").ok()
        assert following.wait(20) == 1
        assert following.stderr.read() == ""


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["with colour", "NO_COLOR"])
def test_faults_are_painted_on_a_terminal_unless_no_color_is_set(
    program: Program, node: Daemon, variables: dict[str, str]
) -> None:
    ours, theirs = pty.openpty()
    command = [program.path, "services", "--socket", str(node.control)]
    with subprocess.Popen(command, stdout=theirs, env=program.env | variables) as painter:
        printed = b""
        while b"spare" not in printed:
            printed += os.read(ours, 1 << 16)
        assert painter.wait(20) == 0
    os.close(ours)
    os.close(theirs)
    assert (b"\x1b[33mbackoff" in printed) is not bool(variables)
    assert b"backoff" in printed


# steering


def test_a_service_is_stopped_started_and_restarted(node: Daemon) -> None:
    for command, state in (("stop", "stopped"), ("start", "listening"), ("restart", "listening")):
        assert "edge" in node.ask(command, "edge").ok()
        node.reaches("edge", state)


def test_a_service_that_is_not_there_is_refused_with_those_that_are(node: Daemon) -> None:
    answer = node.ask("start", "hoem")
    assert answer.code == 1
    assert is_one_line(answer.err)
    assert "hoem" in answer.err
    assert "edge, fixed, home" in answer.err


def test_a_kicked_session_is_cut(node: Daemon) -> None:
    with connect(node.service("fixed")["address"]) as visitor:
        assert echoed(visitor, b"hello") == b"hello"
        (row,) = node.json("sessions", "--service", "home")
        assert row["peer"] in node.json("kick", row["id"])["text"]
        with pytest.raises(ConnectionResetError):
            visitor.recv(1)
    until_true(lambda: node.json("sessions", "--service", "home") == [])


def test_reload_says_what_it_did(node: Daemon) -> None:
    assert "5 untouched" in node.ask("reload").ok()


def test_a_preview_of_a_reload_names_what_would_change_and_who_would_be_cut_and_changes_nothing(node: Daemon) -> None:
    good = node.config.read_text()
    before = node.json("services")
    with connect(node.service("fixed")["address"]) as visitor:
        assert echoed(visitor, b"hello") == b"hello"
        node.config.write_text(
            good.replace("[service.fixed]", '[service.fixed]\nlimits = { handshake_timeout = "9s" }')
        )
        try:
            answer = node.ask("reload", "--preview")
            assert answer.code == 0, answer
            assert "fixed, a jump-client: replaced (limits.handshake_timeout), 1 session ends, 1 channel" in answer.out
            document = node.json("reload", "--preview")
            (row,) = document["changes"]
            assert (row["name"], row["keys"]) == ("fixed", ["limits.handshake_timeout"])
        finally:
            node.config.write_text(good)
        assert echoed(visitor, b"still here") == b"still here"
    assert [(row["name"], row["since"]) for row in node.json("services")] == [
        (row["name"], row["since"]) for row in before
    ]


def test_reload_of_a_wrong_configuration_names_the_mistake(node: Daemon) -> None:
    good = node.config.read_text()
    node.config.write_text(good.replace('kind = "relay-client"', 'kind = "relay-clinet"'))
    try:
        for command in (("reload",), ("reload", "--preview")):
            answer = node.ask(*command)
            assert answer.code == 1
            assert "service.nowhere.kind" in answer.err
    finally:
        node.config.write_text(good)


# what is loaded


def loaded_by_status(*options: str) -> set[str]:
    """The modules that are loaded once ``tunnelconsole status`` has answered."""
    code = "import sys; from tunnelconsole.cli import main; main(); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, "status", *options]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


def test_a_question_to_the_engine_does_not_wait_for_the_console_to_load(node: Daemon) -> None:
    assert loaded_by_status("--config", str(node.config)).isdisjoint({"textual", "tunnelconsole.screens.app"})


def test_a_question_to_a_socket_does_not_wait_for_the_engine_to_load(node: Daemon) -> None:
    loaded = loaded_by_status("--socket", str(node.control))
    assert {"tunnelconsole.control.client", "tunnelconsole.engine.engine"} & loaded == {"tunnelconsole.control.client"}
