"""The exchanges of one visitor, beyond the table of cases: who leaves when, and what is told to whom."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnelconsole.engine.wire.http.exchange import (
    MAX_HELD,
    Event,
    ExchangeDone,
    Phase,
    RequestReady,
    RequestRefused,
    ResponseStarted,
    Upgraded,
    UpstreamFailed,
)
from wire.http.cases import CHUNKED, LENGTH, OK, POST, UPGRADE, Step, forwarded, head, request
from wire.http.stage import ADDRESS, Stage

GET = request()
POSTED = request(LENGTH, first=POST)
EXPECTING = request("Expect: 100-continue", LENGTH, first="PUT /form HTTP/1.1")
CONTINUE = head("HTTP/1.1 100 Continue")
CLOSE = b"\r\nConnection: close\r\n"


def asked(sent: bytes = GET) -> Stage:
    """A stage where a service has just got a request; no event is left."""
    stage = Stage()
    stage.visitor(sent)
    assert stage.kinds() == ["RequestReady"]
    return stage


def deciding(sent: bytes = GET) -> Stage:
    """A stage where a request waits; no event is left."""
    stage = Stage(decides=False)
    stage.visitor(sent)
    assert stage.kinds() == ["RequestReady"]
    return stage


def failed(stage: Stage) -> UpstreamFailed:
    """The only event, which must be the loss of an upstream; forgets it."""
    (event,) = stage.events
    assert isinstance(event, UpstreamFailed)
    stage.events.clear()
    return event


# -- a request ---------------------------------------------------------------------------------------------------------


def test_the_owner_is_told_whom_a_request_is_for() -> None:
    stage = Stage(decides=False)
    stage.visitor(request("Accept: */*", host="APP.example.net:8080"))
    (event,) = stage.events
    assert isinstance(event, RequestReady)
    assert event.host == "app.example.net"
    assert (event.target, event.upgrade) == ("/", False)
    assert event.head.fields[1] == ("Accept", "*/*")


def test_a_url_in_the_request_line_says_whom_it_is_for_and_what_is_asked() -> None:
    stage = Stage(decides=False)
    stage.visitor(request(first="GET http://app.example.net/a?b HTTP/1.1", host="other.example.net"))
    (event,) = stage.events
    assert isinstance(event, RequestReady)
    assert (event.host, event.target) == ("app.example.net", "/a?b")


def test_the_owner_is_told_that_a_websocket_is_asked_for() -> None:
    stage = Stage(decides=False)
    stage.visitor(UPGRADE.request)
    (event,) = stage.events
    assert isinstance(event, RequestReady)
    assert event.upgrade


def test_the_phases_tell_what_is_waited_for() -> None:
    stage = Stage(decides=False)
    phases = [stage.exchanges.phase]
    stage.visitor(GET[:5])
    phases.append(stage.exchanges.phase)
    stage.visitor(GET[5:])
    phases.append(stage.exchanges.phase)
    stage.forward()
    phases.append(stage.exchanges.phase)
    stage.service(OK)
    phases.append(stage.exchanges.phase)
    assert phases == [Phase.IDLE, Phase.HEAD, Phase.DECIDING, Phase.EXCHANGE, Phase.IDLE]


def test_nothing_is_sent_on_before_it_is_decided() -> None:
    stage = deciding(POSTED + b"he")
    stage.visitor(b"llo")
    assert stage.exchanges.data_for_upstream() == b""
    stage.forward()
    expected = Step(forwarded(first=POST, own=(LENGTH,)), b"").forwarded_from(ADDRESS, "http")
    assert stage.at_service == expected + b"hello"


def test_a_body_that_comes_before_the_decision_is_held_up_to_a_limit() -> None:
    stage = deciding(request(f"Content-Length: {10 * MAX_HELD}", first=POST))
    stage.visitor(bytes(MAX_HELD - 1))
    wanted = [stage.exchanges.wants_visitor_data]
    stage.visitor(b"x")
    wanted.append(stage.exchanges.wants_visitor_data)
    stage.forward()
    wanted.append(stage.exchanges.wants_visitor_data)
    assert wanted == [True, False, True]


def test_pipelined_requests_are_held_up_to_a_limit() -> None:
    stage = asked()
    stage.visitor(GET)
    wanted = [stage.exchanges.wants_visitor_data]
    stage.visitor(GET * (MAX_HELD // len(GET)))
    wanted.append(stage.exchanges.wants_visitor_data)
    assert wanted == [True, False]
    stage.service(OK)
    assert stage.kinds() == ["ResponseStarted", "ExchangeDone", "RequestReady"]


def test_a_request_can_be_forwarded_only_once_and_only_when_it_is_there() -> None:
    stage = Stage(decides=False)
    with pytest.raises(RuntimeError):
        stage.exchanges.forward()
    stage.visitor(GET)
    stage.forward()
    with pytest.raises(RuntimeError):
        stage.exchanges.forward()


def test_the_service_can_be_told_another_host_and_that_it_may_close() -> None:
    stage = deciding()
    stage.forward("localhost:3000", keep=False)
    assert b"\r\nHost: localhost:3000\r\n" in stage.at_service
    assert CLOSE in stage.at_service
    stage.service(OK)
    assert stage.at_visitor == OK
    assert stage.events[-1] == ExchangeDone(reusable=False)


# -- bodies pass as they come ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [CHUNKED, "Content-Length: 1000", "X-Framing: none"])
def test_an_answer_passes_as_it_comes(framing: str) -> None:
    stage = asked()
    stage.service(head("HTTP/1.1 200 OK", framing))
    assert stage.at_visitor.endswith(b"\r\n\r\n")
    stage.service(b"10\r\ndata: one" if framing == CHUNKED else b"data: one")
    assert b"data: one" in stage.at_visitor
    assert stage.exchanges.phase is Phase.EXCHANGE


@pytest.mark.parametrize("framing", [CHUNKED, "Content-Length: 1000"])
def test_a_request_passes_as_it_comes(framing: str) -> None:
    stage = asked(request(framing, first=POST))
    stage.visitor(b"10\r\none" if framing == CHUNKED else b"one")
    assert b"one" in stage.at_service
    assert not stage.exchanges.request_complete


def test_a_read_that_is_all_body_is_not_copied() -> None:
    stage = asked(request("Content-Length: 1000000", first=POST))
    stage.exchanges.receive_from_upstream(head("HTTP/1.1 200 OK", "Content-Length: 1000000"))
    stage.exchanges.data_for_visitor()
    data = bytes(1000)
    stage.exchanges.receive_from_upstream(data)
    assert stage.exchanges.data_for_visitor() is data
    stage.exchanges.receive_from_visitor(data)
    assert stage.exchanges.data_for_upstream() is data


def test_both_ways_at_once_pass_when_the_service_answers_early() -> None:
    stage = asked(request(CHUNKED, first=POST))
    stage.service(head("HTTP/1.1 200 OK", CHUNKED))
    stage.visitor(b"5\r\nhello\r\n")
    stage.service(b"5\r\nhello\r\n")
    stage.visitor(b"0\r\n\r\n")
    stage.service(b"0\r\n\r\n")
    assert stage.at_service.endswith(b"5\r\nhello\r\n0\r\n\r\n")
    assert stage.at_visitor == head("HTTP/1.1 200 OK", CHUNKED, "Connection: close") + b"5\r\nhello\r\n0\r\n\r\n"
    assert stage.exchanges.over
    assert not stage.exchanges.broken


def test_whoever_looks_sees_the_bodies_without_their_chunks() -> None:
    stage = Stage()
    seen: list[bytes] = []
    stage.exchanges.look(seen.append, seen.append)
    stage.visitor(request(CHUNKED, first=POST) + b"5\r\nhello\r\n0\r\n\r\n")
    stage.service(head("HTTP/1.1 200 OK", CHUNKED) + b"6\r\nanswer\r\n")
    assert seen == [b"hello", b"answer"]
    stage.exchanges.look(None, None)
    stage.service(b"4\r\nmore\r\n0\r\n\r\n")
    assert seen == [b"hello", b"answer"]
    assert (stage.exchanges.request_bytes, stage.exchanges.response_bytes) == (5, 10)


def test_who_begins_to_look_in_the_middle_sees_the_rest() -> None:
    stage = asked(POSTED + b"he")
    stage.service(head("HTTP/1.1 200 OK", LENGTH) + b"wor")
    seen: list[bytes] = []
    stage.exchanges.look(seen.append, seen.append)
    stage.visitor(b"llo")
    stage.service(b"ld")
    assert seen == [b"llo", b"ld"]


def test_sizes_are_those_of_the_last_exchange() -> None:
    stage = asked(POSTED + b"hello")
    stage.service(OK)
    assert (stage.exchanges.request_bytes, stage.exchanges.response_bytes) == (5, 2)
    stage.visitor(GET)
    assert (stage.exchanges.request_bytes, stage.exchanges.response_bytes) == (0, 0)


# -- bytes that go past ------------------------------------------------------------------------------------------------


def test_bytes_of_known_number_can_go_past_both_ways() -> None:
    stage = asked(POSTED + b"he")
    assert stage.exchanges.direct_to_upstream == 3
    stage.exchanges.moved_to_upstream(3)
    assert stage.exchanges.request_complete
    assert stage.exchanges.direct_to_upstream == 0
    stage.service(head("HTTP/1.1 200 OK", "Content-Length: 10") + b"world")
    assert stage.exchanges.direct_to_visitor == 5
    stage.take(stage.exchanges.moved_to_visitor(4))
    assert stage.exchanges.direct_to_visitor == 1
    stage.take(stage.exchanges.moved_to_visitor(1))
    assert stage.events[-1] == ExchangeDone(reusable=True)
    assert (stage.exchanges.request_bytes, stage.exchanges.response_bytes) == (5, 10)
    assert stage.exchanges.direct_to_visitor == 0
    stage.visitor(GET)
    assert stage.kinds()[-1] == "RequestReady"


def test_bytes_until_the_end_can_go_past_to_http_1_0() -> None:
    stage = asked(request(first="GET / HTTP/1.0"))
    stage.service(head("HTTP/1.1 200 OK"))
    assert stage.exchanges.direct_to_visitor == sys.maxsize
    stage.take(stage.exchanges.moved_to_visitor(1000))
    assert stage.exchanges.direct_to_visitor == sys.maxsize
    stage.take(stage.exchanges.upstream_ended())
    assert stage.events[-1] == ExchangeDone(reusable=False)
    assert stage.exchanges.response_bytes == 1000


@pytest.mark.parametrize("lines", [[CHUNKED], []])
def test_bytes_that_are_framed_again_do_not_go_past(lines: list[str]) -> None:
    stage = asked()
    stage.service(head("HTTP/1.1 200 OK", *lines))
    assert stage.exchanges.direct_to_visitor == 0


def test_bytes_that_somebody_looks_at_do_not_go_past() -> None:
    stage = asked(POSTED)
    stage.exchanges.look(print, print)
    stage.service(head("HTTP/1.1 200 OK", LENGTH))
    assert (stage.exchanges.direct_to_upstream, stage.exchanges.direct_to_visitor) == (0, 0)
    stage.exchanges.look(None, None)
    assert (stage.exchanges.direct_to_upstream, stage.exchanges.direct_to_visitor) == (5, 5)


# -- answers before their time -----------------------------------------------------------------------------------------


def test_a_100_of_the_service_reaches_the_visitor_before_its_body_comes() -> None:
    stage = asked(EXPECTING)
    stage.service(CONTINUE)
    assert stage.at_visitor == CONTINUE
    stage.visitor(b"hello")
    assert stage.at_service.endswith(b"\r\n\r\nhello")
    stage.service(OK)
    assert stage.at_visitor == CONTINUE + OK
    assert stage.exchanges.phase is Phase.IDLE


def test_a_final_answer_in_place_of_100_reaches_the_visitor_and_closes() -> None:
    stage = asked(EXPECTING)
    stage.service(head("HTTP/1.1 401 Unauthorized", "Content-Length: 0"))
    assert stage.at_visitor == head("HTTP/1.1 401 Unauthorized", "Content-Length: 0", "Connection: close")
    assert stage.kinds() == ["ResponseStarted", "ExchangeDone"]
    assert stage.exchanges.over
    assert not stage.exchanges.broken


def test_what_is_left_of_a_body_after_its_answer_is_dropped() -> None:
    stage = asked(POSTED + b"he")
    got = stage.at_service
    stage.service(head("HTTP/1.1 413 Too Large", "Content-Length: 0"))
    assert stage.events[-1] == ExchangeDone(reusable=False)
    stage.visitor(b"llo" + GET)
    assert stage.at_service == got
    assert not stage.exchanges.wants_visitor_data


def test_a_service_that_takes_no_more_can_still_answer() -> None:
    stage = asked(POSTED + b"he")
    got = stage.at_service
    stage.exchanges.upstream_deaf()
    stage.visitor(b"llo")
    assert stage.at_service == got
    assert stage.exchanges.direct_to_upstream == 0
    stage.service(OK)
    assert stage.at_visitor == OK
    assert stage.events[-1] == ExchangeDone(reusable=False)


# -- a service that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
def test_a_request_that_may_be_repeated_can_go_to_another_service(method: str) -> None:
    stage = asked(request(first=f"{method} / HTTP/1.1"))
    stage.take(stage.exchanges.upstream_ended())
    assert failed(stage).retryable
    stage.forward()
    assert stage.at_services[0] == stage.at_services[1]
    stage.service(head("HTTP/1.1 200 OK", "Content-Length: 0"))
    assert stage.kinds() == ["ResponseStarted", "ExchangeDone"]
    assert stage.exchanges.phase is Phase.IDLE


@pytest.mark.parametrize("method", ["POST", "PATCH", "get"])
def test_any_other_request_is_not_repeated(method: str) -> None:
    stage = asked(request(first=f"{method} / HTTP/1.1"))
    stage.take(stage.exchanges.upstream_lost("it was reset"))
    assert failed(stage) == UpstreamFailed("it was reset", retryable=False)


def test_a_request_whose_body_nobody_has_taken_can_go_to_another_service() -> None:
    stage = asked(EXPECTING)
    stage.take(stage.exchanges.upstream_lost("it was reset"))
    assert failed(stage).retryable
    stage.visitor(b"hello")
    stage.forward()
    assert stage.at_service.endswith(b"hello")


def test_a_request_of_whose_body_something_is_gone_is_not_repeated() -> None:
    stage = asked(EXPECTING + b"h")
    stage.take(stage.exchanges.upstream_lost("it was reset"))
    assert not failed(stage).retryable
    with pytest.raises(RuntimeError):
        stage.exchanges.forward()
    stage.take(stage.exchanges.answer(502, "the local service refuses"))
    assert stage.at_visitor.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert CLOSE in stage.at_visitor
    assert stage.exchanges.over


@pytest.mark.parametrize("said", [b"H", CONTINUE, b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_service_that_has_said_anything_had_the_request(said: bytes) -> None:
    stage = asked()
    stage.service(said)
    stage.take(stage.exchanges.upstream_ended())
    assert failed(stage) == UpstreamFailed("the service closed in the middle of its answer", retryable=False)
    stage.take(stage.exchanges.answer(502, "the local service failed"))
    assert b"HTTP/1.1 502 " in stage.at_visitor
    assert CLOSE not in stage.at_visitor
    assert stage.exchanges.phase is Phase.IDLE
    stage.visitor(GET)
    stage.service(OK)
    assert stage.at_visitor.endswith(OK)


@pytest.mark.parametrize("sent", [head("HTTP/1.1 200 OK", CHUNKED) + b"5\r\nhello\r\n", OK[:-1]])
def test_an_answer_that_breaks_off_never_looks_complete(sent: bytes) -> None:
    stage = asked()
    stage.service(sent)
    stage.kinds()
    stage.take(stage.exchanges.upstream_ended())
    assert stage.done().error == "the service closed in the middle of its answer"
    assert not stage.at_visitor.endswith((b"0\r\n\r\n", b"ok"))
    assert stage.exchanges.broken
    assert stage.exchanges.over


def test_a_broken_connection_does_not_end_an_answer_properly() -> None:
    stage = asked()
    stage.service(head("HTTP/1.1 200 OK") + b"hello")
    stage.kinds()
    stage.take(stage.exchanges.upstream_lost("it was reset"))
    assert stage.done() == ExchangeDone(reusable=False, error="it was reset")
    assert not stage.at_visitor.endswith(b"0\r\n\r\n")
    assert stage.exchanges.broken


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not begin with a status line"),
        (b"HTTP/1.1 200 OK\nServer: x\n\n", "ends in LF alone"),
        (head("HTTP/1.1 200 OK", LENGTH, CHUNKED), "both a Content-Length and a Transfer-Encoding"),
        (head("HTTP/1.1 200 OK", LENGTH, LENGTH), "is not one number"),
        (head("HTTP/1.1 200 OK", "X: " + "a" * 40_000), "has more than 32768 bytes"),
        (UPGRADE.steps[0].response, "a protocol that it was not asked for"),
    ],
)
def test_an_answer_that_makes_no_sense_is_no_answer(answer: bytes, reason: str) -> None:
    stage = asked()
    stage.service(answer)
    failure = failed(stage)
    assert reason in failure.reason
    assert not failure.retryable
    assert stage.at_visitor == b""
    stage.take(stage.exchanges.answer(502, failure.reason))
    assert failure.reason.encode() in stage.at_visitor


def test_an_upgrade_to_something_else_is_no_answer() -> None:
    stage = asked(UPGRADE.request)
    stage.service(head("HTTP/1.1 101 Switching Protocols", "Upgrade: h2c", "Connection: Upgrade"))
    assert "not asked for" in failed(stage).reason


@pytest.mark.parametrize("body", [b"5\r\nhelloXX", b"x\r\n", b"5\nhello"])
def test_chunks_of_an_answer_that_make_no_sense_cut_it_off(body: bytes) -> None:
    stage = asked()
    stage.service(head("HTTP/1.1 200 OK", CHUNKED) + body)
    assert stage.kinds() == ["ResponseStarted", "ExchangeDone"]
    assert stage.exchanges.broken


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        ("GET / HTTP/1.1", OK),
        ("HEAD / HTTP/1.1", head("HTTP/1.1 200 OK", LENGTH)),
        ("GET / HTTP/1.1", head("HTTP/1.1 204 No Content")),
        ("GET / HTTP/1.1", head("HTTP/1.1 304 Not Modified", LENGTH)),
        ("GET / HTTP/1.1", head("HTTP/1.1 200 OK", CHUNKED) + b"0\r\n\r\n"),
    ],
)
def test_what_a_service_says_beyond_its_answer_reaches_nobody(first: str, answer: bytes) -> None:
    for behind in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"):
        stage = asked(request(first=first))
        stage.service(answer + behind)
        assert stage.events[-1] == ExchangeDone(reusable=not behind)
        assert stage.at_visitor == answer


@pytest.mark.parametrize(
    ("answer", "reusable"),
    [
        (OK, True),
        (head("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 0"), False),
        (head("HTTP/1.0 200 OK", "Content-Length: 0"), False),
        (head("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 0"), True),
    ],
)
def test_a_service_can_be_used_again_if_it_says_so(answer: bytes, reusable: bool) -> None:
    stage = asked()
    stage.service(answer)
    assert stage.events[-1] == ExchangeDone(reusable)


def test_what_a_service_says_when_it_was_not_asked_is_not_taken() -> None:
    stage = asked()
    stage.service(OK)
    stage.kinds()
    stage.service(OK)
    stage.take(stage.exchanges.upstream_ended())
    stage.take(stage.exchanges.upstream_lost("it was reset"))
    assert stage.events == []
    assert stage.at_visitor == OK


# -- a visitor that leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GE", GET[:-1]])
def test_a_visitor_may_leave_between_requests_and_in_a_head(sent: bytes) -> None:
    stage = Stage()
    stage.visitor(sent)
    stage.take(stage.exchanges.visitor_ended())
    assert stage.events == []
    assert stage.exchanges.over
    assert stage.at_visitor == b""


def test_a_visitor_that_has_said_all_is_answered() -> None:
    stage = asked()
    stage.take(stage.exchanges.visitor_ended())
    assert stage.events == []
    stage.service(OK)
    assert stage.at_visitor == OK
    assert stage.exchanges.over
    assert not stage.exchanges.broken


def test_a_visitor_that_has_said_all_gets_the_answers_to_all() -> None:
    stage = asked(GET + GET + GET[:9])
    stage.take(stage.exchanges.visitor_ended())
    stage.service(OK)
    assert stage.exchanges.phase is Phase.EXCHANGE
    stage.service(OK)
    assert stage.at_visitor == OK + OK
    assert stage.exchanges.over


@pytest.mark.parametrize("sent", [POSTED, POSTED + b"hell", request(CHUNKED, first=POST) + b"5\r\nhello\r\n"])
def test_a_visitor_that_leaves_in_its_body_takes_the_request_with_it(sent: bytes) -> None:
    stage = asked(sent)
    stage.take(stage.exchanges.visitor_ended())
    assert stage.done() == ExchangeDone(False, "the visitor left before the exchange was complete")
    assert stage.exchanges.broken


def test_a_visitor_that_left_in_its_body_before_the_decision_is_noticed_then() -> None:
    stage = deciding(POSTED + b"hell")
    stage.take(stage.exchanges.visitor_ended())
    assert stage.events == []
    stage.forward()
    assert stage.done().error
    assert stage.exchanges.broken


def test_a_visitor_that_left_before_the_decision_is_answered_if_its_request_was_complete() -> None:
    stage = deciding(POSTED + b"hello")
    stage.take(stage.exchanges.visitor_ended())
    stage.forward()
    stage.service(OK)
    assert stage.at_visitor == OK
    assert stage.exchanges.over


def test_a_broken_visitor_ends_its_exchange() -> None:
    stage = asked()
    stage.service(OK[:-1])
    stage.kinds()
    stage.take(stage.exchanges.visitor_lost())
    assert not stage.done().reusable
    assert stage.exchanges.over
    stage.take(stage.exchanges.visitor_lost())
    assert stage.events == []


# -- a visitor that breaks the rules -----------------------------------------------------------------------------------


def test_a_bad_body_is_answered_while_the_service_has_not() -> None:
    stage = asked(request(CHUNKED, first=POST) + b"5\r\nhello\r\n")
    stage.visitor(b"x\r\n")
    assert stage.kinds() == ["ExchangeDone", "RequestRefused"]
    assert stage.at_visitor.startswith(b"HTTP/1.1 400 ")
    assert not stage.exchanges.broken


def test_a_bad_body_cuts_off_an_answer_that_has_begun() -> None:
    stage = asked(request(CHUNKED, first=POST) + b"5\r\nhello\r\n")
    stage.service(head("HTTP/1.1 200 OK", LENGTH) + b"wo")
    got = stage.at_visitor
    stage.visitor(b"x\r\n")
    assert stage.kinds() == ["ResponseStarted", "ExchangeDone", "RequestRefused"]
    assert stage.at_visitor == got
    assert stage.exchanges.broken


def test_the_refusal_of_a_head_request_has_no_body() -> None:
    stage = asked(request(CHUNKED, first="HEAD / HTTP/1.1"))
    stage.visitor(b"x\r\n")
    assert stage.at_visitor.startswith(b"HTTP/1.1 400 ")
    assert stage.at_visitor.endswith(b"\r\n\r\n")


# -- our own answers ---------------------------------------------------------------------------------------------------


def test_a_request_can_be_answered_without_a_service_and_the_next_one_comes() -> None:
    stage = deciding(GET + request(first="HEAD /2 HTTP/1.1"))
    stage.take(stage.exchanges.answer(404, "no tunnel exists for this host"))
    assert stage.at_visitor.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert stage.at_visitor.endswith(b"\r\n\r\n404 Not Found\n\nno tunnel exists for this host\n")
    assert CLOSE not in stage.at_visitor
    assert stage.kinds() == ["RequestReady"]
    stage.at_visitor = b""
    stage.take(stage.exchanges.answer(429, "too many requests", [("Retry-After", "1")]))
    assert b"\r\nRetry-After: 1\r\n" in stage.at_visitor
    assert stage.at_visitor.endswith(b"\r\n\r\n")
    assert stage.exchanges.phase is Phase.IDLE


@pytest.mark.parametrize("body", [b"", b"he", b"hello"])
def test_an_answer_to_a_request_whose_body_was_not_taken_closes(body: bytes) -> None:
    stage = deciding(POSTED + body)
    stage.take(stage.exchanges.answer(404, "no tunnel exists for this host"))
    assert CLOSE in stage.at_visitor
    assert stage.exchanges.over


@pytest.mark.parametrize(("lines", "field"), [([], "close"), (["Connection: keep-alive"], "keep-alive")])
def test_an_answer_tells_http_1_0_whether_it_may_go_on(lines: list[str], field: str) -> None:
    stage = deciding(request(*lines, first="GET / HTTP/1.0"))
    stage.take(stage.exchanges.answer(404, "no tunnel exists for this host"))
    assert f"\r\nConnection: {field}\r\n".encode() in stage.at_visitor
    assert stage.exchanges.over is (field == "close")


def test_a_service_that_is_too_slow_can_be_answered_for() -> None:
    stage = asked()
    stage.take(stage.exchanges.answer(504, "the local service did not answer within 60 s"))
    assert stage.done() == ExchangeDone(False, "the local service did not answer within 60 s")
    assert stage.at_visitor.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    stage.service(OK)
    assert stage.events == []
    stage.visitor(GET)
    stage.service(OK)
    assert stage.at_visitor.endswith(OK)


def test_a_visitor_that_is_too_slow_can_be_told_so() -> None:
    stage = asked()
    stage.service(OK)
    stage.visitor(GET[:9])
    stage.kinds()
    stage.take(stage.exchanges.answer(408, "the request did not come within 10 s"))
    assert stage.at_visitor.startswith(OK + b"HTTP/1.1 408 Request Timeout\r\n")
    assert CLOSE in stage.at_visitor
    assert stage.exchanges.over


def test_nothing_can_be_answered_where_nothing_was_asked_or_an_answer_has_begun() -> None:
    stage = Stage()
    with pytest.raises(RuntimeError):
        stage.exchanges.answer(404, "no")
    stage.visitor(GET)
    stage.service(OK[:-1])
    assert stage.exchanges.response_begun
    with pytest.raises(RuntimeError):
        stage.exchanges.answer(404, "no")
    stage.service(OK[-1:])
    assert not stage.exchanges.response_begun


# -- the last exchange -------------------------------------------------------------------------------------------------


def test_a_connection_between_requests_can_be_finished_at_once() -> None:
    stage = Stage()
    stage.exchanges.finish()
    assert stage.exchanges.over
    assert not stage.exchanges.wants_visitor_data


def test_a_connection_is_finished_behind_the_answer_that_is_under_way() -> None:
    stage = asked(GET + GET)
    stage.exchanges.finish()
    stage.service(OK)
    assert CLOSE in stage.at_visitor
    assert stage.kinds() == ["ResponseStarted", "ExchangeDone"]
    assert stage.exchanges.over


def test_a_connection_whose_answer_has_begun_is_finished_behind_it() -> None:
    stage = asked()
    stage.service(OK[:-1])
    stage.exchanges.finish()
    stage.service(OK[-1:])
    assert stage.at_visitor == OK
    assert stage.exchanges.over


def test_our_own_answer_can_be_the_last() -> None:
    stage = deciding()
    stage.exchanges.finish()
    stage.take(stage.exchanges.answer(503, "the server stops"))
    assert CLOSE in stage.at_visitor
    assert stage.exchanges.over


# -- whatever comes ----------------------------------------------------------------------------------------------------

_WORDS = (
    GET,
    POSTED,
    EXPECTING,
    UPGRADE.request,
    request(CHUNKED, first=POST),
    request(first="HEAD / HTTP/1.0"),
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"\r\n",
    b"\n",
    OK,
    CONTINUE,
    UPGRADE.steps[0].response,
    head("HTTP/1.1 200 OK", CHUNKED),
    head("HTTP/1.0 200 OK"),
    head("HTTP/1.1 204 No Content"),
)
_ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["visitor", "service"]), st.sampled_from(_WORDS)),
    st.tuples(st.sampled_from(["visitor", "service"]), st.binary(max_size=20)),
    st.tuples(
        st.sampled_from(["visitor_ended", "visitor_lost", "upstream_ended", "deaf", "finish", "answer"]), st.none()
    ),
)


@settings(max_examples=400)
@given(st.lists(_ACTIONS, max_size=12))
def test_whatever_comes_each_exchange_ends_once_and_nothing_is_raised(actions: list[tuple[str, bytes | None]]) -> None:
    stage = Stage()
    for name, data in actions:
        exchanges = stage.exchanges
        if name in ("visitor", "service") and data is not None:
            getattr(stage, name)(data)
        elif name == "deaf":
            exchanges.upstream_deaf()
        elif name == "finish":
            exchanges.finish()
        elif name != "answer":
            stage.take(getattr(exchanges, name)())
        if exchanges.phase is Phase.DECIDING and (name == "answer" or _failed_for_good(stage.events)):
            stage.take(exchanges.answer(502, "the service failed"))
        elif exchanges.phase is Phase.DECIDING:
            stage.forward()
    _check_ends(stage)


def _failed_for_good(events: list[Event]) -> bool:
    return bool(events) and events[-1] == UpstreamFailed(getattr(events[-1], "reason", ""), retryable=False)


def _check_ends(stage: Stage) -> None:
    """Between two forwards lies exactly one end, and one is missing only while an upstream is in use."""
    ends = sum(isinstance(event, ExchangeDone | UpstreamFailed | Upgraded) for event in stage.events)
    assert len(stage.at_services) - ends == (stage.exchanges.phase is Phase.EXCHANGE)
    begun = sum(isinstance(event, ResponseStarted) for event in stage.events)
    assert begun <= len(stage.at_services)
    assert sum(isinstance(event, RequestRefused) for event in stage.events) <= 1
    if stage.exchanges.phase is Phase.EXCHANGE:
        assert not stage.exchanges.broken
