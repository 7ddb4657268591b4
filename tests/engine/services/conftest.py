"""Both loops must pass, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from left_behind import nothing_left_behind, pytest_asyncio_loop_factories
from ssh_gate import Gate, gate_in
from tunnelconsole.engine import floods

__all__ = ["nothing_left_behind", "pytest_asyncio_loop_factories"]


@pytest.fixture
def all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as a flood: one address is told of each time, however often."""
    monkeypatch.setattr(floods, "TOLD_EACH", 1_000_000)
    monkeypatch.setattr(floods, "TOLD_AT_ONCE", 1_000_000)


@pytest.fixture(scope="module")
def shared_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One for all tests of a module that leave it as it is."""
    with gate_in(tmp_path_factory.mktemp("g")) as gate:
        yield gate


@pytest.fixture
def gate(shared_gate: Gate) -> Gate:
    """An SSH host that lets everything through."""
    return shared_gate
