"""Laws of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "tunnelconsole").rglob("*.py"))

MOST_LINES = 500
"""Lines of a module; beyond that it has more than one reason to change."""


ADVISORIES = {
    "CVE-2018-7749": "requests that are served before anybody has proved who it is",
    "CVE-2021-23351": "a PROXY header without a limit or a deadline",
    "CVE-2024-32984": "unbounded memory for streams not yet accepted",
    "CVE-2024-43798": "a credential source that is never read, so that the door is open",
    "CVE-2024-45337": "a key that was offered taken for one that was proven",
    "CVE-2025-43859": "request smuggling by a lax end of a chunk",
    "CVE-2026-40910": "authorising one parsed identity and routing by another",
    "CVE-2026-48113": "an access list that is checked at the handshake and not for each channel",
    "CVE-2026-73564": "a length that overflows before login",
}
"""What went wrong in programs of this kind; each has a test that names it."""


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


@pytest.mark.parametrize("advisory", ADVISORIES)
def test_what_went_wrong_elsewhere_is_a_test_here(advisory: str) -> None:
    named = re.compile(advisory.replace("-", "[-_]"), re.IGNORECASE)
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(named.search(path.read_text()) for path in tests)
