"""Meters: totals, rates, and a history that does not grow."""

from __future__ import annotations

from tunnelconsole.engine.meters import HISTORY, Meter, Meters


def test_a_rate_is_what_came_since_the_last_sample_by_its_seconds() -> None:
    meter = Meter()
    meter.add(10, 4)
    meter.add(10, 0)
    meter.sample(2.0)
    assert (meter.rate_in, meter.rate_out) == (10.0, 2.0)
    meter.add(3, 3)
    meter.sample(1.0)
    assert (meter.rate_in, meter.rate_out) == (3.0, 3.0)
    assert (meter.bytes_in, meter.bytes_out) == (23, 7)
    assert (list(meter.history_in), list(meter.history_out)) == ([10.0, 3.0], [2.0, 3.0])


def test_totals_from_before_the_start_are_not_in_the_first_rate() -> None:
    meter = Meter()
    meter.carry_over(10**12, 10**12)
    meter.add(5, 6)
    meter.sample(1.0)
    assert (meter.rate_in, meter.rate_out) == (5.0, 6.0)


def test_the_history_keeps_the_last_samples_and_no_more() -> None:
    meter = Meter()
    for number in range(HISTORY + 10):
        meter.add(number, 0)
        meter.sample(1.0)
    assert list(meter.history_in) == list(range(10, HISTORY + 10))
    assert len(meter.history_out) == HISTORY


def test_a_services_meter_outlives_its_restarts() -> None:
    meters = Meters()
    meters.service("home").add(1, 2)
    assert meters.service("home") is meters.service("home")
    assert meters.totals() == {"home": (1, 2)}


def test_restored_totals_go_on_and_are_not_the_nodes() -> None:
    meters = Meters()
    meters.restore({"home": (100, 200), "gone": (1, 1)})
    meters.service("home").add(1, 2)
    assert meters.totals() == {"home": (101, 202), "gone": (1, 1)}
    assert (meters.node.bytes_in, meters.node.bytes_out) == (0, 0)


def test_all_meters_are_sampled_at_once() -> None:
    meters = Meters()
    meters.service("home").add(2, 4)
    meters.service("edge")
    meters.node.add(2, 4)
    meters.sample(2.0)
    assert [list(meter.history_out) for meter in (meters.node, meters.service("home"), meters.service("edge"))] == [
        [2.0],
        [2.0],
        [0.0],
    ]
