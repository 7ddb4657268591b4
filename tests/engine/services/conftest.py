"""Both loops must pass, and leave nothing behind."""

from __future__ import annotations

import pytest

from left_behind import nothing_left_behind, pytest_asyncio_loop_factories
from tunnelconsole.engine import floods

__all__ = ["nothing_left_behind", "pytest_asyncio_loop_factories"]


@pytest.fixture
def all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as a flood: one address is told of each time, however often."""
    monkeypatch.setattr(floods, "TOLD_EACH", 1_000_000)
    monkeypatch.setattr(floods, "TOLD_AT_ONCE", 1_000_000)
