"""Durations, sizes and rates as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnelconsole.engine.units import Duration, Rate, Size

TOO_MUCH = "9" * 400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("7d", 604800),
        ("0s", 0),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("5.s", 5),
        (" 30 s ", 30),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "30", "-5s", "+5s", "1e3s", "30S", "5min", "1h30m", "1.2.3s", "٣s", "infs", "nans", "1_0s", "3 0s"],
)
def test_what_is_no_duration_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match='is not a duration; write one as "500ms", "30s" or "5m"') as caught:
        Duration.parse(text)
    assert str(caught.value).startswith(f'"{text}"')


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512B", 512),
        ("64KiB", 65536),
        ("64kB", 64000),
        ("64KB", 64000),
        ("1MiB", 1 << 20),
        ("1MB", 10**6),
        ("2GiB", 2 << 30),
        ("2gb", 2 * 10**9),
        ("1TiB", 1 << 40),
        ("1 TB", 10**12),
        ("1.5KiB", 1536),
        ("0B", 0),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert Size.parse(text) == count


@pytest.mark.parametrize("text", ["", "64", "64K", "KiB", "-1B", "64KiB/s", "64 bytes", "1e3B", "1,5KiB"])
def test_what_is_no_size_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match='is not a size; write one as "64KiB" or "1MB"'):
        Size.parse(text)


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [("10MB/s", 10**7), ("512KiB/s", 512 * 1024), ("0.5MB/s", 500_000), ("1 MB / s", 10**6), ("1b/s", 1)],
)
def test_rates(text: str, bytes_per_second: float) -> None:
    assert Rate.parse(text) == bytes_per_second


@pytest.mark.parametrize("text", ["", "10MB", "10MB/", "10MB/m", "10/s", "MB/s", "-1MB/s", "10MB/s/s", "10Mbit/s"])
def test_what_is_no_rate_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match='is not a rate; write one as "10MB/s"'):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["0B/s", "0.0MB/s"])
def test_a_rate_of_nothing_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(ValueError, match="lets nothing through; leave the rate out for no limit"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("unit", "text"),
    [(Duration, f"{TOO_MUCH}s"), (Size, f"{TOO_MUCH}B"), (Rate, f"{TOO_MUCH}B/s"), (Size, f"{'9' * 308}TB")],
)
def test_a_number_beyond_all_counting_is_refused(unit: type[Duration | Size | Rate], text: str) -> None:
    with pytest.raises(ValueError, match="is more than can be counted"):
        unit.parse(text)


@given(st.integers(0, 10**12), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_a_whole_number_of_any_unit_is_that_many(number: int, unit: tuple[str, float]) -> None:
    assert Duration.parse(f"{number}{unit[0]}") == pytest.approx(number * unit[1])


@given(st.text(alphabet="0123456789.eEinfa-+ smhdkKMGTiB/٣", max_size=12))
def test_any_text_is_a_finite_amount_or_refused_in_a_sentence(text: str) -> None:
    for unit in (Duration, Size, Rate):
        try:
            amount = unit.parse(text)
        except ValueError as error:
            refusal = str(error)
            assert refusal.startswith(f'"{text}" ')
        else:
            assert 0 <= amount < float("inf")
