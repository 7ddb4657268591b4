"""One to one: a sender whose only receiver has no other sender is spliced to it, until either is no longer so."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunnelconsole.engine.transport.adaptive import AdaptiveHalf
from tunnelconsole.engine.transport.half import Half
from tunnelconsole.engine.transport.plane import Plane

if TYPE_CHECKING:
    from tunnelconsole.engine.services.channel.party import Party


class Direct:
    """Moves what ``sender`` sends straight to ``receiver``.

    Nobody else may read from the one or write to the other between :meth:`start` and :meth:`undo`.

    :param ended: told, once all is delivered, that the sender has ended its side.
    :param broken: told that the sender (``sending`` False) or the receiver (True) broke.
    """

    __slots__ = ("_broken", "_ended", "half", "receiver", "sender")

    def __init__(
        self,
        plane: Plane,
        sender: Party,
        receiver: Party,
        sockets: tuple[socket.socket, socket.socket],
        ended: Callable[[Direct], None],
        broken: Callable[[Direct, OSError, bool], None],
    ) -> None:
        self.sender = sender
        self.receiver = receiver
        self._ended = ended
        self._broken = broken
        self.half = AdaptiveHalf(self, plane, *sockets, passes_end=False)
        sender.direct_out = receiver.direct_in = self

    @property
    def delivered(self) -> int:
        """Bytes that the receiver's kernel has taken."""
        return self.half.total - self.half.undelivered

    def undo(self) -> bytes:
        """Parts the two; returns what was read from the sender and not delivered, which is to be delivered first."""
        self.sender.received += self.half.total
        self.receiver.sent += self.delivered
        self.sender.direct_out = self.receiver.direct_in = None
        return self.half.take_back()

    def half_ended(self) -> None:
        self._ended(self)

    def half_broken(self, half: Half, error: OSError, *, sending: bool) -> None:
        self._broken(self, error, sending)
