"""yamux: what ends a session, and that garbage does no more than that."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.yamux import (
    INITIAL_WINDOW,
    DataReceived,
    Event,
    StreamOpened,
    YamuxSession,
)
from wire_transcripts import cut
from yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW,
    client_with_stream,
    data,
    frame,
    output,
    server_with_stream,
)


def assert_ends(session: YamuxSession, sent: bytes, complaint: str) -> None:
    """Assert that ``sent`` ends the session with a go-away, and that it then does nothing more."""
    session.data_to_send()
    with pytest.raises(ProtocolError, match=complaint):
        session.receive_data(sent)
    assert output(session)[-12:] == frame(GO_AWAY, 0, 0, 1)
    assert session.closed
    assert session.streams == 0
    assert session.receive_data(frame(PING, SYN, 0, 1)) == []
    session.ping(1)
    assert output(session) == b""
    assert not session.can_open


def test_a_bad_version_ends_the_session() -> None:
    assert_ends(server_with_stream(), b"\x01" + frame(DATA, 0, 1)[1:], "version 1")


def test_an_unknown_type_ends_the_session() -> None:
    assert_ends(server_with_stream(), frame(4, 0, 0), "unknown type 4")


@pytest.mark.parametrize("kind", [DATA, WINDOW, PING, GO_AWAY])
def test_an_undefined_flag_ends_the_session(kind: int) -> None:
    assert_ends(server_with_stream(), frame(kind, 0x10, 1), "undefined flags 0x0010")


@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_a_stream_frame_for_the_session_itself_ends_it(kind: int) -> None:
    assert_ends(server_with_stream(), frame(kind, 0, 0), "stream id 0")


@pytest.mark.parametrize("kind", [PING, GO_AWAY])
def test_a_session_frame_for_a_stream_ends_the_session(kind: int) -> None:
    assert_ends(server_with_stream(), frame(kind, SYN, 1), "belongs to none")


@pytest.mark.parametrize("flags", [0, FIN, SYN | ACK])
def test_a_ping_that_neither_asks_nor_answers_ends_the_session(flags: int) -> None:
    assert_ends(server_with_stream(), frame(PING, flags, 0), "expected SYN or ACK")


def test_a_go_away_with_flags_ends_the_session() -> None:
    assert_ends(server_with_stream(), frame(GO_AWAY, SYN, 0), "it has none")


def test_a_go_away_with_an_unknown_code_ends_the_session() -> None:
    assert_ends(server_with_stream(), frame(GO_AWAY, 0, 0, 3), "unknown code 3")


@pytest.mark.parametrize(("client", "stream_id"), [(False, 2), (True, 1), (True, 3)])
def test_a_stream_opened_with_an_id_of_ours_ends_the_session(client: bool, stream_id: int) -> None:
    session = client_with_stream() if client else server_with_stream()
    assert_ends(session, frame(WINDOW, SYN, stream_id), "its streams have an")


@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_a_syn_on_a_live_stream_ends_the_session(kind: int) -> None:
    assert_ends(server_with_stream(), frame(kind, SYN, 1), "open already")


@pytest.mark.parametrize("flags", [0, ACK, FIN, RST])
@pytest.mark.parametrize("stream_id", [2, 3])
def test_a_frame_for_a_stream_that_was_never_opened_ends_the_session(stream_id: int, flags: int) -> None:
    assert_ends(server_with_stream(), frame(WINDOW, flags, stream_id), "never opened")


def test_data_beyond_the_window_ends_the_session_before_it_comes() -> None:
    assert_ends(server_with_stream(), frame(DATA, 0, 1, INITIAL_WINDOW + 1), "its window is 262144")


def test_data_beyond_what_is_left_of_the_window_ends_the_session() -> None:
    session = server_with_stream()
    session.receive_data(data(1, bytes(INITIAL_WINDOW)))
    session.consumed(1, 100)
    assert_ends(session, frame(DATA, 0, 1, 1), "its window is 0")


def test_an_opening_frame_beyond_the_window_ends_the_session() -> None:
    assert_ends(YamuxSession(client=False), frame(DATA, SYN, 1, 2**32 - 1), "its window is 262144")


def test_a_window_beyond_its_field_ends_the_session() -> None:
    session = server_with_stream()
    session.receive_data(frame(WINDOW, 0, 1, 2**32 - 1 - INITIAL_WINDOW))
    assert session.send_window(1) == 2**32 - 1
    assert_ends(session, frame(WINDOW, 0, 1, 1), "beyond 4294967295")


def test_a_second_fin_ends_the_session() -> None:
    session = server_with_stream()
    session.receive_data(frame(WINDOW, FIN, 1))
    assert_ends(session, frame(WINDOW, FIN, 1), "twice")


def test_more_data_for_a_reset_stream_than_its_window_held_ends_the_session() -> None:
    session = server_with_stream()
    session.reset(1)
    session.receive_data(data(1, bytes(INITIAL_WINDOW)))
    assert_ends(session, frame(DATA, 0, 1, 1), "which is over")


def test_pings_whose_answers_are_never_read_end_the_session() -> None:
    session = YamuxSession(client=False)
    pings = frame(PING, SYN, 0) * 256
    session.receive_data(pings)
    session.data_to_send()
    session.receive_data(pings)
    assert session.pending_bytes == len(pings)
    with pytest.raises(ProtocolError, match="over 256 yamux pings"):
        session.receive_data(pings[:12])
    assert session.pending_bytes == len(pings) + 12


def test_a_flood_of_streams_whose_resets_are_never_read_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.wire.yamux.MAX_REFUSALS_WAITING", 3)
    session = YamuxSession(client=False)
    session.go_away()
    for stream_id in (1, 3, 5):
        session.receive_data(frame(WINDOW, SYN, stream_id))
    with pytest.raises(ProtocolError, match="floods the yamux session"):
        session.receive_data(frame(WINDOW, SYN, 7))


# -- fuzzing -------------------------------------------------------------------------------------------------------

FRAMES = st.builds(
    frame,
    st.integers(0, 4),
    st.sampled_from([0, 0, SYN, ACK, FIN, RST, SYN | FIN, 16]),
    st.integers(0, 6),
    st.sampled_from([0, 1, 5, 100, INITIAL_WINDOW, INITIAL_WINDOW + 1, 2**32 - 1]),
    st.binary(max_size=8),
)


@given(st.booleans(), st.lists(st.one_of(FRAMES, st.binary(max_size=40)), max_size=20), st.booleans())
def test_garbage_does_no_more_than_a_protocol_error(client: bool, pieces: list[bytes], accepts: bool) -> None:
    session = YamuxSession(client=client)
    session.open_stream()
    events: list[Event] = []
    try:
        for piece in pieces:
            for event in session.receive_data(piece):
                events.append(event)
                if accepts and isinstance(event, StreamOpened):
                    session.accept(event.stream_id)
                elif accepts and isinstance(event, DataReceived):
                    session.consumed(event.stream_id, len(event.data))
    except ProtocolError:
        assert session.closed
    sent = sum(len(piece) for piece in pieces)
    # What is kept and what is said grow no faster than what came: at most two frames for each frame.
    assert session.streams <= 1 + sent // 12
    assert session.pending_bytes <= 2 * sent + 24
    assert sum(len(event.data) for event in events if isinstance(event, DataReceived)) <= sent


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(0, 300), max_size=6))
def test_frames_mean_the_same_in_any_pieces(frames: list[bytes], offsets: list[int]) -> None:
    sent = b"".join(frames)

    def outcome(pieces: Iterable[bytes]) -> tuple[bytes, int, str]:
        session = YamuxSession(client=False)
        complaint = ""
        try:
            for piece in pieces:
                session.receive_data(piece)
        except ProtocolError as error:
            complaint = str(error)
        return output(session), session.streams, complaint

    assert outcome(cut(sent, offsets)) == outcome([sent])
