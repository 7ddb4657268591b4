"""The command line: what it understands, and how it completes."""

from __future__ import annotations

import pytest

from tunnelconsole.screens.commands import COMMANDS, NotACommand, Takes, complete, parse


def test_a_command_is_known_by_its_beginning() -> None:
    assert parse("ses").command.name == "sessions"


def test_a_command_takes_what_stands_after_it() -> None:
    called = parse("  stop   edge-ssh ")
    assert (called.command.name, called.argument) == ("stop", "edge-ssh")


def test_a_filter_may_have_several_words() -> None:
    assert parse("filter !home 443").argument == "!home 443"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("zap", "there is no command 'zap'"),
        ("", "there is no command ''"),
        ("st", "'st' could be start or stop"),
        ("stop", "stop which service?"),
        ("help me", "help takes nothing after it"),
    ],
)
def test_what_is_not_a_command_says_why(typed: str, why: str) -> None:
    with pytest.raises(NotACommand, match=r".*" + why.replace("?", r"\?")):
        parse(typed)


def test_completion_offers_commands_then_the_names_there_are() -> None:
    known: dict[Takes, list[str]] = {"service": ["home", "via-home", "lab"]}
    assert complete("se", known) == ["services", "sessions"]
    assert complete("stop ho", known) == ["stop home", "stop via-home"]
    assert complete("stop ", known) == ["stop home", "stop via-home", "stop lab"]
    assert complete("zap x", known) == []


def test_every_command_says_what_it_does() -> None:
    assert all(command.help and not command.help.endswith(".") for command in COMMANDS)
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)
