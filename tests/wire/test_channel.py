"""The channel protocol in the clear, both ends, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.channel import (
    ChannelClientHandshake,
    ChannelServerHandshake,
    ClientEvent,
    JoinAsked,
    Joined,
    JoinRefused,
    PasswordRefused,
    Rejected,
    ServerEvent,
)
from tunnelconsole.engine.wire.channel_lines import (
    MAX_CHID,
    MAX_FIRST_LINE,
    MAX_LINE,
    MAX_REASON,
    MAX_RECEIVERS,
    MAX_TIMEOUT,
    check_chid,
)
from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from wire_transcripts import cut, every_split, load, sent_by

RECORDING = "channel-chan"
GENERATED = "c-abcdefgh"
OFFSETS = st.lists(st.integers(0, 400), max_size=8)
LETTERS = st.characters(exclude_categories=("C", "Z"), exclude_characters=",")
CHIDS = st.text(LETTERS, min_size=1, max_size=MAX_CHID // 4).filter(lambda chid: chid != "*")
HS1 = b'{"req":"hs1","chid":"ch0"}\n'
HS2 = b'{"chid":"ch0","rsp":"hs2"}\n'
HS3 = b'{"req":"hs3","recvers":["ch1"]}\n'
OK = b'{"result":"OK","rsp":"hs4"}\n'


def serve(pieces: Iterable[bytes], refusal: str = "") -> tuple[list[ServerEvent], bytes, ChannelServerHandshake]:
    """Feed a client's bytes to our server, which lets everybody in; return events, answers and machine."""
    server = ChannelServerHandshake(lambda: GENERATED)
    events: list[ServerEvent] = []
    output = server.data_to_send()
    for piece in pieces:
        for event in server.receive_data(piece):
            events.append(event)
            if isinstance(event, JoinAsked):
                if refusal:
                    server.refuse(refusal)
                else:
                    server.accept()
        output += server.data_to_send()
    return events, output, server


def ask(
    pieces: Iterable[bytes], chid: str = "ch0", receivers: Sequence[str] = ("ch1",), timeout: float = 0.0
) -> tuple[list[ClientEvent], bytes, ChannelClientHandshake]:
    """Feed a server's bytes to our client; return events, what the client said, and the machine."""
    client = ChannelClientHandshake(chid, receivers, timeout)
    events: list[ClientEvent] = []
    output = client.data_to_send()
    for piece in pieces:
        events += client.receive_data(piece)
        output += client.data_to_send()
    return events, output, client


def payload(conn: int, sender: str) -> bytes:
    """Return what one end of a recorded connection sent after its handshake."""
    return [read.data for read in load(RECORDING) if read.data and read.sender == sender and read.conn == conn][-1]


def line_of(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def check_served(conn: int, pieces: Sequence[bytes]) -> None:
    me, other = f"ch{conn - 1}", f"ch{2 - conn}"
    events, output, server = serve(pieces)
    assert events == [JoinAsked(me, (other,), 0.0)]
    # Our server says to the byte what the original said; what followed came from the other client.
    assert output + payload(conn, "server") == sent_by(RECORDING, "server", conn)
    assert server.leftover == payload(conn, "client")


def check_asked(conn: int, pieces: Sequence[bytes]) -> None:
    me, other = f"ch{conn - 1}", f"ch{2 - conn}"
    events, output, client = ask(pieces, me, (other,))
    assert events == [Joined(me)]
    assert output + payload(conn, "client") == sent_by(RECORDING, "client", conn)
    assert client.leftover == payload(conn, "server")


@pytest.mark.parametrize("conn", [1, 2])
def test_the_server_reads_a_recorded_client_the_same_split_at_every_offset(conn: int) -> None:
    for pieces in every_split(sent_by(RECORDING, "client", conn)):
        check_served(conn, pieces)


@pytest.mark.parametrize("conn", [1, 2])
def test_the_client_reads_a_recorded_server_the_same_split_at_every_offset(conn: int) -> None:
    for pieces in every_split(sent_by(RECORDING, "server", conn)):
        check_asked(conn, pieces)


@given(st.sampled_from([1, 2]), OFFSETS)
def test_the_recording_is_read_the_same_in_any_pieces(conn: int, offsets: list[int]) -> None:
    check_served(conn, cut(sent_by(RECORDING, "client", conn), offsets))
    check_asked(conn, cut(sent_by(RECORDING, "server", conn), offsets))


@given(CHIDS, st.lists(CHIDS, max_size=5, unique=True), st.integers(0, MAX_TIMEOUT), st.binary(max_size=50), OFFSETS)
def test_our_ends_understand_each_other_in_any_pieces(
    chid: str, receivers: list[str], timeout: int, early: bytes, offsets: list[int]
) -> None:
    client = ChannelClientHandshake(chid, receivers, timeout)
    first = client.data_to_send()
    assert client.receive_data(line_of(rsp="hs2", chid=chid)) == []
    events, output, server = serve(cut(first + client.data_to_send() + early, offsets))
    assert events == [JoinAsked(chid, tuple(receivers), float(timeout))]
    assert server.leftover == early
    events_there, _, client = ask(cut(output + early, offsets), chid, receivers)
    assert events_there == [Joined(chid)]
    assert client.leftover == early


@pytest.mark.parametrize("first", [b'{"req":"hs1"}', b'{"req":"hs1","chid":""}', b'{"chid":null,"req":"hs1"}'])
def test_a_client_without_a_chid_is_given_one(first: bytes) -> None:
    events, output, _ = serve([first + b"\n" + HS3])
    assert events == [JoinAsked(GENERATED, ("ch1",), 0.0)]
    assert output.startswith(b'{"chid":"c-abcdefgh","rsp":"hs2"}\n')


@pytest.mark.parametrize(
    ("line", "receivers", "timeout"),
    [
        (b'{"req":"hs3"}', (), 0.0),
        (b'{"req":"hs3","recvers":[]}', (), 0.0),
        (b'{"req":"hs3","recvers":null,"timeout":null}', (), 0.0),
        (b'{"timeout": 3600, "recvers": ["b", "a", "b"], "req": "hs3"}\r', ("b", "a"), 3600.0),
        (b'{"req":"hs3","timeout":0.5,"later":{"key":[1]}}', (), 0.5),
        (b'{"req":"hs3","recvers":["\xc3\xa9","\\u00e9"]}', ("é",), 0.0),
    ],
)
def test_receivers_and_timeout_are_read_as_any_client_may_write_them(
    line: bytes, receivers: tuple[str, ...], timeout: float
) -> None:
    assert serve([HS1 + line + b"\n"])[0] == [JoinAsked("ch0", receivers, timeout)]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\n", "the hs1 line is not the JSON"),
        (b"GET / HTTP/1.1\r\n", "the hs1 line is not the JSON"),
        (b"\xff\xfe\n", "the hs1 line is not the JSON"),
        (b'{"req":"hs1","chid":"\xff"}\n', "the hs1 line is not the JSON"),
        (b'{"req":"hs1","chid":7}\n', "the hs1 line is not the JSON"),
        (b'["hs1"]\n', "the hs1 line is not the JSON"),
        (b'{"req":"hs1","x":' + b"[" * 4000 + b"\n", "the hs1 line is not the JSON"),
        (b"[" * 100_000, f"more than {MAX_FIRST_LINE} bytes"),
        (b'{"req":"hs3"}\n', 'its "req" must be "hs1"'),
        (b'{"req":"hs1","chid":"a b"}\n', "without spaces"),
        (b'{"req":"hs1","chid":"a\\u0000"}\n', "printable"),
        (b'{"req":"hs1","chid":"%s"}\n' % (b"x" * (MAX_CHID + 1)), "at most 128 bytes"),
        (HS1 + HS1, 'its "req" must be "hs3"'),
        (HS1 + b"not JSON\n", "the hs3 line is not the JSON"),
        (HS1 + b'{"req":"hs3","recvers":"ch1"}\n', "the hs3 line is not the JSON"),
        (HS1 + b'{"req":"hs3","recvers":[""]}\n', "not empty"),
        (HS1 + b'{"req":"hs3","recvers":["a",null]}\n', "the hs3 line is not the JSON"),
        (HS1 + line_of(req="hs3", recvers=["c"] * (MAX_RECEIVERS + 1)), "more than 1024 receivers"),
        (HS1 + b'{"req":"hs3","timeout":-1}\n', "a timeout is 0 to"),
        (HS1 + b'{"req":"hs3","timeout":1e300}\n', "a timeout is 0 to"),
        (HS1 + b'{"req":"hs3","timeout":1%s}\n' % (b"0" * 400), "a timeout is 0 to|not the JSON"),
        (HS1 + b'{"req":"hs3","timeout":true}\n', "the hs3 line is not the JSON"),
        (HS1 + b"x" * MAX_LINE, f"more than {MAX_LINE} bytes"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_whatever_else_a_client_says_is_rejected_and_told(sent: bytes, reason: str) -> None:
    events, output, server = serve([sent])
    (rejected,) = events
    assert isinstance(rejected, Rejected)
    answer = json.loads(output.removeprefix(HS2))
    assert answer == {"rsp": "hs4", "result": "FAIL", "desc": rejected.reason}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejected.reason)
    assert server.receive_data(HS1 + HS3) == []
    server.receive_eof()


def test_as_many_receivers_as_there_may_be_fit_into_a_line() -> None:
    receivers = [f"{number:04}".rjust(MAX_CHID, "x") for number in range(MAX_RECEIVERS)]
    client = ChannelClientHandshake("ch0", receivers, MAX_TIMEOUT)
    output = client.data_to_send()
    client.receive_data(HS2)
    assert serve([output + client.data_to_send()])[0] == [JoinAsked("ch0", tuple(receivers), float(MAX_TIMEOUT))]


@pytest.mark.parametrize("length", [MAX_FIRST_LINE - 1, MAX_FIRST_LINE])
@pytest.mark.parametrize("offset", [0, 1, 4000, MAX_FIRST_LINE - 1])
def test_a_first_line_may_be_as_long_as_the_limit_and_no_longer(length: int, offset: int) -> None:
    line = b'{"req":"hs1"}'.ljust(length) + b"\n"
    events, output, _ = serve([line[:offset], line[offset:]])
    assert bool(events) == (length == MAX_FIRST_LINE)
    assert output.startswith(b'{"desc"' if events else b'{"chid"')


def test_a_refusal_reaches_the_client_cut_to_a_sentence() -> None:
    _, output, _ = serve([HS1 + HS3], refusal="chid ch0 is taken")
    assert output == HS2 + b'{"desc":"chid ch0 is taken","result":"FAIL","rsp":"hs4"}\n'
    _, long, _ = serve([HS1 + HS3], refusal="é" * 5000)
    assert json.loads(long.splitlines()[1])["desc"] == "é" * MAX_REASON
    assert ask([output])[0] == [JoinRefused("chid ch0 is taken")]


@pytest.mark.parametrize("before", [b"", HS1, HS1 + HS3])
def test_a_client_can_be_refused_at_each_step(before: bytes) -> None:
    server = ChannelServerHandshake(lambda: GENERATED)
    server.receive_data(before)
    server.data_to_send()
    server.refuse("too slow")
    assert json.loads(server.data_to_send())["desc"] == "too slow"
    assert server.receive_data(HS1 + HS3) == []


def test_the_service_cannot_answer_twice_or_too_early() -> None:
    with pytest.raises(RuntimeError):
        ChannelServerHandshake(lambda: GENERATED).accept()
    _, _, server = serve([HS1 + HS3])
    with pytest.raises(RuntimeError):
        server.accept()
    with pytest.raises(RuntimeError):
        server.refuse("late")


def test_payload_behind_the_last_line_is_kept_for_the_receivers() -> None:
    server = ChannelServerHandshake(lambda: GENERATED)
    server.receive_data(HS1 + HS3 + b"first, ")
    assert server.receive_data(b"second\n") == []
    server.accept()
    assert server.leftover == b"first, second\n"


def test_more_early_payload_than_the_limit_is_a_protocol_error() -> None:
    server = ChannelServerHandshake(lambda: GENERATED)
    server.receive_data(HS1 + HS3 + bytes(MAX_EARLY_DATA))
    with pytest.raises(ProtocolError, match="before the channel was open"):
        server.receive_data(b"x")
    client = ChannelClientHandshake("ch0")
    client.receive_data(HS2 + OK)
    client.receive_data(bytes(MAX_EARLY_DATA))
    with pytest.raises(ProtocolError, match="before the channel was open"):
        client.receive_data(b"x")


def test_what_an_incomplete_line_holds_can_be_told() -> None:
    server = ChannelServerHandshake(lambda: GENERATED)
    server.receive_data(HS1 + HS3[:10])
    assert server.held == 10
    server.receive_data(HS3[10:])
    assert server.held == 0


@pytest.mark.parametrize(
    ("sent", "step"), [(b"", "which chid"), (HS1[:-1], "which chid"), (HS1, "named its receivers")]
)
def test_the_server_says_at_which_step_the_client_closed(sent: bytes, step: str) -> None:
    _, _, server = serve([sent])
    with pytest.raises(ProtocolError, match=step):
        server.receive_eof()


@pytest.mark.parametrize(("sent", "step"), [(b"", "answered the chid"), (HS2, "whether we are in")])
def test_the_client_says_at_which_step_the_server_closed(sent: bytes, step: str) -> None:
    _, _, client = ask([sent])
    with pytest.raises(ProtocolError, match=step):
        client.receive_eof()


def test_a_client_without_a_chid_learns_the_one_it_was_given() -> None:
    events, output, _ = ask([b'{"chid":"c-abcdefgh","rsp":"hs2"}\n' + OK], chid="", receivers=())
    assert events == [Joined("c-abcdefgh")]
    assert output == b'{"req":"hs1","chid":""}\n{"req":"hs3","recvers":[]}\n'


def test_a_client_to_whom_the_server_gives_no_chid_asks_again_with_one_of_its_own() -> None:
    sent = b'{"chid":"","rsp":"hs2"}\n' + line_of(rsp="hs2", chid=GENERATED) + OK  # as the original answers
    for pieces in every_split(sent):
        client = ChannelClientHandshake("", ("ch1",), spare_chid=GENERATED)
        events = [event for piece in pieces for event in client.receive_data(piece)]
        assert events == [Joined(GENERATED)]
        said = b'{"req":"hs1","chid":""}\n{"req":"hs1","chid":"c-abcdefgh"}\n'
        assert client.data_to_send() == said + b'{"req":"hs3","recvers":["ch1"]}\n'


def test_a_timeout_is_sent_in_whole_seconds() -> None:
    assert ask([HS2], timeout=0.2)[1].endswith(b'{"req":"hs3","recvers":["ch1"],"timeout":1}\n')


@pytest.mark.parametrize(
    "sent",
    [
        b"{}\n",
        b"{nonsense\n",
        b'{"rsp":"hs4","result":"OK"}\n',
        HS2 + HS2,
        HS2 + b'{"rsp":"hs4","result":"MAYBE"}\n',
        b"{" + b"x" * MAX_LINE,
    ],
)
def test_any_other_answer_is_a_protocol_error(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        ask([sent])


def test_a_failure_is_told_at_any_step_also_without_a_reason() -> None:
    for before in (b"", HS2):
        events, _, client = ask([before + b'{"rsp":"hs4","result":"FAIL"}\nwhat follows is not read'])
        assert events == [JoinRefused("the channel server gave no reason")]
        assert client.leftover == b""
        client.receive_eof()


def test_a_server_that_encrypts_is_told_from_one_that_does_not() -> None:
    events, _, _ = ask([b"A" * 43 + b"=\n"])
    assert events == [PasswordRefused("the channel server encrypts its handshake: a password is needed")]


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH_9.7\r\n", b"AAAA\n", b"A" * 44 + b"\n"])
def test_a_server_that_is_none_is_not_taken_for_one_that_encrypts(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="is it one"):
        ask([line])


@pytest.mark.parametrize("arguments", [("a b",), ("x" * (MAX_CHID + 1),), ("a", [""]), ("a", (), -1), ("a", (), 1e10)])
def test_what_no_server_takes_is_not_asked_for(arguments: tuple[str]) -> None:
    with pytest.raises(ValueError, match=r"a chid|a timeout"):
        ChannelClientHandshake(*arguments)


@given(st.text(max_size=200))
def test_a_chid_is_either_refused_or_fit_for_a_line_of_a_table(text: str) -> None:
    try:
        check_chid(text)
    except ValueError:
        return
    assert text
    assert text.isprintable()
    assert not any(letter.isspace() for letter in text)
    assert len(text.encode()) <= MAX_CHID


@pytest.mark.parametrize("text", ["*", "a,b", ","])
def test_a_chid_that_no_command_could_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no comma and is not"):
        check_chid(text)


@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([b"", HS1]))
def test_garbage_never_does_more_to_the_server_than_be_rejected(pieces: list[bytes], before: bytes) -> None:
    events, output, _ = serve([before, *pieces])
    assert all(isinstance(event, Rejected) for event in events)
    assert len(output) < 1000


@given(st.lists(st.binary(max_size=300), max_size=5), st.sampled_from([b"", HS2]))
def test_garbage_never_does_more_to_the_client_than_a_protocol_error(pieces: list[bytes], before: bytes) -> None:
    try:
        events, _, _ = ask([before, *pieces])
    except ProtocolError:
        return
    assert all(isinstance(event, PasswordRefused) for event in events)
