"""A bridge: gives a link that has no descriptor, such as a channel of SSH, an end that the data plane can use.

The end is one half of a socket pair; its other half is joined with the link. A pair of Unix sockets has no reset. So
the end remembers that its link broke, and shows it behind the last byte; and it tells the bridge how it was left.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final

from tunnelconsole.engine.transport import descriptors
from tunnelconsole.engine.transport.ends import SocketEnd
from tunnelconsole.engine.transport.link import EndLink, JoinableLink, nobody_told
from tunnelconsole.engine.transport.link_pump import LinkPump
from tunnelconsole.engine.transport.tls import TLSEnd

DELIVERY_TIME: Final = 60.0
"""Seconds that what was written before an end was closed has to leave: what Linux gives a connection in FIN_WAIT_2."""


class BridgedEnd:
    """An :class:`~tunnelconsole.engine.transport.ends.End`; not a ``SocketEnd``, whose bare socket shows no reset.

    :param sock: one half of a socket pair, non-blocking, owned by the end.
    :param path: how bytes travel behind it.
    :param aborted: told when the end is broken off.
    :param closed: told when it is closed in order. Of the two, the first counts.
    """

    __slots__ = ("_aborted", "_closed", "_left", "broken", "complete", "path", "socket")

    def __init__(
        self, sock: socket.socket, path: str, aborted: Callable[[], None], closed: Callable[[], None] = nobody_told
    ) -> None:
        self.socket = sock
        self.path = path
        self._aborted = aborted
        self._closed = closed
        self._left = False
        self.broken = ""
        """Why it broke, set by who has the other half; "" while it has not."""
        self.complete = False
        """Whether all that the far side sent has come, and its end; set by who has the other half."""

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
        self._leave(self._closed)

    def abort(self) -> None:
        self._leave(self._aborted)

    def _leave(self, tell: Callable[[], None]) -> None:
        self.socket.close()
        if not self._left:
            self._left = True
            tell()


class BridgedTLSEnd(TLSEnd):
    """TLS over a bridge.

    :param plain: owned by the end from here on.
    """

    __slots__ = ("_plain",)

    def __init__(self, plain: BridgedEnd, context: ssl.SSLContext, *, server_side: bool, server_name: str) -> None:
        super().__init__(plain.socket, context, server_side=server_side, server_name=server_name)
        self._plain = plain

    def close(self) -> None:
        super().close()
        self._plain.close()

    def abort(self) -> None:
        self._plain.abort()


class PairEnd(SocketEnd):
    """The other half of a socket pair: says how it ends, because the pair itself shows only that it does.

    :param cut: told before the half is cut, and so before anybody can see it.
    :param ended: told before its end is sent in order.
    """

    __slots__ = ("_cut", "_ended")

    def __init__(self, sock: socket.socket, cut: Callable[[], None], ended: Callable[[], None] = nobody_told) -> None:
        super().__init__(sock)
        self._cut = cut
        self._ended = ended

    def send_eof(self) -> None:
        self._ended()
        super().send_eof()

    def abort(self) -> None:
        self._cut()
        super().abort()


class Bridge:
    """Leads from an end to a link, until both directions have ended.

    :param link: owned by the bridge from here on.
    :raises OSError: there are no descriptors left; the link is as it was.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, link: JoinableLink) -> None:
        near, far = socket.socketpair()
        for half in (near, far):
            half.setblocking(False)
        if max(near.fileno(), far.fileno()) >= descriptors.ceiling():
            near.close()
            far.close()
            raise descriptors.exhausted()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.end = BridgedEnd(near, link.path, self._broken_off, self._closed)
        """What there is for others, which is theirs to close."""
        self._pump = LinkPump(loop, EndLink(loop, PairEnd(far, self._cut, self._ended)), link, self._over)

    def _cut(self) -> None:
        self.end.broken = self._pump.reason.removeprefix("target: ") or "the connection is over"

    def _ended(self) -> None:
        self.end.complete = True

    def _broken_off(self) -> None:
        self._pump.abort("it was broken off here")

    def _closed(self) -> None:
        """What was written still goes out, and its end; what comes has nobody any more."""
        self._pump.stop_receiving()
        if not self._pump.over:
            self._timer = self._loop.call_later(DELIVERY_TIME, self._pump.abort, "what was written last was not taken")

    def _over(self, _reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
