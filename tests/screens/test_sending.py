"""Who sends to whom, as words and marks."""

from __future__ import annotations

import pytest

from screens.rows import NOW, chid
from tunnelconsole.control.messages import ChidRow
from tunnelconsole.screens import sending
from tunnelconsole.screens.sending import Losses, Receiver, Web, complete_receivers, natural, read_receivers
from tunnelconsole.screens.widgets.matrix import legend


def at_hub(name: str) -> Receiver:
    return Receiver("hub", name)


def mark(row: ChidRow, to: str, *, present: bool = True, service: str = "hub") -> str:
    return sending.mark(row, frozenset(row.receivers), Receiver(service, to), present=present).text


def test_chids_are_ordered_as_people_do_it() -> None:
    assert sorted(["ch10", "ch2", "a", "ch", "10", "2", "ch2b"], key=natural) == [
        "2", "10", "a", "ch", "ch2", "ch2b", "ch10",
    ]  # fmt: skip


@pytest.mark.parametrize(("rate", "step"), [(0.0, 0), (0.4, 0), (900.0, 1), (450_000.0, 2), (12e6, 3)])
def test_a_mark_is_higher_the_faster_its_sender_is(rate: float, step: int) -> None:
    assert mark(chid("a", "b", rate_in=rate), "b") == sending.NAMED[step]
    assert mark(chid("a", rate_in=rate), "b") == sending.TO_ALL[step]


def test_marks_can_be_told_apart_without_colour() -> None:
    marks = [*sending.NAMED, *sending.TO_ALL, sending.ITSELF.text, sending.HELD_UP.text, sending.NOT_THERE.text, " "]
    marks.append(sending.UNTOLD.text)
    assert len(set(marks)) == len(marks)


def test_nobody_sends_to_itself_to_another_server_or_after_it_has_closed_its_side() -> None:
    everybody = chid("a", rate_in=5.0)
    assert mark(everybody, "a") == sending.ITSELF.text
    assert mark(everybody, "b", service="other") == " "
    assert mark(chid("a", "b", ended=True), "b") == " "
    assert mark(chid("a", "b"), "c") == " "


def test_a_receiver_that_is_not_there_is_marked_for_who_names_it_only() -> None:
    assert mark(chid("a", "b"), "b", present=False) == "?"
    assert mark(chid("a"), "b", present=False) == " "


def test_who_is_not_among_the_receivers_that_are_named_may_be_one_where_there_are_more() -> None:
    many = chid("a", "b", more_receivers=900)
    assert (mark(many, "b"), mark(many, "c"), mark(many, "c", present=False)) == (sending.NAMED[0], "≈", "≈")
    assert mark(chid("a", "b", more_receivers=900, ended=True), "c") == " "
    assert mark(chid("a", "b", more_receivers=900, waits_for="c"), "c") == sending.HELD_UP.text


def test_receivers_that_are_not_named_are_counted() -> None:
    many = chid("a", "b", "c", more_receivers=900)
    assert sending.destination(many) == "b, c and 900 more"
    assert sending.destination(many, 1) == "b and 901 more"
    assert Web([many, chid("b")]).count_absent(many) == 901
    assert Web([many, chid("b"), chid("c")]).count_absent(many) == 0


def test_who_stands_still_is_marked_at_the_receiver_it_waits_for() -> None:
    still = chid("a", "b", "c", waits_for="b")
    assert (mark(still, "b"), mark(still, "c")) == ("▲", sending.NAMED[0])
    slowed = chid("a", "b", waits_for="b", rate_in=2000.0)
    assert mark(slowed, "b") == sending.NAMED[1]


def test_a_web_knows_who_sends_to_whom_at_each_server() -> None:
    a, b, c = chid("a", "b", "gone"), chid("b"), chid("c", "a", ended=True)
    other = chid("d", service="other", session="s-other")
    web = Web([a, b, c, other])
    assert [row.chid for row in web.senders(at_hub("b"))] == ["a"]
    assert [row.chid for row in web.senders(at_hub("c"))] == ["b"]
    assert (web.targets(a), web.targets(b), web.targets(c)) == (["b"], ["a", "c"], [])
    assert (web.absent(a), web.absent(b)) == (["gone"], [])
    assert (web.others(b), web.others(other)) == (2, 0)


def test_the_columns_are_who_is_there_in_order_and_then_who_is_not() -> None:
    rows = [chid("ch10", "ghost"), chid("ch2"), chid("x", service="other", session="s-other")]
    assert Web(rows).columns(rows) == [at_hub("ch2"), at_hub("ch10"), Receiver("other", "x"), at_hub("ghost")]


def test_of_some_senders_the_columns_are_they_and_whom_they_name() -> None:
    rows = [chid("a", "b"), chid("b"), chid("c", "a")]
    assert Web(rows).columns(rows[:1]) == [at_hub("a"), at_hub("b")]


def test_many_names_are_told_by_some_of_them() -> None:
    assert sending.named(["a", "b"]) == "a, b"
    assert sending.named([f"c{number}" for number in range(1000)], 2) == "c0, c1 and 998 more"


@pytest.mark.parametrize(
    ("text", "receivers"),
    [
        ("a, b", ["a", "b"]),
        ("a b", ["a", "b"]),
        (" a,b,,a ", ["a", "b"]),
        ("*", []),
        ("x,y, z", ["x,y", "z"]),
        ("x,y,z", ["x", "y", "z"]),
    ],
)
def test_receivers_are_written_with_commas_or_blanks_and_a_known_chid_may_have_a_comma(
    text: str, receivers: list[str]
) -> None:
    assert read_receivers(text, {"x,y"}) == receivers


@pytest.mark.parametrize("receivers", [[], ["a"], ["a", "b"], ["x,y", ",", "b,"]])
def test_a_list_that_is_written_out_reads_as_it_was(receivers: list[str]) -> None:
    assert read_receivers(sending.written(receivers), receivers) == receivers


@pytest.mark.parametrize("text", ["", " , ", "* a"])
def test_nobody_and_all_with_some_are_no_receivers(text: str) -> None:
    with pytest.raises(ValueError, match="stands for all others"):
        read_receivers(text, ())


def test_the_last_chid_of_a_list_is_completed() -> None:
    known = ["desk", "deck", "laptop"]
    assert complete_receivers("", known) == known
    assert complete_receivers("de", known) == ["desk", "deck"]
    assert complete_receivers("desk, de", known) == ["desk, deck"]
    assert complete_receivers("laptop,de", known) == ["laptop,desk", "laptop,deck"]


@pytest.mark.parametrize(
    ("height", "shown"), [(8, "camera-1"), (6, "ca…a-1"), (4, "c…-1"), (3, "c…1"), (2, "-1"), (1, "1")]
)
def test_a_head_keeps_the_beginning_and_the_end_of_a_chid(height: int, shown: str) -> None:
    assert sending.heads(["camera-1"], height) == [shown]


def test_a_loss_is_news_for_a_minute_and_one_from_before_is_none() -> None:
    losses, row, other = Losses(), chid("a", dropped=100), chid("b")
    losses.follow([row, other], NOW)
    assert not losses.fresh(row, NOW)
    grown = chid("a", dropped=150)
    losses.follow([grown, other], NOW + 10)
    losses.follow([grown, other], NOW + 11)
    assert losses.fresh(grown, NOW + 69)
    assert not losses.fresh(grown, NOW + 70)
    assert not losses.fresh(other, NOW + 11)


def test_who_comes_and_loses_at_once_is_news_and_who_was_there_before_it_was_looked_at_is_none() -> None:
    losses = Losses()
    losses.follow([], NOW)
    losses.follow([chid("a", undelivered=7, since=NOW + 0.5), chid("b", undelivered=7)], NOW + 1)
    assert losses.fresh(chid("a"), NOW + 1)
    assert not losses.fresh(chid("b"), NOW + 1)


def test_a_frozen_picture_tells_no_news() -> None:
    losses = Losses()
    losses.follow([chid("a", dropped=1)], NOW)
    losses.follow([chid("a", dropped=9)], NOW)
    assert not losses.fresh(chid("a"), NOW)


@pytest.mark.parametrize("lines", range(8))
def test_the_legend_fills_the_lines_it_is_given(lines: int) -> None:
    assert len(legend(lines)) == lines
