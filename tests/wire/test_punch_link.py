"""A link of punch: whatever becomes of its paths, nothing is lost, repeated or reordered."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnelconsole.engine.wire import punch_link
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.punch_frames import (
    ACK,
    DATA,
    FIN,
    FIN_FRAME,
    MAX_DATA,
    MAX_REASON,
    NUMBER,
    PING,
    RESET,
    SWITCH,
    SWITCH_BODY,
    FrameReader,
    encode_frame,
)
from tunnelconsole.engine.wire.punch_link import (
    LINK_WINDOW,
    MAX_FRAMES,
    Event,
    Link,
    LinkReset,
    Moved,
    PathRefused,
    Ponged,
    Received,
    Role,
    StreamEnded,
)
from wire_transcripts import every_split

LINK, OTHER_LINK = b"L" * 16, b"M" * 16
NONCE = {"a": b"A" * 16, "b": b"B" * 16}


def link(role: Role) -> Link:
    """One end."""
    peer: Role = "b" if role == "a" else "a"
    return Link(LINK, role, NONCE[role], NONCE[peer])


def switch(role: str, *, turn: int = 1, received: int = 0, name: bytes = LINK, nonce: bytes | None = None) -> bytes:
    """A SWITCH as an end sends it."""
    own = NONCE[role] if nonce is None else nonce
    return encode_frame(SWITCH, SWITCH_BODY.pack(name, role.encode(), own, turn, received))


def number(kind: int, value: int) -> bytes:
    return encode_frame(kind, NUMBER.pack(value))


@dataclass
class Peer:
    """One end and its user, who takes what comes after a while."""

    link: Link
    heard: bytearray = field(default_factory=bytearray)
    ended: bool = False
    untaken: int = 0
    end_untaken: bool = False
    moved: list[int] = field(default_factory=list)
    others: list[Event] = field(default_factory=list)

    def receive(self, path: int, data: bytes) -> None:
        for event in self.link.receive_data(path, data):
            if isinstance(event, Received):
                assert not self.ended
                self.heard += event.data
                self.untaken += len(event.data)
            elif isinstance(event, StreamEnded):
                assert not self.ended
                self.ended = self.end_untaken = True
            elif isinstance(event, Moved):
                self.moved.append(event.path)
            else:
                self.others.append(event)

    def take(self, count: int) -> None:
        """The user takes so many bytes, and the end behind them."""
        count = min(count, self.untaken)
        self.untaken -= count
        self.link.passed_on(count)
        if not self.untaken and self.end_untaken:
            self.end_untaken = False
            self.link.end_passed_on()

    def take_all(self) -> None:
        self.take(self.untaken)
        self.link.acknowledge()


class World:
    """Two ends, and paths between them that hold what is on its way."""

    def __init__(self) -> None:
        self.a, self.b = Peer(link("a")), Peer(link("b"))
        self.on_the_way: dict[tuple[str, int], bytearray] = {}
        self.paths: list[int] = []
        self.count = 0

    def end(self, role: str) -> Peer:
        return self.a if role == "a" else self.b

    def attach(self) -> int:
        self.count += 1
        self.paths.append(self.count)
        for role in "ab":
            self.end(role).link.attach(self.count)
            self.on_the_way[role, self.count] = bytearray()
        return self.count

    def cut(self, path: int) -> None:
        """The path is gone with all that is on its way."""
        self.paths.remove(path)
        for role in "ab":
            self.end(role).link.detach(path)

    def say(self, role: str, path: int, most: int = MAX_DATA) -> bool:
        words = self.end(role).link.data_to_send(path, most)
        self.on_the_way[role, path] += words
        return bool(words)

    def arrive(self, role: str, path: int, count: int) -> bool:
        """So many bytes that ``role`` has said on ``path`` arrive."""
        pipe = self.on_the_way[role, path]
        data = bytes(pipe[:count])
        del pipe[:count]
        if data:
            self.end("b" if role == "a" else "a").receive(path, data)
        return bool(data)

    def settle(self) -> None:
        """Everything that can move moves."""
        busy = True
        while busy:
            busy = False
            for path in self.paths:
                for role in "ab":
                    busy |= self.say(role, path) | self.arrive(role, path, MAX_DATA)
            for peer in (self.a, self.b):
                peer.take_all()


def pair(*paths: int) -> World:
    """Two ends that have come together on one path."""
    world = World()
    world.a.link.move_to(world.attach())
    world.settle()
    assert world.a.moved == world.b.moved == [1]
    for _ in paths:
        world.attach()
    return world


# Frames


@given(
    st.lists(st.one_of(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=300)), max_size=8),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_are_read_however_they_are_cut(words: list[int | bytes], sizes: list[int]) -> None:
    stream = b"".join(number(PING, word) if isinstance(word, int) else encode_frame(DATA, word) for word in words)
    read: list[int | bytearray] = []
    reader, position, turn = FrameReader(), 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        for kind, body in reader.receive_data(stream[position : position + size]):
            if kind == DATA and read and isinstance(read[-1], bytearray):
                read[-1] += body
            else:
                read.append(bytearray(body) if kind == DATA else NUMBER.unpack(body)[0])
        position, turn = position + size, turn + 1
    expected: list[int | bytearray] = []
    for word in words:
        if isinstance(word, int):
            expected.append(word)
        elif expected and isinstance(expected[-1], bytearray):
            expected[-1] += word
        else:
            expected.append(bytearray(word))
    assert read == expected


@pytest.mark.parametrize(
    "header",
    [
        b"\0\0\0\0",
        b"\x08\0\0\0",
        b"\xff\xff\xff\xff",
        encode_frame(DATA, b""),
        (DATA << 24 | MAX_DATA + 1).to_bytes(4, "big"),
        encode_frame(ACK, b"1234567"),
        encode_frame(FIN, b"x"),
        encode_frame(RESET, bytes(15)),
        encode_frame(RESET, bytes(16 + 257)),
        encode_frame(SWITCH, bytes(48)),
    ],
)
def test_a_frame_that_there_is_not_is_refused_at_its_header(header: bytes) -> None:
    with pytest.raises(ProtocolError, match="there is no frame"):
        list(FrameReader().receive_data(header[:4]))


@given(st.binary(max_size=400))
def test_any_bytes_at_all_refuse_the_path_or_wait_for_more_and_leave_the_link_as_it_was(junk: bytes) -> None:
    world = pair(2)
    events = world.b.link.receive_data(2, junk)
    assert all(isinstance(event, PathRefused | Ponged | LinkReset) for event in events)
    if not any(isinstance(event, LinkReset) for event in events):
        world.a.link.send(b"still here")
        world.settle()
        assert world.b.heard == b"still here"


# Moving


def test_a_conversation_may_be_cut_from_its_path_at_every_byte() -> None:
    said = {"a": random.Random(1).randbytes(60), "b": random.Random(2).randbytes(45)}
    whole = _conversation(said, cut_at=None)
    for offset in range(whole + 1):
        assert _conversation(said, cut_at=offset) >= 0


def _conversation(said: dict[str, bytes], cut_at: int | None) -> int:
    """All is said, byte by byte, and the path cut behind so many of them; returns how many there were."""
    world = pair()
    for role in "ab":
        for start in range(0, len(said[role]), 20):
            world.end(role).link.send(said[role][start : start + 20])
        world.end(role).link.send_eof()
        world.say(role, 1)
    moved = 0
    while any(world.arrive(role, 1, 1) for role in "ab"):
        moved += 1
        if moved == cut_at:
            break
        for peer in (world.a, world.b):
            peer.take_all()
    world.cut(1)
    world.a.link.move_to(world.attach())
    world.settle()
    _all_there(world, said)
    return moved


@pytest.mark.parametrize("lost", [False, True])
def test_a_link_may_be_led_to_another_path_at_every_byte_and_back(lost: bool) -> None:
    said = {"a": random.Random(3).randbytes(70), "b": random.Random(4).randbytes(50)}
    for offset in range(130):
        world = pair(2)
        for role in "ab":
            world.end(role).link.send(said[role][:30])
            world.say(role, 1)
            world.arrive(role, 1, offset)
        world.a.link.move_to(2)
        world.say("a", 2)
        for role in "ab":
            world.arrive(role, 1, 7)
            world.end(role).link.send(said[role][30:])
            world.end(role).link.send_eof()
        world.arrive("a", 2, offset)
        world.say("b", 2)
        if lost:
            world.cut(2)
        else:
            world.arrive("b", 2, max(0, offset - 40))
        world.a.link.move_to(1)
        world.settle()
        _all_there(world, said)


def _all_there(world: World, said: dict[str, bytes]) -> None:
    assert world.b.heard == said["a"]
    assert world.a.heard == said["b"]
    assert world.a.ended
    assert world.b.ended
    assert world.a.link.finished
    assert world.b.link.finished
    assert not [event for event in world.a.others + world.b.others if not isinstance(event, PathRefused)]


STEPS = st.sampled_from(["send", "say", "say", "arrive", "arrive", "arrive", "take", "attach", "cut", "move", "end"])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 2**16)), max_size=120), st.randoms(use_true_random=False))
def test_however_paths_come_and_go_nothing_is_lost_repeated_or_reordered(
    steps: list[tuple[str, int]], chance: random.Random
) -> None:
    world = pair(2)
    said = {"a": bytearray(), "b": bytearray()}
    ended = set()
    for step, value in steps:
        role, path = "ab"[value % 2], world.paths[value % len(world.paths)] if world.paths else 0
        peer = world.end(role)
        match step:
            case "send" if role not in ended:
                data = chance.randbytes(1 + value % 500)
                said[role] += data
                peer.link.send(data)
            case "end" if role not in ended:
                ended.add(role)
                peer.link.send_eof()
            case "say" if path:
                world.say(role, path, value % 600)
            case "arrive" if path:
                world.arrive(role, path, value % 600)
            case "take":
                peer.take(value % 700)
                peer.link.acknowledge()
            case "attach" if len(world.paths) < 4:
                world.attach()
            case "cut" if path:
                world.cut(path)
            case "move" if path:
                world.a.link.move_to(path)
    for role in {"a", "b"} - ended:
        world.end(role).link.send_eof()
    world.a.link.move_to(world.attach())
    world.settle()
    assert (world.b.heard, world.a.heard) == (said["a"], said["b"])
    assert world.a.link.finished
    assert world.b.link.finished
    refused = [event for event in world.a.others + world.b.others if not isinstance(event, PathRefused)]
    assert not refused


def test_a_late_word_of_a_move_that_was_given_up_moves_nothing() -> None:
    world = pair(2)
    world.a.link.move_to(2)
    world.say("a", 2)
    world.a.link.move_to(1)
    world.say("a", 1)
    world.arrive("a", 1, 1000)
    world.arrive("a", 2, 1000)
    (refused,) = world.b.others
    assert isinstance(refused, PathRefused)
    assert "of turn 2, and the link is at turn 3" in refused.reason
    world.a.link.send(b"on the old path")
    world.settle()
    assert world.b.heard == b"on the old path"


def test_a_link_s_first_bytes_follow_its_first_words_without_an_answer() -> None:
    world = World()
    world.a.link.send(b"at once")
    world.a.link.move_to(world.attach())
    world.say("a", 1)
    world.arrive("a", 1, 1000)
    assert world.b.heard == b"at once"
    world.settle()
    assert world.b.heard == b"at once"
    assert world.a.moved == [1]


def test_a_first_path_that_dies_before_it_answers_loses_nothing() -> None:
    world = World()
    world.a.link.send(b"at once")
    world.a.link.move_to(world.attach())
    world.say("a", 1)
    world.cut(1)
    world.a.link.move_to(world.attach())
    world.settle()
    assert world.b.heard == b"at once"


def test_the_last_acknowledgement_counts_though_the_link_was_led_elsewhere_meanwhile() -> None:
    world = pair(2)
    for peer in (world.a, world.b):
        peer.link.send_eof()
    for role in "ab":
        world.say(role, 1)
        world.arrive(role, 1, 1000)
    for peer in (world.a, world.b):
        peer.take_all()
    world.say("a", 1)
    world.arrive("a", 1, 1000)
    world.say("b", 1)
    assert world.b.link.finished
    world.a.link.move_to(2)
    world.arrive("b", 1, 1000)
    assert world.a.link.finished


def test_an_acknowledgement_that_comes_late_takes_nothing_back() -> None:
    world = pair(2)
    world.b.link.send(b"abc")
    world.say("b", 1)
    assert world.b.link.receive_data(1, number(ACK, 3) + number(ACK, 1)) == []
    assert world.b.link.room == LINK_WINDOW


def test_only_one_end_decides() -> None:
    world = pair()
    with pytest.raises(RuntimeError, match="the other end decides"):
        world.b.link.move_to(1)


# Who may carry a link


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (switch("a", turn=2, name=OTHER_LINK), "of another link"),
        (switch("b", turn=2), "leads back to this end"),
        (switch("a", turn=2, nonce=NONCE["b"]), "leads back to this end"),
        (switch("b", turn=2, nonce=NONCE["a"]), "a role that is not its own"),
        (switch("c", turn=2, nonce=NONCE["a"]), "a role that is not its own"),
        (switch("a", turn=2, nonce=b"C" * 16), "not the one of this link"),
        (switch("a", turn=1), "of turn 1, and the link is at turn 1"),
        (encode_frame(RESET, OTHER_LINK), "of another link"),
        (b"\0\0\0\0", "there is no frame of kind 0"),
    ],
)
def test_a_path_of_somebody_else_is_refused_and_the_link_goes_on(words: bytes, why: str) -> None:
    world = pair(2)
    for pieces in every_split(words):
        world.b.link.detach(2)
        world.b.link.attach(2)
        events = [event for piece in pieces for event in world.b.link.receive_data(2, piece)][:1]
        assert isinstance(events[0], PathRefused)
        assert why in events[0].reason
    world.a.link.send(b"still here")
    world.settle()
    assert world.b.heard == b"still here"


@pytest.mark.parametrize("words", [encode_frame(DATA, b"x"), FIN_FRAME, number(ACK, 0)])
def test_a_path_that_begins_without_saying_whose_it_is_is_refused(words: bytes) -> None:
    end = link("b")
    end.attach(1)
    assert end.receive_data(1, words) == [PathRefused("it began without saying whose it is")]


def test_an_answer_of_a_turn_that_never_was_is_refused() -> None:
    end = link("a")
    end.attach(1)
    end.move_to(1)
    assert isinstance(end.receive_data(1, switch("b", turn=2))[0], PathRefused)


def test_a_path_that_is_not_the_link_s_own_brings_no_bytes() -> None:
    world = pair(2)
    assert world.b.link.receive_data(2, encode_frame(DATA, b"stray") + FIN_FRAME) == []


@pytest.mark.parametrize(
    ("link_name", "own", "peer"),
    [(b"short", NONCE["a"], NONCE["b"]), (LINK, b"", NONCE["b"]), (LINK, NONCE["a"], NONCE["a"])],
)
def test_a_link_without_proper_names_cannot_be(link_name: bytes, own: bytes, peer: bytes) -> None:
    with pytest.raises(ValueError, match="two different nonces"):
        Link(link_name, "a", own, peer)


# Limits


def test_no_more_than_a_window_is_on_the_way_and_more_once_it_is_passed_on() -> None:
    world = pair()
    sent = 0
    while room := world.a.link.room:
        data = bytes(min(room, MAX_DATA))
        world.a.link.send(data)
        sent += len(data)
    assert sent == LINK_WINDOW
    while world.say("a", 1):
        world.arrive("a", 1, MAX_DATA * 2)
    world.b.take(punch_link.ACK_BYTES - 1)
    assert not world.say("b", 1)
    world.b.take(1)
    world.say("b", 1)
    world.arrive("b", 1, 100)
    assert world.a.link.room == punch_link.ACK_BYTES
    world.a.link.send(b"more")
    world.settle()
    assert len(world.b.heard) == LINK_WINDOW + 4


def test_tiny_frames_have_a_bound_of_their_own() -> None:
    world = pair()
    for _ in range(MAX_FRAMES):
        assert world.a.link.room
        world.a.link.send(b"x")
    assert not world.a.link.room
    world.settle()
    assert world.a.link.room == LINK_WINDOW


def test_the_other_end_is_told_of_many_pieces_however_small() -> None:
    world = pair()
    for _ in range(punch_link.ACK_PIECES):
        world.a.link.send(b"x")
        world.say("a", 1)
        world.arrive("a", 1, 100)
    world.b.take(punch_link.ACK_PIECES)
    assert world.say("b", 1)


def test_pings_that_nobody_lets_us_answer_take_no_memory() -> None:
    world = pair()
    for value in range(1000):
        world.b.link.receive_data(1, number(PING, value))
    assert len(world.b.link.data_to_send(1)) == len(number(PING, 0))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (number(ACK, 4), "passed on 4 bytes of 3"),
        (switch("a", turn=2, received=4), "received 4 bytes of 3"),
        (number(ACK, 2) + switch("a", turn=2, received=1), "received 1 bytes of 3"),
        (FIN_FRAME + encode_frame(DATA, b"x"), "behind the end"),
        (FIN_FRAME + FIN_FRAME, "behind the end"),
        (encode_frame(DATA, bytes(MAX_DATA)) * 65, "bytes ahead"),
    ],
)
def test_an_end_that_says_what_cannot_be_ends_the_link(words: bytes, why: str) -> None:
    world = pair()
    world.b.link.send(b"abc")
    world.say("b", 1)
    event = world.b.link.receive_data(1, words)[-1]
    assert isinstance(event, LinkReset)
    assert why in event.reason
    assert world.b.link.over
    assert world.b.link.receive_data(1, encode_frame(DATA, b"x")) == []


# Resets and pings


def test_a_reset_is_said_on_every_path_and_heard_on_any() -> None:
    for path in (1, 2):
        world = pair(2)
        world.b.link.reset("words " * 100)
        world.say("b", path)
        world.arrive("b", path, 1000)
        (event,) = world.a.others
        assert isinstance(event, LinkReset)
        assert event.reason == ("words " * 100)[:MAX_REASON]
        assert world.a.link.over


def test_a_reason_is_cut_between_two_characters() -> None:
    world = pair()
    world.a.link.reset("ß" * 200 + "x")
    world.settle()
    assert world.b.others == [LinkReset("ß" * 128)]


def test_what_was_said_before_a_reset_comes_before_it() -> None:
    world = pair()
    world.a.link.send(b"last words")
    world.say("a", 1)
    world.a.link.reset("")
    world.settle()
    assert world.b.heard == b"last words"
    assert world.b.others == [LinkReset("")]


def test_a_ping_is_answered_on_its_own_path() -> None:
    world = pair(2)
    world.a.link.ping(2, 7)
    world.settle()
    assert world.a.others == [Ponged(2, 7)]
