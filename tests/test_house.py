"""Laws of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "tunnelconsole").rglob("*.py"))

MOST_LINES = 500
"""Lines of a module; beyond that it has more than one reason to change."""


def _calls(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_tasks_start_in_one_place_only(source: Path) -> None:
    if source == ROOT / "tunnelconsole" / "engine" / "tasks.py":
        return
    assert {"create_task", "ensure_future"}.isdisjoint(_calls(source))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_no_module_has_grown_too_long(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= MOST_LINES
