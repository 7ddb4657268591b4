"""A secret is nowhere but where it was written: not in a log, an answer, a process list, an error or the state."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Done, Program
from ports import steady_port
from waiting import until_true

pytestmark = pytest.mark.e2e

INLINE, NAMED, FILED, FROM_VARIABLE, WRONG = (f"hush-{word}-5e2a" for word in ("inline", "named", "filed", "var", "no"))
SECRETS = (INLINE, NAMED, FILED, FROM_VARIABLE, WRONG)

VARIABLES = {"HOME_SECRET": FROM_VARIABLE}

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
allow = ["127.0.0.1:*"]
secret = "{INLINE}"
[service.home.secrets]
alice = "{NAMED}"
bob = "${{HOME_SECRET}}"
carol_file = "{file}"

[service.via-inline]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "{INLINE}"
listen = "127.0.0.1:0"
target = "{target}"

[service.via-file]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret_file = "{file}"
listen = "127.0.0.1:0"
target = "{target}"

[service.via-variable]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "${{HOME_SECRET}}"
listen = "127.0.0.1:0"
target = "{target}"

[service.via-wrong]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "{WRONG}"
listen = "127.0.0.1:0"
target = "{target}"
"""

QUESTIONS = ("status", "services", "sessions", "channels", "events")


@pytest.fixture
def program(program_anew: Program) -> Program:
    """What ``ps`` shows of it is looked at."""
    return program_anew


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def daemon(program: Program, echo: EchoServer) -> Daemon:
    """A daemon with a secret in every place where one can be, which says all that it can say."""
    file = program.write("carol.secret", f"{FILED}\n")
    names = {"INLINE": INLINE, "NAMED": NAMED, "WRONG": WRONG}
    services = SERVICES.format(home=steady_port(), file=file, target=echo.address, **names)
    return program.daemon(services, engine='log_level = "debug"', env=VARIABLES)


def assert_hushed(text: str) -> None:
    """Makes sure that no secret is in a text."""
    assert not [secret for secret in SECRETS if secret in text], text


def use(daemon: Daemon) -> None:
    """Sends somebody through each client, the one with the wrong secret too."""
    for service in ("via-inline", "via-file", "via-variable"):
        with connect(daemon.address(service)) as visitor:
            assert echoed(visitor, b"hello") == b"hello"
    with suppress(ConnectionResetError), connect(daemon.address("via-wrong")):  # cut off as soon as it is refused
        pass
    daemon.process.says("wrong secret")
    until_true(lambda: daemon.service("via-wrong")["state"] == "failed")


def test_no_answer_and_no_log_line_shows_one(daemon: Daemon) -> None:
    use(daemon)
    for question in QUESTIONS:
        assert_hushed(daemon.ask(question).ok())
        assert_hushed(daemon.ask(question, "--json").ok())
    daemon.process.sends(signal.SIGABRT)  # where a fault's traceback would go, with the values that it shows
    daemon.process.returns()
    assert "Fatal Python error: Aborted" in daemon.process.err
    assert_hushed(daemon.process.said)


def test_no_process_shows_one_in_its_arguments(program: Program, daemon: Daemon, echo: EchoServer) -> None:
    home = daemon.address("home")
    secret = {"TUNNELCONSOLE_SECRET": INLINE}
    program.start("jump", echo.address, "--via", home, env=secret, stdin=-1)
    until_true(lambda: daemon.json("channels"))
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert any(f"jump {echo.address} --via {home}" in line for line in lines)
    assert_hushed("\n".join(lines))


def test_the_state_holds_none(daemon: Daemon) -> None:
    use(daemon)
    daemon.stops()
    files = [path for path in (daemon.folder / "state").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert_hushed(path.read_bytes().decode("latin-1"))


MISTAKES = (
    f'secret = ["{INLINE}"]',
    f'secret = {{ "{INLINE}" = 1 }}',
    f'secret = "{INLINE}${{MISSING}}"',
    f'secret = "{INLINE}',
    f'secret = "{INLINE}"\nsecret_file = "x"',
    f'secrets = {{ alice = ["{INLINE}"] }}',
    f'secrets = "{INLINE}"',
    f'sekret = "{INLINE}"',
)
NO_VALUE, NO_TOML = MISTAKES[0], MISTAKES[3]
"""One of what is told by whoever looks at values, and the one that is told by the parser."""


def refuses(done: Done) -> None:
    """Makes sure that a command failed and said why, without a secret."""
    assert done.code == 1
    assert done.out + done.err
    assert_hushed(done.out + done.err)


def mistaken(mistake: str) -> str:
    return f'[service.home]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\n{mistake}\n'


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_without_the_secret_in_it(program: Program, mistake: str) -> None:
    path = program.write("mistaken.toml", f"version = 1\n{mistaken(mistake)}")
    refuses(program.run("check", "-c", str(path)))


@pytest.mark.parametrize("mistake", [NO_VALUE, NO_TOML])
def test_a_daemon_and_a_document_name_a_mistake_without_the_secret_in_it(program: Program, mistake: str) -> None:
    path = program.write("mistaken.toml", f"version = 1\n{mistaken(mistake)}")
    refuses(program.run("check", "-c", str(path), "--json"))
    refuses(program.run("--daemon", "-c", str(path), "--socket", str(program.folder / "other.sock")))


def test_a_reload_names_mistakes_without_the_secrets_in_them(daemon: Daemon) -> None:
    for mistake in MISTAKES:
        daemon.configure(mistaken(mistake))
        refuses(daemon.ask("reload"))
    daemon.process.says("config-refused")
    assert_hushed(daemon.process.said)


def test_a_refused_jump_does_not_say_with_what_it_was_tried(program: Program, daemon: Daemon, echo: EchoServer) -> None:
    refused = program.run("jump", echo.address, "--via", daemon.address("home"), env={"TUNNELCONSOLE_SECRET": WRONG})
    assert refused.code == 1
    assert "check the secret" in refused.err
    assert_hushed(refused.err)


def test_a_secret_is_not_taken_as_an_argument(program: Program, daemon: Daemon, echo: EchoServer) -> None:
    refused = program.run("jump", echo.address, "--via", daemon.address("home"), "--secret", INLINE)
    assert refused.code == 2
    assert_hushed(refused.err)
