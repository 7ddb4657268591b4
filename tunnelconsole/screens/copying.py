"""Copying text to where the operator can paste it.

Where this machine has a desktop, its clipboard is used. Over SSH the clipboard that matters is at the other end, and
only the terminal can reach it: it is asked with OSC 52 (xterm's control sequences, "Manipulate Selection Data").
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LARGEST = 74_994
"""Bytes of text that OSC 52 carries: in base64 with its frame this is the 100,000 bytes at which terminals stop reading
a sequence (hterm, vim-oscyank)."""

SCREEN_CHUNK = 250
"""Bytes that GNU screen takes in one device control string (its string buffer holds 256)."""

Way = Literal["desktop", "terminal"]


@dataclass(frozen=True)
class Copied:
    """What became of it."""

    way: Way
    length: int
    """Characters that were copied."""
    cut: bool = False
    """True when only the beginning fitted."""

    @property
    def how(self) -> str:
        """In words, for the toast."""
        where = "to the clipboard" if self.way == "desktop" else "through the terminal (OSC 52)"
        return f"{where}, only the first {self.length:,} characters" if self.cut else where


def way(environ: Mapping[str, str], platform: str = sys.platform) -> Way:
    """How to copy in this environment: ``desktop`` when there is one and we are not on it through SSH."""
    remote = any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT"))
    desktop = platform == "darwin" or any(environ.get(name) for name in ("WAYLAND_DISPLAY", "DISPLAY"))
    return "desktop" if desktop and not remote else "terminal"


def to_desktop(text: str) -> bool:
    """Puts ``text`` on the desktop's clipboard; False when it has no program for that.

    Blocks while that program runs.
    """
    import pyperclip  # noqa: PLC0415 - looks for programs when imported; few consoles ever copy

    try:
        pyperclip.copy(text)
    except (pyperclip.PyperclipException, OSError):
        return False  # the caller asks the terminal instead
    return True


def osc52(text: str, environ: Mapping[str, str]) -> tuple[str, Copied]:
    """The sequence that asks the terminal to copy ``text``, wrapped for tmux or screen, and what it carries.

    What is beyond :data:`LARGEST` is cut off at a whole character.
    """
    whole = text.encode("utf-8", "replace")
    kept = whole[:LARGEST].decode("utf-8", "ignore")
    payload = base64.b64encode(kept.encode()).decode("ascii")
    sequence = f"\x1b]52;c;{payload}\a"
    if environ.get("TMUX"):
        sequence = "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    elif environ.get("STY"):
        chunks = (sequence[start : start + SCREEN_CHUNK] for start in range(0, len(sequence), SCREEN_CHUNK))
        sequence = "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)
    return sequence, Copied("terminal", len(kept), cut=len(whole) > LARGEST)
