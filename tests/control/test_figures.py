"""How figures read: sizes binary, rates decimal, durations in two units."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.control import figures

NOON = 1_750_075_200.0
"""2025-06-16 12:00:00 UTC."""


@pytest.mark.parametrize(
    ("count", "reads"),
    [
        (0, "0 B"), (512, "512 B"), (999, "999 B"), (1000, "1.0 KiB"), (1024, "1.0 KiB"), (10 * 1024, "10 KiB"),
        (1_258_291, "1.2 MiB"), (8 << 30, "8.0 GiB"), (340 << 30, "340 GiB"), (1 << 80, "1048576 EiB"), (-5, "0 B"),
    ],
)  # fmt: skip
def test_a_size_reads_in_steps_of_1024(count: int, reads: str) -> None:
    assert figures.size(count) == reads


@pytest.mark.parametrize(
    ("per_second", "reads"),
    [
        (0, "0 B/s"), (0.4, "0 B/s"), (980, "980 B/s"), (999.6, "1.0 kB/s"), (4_200_000, "4.2 MB/s"),
        (9_960_000, "10 MB/s"), (104_000_000, "104 MB/s"), (2.5e9, "2.5 GB/s"), (float("nan"), "0 B/s"),
    ],
)  # fmt: skip
def test_a_rate_reads_in_steps_of_1000(per_second: float, reads: str) -> None:
    assert figures.rate(per_second) == reads


@given(st.floats(min_value=0, max_value=9.99e14))
def test_a_rate_never_has_more_than_three_digits(per_second: float) -> None:
    number, _, unit = figures.rate(per_second).partition(" ")
    assert len(number) <= 3
    assert unit in figures.RATE_UNITS


@pytest.mark.parametrize(
    ("seconds", "reads"),
    [
        (0, "0s"), (-3, "0s"), (59.9, "59s"), (60, "1m00s"), (192, "3m12s"), (5 * 3600 + 7 * 60, "5h07m"),
        (3 * 86400 + 4 * 3600, "3d04h"), (123 * 86400, "123d"), (float("inf"), "0s"),
    ],
)  # fmt: skip
def test_a_duration_reads_in_its_two_largest_units(seconds: float, reads: str) -> None:
    assert figures.duration(seconds) == reads


@pytest.mark.parametrize(
    ("seconds", "reads"),
    [
        (0, "0.0 ms"), (0.0004, "0.4 ms"), (0.00996, "10 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (1.234, "1.2 s"),
        (12.3, "12 s"), (65, "1m05s"), (-1, "0.0 ms"), (float("nan"), "0.0 ms"),
    ],
)  # fmt: skip
def test_a_short_time_reads_in_milliseconds(seconds: float, reads: str) -> None:
    assert figures.brief(seconds) == reads


def test_a_count_has_the_noun_it_needs() -> None:
    assert figures.counted(1, "session") == "1 session"
    assert figures.counted(5000, "session") == "5,000 sessions"
    assert figures.counted(2, "try", "tries") == "2 tries"


def test_a_share_has_a_decimal_only_below_ten() -> None:
    assert [figures.percent(value) for value in (0.44, 9.96, 12.3)] == ["0.4%", "10.0%", "12%"]


def test_the_time_of_day_is_told_where_the_reader_is() -> None:
    assert figures.clock(NOON, UTC) == "12:00:00"
    assert figures.clock(NOON, timezone(timedelta(hours=2))) == "14:00:00"


def test_a_moment_of_another_day_has_its_date() -> None:
    assert figures.moment(NOON - 60, NOON, UTC) == "11:59:00"
    assert figures.moment(NOON - 86_400, NOON, UTC) == "06-15 12:00:00"


def test_a_date_and_time_is_told_in_full() -> None:
    assert figures.date_and_time(NOON - 86_400.5, UTC) == "2025-06-15 11:59:59"
