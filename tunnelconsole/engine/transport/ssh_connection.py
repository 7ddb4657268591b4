"""What connections of SSH have in common, as server and as client: asyncssh's, held within bounds.

asyncssh works off all that has come in one turn of the loop, takes any number of packets before anybody has logged in,
and goes on writing to who does not read. Here each turn has an end, and so has what a stranger may say; what the other
side does not take holds up the channels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import asyncssh
from asyncssh.connection import SSHConnection

from tunnelconsole.engine.transport.link import nobody_told
from tunnelconsole.engine.transport.ssh_channel import MAX_PACKET, WINDOW, ChannelLink, EndingChannel

MOST_UNSENT: Final = 1024 * 1024
"""Bytes that may wait for the other side to take them: as many as its kernel and ours hold on a fast line."""

LESS_UNSENT: Final = MOST_UNSENT // 4
"""Bytes from which on more may be sent again."""

LARGEST_SLICE: Final = 40 * 1024
"""Bytes that asyncssh is given at once where packets are large, a packet and a little: for each packet it copies all
that is behind."""

SMALLEST_SLICE: Final = 2 * 1024
"""The same where they are small: 128 of the smallest, 4 ms of work."""

FEW_PACKETS: Final = 16
"""Packets in a slice up to which the next one may be twice as large."""

TURN: Final = 0.002
"""Seconds after which others have their turn, before more of what has come is looked at."""

MOST_BEFORE_LOGIN: Final = 512
"""Packets that either side may send before anybody has logged in: a key exchange has five, each key that is offered two
or three, and OpenSSH's agents hold a handful."""

MOST_REQUESTS: Final = 256
"""Requests about the connection itself that may wait for the one before them: a client asks for all its forwards at
once, and for far fewer."""

IGNORE: Final = 2
"""SSH_MSG_IGNORE (RFC 4253, section 11.2)."""


class LeanConnection(SSHConnection):
    """Put this before asyncssh's own class for one side."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.over = False
        """Whether it is over, and every channel with it."""
        self.below: asyncio.Transport | None = None
        """The socket that it has; None as long as it has none."""
        self.links: set[ChannelLink] = set()
        """Channels of forwards that are open on it, or about to be."""
        self._full = False
        self._packets = 0
        self._rest = b""
        """What has come and asyncssh has not been given yet."""
        self._slice = SMALLEST_SLICE
        self._next_turn: asyncio.Handle | None = None
        self._deaf: set[str] = set()
        """Why nothing is read now."""

    # -- what comes ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.below = cast(asyncio.Transport, transport)
        self.below.set_write_buffer_limits(MOST_UNSENT, LESS_UNSENT)
        super().connection_made(self.below)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._rest = self._rest + data if self._rest else data
        if self._next_turn is None:
            self._work_off()

    def _work_off(self) -> None:
        """Gives asyncssh what has come, as far as it takes it and the turn goes; meanwhile nothing more is read."""
        self._next_turn = None
        ends = self._loop.time() + TURN
        while self._rest and not self._is_busy():
            before = self._packets
            piece, self._rest = self._rest[: self._slice], self._rest[self._slice :]
            super().data_received(piece)
            few = self._packets - before <= FEW_PACKETS
            self._slice = min(LARGEST_SLICE, self._slice * 2) if few else SMALLEST_SLICE
            if self._rest and self._loop.time() >= ends:
                self._next_turn = self._loop.call_soon(self._work_off)
                break
        if self._rest:
            self.stop_reading("what has come")
        else:
            self.read_on("what has come")

    def _is_busy(self) -> bool:
        """Whether asyncssh works at a packet, and takes no other: it then keeps what it is given, without a bound."""
        return self._recv_handler not in (self._recv_version, self._recv_pkthdr, self._recv_packet)

    def _finish_recv_packet(self, pkttype: int, seq: int, _task: Any = None, is_async: bool = False) -> None:
        self._packets += 1
        super()._finish_recv_packet(pkttype, seq, _task, is_async)
        if self._packets > MOST_BEFORE_LOGIN and not self._auth_complete:
            self._break_off(f"more than {MOST_BEFORE_LOGIN} packets before anybody has logged in")
        elif len(self._global_request_queue) > MOST_REQUESTS:
            self._break_off(f"more than {MOST_REQUESTS} requests wait for an answer")
        elif is_async and self._rest and self._next_turn is None:
            self._next_turn = self._loop.call_soon(self._work_off)

    def _break_off(self, reason: str) -> None:
        """Ends the connection because of what the other side does."""
        self._rest = self._inpbuf = b""
        error = asyncssh.ProtocolError(reason)
        self._send_disconnect(error.code, error.reason, error.lang)
        self._force_close(error)

    def stop_reading(self, reason: str) -> None:
        """Reads nothing more."""
        if not self._deaf and self.below is not None and not self.below.is_closing():
            self.below.pause_reading()
        self._deaf.add(reason)

    def read_on(self, reason: str) -> None:
        """Takes back one reason."""
        if reason in self._deaf:
            self._deaf.discard(reason)
            if not self._deaf and self.below is not None and not self.below.is_closing():
                self.below.resume_reading()

    # -- what goes -------------------------------------------------------------------------------------------------

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Leaves out the empty packet that asyncssh puts before each other one, for CBC, which is not offered."""
        if pkttype != IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def pause_writing(self) -> None:
        """Part of asyncio's protocols: asyncssh itself would go on and fill the memory."""
        self._full = True
        for link in self.links:
            link.hold("connection")

    def resume_writing(self) -> None:
        self._full = False
        for link in list(self.links):
            link.go_on("connection")

    # -- channels --------------------------------------------------------------------------------------------------

    def new_link(self, opened: Callable[[], None] = nobody_told) -> ChannelLink:
        """A link for a channel that is about to be opened; see :class:`ChannelLink`."""
        link = ChannelLink(self._loop, self, opened, gone=lambda: self.forget(link))
        self.links.add(link)
        if self._full:
            link.hold("connection")
        return link

    def forget(self, link: ChannelLink) -> None:
        """A channel is over, or was not opened."""
        self.links.discard(link)

    def create_tcp_channel(
        self,
        encoding: str | None = None,
        errors: str = "strict",
        window: int = WINDOW,
        max_pktsize: int = MAX_PACKET,
    ) -> asyncssh.SSHTCPChannel[bytes]:
        return EndingChannel(self, self._loop, encoding, errors, window, min(max_pktsize, MAX_PACKET))

    def _cleanup(self, exc: Exception | None) -> None:
        self.over = True  # before the channels are told, who must know a broken connection from a channel's end
        if self._next_turn is not None:
            self._next_turn.cancel()
        self._rest = b""
        super()._cleanup(exc)
