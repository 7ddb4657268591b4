"""yamux: two sessions against each other, with whatever their users do and wherever the bytes are cut."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tunnelconsole.engine.wire.yamux import (
    INITIAL_WINDOW,
    DataReceived,
    HalfClosed,
    StreamOpened,
    StreamReset,
    YamuxSession,
)

# What each way carries, from its beginning: any other order would show. No run sends more.
PATTERN = b"".join(number.to_bytes(4, "big") for number in range(1_000_000))
# More bytes than a run can leave on the wire.
ALL = 10**9
SIZES = st.one_of(st.integers(1, 100), st.integers(1, 2 * INITIAL_WINDOW))
ENDS = st.integers(0, 1)


@dataclass
class Way:
    """One direction of one stream, as its users see it."""

    sent: int = 0
    received: int = 0
    consumed: int = 0
    sender_closed: bool = False
    receiver_heard: bool = False
    # Either end reset the stream: what is in flight is lost.
    reset: bool = False
    extra_window: int = 0


@dataclass
class End:
    """One session, and its bytes that the other has not read yet."""

    session: YamuxSession
    wire: bytearray = field(default_factory=bytearray)


class TwoSessions(RuleBasedStateMachine):
    """A client (0) and a server (1). ``ways[(stream, end)]`` is what ``end`` sends on the stream."""

    streams = Bundle("streams")
    waiting = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.ends = [End(YamuxSession(client=True)), End(YamuxSession(client=False))]
        self.ways: dict[tuple[int, int], Way] = {}

    @rule(target=streams, end=ENDS, extra=st.sampled_from([0, 0x5443]))
    def open(self, end: int, extra: int) -> int:
        stream = self.ends[end].session.open_stream(extra)
        self.ways[stream, end] = Way()
        self.ways[stream, 1 - end] = Way(extra_window=extra)
        return stream

    @rule(stream=streams, end=ENDS, size=SIZES)
    def send(self, stream: int, end: int, size: int) -> None:
        session, way = self.ends[end].session, self.ways[stream, end]
        size = min(size, session.send_window(stream), len(PATTERN) - way.sent)
        # A stream that waits to be accepted, or whose opening is still on the wire, cannot be written to.
        known = session._streams.get(stream)
        if known is None or known.waiting or not size:
            return
        session.send_data(stream, memoryview(PATTERN)[way.sent : way.sent + size])
        way.sent += size

    @rule(stream=streams, end=ENDS)
    def close(self, stream: int, end: int) -> None:
        known = self.ends[end].session._streams.get(stream)
        if known is not None and not known.waiting:
            self.ends[end].session.send_eof(stream)
            self.ways[stream, end].sender_closed = True

    @rule(stream=streams, end=ENDS)
    def reset(self, stream: int, end: int) -> None:
        if stream in self.ends[end].session._streams:
            self.ends[end].session.reset(stream)
            self.ways[stream, 0].reset = self.ways[stream, 1].reset = True

    @rule(target=waiting, end=ENDS, count=st.integers(1, 600_000))
    def carry(self, end: int, count: int) -> object:
        """Bring some bytes of ``end`` to the other side."""
        sender, receiver = self.ends[end], self.ends[1 - end]
        sender.wire += b"".join(sender.session.data_to_send())
        piece = bytes(sender.wire[:count])
        del sender.wire[:count]
        opened = []
        for event in receiver.session.receive_data(piece):
            match event:
                case StreamOpened(stream):
                    opened.append((stream, 1 - end))
                case DataReceived(stream, data):
                    way = self.ways[stream, end]
                    assert not way.receiver_heard
                    assert data == PATTERN[way.received : way.received + len(data)]
                    way.received += len(data)
                case HalfClosed(stream):
                    self.ways[stream, end].receiver_heard = True
                case StreamReset(stream):
                    assert self.ways[stream, end].reset
                case _:
                    pass
        return multiple(*opened)

    @rule(opened=consumes(waiting), extra=st.sampled_from([0, 0x5443]))
    def accept(self, opened: tuple[int, int], extra: int) -> None:
        stream, end = opened
        known = self.ends[end].session._streams.get(stream)
        if known is not None:
            self.ends[end].session.accept(stream, extra)
            self.ways[stream, 1 - end].extra_window += extra

    @rule(stream=streams, end=ENDS, size=SIZES)
    def consume(self, stream: int, end: int, size: int) -> None:
        way = self.ways[stream, 1 - end]
        size = min(size, way.received - way.consumed)
        self.ends[end].session.consumed(stream, size)
        way.consumed += size

    @invariant()
    def no_window_is_exceeded(self) -> None:
        for way in self.ways.values():
            assert way.sent - way.consumed <= INITIAL_WINDOW + way.extra_window

    def teardown(self) -> None:
        """Bring over what is still on the wire: all that was sent on streams nobody reset has arrived."""
        for _ in range(2):
            for end in (0, 1):
                self.carry(end, ALL)
        for way in self.ways.values():
            assert way.reset or way.received == way.sent
            assert way.reset or way.receiver_heard == way.sender_closed
        for stream in {stream for stream, _ in self.ways}:
            over = all(self.ways[stream, end].sender_closed or self.ways[stream, end].reset for end in (0, 1))
            assert (stream in self.ends[0].session._streams) is not over


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
