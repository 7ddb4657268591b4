"""What every test shares: the ``system`` mark."""

from __future__ import annotations

import os

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
