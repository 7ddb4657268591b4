"""Every key of the console, as data: the app binds this table, and the help, the footer and the palette read it.

A key means one thing on the screens its row names. Pressed elsewhere, it says where it works instead of doing nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Screen = Literal[
    "overview",
    "services",
    "sessions",
    "channels",
    "events",
    "chids",
    "tunnels",
    "punches",
    "tokens",
    "help",
    "request",
    "attempt",
    "audit",
    "bans",
    "token",
]
"""The names of the screens, in the order of their tabs."""

ALL: tuple[Screen, ...] = get_args(Screen)

INSIDE: dict[Screen, Screen] = {
    "request": "tunnels", "attempt": "punches", "audit": "events", "bans": "sessions", "token": "tokens",
}  # fmt: skip
"""Screens that are reached through another one, whose tab they have."""

SCREENS: tuple[Screen, ...] = tuple(screen for screen in ALL if screen not in INSIDE)
"""Those with a tab, a key and a command of their own."""

ABOUT: dict[Screen, frozenset[str]] = {
    "chids": frozenset({"channel-server"}),
    "tunnels": frozenset({"tunnel-server", "tunnel-client"}),
    "punches": frozenset({"punch-client"}),
    "tokens": frozenset(f"{system}-server" for system in ("jump", "channel", "punch", "relay", "tunnel")),
}
"""Screens that are about some kinds of service: with a tab where there is one, with a key and a command always."""

Group = Literal["go", "look", "steer", "move", "sort"]

GROUPS: dict[Group, str] = {
    "go": "Where to go",
    "look": "What to see",
    "steer": "What to do",
    "move": "Moving",
    "sort": "Sorting (again: the other way round)",
}
"""The groups of the help screen, with their headings."""

TABLES: frozenset[Screen] = frozenset(SCREENS) - {"help"} | {"audit", "bans"}
LISTS: frozenset[Screen] = TABLES - {"overview"}
CHIDS: frozenset[Screen] = frozenset({"chids"})
SERVICES: frozenset[Screen] = frozenset({"overview", "services"})
REQUEST: frozenset[Screen] = frozenset({"request"})
REQUESTS: frozenset[Screen] = REQUEST | {"tunnels"}
PUNCHES: frozenset[Screen] = frozenset({"punches", "attempt"})
BANS: frozenset[Screen] = frozenset({"bans"})
TOKEN: frozenset[Screen] = frozenset({"token"})
TOKENS: frozenset[Screen] = TOKEN | {"tokens"}
EVERYWHERE: frozenset[Screen] = frozenset(ALL)


@dataclass(frozen=True)
class Key:
    """One meaning of one key, or of several that mean the same."""

    keys: tuple[str, ...]
    """As Textual names them: ``x``, ``ctrl+d``, ``slash``."""
    shown: str
    """As a person writes them: ``x``, ``Ctrl-D``, ``/``."""
    action: str
    """The app's action, with its arguments: ``sort('name')``."""
    label: str
    """One or two words for the footer."""
    help: str
    """A sentence for the help, without its full stop."""
    group: Group
    where: frozenset[Screen] = EVERYWHERE
    footer: int = 0
    """Its place in the footer, lowest first; 0: not there."""


def _go(number: int, screen: Screen, sentence: str) -> Key:
    return Key((str(number),), str(number), f"show('{screen}')", screen, sentence, "go")


def _sort(letter: str, column: str, title: str, *where: Screen) -> Key:
    return Key((letter,), letter, f"sort('{column}')", title, f"Sort by {title}", "sort", frozenset(where))


KEYS: tuple[Key, ...] = (
    _go(1, "overview", "What is wrong, what moves, what happened"),
    _go(2, "services", "The services, and what each is doing"),
    _go(3, "sessions", "Who is attached"),
    _go(4, "channels", "Which streams are open, and how fast they are"),
    _go(5, "events", "What happened, newest first"),
    _go(6, "chids", "Who sends to whom at the channel servers"),
    _go(7, "tunnels", "Which requests came through tunnels, and how they were answered"),
    _go(8, "punches", "Which hole punches were tried, and what they came to"),
    _go(9, "tokens", "Which credentials clients have, and what each may do"),
    Key(("a",), "a", "show('audit')", "audit", "Who had the engine do what", "go", frozenset({"events"}), footer=21),
    Key(("b",), "b", "show('bans')", "bans", "Which addresses are banned", "go", frozenset({"sessions", "events"}),
        footer=22),
    Key(("question_mark",), "?", "show('help')", "help", "This help", "go", footer=90),
    Key(("enter",), "Enter", "open", "open",
        "Into the selected row: a service's sessions, a session's channels, a request, a punch, a token",
        "go", TABLES | TOKEN, footer=10),
    Key(("escape",), "Esc", "go_back", "back", "Clear the filter, else go back", "go", footer=11),
    Key(("tab",), "Tab", "next_screen(1)", "next", "The next screen", "go"),
    Key(("shift+tab",), "Shift-Tab", "next_screen(-1)", "previous", "The screen before", "go"),
    Key(("colon",), ":", "command", "command", "A command, such as :sessions home; Tab completes", "go", footer=35),
    Key(("ctrl+p",), "Ctrl-P", "command_palette", "palette", "Search every command and theme", "go"),
    Key(("q", "ctrl+q"), "q", "leave", "leave", "Leave the console", "go", footer=95),
    Key(("ctrl+c",), "Ctrl-C", "interrupt", "copy", "Copy what the mouse has marked; with nothing marked, leave", "go"),

    Key(("slash",), "/", "filter", "filter", "Only rows with these words; /!word: those without", "look", TABLES,
        footer=30),
    Key(("p",), "p", "freeze", "freeze", "Hold the picture still, to read or copy from it", "look", footer=50),
    Key(("y",), "y", "copy", "copy", "Copy the selected row's address, peer, label or text", "look",
        TABLES | REQUEST | PUNCHES | TOKEN,
        footer=55),
    Key(("Y",), "Y", "copy_row", "copy row", "Copy the whole selected row as JSON", "look", TABLES),
    Key(("l",), "l", "level", "level", "Show events from the next level up; after error, all with debug", "look",
        frozenset({"events"}), footer=20),
    Key(("d",), "d", "details", "details", "Show or hide what is known of the selected row", "look", LISTS),
    Key(("m",), "m", "matrix", "matrix", "Show or hide the matrix of who sends to whom", "look", CHIDS, footer=25),
    Key(("c",), "c", "curl", "curl", "Copy the request as a command that sends it again", "look", REQUESTS, footer=25),
    Key(("w",), "w", "har", "save", "Save the request in a file for browsers' tools (HAR); :har FILE names it", "look",
        REQUESTS, footer=26),
    Key(("v",), "v", "secrets", "secrets", "Show the request's secrets, which asks first, or hide them again", "look",
        REQUEST, footer=21),
    Key(("b",), "b", "bytes", "bytes", "Show bodies byte by byte, or as text again", "look", REQUEST, footer=22),
    Key(("t",), "t", "next_theme", "theme", "The next theme; :theme NAME chooses one", "look"),

    Key(("s",), "s", "start", "start", "Start the selected service", "steer", SERVICES, footer=20),
    Key(("x", "ctrl+d"), "x", "stop", "stop", "Stop the selected service; asks first", "steer", SERVICES, footer=21),
    Key(("r",), "r", "restart", "restart", "Restart the selected service; asks first", "steer", SERVICES, footer=22),
    Key(("f",), "f", "drain", "drain", "Let the selected service finish what it carries, then stop it; asks first",
        "steer", SERVICES, footer=23),
    Key(("l",), "l", "limits", "limits", "Change the limits of the selected service or session; nobody is cut", "steer",
        SERVICES | {"sessions"}, footer=24),
    Key(("x", "ctrl+d"), "x", "kick", "kick", "End the selected session; asks first", "steer",
        frozenset({"sessions"}), footer=20),
    Key(("x", "ctrl+d"), "x", "close", "close", "Close the selected channel; asks first", "steer",
        frozenset({"channels"}), footer=20),
    Key(("x", "ctrl+d"), "x", "disconnect", "disconnect", "Disconnect the selected chid; asks first", "steer", CHIDS,
        footer=20),
    Key(("e",), "e", "receivers", "receivers", "Change to whom the selected chid sends; asks first", "steer", CHIDS,
        footer=21),
    Key(("r",), "r", "replay", "replay", "Send the request to its service again; asks first", "steer", REQUESTS,
        footer=20),
    Key(("r",), "r", "retry", "try again", "Look for a direct way at once, where a punch is on the relay", "steer",
        PUNCHES, footer=20),
    Key(("u",), "u", "unban", "lift", "Let the selected address connect again", "steer", BANS, footer=20),
    Key(("n",), "n", "ban", "ban", "Ban an address by hand; :ban ADDRESS 7d says for how long", "steer", BANS,
        footer=21),
    Key(("c",), "c", "create_token", "create", "Make a token; asks for its rights, and shows its secret once", "steer",
        frozenset({"tokens"}), footer=20),
    Key(("e",), "e", "change_token", "change", "Change what the token may do, and until when", "steer", TOKENS,
        footer=21),
    Key(("r",), "r", "rotate_token", "rotate", "Give the token another secret; asks for how long the old one is good",
        "steer", TOKENS, footer=22),
    Key(("o",), "o", "toggle_token", "on/off", "Disable the token, which asks first, or enable it again", "steer",
        TOKENS, footer=23),
    Key(("x", "ctrl+d"), "x", "revoke_token", "revoke", "Take the token away for good; asks first", "steer", TOKENS,
        footer=24),
    Key(("R",), "R", "reload", "reload", "Read the configuration again; shows first what that changes, and asks",
        "steer", footer=60),

    Key(("down", "j"), "↓ j", "move(1)", "down", "One row down", "move"),
    Key(("up", "k"), "↑ k", "move(-1)", "up", "One row up", "move"),
    Key(("pagedown", "ctrl+f"), "PgDn", "page(1)", "page down", "A page down", "move"),
    Key(("pageup", "ctrl+b"), "PgUp", "page(-1)", "page up", "A page up", "move"),
    Key(("home", "g"), "Home g", "top", "top", "The first row, and stay at the top while rows change places", "move"),
    Key(("end", "G"), "End G", "bottom", "bottom", "The last row", "move"),
    Key(("right",), "→", "aim(1)", "right", "The next receiver in the matrix", "move", CHIDS),
    Key(("left",), "←", "aim(-1)", "left", "The receiver before", "move", CHIDS),

    _sort("N", "name", "name", "overview", "services"),
    _sort("K", "kind", "kind", "overview", "services"),
    _sort("S", "state", "state, the worst first", "overview", "services"),
    _sort("D", "address", "address", "overview", "services"),
    _sort("E", "sessions", "number of sessions", "overview", "services"),
    _sort("C", "channels", "number of channels", "overview", "services", "sessions"),
    _sort("C", "chid", "chid", "chids"),
    _sort("S", "service", "service", "sessions", "channels", "events", "chids", "tunnels", "punches"),
    _sort("P", "peer", "peer", "sessions", "channels", "chids"),
    _sort("D", "identity", "identity", "sessions", "chids"),
    _sort("T", "receivers", "receivers", "chids"),
    _sort("F", "senders", "number of senders", "chids"),
    _sort("L", "lost", "what was lost", "chids"),
    _sort("W", "waiting", "what waits", "chids"),
    _sort("L", "label", "where it goes", "channels"),
    _sort("H", "path", "how its bytes travel", "channels"),
    _sort("I", "rate_in", "rate in", "overview", "services", "sessions", "channels", "chids"),
    _sort("O", "rate_out", "rate out", "overview", "services", "sessions", "channels", "chids"),
    _sort("B", "bytes_in", "bytes in", "overview", "services", "sessions", "channels", "chids"),
    _sort("U", "bytes_out", "bytes out", "overview", "services", "sessions", "channels", "chids"),
    _sort("A", "since", "age", "overview", "services", "sessions", "channels", "chids"),
    _sort("T", "time", "time", "events", "tunnels", "punches", "audit"),
    _sort("L", "level", "level", "events"),
    _sort("E", "type", "type", "events", "tunnels"),
    _sort("M", "method", "method", "tunnels", "punches"),
    _sort("P", "target", "path", "tunnels"),
    _sort("U", "status", "status", "tunnels"),
    _sort("K", "seconds", "how long it took", "tunnels", "punches"),
    _sort("Q", "request_bytes", "size of the request", "tunnels"),
    _sort("W", "response_bytes", "size of the answer", "tunnels"),
    _sort("O", "state", "what it came to, the worst first", "punches"),
    _sort("N", "room", "room", "punches"),
    _sort("P", "peer", "what was reached", "punches"),
    _sort("H", "here", "NAT here", "punches"),
    _sort("E", "there", "NAT there", "punches"),
    _sort("N", "address", "address", "bans"),
    _sort("S", "service", "service", "bans"),
    _sort("E", "reason", "reason", "bans"),
    _sort("F", "failures", "failures", "bans"),
    _sort("W", "turned_away", "who was turned away most", "bans"),
    _sort("A", "since", "since when", "bans"),
    _sort("L", "left", "how long still", "bans"),
    _sort("N", "name", "name", "tokens"),
    _sort("S", "state", "state, the worst first", "tokens"),
    _sort("X", "expires", "expiry", "tokens"),
    _sort("L", "last_used", "last use", "tokens"),
    _sort("E", "sessions", "number of sessions", "tokens"),
    _sort("C", "channels", "number of channels", "tokens"),
    _sort("T", "bytes_today", "bytes of today", "tokens"),
    _sort("Q", "quota", "share of its bytes of today", "tokens"),
    _sort("W", "rights", "rights", "tokens"),
    _sort("W", "who", "who it was", "audit"),
    _sort("V", "via", "through what", "audit"),
    _sort("A", "action", "action", "audit"),
    _sort("B", "object", "object", "audit"),
    _sort("O", "outcome", "what came of it, the worst first", "audit"),
    _sort("V", "peer", "visitor", "tunnels"),
    _sort("H", "host", "host", "tunnels"),
)  # fmt: skip
"""Every key. Two rows may share a key only where their screens differ."""

DIALOG_KEYS: tuple[Key, ...] = (
    Key(("y",), "y", "choose", "yes", "Do it", "steer"),
    Key(("n", "escape"), "n Esc", "dismiss", "no", "Leave it as it is", "steer"),
)
"""What a question answers to, besides the letters it shows itself."""


def physical() -> list[str]:
    """Every key that means something somewhere, once, as Textual names it."""
    return list(dict.fromkeys(name for row in KEYS for name in row.keys))


def meaning(key: str, screen: Screen) -> Key | None:
    """What ``key`` does on ``screen``; None where it does nothing."""
    return next((row for row in KEYS if key in row.keys and screen in row.where), None)


def elsewhere(key: str) -> str:
    """A sentence for a key that means nothing here: what it does, and where."""
    rows = [row for row in KEYS if key in row.keys]
    works = "; ".join(f"{row.label} on {_and(name for name in ALL if name in row.where)}" for row in rows)
    return f"{rows[0].shown.split()[0] if rows else key} does nothing on this screen. It means {works}"


def _and(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def footer(screen: Screen) -> list[Key]:
    """The keys worth a place at the foot of ``screen``, the most useful first."""
    return sorted((row for row in KEYS if row.footer and screen in row.where), key=lambda row: row.footer)


def offered(kinds: Collection[str], here: Screen) -> list[Screen]:
    """The screens that have a tab: all but those about a kind of service that there is none of, unless one is on it.

    :param kinds: of the services there are.
    """
    at, there = INSIDE.get(here, here), frozenset(kinds)
    return [screen for screen in SCREENS if screen == at or screen not in ABOUT or ABOUT[screen] & there]


def tab_key(screen: Screen) -> str:
    """The key that shows ``screen``."""
    action = f"show('{screen}')"
    return next(row.shown for row in KEYS if row.action == action)


def sort_letter(screen: Screen, column: str) -> str:
    """The key that sorts ``screen`` by ``column``; empty when there is none."""
    action = f"sort('{column}')"
    return next((row.shown for row in KEYS if row.action == action and screen in row.where), "")


def grouped() -> dict[Group, list[Key]]:
    """The whole table by group, for the help."""
    return {group: [row for row in KEYS if row.group == group] for group in GROUPS}
