"""What every end-to-end test starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from installed import Program
from origins import WebOrigin, web_origin


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The installed program in a folder of its own; whatever is started with it ends with the test."""
    program = Program(tmp_path_factory.mktemp("e"))
    yield program
    program.close()


@pytest.fixture
def program_anew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The same, started anew each time and not as a copy of a process that is there: its arguments are its own."""
    program = Program(tmp_path_factory.mktemp("e"), anew=True)
    yield program
    program.close()


@pytest.fixture
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebOrigin]:
    """A real web server."""
    with web_origin(tmp_path_factory.mktemp("o")) as serving:
        yield serving
