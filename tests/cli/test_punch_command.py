"""``tunnelconsole punch`` and ``nat``: standard input and output through a punched connection, in pipes."""

from __future__ import annotations

import http.server
import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from complaint import is_one_line
from echo import EchoServer
from installed import Daemon, Process, Program
from ports import steady_port, steady_ports
from waiting import until_true

SECRET = "only for these tests"

SERVICES = """
[service.meet]
kind = "punch-server"
listen = "127.0.0.1:{port}"

[service.sealed]
kind = "punch-server"
listen = "127.0.0.1:0"
[service.sealed.tls]
"""

CLIENT = """
[service.to-desk]
kind = "punch-client"
server = "{server}"
room = "service"
secret = "{secret}"
target = "{target}"
"""


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("punch"))
    program.env["TUNNELCONSOLE_SECRET"] = SECRET
    yield program
    program.close()


@pytest.fixture(scope="module")
def node(program: Program) -> Daemon:
    """A daemon with the rendezvous."""
    return program.daemon(SERVICES.format(port=steady_ports(3)))


class Piped:
    """The command, with pipes around it."""

    def __init__(self, program: Program, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process: Process = program.start("punch", *arguments, env=env, stdin=subprocess.PIPE)

    def write(self, data: bytes) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(data)
        self.process.popen.stdin.flush()

    def close(self) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.close()


def pair(program: Program, room: str, *options: str) -> list[Piped]:
    return [Piped(program, room, *options) for _ in range(2)]


def exchanged(ends: list[Piped]) -> None:
    """Both ends say something, and hear the other, and are content."""
    for number, end in enumerate(ends):
        end.write(b"from %d" % number)
    for number, end in enumerate(ends):
        end.process.says(f"from {1 - number}")
    for end in ends:
        end.close()
    assert [end.process.returns() for end in ends] == [0, 0], [end.process.said for end in ends]
    assert [end.process.out for end in ends] == ["from 1", "from 0"]


def test_what_goes_in_at_one_end_comes_out_at_the_other_and_it_says_which_way(program: Program, node: Daemon) -> None:
    ends = pair(program, "plain", "--server", node.address("meet"))
    for end in ends:
        end.process.says("direct: ")
        end.process.says("through the relay")
    assert sum("waiting in room plain" in end.process.err for end in ends) == 1
    exchanged(ends)


def test_it_stays_on_the_relay_when_told_to(program: Program, node: Daemon) -> None:
    ends = pair(program, "relayed", "--server", node.address("meet"), "--relay-only")
    for end in ends:
        end.process.says("through the relay")
    exchanged(ends)
    assert all("direct" not in end.process.err for end in ends)


def test_it_reaches_the_server_through_tls(program: Program, node: Daemon) -> None:
    fingerprint = node.service("sealed")["notes"]["fingerprint"]
    exchanged(pair(program, "tls", "--server", node.address("sealed"), "--fingerprint", fingerprint))


def test_it_works_in_a_pipe_whoever_comes_first(program: Program, node: Daemon) -> None:
    punch = f"{program.path} punch pipe --server {node.address('meet')}"
    script = f"{punch} </dev/null >received 2>/dev/null & echo hello | {punch} 2>/dev/null && wait && cat received"
    assert program.run_other(["sh", "-c", script]).ok() == "hello\n"


def test_the_other_end_may_be_a_service(program: Program, node: Daemon, echo: EchoServer) -> None:
    other = program.daemon(CLIENT.format(server=node.address("meet"), secret=SECRET, target=echo.address))
    end = Piped(program, "service", "--server", node.address("meet"))
    end.write(b"hello, service")
    end.process.says("hello, service")
    end.close()
    assert end.process.returns() == 0
    assert other.stops() == 0


def test_it_tells_attempts_in_full_when_asked(program: Program, node: Daemon) -> None:
    ends = pair(program, "verbose", "--server", node.address("meet"), "--verbose")
    for end in ends:
        end.process.says("direct: ")
    exchanged(ends)
    for end in ends:
        assert "here: no NAT" in end.process.err
        assert " ms: both are ready, the race begins" in end.process.err
        assert "attempt p1: direct, " in end.process.err
        assert "attempt p2" not in end.process.err


def test_somebody_with_another_secret_is_told_of_at_once(program: Program, node: Daemon) -> None:
    options = ["secret", "--server", node.address("meet")]
    ours = Piped(program, *options)
    ours.process.says("waiting in room secret")
    theirs = Piped(program, *options, "--wait", "1s", env={"TUNNELCONSOLE_SECRET": "not the secret"})
    for end in (ours, theirs):
        end.process.says("somebody else is in room secret with another secret")
    assert theirs.process.returns() == 1
    assert "nobody else came to room secret within 1 s" in theirs.process.err
    assert "not the secret" not in theirs.process.err
    assert ours.process.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_was_written_just_before_a_signal_is_still_sent(
    program: Program, node: Daemon, number: signal.Signals
) -> None:
    ends = pair(program, number.name, "--server", node.address("meet"))
    for end in ends:
        end.write(b"hello")
    for end in ends:
        end.process.says("hello")
    ends[0].write(b", and goodbye")
    ends[0].process.sends(number)
    ends[0].close()
    ends[1].process.says("hello, and goodbye")
    assert ends[0].process.returns() == -number


def test_an_end_that_is_killed_is_an_error_at_the_other(program: Program, node: Daemon) -> None:
    ends = pair(program, "killed", "--server", node.address("meet"), "--relay-only")
    for end in ends:
        end.write(b"hello")
    for end in ends:
        end.process.says("hello")
    ends[0].process.sends(signal.SIGINT)
    assert ends[0].process.returns() == 130
    assert ends[1].process.returns() == 1
    assert "the connection broke off" in ends[1].process.err


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (["desk"], 2, "--server is missing"),
        (["desk", "--server", "{meet}", "--peer", "a:1"], 2, "--peer is for a connection by hand"),
        (["--relay-only"], 2, "--relay-only is for a ROOM"),
        (["--server", "{meet}", "--public-from", "http://a/"], 2, "exclude each other"),
        (["r" * 65, "--server", "{meet}"], 2, ": ROOM must have 1 to 64 characters"),
        (["--peer", ""], 2, "has no port; expected host:port"),
        (["--peer", "203.0.113.2:40000,desk"], 2, "'desk' has no port; expected host:port"),
        (["--peer", ",".join(["203.0.113.2:40000"] * 17)], 2, "at most 16 addresses are tried, not 17"),
        (["--peer", "a:1", "--public-from", "file:///etc/hostname"], 2, "begins with http:// or https://"),
        (["--peer", "a:1", "--public-from", "http://me:secret@a/"], 2, "begins with http:// or https://, and a host"),
        (["--peer", "a:1", "--public-from", "http:///"], 2, "begins with http:// or https://"),
        (["desk", "--server", "{meet}", "--wait", "soon"], 2, "is not a duration"),
        (["desk", "--server", "{meet}", "--json"], 2, "--json is for commands that print data"),
        (["desk", "--server", "{meet}", "--secret-file", "nowhere"], 1, "--secret-file: cannot read nowhere"),
        (["desk", "--server", "{nobody}"], 1, "cannot reach the punch server"),
        (["desk", "--server", "{sealed}", "--tls"], 1, "--fingerprint"),
        (["desk", "--server", "{meet}", "--wait", "100ms"], 1, "nobody else came to room desk within 0.1 s"),
    ],
)
def test_it_says_what_is_wrong(program: Program, node: Daemon, arguments: list[str], code: int, cause: str) -> None:
    where = {name: node.address(name) for name in ("meet", "sealed")} | {"nobody": f"127.0.0.1:{steady_port()}"}
    answer = program.run("punch", *(argument.format(**where) for argument in arguments))
    assert (answer.code, answer.out) == (code, "")
    assert cause in answer.err.splitlines()[-1]


def test_a_missing_secret_is_wrong_usage(program: Program, node: Daemon) -> None:
    answer = program.run("punch", "desk", "--server", node.address("meet"), env={"TUNNELCONSOLE_SECRET": ""})
    assert answer.code == 2
    assert "give --secret-file, or set TUNNELCONSOLE_SECRET" in answer.err


# By hand


def test_by_hand_two_users_who_know_each_others_addresses_connect(program: Program, node: Daemon) -> None:
    one, other = steady_port(), steady_port()
    ends = [
        Piped(program, "--port", str(one), "--peer", f"127.0.0.1:{other}", "--server", node.address("meet")),
        Piped(program, "--port", str(other), "--peer", f"127.0.0.1:{one}", "--verbose"),
    ]
    ends[0].process.says(f"public address 127.0.0.1:{one}")
    ends[1].process.says("public address not known")
    for end in ends:
        end.process.says("direct: 127.0.0.1:")
    exchanged(ends)
    assert f"127.0.0.1:{one} is chosen" in ends[1].process.err


def test_by_hand_it_asks_for_the_addresses_at_the_terminal(program: Program) -> None:
    one, other = steady_port(), steady_port()
    leader, follower = pty.openpty()
    asking = subprocess.Popen(
        [program.path, "punch", "--port", str(one)],
        env=program.env,
        cwd=program.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(follower), os.O_RDWR)),  # noqa: PLW1509 - makes it its terminal
    )
    try:
        shown = b""
        while b"addresses of the other side" not in shown:
            shown += os.read(leader, 1024)
        known = Piped(program, "--port", str(other), "--peer", f"127.0.0.1:{one}")
        os.write(leader, f"127.0.0.1:{other}\n".encode())
        known.write(b"hello")
        known.close()
        out, _ = asking.communicate(b"and hello", timeout=20)
        assert out == b"hello"
        known.process.says("and hello")
        assert (asking.returncode, known.process.returns()) == (0, 0)
    finally:
        asking.kill()
        asking.wait()
        os.close(leader)
        os.close(follower)


def test_by_hand_without_a_terminal_the_addresses_are_missing(program: Program) -> None:
    answer = program.run("punch")
    assert (answer.code, answer.out) == (1, "")
    assert "give --peer" in answer.err.splitlines()[-1]


def test_by_hand_the_public_address_comes_from_whom_the_user_names(program: Program) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"203.0.113.9\n")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.handle_request, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    nobody = f"127.0.0.1:{steady_port()}"
    answer = program.run("punch", "--peer", nobody, "--public-from", url, "--wait", "100ms")
    server.server_close()
    assert "public address 203.0.113.9:" in answer.err
    assert answer.code == 1
    assert f"no connection within 0.1 s: {nobody} refused" in answer.err


# nat


def test_nat_tells_in_words_and_in_a_document(program: Program, node: Daemon) -> None:
    words = program.run("nat", "--server", node.address("meet")).ok()
    document = json.loads(program.run("nat", "--server", node.address("meet"), "--json").ok())
    assert document["mapping"] == "none"
    assert document["words"] in words
    assert document["prospects"] in words
    assert document["prospects"].startswith("direct with everybody")
    assert [entry["address"] for entry in document["seen"]] == [document["local"]] * len(document["seen"])


def test_nat_says_who_cannot_be_reached(program: Program) -> None:
    answer = program.run("nat", "--server", f"127.0.0.1:{steady_port()}")
    assert (answer.code, answer.out) == (1, "")
    assert is_one_line(answer.err)
    assert "cannot reach the punch server" in answer.err


def test_it_is_in_no_room_any_more_once_it_has_ended(program: Program, node: Daemon) -> None:
    exchanged(pair(program, "left", "--server", node.address("meet")))
    until_true(lambda: not any(row["label"] == "room left" for row in node.json("channels")))
