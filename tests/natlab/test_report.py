"""The table of a run: each topology a line, from tries that tests of any process made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from natlab.report import HEAD, RACE, Try, table
from natlab.topologies import TOPOLOGIES

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent.parent

FIRST, SECOND = (topology.name for topology in TOPOLOGIES[:2])

TWO_TESTS = f"""
import pytest
from natlab.report import Recorder, Try

@pytest.mark.parametrize("topology", [{FIRST!r}, {SECOND!r}])
def test_it(request, topology):
    Recorder(request.node)(Try(topology, "0-100 ms", "direct", 100.0, 7, True))
"""


def cells(lines: Sequence[str]) -> list[list[str]]:
    """The rows below the head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_topology_is_a_line_with_its_medians() -> None:
    tries = [Try(FIRST, RACE, "direct", ms, 5, True) for ms in (90.0, 110.0, 400.0)]
    (row,) = cells(table(tries))
    assert row == [FIRST, "direct", "3 direct", "110 (172)", "400", "5", "0-100 ms: 3/3"]


def test_skews_are_told_apart_and_count_for_no_median() -> None:
    tries = [
        Try(FIRST, RACE, "direct", 90.0, 5, True),
        Try(FIRST, "1.5 s", "relay", 3100.0, 1200, False),
        Try(FIRST, "1.5 s", "direct", 1600.0, 5, True),
    ]
    (row,) = cells(table(tries))
    assert row == [FIRST, "direct", "2 direct, 1 relay", "90 (172)", "90", "1200", "0-100 ms: 1/1; 1.5 s: 1/2"]


def test_topologies_come_in_their_order() -> None:
    rows = cells(table([Try(name, RACE, "direct", 90.0, 5, True) for name in (SECOND, FIRST)]))
    assert [row[0] for row in rows] == [FIRST, SECOND]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_tries_of_other_processes_are_in_the_table_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makeini(f"[pytest]\npythonpath = {TESTS}\n")
    pytester.makepyfile(TWO_TESTS)
    kept = pytester.path / "natlab.md"
    result = pytester.runpytest_subprocess("-p", "xdist", "-n", processes, f"--natlab-report={kept}")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"| {FIRST} *", f"| {SECOND} *", f"kept in {kept}"])
    assert kept.read_text().startswith(HEAD)
