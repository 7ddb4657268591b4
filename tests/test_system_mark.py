"""The ``system`` mark: a test that needs a missing program is skipped by name; in CI it fails instead."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ALONE = ("-p", "no:cacheprovider", "-p", "no:asyncio")
"""Without the plugins that would ask for settings or leave files behind."""

NEEDS_WHAT_IS_MISSING = """
import pytest

@pytest.mark.system("sh", "no-such-program")
def test_it():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((Path(__file__).with_name("conftest.py")).read_text())
    pytester.makeini("[pytest]\nmarkers =\n    system\n")
    pytester.makepyfile(NEEDS_WHAT_IS_MISSING)
    return pytester


def test_a_test_whose_program_is_missing_is_skipped_with_its_name(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = suite.runpytest_inprocess("-rs", *ALONE)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*needs no-such-program: not installed*"])


def test_where_nothing_may_be_left_out_it_fails(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_inprocess(*ALONE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs no-such-program: not installed*"])
