"""The table of HTTP cases, through the state machine of a visitor's exchanges."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnelconsole.engine.wire.http.exchange import ExchangeDone, Phase, RequestRefused, ResponseStarted, Upgraded
from wire.http.cases import BAD_CHUNKS, BAD_HEADS, PASSED, REFUSED, SMUGGLING, UPGRADE, Passed, Refused, merged
from wire.http.stage import ADDRESS, Stage, play
from wire_transcripts import cut, every_split

LONG = 3000
"""Bytes of a request beyond which it is not split at every offset."""


def check_passed(case: Passed, stage: Stage) -> None:
    assert [merged(got) for got in stage.at_services] == [step.forwarded_from(ADDRESS, "http") for step in case.steps]
    assert merged(stage.at_visitor) == case.answer
    assert stage.exchanges.phase is (Phase.OVER if case.closes else Phase.IDLE)
    assert not stage.exchanges.broken
    done = [event for event in stage.events if isinstance(event, ExchangeDone)]
    assert [event.error for event in done] == [""] * len(case.steps)
    assert sum(isinstance(event, ResponseStarted) for event in stage.events) == len(case.steps)


def check_refused(case: Refused, stage: Stage, good: int = 0) -> None:
    assert stage.exchanges.phase is Phase.OVER
    refusal = stage.events[-1]
    assert isinstance(refusal, RequestRefused)
    assert refusal.status == case.status
    assert stage.at_visitor.startswith(f"HTTP/1.1 {case.status} ".encode())
    assert b"\r\nConnection: close\r\n" in stage.at_visitor
    assert refusal.reason.encode() in stage.at_visitor
    if len(stage.at_services) > good:
        # The head of a good request was passed on; its body never comes to an end there.
        assert stage.events[-2] == ExchangeDone(False, refusal.reason)
        assert b"0\r\n" not in stage.at_service.partition(b"\r\n\r\n")[2]
    stage.visitor(b"GET / HTTP/1.1\r\n")
    assert stage.events[-1] is refusal


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.name)
def test_it_passes_split_at_every_offset(case: Passed) -> None:
    events = play(case, [case.request]).events
    for pieces in every_split(case.request):
        stage = play(case, pieces)
        check_passed(case, stage)
        assert stage.events == events


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.name)
def test_its_answer_passes_byte_by_byte(case: Passed) -> None:
    stage = play(case, [case.request], bytewise=True)
    check_passed(case, stage)
    assert stage.events == play(case, [case.request]).events


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_it_is_refused_split_at_every_offset(case: Refused) -> None:
    stage = Stage()
    stage.visitor(case.request)
    check_refused(case, stage)
    for pieces in every_split(case.request) if len(case.request) < LONG else []:
        other = Stage()
        other.visitor(*pieces)
        check_refused(case, other)
        assert other.events == stage.events


@pytest.mark.parametrize("case", [case for case in REFUSED if len(case.request) >= LONG], ids=lambda case: case.name)
def test_a_long_one_is_refused_byte_by_byte(case: Refused) -> None:
    stage = Stage()
    stage.visitor(*(case.request[at : at + 1] for at in range(len(case.request))))
    check_refused(case, stage)


@pytest.mark.parametrize("case", SMUGGLING + BAD_HEADS, ids=lambda case: case.name)
def test_nothing_of_a_bad_head_reaches_a_service(case: Refused) -> None:
    stage = Stage()
    stage.visitor(case.request)
    assert stage.at_services == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_it_is_refused_behind_a_good_request_too(case: Refused) -> None:
    stage = Stage()
    stage.visitor(PASSED[0].request + case.request)
    stage.service(PASSED[0].steps[0].response)
    stage.at_visitor = stage.at_visitor.removeprefix(PASSED[0].answer)
    check_refused(case, stage, good=1)


def test_an_upgrade_leads_to_raw_bytes_both_ways_split_at_every_offset() -> None:
    step = UPGRADE.steps[0]
    for pieces in every_split(UPGRADE.request):
        stage = Stage()
        stage.visitor(*pieces)
        assert stage.at_service == step.forwarded_from(ADDRESS, "http")
        stage.service(step.response)
        assert stage.kinds() == ["RequestReady", "Upgraded"]
        assert stage.exchanges.phase is Phase.RAW
        assert stage.at_visitor == UPGRADE.answer
        assert stage.at_service == step.forwarded_from(ADDRESS, "http") + b"\x81\x02hi"


def test_an_upgrade_is_answered_in_any_pieces() -> None:
    step = UPGRADE.steps[0]
    for pieces in every_split(step.response):
        stage = Stage()
        stage.visitor(UPGRADE.request)
        stage.service(*pieces)
        assert stage.at_visitor == UPGRADE.answer
        assert isinstance(stage.events[-1], Upgraded)
        stage.visitor(b"to the service")
        stage.service(b"to the visitor")
        assert stage.at_service.endswith(b"hito the service")
        assert stage.at_visitor.endswith(b"helloto the visitor")


PIECES = st.lists(st.integers(0, 4000), max_size=8)


@given(st.sampled_from(PASSED), PIECES)
def test_cases_pass_in_any_pieces(case: Passed, offsets: list[int]) -> None:
    check_passed(case, play(case, cut(case.request, offsets)))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PASSED), max_size=4), st.sampled_from(REFUSED), PIECES)
def test_a_bad_request_is_refused_behind_any_good_ones(good: list[Passed], bad: Refused, offsets: list[int]) -> None:
    good = [case for case in good if not (case.closes or case.service_closes)]
    responses = iter([step.response for case in good for step in case.steps])
    stage = Stage()
    for piece in cut(b"".join(case.request for case in good) + bad.request, offsets):
        stage.visitor(piece)
        while stage.exchanges.phase is Phase.EXCHANGE and stage.exchanges.request_complete:
            stage.service(next(responses))
    assert stage.exchanges.phase is Phase.OVER
    refusal = stage.events[-1]
    assert isinstance(refusal, RequestRefused)
    assert refusal.status == bad.status


# -- another parser reads the same -------------------------------------------------------------------------------------


def check_one_message(sent_on: bytes, *, complete: bool) -> None:
    """h11 finds exactly one request in what one service got: no more and, if it is ``complete``, no less."""
    service = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    service.receive_data(sent_on.replace(b"\xe9", b"e"))  # it takes no target with bytes beyond ASCII
    kinds = []
    while (event := service.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        kinds.append(type(event))
        if isinstance(event, h11.EndOfMessage):
            break
    assert kinds[:1] == [h11.Request]
    assert set(kinds[1:-1]) <= {h11.Data}
    if complete:
        assert kinds[-1] is h11.EndOfMessage
    assert service.trailing_data[0] == b""


@pytest.mark.parametrize("case", PASSED, ids=lambda case: case.name)
def test_another_parser_finds_one_request_where_one_was_sent_on(case: Passed) -> None:
    for sent_on in play(case, [case.request]).at_services:
        check_one_message(sent_on, complete=True)


_REQUESTS = [case.request[:LONG] for case in PASSED] + [case.request[:LONG] for case in SMUGGLING + BAD_CHUNKS]


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Bytes of the table with some of them changed: where two parsers come to differ."""
    data: bytes = draw(st.sampled_from(_REQUESTS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        cut_off = draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from(_PIECES)) + data[at + cut_off :]
    return data


_PIECES = [
    b"",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"\x00",
    b"\x0b",
    b"chunked",
    b"\r\n\r\n",
]
_PIECES += [
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"hello",
    b"0\r\n\r\n",
    b"GET / ",
]


@settings(max_examples=600)
@given(_mutated())
def test_whatever_is_sent_another_parser_finds_no_more_than_one_request_in_what_is_sent_on(data: bytes) -> None:
    stage = Stage()
    stage.visitor(data)
    for _ in range(len(data)):
        if stage.exchanges.phase is not Phase.EXCHANGE:
            break
        check_one_message(stage.at_service, complete=stage.exchanges.request_complete)
        stage.service(b"HTTP/1.1 204 No Content\r\n\r\n")
