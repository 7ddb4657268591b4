"""yamux: what one end says and understands."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.yamux import (
    INITIAL_WINDOW,
    MAX_STREAMS_WAITING,
    MAX_UNACKNOWLEDGED,
    DataReceived,
    Event,
    GoneAway,
    HalfClosed,
    Pinged,
    PongReceived,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    WindowOpened,
    YamuxSession,
)
from wire_transcripts import cut, every_split, sent_by
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


def merged(events: Iterable[Event]) -> list[Event]:
    """Return the events with neighbouring pieces of a stream joined: where they were cut is chance."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and event.stream_id == last.stream_id:
            result[-1] = DataReceived(event.stream_id, last.data + event.data)
        else:
            result.append(event)
    return result


# -- the recording ------------------------------------------------------------------------------------------------


# The recorded backend's opening and closing of stream 1; what follows answers the relay's stream 2, so it cannot come
# in the same read.
BEFORE_THE_VISITOR = 24


def relay(pieces: Iterable[bytes]) -> tuple[list[Event], bytes]:
    """Be the recorded relay for one visitor."""
    session = YamuxSession(client=False)
    events: list[Event] = []
    said = b""
    for piece in pieces:
        for event in session.receive_data(piece):
            events.append(event)
            if event == StreamOpened(1):
                session.accept(1)
                session.send_data(1, b"localhost:7101")
                session.send_eof(1)
                session.send_data(session.open_stream(), b"hello relay\n")
        said += output(session)
    return merged(events), said


def backend(pieces: Iterable[bytes]) -> tuple[list[Event], bytes]:
    """Be the recorded backend, which echoes."""
    session = YamuxSession(client=True)
    session.open_stream()
    events: list[Event] = []
    said, heard = output(session), b""
    for piece in pieces:
        for event in session.receive_data(piece):
            events.append(event)
            if event == HalfClosed(1):
                session.send_eof(1)
            elif event == StreamOpened(2):
                session.accept(2)
            elif isinstance(event, DataReceived) and event.stream_id == 2:
                heard += event.data
                if heard.endswith(b"\n"):
                    session.send_data(2, heard)
        said += output(session)
    return merged(events), said


RELAY_HEARS = [StreamOpened(1), HalfClosed(1), StreamAccepted(2, 0), DataReceived(2, b"hello relay\n")]
BACKEND_HEARS = [
    StreamAccepted(1, 0),
    DataReceived(1, b"localhost:7101"),
    HalfClosed(1),
    StreamOpened(2),
    DataReceived(2, b"hello relay\n"),
]


def test_the_recorded_backend_is_understood_split_at_every_offset_and_answered_as_the_original_did() -> None:
    recorded = sent_by("relay-echo", "client")
    opening, rest = recorded[:BEFORE_THE_VISITOR], recorded[BEFORE_THE_VISITOR:]
    splits = [[*pieces, rest] for pieces in every_split(opening)] + [[opening, *pieces] for pieces in every_split(rest)]
    for pieces in splits:
        assert relay(pieces) == (RELAY_HEARS, sent_by("relay-echo", "server"))


def test_the_recorded_relay_is_understood_split_at_every_offset_and_answered_as_the_original_did() -> None:
    for pieces in every_split(sent_by("relay-echo", "server")):
        assert backend(pieces) == (BACKEND_HEARS, sent_by("relay-echo", "client"))


@given(st.lists(st.integers(0, 200), max_size=10))
def test_the_recording_is_understood_in_any_pieces(offsets: list[int]) -> None:
    assert relay(cut(sent_by("relay-echo", "client"), [*offsets, BEFORE_THE_VISITOR]))[0] == RELAY_HEARS
    assert backend(cut(sent_by("relay-echo", "server"), offsets))[0] == BACKEND_HEARS


# -- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "ids"), [(True, [1, 3, 5]), (False, [2, 4, 6])])
def test_a_client_counts_its_streams_odd_and_a_server_even(client: bool, ids: list[int]) -> None:
    session = YamuxSession(client=client)
    assert [session.open_stream() for _ in ids] == ids
    assert output(session) == b"".join(frame(WINDOW, SYN, stream_id) for stream_id in ids)
    assert session.streams == 3


def test_the_extra_window_of_an_acknowledgement_is_told_and_usable() -> None:
    session = YamuxSession(client=True)
    session.open_stream()
    assert session.receive_data(frame(WINDOW, ACK, 1, 0x5443)) == [StreamAccepted(1, 0x5443), WindowOpened(1)]
    assert session.send_window(1) == INITIAL_WINDOW + 0x5443


def test_an_acknowledgement_may_come_with_data() -> None:
    session = YamuxSession(client=True)
    session.open_stream()
    assert session.receive_data(data(1, b"hi", ACK)) == [StreamAccepted(1, 0), DataReceived(1, b"hi")]


def test_a_stream_is_accepted_with_extra_window_which_the_remote_may_use() -> None:
    session = YamuxSession(client=False)
    session.receive_data(frame(WINDOW, SYN, 1))
    session.accept(1, 100)
    assert output(session) == frame(WINDOW, ACK, 1, 100)
    events = session.receive_data(data(1, bytes(INITIAL_WINDOW + 100)))
    assert events == [DataReceived(1, bytes(INITIAL_WINDOW + 100))]


def test_a_stream_is_opened_with_extra_window_both_ways() -> None:
    client, server = YamuxSession(client=True), YamuxSession(client=False)
    client.open_stream(100)
    assert server.receive_data(output(client)) == [StreamOpened(1)]
    assert server.send_window(1) == INITIAL_WINDOW + 100
    client.receive_data(data(1, bytes(INITIAL_WINDOW + 100), ACK))


def test_a_stream_may_open_with_data_and_end_at_once() -> None:
    session = YamuxSession(client=False)
    events = session.receive_data(data(1, b"all", SYN | FIN))
    assert events == [StreamOpened(1), DataReceived(1, b"all"), HalfClosed(1)]


def test_a_payload_is_delivered_as_it_comes_and_not_when_its_frame_is_complete() -> None:
    session = server_with_stream()
    assert session.receive_data(frame(DATA, FIN, 1, 6) + b"abc") == [DataReceived(1, b"abc")]
    assert session.receive_data(b"de") == [DataReceived(1, b"de")]
    assert session.receive_data(b"f") == [DataReceived(1, b"f"), HalfClosed(1)]


def test_received_data_outlives_the_buffer_it_came_in() -> None:
    session = server_with_stream()
    buffer = bytearray(data(1, b"abc"))
    (event,) = session.receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert event == DataReceived(1, b"abc")


@pytest.mark.parametrize("size", [1, 2047, 2048, 100_000])
def test_data_is_sent_as_one_frame_and_counted(size: int) -> None:
    session = client_with_stream()
    session.send_data(1, b"x" * size)
    assert session.pending_bytes == 12 + size
    assert output(session) == data(1, b"x" * size)
    assert session.pending_bytes == 0
    assert session.send_window(1) == INITIAL_WINDOW - size


def test_sending_nothing_sends_no_frame() -> None:
    session = client_with_stream()
    session.send_data(1, b"")
    assert output(session) == b""


def test_a_half_close_leaves_the_other_way_open() -> None:
    session = client_with_stream()
    session.send_eof(1)
    session.send_eof(1)
    assert output(session) == frame(WINDOW, FIN, 1)
    assert session.send_window(1) == 0
    assert session.receive_data(data(1, b"still here")) == [DataReceived(1, b"still here")]
    assert session.streams == 1
    assert session.receive_data(frame(WINDOW, FIN, 1)) == [HalfClosed(1)]
    assert session.streams == 0


def test_a_stream_that_the_remote_closed_first_is_forgotten_when_we_close_it() -> None:
    session = client_with_stream()
    session.receive_data(frame(DATA, FIN, 1))
    assert session.streams == 1
    session.send_data(1, b"last words")
    session.send_eof(1)
    assert session.streams == 0


def test_a_reset_stream_is_forgotten() -> None:
    session = client_with_stream()
    assert session.receive_data(frame(WINDOW, RST, 1)) == [StreamReset(1)]
    assert session.streams == 0


def test_a_rejected_stream_is_reset() -> None:
    session = YamuxSession(client=False)
    session.receive_data(frame(WINDOW, SYN, 1))
    session.reject(1)
    assert output(session) == frame(WINDOW, RST, 1)
    assert session.streams == 0


def test_what_is_asked_of_a_forgotten_stream_does_nothing() -> None:
    session = client_with_stream()
    session.receive_data(frame(WINDOW, RST, 1))
    session.accept(1)
    session.consumed(1, 5)
    session.send_eof(1)
    session.reset(1)
    assert session.send_window(1) == 0
    assert output(session) == b""


def test_data_in_flight_for_a_reset_stream_is_dropped_and_counted() -> None:
    session = server_with_stream()
    session.receive_data(frame(DATA, 0, 1, 6) + b"abc")
    session.reset(1)
    assert session.receive_data(b"def" + data(1, b"ghi") + frame(WINDOW, FIN, 1)) == []
    assert session.discarded_bytes == 6


def test_data_behind_a_fin_is_dropped_and_counted() -> None:
    session = server_with_stream()
    session.receive_data(frame(WINDOW, FIN, 1))
    assert session.receive_data(data(1, b"late")) == []
    assert session.discarded_bytes == 4


def test_a_payload_that_comes_with_a_reset_is_dropped() -> None:
    session = server_with_stream()
    assert session.receive_data(data(1, b"abc", RST) + frame(PING, ACK, 0, 7)) == [StreamReset(1), PongReceived(7)]


# -- windows ------------------------------------------------------------------------------------------------------


def test_no_more_than_the_window_can_be_sent() -> None:
    session = client_with_stream()
    session.send_data(1, bytes(INITIAL_WINDOW))
    assert session.send_window(1) == 0
    with pytest.raises(ValueError, match="takes 0 bytes now, not 1"):
        session.send_data(1, b"x")
    assert session.receive_data(frame(WINDOW, 0, 1, 5)) == [WindowOpened(1)]
    session.send_data(1, b"12345")
    assert session.send_window(1) == 0


def test_a_stream_is_not_written_to_before_it_is_accepted() -> None:
    session = YamuxSession(client=False)
    session.receive_data(frame(WINDOW, SYN, 1))
    with pytest.raises(ValueError, match="stream 1"):
        session.send_data(1, b"x")


def test_window_is_granted_again_once_half_of_it_was_consumed() -> None:
    session = server_with_stream()
    session.receive_data(data(1, bytes(INITIAL_WINDOW)))
    session.consumed(1, INITIAL_WINDOW // 2 - 1)
    assert output(session) == b""
    session.consumed(1, 1)
    assert output(session) == frame(WINDOW, 0, 1, INITIAL_WINDOW // 2)


def test_half_of_a_wider_window_is_more() -> None:
    session = YamuxSession(client=False)
    session.receive_data(frame(WINDOW, SYN, 1))
    session.accept(1, INITIAL_WINDOW)
    session.data_to_send()
    session.receive_data(data(1, bytes(INITIAL_WINDOW)))
    session.consumed(1, INITIAL_WINDOW - 1)
    assert output(session) == b""
    session.consumed(1, 1)
    assert output(session) == frame(WINDOW, 0, 1, INITIAL_WINDOW)


def test_one_stream_that_is_not_consumed_holds_up_no_other() -> None:
    session = server_with_stream()
    session.receive_data(data(1, bytes(INITIAL_WINDOW)) + frame(WINDOW, SYN, 3))
    session.accept(3)
    session.data_to_send()
    for _ in range(4):
        session.receive_data(data(3, bytes(INITIAL_WINDOW // 2)))
        session.consumed(3, INITIAL_WINDOW // 2)
        assert output(session) == frame(WINDOW, 0, 3, INITIAL_WINDOW // 2)


def test_no_window_is_granted_to_a_remote_that_sends_no_more() -> None:
    session = server_with_stream()
    session.receive_data(data(1, bytes(INITIAL_WINDOW), FIN))
    session.consumed(1, INITIAL_WINDOW)
    assert output(session) == b""


def test_window_consumed_before_the_stream_is_accepted_is_granted_behind_the_acknowledgement() -> None:
    session = YamuxSession(client=False)
    session.receive_data(data(1, bytes(INITIAL_WINDOW), SYN))
    session.consumed(1, INITIAL_WINDOW)
    assert output(session) == b""
    session.accept(1)
    assert output(session) == frame(WINDOW, ACK, 1) + frame(WINDOW, 0, 1, INITIAL_WINDOW)


def test_no_more_than_was_received_can_be_consumed() -> None:
    session = server_with_stream()
    session.receive_data(data(1, b"abc"))
    with pytest.raises(ValueError, match="3 bytes to consume, not 4"):
        session.consumed(1, 4)


def test_a_stream_cannot_be_accepted_twice() -> None:
    with pytest.raises(ValueError, match="does not wait to be accepted"):
        server_with_stream().accept(1)


# -- the session ---------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_value() -> None:
    session = YamuxSession(client=False)
    assert session.receive_data(frame(PING, SYN, 0, 77)) == [Pinged()]
    assert output(session) == frame(PING, ACK, 0, 77)


def test_our_ping_comes_back() -> None:
    client, server = YamuxSession(client=True), YamuxSession(client=False)
    client.ping(5)
    server.receive_data(output(client))
    assert client.receive_data(output(server)) == [PongReceived(5)]


def test_after_a_normal_go_away_streams_go_on_and_none_can_be_opened() -> None:
    session = client_with_stream()
    assert session.receive_data(frame(GO_AWAY, 0, 0, 0)) == [GoneAway(0)]
    assert not session.closed
    assert session.receive_data(data(1, b"on")) == [DataReceived(1, b"on")]
    assert not session.can_open
    with pytest.raises(RuntimeError, match="opens no more streams"):
        session.open_stream()


@pytest.mark.parametrize("code", [1, 2])
def test_a_go_away_for_an_error_closes_the_session(code: int) -> None:
    session = client_with_stream()
    assert session.receive_data(frame(GO_AWAY, 0, 0, code) + data(1, b"x")) == [GoneAway(code)]
    assert session.closed
    assert session.streams == 0


def test_once_we_went_away_new_streams_are_reset_and_old_ones_go_on() -> None:
    session = server_with_stream()
    session.go_away()
    assert output(session) == frame(GO_AWAY, 0, 0, 0)
    assert session.receive_data(data(3, b"no", SYN) + data(1, b"yes")) == [DataReceived(1, b"yes")]
    assert output(session) == frame(WINDOW, RST, 3)


def test_streams_beyond_those_that_may_wait_are_reset_until_some_are_served() -> None:
    """Unbounded memory for streams that nobody has accepted yet (rust-yamux CVE-2024-32984)."""
    session = YamuxSession(client=False)
    last = 2 * MAX_STREAMS_WAITING - 1
    for stream_id in range(1, last + 1, 2):
        assert session.receive_data(frame(WINDOW, SYN, stream_id)) == [StreamOpened(stream_id)]
    assert session.receive_data(data(last + 2, b"dropped", SYN)) == []
    assert output(session) == frame(WINDOW, RST, last + 2)
    session.accept(1)
    session.reject(3)
    for stream_id in (last + 4, last + 6):
        assert session.receive_data(frame(WINDOW, SYN, stream_id)) == [StreamOpened(stream_id)]
    assert session.receive_data(frame(WINDOW, SYN, last + 8)) == []


def test_streams_beyond_the_limit_of_a_session_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelconsole.engine.wire.yamux.MAX_STREAMS", 2)
    session = server_with_stream()
    session.open_stream()
    assert not session.can_open
    session.data_to_send()
    assert session.receive_data(frame(WINDOW, SYN, 3)) == []
    assert output(session) == frame(WINDOW, RST, 3)


def test_no_more_streams_are_opened_than_the_remote_lets_wait_until_it_has_acknowledged_some() -> None:
    session = YamuxSession(client=False)
    first, second, *_ = [session.open_stream() for _ in range(MAX_UNACKNOWLEDGED)]
    assert session.backlogged
    with pytest.raises(RuntimeError, match="the remote is behind"):
        session.open_stream()
    session.receive_data(frame(WINDOW, ACK, first) + data(first, b"again", ACK))
    session.open_stream()
    assert session.backlogged
    session.receive_data(frame(WINDOW, RST, second))
    session.reset(session.open_stream())
    assert not session.backlogged


def test_a_session_that_is_over_or_going_away_does_not_wait_for_acknowledgements() -> None:
    for bye in (frame(GO_AWAY, 0, 0, 0), frame(GO_AWAY, 0, 0, 2)):
        session = YamuxSession(client=False)
        while session.can_open:
            session.open_stream()
        session.receive_data(bye)
        assert not session.backlogged
        assert not session.can_open


def test_the_ids_of_streams_run_out_in_time() -> None:
    session = YamuxSession(client=True)
    session._next_id = 2**32 - 1
    session.reset(session.open_stream())
    assert not session.can_open
