"""The hub: passes on what each party sends, and decides what becomes of a receiver that is slow, or not there.

What a sender sends is read once and shared by the outboxes of its receivers. A slow receiver is met by the service's
``on_slow``: ``wait`` reads no more from those who send to it, so that nothing is lost; ``drop`` leaves whole reads out,
for that receiver only; ``disconnect`` ends it. Nobody else notices. One to one, with ``wait`` and where nothing stands
in the way, bytes are spliced past all this; what changes that never loses or reorders one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Literal

from tunnelconsole.engine.node import Node
from tunnelconsole.engine.services.channel.direct import Direct
from tunnelconsole.engine.services.channel.drops import Drops, Loss, Report
from tunnelconsole.engine.services.channel.hold import Hold
from tunnelconsole.engine.services.channel.party import Party
from tunnelconsole.engine.services.channel.routes import Routes
from tunnelconsole.engine.transport.breaks import BreakWatch
from tunnelconsole.engine.transport.ends import READ_SIZE, SocketEnd
from tunnelconsole.engine.wire.sealed_beginnings import is_beginnings

OnSlow = Literal["wait", "drop", "disconnect"]

MIN_ROOM = 16 * 1024
"""Bytes of room below which a receiver counts as full: reads of less would cost more than they move."""

HALF_CLOSED_IDLE = 120.0
"""Seconds without a byte that a client which has closed its sending side is kept, where no idle timeout says less: the
original's for anybody."""

SLOW = "it reads too slowly"
"""Why bytes for a receiver were dropped, or it was disconnected."""

ABSENT = "their receiver is not there"
"""Why bytes of a sender were not delivered."""

Gone = Callable[[Party, str], None]
"""Told that a party is over, and why; "" for an orderly end."""


class Hub:
    """The parties of one channel server.

    :param buffer: bytes that may wait for each receiver, at least one read.
    :param hold: bytes kept for each named receiver that is not there.
    :param report: told what was lost.
    :param too_slow: told of a receiver that is about to be disconnected.
    :param gone: see :data:`Gone`.
    """

    def __init__(
        self,
        node: Node,
        *,
        on_slow: OnSlow,
        buffer: int,
        hold: int,
        report: Report,
        too_slow: Callable[[Party], None],
        gone: Gone,
    ) -> None:
        self.loop = node.loop
        self.buffer = buffer
        self.parties: dict[Party, None] = {}
        """Everybody who is here, in the order in which they came."""
        self.breaks = BreakWatch(node.loop)
        """Shows which of those that have closed their sending side are gone."""
        self.routes = Routes()
        self._plane = node.plane
        self._on_slow = on_slow
        self._splices = on_slow == "wait"
        self._half_closed: dict[Party, None] = {}
        self._settling: asyncio.Handle | None = None
        self._drops = Drops(self.loop, report)
        self._hold = Hold(self.loop, hold, lambda size, reason: self._drops.count(Loss("", "", "", reason), size))
        self._too_slow = too_slow
        self._gone = gone
        self._serving: Party | None = None
        """The sender whose bytes are being passed on: it cannot become one to one before all have them."""

    def join(self, party: Party) -> None:
        """Lets a party in whose chid nobody has; what was held for it is the first that it gets."""
        self.parties[party] = None
        affected = self.routes.add_receiver(party) | self.routes.add_sender(party)
        party.deliver_first(self._hold.take(party.chid))
        self._review(affected)
        party.read_on()

    def set_receivers(self, party: Party, receivers: tuple[str, ...]) -> None:
        """Has ``party`` send to others from now on; nobody named means all."""
        affected = self.routes.remove_sender(party)
        party.receivers = receivers
        affected |= self.routes.add_sender(party)
        self._unblock(party)
        self._review(affected)

    def stop_holding(self) -> None:
        """Forgets what is held, because nobody comes any more."""
        self._hold.clear()
        self._drops.settle("")

    # What a party tells of itself.

    def room_for(self, sender: Party) -> int:
        """Bytes that ``sender`` may be read now; 0 when a receiver is full, which it then waits for."""
        size = sender.pace.read_size if sender.pace is not None else READ_SIZE
        if self._on_slow != "wait":
            return size
        for receiver in self.routes.targets(sender):
            if receiver.outbox.waiting and receiver is not sender:
                room = receiver.outbox.room
                if room < MIN_ROOM:
                    sender.blocked_on = receiver
                    receiver.blocking[sender] = None
                    return 0
                size = min(size, room)
        return size

    def pass_on(self, sender: Party, data: bytes) -> None:
        """Sends on what was just read from ``sender``."""
        size = len(data)
        targets = self.routes.targets(sender)
        self._serving = sender
        heard = False
        for receiver in targets:
            if receiver is sender or not receiver.receives:  # or it went while the others were served
                continue
            heard = True
            if self._on_slow == "wait" or receiver.outbox.room > 0:
                receiver.deliver(data)  # all of it, even beyond its room: with less than a buffer full it is not slow
            elif self._on_slow == "drop":
                receiver.lose(size, SLOW)
            else:
                self._too_slow(receiver)
                receiver.finish(SLOW)
        self._serving = None
        if sender.absent or not heard:
            self._keep_for_absent(sender, data)
        if self._splices and self.routes.targets(sender) is not targets:  # somebody went meanwhile
            self._review_one(sender)

    def paced_anew(self, sender: Party) -> None:
        """``sender`` is held to another rate, or to none: with one it cannot be spliced."""
        if self._splices:
            self._review_one(sender)

    def pause_after(self, sender: Party, size: int) -> float:
        """Seconds to read nothing from a sender of whom so many bytes were just read."""
        return sender.pace.take(size, self.loop.time()) if sender.pace is not None else 0.0

    def drained(self, receiver: Party, *, empty: bool) -> None:
        """``receiver`` has taken some of what waited for it, or all."""
        if receiver.blocking and 2 * receiver.outbox.room >= receiver.outbox.capacity:
            for sender in list(receiver.blocking):
                self._unblock(sender)
        if not empty:
            return
        if self._splices and self.routes.count_senders(receiver) == 1:
            self._review_one(next(self.routes.senders_to(receiver)))
        if receiver.ended:
            self._settle(receiver)

    def ended(self, party: Party) -> None:
        """``party`` has closed its sending side; it is kept as long as somebody may send to it.

        Where bytes are held it leaves instead, once it has taken what waits for it: whether it is still there to read
        cannot be seen, and what comes for its chid is safe until somebody comes as that.
        """
        self._half_closed[party] = None
        if party.channel is not None and not party.channel.idle_timeout:
            party.channel.idle_timeout = HALF_CLOSED_IDLE
        affected = self.routes.remove_sender(party)
        if self._hold.capacity:
            self.unreachable(party)
        self._review(affected)

    def unreachable(self, party: Party) -> None:
        """Nothing more is to be sent to ``party``."""
        if party.direct_in is not None:
            self._part(party.direct_in)
        affected = self.routes.remove_receiver(party)
        for sender in list(party.blocking):
            self._unblock(sender)
        self._review(affected)

    def leave(self, party: Party) -> None:
        """``party`` is over, and forgotten; what it sent before is still delivered."""
        self._half_closed.pop(party, None)
        if party.direct_out is not None:
            self._part(party.direct_out)
        self._unblock(party)
        affected = self.routes.remove_sender(party)
        self.unreachable(party)
        self._review(affected)

    def gone(self, party: Party, reason: str) -> None:
        """``party`` is closed."""
        del self.parties[party]
        if party.session is not None:
            self._drops.settle(party.session.id)
        self._gone(party, reason)

    def lost(self, party: Party, size: int, reason: str) -> None:
        """Bytes from or for ``party`` were lost."""
        if party.session is not None and party.channel is not None:
            self._drops.count(Loss(party.session.id, party.channel.id, party.chid, reason), size)

    # How it is done.

    def _keep_for_absent(self, sender: Party, data: bytes) -> None:
        if is_beginnings(data):
            sender.undelivered += len(data) * max(1, len(sender.absent))
            return  # no loss: they are said until somebody answers, and whoever comes hears the next ones
        lost = sum(len(data) - self._hold.keep(chid, data) for chid in sender.absent)
        if not sender.absent:
            lost = len(data)  # it sends to all, or to itself alone, and nobody else is there
        sender.undelivered += lost
        self.lost(sender, lost, ABSENT)

    def _unblock(self, sender: Party) -> None:
        if sender.blocked_on is not None:
            del sender.blocked_on.blocking[sender]
            sender.blocked_on = None
            sender.read_on()

    def _review(self, senders: Iterable[Party]) -> None:
        """Splices those that are one to one now, and only those; soon lets go who waits for nobody."""
        if self._splices:
            for sender in senders:
                if sender is not self._serving:
                    self._review_one(sender)
        if self._half_closed and self._settling is None:
            # Soon, not now: each that goes may let others go, and a crowd would be a deep recursion.
            self._settling = self.loop.call_soon(self._settle_all)

    def _review_one(self, sender: Party) -> None:
        receiver = self.routes.sole_receiver(sender)
        direct = sender.direct_out
        if direct is not None and (direct.receiver is not receiver or sender.pace is not None):
            self._part(direct)
            direct = None
        if direct is not None or receiver is None or sender.pace is not None:
            return
        if receiver.outbox.waiting or receiver.writing:
            return  # what waits goes out first; drained() then comes back to this
        source, destination = sender.end, receiver.end
        if isinstance(source, SocketEnd) and isinstance(destination, SocketEnd):
            self._unblock(sender)
            early = sender.hand_over()
            sockets = (source.socket, destination.socket)
            direct = Direct(self._plane, sender, receiver, sockets, self._direct_ended, self._direct_broken)
            direct.half.start(early)

    def _part(self, direct: Direct) -> None:
        """Ends a splice: what it holds goes out first, or is lost with its receiver; its sender is read as before."""
        receiver, left = direct.receiver, direct.undo()
        if receiver.receives:
            receiver.deliver_first(left)
        else:
            receiver.lose(len(left), "it left before it had taken them")
        direct.sender.read_on()

    def _direct_ended(self, direct: Direct) -> None:
        direct.undo()
        direct.sender.end_sending()

    def _direct_broken(self, direct: Direct, error: OSError, sending: bool) -> None:
        if sending:
            direct.receiver.fail(error)
        else:
            direct.sender.fail_receiving(error)

    def _settle_all(self) -> None:
        self._settling = None
        for party in list(self._half_closed):
            self._settle(party)

    def _settle(self, party: Party) -> None:
        """Lets a party go that has closed its sending side, when nobody is there who may send to it.

        Where bytes are held nobody may, since its chid is free; otherwise those who have closed theirs do not count.
        """
        awaits = not self._hold.capacity and self.routes.count_senders(party)
        if not (party.waiting or party.writing or awaits):
            party.finish("")
