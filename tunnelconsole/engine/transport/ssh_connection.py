"""What connections of SSH have in common, as server and as client: asyncssh's, without what costs most in it."""

from __future__ import annotations

from typing import Any, Final

import asyncssh
from asyncssh.connection import SSHConnection

from tunnelconsole.engine.transport.ssh_channel import MAX_PACKET, WINDOW, EndingChannel

MOST_UNSENT: Final = 1024 * 1024
"""Bytes that may wait for the other side to take them: as many as its kernel and ours hold on a fast line."""

LESS_UNSENT: Final = MOST_UNSENT // 4
"""Bytes from which on more may be sent again."""

LARGEST_SLICE: Final = 40 * 1024
"""Bytes that asyncssh is given at once, a packet and a little: for each packet it copies all that is behind."""

IGNORE: Final = 2
"""SSH_MSG_IGNORE (RFC 4253, section 11.2)."""


class LeanConnection(SSHConnection):
    """Put this before asyncssh's own class for one side."""

    over = False
    """Whether it is over, and every channel with it."""

    def create_tcp_channel(
        self,
        encoding: str | None = None,
        errors: str = "strict",
        window: int = WINDOW,
        max_pktsize: int = MAX_PACKET,
    ) -> asyncssh.SSHTCPChannel[bytes]:
        return EndingChannel(self, self._loop, encoding, errors, window, min(max_pktsize, MAX_PACKET))

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        for start in range(0, len(data), LARGEST_SLICE):
            super().data_received(data[start : start + LARGEST_SLICE], datatype)

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Leaves out the empty packet that asyncssh puts before each other one, for CBC, which is not offered."""
        if pkttype != IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def _cleanup(self, exc: Exception | None) -> None:
        self.over = True  # before the channels are told, who must know a broken connection from a channel's end
        super()._cleanup(exc)
