"""What the dashboard asks for, and what the guide names, is what is exported: all of it, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from measured import exported, measured
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.refusals import REFUSAL_KINDS
from tunnelconsole.metrics.reasons import FAILURE_REASONS

DOCS = Path(__file__).parent.parent.parent / "docs"

_METRIC = re.compile(r"\b(?:tunnelconsole|process)_[a-z_]+\b")


async def everything() -> set[str]:
    async with Engine({}) as engine, measured(engine) as server:
        return exported((await server.text()).decode())


def queries(document: Any) -> Iterator[str]:
    """Every query in a dashboard: of its panels and its variables."""
    if isinstance(document, dict):
        for key, inner in document.items():
            if key in ("expr", "definition", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from queries(inner)
    elif isinstance(document, list):
        for inner in document:
            yield from queries(inner)


async def test_the_dashboard_uses_every_metric_and_no_other() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    used = {name for query in queries(dashboard) for name in _METRIC.findall(query)}
    assert used == await everything()


async def test_the_guide_names_every_metric_and_no_other() -> None:
    guide = (DOCS / "guide.md").read_text()
    table = guide.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in _METRIC.findall(row)}
    parts = re.compile(r"_seconds_(bucket|sum|count)$")
    assert named == {parts.sub("_seconds", name) for name in await everything()}


@pytest.mark.parametrize(
    ("metric", "words"),
    [("tunnelconsole_refusals_total", REFUSAL_KINDS), ("tunnelconsole_target_failures_total", FAILURE_REASONS)],
)
def test_the_guide_names_every_reason_and_no_other(metric: str, words: tuple[str, ...]) -> None:
    (row,) = re.findall(rf"^\| `{metric}` \|.*$", (DOCS / "guide.md").read_text(), re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", row.split("|")[3])) == words


def test_every_panel_has_a_place_and_a_number_of_its_own() -> None:
    panels = json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert taken.isdisjoint(cells), panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
