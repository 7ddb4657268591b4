"""``tunnelconsole channel``: standard input and output through a channel server, in pipes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from channel_client_peers import Kind, meddler
from complaint import is_one_line
from installed import Daemon, Process, Program
from tunnelconsole.engine.wire.sealed_records import Kind as RecordKind
from waiting import until_true

PASSWORD = "only for these tests"

SOON = """
import sys

from tunnelconsole.cli import main
from tunnelconsole.engine.services.channel import sealed_vigil

sealed_vigil.TICK, sealed_vigil.OPEN_CONFIRM_TIME = 0.2, 1.0
sys.exit(main())
"""
"""The command, which does not wait as long as it else does for an end that is gone."""

SERVICES = """
[service.hub]
kind = "channel-server"
listen = "127.0.0.1:0"

[service.closed]
kind = "channel-server"
listen = "127.0.0.1:0"
handshake_password = "{password}"

[service.open]
kind = "channel-server"
listen = "127.0.0.1:0"
mode = "broadcast"

[service.sealed]
kind = "channel-server"
listen = "127.0.0.1:0"
[service.sealed.tls]
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("channel"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def node(program: Program) -> Daemon:
    """A daemon with the channel servers."""
    return program.daemon(SERVICES.format(password=PASSWORD))


@pytest.fixture(scope="module")
def key(program: Program) -> str:
    """The file with a key."""
    return str(program.write("pair.key", "only the two of us know\n"))


class Piped:
    """The command, with pipes around it."""

    def __init__(self, program: Program, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process: Process = program.start("channel", *arguments, env=env, stdin=subprocess.PIPE)

    def write(self, data: bytes) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(data)
        self.process.popen.stdin.flush()

    def close(self) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.close()


def joined(node: Daemon, service: str, *chids: str) -> None:
    """Waits until these are there."""

    def there() -> bool:
        labels = [row["label"] for row in node.json("channels", "--service", service)]
        return all(any(label.startswith(f"{chid} ->") for label in labels) for chid in chids)

    until_true(there)


@pytest.mark.parametrize("way", ["plain", "password", "tls", "key"])
def test_what_goes_in_at_one_end_comes_out_at_the_other(program: Program, node: Daemon, key: str, way: str) -> None:
    service = {"password": "closed", "tls": "sealed"}.get(way, "hub")
    options = ["--server", node.address(service)]
    if way == "password":
        options += ["--password-file", str(program.write("hub.password", PASSWORD))]
    elif way == "tls":
        options += ["--fingerprint", node.service("sealed")["notes"]["fingerprint"]]
    elif way == "key":
        options += ["--key-file", key]
    ends = [Piped(program, name, "--to", other, *options) for name, other in (("a", "b"), ("b", "a"))]
    joined(node, service, "a", "b")
    for number, end in enumerate(ends):
        end.write(b"from %d" % number)
    for end in ends:
        end.close()
    assert [end.process.returns() for end in ends] == [0, 0]
    assert [(end.process.out, end.process.err) for end in ends] == [("from 1", ""), ("from 0", "")]


def test_with_a_key_it_works_in_a_pipe_whoever_comes_first(program: Program, node: Daemon, key: str) -> None:
    channel = f"{program.path} channel --server {node.address('hub')} --key-file {key}"
    script = f"{channel} inbox </dev/null >received & echo hello | {channel} outbox && wait && cat received"
    assert program.run_other(["sh", "-c", script]).ok() == "hello\n"


def test_it_goes_to_those_who_are_named_and_to_nobody_else(program: Program, node: Daemon) -> None:
    options = ["--server", node.address("hub")]
    speaker = Piped(program, "speaker", "--to", "b1, b2", *options)
    listeners = [Piped(program, name, "--to", "nobody", *options) for name in ("b1", "b2", "b3")]
    joined(node, "hub", "speaker", "b1", "b2", "b3")
    speaker.write(b"to two of you")
    for listener in listeners[:2]:
        listener.process.says("to two of you")
    assert listeners[2].process.out == ""


@pytest.mark.parametrize("way", ["plain", "key"])
def test_in_a_broadcast_it_goes_to_everybody_else(program: Program, node: Daemon, key: str, way: str) -> None:
    options = ["--broadcast", "--server", node.address("open"), *(["--key-file", key] if way == "key" else [])]
    ends = [Piped(program, *options, env={"TUNNELCONSOLE_SECRET": PASSWORD}) for _ in range(3 if way == "plain" else 2)]
    until_true(lambda: len(node.json("channels", "--service", "open")) == len(ends))
    for speaker in ends[:2]:
        speaker.write(b"hello ")
    for number, end in enumerate(ends):
        end.process.says("hello " if number < 2 else "hello hello ")
    for end in ends:
        end.close()
    assert [end.process.returns() for end in ends] == [0] * len(ends)
    assert [end.process.out for end in ends][:2] == ["hello ", "hello "]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["me", "--broadcast"], "--broadcast takes no CHID"),
        (["--broadcast", "--to", "you"], "--broadcast takes no --to"),
        (["--broadcast", "--password-file", "hub.password"], "--broadcast takes no --password-file"),
        ([], "missing argument CHID; or give --broadcast"),
    ],
    ids=["chid", "receivers", "password", "nothing"],
)
def test_what_cannot_be_in_a_broadcast_is_wrong_usage(program: Program, arguments: list[str], cause: str) -> None:
    answer = program.run("channel", *arguments, "--server", "127.0.0.1:1")
    assert (answer.code, answer.out) == (2, "")
    assert is_one_line(answer.err)
    assert cause in answer.err


def test_the_password_may_come_from_the_environment(program: Program, node: Daemon) -> None:
    end = Piped(program, "env", "--server", node.address("closed"), env={"TUNNELCONSOLE_SECRET": PASSWORD})
    joined(node, "closed", "env")
    end.close()
    assert end.process.returns() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_with_a_key_a_signal_that_ends_one_end_is_an_error_at_the_other(
    program: Program, node: Daemon, key: str, number: signal.Signals
) -> None:
    options = ["--server", node.address("hub"), "--key-file", key]
    ends = [Piped(program, name, "--to", other, *options) for name, other in (("c", "d"), ("d", "c"))]
    for end in ends:
        end.write(b"half a")
    for end in ends:
        end.process.says("half a")
    ends[0].process.sends(number)
    assert ends[1].process.returns() == 1
    assert is_one_line(ends[1].process.err)
    assert "the other end broke off" in ends[1].process.err
    code = ends[0].process.returns()
    assert code == (130 if number == signal.SIGINT else -number)
    assert ends[0].process.err == ""


def test_with_a_key_an_end_that_is_killed_is_an_error_at_one_that_has_something_for_it(
    program: Program, node: Daemon, key: str
) -> None:
    options = ["--server", node.address("hub"), "--key-file", key]
    killed = Piped(program, "k", "--to", "l", *options)
    survivor = program.start_other(
        [sys.executable, "-c", SOON, "channel", "l", "--to", "k", *options], stdin=subprocess.PIPE
    )
    stdin = survivor.popen.stdin
    assert stdin is not None
    for pipe in (stdin, killed.process.popen.stdin):
        assert pipe is not None
        pipe.write(b"hello")
        pipe.flush()
    for end in (killed.process, survivor):
        end.says("hello")
    killed.process.sends(signal.SIGKILL)
    assert killed.process.returns() == -signal.SIGKILL
    stdin.write(b"are you there?")
    stdin.flush()
    assert survivor.returns() == 1
    assert is_one_line(survivor.err)
    assert "has not confirmed within 1 s that it has all that was sent" in survivor.err


@pytest.mark.parametrize("way", ["plain", "key"])
def test_what_was_written_just_before_a_hangup_is_still_sent(
    program: Program, node: Daemon, key: str, way: str
) -> None:
    options = ["--server", node.address("hub"), *(["--key-file", key] if way == "key" else [])]
    ends = [Piped(program, name, "--to", other, *options) for name, other in (("e", "f"), ("f", "e"))]
    joined(node, "hub", "e", "f")
    for end in ends:
        end.write(b"hello")
    for end in ends:
        end.process.says("hello")
    ends[0].write(b", and goodbye")
    ends[0].process.sends(signal.SIGHUP)
    ends[0].close()
    ends[1].process.says("hello, and goodbye")
    assert ends[0].process.returns() == -signal.SIGHUP


@pytest.mark.parametrize("way", ["dropped", "changed", "repeated"])
@pytest.mark.parametrize("chid", ["g", "h"])
async def test_with_a_key_both_ends_fail_when_the_server_tampers_with_how_one_of_them_ends(
    program: Program, key: str, chid: str, way: str
) -> None:
    def tamper(sender: str, kind: Kind, _number: int, data: bytes) -> list[bytes]:
        if (sender, kind) != (chid, "record") or data[0] >> 6 != RecordKind.END:
            return [data]
        return {"dropped": [], "changed": [data[:-1] + bytes([data[-1] ^ 1])], "repeated": [data, data]}[way]

    async with meddler(tamper) as server:
        options = ["--server", str(server.address), "--key-file", key]
        ends = [Piped(program, name, "--to", other, *options) for name, other in (("g", "h"), ("h", "g"))]
        for end in ends:
            end.write(b"all there is")
            end.close()
        codes = [await asyncio.to_thread(end.process.returns) for end in ends]
    assert codes == [1, 1]
    for end in ends:
        assert is_one_line(end.process.err)
        assert "sealed" in end.process.err


def test_a_server_that_goes_is_an_error(program: Program, key: str) -> None:
    own = program.daemon('[service.hub]\nkind = "channel-server"\nlisten = "127.0.0.1:0"\n')
    ends = [
        Piped(program, name, "--server", own.address("hub"), *options)
        for name, options in (("x", []), ("y", ["--key-file", key]))
    ]
    joined(own, "hub", "x", "y")
    own.ask("stop", "hub").ok()
    for end in ends:
        assert end.process.returns() == 1
        assert is_one_line(end.process.err)
        assert "the connection broke off" in end.process.err


@pytest.mark.parametrize(
    ("service", "options", "env", "code", "cause"),
    [
        ("closed", [], {}, 1, "give the handshake password"),
        ("closed", [], {"TUNNELCONSOLE_SECRET": "not the password"}, 1, "check the handshake password"),
        ("sealed", ["--tls"], {}, 1, "--fingerprint"),
        ("hub", ["--to", "two words"], {}, 1, "a chid is made of printable characters without spaces"),
        ("hub", ["--key-file", "nowhere.key"], {}, 1, "--key-file: cannot read nowhere.key"),
        ("hub", ["--password-file", "nowhere.key"], {}, 1, "--password-file: cannot read nowhere.key"),
        ("hub", ["--json"], {}, 2, "--json is for commands that print data"),
    ],
    ids=["no password", "wrong password", "certificate", "receiver", "key file", "password file", "json"],
)
def test_it_says_what_is_wrong(
    program: Program, node: Daemon, service: str, options: list[str], env: dict[str, str], code: int, cause: str
) -> None:
    answer = program.run("channel", "me", "--server", node.address(service), *options, env=env)
    assert (answer.code, answer.out) == (code, "")
    assert is_one_line(answer.err)
    assert cause in answer.err
    assert "not the password" not in answer.err


def test_a_chid_that_another_has_is_told(program: Program, node: Daemon) -> None:
    file = program.write("alice.password", PASSWORD)
    passwords = f'passwords = {{ alice = "{PASSWORD}", bob = "another" }}\n'
    own = program.daemon(f'[service.hub]\nkind = "channel-server"\nlisten = "127.0.0.1:0"\n{passwords}')
    Piped(program, "desk", "--server", own.address("hub"), "--password-file", str(file))
    joined(own, "hub", "desk")
    bob = {"TUNNELCONSOLE_SECRET": "another"}
    answer = program.run("channel", "desk", "--server", own.address("hub"), env=bob)
    assert (answer.code, answer.err) == (
        1,
        "tunnelconsole: the channel server did not let us in: chid desk is taken\n",
    )


def test_a_key_file_that_everybody_can_read_is_refused(program: Program, node: Daemon) -> None:
    file = program.write("open.key", "secret", mode=0o644)
    answer = program.run("channel", "me", "--server", node.address("hub"), "--key-file", str(file))
    assert answer.code == 1
    assert "chmod 600" in answer.err


def test_without_a_key_it_does_not_load_the_ciphers(program: Program, node: Daemon) -> None:
    watched = program.run("channel", "me", "--server", node.address("hub"), env={"PYTHONVERBOSE": "1"})
    assert watched.code == 0
    assert "cryptography" not in watched.err
