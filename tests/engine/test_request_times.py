"""Requests through tunnels, counted by how long they took and how they were answered."""

from __future__ import annotations

import pytest

from tunnelconsole.engine.request_times import BOUNDS, NO_ANSWER, RequestTimes


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (BOUNDS[0], 0), (BOUNDS[0] * 1.01, 1), (BOUNDS[-1], -2), (BOUNDS[-1] * 2, -1)]
)
def test_a_request_counts_in_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    times = RequestTimes()
    times.took("web", seconds, 200)
    assert times.services["web"].buckets[bucket] == sum(times.services["web"].buckets) == 1
    assert times.services["web"].seconds == seconds


@pytest.mark.parametrize(
    ("status", "answer"), [(101, "1xx"), (204, "2xx"), (404, "4xx"), (599, "5xx"), (0, NO_ANSWER), (999, NO_ANSWER)]
)
def test_statuses_count_by_their_class(status: int, answer: str) -> None:
    times = RequestTimes()
    times.took("web", 0.1, status)
    assert times.services["web"].answers == {answer: 1}
