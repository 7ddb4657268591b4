"""The log of a background engine is moved aside before it fills the disk, and nothing of it is lost by that."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed import Program
from tunnelconsole import log_file
from tunnelconsole.background import BackgroundEngine
from tunnelconsole.daemon.logs import Log
from tunnelconsole.log_file import LIMIT, OLD_KEPT, Rotation, open_log
from waiting import until_true


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "engine.log"


@pytest.fixture
def descriptors(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Standard error and output of an engine whose log is moved aside from 2,000 bytes on."""
    monkeypatch.setattr(log_file, "LIMIT", 2000)
    first = open_log(path)
    made = first, os.dup(first)
    yield made
    for descriptor in made:
        os.close(descriptor)


def wrote(path: Path, descriptors: tuple[int, ...], count: int) -> list[str]:
    """Logs so many lines, and returns those that are in the files, the oldest first."""
    log = Log(descriptors[0], "text", "info", Rotation(path, descriptors))
    for number in range(count):
        log.write("info", f"number-{number}")
    log.close()
    lines = []
    for number in range(OLD_KEPT, -1, -1):
        file = path.with_name(f"{path.name}.{number}") if number else path
        lines += file.read_text().splitlines() if file.exists() else []
    return [line.split()[-1] for line in lines]


def test_nothing_is_lost_while_files_take_turns(path: Path, descriptors: tuple[int, int]) -> None:
    assert wrote(path, descriptors, 120) == [f"number-{number}" for number in range(120)]
    assert path.with_name("engine.log.1").exists()


def test_the_oldest_go_and_none_is_much_larger_than_the_limit(path: Path, descriptors: tuple[int, int]) -> None:
    lines = wrote(path, descriptors, 2000)
    assert lines == [f"number-{number}" for number in range(2000 - len(lines), 2000)]
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["engine.log", "engine.log.1", "engine.log.2", "engine.log.3"]
    assert all(file.stat().st_size < 2100 for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_what_leads_to_the_file_leads_to_its_successor_and_nothing_else_does(
    path: Path, descriptors: tuple[int, int], tmp_path: Path
) -> None:
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    rotation = Rotation(path, (*descriptors, other))
    os.write(descriptors[0], b"x" * 2000)
    rotation.rotate_if_large()
    for descriptor in (*descriptors, other):
        os.write(descriptor, b"new")
    os.close(other)
    assert path.read_bytes() == b"newnew"
    assert (tmp_path / "other").read_bytes() == b"new"


def test_a_file_that_somebody_else_has_moved_is_written_on(path: Path, descriptors: tuple[int, int]) -> None:
    path.rename(path.with_name("moved"))
    path.write_text("another's")
    rotation = Rotation(path, descriptors)
    os.write(descriptors[0], b"x" * 3000)
    rotation.rotate_if_large()
    os.write(descriptors[0], b"more")
    assert path.read_text() == "another's"
    path.unlink()
    rotation.rotate_if_large()
    assert path.with_name("moved").read_bytes() == b"x" * 3000 + b"more"


def test_where_it_cannot_be_moved_aside_that_is_told_and_it_is_written_on(
    path: Path, descriptors: tuple[int, int]
) -> None:
    path.with_name("engine.log.new").mkdir()
    lines = wrote(path, descriptors, 100)
    assert [line for line in lines if line.startswith("number-")] == [f"number-{number}" for number in range(100)]
    told = [line for line in path.read_text().splitlines() if "log-not-rotated" in line]
    assert told
    assert len(told) < 5


@pytest.mark.e2e
class TestABackgroundEngine:
    @pytest.fixture
    def program(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
        made = Program(tmp_path_factory.mktemp("d"))
        yield made
        made.close()

    def test_moves_its_log_aside(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in program.env.items():
            monkeypatch.setenv(name, value)
        config = program.write(
            "config.toml",
            f'version = 1\n[engine]\nstate_dir = "{program.folder}/state"\ncontrol = "{program.folder}/c.sock"\n'
            '[service.home]\nkind = "jump-server"\nlisten = "127.0.0.1:0"\nsecret = "superBigSecret"\n',
        )
        log = program.folder / "state" / "engine.log"
        os.close(open_log(log))
        log.write_bytes(b"x" * LIMIT)
        engine = BackgroundEngine([program.path, "--daemon", "-c", str(config)], log)
        try:
            engine.wait_until_ready()
            old = log.with_name("engine.log.1")
            until_true(old.exists)
            until_true(lambda: "ready" in (old.read_text() + log.read_text()).splitlines())
            assert "service-listening" in log.read_text()
            assert {file.stat().st_mode & 0o777 for file in (log, old)} == {0o600}
        finally:
            engine.process.send_signal(signal.SIGTERM)
            engine.process.wait(10)
        assert "engine-stopping" in log.read_text()

    def test_that_does_not_start_shows_why_though_its_log_was_just_moved_aside(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = program.folder / "state" / "engine.log"
        os.close(open_log(log))
        log.write_bytes(b"x" * 10_000)
        rotate = f'mv "{log}" "{log}.1"; echo "no port" > "{log}"; exit 1'
        engine = BackgroundEngine([shutil.which("sh") or "sh", "-c", rotate], log)
        with pytest.raises(Exception, match="the engine ended as soon as it was started: no port"):
            engine.wait_until_ready()
