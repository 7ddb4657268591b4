"""What a filter shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.screens.filtering import Filter


def test_every_word_has_to_be_in_the_row() -> None:
    assert Filter("home 443").accepts("home www.example.com:443")
    assert not Filter("home 443").accepts("home www.example.com:80")


def test_case_does_not_matter() -> None:
    assert Filter("HOME").accepts("home")


def test_an_exclamation_mark_hides_what_is_found() -> None:
    assert not Filter("!home").accepts("home")
    assert Filter("!home").accepts("lab")


def test_an_inverse_filter_hides_only_rows_with_all_of_its_words() -> None:
    assert Filter("!home 443").accepts("home www.example.com:80")


@given(st.text(max_size=30), st.text(max_size=60))
def test_a_filter_and_its_inverse_never_show_the_same_row(text: str, haystack: str) -> None:
    narrowing, inverse = Filter(text.lstrip("!")), Filter("!" + text.lstrip("!"))
    if narrowing:
        assert narrowing.accepts(haystack) != inverse.accepts(haystack)


def test_a_filter_without_a_word_hides_nothing() -> None:
    for text in ("", "!", "  ", "! "):
        assert not Filter(text)
        assert Filter(text).accepts("anything")
