"""A channel of SSH as a link: what a forward carries, at either end of a connection.

asyncssh keeps what is not read within the channel's window, and says when it cannot pass on what is written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import asyncssh

from tunnelconsole.engine.transport.link import NOBODY, LinkOwner, nobody_told

WINDOW: Final = 1024 * 1024
"""Bytes that may be on their way to us and unread, for each channel: 80 Mbit/s over a round trip of 100 ms."""

MAX_PACKET: Final = 32 * 1024
"""Bytes of payload in a packet at the most: what OpenSSH takes, and every other has to (RFC 4253, section 6.1)."""

CLOSE_TIME: Final = 10.0
"""Seconds that the far side has to take what was sent before a channel was closed; then it is cut."""


ALWAYS_END = ("OpenSSH", "TunnelConsole")
"""Programs that send the end of what they send before they close a channel, unless they cut it. Others just close it,
and so nobody can tell a cut of theirs from an end: SSH has no reset."""

CUT = "the other side cut the channel"
"""Why a channel broke that was closed without an end."""


class Carrier(Protocol):
    """The SSH connection that channels are part of."""

    @property
    def over(self) -> bool:
        """Whether it is over, and not the channel alone."""


class EndingChannel(asyncssh.SSHTCPChannel[bytes]):
    """asyncssh's channel, which remembers that the end has come: asyncssh forgets one that is followed by a close."""

    end_came = False
    """Whether the far side has sent its end, told or not."""

    def _flush_recv_buf(self, exc: Exception | None = None) -> None:
        self.end_came = self.end_came or self._recv_state in ("eof_pending", "eof")
        super()._flush_recv_buf(exc)


class ChannelLink(asyncssh.SSHTCPSession[bytes]):
    """A channel of SSH as a link; give it to asyncssh as the channel's session. It is not read until :meth:`resume`.

    :param opened: told once the channel is open.
    :param gone: told once it is over at both ends, and so all that was written to it has arrived or never will.
    """

    path = "ssh"
    plain = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        carrier: Carrier,
        opened: Callable[[], None] = nobody_told,
        gone: Callable[[], None] = nobody_told,
    ) -> None:
        self._loop = loop
        self._carrier = carrier
        self._opened = opened
        self._gone = gone
        self._channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self.owner: LinkOwner = NOBODY
        self._undelivered: deque[bytes] = deque()
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held: set[str] = set()
        self._closed = False
        self._broken = ""  # why it broke
        self._always_ends = False
        self._end_told = False
        self._finishing = False
        self._parting = False  # closed, and what was written before is still on its way
        self.blocked = False
        self.reading = False
        self.ended = False
        self.left_in_order = False

    @property
    def closed(self) -> bool:
        """Whether its owner has let go of it."""
        return self._closed

    # -- for the owner ---------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        if self._channel is None or self._channel.is_closing():
            # Where the channel is still there, the far side has closed it: what it sent before may be unread here.
            self.left_in_order = self.left_in_order or (self._channel is not None and not self._closed)
            return False
        self._channel.write(data)
        return True

    def finish(self) -> None:
        self._finishing = True
        if self._channel is not None:
            self._channel.write_eof()

    def pause(self) -> None:
        self.reading = False
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._channel is not None:
            self._channel.pause_reading()

    def resume(self) -> None:
        if not self.reading and not self._closed:
            self.reading = True
            self._soon = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Tells what has come and was not asked for yet, and has asyncssh tell the rest."""
        self._soon = None
        while self.reading and self._undelivered:
            self.owner.link_received(self, self._undelivered.popleft())
        if self.reading and not self.ended and self._channel is not None:
            self._channel.resume_reading()
        self._tell_end()

    def _tell_end(self) -> None:
        if not self.reading or self._undelivered or self._closed:
            return
        if self._broken:
            self._tell_break()
        elif self.ended and not self._end_told:
            self._end_told = True
            self.reading = False
            self.owner.link_ended(self)

    def _tell_break(self) -> None:
        self._stop()
        self.owner.link_broken(self, self._broken)

    def close(self) -> None:
        if self._closed:
            return
        self._stop()
        if self._channel is None:
            return
        self._timer = self._loop.call_later(CLOSE_TIME, self._cut)
        if self._finishing and self._channel.get_write_buffer_size():
            self._parting = True  # asyncssh would forget the end, which is behind that
            self._channel.set_write_buffer_limits(0, 0)
            self._channel.resume_reading()
        else:
            self._channel.close()  # behind what was written

    def _part(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def abort(self) -> None:
        if not self._closed:
            self._stop()
            self._cut()

    def _cut(self) -> None:
        if self._channel is not None:
            self._channel.abort()

    def _stop(self) -> None:
        self._closed = True
        self.reading = False
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._undelivered.clear()
        self._let_go()

    def _let_go(self) -> None:
        self._held.clear()
        self.blocked = False

    def hold(self, reason: str) -> None:
        """Counts as blocked from now on, for this reason."""
        if not self._closed:
            self._held.add(reason)
            self.blocked = True

    def go_on(self, reason: str) -> None:
        """Takes back one reason."""
        if reason in self._held:
            self._held.discard(reason)
            self.blocked = bool(self._held)
            if not self.blocked:
                self.owner.link_drained(self)

    # -- from asyncssh ---------------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        """Part of asyncssh's sessions, as those below."""
        self._channel = chan
        connection = chan.get_connection()
        version = connection.get_extra_info("server_version" if connection.is_client() else "client_version")
        self._always_ends = isinstance(chan, EndingChannel) and any(name in str(version) for name in ALWAYS_END)
        chan.pause_reading()

    def session_started(self) -> None:
        if self._closed:  # whoever wanted it has left meanwhile
            self._cut()
        else:
            self._opened()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._closed:
            return
        if self.reading and not self._undelivered:
            self.owner.link_received(self, data)
            return
        self._undelivered.append(data)
        if self._channel is not None:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self._tell_end()
        return True  # our side goes on

    def pause_writing(self) -> None:
        self.hold("channel")

    def resume_writing(self) -> None:
        if self._parting:
            self._loop.call_soon(self._part)  # asyncssh is about to send the end
        else:
            self.go_on("channel")

    def connection_lost(self, exc: Exception | None) -> None:
        cut = self._always_ends and isinstance(self._channel, EndingChannel) and not self._channel.end_came
        self._channel = None
        if self._timer is not None:
            self._timer.cancel()
        self._gone()
        if self._closed:
            return
        if exc is not None or self._carrier.over or cut:
            lost = "the SSH connection ended" if self._carrier.over else CUT
            self._broken = str(exc) if exc is not None else lost
            self.ended = True
            if self.owner is not NOBODY:
                self._tell_break()  # at once: an owner that does not read would wait for a dead connection to drain
            return
        # The far side has closed it, and so both ways are over.
        self.ended = self.left_in_order = True
        self._tell_end()
        if not self._closed:
            self._let_go()
            self.owner.link_deaf(self)
