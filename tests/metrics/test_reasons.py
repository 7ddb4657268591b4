"""Reasons as labels: few words, whatever was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.metrics.reasons import FAILURE_REASONS, failure


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("dial tcp 192.0.2.1:1: connect: connection refused", "refused"),
        ("dial tcp 192.0.2.1:1: i/o timeout", "timeout"),
        ("Connection timed out", "timeout"),
        ("connect: network is unreachable", "unreachable"),
        ("no route to host", "unreachable"),
        ("lookup nowhere.invalid: no such host", "name"),
        ("127.0.0.1:22 is not allowed", "not_allowed"),
        ("what nobody thought of", "other"),
    ],
)
def test_a_target_is_not_reached_for_one_of_a_few_reasons(sentence: str, word: str) -> None:
    assert failure(sentence) == word


@given(st.text())
def test_whatever_is_said_is_one_of_the_words(sentence: str) -> None:
    assert failure(sentence) in FAILURE_REASONS
