"""The tunnel protocol, both ends, byte by byte."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.early_data import MAX_EARLY_DATA
from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.http.exchange import Exchanges, Phase
from tunnelconsole.engine.wire.http.forward import Peer
from tunnelconsole.engine.wire.tunnel import (
    KEY_LENGTH,
    MAX_ANSWER_HEAD,
    MAX_REASON,
    ClientEvent,
    ConnectAnswer,
    DataOffered,
    Established,
    Refused,
    Rejected,
    TunnelAsked,
    TunnelServerHandshake,
    data_request,
    is_tunnel,
    tunnel_request,
)
from tunnelconsole.engine.wire.tunnel_lines import (
    GREETING,
    GREETING_ANSWER,
    MAX_CAUSE,
    MAX_LINE,
    MAX_WANTED,
    Greeting,
    Leave,
    Message,
    VisitorComing,
    Want,
    encode_health,
    encode_message,
    message_reader,
    parse_health,
    parse_message,
)
from tunnelconsole.engine.wire.yamux import DataReceived, HalfClosed, StreamOpened, YamuxSession
from wire_transcripts import cut, every_split, sent_by
from yamux_frames import output

HOST = "app.example.net:8080"
KEY = bytes(range(KEY_LENGTH))
ESTABLISHED = b"HTTP/1.1 200 gotunnel established\n\n"
OFFSETS = st.lists(st.integers(0, 2000), max_size=8)

RECORDED = "tunnel-http"
TUNNEL = 2
"""The recording's connection with a tunnel; the other one says nothing."""

REQUEST = b"GET / HTTP/1.1\r\nHost: t.localhost:9605\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"


def recorded(sender: str) -> bytes:
    return sent_by(RECORDED, "client" if sender == "client" else "server", TUNNEL)


def recorded_response() -> tuple[bytes, bytes]:
    """The service's answer in the recording: its head and its body, a yamux frame each."""
    head, _, rest = recorded("client").partition(b"\x00\x00\x00\xb8")[2].partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest[12:18]


# -- the recording -----------------------------------------------------------------------------------------------------


class RecordedServer:
    """Our server with the recorded client, and one visitor."""

    def __init__(self) -> None:
        self.handshake = TunnelServerHandshake()
        self.session = YamuxSession(client=False)
        self.greeting = Greeting(GREETING)
        self.greeted = False
        self.output = b""
        self.answer = b""
        self.exchanges = Exchanges(Peer("127.0.0.1", "http"))
        self.exchanges.receive_from_visitor(REQUEST)
        self.exchanges.forward()
        self.open = False

    def receive(self, data: bytes) -> None:
        if not self.open:
            for event in self.handshake.receive_data(data):
                assert isinstance(event, TunnelAsked)
                assert (event.host, event.name) == ("t.localhost:9605", "t.localhost")
                assert not event.native
                self.handshake.accept(KEY)
                self.open = True
            self.output += self.handshake.data_to_send()
            data = self.handshake.leftover
        if self.open:
            for frame in self.session.receive_data(data):
                self._take(frame)
            self.output += output(self.session)

    def _take(self, event: object) -> None:
        match event:
            case StreamOpened(stream_id):
                self.session.accept(stream_id)
                if self.greeted:
                    self.session.send_data(stream_id, REQUEST)
            case DataReceived(1, data):
                self.greeted = self.greeting.receive_data(data)
                if self.greeted:
                    self.session.send_data(1, GREETING_ANSWER)
                    self.session.send_data(1, encode_message(VisitorComing()))
            case DataReceived(stream_id, data):
                self.exchanges.receive_from_upstream(data)
                self.answer += self.exchanges.data_for_visitor()
                if self.exchanges.phase is Phase.IDLE:
                    self.session.send_eof(stream_id)


class RecordedClient:
    """Our client with the recorded server, and a service that says what the recorded one said."""

    def __init__(self) -> None:
        self.answer = ConnectAnswer()
        self.session = YamuxSession(client=True)
        self.greeting = Greeting(GREETING_ANSWER)
        self.lines = message_reader()
        self.output = tunnel_request("t.localhost:9605")
        self.open = False
        self.request = b""

    def receive(self, data: bytes) -> None:
        if not self.open:
            if self.answer.receive_data(data) is None:
                return
            self.open = True
            self.session.send_data(self.session.open_stream(), GREETING)
            data = self.answer.leftover
        for event in self.session.receive_data(data):
            self._take(event)
        self.output += output(self.session)

    def _take(self, event: object) -> None:
        match event:
            case DataReceived(1, data):
                if self.greeting.receive_data(data):
                    for line in self.lines.feed(self.greeting.leftover):
                        assert parse_message(line) == VisitorComing(websocket=False)
                        self.session.open_stream()
                    self.greeting.leftover = b""
            case DataReceived(stream_id, data):
                self.request += data
                if self.request == REQUEST:
                    for part in recorded_response():
                        self.session.send_data(stream_id, part)
            case HalfClosed(stream_id):
                self.session.send_eof(stream_id)


def check_server(pieces: Iterable[bytes]) -> None:
    server = RecordedServer()
    for piece in pieces:
        server.receive(piece)
    # To the byte what the original said.
    assert server.output == recorded("server")
    head, body = recorded_response()
    assert server.answer.startswith(b"HTTP/1.1 200 OK\r\nServer: SimpleHTTP/0.6")
    assert server.answer.endswith(b"\r\n\r\nhello\n")
    assert body == b"hello\n"
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")


def check_client(pieces: Iterable[bytes]) -> None:
    client = RecordedClient()
    for piece in pieces:
        client.receive(piece)
    assert client.request == REQUEST
    assert client.output == recorded("client").replace(b"User-Agent: Go-http-client/1.1\r\n", b"")


def test_the_server_reads_the_recorded_client_the_same_split_at_every_offset() -> None:
    for pieces in every_split(recorded("client")):
        check_server(pieces)


def server_parts() -> tuple[bytes, bytes]:
    """What the recorded server said up to its line, and what it said after the client had opened a stream for it."""
    told, line, rest = recorded("server").partition(encode_message(VisitorComing()))
    return told + line, rest


def test_the_client_reads_the_recorded_server_the_same_split_at_every_offset() -> None:
    before, after = server_parts()
    for pieces in every_split(before):
        check_client([*pieces, after])
    for pieces in every_split(after):
        check_client([before, *pieces])


@given(OFFSETS)
def test_the_recording_is_read_the_same_in_any_pieces(offsets: list[int]) -> None:
    check_server(cut(recorded("client"), offsets))
    before, after = server_parts()
    check_client([*cut(before, offsets), *cut(after, offsets)])


# -- the server --------------------------------------------------------------------------------------------------------


def asked(data: bytes) -> tuple[TunnelServerHandshake, object]:
    handshake = TunnelServerHandshake()
    (event,) = handshake.receive_data(data)
    return handshake, event


@pytest.mark.parametrize("first", [tunnel_request(HOST), data_request(HOST, KEY), recorded("client")])
def test_a_tunnel_client_is_told_from_a_visitor_by_its_first_bytes(first: bytes) -> None:
    assert is_tunnel(first)
    assert is_tunnel(first[:10])
    assert is_tunnel(first[:9]) is None


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n", b"CONNECT a:443 HTTP/1.1", b"CONNECTX", b"connect /_", b"\x16\x03"]
)
def test_a_visitor_is_not_taken_for_a_tunnel_client(first: bytes) -> None:
    assert is_tunnel(first) is False


def test_a_url_that_ends_in_a_slash_is_asked_for_as_the_originals_client_does() -> None:
    first = b"CONNECT //_connectPath HTTP/1.1\r\nHost: localhost:9000\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
    assert is_tunnel(first)
    assert is_tunnel(first[:10]) is None
    for pieces in every_split(first):
        handshake = TunnelServerHandshake()
        (event,) = [event for piece in pieces for event in handshake.receive_data(piece)]
        assert isinstance(event, TunnelAsked)
        assert event.name == "localhost"


def test_nothing_is_known_of_a_connection_that_has_said_nothing() -> None:
    assert is_tunnel(b"") is None


def test_an_empty_line_before_a_clients_request_is_ignored_and_a_bare_lf_is_not() -> None:
    first = b"\r\n" + tunnel_request(HOST)
    assert is_tunnel(first)
    for pieces in every_split(first):
        handshake = TunnelServerHandshake()
        (event,) = [event for piece in pieces for event in handshake.receive_data(piece)]
        assert isinstance(event, TunnelAsked)
    assert [is_tunnel(first[:count]) for count in range(5)] == [None] * 5
    assert is_tunnel(b"\r\nGET / HTTP/1.1\r\n") is False
    assert is_tunnel(b"\r\r") is False
    assert is_tunnel(b"\n" + tunnel_request(HOST)) is False
    assert is_tunnel(b"\r\n" + first) is False


def test_a_tunnel_is_asked_for_with_all_that_we_add() -> None:
    data = tunnel_request("APP.example.net:8080", token="s3cret", spare=4)
    for pieces in every_split(data):
        handshake = TunnelServerHandshake()
        (event,) = [event for piece in pieces for event in handshake.receive_data(piece)]
        assert isinstance(event, TunnelAsked)
        assert (event.host, event.name) == ("APP.example.net:8080", "app.example.net")
        assert (event.token, event.native, event.spare) == ("s3cret", True, 4)
        assert event.head.method == "CONNECT"
        handshake.receive_eof()


def test_a_key_goes_only_to_a_client_that_takes_data_connections() -> None:
    for spare in (None, 0, 4):
        handshake, _ = asked(tunnel_request(HOST, spare=spare))
        handshake.accept(KEY)
        said = handshake.data_to_send()
        assert (KEY.hex().encode() in said) is (spare is not None)
        assert spare is not None or said == ESTABLISHED


def test_a_server_may_take_no_data_connections() -> None:
    handshake, _ = asked(tunnel_request(HOST, spare=4))
    handshake.accept()
    assert handshake.data_to_send() == ESTABLISHED


def test_a_data_connection_shows_its_key() -> None:
    for pieces in every_split(data_request(HOST, KEY)):
        handshake = TunnelServerHandshake()
        assert [event for piece in pieces for event in handshake.receive_data(piece)] == [DataOffered(KEY)]
        handshake.accept()
        assert handshake.data_to_send() == ESTABLISHED


def test_what_comes_behind_the_request_is_kept() -> None:
    handshake, _ = asked(tunnel_request(HOST) + b"ya")
    handshake.receive_data(b"mux")
    handshake.accept()
    assert handshake.leftover == b"yamux"
    with pytest.raises(ProtocolError, match="before the channel was open"):
        handshake.receive_data(bytes(MAX_EARLY_DATA))


def test_a_refused_client_reads_the_reason_as_the_original_has_it() -> None:
    handshake, _ = asked(tunnel_request(HOST))
    handshake.refuse(400, "a tunnel for this host exists already")
    assert handshake.data_to_send() == (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"Content-Length: 38\r\nConnection: close\r\n\r\na tunnel for this host exists already\n"
    )
    assert handshake.receive_data(b"more") == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /_connectPath HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"CONNECT /_connectPath HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT /_connectPath HTTP/1.0\r\n\r\n", 400),
        (b"CONNECT /_connectPath HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"CONNECT /_connectPath HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400),
        (b"CONNECT /_connectPath HTTP/1.1\r\nHost: a\r\nTunnelConsole-Spare: 257\r\n\r\n", 400),
        (b"CONNECT /_connectPath HTTP/1.1\r\nHost: a\r\nTunnelConsole-Spare: -1\r\n\r\n", 400),
        (b"CONNECT /_connectPath HTTP/1.1\nHost: a\n\n", 400),
        (b"CONNECT /_connectPath HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT /_other HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"CONNECT /_connectPath HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431),
        (b"CONNECT /_data HTTP/1.1\r\nHost: a\r\n\r\n", 403),
        (b"CONNECT /_data HTTP/1.1\r\nHost: a\r\nTunnelConsole-Key: 00\r\n\r\n", 403),
        (b"CONNECT /_data HTTP/1.1\r\nHost: a\r\nTunnelConsole-Key: " + b"zz" * 32 + b"\r\n\r\n", 403),
        (b"CONNECT /_data HTTP/1.1\r\nHost: a\r\nTunnelConsole-Key: " + b" 0" * 32 + b"\r\n\r\n", 403),
    ],
)
def test_any_other_request_is_refused(data: bytes, status: int) -> None:
    for pieces in every_split(data) if len(data) < 1000 else [[data]]:
        handshake = TunnelServerHandshake()
        (event,) = [event for piece in pieces for event in handshake.receive_data(piece)]
        assert isinstance(event, Rejected)
        assert event.status == status
        assert handshake.data_to_send().startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    ("line", "token"),
    [
        (b"Authorization: bearer  s3cret", "s3cret"),
        (b"Authorization: Basic s3cret", ""),
        (b"Authorization: Bearer", ""),
        (b"Authorization: Bearer a b", ""),
        (b"Authorization: Bearer a\r\nAuthorization: Bearer b", ""),
    ],
)
def test_a_token_is_read_only_where_it_is_plainly_one(line: bytes, token: str) -> None:
    _, event = asked(b"CONNECT /_connectPath HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")
    assert isinstance(event, TunnelAsked)
    assert event.token == token


def test_no_secret_shows_in_what_may_be_logged() -> None:
    _, event = asked(tunnel_request(HOST, token="5ec7e7"))
    assert "5ec7e7" not in repr(event)
    for shown in (repr(DataOffered(KEY)), repr(Established(KEY))):
        assert KEY.hex()[:8] not in shown
        assert repr(KEY)[2:8] not in shown


def test_the_service_cannot_answer_twice_or_too_early() -> None:
    handshake = TunnelServerHandshake()
    with pytest.raises(RuntimeError):
        handshake.accept()
    handshake.receive_data(tunnel_request(HOST))
    handshake.accept()
    with pytest.raises(RuntimeError):
        handshake.accept()
    with pytest.raises(RuntimeError):
        handshake.refuse(400, "late")


def test_a_client_that_closes_within_its_request_broke_the_protocol() -> None:
    handshake = TunnelServerHandshake()
    handshake.receive_data(tunnel_request(HOST)[:-1])
    with pytest.raises(ProtocolError, match="before its request for a tunnel was complete"):
        handshake.receive_eof()


def test_a_slow_client_can_be_refused_before_its_request_is_complete() -> None:
    handshake = TunnelServerHandshake()
    handshake.receive_data(b"CONN")
    handshake.refuse(408, "too slow")
    assert handshake.data_to_send().startswith(b"HTTP/1.1 408 ")


# -- the client --------------------------------------------------------------------------------------------------------


def told(pieces: Iterable[bytes]) -> tuple[ClientEvent | None, bytes]:
    """What the client makes of an answer, and what it kept behind it."""
    answer = ConnectAnswer()
    event = None
    for piece in pieces:
        event = answer.receive_data(piece)
    return event, answer.leftover


def test_the_client_says_no_more_than_it_has_to() -> None:
    assert tunnel_request(HOST) == b"CONNECT /_connectPath HTTP/1.1\r\nHost: app.example.net:8080\r\n\r\n"


@pytest.mark.parametrize("host", ["", "a b", "a\r\nX: y", "u@a", "a" * 300])
def test_a_host_that_cannot_stand_in_a_head_is_not_sent(host: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        tunnel_request(host)
    with pytest.raises(ValueError, match="not a host name"):
        data_request(host, KEY)


@pytest.mark.parametrize("token", ["s3 cret", "s3cret\r\nX: y", "s3cret\u00e9", "s3cret\x00"])
def test_a_token_that_cannot_stand_in_a_head_is_not_sent_nor_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="the token holds") as caught:
        tunnel_request(HOST, token=token)
    assert "s3" not in str(caught.value)


def test_a_key_of_another_length_is_not_sent() -> None:
    handshake, _ = asked(tunnel_request(HOST, spare=4))
    with pytest.raises(ValueError, match="32 bytes"):
        handshake.accept(KEY[:-1])
    with pytest.raises(ValueError, match="32 bytes"):
        data_request(HOST, KEY[:-1])


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_original_server_says_yes_in_any_pieces(line_end: bytes) -> None:
    for pieces in every_split(ESTABLISHED.replace(b"\n", line_end) + b"\x00\x01"):
        assert told(pieces) == (Established(None), b"\x00\x01")


def test_our_server_says_yes_with_a_key_in_any_pieces() -> None:
    handshake, _ = asked(tunnel_request(HOST, spare=0))
    handshake.accept(KEY)
    for pieces in every_split(handshake.data_to_send() + b"\x00\x01"):
        assert told(pieces) == (Established(KEY), b"\x00\x01")


def test_more_behind_the_answer_than_the_limit_is_a_protocol_error() -> None:
    answer = ConnectAnswer()
    answer.receive_data(ESTABLISHED)
    answer.receive_data(bytes(MAX_EARLY_DATA))
    with pytest.raises(ProtocolError, match="before the channel was open"):
        answer.receive_data(b"x")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"Content-Length: 18\r\n\r\nhost not  allowed\n", "host not allowed"),
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\nhost\r\n8\r\n not you\r\n0\r\n\r\n", "host not you"),
        (b"Content-Length: 0\r\n\r\n", "the tunnel server answered 400"),
        (b"Content-Length: 8\r\n\r\n\x1b[31mred", "?[31mred"),
        (b"Content-Length: 9999\r\n\r\n" + b"a" * (MAX_REASON + 9), "a" * MAX_REASON),
    ],
)
def test_a_refusal_is_read_with_its_reason_in_any_pieces(body: bytes, reason: str) -> None:
    for pieces in every_split(b"HTTP/1.1 400 Bad Request\r\n" + body):
        event, _ = told(pieces)
        assert event == Refused(400, reason)


def test_our_refusals_are_read_by_our_client() -> None:
    handshake, _ = asked(tunnel_request(HOST))
    handshake.refuse(403, "the token does not allow this host")
    assert told([handshake.data_to_send()])[0] == Refused(403, "the token does not allow this host")


def test_a_reason_may_end_with_the_connection() -> None:
    answer = ConnectAnswer()
    assert answer.receive_data(b"HTTP/1.0 400 Bad Request\n\nno tunnel exists already") is None
    assert answer.receive_eof() == Refused(400, "no tunnel exists already")
    assert answer.receive_data(b"more") == Refused(400, "no tunnel exists already")


def test_a_reason_that_breaks_off_is_better_than_none() -> None:
    answer = ConnectAnswer()
    answer.receive_data(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\nhost not")
    assert answer.receive_eof() == Refused(400, "host not")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 gotunnel established\n"])
def test_a_server_that_closes_before_its_answer_broke_the_protocol(sent: bytes) -> None:
    answer = ConnectAnswer()
    answer.receive_data(sent)
    with pytest.raises(ProtocolError, match="closed without an answer"):
        answer.receive_eof()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP/1"),
        (b"\x15\x03\x01\x00\x02", "does not speak HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not as a tunnel server"),
        (b"HTTP/1.1 xxx\r\n\r\n", "status line"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "is not one number"),
        (b"HTTP/1.1 200 gotunnel established\n" + b"X: a\n" * MAX_ANSWER_HEAD, "more than 4096 bytes"),
    ],
)
def test_another_kind_of_server_is_noticed(sent: bytes, reason: str) -> None:
    for pieces in every_split(sent) if len(sent) < 200 else [[sent]]:
        with pytest.raises(ProtocolError, match=reason):
            told(pieces)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_does_no_more_than_a_protocol_error(pieces: list[bytes]) -> None:
    for start in (b"", b"HTTP/1.1 400 x\r\n", b"HTTP/1.1 200 gotunnel established\n"):
        with suppress(ProtocolError):
            told([start, *pieces])
    handshake = TunnelServerHandshake()
    for piece in pieces:
        for event in handshake.receive_data(piece):
            assert isinstance(event, Rejected)


# -- stream 1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [GREETING, GREETING_ANSWER])
def test_a_greeting_is_read_in_any_pieces(expected: bytes) -> None:
    for pieces in every_split(expected + b'{"want":1}\n'):
        greeting = Greeting(expected)
        assert [greeting.receive_data(piece) for piece in pieces][-1]
        assert greeting.leftover == b'{"want":1}\n'


@pytest.mark.parametrize("offset", range(len(GREETING)))
def test_another_greeting_is_noticed_at_its_first_wrong_byte(offset: int) -> None:
    greeting = Greeting(GREETING)
    assert not greeting.receive_data(GREETING[:offset])
    with pytest.raises(ProtocolError, match="does not greet"):
        greeting.receive_data(b"\x00")


MESSAGES = st.one_of(
    st.booleans().map(VisitorComing),
    st.integers(1, MAX_WANTED).map(Want),
    st.text(max_size=MAX_CAUSE).map(Leave),
)


@given(MESSAGES)
def test_every_message_is_one_line_that_is_read_again(message: Message) -> None:
    line = encode_message(message)
    assert line.index(b"\n") == len(line) - 1
    assert parse_message(line[:-1]) == message
    assert len(line) <= MAX_LINE


def test_the_lines_are_what_the_documentation_shows() -> None:
    assert encode_message(VisitorComing()) == b'{"Type":1,"Action":5}\n'
    assert encode_message(VisitorComing(websocket=True)) == b'{"Type":3,"Action":5}\n'
    assert encode_message(Want(3)) == b'{"want":3}\n'
    assert encode_message(Leave("so")) == b'{"leave":"so"}\n'


def test_keys_that_are_not_known_are_ignored() -> None:
    assert parse_message(b'{"Action": 5, "Type": 3, "later": {}}') == VisitorComing(websocket=True)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"\xff",
        b"[" * 1000,
        b"[1]",
        b"{}",
        b'{"Type":1}',
        b'{"Type":2,"Action":5}',
        b'{"Type":1,"Action":4}',
        b'{"Type":true,"Action":5}',
        b'{"Type":1,"Action":5.0}',
        b'{"Type":"1","Action":5}',
        b'{"Type":[],"Action":5}',
        b'{"want":0}',
        b'{"want":257}',
        b'{"want":true}',
    ],
)
def test_any_other_line_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="line of the tunnel protocol"):
        parse_message(line)


def test_a_line_beyond_the_limit_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="a line of the tunnel protocol is longer than 1024 bytes"):
        message_reader().feed(b"x" * MAX_LINE)


def test_a_clients_line_says_whether_it_is_healthy() -> None:
    assert (encode_health(healthy=False), encode_health(healthy=True)) == (
        b'{"healthy":false}\n',
        b'{"healthy":true}\n',
    )
    for healthy in (True, False):
        (line,) = message_reader().feed(encode_health(healthy=healthy))
        assert parse_health(line) is healthy
    assert parse_health(b'{"later": {}, "healthy": true}') is True


@pytest.mark.parametrize("line", [b"{}", b"[]", b"1", b'{"healthy":1}', b'{"healthy":"no"}', b'{"later":true}'])
def test_a_clients_line_about_something_else_is_no_news(line: bytes) -> None:
    assert parse_health(line) is None


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"[" * 1000])
def test_a_clients_line_that_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="is not JSON"):
        parse_health(line)
