"""Text on its way to the screen: harmless, and exactly as wide as it should be."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tunnelconsole.screens.spans import Span, apart, clean, cut, fit, plain, rule, width_of, wrapped

ANY_TEXT = st.text(max_size=60)
WIDTHS = st.integers(min_value=1, max_value=40)


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[2Jgone", "·[2Jgone"),
        ("\x1b]52;c;aGk=\a", "·]52;c;aGk=·"),
        ("two\r\nlines\tand a tab", "two··lines·and a tab"),
        ("\x9b31mred", "·31mred"),
        ("\u202egnp.exe", "·gnp.exe"),
        ("zero\u200bwidth", "zero·width"),
        ("a\u0301\u0302\u0303", "á··"),
        ("\ud800", "·"),
        ("[b]not markup[/b]", "[b]not markup[/b]"),
        ("café 漢字", "café 漢字"),
    ],
)
def test_what_could_steer_a_terminal_is_taken_out(hostile: str, harmless: str) -> None:
    assert clean(hostile) == harmless


@given(st.text())
def test_no_control_character_ever_gets_through(text: str) -> None:
    assert not {unicodedata.category(character) for character in clean(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(ANY_TEXT, WIDTHS, st.booleans())
def test_fitted_text_has_exactly_the_width_asked_for(text: str, width: int, right: bool) -> None:
    assert cell_len(fit(text, width, right=right)) == width


def test_text_that_is_cut_off_ends_in_an_ellipsis() -> None:
    assert fit("edge.example.net:7003", 10) == "edge.exam…"
    assert fit("漢字漢字", 5) == "漢字…"


@given(st.lists(ANY_TEXT, max_size=5), WIDTHS)
def test_a_line_that_is_cut_is_never_wider_than_the_screen(texts: list[str], width: int) -> None:
    assert width_of(cut([Span(text) for text in texts], width)) <= width


def test_two_ends_of_a_line_are_as_far_apart_as_the_screen_is_wide() -> None:
    assert plain(apart((Span("left"),), (Span("right"),), 12)) == "left   right"


def test_the_right_end_gives_way_where_both_do_not_fit() -> None:
    assert plain(apart((Span("left"),), (Span("right"),), 8)) == "left"


@given(st.text(alphabet="abc ", max_size=10), st.text(alphabet="xyz ", max_size=10), st.integers(16, 60))
def test_a_rule_fills_the_line(left: str, right: str, width: int) -> None:
    assert width_of(rule((Span(left),), (Span(right),), width)) == width


@given(ANY_TEXT, WIDTHS)
def test_wrapped_lines_fit_and_lose_nothing_but_blanks(text: str, width: int) -> None:
    lines = [plain(line) for line in wrapped(text, max(2, width))]
    assert all(cell_len(line) <= max(2, width) for line in lines)
    assert "".join(lines).replace(" ", "") == clean(text).replace(" ", "")
