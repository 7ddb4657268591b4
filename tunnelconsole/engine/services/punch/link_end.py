"""What a link is to its user: half of a socket pair that breaks as a TCP connection does.

A pair of Unix sockets has no reset. So the end remembers that the link broke, and shows it behind the last byte; and it
tells the link when its user breaks it off.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable


class LinkEnd:
    """An :class:`~tunnelconsole.engine.transport.ends.End`; not a ``SocketEnd``, whose bare socket shows no reset.

    :param sock: the user's half, non-blocking, owned by the end.
    :param aborted: told when the user breaks the link off.
    """

    __slots__ = ("_aborted", "broken", "complete", "socket")
    path = "tls"

    def __init__(self, sock: socket.socket, aborted: Callable[[], None]) -> None:
        self.socket = sock
        self._aborted = aborted
        self.broken = ""
        """Why the link broke, set by the link; "" while it has not."""
        self.complete = False
        """Whether all that the other end's user sent has come, and its end; set by the link."""

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self, size: int) -> bytes:
        try:
            data = self.socket.recv(size)
        except ConnectionResetError as error:
            if not self.complete:
                raise self._reset() from error
            return b""
        if not data and self.broken and not self.complete:
            raise self._reset()
        return data

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self.socket.send(data)
        except BrokenPipeError as error:
            if self.broken and not self.complete:
                raise self._reset() from error
            raise  # as of a TCP connection that was reset behind its proper end

    def _reset(self) -> ConnectionResetError:
        return ConnectionResetError(errno.ECONNRESET, self.broken or "the link is over")

    def flush(self) -> bool:
        return True

    def holds_input(self) -> bool:
        return False

    def send_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def abort(self) -> None:
        if self.socket.fileno() >= 0:
            self.socket.close()
            self._aborted()
