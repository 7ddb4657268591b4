"""What became of a run's tries: collected from the tests, from other processes too, and shown as a table at its end."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from natlab.topologies import TOPOLOGIES, Topology

PROPERTY = "natlab-try"
"""A test's tries travel under this name with its result, which pytest-xdist brings to the process that reports."""

RACE = "0-100 ms"
"""The skew whose median is compared with what was measured: one side starts up to 100 ms late, at random."""

HEAD = """# The NAT lab

`make natlab` builds every topology in network namespaces (as root on Linux), lets two clients punch through it as
often as `TRIES` says (10), and keeps the result here; the suite tries each topology once. A packet is on its way for
10 ms, and none is lost.

**Median** and **longest** are milliseconds from the starting shot to the verified path, at the later of the two
clients, in tries in which one client started up to 100 ms late, at random; in brackets what the median may be.
**SYNs**: the most that one client sent in a try, retransmissions included, without those to the rendezvous.
**Late by**: tries that went as expected, of all, by how much later than the other one client started.

"""


@dataclass(frozen=True)
class Try:
    """One try of a punch.

    :param skew: how much later one side started, in words.
    :param way: ``direct`` or ``relay``.
    :param ms: from the starting shot to the verified path, at the later of the two.
    :param syns: the most that one client sent.
    :param good: everything was as expected.
    """

    topology: str
    skew: str
    way: str
    ms: float
    syns: int
    good: bool


class Recorder:
    """Takes the tries of one test."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, made: Try) -> None:
        self._item.user_properties.append((PROPERTY, asdict(made)))


def collect(reports: Iterable[object]) -> list[Try]:
    """The tries that are in the results of tests."""
    return [
        Try(**value)
        for found in reports
        if isinstance(found, pytest.TestReport) and found.when == "call"
        for name, value in found.user_properties
        if name == PROPERTY and isinstance(value, dict)
    ]


def summarize(terminal: pytest.TerminalReporter, file: Path | None) -> None:
    """Shows the table at the end of a run, if there was a try, and keeps it."""
    tries = collect(found for group in terminal.stats.values() for found in group)
    if not tries:
        return
    lines = table(tries)
    terminal.section("NAT lab")
    terminal.write_line("\n".join(lines))
    if file is not None:
        file.write_text(f"{HEAD}{_machine()}\n\n" + "\n".join(lines) + "\n")
        terminal.write_line(f"kept in {file}")


def table(tries: Sequence[Try]) -> list[str]:
    """The lines of the table, a topology each, in Markdown."""
    head = ("topology", "expected", "reached", "median ms", "longest ms", "SYNs", "late by")
    rows = [
        _row(topology, of_it)
        for topology in TOPOLOGIES
        if (of_it := [one for one in tries if one.topology == topology.name])
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = tuple("-" * width for width in widths)
    return [_line(row, widths) for row in [head, rule, *rows]]


def _row(topology: Topology, tries: Sequence[Try]) -> tuple[str, ...]:
    ways = [one.way for one in tries]
    reached = ", ".join(f"{ways.count(way)} {way}" for way in dict.fromkeys(sorted(ways)))
    skews = dict.fromkeys(one.skew for one in tries)
    raced = [one.ms for one in tries if one.skew == RACE]
    by_skew = (
        f"{skew}: {sum(one.good for one in tries if one.skew == skew)}/{sum(one.skew == skew for one in tries)}"
        for skew in skews
    )
    median = f"{statistics.median(raced):.0f} ({topology.expected.most_ms:.0f})" if raced else "-"
    longest = f"{max(raced):.0f}" if raced else "-"
    most = str(max(one.syns for one in tries))
    return topology.name, topology.expected.way.value, reached, median, longest, most, "; ".join(by_skew)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()} on {platform.machine()}, "
        f"Python {platform.python_version()}."
    )
