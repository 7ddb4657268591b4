"""The marks ``system`` and ``natlab``: a test that lacks something is skipped by name; in CI it fails instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent

NEEDS_WHAT_IS_MISSING = """
import pytest

@pytest.mark.system("sh", "no-such-program")
def test_it():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite of one test in a process of its own, with this suite's conftest.py and no other plugin."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest((HERE / "conftest.py").read_text())
    pytester.makeini(f"[pytest]\npythonpath = {HERE}\nmarkers =\n    natlab\n    system\n")
    pytester.makepyfile(NEEDS_WHAT_IS_MISSING)
    return pytester


def test_a_test_whose_program_is_missing_is_skipped_with_its_name(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = suite.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*needs no-such-program: not installed*"])


def test_in_ci_it_fails_with_its_name(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs no-such-program: not installed*"])


NEEDS_A_LAB = """
import pytest

@pytest.mark.natlab
def test_it():
    pass
"""

WITHOUT_A_RIGHT = ("setpriv", "--bounding-set", "-net_admin", sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


@pytest.mark.natlab
@pytest.mark.system("setpriv")
@pytest.mark.parametrize(("ci", "outcome"), [("", "skipped"), ("true", "errors")])
def test_a_test_that_may_not_build_networks_is_left_out_with_the_reason(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str
) -> None:
    monkeypatch.setenv("CI", ci)
    suite.makepyfile(NEEDS_A_LAB)
    result = suite.run(*WITHOUT_A_RIGHT, "-rs")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*needs CAP_NET_ADMIN for its network namespaces: run the tests as root*"])
