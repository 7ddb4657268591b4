"""A link of punch: the byte stream of a pair each way, which outlives the paths that carry it.

Both ends count bytes. Each keeps what it has sent until the other has passed it on, so that a path may break, or be
left for a better one, anywhere: the other says how much it has received, and the stream goes on from there on another
path. The frames are in :mod:`~tunnelconsole.engine.wire.punch_frames`.

``a`` decides. It says SWITCH on the path that is to carry the link, with the next turn, and takes nothing of any path
from then on until ``b`` has answered on that one with a SWITCH of the same turn. ``b`` takes what comes on the path of
the highest turn it has heard, and sends there. Each goes on from what the other's SWITCH says that it has received.
A FIN counts as one byte. No end has more than :data:`LINK_WINDOW` on the way that has not been passed on, so that the
other can always read its paths: pings pass, however long its user takes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.punch_frames import (
    ACK,
    DATA,
    FIN,
    FIN_FRAME,
    MAX_DATA,
    MAX_REASON,
    NONCE_LENGTH,
    NUMBER,
    PING,
    PONG,
    RESET,
    SWITCH,
    SWITCH_BODY,
    FrameReader,
    encode_frame,
    weight,
)

Role = Literal["a", "b"]

#: Bytes on the way each way that have not been passed on: 300 Mbit/s over 100 ms, and what a link costs at most.
LINK_WINDOW = 4 * 1024 * 1024
#: Frames kept at most, so that a window of tiny ones does not cost many times its bytes.
MAX_FRAMES = 4096
#: Bytes passed on from which the other end is told at once: a sixteenth of the window, so that it never runs dry.
ACK_BYTES = LINK_WINDOW // 16
#: Pieces passed on from which the other end is told at once: a sixteenth of the frames that it may keep.
ACK_PIECES = MAX_FRAMES // 16


@dataclass(frozen=True, slots=True)
class Received:
    """The next bytes of the other end's stream; say :meth:`Link.passed_on` once they are."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The other end's stream is complete; say :meth:`Link.end_passed_on` once that is passed on."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Both ways of the link run on this path now."""

    path: int


@dataclass(frozen=True, slots=True)
class Ponged:
    """The other end answered a ping."""

    path: int
    number: int


@dataclass(frozen=True, slots=True)
class PathRefused:
    """What came is not of this link's other end, or not a frame: close the path. The link is as it was."""

    reason: str


@dataclass(frozen=True, slots=True)
class LinkReset:
    """The link is over, without a proper end: the other end said so, or what it said cannot be."""

    reason: str


Event = Received | StreamEnded | Moved | Ponged | PathRefused | LinkReset


class _Outgoing:
    """The stream that this end sends: what waits to be sent, and what is kept until the other end has passed it on."""

    __slots__ = ("_farthest", "_next", "_sent", "_sent_from", "ended", "passed_on", "total", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self._sent: deque[bytes] = deque()
        """On the path that carries the link, or one before it."""
        self._sent_from = 0
        """Where in the stream the first of these begins."""
        self._next = 0
        """Where the first of those that wait begins."""
        self._farthest = 0
        """Where the last that was ever sent ended."""
        self.total = 0
        self.passed_on = 0
        """What the other end has passed on, as far as we have heard."""
        self.ended = False

    @property
    def room(self) -> int:
        """Bytes that may be added."""
        if self.ended or len(self._sent) + len(self.waiting) >= MAX_FRAMES:
            return 0
        return LINK_WINDOW - (self.total - self.passed_on)

    def add(self, frame: bytes) -> None:
        self.waiting.append(frame)
        self.total += weight(frame)

    def take(self, most: int) -> list[bytes]:
        """What is to be sent now, ``most`` bytes or a little more, which counts as sent."""
        frames = []
        while self.waiting and most > 0:
            frame = self.waiting.popleft()
            self._sent.append(frame)
            self._next += weight(frame)
            most -= len(frame)
            frames.append(frame)
        self._farthest = max(self._farthest, self._next)
        return frames

    def acknowledge(self, count: int) -> None:
        """Learns how much has been passed on; less than is known comes late, from a path before.

        :raises ProtocolError: it cannot be so much.
        """
        if count > self._next:
            raise ProtocolError(f"it says that it has passed on {count} bytes of {self._next}")
        self.passed_on = max(self.passed_on, count)
        while self._sent and self._sent_from + weight(self._sent[0]) <= self.passed_on:
            self._sent_from += weight(self._sent.popleft())

    def resume(self, received: int) -> None:
        """Goes on from what the other end has received.

        :raises ProtocolError: it cannot have received so much, or so little.
        """
        if not max(self._sent_from, self.passed_on) <= received <= self._farthest:
            raise ProtocolError(f"it says that it has received {received} bytes of {self._farthest}")
        self.waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        position = self._sent_from
        while position < received:
            frame = self.waiting.popleft()
            position += weight(frame)
            if position > received:
                self.waiting.appendleft(encode_frame(DATA, frame[received - position :]))
                position = received
        self._sent_from = self._next = position


class _Path:
    """What one path has to say beside the stream."""

    __slots__ = ("carried", "ping", "pong", "reader", "reset", "switch")

    def __init__(self) -> None:
        self.reader = FrameReader()
        self.carried = False
        """Whether it carries the link, or has."""
        self.switch = self.ping = self.pong = self.reset = b""

    def take(self) -> list[bytes]:
        words = [word for word in (self.switch, self.pong, self.ping, self.reset) if word]
        self.switch = self.ping = self.pong = self.reset = b""
        return words


class Link:
    """One end of a link. Paths are known to it by numbers that its owner gives them.

    :param link: the link's name, the same at both ends, :data:`NONCE_LENGTH` bytes.
    :param role: which end this is.
    :param nonce: this end's, :data:`NONCE_LENGTH` bytes; says that a SWITCH is of this end of this link.
    :param peer_nonce: the other end's.
    """

    def __init__(self, link: bytes, role: Role, nonce: bytes, peer_nonce: bytes) -> None:
        if any(len(name) != NONCE_LENGTH for name in (link, nonce, peer_nonce)) or nonce == peer_nonce:
            raise ValueError(f"a link and its two different nonces have {NONCE_LENGTH} bytes each")
        self._name = link
        self._role = role
        self._nonce = nonce
        self._peer_nonce = peer_nonce
        self._paths: dict[int, _Path] = {}
        self._current: int | None = None
        self._turn = 0
        self.open = False
        """Whether bytes flow: a path carries the link, and both ends know."""
        self.over = False
        """Whether the link was reset, by either end."""
        self._out = _Outgoing()
        self._received = 0
        self._passed_on = 0
        self._told = 0
        """What the other end knows of that, unless it was lost."""
        self._pieces = 0
        """Pieces received since."""
        self._tell = False
        self._peer_ended = False
        self._peer_end_passed_on = False

    @property
    def room(self) -> int:
        """Bytes that :meth:`send` may take now."""
        return self._out.room

    @property
    def _begins(self) -> bool:
        """Whether this end leads a link to its first path: the other has received nothing, so no answer is due before
        the stream begins.
        """
        return self._role == "a" and self._turn == 1

    @property
    def has_unsent(self) -> bool:
        """True while bytes of the stream wait for a path to take them."""
        return bool(self._out.waiting)

    @property
    def untold(self) -> bool:
        """True when more has been passed on than the other end has been told."""
        return self._passed_on > self._told

    @property
    def finished(self) -> bool:
        """True once both streams have ended and been passed on, and the other end has been told."""
        out = self._out
        return out.ended and out.passed_on == out.total and self._peer_end_passed_on and not self.untold

    def attach(self, path: int) -> None:
        """Learns of a new path, whose number has not been used before."""
        self._paths[path] = _Path()

    def detach(self, path: int) -> None:
        """Forgets a path that is no more; when it carried the link, the link waits for another."""
        self._paths.pop(path, None)
        if path == self._current:
            self._current = None
            self.open = False

    def move_to(self, path: int) -> None:
        """Leads the link over to ``path``; role ``a`` only. It is done with :class:`Moved`, or may be led elsewhere."""
        if self._role != "a":
            raise RuntimeError("the other end decides which path carries the link")
        if self._current is not None:
            self._paths[self._current].switch = b""
        self._turn += 1
        self._current = path
        self.open = False
        self._paths[path].switch = self._switch()

    def send(self, data: bytes) -> None:
        """Adds 1 to :data:`MAX_DATA` bytes, no more than :attr:`room`, to the stream."""
        self._out.add(encode_frame(DATA, data))

    def send_eof(self) -> None:
        """Ends the stream."""
        self._out.ended = True
        self._out.add(FIN_FRAME)

    def passed_on(self, count: int) -> None:
        """Says that so many of the bytes received are with the user; the other end is told when it is worth it."""
        self._passed_on += count
        if self._passed_on - self._told >= ACK_BYTES or self._pieces >= ACK_PIECES:
            self._tell = True

    def end_passed_on(self) -> None:
        """Says that the end of the other stream is with the user."""
        self._passed_on += 1
        self._peer_end_passed_on = self._tell = True

    def acknowledge(self) -> None:
        """Tells the other end what has been passed on."""
        self._tell = self.untold

    def ping(self, path: int, number: int) -> None:
        """Asks for an answer on ``path``."""
        self._paths[path].ping = encode_frame(PING, NUMBER.pack(number))

    def reset(self, reason: str) -> None:
        """Ends the link at once, and says so on every path."""
        self.over = True
        words = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
        for path in self._paths.values():
            path.reset = encode_frame(RESET, self._name + words)

    def data_to_send(self, path: int, most: int = MAX_DATA) -> bytes:
        """Return what is to be sent on ``path`` now: ``most`` bytes or a frame more; nothing of it is given again."""
        frames = self._paths[path].take()
        if path == self._current and (self.open or self._begins) and not self.over:
            if self._tell:
                frames.append(encode_frame(ACK, NUMBER.pack(self._passed_on)))
                self._told, self._pieces, self._tell = self._passed_on, 0, False
            frames += self._out.take(most)
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def receive_data(self, path: int, data: bytes) -> list[Event]:
        """Take bytes from ``path``, split anywhere, and return what they caused.

        Behind :class:`PathRefused` and :class:`LinkReset` comes nothing.
        """
        events: list[Event] = []
        try:
            for kind, body in self._paths[path].reader.receive_data(data):
                self._take(path, kind, body, events)
                if events and isinstance(events[-1], PathRefused | LinkReset):
                    break
        except ProtocolError as error:
            events.append(PathRefused(str(error)))
        return events

    def _take(self, path: int, kind: int, body: bytes | memoryview, events: list[Event]) -> None:
        if self.over:
            return
        if kind == SWITCH:
            self._take_switch(path, bytes(body), events)
        elif kind == PING:
            self._paths[path].pong = encode_frame(PONG, bytes(body))
        elif kind == PONG:
            events.append(Ponged(path, NUMBER.unpack(body)[0]))
        elif kind == RESET:
            self._take_reset(bytes(body), events)
        elif kind == ACK and self._paths[path].carried:
            self._take_acknowledgement(body, events)
        elif path == self._current and self.open:
            self._take_stream(kind, body, events)
        elif self._turn == 0:
            events.append(PathRefused("it began without saying whose it is"))

    def _take_stream(self, kind: int, body: bytes | memoryview, events: list[Event]) -> None:
        """What the path that carries the link brings; of any other it is thrown away, because it comes again."""
        if self._peer_ended:
            self._violated("it went on behind the end of its stream", events)
        elif kind == FIN:
            self._peer_ended = True
            self._received += 1
            events.append(StreamEnded())
        elif self._received + len(body) - self._passed_on > LINK_WINDOW:
            self._violated(f"it sent more than {LINK_WINDOW} bytes ahead", events)
        else:
            self._received += len(body)
            self._pieces += 1
            events.append(Received(memoryview(body)))

    def _take_acknowledgement(self, body: bytes | memoryview, events: list[Event]) -> None:
        """Holds wherever it comes from; and the last one may come on the path before, from an end that is done."""
        try:
            self._out.acknowledge(NUMBER.unpack(body)[0])
        except ProtocolError as error:
            self._violated(str(error), events)

    def _take_switch(self, path: int, body: bytes, events: list[Event]) -> None:
        link, role, nonce, turn, received = SWITCH_BODY.unpack(body)
        stale = turn <= self._turn if self._role == "b" else turn > self._turn
        if nonce == self._nonce:
            events.append(PathRefused("it leads back to this end"))
        elif link != self._name:
            events.append(PathRefused("it is of another link"))
        elif role == self._role.encode() or role not in (b"a", b"b"):
            events.append(PathRefused("its other end claims a role that is not its own"))
        elif nonce != self._peer_nonce:
            events.append(PathRefused("its other end is not the one of this link"))
        elif stale:
            events.append(PathRefused(f"it is of turn {turn}, and the link is at turn {self._turn}"))
        elif self._role == "b" or (path == self._current and turn == self._turn and not self.open):
            self._turn = turn
            self._resume(path, received, events)

    def _resume(self, path: int, received: int, events: list[Event]) -> None:
        try:
            if not self._begins:  # else what was sent is behind this answer's question, and will arrive
                self._out.resume(received)
        except ProtocolError as error:
            self._violated(str(error), events)
            return
        if self._role == "b":
            if self._current is not None:
                self._paths[self._current].switch = b""
            self._paths[path].switch = self._switch()
        self._current = path
        self.open = self._paths[path].carried = True
        self._tell = self._passed_on > 0  # what was told on another path may be lost
        events.append(Moved(path))

    def _switch(self) -> bytes:
        fields = self._name, self._role.encode(), self._nonce, self._turn, self._received
        return encode_frame(SWITCH, SWITCH_BODY.pack(*fields))

    def _take_reset(self, body: bytes, events: list[Event]) -> None:
        if body[:NONCE_LENGTH] != self._name:
            events.append(PathRefused("it is of another link"))
            return
        self.over = True
        events.append(LinkReset(body[NONCE_LENGTH:].decode(errors="replace")))

    def _violated(self, what: str, events: list[Event]) -> None:
        self.over = True
        events.append(LinkReset(f"the other end broke the protocol: {what}"))
