"""Which commands may be given over SSH, and which terminals are believed."""

from __future__ import annotations

import pytest

from tunnelconsole.engine.services.ssh.commands import LONGEST, READING, STEERING, read_command
from tunnelconsole.engine.services.ssh.terminal import LARGEST_SIZE, USUAL_KIND, USUAL_SIZE, environment, size, terminal
from tunnelconsole.engine.services.ssh.throttle import AT_ONCE, LONGEST_WAIT, PER_SECOND, REMEMBERED, Throttle
from tunnelconsole.errors import RequestRefused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("status --json", ["status", "--json"]),
        ("tunnelconsole status", ["status"]),
        ("events -f -n 5 --level=warning", ["events", "-f", "-n", "5", "--level=warning"]),
        ("sessions --service 'edge two'", ["sessions", "--service", "edge two"]),
        ("request x1 --curl", ["request", "x1", "--curl"]),
    ],
)
def test_everybody_may_look(text: str, words: list[str]) -> None:
    assert read_command(text, "view") == read_command(text, "operate") == words


@pytest.mark.parametrize("text", ["stop home", "kick s1", "reload", "replay x1", "receivers s1 '*'", "retry p"])
def test_an_operator_may_steer_and_who_may_look_may_not(text: str) -> None:
    assert read_command(text, "operate")
    with pytest.raises(RequestRefused, match="its role is view"):
        read_command(text, "view")


def test_secrets_are_for_operators() -> None:
    assert read_command("request x1 --reveal", "operate")
    with pytest.raises(RequestRefused, match="takes no '--reveal'"):
        read_command("request x1 --reveal", "view")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "sh",
        "bash -i",
        "scp -f /etc/passwd",
        "attach",
        "jump a:1 --via b:2",
        "tunnelconsole",
        "/bin/sh",
        "--daemon",
        "check",
        "-c /etc/passwd status",
        "--socket /tmp/x status",
        "status\n",
        "status; id",
        "$(id)",
        "'status",
        "a" * LONGEST + "a",
    ],
)
def test_there_is_no_shell_and_nothing_else(text: str) -> None:
    with pytest.raises(RequestRefused):
        read_command(text, "operate")


@pytest.mark.parametrize(
    "text",
    [
        "status --socket /tmp/x",
        "status -c /etc/passwd",
        "events -fc/etc/passwd",
        "status --config=/etc/passwd",
        "request x1 --har /root/x",
        "status --log-level debug",
        "events -f5",
        "kick -- --socket",
    ],
)
def test_no_option_leads_to_a_file_or_another_engine(text: str) -> None:
    with pytest.raises(RequestRefused, match="over SSH"):
        read_command(text, "operate")


@pytest.mark.parametrize("text", ["status `id`", "status $(id)", "status | sh", "kick ';id'"])
def test_what_a_shell_would_read_is_only_words(text: str) -> None:
    assert read_command(text, "operate")[1:] == text.replace("'", "").split()[1:]


def test_no_command_is_known_that_the_program_does_not_have() -> None:
    from tunnelconsole.cli import cli  # noqa: PLC0415 - loads every command

    assert {*READING, *STEERING} <= set(cli.commands)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((0, 0), USUAL_SIZE),
        ((10_000, 10_000), LARGEST_SIZE),
        ((2**32 - 1, 1), (LARGEST_SIZE[0], 1)),
        ((120, 40), (120, 40)),
        ((0, 50), (USUAL_SIZE[0], 50)),
    ],
)
def test_a_terminal_has_a_size_in_which_something_can_be_drawn(asked: tuple[int, int], given: tuple[int, int]) -> None:
    assert size(*asked) == given


@pytest.mark.parametrize("kind", ["", "../../etc/passwd", "x" * 65, "a b", "a\n"])
def test_what_cannot_be_a_terminal_is_a_usual_one(kind: str) -> None:
    assert terminal(kind, 80, 24).kind == USUAL_KIND


def test_a_console_is_told_how_to_draw_and_gets_no_secret() -> None:
    engine = {"HOME": "/root", "TUNNELCONSOLE_SECRET": "s", "PATH": "/bin", "LD_PRELOAD": "/x", "TERM": "dumb"}
    sent = {b"COLORTERM": b"truecolor", b"LD_PRELOAD": b"/evil", b"LANG": b"$(id)", b"PATH": b"/evil"}
    found = environment(engine, sent, terminal("tmux-256color", 80, 24), "[2001:db8::1]:5")
    assert found == {
        "HOME": "/root",
        "PATH": "/bin",
        "COLORTERM": "truecolor",
        "TERM": "tmux-256color",
        "SSH_CONNECTION": "2001:db8::1 5 0.0.0.0 0",
    }


class TestThrottle:
    def setup_method(self) -> None:
        self.now = 1000.0
        self.throttle = Throttle(lambda: self.now)

    def test_so_many_may_begin_at_once_and_then_each_waits_longer(self) -> None:
        assert [self.throttle.begin("a") for _ in range(int(AT_ONCE))] == pytest.approx([0.0] * int(AT_ONCE))
        assert self.throttle.begin("a") == pytest.approx(1 / PER_SECOND)
        assert self.throttle.begin("a") == pytest.approx(2 / PER_SECOND)
        assert self.throttle.begin("b") == 0.0

    def test_who_waits_may_begin_again(self) -> None:
        while self.throttle.begin("a") is not None:
            pass
        self.now += LONGEST_WAIT + AT_ONCE / PER_SECOND
        assert self.throttle.begin("a") == 0.0

    def test_a_flood_that_has_ended_is_forgotten_within_seconds(self) -> None:
        for _ in range(60 * 50):  # a minute, fifty a second
            self.throttle.begin("a")
            self.now += 1 / 50
        self.now += 1 / PER_SECOND
        wait = self.throttle.begin("a")
        assert wait is not None
        assert 0 < wait <= LONGEST_WAIT
        self.now += LONGEST_WAIT + 1 / PER_SECOND
        assert self.throttle.begin("a") == 0.0

    def test_who_would_wait_too_long_is_not_charged(self) -> None:
        waits = [self.throttle.begin("a") for _ in range(1000)]
        begun = [wait for wait in waits if wait is not None]
        assert len(begun) == pytest.approx(AT_ONCE + LONGEST_WAIT * PER_SECOND, abs=1)
        assert max(begun) <= LONGEST_WAIT
        assert self.throttle.begin("b") == 0.0

    def test_who_proves_a_key_never_waits(self) -> None:
        for _ in range(1000):
            assert self.throttle.begin("a") == 0.0
            self.throttle.give_back("a")

    def test_sources_that_have_waited_are_forgotten(self) -> None:
        for number in range(REMEMBERED):
            self.throttle.begin(str(number))
        self.now += 1
        self.throttle.begin("a")
        assert len(self.throttle._due) == 1
        self.throttle.give_back("0")
