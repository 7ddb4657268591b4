"""The console in a real terminal: keys sent, the screen read, and what they do to a running engine."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Program
from ports import steady_port
from terminal import Terminal
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.system("tmux")]

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
allow = ["127.0.0.1:*"]
[service.home.secrets]
alice = "superBigSecret"
bob = "anotherSecret"

[service.via-home]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
listen = "127.0.0.1:0"
target = "{target}"

[service.bobs]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "anotherSecret"
listen = "127.0.0.1:0"
target = "{target}"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
public_host = "127.0.0.1"

[service.exposed]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"
"""

BRAILLE = "[\u2801-\u28ff]"
"""A cell of a chart with something in it."""

ASKING = "Leave it as it is"
"""What stands beside every question."""


class Node:
    """A daemon whose console is opened, and visitors of its services."""

    def __init__(self, program: Program, echo: EchoServer, stack: ExitStack) -> None:
        ports = {"home": steady_port(), "edge": steady_port()}
        self.program = program
        self.daemon: Daemon = program.daemon(SERVICES.format(target=echo.address, **ports))
        self._stack = stack

    def visitor(self, service: str) -> socket.socket:
        """Somebody at the far end of a service, until the test is over."""
        visitor = self._stack.enter_context(connect(self.daemon.address(service)))
        assert echoed(visitor, b"hello") == b"hello"
        return visitor

    def console(self, columns: int = 120, rows: int = 36) -> Terminal:
        """The console of the daemon, as soon as it shows what runs."""
        command = [self.program.path, "attach", "--socket", str(self.daemon.control)]
        terminal = self._stack.enter_context(Terminal(self.program.folder, command, self.program.env, columns, rows))
        terminal.shows("via-home", r"5\s+up|5 of 5|up 5|Services\s+5")
        return terminal


@pytest.fixture
def node(program: Program) -> Iterator[Node]:
    with ExitStack() as stack:
        echo = EchoServer()
        stack.callback(echo.close)
        yield Node(program, echo, stack)


def is_cut(visitor: socket.socket) -> bool:
    """Waits for the end of somebody's connection."""
    try:
        return visitor.recv(1) == b""
    except ConnectionResetError:
        return True


def narrow(terminal: Terminal, words: str) -> None:
    """Types a filter, and keeps it."""
    terminal.press("/")
    terminal.shows("Enter keeps it")
    terminal.type(words)
    terminal.shows(f"/{re.escape(words)}")
    terminal.press("Enter")
    terminal.hides("Enter keeps it")


def command(terminal: Terminal, line: str) -> None:
    """Types a command, and enters it."""
    terminal.press(":")
    terminal.shows(r"^ :", "overview")
    terminal.type(line)
    terminal.shows(f":{re.escape(line)}")
    terminal.press("Enter")


def select(terminal: Terminal, name: str) -> None:
    """Selects the row of a service on the services' screen, by filtering for it."""
    terminal.press("2")
    narrow(terminal, name)
    terminal.shows(r"Services\s+1 of ")


class TestWhatItShows:
    def test_every_screen_of_the_demonstration_shows_life(self, program: Program) -> None:
        with Terminal(program.folder, [program.path, "--demo"], program.env, columns=132) as terminal:
            terminal.shows("demo", "running", r"(\d\d) of \1 up", rf"{BRAILLE}", r"edge-desk\s+● connected")
            terminal.press("2")
            terminal.shows(r"Services\s+\d\d", r"socks\s+● listening\s+jump-client\s+127\.0\.0\.1:\d+", r"[kM]B/s")
            terminal.press("3")
            terminal.shows(r"Sessions\s+\d+", r"[kM]B/s")
            for identity in ("alice", "bob"):
                narrow(terminal, f"{identity} jump")
                terminal.shows(r"Sessions\s+[1-9]\d* of ", rf"{identity}\s+jump .*\d [kM]?B/s")
                terminal.press("Escape")
                terminal.hides(r"Sessions\s+\d+ of ")
            terminal.press("4")
            terminal.shows(r"Channels\s+\d+", "splice", "yamux", "tls", "sealed", r"[kM]B/s")
            terminal.press("5")
            terminal.shows(r"Events\s+\d+", "service-connected|token-changed|audited", "target-failed")
            terminal.press("6")
            terminal.shows("door", "camera", "recorder", "laptop", r"[kM]B/s")
            terminal.press("?")
            terminal.shows("Where to go", "Commands, after :")
            terminal.press("q")
            assert terminal.exit_code() == 0

    def test_rates_move_while_bytes_do(self, node: Node) -> None:
        visitor = node.visitor("via-home")
        terminal = node.console()
        terminal.press("4")
        terminal.shows(r"via-home\s+·\s+·")

        def moves() -> bool:
            assert echoed(visitor, bytes(100_000)) == bytes(100_000)
            return bool(terminal.lines(r"via-home\s+[\d.]+ [kM]B/s"))

        until_true(moves)

    def test_a_newcomer_appears_and_goes_again(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("3")
        terminal.hides("alice")
        visitor = node.visitor("via-home")
        terminal.shows(r"alice\s+home ")
        visitor.close()
        terminal.hides("alice")

    def test_an_empty_screen_says_why(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("4")
        terminal.shows("No channel is open", "3 shows who is attached")


class TestGoingAbout:
    def test_a_service_opens_into_its_sessions_and_they_into_their_channels(self, node: Node) -> None:
        node.visitor("via-home")
        node.visitor("exposed")
        terminal = node.console()
        select(terminal, "via-home")
        terminal.press("Enter")
        terminal.shows(r"Sessions.* via-home", r"127\.0\.0\.1:\d+\s+anonymous\s+via-home")
        assert not terminal.lines(r"\bexposed\b")
        terminal.press("Enter")
        terminal.shows(r"Channels of session s\d+\s+1 ", r"via-home.*splice")
        terminal.press("Escape")
        terminal.shows(r"Sessions.* via-home")
        terminal.press("Escape")
        terminal.shows(r"Services")

    def test_a_filter_keeps_rows_with_its_words_and_an_inverse_one_the_others(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("2")
        narrow(terminal, "relay")
        terminal.hides("via-home", "bobs")
        terminal.shows(r"edge\s+●", r"exposed\s+●")
        terminal.press("Escape")
        terminal.shows("via-home", "exposed")
        narrow(terminal, "!relay")
        terminal.hides(r"edge\s+●", r"exposed\s+●")
        terminal.shows("via-home", "bobs")

    def test_what_is_typed_ahead_of_a_slow_line_lands_in_the_filter(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("2")
        terminal.shows("d hides this")
        terminal.type("/relay r/s")  # r would restart, s would start, and / would begin again
        terminal.shows("/relay r/s", r"Services\s+0 of 5")
        assert not terminal.lines(ASKING)

    def test_a_capital_letter_sorts_and_again_the_other_way_round(self, node: Node) -> None:
        terminal = node.console()
        names = ["bobs", "edge", "exposed", "home", "via-home"]

        def order() -> list[str]:
            found = [re.match(r" ([a-z-]+)\s+● \w+\s+(?:jump|relay)-", line) for line in terminal.screen.splitlines()]
            return [match[1] for match in found if match]

        terminal.press("2")
        terminal.shows("d hides this")
        until_true(lambda: order() == names)
        terminal.press("N")
        until_true(lambda: order() == names[::-1])
        terminal.press("N")
        until_true(lambda: order() == names)

    def test_a_command_leads_to_a_screen(self, node: Node) -> None:
        node.visitor("bobs")
        terminal = node.console()
        command(terminal, "sessions home")
        terminal.shows(r"Sessions.* home", r"bob\s+home")
        command(terminal, "nonsense")
        terminal.shows("there is no command 'nonsense'")

    def test_help_names_the_keys_and_what_they_do(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("?")
        terminal.shows("Where to go", r"/\s+Only rows with these words", r"q\s+Leave the console")
        terminal.press("Escape")
        terminal.hides("Where to go")

    def test_a_row_is_copied_through_the_terminal(self, node: Node) -> None:
        terminal = node.console()
        select(terminal, "via-home")
        terminal.press("y")
        terminal.shows("Copied address")
        assert terminal.clipboard.strip() == node.daemon.address("via-home")


class TestHoldingStill:
    def test_a_frozen_picture_stays_and_says_so(self, node: Node) -> None:
        visitor = node.visitor("bobs")
        terminal = node.console()
        terminal.press("3")
        terminal.shows(r"bob\s+home ")
        terminal.press("p")
        terminal.shows("FROZEN")
        visitor.close()
        until_true(lambda: node.daemon.json("sessions", "--service", "home") == [])
        terminal.shows(r"bob\s+home ", "FROZEN")
        terminal.press("p")
        terminal.hides(r"bob\s+home ", "FROZEN")


class TestSteering:
    def test_a_service_is_stopped_after_a_question_and_started_again(self, node: Node) -> None:
        visitor = node.visitor("via-home")
        terminal = node.console()
        select(terminal, "via-home")
        terminal.press("x")
        terminal.shows("Stop service via-home", "1 session", ASKING)
        terminal.press("n")
        terminal.hides(ASKING)
        assert node.daemon.service("via-home")["state"] == "listening"
        terminal.press("x")
        terminal.shows("Stop service via-home")
        terminal.press("y")
        terminal.shows(r"via-home\s+○ stopped")
        assert node.daemon.service("via-home")["state"] == "stopped"
        assert is_cut(visitor)
        terminal.press("s")
        terminal.shows(r"via-home\s+● listening")
        node.daemon.reaches("via-home", "listening")

    def test_enter_at_a_question_changes_nothing(self, node: Node) -> None:
        terminal = node.console()
        select(terminal, "edge")
        terminal.press("x")
        terminal.shows("Stop service edge")
        terminal.press("Enter")
        terminal.hides(ASKING)
        assert node.daemon.service("edge")["state"] == "listening"

    def test_a_service_is_restarted_after_a_question(self, node: Node) -> None:
        visitor = node.visitor("bobs")
        since = node.daemon.service("bobs")["since"]
        terminal = node.console()
        select(terminal, "bobs")
        terminal.press("r")
        terminal.shows("Restart service bobs")
        terminal.press("y")
        assert is_cut(visitor)
        until_true(lambda: node.daemon.reaches("bobs", "listening")["since"] > since)

    def test_a_session_is_kicked_after_a_question(self, node: Node) -> None:
        kicked, other = node.visitor("bobs"), node.visitor("via-home")
        terminal = node.console()
        command(terminal, "sessions home")
        terminal.shows(r"bob\s+home", r"alice\s+home")
        narrow(terminal, "bob")
        terminal.hides("alice")
        terminal.press("x")
        terminal.shows("Kick session", r"It is bob from")
        terminal.press("y")
        assert is_cut(kicked)
        terminal.hides(r"bob\s+home")
        assert echoed(other, b"still here") == b"still here"

    def test_a_channel_is_closed_after_a_question(self, node: Node) -> None:
        visitor = node.visitor("via-home")
        terminal = node.console()
        terminal.press("4")
        terminal.shows("via-home", "splice")
        terminal.press("x")
        terminal.shows("Close channel")
        terminal.press("y")
        assert is_cut(visitor)
        terminal.hides("splice")

    def test_the_configuration_is_read_again_and_a_mistake_in_it_is_shown(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("R")
        terminal.shows("0 added, 0 changed, 0 removed, 5 untouched")
        node.daemon.configure('[service.home]\nkind = "jump-sever"\n')
        terminal.press("R")
        terminal.shows("service.home.kind", "the old one stays")
        terminal.press("n")
        terminal.hides("service.home.kind")
        assert node.daemon.service("home")["state"] == "listening"

    def test_leaving_leaves_the_engine_alone(self, node: Node) -> None:
        terminal = node.console()
        terminal.press("q")
        assert terminal.exit_code() == 0
        assert node.daemon.process.running


class TestAnEngineThatGoesAway:
    def test_is_told_at_once_and_found_again_when_it_is_back(self, node: Node) -> None:
        terminal = node.console()
        node.daemon.is_killed()
        terminal.shows("The engine went away", "engine away", "what is shown is old", "via-home")
        node.daemon.start()
        terminal.hides("The engine went away")
        terminal.shows("running", rf"pid {node.daemon.process.popen.pid}", "via-home")
        node.visitor("via-home")
        terminal.press("3")
        terminal.shows(r"alice\s+home ")

    def test_can_be_left_without_it(self, node: Node) -> None:
        terminal = node.console()
        node.daemon.is_killed()
        terminal.shows("The engine went away")
        terminal.press("q")
        assert terminal.exit_code() == 0

    def test_steering_it_says_why_nothing_happens(self, node: Node) -> None:
        terminal = node.console()
        select(terminal, "edge")
        node.daemon.is_killed()
        terminal.shows("The engine went away")
        terminal.press("R")
        terminal.shows("no engine is running")


class TestASmallTerminal:
    def test_every_screen_fits_into_eighty_by_twenty_four(self, node: Node) -> None:
        node.visitor("via-home")
        terminal = node.console(80, 24)
        terminal.shows("● running", "via-home", "q leave")
        for key, pattern in (
            ("2", r"via-home\s+● listening"),
            ("3", "alice"),
            ("4", "LEADS TO"),
            ("5", "listening on"),
        ):
            terminal.press(key)
            screen = terminal.shows(pattern, r"q leave")
            assert all(len(line) <= 80 for line in screen.splitlines())
        terminal.press("?")
        terminal.shows("Where to go")

    def test_a_question_fits_too(self, node: Node) -> None:
        terminal = node.console(80, 24)
        select(terminal, "edge")
        terminal.press("x")
        terminal.shows("Stop service edge", "Stop it", ASKING)

    def test_a_window_may_change_its_size(self, node: Node) -> None:
        terminal = node.console()
        for columns, rows in ((80, 24), (40, 12), (200, 50)):
            terminal.resize(columns, rows)
            terminal.shows(r"(TunnelConsole|TC)\s")
        terminal.shows("via-home", r"pid \d+")
