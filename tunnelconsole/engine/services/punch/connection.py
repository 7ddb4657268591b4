"""One byte stream with the other end of a room, for a command or a program of one's own: it needs no engine.

Importing this loads the ciphers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tunnelconsole.engine.attempts import Attempt
from tunnelconsole.engine.backoff import Backoff
from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.node import Node
from tunnelconsole.engine.punch_events import AttemptEnded
from tunnelconsole.engine.services.punch.carrier import Carrier
from tunnelconsole.engine.services.punch.meeting import Meeting, PairingUser
from tunnelconsole.engine.services.punch.pairing import Pairing
from tunnelconsole.engine.services.punch.seat import RoomFull
from tunnelconsole.engine.services.punch.streams import Streams
from tunnelconsole.engine.tasks import Tasks
from tunnelconsole.engine.transport.early_stream import EarlyStream
from tunnelconsole.engine.transport.ends import End
from tunnelconsole.engine.transport.plane import Plane
from tunnelconsole.engine.transport.pump import Finished
from tunnelconsole.engine.wire.punch_offer import Mode, Offer
from tunnelconsole.errors import CertificateRejected, ConnectFailed, TunnelConsoleError

FULL_PATIENCE: Final = 4.0
"""Seconds for which a full room is asked again: twice what the rendezvous waits for a client that has vanished."""

FULL_AGAIN: Final = 0.5
"""Seconds between two such questions."""

GONE: Final = "the other end went"

Told = Callable[[str], None]
"""Told, in a sentence for people, what happens on the way to the other end and what becomes of the path."""


class RoomConnection(PairingUser):
    """The stream with the other end of a room: the first link with it, and the one stream in that.

    Both ends of a link may have come for this; then the stream is opened by the one that leads the link. Where the
    other end is a service, we open it if that has a target, and it does if that has a listener.

    :param meeting: of :attr:`~tunnelconsole.engine.wire.punch_offer.Mode.EITHER`.
    :param told: see :data:`Told`.
    """

    def __init__(self, meeting: Meeting, told: Told) -> None:
        self._meeting = meeting
        self._told = told
        self._node = Node(Path())  # it keeps nothing
        self._node.bus.listen(self._happened)
        self._tasks = Tasks(f"room {meeting.room}", self._crashed)
        self._pairing = Pairing(self._node, "", self._tasks, meeting, self)
        self._opened: asyncio.Future[None] = self._node.loop.create_future()
        self._carrier: Carrier | None = None
        self._streams: Streams | None = None
        self._stream: tuple[int, EarlyStream] | None = None
        self._joint: RoomJoint | None = None
        self._hint = ""
        """What was told last, for who waits in vain."""
        self._seated = False
        """Whether the rendezvous has given us a seat at least once."""

    # What is known of it

    @property
    def path(self) -> str:
        """What carries the stream now: ``direct``, ``relay``, or nothing for the moment."""
        return self._pairing.path

    @property
    def attempts(self) -> list[Attempt]:
        """The tries to reach the other end directly, the oldest first."""
        return list(self._node.attempts)

    @property
    def method(self) -> str:
        """``relay``, or how the direct path was found; see :attr:`~tunnelconsole.engine.attempts.Attempt.method`."""
        return self._won.method if self._won is not None else self.path

    @property
    def peer(self) -> str:
        """The address of the other end on a direct path; else that of the rendezvous."""
        return self._won.peer if self._won is not None else str(self._meeting.connect or self._meeting.server)

    @property
    def local_address(self) -> str:
        """Our own ``host:port`` on a direct path; else that of our seat at the rendezvous."""
        return (self._carrier.local if self._carrier is not None else "") or self._pairing.local

    @property
    def public_address(self) -> str:
        """The ``host:port`` that others see in place of it."""
        seen = self._won.ours.address if self._won is not None else ""
        return seen or self._pairing.address

    @property
    def _won(self) -> Attempt | None:
        """The attempt that has led to the present path, if that is direct."""
        if self.path != "direct":
            return None
        return next((attempt for attempt in reversed(self.attempts) if attempt.state == "direct"), None)

    # Getting there

    async def open(self, wait: float | None = None) -> None:
        """Meets the other end, and waits until there is a stream.

        :param wait: seconds at most; None waits for ever.
        A rendezvous that goes away while we wait there is waited for, too.

        :raises ConnectFailed: the rendezvous cannot be reached at first, or does not want us, or nobody came in time.
        :raises CredentialsRefused: it is not the rendezvous that was pinned.
        """
        self._tasks.start(self._run(), "meeting")
        try:
            async with asyncio.timeout(wait):
                await asyncio.shield(self._opened)
        except TimeoutError as error:
            where = f"room {self._meeting.room}"
            raise ConnectFailed(f"nobody else came to {where} within {wait:g} s", self._hint) from error

    async def _run(self) -> None:
        full_until, backoff, loop = 0.0, Backoff(), self._node.loop
        while True:
            began = loop.time()
            try:
                await self._pairing.run()
            except RoomFull as error:
                full_until = full_until or loop.time() + FULL_PATIENCE
                if loop.time() >= full_until:
                    self._fail(error)
                    return
                await asyncio.sleep(FULL_AGAIN)
            except TunnelConsoleError as error:
                if not self._may_come_back(error):
                    self._fail(error)
                    return
                if error.message != self._hint:
                    self._hint = error.message
                    self._told(f"{error.message}; trying again")
                full_until = 0.0
                backoff.worked_for(loop.time() - began)
                await asyncio.sleep(backoff.next())

    def _may_come_back(self, error: TunnelConsoleError) -> bool:
        """Whether to wait on for a rendezvous that has given us a seat before."""
        lost = isinstance(error, ConnectFailed) and not isinstance(error, CertificateRejected)
        return lost and self._seated and not self._opened.done()

    def _fail(self, error: BaseException) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    def _crashed(self, task: str, error: BaseException) -> None:
        """A task has failed; who waits for it is told, and if that is a fault of ours, everybody."""
        if isinstance(error, TunnelConsoleError):
            return
        self._node.loop.call_exception_handler({"message": f"{task} failed", "exception": error})
        self._fail(error)

    def _happened(self, record: Record) -> None:
        event = record.event
        if isinstance(event, AttemptEnded) and event.state in ("relay", "failed") and event.reason:
            self._told(f"no direct path yet: {event.reason}")

    def seated(self) -> None:
        self._seated, self._hint = True, ""
        if self._pairing.alone:
            self._told(f"waiting in room {self._meeting.room} for the other end")

    def warned(self, reason: str) -> None:
        self._hint = reason
        self._told(reason)

    def linked(self, carrier: Carrier, offer: Offer, seen: str, *, leads: bool) -> None:
        if self._opened.done():
            carrier.close("it has another connection already")
            return
        self._carrier = carrier
        streams = self._streams = Streams(self._node, carrier, self._came, leads=leads)
        if offer.mode is Mode.ACCEPTS or (offer.mode is Mode.EITHER and leads):
            early = EarlyStream("the stream")
            stream_id = streams.open(early)
            self._stream = (stream_id, early) if stream_id is not None else None

    def _came(self, stream_id: int, early: EarlyStream) -> None:
        """The other end has opened a stream; there is one, and no more."""
        if self._stream is None:
            self._stream = stream_id, early
            self._check_open()
        elif self._streams is not None:
            self._streams.reject(stream_id)

    def _check_open(self) -> None:
        if self._stream is not None and self.path and not self._opened.done():
            self._opened.set_result(None)

    def moved(self, kind: str) -> None:
        if not kind:
            self._told("no way to the other end for the moment; what is sent waits")
        elif kind == "direct":
            self._told(f"direct: {self.peer} ({self.method})")
        else:
            self._told("through the relay")
        self._check_open()

    def unlinked(self, reason: str) -> None:
        if self._joint is not None:
            self._joint.link_ended(reason)
        elif not self._opened.done():
            if self._streams is not None:
                self._streams.close(reason or GONE)
            self._carrier = self._streams = self._stream = None

    # Using it

    def join(self, plane: Plane, near: End, finished: Finished) -> RoomJoint:
        """Joins an end with the stream; once, after :meth:`open`.

        :param plane: not used: streams have a pump of their own. It is what
            :data:`~tunnelconsole.engine.transport.streams.Join` gives.
        """
        if self._streams is None or self._carrier is None or self._stream is None:
            raise RuntimeError("there is nothing to join before there is a stream")
        self._joint = RoomJoint(self._streams, self._carrier, *self._stream, near, finished)
        return self._joint

    async def close(self) -> None:
        """Leaves the room, and breaks off what has not ended; safe to call twice."""
        self._pairing.close("the other end gave up" if self._joint is None or not self._joint.over else "")
        if self._streams is not None:
            self._streams.close("given up")
        await self._tasks.close()
        await self._node.farewells.over.wait()
        self._node.plane.close()


class RoomJoint:
    """A local end joined with the stream of a room. It is over when the link is: then all has arrived, or is lost."""

    def __init__(
        self, streams: Streams, carrier: Carrier, stream_id: int, early: EarlyStream, near: End, finished: Finished
    ) -> None:
        self._streams = streams
        self._carrier = carrier
        self._finished = finished
        self._reason = ""
        self._pumped = False
        self._link_over = carrier.over
        self._link_reason = ""
        self._pump = streams.join(stream_id, near, self._pump_ended, early=early)

    @property
    def reason(self) -> str:
        """Why it ended, or is about to; empty where it did in order, or has not."""
        return self._reason or self._pump.reason or self._link_reason

    @property
    def undelivered(self) -> str:
        """Why what the local end has sent may not have arrived; empty where it has, or where it sent nothing."""
        return (self._link_reason or self._reason) if self._pump.bytes_out else ""

    @property
    def over(self) -> bool:
        """Whether both the stream and the link have ended."""
        return self._pumped and self._link_over

    def stop_receiving(self) -> None:
        """Takes no more from the other end: it is over once that has what the local end sent."""
        self._pump.stop_receiving()

    def abort(self, reason: str) -> None:
        """Breaks off now; the other end learns that this is no proper end."""
        if not self.over:
            self._reason = self._reason or reason
            self._pump.abort(reason)
            self._carrier.close(reason)

    def _pump_ended(self, reason: str) -> None:
        self._pumped = True
        if reason and not self._pump.brought_all:
            self._reason = self._reason or reason
            self._carrier.close(reason)
        self._streams.close(self._reason)
        self._check_over()

    def link_ended(self, reason: str) -> None:
        """The link is over.

        :param reason: empty where both ends have all that was sent.
        """
        self._link_over = True
        self._link_reason = reason
        self._check_over()

    def _check_over(self) -> None:
        if self.over:
            self._finished(self.reason)
