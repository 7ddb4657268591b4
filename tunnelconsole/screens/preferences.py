"""What the console remembers from one time to the next: the theme, in a small file of its own.

Losing it costs nothing, so a file that cannot be read counts as none, and one that cannot be written is only reported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec


class Preferences(msgspec.Struct, frozen=True):
    """What is remembered. Unknown keys are left alone by older consoles, and missing ones have a default."""

    theme: str = ""
    """Name of the theme; empty: never chosen."""


@dataclass(frozen=True)
class PreferencesFile:
    """Where it is kept."""

    path: Path
    saved: bool = True
    """False: what is chosen lasts until the console ends."""

    @classmethod
    def usual(cls) -> PreferencesFile:
        """``$XDG_STATE_HOME/tunnelconsole/console.json`` (XDG Base Directory Specification)."""
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return cls(Path(state) / "tunnelconsole" / "console.json")

    @classmethod
    def unsaved(cls) -> PreferencesFile:
        """The same to read; nothing is written."""
        return cls(cls.usual().path, saved=False)

    def load(self) -> Preferences:
        """What was saved, or the defaults where there is nothing that can be read."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Preferences)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return Preferences()  # see above: losing it costs nothing

    def save(self, preferences: Preferences) -> None:
        """Replaces the file, whole or not at all; nobody else can read it.

        :raises OSError: it cannot be written.
        """
        if not self.saved:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)  # of a console that ended before it was done, perhaps with another mode
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.encode(preferences))
        fresh.replace(self.path)
