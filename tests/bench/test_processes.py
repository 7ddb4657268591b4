"""Programs that the benchmark starts end with it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from bench.processes import BenchError, running

WITH_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_a_program_takes_its_children_with_it_even_from_a_session_of_their_own(tmp_path: Path) -> None:
    with running([sys.executable, "-c", WITH_A_CHILD], tmp_path, read_output=True) as program:
        child = int(program.read_line(within=20))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_program_ends_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), running([sys.executable, "-c", "input()"], tmp_path) as program:
        raise RuntimeError
    assert program.process.returncode is not None


def test_a_program_that_ends_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the port is in use')"]
    with running(command, tmp_path, read_output=True) as program, pytest.raises(BenchError, match="the port is in use"):
        program.read_line(within=20)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no-such-program"), running(["no-such-program"], tmp_path):
        pytest.fail("it was started")
