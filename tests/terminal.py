"""A terminal with a program in it, driven as a person drives one: keys in, the screen read."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import system_tools
from waiting import until_true

PATIENCE = 30.0
"""Seconds until something that should be on the screen counts as missing."""


class Terminal:
    """A terminal of tmux, on a tmux server of its own.

    :param folder: for the server's socket, and what the program leaves.
    :param command: what runs in it.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], env: Mapping[str, str], columns: int = 120, rows: int = 36
    ) -> None:
        own = Path(tempfile.mkdtemp(dir=folder, prefix="t"))
        self._socket, self._ended = own / "s", own / "ended"
        self._env = {key: value for key, value in env.items() if key != "TMUX"} | {"TERM": "xterm-256color"}
        # Without TMUX the program takes this for a plain terminal, and what it copies arrives in the clipboard here.
        shell = f"unset TMUX; {shlex.join(command)}; echo $? > {shlex.quote(str(self._ended))}; exec cat"
        size = ["-x", str(columns), "-y", str(rows)]
        session = ["new-session", "-d", *size, "-c", str(folder), "sh", "-c", shell]
        self._tmux("-f", "/dev/null", *session, ";", "set", "-g", "set-clipboard", "on")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(self._command("kill-server"), env=self._env, check=False, capture_output=True)

    def press(self, *keys: str) -> None:
        """Presses keys, by the names that tmux gives them: ``x``, ``Enter``, ``Escape``, ``C-d``."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Types a text."""
        self._tmux("send-keys", "-l", text)

    @property
    def screen(self) -> str:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p")

    def lines(self, pattern: str) -> list[str]:
        """The lines on the screen that match a regular expression somewhere."""
        return [line for line in self.screen.splitlines() if re.search(pattern, line)]

    def resize(self, columns: int, rows: int) -> None:
        """Makes the window another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def clipboard(self) -> str:
        """What was copied last by a program in it (OSC 52)."""
        return self._tmux("show-buffer")

    def shows(self, *patterns: str, within: float = PATIENCE) -> str:
        """Waits until every regular expression matches somewhere on one screen, and gives that screen."""
        return self._until(
            lambda screen: all(re.search(pattern, screen, re.MULTILINE) for pattern in patterns), patterns, within
        )

    def hides(self, *patterns: str, within: float = PATIENCE) -> str:
        """Waits until none matches any more, and gives that screen."""
        return self._until(
            lambda screen: not any(re.search(pattern, screen, re.MULTILINE) for pattern in patterns), patterns, within
        )

    def _until(self, condition: Callable[[str], bool], patterns: Sequence[str], within: float) -> str:
        seen = ""

        def look() -> bool:
            nonlocal seen
            seen = self.screen
            return condition(seen)

        try:
            until_true(look, within)
        except AssertionError:
            raise AssertionError(f"waited {within:g} s for {patterns!r}; the screen shows:\n{seen}") from None
        return seen

    def exit_code(self, within: float = PATIENCE) -> int:
        """Waits until the program has ended, and gives its exit code."""
        return int(until_true(lambda: self._ended.exists() and self._ended.read_text().strip(), within))

    def _command(self, *arguments: str) -> list[str]:
        return [system_tools.path_of("tmux"), "-S", str(self._socket), *arguments]

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), env=self._env, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"tmux {arguments[0]}: {done.stderr}"
        return done.stdout
