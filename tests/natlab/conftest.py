"""What the tests in the NAT lab share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from natlab.lab import Lab
from natlab.report import Recorder
from natlab.topologies import Topology


@pytest.fixture
def natlab() -> Iterator[Callable[[Topology], Lab]]:
    """Builds labs; they are gone when the test has ended, however it ends. The test needs the mark ``natlab``."""
    with ExitStack() as built:
        yield lambda topology: built.enter_context(Lab(topology))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Takes the tries that the report at the end of the run is made from."""
    return Recorder(request.node)
