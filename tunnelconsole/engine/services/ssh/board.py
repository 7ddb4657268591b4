"""What a terminal shows of an ``ssh -R``: the public addresses, and who comes. Lines of text, so no process of its own.

A client that does not read is told nothing of what comes meanwhile, and afterwards how much that was.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.wire.printable import printable

if TYPE_CHECKING:
    import asyncssh

LEAVING: Final = frozenset(b"\x03\x04qQ")
"""What ends it when it is typed: Ctrl-C and Ctrl-D, which a terminal of SSH passes on as they are, and q."""

LONGEST_LINE: Final = 160
"""Characters of a line about a visitor: a long path is cut, and fills no screen."""


class Board:
    """One of them.

    :param terminal: whether it is shown on a terminal, where Ctrl-C is a letter and a line ends with CR LF.
    """

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], *, terminal: bool) -> None:
        self._channel = channel
        self._terminal = terminal
        self._left_out = 0
        self._held: set[str] = set()
        self.over = asyncio.Event()
        """Set once the client wants no more of it."""

    def show(self, line: str) -> None:
        """Writes a line, if the client reads."""
        if self._held:
            self._left_out += 1
        else:
            self._write(line)

    def show_visit(self, visitor: str, label: str) -> None:
        """Writes that somebody came, and to what."""
        line = f"{time.strftime('%H:%M:%S')}   {visitor}  {label}"
        self.show(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…")

    def _write(self, line: str) -> None:
        if self._channel.is_closing():
            return
        # What a visitor asked for is in it: no control character of theirs reaches the terminal.
        self._channel.write((printable(line) + ("\r\n" if self._terminal else "\n")).encode())

    def typed(self, data: bytes) -> None:
        """Takes what was typed."""
        if self._terminal and not LEAVING.isdisjoint(data):
            self.over.set()

    def hold(self, reason: str) -> None:
        """The client does not read."""
        self._held.add(reason)

    def go_on(self, reason: str) -> None:
        """It does again, for one reason."""
        self._held.discard(reason)
        if not self._held and self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._write(f"({left_out} lines are left out, because nobody read them)")
