"""Charts: peaks survive, the scale is round, and nothing flickers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets._toast import Toast

from screens.desk import console
from screens.stories import evening
from tunnelconsole.screens.widgets.chart import SMALLEST_SCALE, Chart, Trace, bars, buckets, ceiling, spark, time_axis

RATES = st.lists(st.floats(0, 1e9), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1000), (999, 1000), (1001, 2000), (2_500_000, 3_000_000), (4.1e6, 6e6), (9.9e8, 1e9), (1e9, 1e9)],
)
def test_the_scale_is_round_and_not_much_higher_than_the_peak(value: float, top: float) -> None:
    assert ceiling(value) == pytest.approx(top)


@given(RATES, st.integers(1, 200), st.integers(0, 1000))
def test_a_peak_among_the_newest_values_is_never_averaged_away(values: list[float], places: int, offset: int) -> None:
    grouped, each = buckets(values, places, offset)
    assert len(grouped) <= places
    newest = values[-max(1, (places - 1) * each) :]
    assert max(grouped) >= max(newest)


def test_groups_stay_as_they_are_while_values_move_on() -> None:
    values = [float(number) for number in range(60)]
    before, _ = buckets(values[:40], 10, 0)
    after, _ = buckets(values[4:44], 10, 4)
    assert after[:-1] == before[1:]


@given(RATES, st.integers(1, 60), st.integers(1, 12))
def test_bars_fill_exactly_the_cells_they_are_given(values: list[float], width: int, height: int) -> None:
    lines = bars(values, width, height, ceiling(max(values)))
    assert [len(line) for line in lines] == [width] * height


def test_a_trickle_shows_and_nothing_does_not() -> None:
    assert bars([0.0, 1.0], 1, 1, 1e9) == ["⢀"]
    assert bars([0.0, 0.0], 1, 1, 1e9) == [" "]


def test_a_full_bar_reaches_the_top() -> None:
    assert bars([8.0, 4.0], 1, 2, 8.0) == ["⡇", "⣿"]


@pytest.mark.parametrize(
    ("groups", "seconds", "axis"),
    [
        (0, 1.0, "                 now"),
        (4, 1.0, "                 now"),
        (24, 1.0, "        24s ago  now"),
        (40, 1.0, "40s ago          now"),
        (39, 1.0, "39s ago          now"),
        (40, 15.0, "10m00s ago       now"),
    ],
)
def test_the_time_axis_begins_where_the_measurements_do(groups: int, seconds: float, axis: str) -> None:
    assert time_axis(groups, seconds, 20) == axis


@given(st.integers(0, 200), st.integers(1, 100))
def test_the_time_axis_is_as_wide_as_its_chart(groups: int, width: int) -> None:
    if width >= 4:
        assert len(time_axis(min(groups, 2 * width), 1.0, width)) == width


def test_a_small_chart_is_scaled_to_its_own_peak() -> None:
    assert spark([0.0, SMALLEST_SCALE * 50], 4) == "   ⢸"


def test_a_trace_counts_how_far_its_values_moved_on() -> None:
    trace = Trace()
    trace.follow([1.0, 2.0, 3.0, 4.0])
    trace.follow([3.0, 4.0, 5.0, 6.0])
    assert trace.offset == 2
    assert not trace.follow([3.0, 4.0, 5.0, 6.0])


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("screen", ["overview", "services"])
async def test_what_the_operator_is_told_covers_no_chart(tmp_path: Path, screen: str, size: tuple[int, int]) -> None:
    async with console(tmp_path, evening(), size) as desk:
        await desk.command(screen)
        await desk.arrive()
        await desk.command("stop nobody")
        await desk.command("level nonsense")
        toasts = list(desk.app.screen.query(Toast))
        assert len(toasts) == 2
        charts = [chart for chart in desk.app.screen.query(Chart) if chart.region]
        assert charts or (screen, size) == ("services", (80, 24))
        for toast in toasts:
            assert not any(toast.region.overlaps(chart.region) for chart in charts)


async def test_a_services_chart_shows_what_it_moved_before_the_console_came(tmp_path: Path) -> None:
    async with console(tmp_path, evening(), (120, 40)) as desk:
        await desk.command("services")
        await desk.arrive()
        assert "⣶" * 10 in desk.line("80 kB/s ┤")
