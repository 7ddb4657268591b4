"""Which commands may be given over SSH, by role. No shell reads them: they are split into words, and looked up here."""

from __future__ import annotations

import shlex

from tunnelconsole.engine.node import Role
from tunnelconsole.errors import RequestRefused

LONGEST = 4096
"""Bytes of a command: a long list of receivers is far shorter."""

_EVERY = ("--json", "--help")

READING: dict[str, tuple[str, ...]] = {
    "status": (),
    "services": (),
    "sessions": ("--service",),
    "channels": ("--service", "--session"),
    "chids": ("--service",),
    "events": ("--follow", "-f", "--limit", "-n", "--level"),
    "attempts": ("--service",),
    "audit": ("--limit", "-n", "--since", "--export=-"),
    "requests": ("--service", "--follow", "-f", "--limit", "-n"),
    "request": ("--curl",),
}
"""Commands that change nothing, with the options that each may have; none of them reads or writes a file here."""

STEERING: dict[str, tuple[str, ...]] = {
    "start": (),
    "stop": (),
    "restart": (),
    "kick": (),
    "receivers": (),
    "replay": (),
    "retry": (),
    "drain": ("--for",),
    "limit": ("--rate", "--sessions", "--channels", "--none"),
    "reload": ("--preview", "--yes"),
    "request": ("--curl", "--reveal"),
}
"""Commands and options for the role ``operate`` alone."""


COMMANDS = frozenset((*READING, *STEERING, "tunnelconsole"))
"""All of them."""


def read_command(text: str, role: Role) -> list[str]:
    """The words of a command that this role may give.

    :raises RequestRefused: it may not, or there is none like it.
    """
    if len(text.encode()) > LONGEST:
        raise RequestRefused(f"a command has at most {LONGEST} bytes")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RequestRefused(f"the command cannot be read: {error}", "close its quotes") from error
    if words[:1] == ["tunnelconsole"]:
        del words[0]
    if not words or not text.isprintable():
        raise RequestRefused("there is no such command", _known(role))
    name, *rest = words
    if name in STEERING and name not in READING and role != "operate":
        raise RequestRefused(f"{name} changes something, and this key may only look: its role is view", _known(role))
    if name not in READING and name not in STEERING:
        raise RequestRefused(f"there is no {name[:64]!r} over SSH, and no shell", _known(role))
    permitted = {*_EVERY, *READING.get(name, ()), *(STEERING.get(name, ()) if role == "operate" else ())}
    for word in rest:
        if word.startswith("-") and word not in permitted and word.partition("=")[0] not in permitted:
            raise RequestRefused(f"{name} takes no {word[:64]!r} over SSH", f"it takes {', '.join(sorted(permitted))}")
    return words


def asks_for_change(text: str) -> bool:
    """Whether a command would change something, or show secrets, if it were carried out."""
    words = text[:LONGEST].split()
    name = next(iter(words[1:2] if words[:1] == ["tunnelconsole"] else words[:1]), "")
    return name in STEERING and (name not in READING or "--reveal" in words)


def _known(role: Role) -> str:
    names = sorted({*READING, *(STEERING if role == "operate" else ())})
    return f"there are: {', '.join(names)}; without a command there is the console"
