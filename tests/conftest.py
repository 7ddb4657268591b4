"""What every test shares: the ``system`` mark, and folders with short names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import system_tools


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose programs are missing, by name; where CI=true, fails it: there nothing may be left out."""
    needed = [tool for mark in item.iter_markers("system") for tool in mark.args]
    missing = [tool for tool in needed if system_tools.find(tool) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)}: not installed; as root on Debian, `make test` installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own, but not named for the test: the path of a Unix socket may have 107 bytes, no more."""
    return tmp_path_factory.mktemp("t")
