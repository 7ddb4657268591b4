"""A token from its making to its end, with the installed program and nothing else."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Process, Program
from waiting import until_true

pytestmark = pytest.mark.e2e

WITHIN = 1.0
"""Seconds in which the sessions of a token that is revoked end."""

COMMAND = 5.0
"""Seconds that the commands around it may take on a busy machine."""

SERVICES = """
[service.edge]
kind = "relay-server"
listen = "127.0.0.1:0"
require_token = true

[service.home]
kind = "jump-server"
listen = "127.0.0.1:0"
require_token = true
allow = ["127.0.0.1:*"]
"""


@pytest.fixture
def program(program_anew: Program) -> Program:
    """What ``ps`` shows of it is looked at."""
    return program_anew


@pytest.fixture
def daemon(program: Program) -> Daemon:
    return program.daemon(SERVICES, engine='log_level = "debug"')


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


def made(daemon: Daemon, *options: str, name: str = "alice") -> Path:
    """The file with the secret of a new token."""
    return daemon.program.write(f"{name}.token", daemon.ask("token", "create", name, *options).ok())


def forwarding(daemon: Daemon, echo: EchoServer, token: Path) -> tuple[Process, str]:
    """A relay client with this token, and its public address."""
    server = daemon.address("edge")
    client = daemon.program.start("tcp", echo.address, "--server", server, "--token-file", str(token), "--json")
    client.says("}")
    return client, json.loads(client.out)["address"]


def test_a_client_works_by_its_token_until_that_is_revoked(daemon: Daemon, echo: EchoServer) -> None:
    token = made(daemon, "--kind", "relay", "--rate", "50MB/s")
    client, address = forwarding(daemon, echo, token)
    with closing(connect(address)) as visitor:
        assert echoed(visitor, b"ping") == b"ping"
        (row,) = daemon.json("token", "list")
        assert (row["name"], row["state"], row["sessions"], row["rights"]["kinds"]) == ("alice", "active", 1, ["relay"])
        assert [session["identity"] for session in daemon.json("sessions")] == ["alice"]
        assert [channel["identity"] for channel in daemon.json("channels")] == ["alice"]
        since = time.monotonic()
        assert "revoked, and 1 session of it ended" in daemon.ask("token", "revoke", "alice").ok()
        with pytest.raises(ConnectionResetError):
            echoed(visitor, b"are you there?")
        until_true(lambda: not daemon.json("sessions"))
        assert time.monotonic() - since < WITHIN + COMMAND
    assert client.returns() == 1
    assert "the token is not known here" in client.err
    assert daemon.json("token", "list") == []


def test_who_brings_no_token_is_told_so(daemon: Daemon, echo: EchoServer) -> None:
    client = daemon.program.start("tcp", echo.address, "--server", daemon.address("edge"))
    client.says("a token is needed here")


def test_tokens_outlive_the_daemon_and_so_does_their_being_revoked(daemon: Daemon, echo: EchoServer) -> None:
    kept, gone = made(daemon), made(daemon, name="bob")
    daemon.ask("token", "revoke", "bob").ok()
    daemon.is_killed()
    daemon.start()
    _, address = forwarding(daemon, echo, kept)
    with closing(connect(address)) as visitor:
        assert echoed(visitor, b"ping") == b"ping"
    jump = ("jump", echo.address, "--via", daemon.address("home"), "--secret-file")
    assert daemon.program.run(*jump, str(kept), stdin="through").ok() == "through"
    assert "secret" in daemon.program.run(*jump, str(gone), stdin="through").err


def test_a_secret_is_nowhere_but_where_it_was_printed(daemon: Daemon, echo: EchoServer) -> None:
    token = made(daemon)
    client, _ = forwarding(daemon, echo, token)
    rotated = daemon.ask("token", "rotate", "alice", "--overlap", "0s").ok()
    daemon.ask("token", "change", "alice", "--rate", "1MB/s", "--disable").ok()
    client.says("the token is not known here")
    secrets = [token.read_text().strip(), rotated.strip()]
    assert all(secret.startswith("tc_") for secret in secrets)
    processes = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    seen = [
        daemon.process.said,
        client.said,
        json.dumps([daemon.json("events", "--level", "debug"), daemon.json("audit"), daemon.json("token", "list")]),
        " ".join(word for process in processes for word in process),
    ]
    files = [file.read_bytes() for file in (daemon.folder / "state").rglob("*") if file.is_file()]
    for secret in secrets:
        assert not any(secret in text for text in seen)
        assert not any(secret.encode() in data for data in files)


IMPOSSIBLE = {
    "--port 0": "leave ports out for any",
    "--rate fast": '"fast" is not a rate',
    "--kind telepathy": "telepathy",
    "--sessions many": "--sessions: 'many' is not a number",
    "--expires soon": '--expires: "soon" is not a duration',
    "--expires 0s": "would have expired already",
}


def test_what_a_token_cannot_be_is_said(daemon: Daemon) -> None:
    for options, reason in IMPOSSIBLE.items():
        refused = daemon.ask("token", "create", "alice", *options.split())
        assert refused.code in (1, 2), options
        assert reason in refused.err
    assert daemon.json("token", "list") == []


def test_a_secret_goes_into_a_file_for_its_owner_alone_and_only_when_it_was_made(daemon: Daemon) -> None:
    file, missing = daemon.program.folder / "alice.token", daemon.program.folder / "missing" / "alice.token"
    assert "nothing was done" in daemon.ask("token", "create", "alice", "--out", str(missing)).err
    assert (
        "would have expired already"
        in daemon.ask("token", "create", "alice", "--expires", "0s", "--out", str(file)).err
    )
    assert not file.exists()
    assert daemon.json("token", "list") == []
    assert daemon.ask("token", "create", "alice", "--out", str(file)).ok() == ""
    first = file.read_text()
    assert first.startswith("tc_")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists already" in daemon.ask("token", "create", "bob", "--out", str(file)).err
    assert "there is no token bob" in daemon.ask("token", "rotate", "bob", "--out", str(file)).err
    assert file.read_text() == first
    assert "more" not in daemon.ask("token", "list").ok()
    daemon.ask("token", "rotate", "alice", "--overlap", "1h", "--out", str(file)).ok()
    assert re.search(r"alice +active +never +(59m|1h)\S* more", daemon.ask("token", "list").ok())
    assert file.read_text().startswith("tc_")
    assert file.read_text() != first
    assert [each.name for each in file.parent.glob("*.new")] == []


def test_a_file_that_holds_no_token_is_named(daemon: Daemon) -> None:
    file = daemon.program.write("wrong.token", "hunter2")
    refused = daemon.program.run("tcp", "22", "--server", daemon.address("edge"), "--token-file", str(file))
    assert f"{file} holds no token" in refused.err
    assert "hunter2" not in refused.err


def test_the_key_of_sealed_secrets_is_for_nobody_else(daemon: Daemon) -> None:
    made(daemon, "--kind", "jump")
    key = daemon.folder / "state" / "tokens.key"
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, os.geteuid())
