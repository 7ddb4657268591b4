"""From figures to ratios, goals and the table, without measuring anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import table
from bench.consoles import Churn, Consoles, Crowd
from bench.contenders import CONTENDERS
from bench.goals import GOALS
from bench.limits import Kept, Limits
from bench.measures import (
    BULK_UP,
    CONNECTIONS,
    FIGURES,
    QUICK,
    REQUEST_P99,
    REQUESTS,
    Idle,
    Wear,
    p99_milliseconds,
    requests_per_second,
)
from bench.processes import BenchError
from bench.results import Failure, Results
from bench.route import Contender


def _contender(name: str) -> Contender:
    return next(each for each in CONTENDERS if each.name == name)


def _results(**rounds: list[float]) -> Results:
    return Results(
        QUICK, "direct", rounds={name: [{BULK_UP: value} for value in values] for name, values in rounds.items()}
    )


def _consoles(**churn: int) -> Consoles:
    left = {"processes": 0, "descriptors": 0, "sessions": 0, "grown": 204_800} | churn
    return Consoles([0.7, 0.8], Crowd(20, 60.2, 46e6, 35e6, 1.9, 0.3), [100, 200], [150, 220], Churn(200, **left))


def test_a_ratio_is_the_median_of_each_rounds_own() -> None:
    results = _results(direct=[10, 20, 40], jump=[5, 10, 10])
    assert results.ratio("jump", BULK_UP) == 0.5


def test_a_round_that_failed_is_left_out_of_the_ratio() -> None:
    results = _results(direct=[10, 20], jump=[5, 0])
    results.rounds["jump"][1].clear()
    assert results.ratio("jump", BULK_UP) == 0.5


def test_a_figure_that_was_never_taken_has_no_ratio() -> None:
    assert _results(direct=[10], jump=[5]).ratio("jump", CONNECTIONS) is None


@pytest.mark.parametrize(("jump", "verdict"), [(4.5, "met"), (4.4, "**missed**")])
def test_a_goal_says_whether_its_bound_is_reached(jump: float, verdict: str) -> None:
    results = _results(direct=[10], jump=[jump])
    assert GOALS[0].verdict(GOALS[0].reached(results)) == verdict


def test_a_ratio_may_be_to_another_than_the_reference() -> None:
    results = _results(direct=[10, 20], jump=[5, 10], haproxy=[10, 40])
    assert results.ratio("jump", BULK_UP, "haproxy") == 0.375


def test_beside_consoles_each_round_is_compared_with_its_own() -> None:
    assert _consoles().ratio == pytest.approx(1.3)
    assert Consoles().ratio is None


def test_what_consoles_over_ssh_cost_is_a_table_of_its_own() -> None:
    results = Results(QUICK, "direct", consoles=_consoles(descriptors=3))
    report = table.render(results)
    assert "20 at once, with 4 updates a second, for 60 s" in report
    assert "0 processes, 0 sessions, 3 descriptors, 200 KiB" in report
    missed = [line for line in report.splitlines() if "**missed**" in line]
    assert [line.split("|")[1].strip() for line in missed] == [
        "round trip p99 with 5 consoles over SSH",
        "consoles over SSH that are closed, descriptors left",
    ]


def test_how_limits_hold_is_a_table_of_its_own() -> None:
    kept = [Kept(1e6, 1, [0.9e6, 1.04e6, 1e6], 1.0), Kept(1e7, 4, [1e7], 0.5)]
    report = table.render(Results(QUICK, "direct", limits=Limits(kept, [0.2, 0.4])))
    assert "1 MB/s over 1 channels, in 3 windows of 5 s" in report
    assert "10.0 %" in report
    assert "300 (200–400) ms" in report
    missed = [line for line in report.splitlines() if "**missed**" in line]
    assert [line.split("|")[1].strip() for line in missed] == ["a rate, farthest off over 5 s"]


def test_every_goal_can_be_reached_by_what_is_measured() -> None:
    everything = Results(QUICK, "direct", status_seconds=[0.1], first_paint_seconds=[0.5])
    everything.tunnel_bytes = 16384
    everything.wear = Wear(1_000_000, 10_000, 9_900, 4096)
    everything.idle["jump"] = Idle(1000, 3, 2048, 0.1, 0)
    everything.consoles = _consoles()
    everything.limits = Limits([Kept(1e6, 1, [1e6], 1.0)], [0.3])
    figures = dict.fromkeys(FIGURES, 1.0)
    everything.rounds = {contender.name: [figures] for contender in CONTENDERS}
    assert [goal.what for goal in GOALS if goal.reached(everything) is None] == []


def test_the_report_has_a_row_for_each_contender_with_its_ratio() -> None:
    report = table.render(_results(direct=[10, 20], jump=[5, 10]))
    assert "15.0 (10.0–20.0)" in report
    assert "7.5 ×0.50 (5.0–10.0)" in report


def test_what_speaks_http_alone_has_its_row_among_the_http_figures() -> None:
    results = _results(direct=[10])
    results.rounds["tunnel, native"] = [{REQUESTS: 7000, REQUEST_P99: 7.0}]
    bulk, http = table.render(results).split("HTTP requests over")
    assert "tunnel, native" not in bulk
    assert "7,000" in http


def test_what_failed_and_what_is_not_installed_is_said(tmp_path: Path) -> None:
    results = _results(direct=[10])
    failure = Failure(_contender("frp"), "bulk", "no bytes came through")
    results.failures += [failure, failure]
    results.absent.append("bore")
    report = table.render(results)
    assert "- frp, bulk: no bytes came through (2 times)\n" in report
    assert "bore" in report


def test_what_a_peer_cannot_do_is_no_failure_of_ours() -> None:
    results = _results(direct=[10])
    own = Failure(_contender("jump"), "bulk", "3 bytes were lost")
    results.failures += [Failure(_contender("frp"), "", "it ended"), own]
    assert results.own_failures == [own]


def test_the_report_replaces_only_what_stands_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write("new\n", page)
    assert page.read_text() == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"


def test_a_page_without_the_marks_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n")
    with pytest.raises(BenchError, match="lacks the lines"):
        table.write("new\n", page)
    assert page.read_text() == "before\n"


def test_the_rate_of_wrk_is_read_from_its_report() -> None:
    assert requests_per_second("  10 requests in 1.00s\nRequests/sec:  1234.56\n") == 1234.56


def test_a_report_of_wrk_with_errors_is_no_rate() -> None:
    with pytest.raises(BenchError, match="Socket errors"):
        requests_per_second("  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec:  1234.56\n")


@pytest.mark.parametrize(("printed", "milliseconds"), [("870.00us", 0.87), ("7.02ms", 7.02), ("1.20s", 1200)])
def test_the_99th_percentile_of_wrk_is_read_in_its_unit(printed: str, milliseconds: float) -> None:
    report = f"  Latency Distribution\n     50%  300.00us\n     99%    {printed}\n"
    assert p99_milliseconds(report) == pytest.approx(milliseconds)


def test_a_report_of_wrk_without_latencies_is_no_figure() -> None:
    with pytest.raises(BenchError, match="no latencies"):
        p99_milliseconds("Requests/sec:  1234.56\n")
