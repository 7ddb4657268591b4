"""Text of others, fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.wire.printable import printable


@pytest.mark.parametrize("text", ["", "plain text", "bücher 東京 🦊", "?"])
def test_what_can_be_seen_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("letter", ["\n", "\t", "\x1b", "\x7f", "\x9b", "\u202e", "\u2028", "\u00a0", "\ud800"])
def test_each_character_that_cannot_is_a_question_mark(letter: str) -> None:
    assert printable(f"a{letter}{letter}b") == "a??b"


@given(st.text())
def test_whatever_it_was_it_is_printable_and_as_long(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)
