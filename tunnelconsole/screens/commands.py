"""The command line behind ``:``: its words, its completion, and what each does.

A command is looked up by its name or by any beginning of it that is no other's (``:ses`` is ``:sessions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tunnelconsole.screens.keys import SCREENS

Takes = Literal["", "service", "session", "channel", "chid", "token", "address", "theme", "column", "level", "text"]
"""What may stand after a command's name."""


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    action: str
    """The app's action; its argument, where there is one, is what was typed after the name."""
    help: str
    takes: Takes = ""
    needs: bool = False
    """True when it cannot do without what it takes."""


COMMANDS: tuple[Command, ...] = (
    Command("overview", "show('overview')", "What is wrong, what moves, what happened"),
    Command("services", "show('services')", "The services"),
    Command("sessions", "show('sessions')", "Who is attached; of one service when named", "service"),
    Command("channels", "show('channels')", "Open streams; of one service when named", "service"),
    Command("events", "show('events')", "What happened; of one service when named", "service"),
    Command("chids", "show('chids')", "Who sends to whom; at one channel server when named", "service"),
    Command("tunnels", "show('tunnels')", "Requests that came through tunnels; of one service when named", "service"),
    Command("requests", "show('tunnels')", "The same as :tunnels", "service"),
    Command("punches", "show('punches')", "Hole punches that were tried; of one service when named", "service"),
    Command("tokens", "tokens", "Credentials of clients; one of them when named", "token"),
    Command("audit", "show('audit')", "Who had the engine do what, and what came of it"),
    Command("bans", "show('bans')", "Which addresses are banned, why, and until when"),
    Command("help", "show('help')", "Keys and commands"),
    Command("start", "start_named", "Start a service", "service", needs=True),
    Command("stop", "stop_named", "Stop a service; asks first", "service", needs=True),
    Command("restart", "restart_named", "Restart a service; asks first", "service", needs=True),
    Command(
        "drain", "drain_named", "Let what a service carries finish, stop it then; asks first", "service", needs=True
    ),
    Command("kick", "kick_named", "End a session; asks first", "session", needs=True),
    Command("close", "close_named", "Close a channel; asks first", "channel", needs=True),
    Command("disconnect", "disconnect_named", "Disconnect a chid; asks first", "chid", needs=True),
    Command("receivers", "receivers_named", "Change to whom a chid sends; asks first", "chid", needs=True),
    Command("retry", "retry_named", "Have a punch client look for a direct way now", "service", needs=True),
    Command("ban", "ban_named", "Ban an address for an hour, or for the time behind it", "text", needs=True),
    Command("unban", "unban_named", "Let a banned address connect again", "address", needs=True),
    Command("create", "create_token_named", "Make a token; asks for its rights", "text"),
    Command("rotate", "rotate_token_named", "Give a token another secret; asks first", "token", needs=True),
    Command("revoke", "revoke_token_named", "Take a token away for good; asks first", "token", needs=True),
    Command("reload", "reload", "Read the configuration again; shows first what that changes, and asks"),
    Command("filter", "filter_text", "Show only rows with these words; !word hides them", "text"),
    Command("sort", "sort", "Sort by a column; again: the other way round", "column", needs=True),
    Command("level", "level_named", "Events from this level up", "level", needs=True),
    Command("freeze", "freeze", "Hold the picture still, or let it go"),
    Command("copy", "copy", "Copy the selected row's address, peer, label or text"),
    Command("har", "har", "Save the selected request for browsers' tools, in a new file of this name", "text"),
    Command("theme", "theme_named", "Change the colours", "theme", needs=True),
    Command("quit", "leave", "Leave the console"),
)
"""Every command, the screens first."""


@dataclass(frozen=True)
class Called:
    """A command as it was typed."""

    command: Command
    argument: str


class NotACommand(ValueError):
    """What was typed cannot be carried out; the message says why, and what could have been meant."""


def parse(text: str) -> Called:
    """Reads what was typed after the colon.

    :raises NotACommand: there is no such command, several begin like it, or it lacks what it needs.
    """
    name, _, argument = text.strip().partition(" ")
    argument = argument.strip()
    found = _named(name)
    if not found:
        raise NotACommand(f"there is no command {name!r}: {', '.join(command.name for command in COMMANDS)}")
    if len(found) > 1:
        raise NotACommand(f"{name!r} could be {' or '.join(command.name for command in found)}")
    command = found[0]
    if command.needs and not argument:
        raise NotACommand(f"{command.name} which {command.takes}? Write :{command.name} {command.takes.upper()}")
    if argument and not command.takes:
        raise NotACommand(f"{command.name} takes nothing after it, and there is {argument!r}")
    return Called(command, argument)


def _named(name: str) -> list[Command]:
    exact = [command for command in COMMANDS if command.name == name.lower()]
    return exact or [command for command in COMMANDS if name and command.name.startswith(name.lower())]


def complete(text: str, known: Mapping[Takes, Iterable[str]]) -> list[str]:
    """What ``text`` could become, best first, each as a whole line.

    :param text: what stands after the colon so far.
    :param known: the names there are for each kind of argument.
    """
    name, space, argument = text.lstrip().partition(" ")
    if not space:
        return [command.name for command in COMMANDS if command.name.startswith(name.lower())]
    found = _named(name)
    if len(found) != 1:
        return []
    words = list(known.get(found[0].takes, ()))
    begun = argument.lstrip().lower()
    first = [word for word in words if word.lower().startswith(begun)]
    within = [word for word in words if begun in word.lower() and word not in first]
    return [f"{found[0].name} {word}" for word in first + within]


def for_screens() -> list[Command]:
    """The commands that show a screen."""
    return [command for command in COMMANDS if command.name in SCREENS]
