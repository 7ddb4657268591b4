"""The register of sessions and channels: every byte is counted once, and what is idle is cut."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.events import (
    BackendAttached,
    BackendLeft,
    ChannelClosed,
    ChannelOpened,
    Crashed,
    Event,
    SessionClosed,
    SessionOpened,
)
from tunnelconsole.engine.meters import Meters
from tunnelconsole.engine.sessions import SLICE, Channel, Session, Sessions

PEER = "192.0.2.1:5"


@dataclass
class Stream:
    """A flow by hand."""

    bytes_in: int = 0
    bytes_out: int = 0
    path: str = "tcp"
    aborted: list[str] = field(default_factory=list)

    def moves(self, bytes_in: int, bytes_out: int) -> None:
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def abort(self, reason: str) -> None:
        self.aborted.append(reason)


class Register:
    """A register with its bus and meters."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.meters = Meters()
        self.sessions = Sessions(self.bus, self.meters)

    def session(self, service: str = "home", end: Callable[[str], None] = lambda _: None, address: str = "") -> Session:
        return self.sessions.open_session(service, "jump-server", PEER, "alice", end, address=address)

    def channel(self, session: Session, idle_timeout: float = 0.0) -> tuple[Channel, Stream]:
        stream = Stream()
        return self.sessions.open_channel(session, "there:80", stream, idle_timeout), stream

    def tick(self, elapsed: float = 1.0) -> int:
        """One whole tick; returns how often it let others go on."""
        return sum(1 for _ in self.sessions.tick(elapsed))

    def told(self) -> list[Event]:
        return [record.event for record in self.bus.recent()]


@pytest.fixture
def register() -> Register:
    return Register()


class Clock:
    """The time, as far as the register knows."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_sessions_and_channels_have_ids_that_are_never_used_again(register: Register) -> None:
    first = register.session()
    channel, _ = register.channel(first)
    register.sessions.close_channel(channel)
    register.sessions.close_session(first)
    second = register.session()
    assert (first.id, second.id) == ("s1", "s2")
    assert (channel.id, register.channel(second)[0].id) == ("c1", "c2")
    assert list(register.sessions.sessions) == ["s2"]
    assert list(register.sessions.channels) == ["c2"]


def test_coming_and_going_are_events_with_all_that_was_carried(register: Register) -> None:
    session = register.session()
    channel, stream = register.channel(session)
    assert session.channels == 1
    stream.moves(3, 4)
    register.sessions.close_channel(channel, "broken off")
    assert session.channels == 0
    register.sessions.close_session(session, "gone")
    opened, channel_opened, channel_closed, closed = register.told()
    assert opened == SessionOpened(service="home", session="s1", peer=PEER, identity="alice")
    assert channel_opened == ChannelOpened(service="home", session="s1", channel="c1", label="there:80")
    assert isinstance(channel_closed, ChannelClosed)
    assert (channel_closed.session, channel_closed.channel, channel_closed.label) == ("s1", "c1", "there:80")
    assert (channel_closed.bytes_in, channel_closed.bytes_out, channel_closed.cause) == (3, 4, "broken off")
    assert isinstance(closed, SessionClosed)
    assert (closed.bytes_in, closed.bytes_out, closed.cause) == (3, 4, "gone")
    assert closed.seconds >= channel_closed.seconds >= 0


def test_a_session_that_offers_something_is_told_with_its_address(register: Register) -> None:
    session = register.session(address="192.0.2.9:7001")
    register.sessions.close_session(session, "gone")
    attached, left = register.told()
    assert isinstance(attached, BackendAttached)
    assert isinstance(left, BackendLeft)
    assert attached.address == left.address == "192.0.2.9:7001"
    assert (left.peer, left.cause) == (PEER, "gone")


def test_closing_twice_counts_and_tells_once(register: Register) -> None:
    session = register.session()
    channel, stream = register.channel(session)
    stream.moves(3, 4)
    for _ in range(2):
        register.sessions.close_channel(channel)
    for _ in range(2):
        register.sessions.close_session(session)
    assert session.channels == 0
    assert register.meters.totals() == {"home": (3, 4)}
    assert len(register.told()) == 4


def test_totals_are_brought_up_to_the_moment_without_a_tick(register: Register) -> None:
    session = register.session()
    _, stream = register.channel(session)
    stream.moves(3, 4)
    assert register.meters.totals() == {"home": (0, 0)}
    for _ in range(2):
        register.sessions.settle()
    assert (session.bytes_in, session.bytes_out) == (3, 4)
    assert register.meters.totals() == {"home": (3, 4)}
    assert (register.meters.node.bytes_in, register.meters.node.bytes_out) == (3, 4)


def test_rates_are_what_moved_since_the_last_tick_by_its_seconds(register: Register) -> None:
    session = register.session()
    channel, stream = register.channel(session)
    stream.moves(100, 40)
    register.tick(2.0)
    for row in (channel, session, register.meters.service("home"), register.meters.node):
        assert (row.rate_in, row.rate_out) == (50.0, 20.0)
    register.tick(0.5)
    for row in (channel, session, register.meters.service("home"), register.meters.node):
        assert (row.rate_in, row.rate_out) == (0.0, 0.0)
    assert list(register.meters.service("home").history_in) == [50.0, 0.0]


def test_what_a_channel_moved_between_a_tick_and_its_end_is_in_the_next_rates(register: Register) -> None:
    session = register.session()
    channel, stream = register.channel(session)
    register.tick()
    stream.moves(100, 40)
    register.sessions.close_channel(channel)
    register.tick()
    for row in (session, register.meters.service("home"), register.meters.node):
        assert (row.rate_in, row.rate_out) == (100.0, 40.0)


def test_each_service_has_its_own_meter_and_the_node_has_the_sum(register: Register) -> None:
    for name, count in (("home", 1), ("edge", 10)):
        _, stream = register.channel(register.session(name))
        stream.moves(count, 2 * count)
    register.tick()
    assert register.meters.totals() == {"home": (1, 2), "edge": (10, 20)}
    assert (register.meters.node.rate_in, register.meters.node.rate_out) == (11.0, 22.0)


def test_a_channel_that_moves_nothing_for_too_long_is_cut(register: Register, clock: Clock) -> None:
    channel, stream = register.channel(register.session(), idle_timeout=5.0)
    clock.now += 4.9
    register.tick()
    assert stream.aborted == []
    clock.now += 0.1
    register.tick()
    assert stream.aborted == ["idle for 5 s"]
    assert channel.id in register.sessions.channels  # until the flow reports its end


@pytest.mark.parametrize("way", [(1, 0), (0, 1)], ids=["in", "out"])
def test_a_byte_either_way_starts_the_idle_time_over(register: Register, clock: Clock, way: tuple[int, int]) -> None:
    _, stream = register.channel(register.session(), idle_timeout=5.0)
    for _ in range(3):
        clock.now += 4.9
        stream.moves(*way)
        register.tick()
    assert stream.aborted == []
    clock.now += 5.0
    register.tick()
    assert stream.aborted == ["idle for 5 s"]


def test_a_channel_that_cannot_be_cut_is_told_once_and_the_others_are_brought_up_to_date(
    register: Register, clock: Clock
) -> None:
    session = register.session()
    faulty, idle, busy = (register.channel(session, idle_timeout=5.0)[1] for _ in range(3))

    def fail(reason: str) -> None:
        raise OSError(reason)

    faulty.abort = fail  # type: ignore[method-assign]
    clock.now += 5.0
    busy.moves(1, 2)
    for _ in range(2):
        register.tick()
    assert idle.aborted == ["idle for 5 s"]
    assert (session.bytes_in, register.meters.node.bytes_out) == (1, 2)
    (crash,) = (event for event in register.told() if isinstance(event, Crashed))
    assert crash.text() == "channel c1 failed unexpectedly: OSError: idle for 5 s"
    assert crash.service == "home"


def test_a_channel_without_an_idle_time_is_never_cut(register: Register, clock: Clock) -> None:
    _, stream = register.channel(register.session())
    clock.now += 1e9
    register.tick()
    assert stream.aborted == []


def test_a_tick_lets_others_go_on_after_every_slice(register: Register) -> None:
    for _ in range(2 * SLICE):
        register.channel(register.session())
    register.channel(next(iter(register.sessions.sessions.values())))
    assert register.tick() == 2 + 2


def test_what_opens_or_closes_between_two_slices_is_counted_once(register: Register, clock: Clock) -> None:
    session = register.session()
    channels = [register.channel(session, idle_timeout=5.0) for _ in range(2 * SLICE)]
    clock.now += 5.0
    for _, stream in channels:
        stream.moves(1, 2)
    last, idle = channels[-1], channels[-2][1]
    ticking = register.sessions.tick(1.0)
    next(ticking)
    register.sessions.close_channel(last[0])
    _, fresh = register.channel(session)
    fresh.moves(10, 20)
    deque(ticking, maxlen=0)
    assert (session.bytes_in, session.bytes_out) == (2 * SLICE, 4 * SLICE)
    assert idle.aborted == []
    register.tick()
    assert (session.bytes_in, session.bytes_out) == (2 * SLICE + 10, 4 * SLICE + 20)
    assert register.meters.totals() == {"home": (2 * SLICE + 10, 4 * SLICE + 20)}


def test_a_channel_that_ended_between_two_slices_is_not_cut_for_being_idle(register: Register, clock: Clock) -> None:
    session = register.session()
    channels = [register.channel(session, idle_timeout=5.0) for _ in range(SLICE + 1)]
    clock.now += 5.0
    ticking = register.sessions.tick(1.0)
    next(ticking)
    register.sessions.close_channel(channels[-1][0])
    deque(ticking, maxlen=0)
    assert channels[0][1].aborted == ["idle for 5 s"]
    assert channels[-1][1].aborted == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("move"), st.integers(0, 9), st.integers(0, 10**12)),
        st.tuples(st.just("tick"), st.just(0), st.just(0)),
        st.tuples(st.just("settle"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_in_whatever_order_every_byte_is_counted_once(steps: list[tuple[str, int, int]]) -> None:
    register = Register()
    sessions = [register.session("home"), register.session("home"), register.session("edge")]
    moved = [[0, 0] for _ in sessions]
    opened: list[tuple[int, Channel, Stream]] = []
    ticked = [0, 0]
    for step, which, count in steps:
        if step == "open":
            opened.append((which, *register.channel(sessions[which])))
        elif step == "tick":
            register.tick(1.0)
            total = [sum(way) for way in zip(*moved, strict=True)]
            node = register.meters.node
            assert [node.rate_in, node.rate_out] == [total[0] - ticked[0], total[1] - ticked[1]]
            ticked = total
        elif step == "settle":
            register.sessions.settle()
        elif opened and step == "close":
            register.sessions.close_channel(opened.pop(which % len(opened))[1])
        elif opened:
            number, _, stream = opened[which % len(opened)]
            stream.moves(count, count // 3)
            moved[number][0] += count
            moved[number][1] += count // 3
    register.sessions.settle()
    assert [[session.bytes_in, session.bytes_out] for session in sessions] == moved
    totals = register.meters.totals()
    assert totals["home"] == tuple(map(sum, zip(*moved[:2], strict=True)))
    assert totals["edge"] == tuple(moved[2])
    assert [session.channels for session in sessions] == [
        sum(number == mine for number, _, _ in opened) for mine in range(3)
    ]


def test_what_is_told_of_a_session_carries_who_it_is() -> None:
    register = Register()
    session = register.session()
    channel, _ = register.channel(session)
    register.sessions.close_channel(channel)
    register.sessions.close_session(session)
    assert [(record.event.type, record.identity) for record in register.bus.recent()] == [
        ("session-opened", "alice"),
        ("channel-opened", "alice"),
        ("channel-closed", "alice"),
        ("session-closed", "alice"),
    ]
