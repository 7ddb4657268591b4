"""The results as Markdown, for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import psutil

from bench.consoles import BESIDE, UPDATES
from bench.contenders import CONTENDERS
from bench.goals import GOALS
from bench.limits import WINDOW
from bench.measures import CONNECTION_THREADS, HTTP_FIGURES, TCP_FIGURES, Effort, Figure
from bench.processes import BenchError
from bench.results import Results

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
"""Between these lines of docs/benchmarks.md stands what the last full run gave."""


def machine() -> str:
    """What the figures were taken on, without its name."""
    stock = os.environ.get("TUNNELCONSOLE_LOOP") == "asyncio" or importlib.util.find_spec("uvloop") is None
    loop = "the stock event loop" if stock else "uvloop"
    kernel = f"{platform.system()} {platform.release().split('-')[0]} on {platform.machine()}"
    return (
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory, {kernel}, "
        f"Python {platform.python_version()}, {loop}; loopback."
    )


def render(results: Results) -> str:
    """The whole report."""
    parts = [
        machine(),
        _method(results.effort),
        _figures(results, TCP_FIGURES),
        _figures(results, HTTP_FIGURES),
        _idle(results),
        _wear(results),
        _iperf3(results),
        _consoles(results),
        _limits(results),
        _goals(results),
        _notes(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(report: str, into: Path) -> None:
    """Puts the report between the marks of a Markdown file.

    :raises BenchError: the file lacks them.
    """
    text = into.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{into} lacks the lines {BEGIN} and {END}, between which the results go")
    into.write_text(f"{before}{BEGIN}\n{report}{END}{after}")


def _method(effort: Effort) -> str:
    return (
        f"Each figure is the median of {effort.rounds} rounds, with the least and the most in brackets; within a round "
        f"the contenders take turns. ×: the ratio to direct, the median of each round's own. Bulk: one stream for "
        f"{effort.bulk_seconds:g} s; round trips: {effort.pings} on one connection; new connections: "
        f"{effort.connections} from {CONNECTION_THREADS} threads."
    )


def _figures(results: Results, figures: Sequence[Figure]) -> str:
    measured = [
        contender.name for contender in CONTENDERS if any(results.values(contender.name, figure) for figure in figures)
    ]
    if not measured:
        return ""
    head = ["", *(f"{figure.name}, {figure.unit}" for figure in figures)]
    return _table(head, [[name, *(_cell(results, name, figure) for figure in figures)] for name in measured])


def _cell(results: Results, contender: str, figure: Figure) -> str:
    values = results.values(contender, figure)
    if not values:
        return "–"
    middle, least, most = (f"{value:,.{figure.digits}f}" for value in (median(values), min(values), max(values)))
    ratio = results.ratio(contender, figure)
    share = "" if contender == results.reference or ratio is None else f" ×{ratio:.2f}"
    return f"{middle}{share} ({least}–{most})"


def _idle(results: Results) -> str:
    if not results.idle:
        return ""
    head = ["idle channels", "held", "for", "memory each, KiB", "processor, %", "lost"]
    rows = [
        [
            name,
            f"{idle.held:,}",
            f"{idle.seconds:g} s",
            f"{idle.bytes_each / 1024:.1f}",
            f"{idle.cpu_percent:.2f}",
            f"{idle.lost}",
        ]
        for name, idle in results.idle.items()
    ]
    return _table(head, rows)


def _iperf3(results: Results) -> str:
    if not results.iperf3:
        return ""
    rows = [[name, f"{value:.1f}"] for name, value in results.iperf3.items()]
    return _table(["one stream to the target, by iperf3", "Gbit/s"], rows)


def _wear(results: Results) -> str:
    wear = results.wear
    if wear is None:
        return ""
    head = ["tunnel, native", "requests", "the first, /s", "the last, /s", "memory grown meanwhile, KiB"]
    row = ["", f"{wear.requests:,}", f"{wear.first:,.0f}", f"{wear.last:,.0f}", f"{wear.grown / 1024:,.0f}"]
    return _table(head, [row])


def _consoles(results: Results) -> str:
    consoles = results.consoles
    if consoles is None:
        return ""
    rows: list[list[str]] = []
    if consoles.first_paint_seconds:
        paints = [1000 * seconds for seconds in consoles.first_paint_seconds]
        rows.append(["first frame, ms", _spread(paints, 0)])
    if (crowd := consoles.crowd) is not None:
        for_each = f"{crowd.count} at once, with {UPDATES} updates a second, for {crowd.seconds:.0f} s"
        rows += [
            [f"{for_each}: resident memory of each (RSS), MB", f"{crowd.resident / 1e6:.1f}"],
            ["the same, what they share shared out (PSS), MB", f"{crowd.proportional / 1e6:.1f}"],
            ["processor of each, %", f"{crowd.cpu_percent:.2f}"],
            ["processor of the engine for each, %", f"{crowd.engine_percent:.2f}"],
        ]
    if consoles.ratio is not None:
        rows += [
            ["64-byte round trip through the engine, p99, µs", _spread(consoles.alone_us, 0)],
            [f"the same with {BESIDE} consoles, µs", f"{_spread(consoles.beside_us, 0)}, ×{consoles.ratio:.2f}"],
        ]
    if (churn := consoles.churn) is not None:
        left = f"{churn.processes} processes, {churn.sessions} sessions, {churn.descriptors} descriptors"
        rows.append([f"{churn.opened} opened and closed leave", f"{left}, {churn.grown / 1024:,.0f} KiB"])
    return _table(["consoles over SSH", ""], rows)


def _limits(results: Results) -> str:
    limits = results.limits
    if limits is None:
        return ""
    rows = [
        [
            f"{kept.rate / 1e6:g} MB/s over {kept.channels} channels, in {len(kept.measured)} windows of {WINDOW:g} s",
            f"{_spread([value / 1e6 for value in kept.measured], 2)} MB/s",
            f"{100 * kept.farthest:.1f} %",
            f"{kept.evenness:.2f}",
        ]
        for kept in limits.kept
    ]
    if limits.revoked_seconds:
        until_cut = _spread([1000 * seconds for seconds in limits.revoked_seconds], 0)
        rows.append(["a token is revoked: until its visitors are cut", f"{until_cut} ms", "", ""])
    return _table(["limits", "measured", "farthest off", "slowest channel to fastest"], rows)


def _spread(values: Sequence[float], digits: int) -> str:
    middle, least, most = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least}–{most})"


def _goals(results: Results) -> str:
    rows = []
    for goal in GOALS:
        value = goal.reached(results)
        bound = ("at least " if goal.at_least else "at most ") + goal.shape.format(goal.bound)
        rows.append([goal.what, bound, "–" if value is None else goal.shape.format(value), goal.verdict(value)])
    return _table(["goal", "bound", "reached", ""], rows)


def _notes(results: Results) -> str:
    absent = [f"Not installed, so not measured: {', '.join(results.absent)}."] if results.absent else []
    counted = Counter(str(failure) for failure in results.failures)
    return "\n".join(
        absent + [f"- {failure}{'' if times == 1 else f' ({times} times)'}" for failure, times in counted.items()]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(padded)} |"

    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *(line(row) for row in rows)])
