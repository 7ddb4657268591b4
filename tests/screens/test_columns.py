"""Which columns fit, and in what order rows stand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from screens.rows import NOW, service
from tunnelconsole.control.messages import ServiceRow
from tunnelconsole.screens.columns import GAP, Column, Order, Placed, arrange, place
from tunnelconsole.screens.filtering import Filter
from tunnelconsole.screens.services import columns as service_columns
from tunnelconsole.screens.spans import Span

COLUMNS = service_columns(lambda _: [])


def _titles(placed: Sequence[Placed]) -> list[str]:
    return [COLUMNS[one.column].title for one in placed]


def _natural(*rows: ServiceRow) -> list[int]:
    return [max(len(column.title), *(len(column.cell(row, NOW).text) for row in rows)) for column in COLUMNS]


def test_a_narrow_screen_keeps_the_columns_that_matter_most() -> None:
    natural = _natural(service("home"))
    assert _titles(place(COLUMNS, natural, 40)) == ["NAME", "STATE", "IN/S"]
    assert _titles(place(COLUMNS, natural, 79)) == ["NAME", "STATE", "ADDRESS", "SESS", "CHAN", "IN/S", "OUT/S"]


def test_a_wide_screen_has_every_column() -> None:
    assert len(place(COLUMNS, _natural(service("home")), 198)) == len(COLUMNS)


def test_a_nicety_does_not_come_at_the_cost_of_an_address_cut_off() -> None:
    short, long = _natural(service("home")), _natural(service("home", address="relay.example.net:7003 and more"))
    assert "AGE" in _titles(place(COLUMNS, short, 88))
    assert "AGE" not in _titles(place(COLUMNS, long, 88))


@given(st.lists(st.integers(0, 60), min_size=len(COLUMNS), max_size=len(COLUMNS)), st.integers(1, 250))
def test_columns_never_overlap_and_never_leave_the_screen(natural: list[int], width: int) -> None:
    placed = place(COLUMNS, natural, width)
    for before, after in pairwise(placed):
        assert before.at + before.width + GAP == after.at
    if width >= 30:
        assert placed[-1].at + placed[-1].width <= width


def _order(*rows: ServiceRow, by: Order, narrowing: str = "") -> list[str]:
    found = arrange(rows, COLUMNS, by, Filter(narrowing), lambda row: row.name, lambda row: row.name)
    return [row.name for row in found]


def test_rows_that_are_equal_keep_the_order_of_their_names() -> None:
    rows = (service("c"), service("a", rate_in=5.0), service("b"))
    assert _order(*rows, by=Order("rate_in", falling=True)) == ["a", "b", "c"]


def test_the_worst_state_sorts_first() -> None:
    rows = (service("up"), service("down", state="failed"), service("trying", state="backoff"))
    assert _order(*rows, by=Order("state", falling=False)) == ["down", "trying", "up"]


def test_only_rows_that_the_filter_accepts_are_arranged() -> None:
    rows = (service("home"), service("lab"))
    assert _order(*rows, by=Order("name", falling=False), narrowing="!lab") == ["home"]


def test_the_same_sort_key_again_turns_the_order_round() -> None:
    column: Column[ServiceRow] = Column("x", "X", lambda _row, _now: Span(""), lambda _: 0, 1, falling=True)
    first = Order("name", falling=False).pressed(column)
    assert first == Order("x", falling=True)
    assert first.pressed(column) == Order("x", falling=False)
