"""What every test shares: the marks ``system`` and ``natlab``, the NAT lab's report, and folders with short names."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

import system_tools
from natlab import namespaces, report


def pytest_addoption(parser: pytest.Parser) -> None:
    """The NAT lab's options; `make natlab` uses them."""
    group = parser.getgroup("natlab", "NAT lab")
    group.addoption("--natlab-tries", type=int, default=1, metavar="N", help="tries of each topology (1)")
    group.addoption("--natlab-report", type=Path, metavar="FILE", help="where the lab's table is kept")


def pytest_configure() -> None:
    """Has signals be heard that whoever started this ignores, as nohup does: what the tests start inherits that."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """What was loaded stays: the collector need not look through it again and again, a tenth of the time of a test."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The NAT lab's table, when there was a try."""
    report.summarize(terminalreporter, config.getoption("--natlab-report"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test that lacks something here, by name; where CI=true, fails it: there nothing may be left out."""
    needed = [tool for mark in item.iter_markers("system") for tool in mark.args]
    reason = system_tools.what_is_missing(needed)
    if reason is None and item.get_closest_marker("natlab"):
        reason = namespaces.what_is_missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own, but not named for the test: the path of a Unix socket may have 107 bytes, no more."""
    return tmp_path_factory.mktemp("t")
