"""Who may take a sealed exchange for well ended: no end whose text the other has not confirmed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.sealed_accounts import Accounts
from tunnelconsole.engine.wire.sealed_records import Mark, Reported, Sealer

NO_MORE = Mark.TAKES_NO_MORE


def an_end(*texts: bytes, ended: bool = True) -> tuple[Sealer, Accounts]:
    """Return an end that has sent a report, so many texts, and perhaps their end."""
    sealer = Sealer(bytes(32), b"s" * 16, b"o" * 16)
    sealer.report(0)
    for text in texts:
        sealer.seal(text)
    if ended:
        sealer.end()
    return sealer, Accounts(sealer)


@pytest.mark.parametrize(("confirmed", "has_text", "has_all"), [(0, False, False), (2, False, False), (3, True, False)])
def test_what_is_not_confirmed_is_not_delivered(confirmed: int, has_text: bool, has_all: bool) -> None:
    _, accounts = an_end(b"one", b"two")
    accounts.hear(Reported(confirmed, Mark.NONE))
    assert (accounts.has_all_text, accounts.has_all, accounts.waits) == (has_text, has_all, True)


def test_all_is_delivered_once_the_end_is_confirmed() -> None:
    _, accounts = an_end(b"one", b"two")
    accounts.hear(Reported(4, Mark.NONE))
    assert accounts.has_all
    assert not accounts.waits


def test_text_without_an_end_is_never_all() -> None:
    _, accounts = an_end(b"one", ended=False)
    accounts.hear(Reported(2, NO_MORE))
    assert accounts.has_all_text
    assert not accounts.has_all


@pytest.mark.parametrize(("confirmed", "waits"), [(1, True), (2, True), (3, False)])
def test_text_is_waited_for_before_it_has_ended(confirmed: int, waits: bool) -> None:
    sealer, accounts = an_end(b"one", b"two", ended=False)
    sealer.report(0)
    accounts.hear(Reported(confirmed, Mark.NONE))
    assert accounts.waits == waits


def test_nothing_is_waited_for_before_there_is_text_nor_once_none_is_taken() -> None:
    _, silent = an_end(ended=False)
    _, refused = an_end(b"one", ended=False)
    refused.hear(Reported(1, NO_MORE))
    assert (silent.waits, refused.waits) == (False, False)


@pytest.mark.parametrize(("confirmed", "refused"), [(1, True), (2, True), (3, False), (4, False)])
def test_an_end_that_takes_no_more_must_have_had_all_the_text(confirmed: int, refused: bool) -> None:
    _, accounts = an_end(b"one", b"two")
    accounts.hear(Reported(confirmed, NO_MORE))
    assert (accounts.refused, accounts.has_all) == (refused, not refused)


def test_text_that_was_not_even_sent_because_the_other_end_takes_none_is_refused() -> None:
    _, accounts = an_end(ended=False)
    accounts.hear(Reported(1, NO_MORE))
    before = accounts.refused
    accounts.text_refused()
    assert (before, accounts.refused, accounts.has_all_text) == (False, True, False)


@pytest.mark.parametrize(
    ("number", "marks", "parted"), [(1, Mark.NONE, False), (2, Mark.DONE, True), (3, Mark.NONE, True)]
)
def test_who_is_done_parts_when_the_other_end_knows_or_is_done_too(number: int, marks: Mark, parted: bool) -> None:
    sealer, accounts = an_end()
    accounts.hear(Reported(1, Mark.NONE))
    sealer.report(0, Mark.DONE)
    accounts.said_done()
    accounts.hear(Reported(number, marks))
    assert (accounts.done, accounts.parted, accounts.waits) == (True, parted, True)


@pytest.mark.parametrize("second", [0, 1, 4])
def test_a_report_of_less_than_before_or_more_than_there_is_breaks_the_rules(second: int) -> None:
    _, accounts = an_end(b"one")
    accounts.hear(Reported(2, Mark.NONE))
    with pytest.raises(ProtocolError, match="there are 3, and it had confirmed 2"):
        accounts.hear(Reported(second, Mark.NONE))


@given(st.lists(st.booleans(), max_size=8), st.lists(st.integers(0, 12), max_size=6), st.booleans())
def test_whatever_is_reported_all_is_never_more_than_what_was_confirmed(
    kinds: list[bool], counts: list[int], takes_no_more: bool
) -> None:
    sealer, accounts = an_end(ended=False)
    last_text = 0
    for is_text in kinds:
        sealer.seal(b"x") if is_text else sealer.report(0)
        last_text = sealer.count if is_text else last_text
    sealer.end()
    end = sealer.count
    heard = 0
    for count in sorted(min(count, end) for count in counts):
        accounts.hear(Reported(count, NO_MORE if takes_no_more else Mark.NONE))
        heard = count
    needed = last_text if takes_no_more and counts else end
    assert accounts.has_all == (heard >= needed)
    assert accounts.has_all_text == (heard >= last_text)
