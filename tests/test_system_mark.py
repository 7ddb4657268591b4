"""The ``system`` mark: a test that needs a missing program is skipped by name; in CI it fails instead."""

from __future__ import annotations

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
    pytester.makeini(f"[pytest]\npythonpath = {HERE}\nmarkers =\n    system\n")
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
