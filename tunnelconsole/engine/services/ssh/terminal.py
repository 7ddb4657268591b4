"""The terminal of somebody far away, as far as it can be believed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

USUAL_SIZE = (80, 24)
"""Columns and rows of a terminal that names none, as ever (VT100)."""

LARGEST_SIZE = (500, 200)
"""Columns and rows at the most: more than a wall of screens shows, and 100,000 cells are what a console can draw."""

USUAL_KIND = "xterm-256color"
"""What TERM is when the one that was sent cannot be one."""

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""A name of terminfo (term(7)): no slash, so that it leads to no file elsewhere."""

PASSED_ON = ("COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "LC_CTYPE")
"""Variables that a client may set for its console: how to draw, and nothing else."""

_PASSED_ON = frozenset(name.encode() for name in PASSED_ON)

OF_THE_ENGINE = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "PYTHONPATH", "TZ", "USER", "VIRTUAL_ENV",
    "TUNNELCONSOLE_INTERVAL", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
)  # fmt: skip
"""Variables that a console has from the engine: none that could hold a secret."""

LEAVE_SCREEN = (
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\x1b[?2048l\x1b[<u"
    b"\x1b[?1049l\x1b[?25h\x1b[0m\r\n"
)
"""Takes a terminal out of what a console has put it in, where the console cannot (xterm's control sequences): mouse,
focus, paste, size reports, keyboard protocol, the alternate screen, the hidden cursor, colours."""


@dataclass(frozen=True)
class Terminal:
    """A terminal that was asked for."""

    kind: str
    """For TERM."""
    columns: int
    rows: int


def terminal(kind: str, columns: int, rows: int) -> Terminal:
    """What there is to be, whatever was asked for."""
    columns, rows = size(columns, rows)
    return Terminal(kind if _KIND.fullmatch(kind) else USUAL_KIND, columns, rows)


def size(columns: int, rows: int) -> tuple[int, int]:
    """A size in which something can be drawn."""
    return (
        min(columns, LARGEST_SIZE[0]) if columns > 0 else USUAL_SIZE[0],
        min(rows, LARGEST_SIZE[1]) if rows > 0 else USUAL_SIZE[1],
    )


def passed_on(name: bytes, value: bytes) -> bool:
    """Whether a variable that a client has sent is one for its console."""
    return name in _PASSED_ON and _KIND.fullmatch(value.decode("ascii", "replace")) is not None


def environment(
    engine: Mapping[str, str], sent: Mapping[bytes, bytes], terminal: Terminal | None, peer: str
) -> dict[str, str]:
    """The environment of a console or command.

    :param engine: that of this process.
    :param sent: what the client has sent.
    :param peer: ``host:port`` of the client; copying goes through its terminal then.
    """
    found = {name: engine[name] for name in OF_THE_ENGINE if name in engine}
    found |= {name.decode(): value.decode() for name, value in sent.items() if passed_on(name, value)}
    host, _, port = peer.rpartition(":")
    found["SSH_CONNECTION"] = f"{host.strip('[]')} {port} 0.0.0.0 0"
    if terminal is not None:
        found["TERM"] = terminal.kind
    return found
