"""What the console remembers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnelconsole.screens.preferences import Preferences, PreferencesFile


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = PreferencesFile(tmp_path / "deep" / "console.json")
    file.save(Preferences(theme="day"))
    assert file.load() == Preferences(theme="day")
    assert [path.name for path in file.path.parent.iterdir()] == ["console.json"]


def test_it_is_for_its_user_alone_whatever_was_there_before(tmp_path: Path) -> None:
    file = PreferencesFile(tmp_path / "console.json")
    for path in (file.path, tmp_path / f"console.json.{os.getpid()}"):
        path.touch()
        path.chmod(0o644)
    file.save(Preferences(theme="day"))
    assert file.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b'{"theme": 7}', b"\xff\xfe", b"[]"])
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "console.json"
    path.write_bytes(content)
    assert PreferencesFile(path).load() == Preferences()


def test_a_file_that_is_missing_counts_as_none(tmp_path: Path) -> None:
    assert PreferencesFile(tmp_path / "console.json").load() == Preferences()


def test_what_a_newer_console_added_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "console.json"
    path.write_bytes(b'{"theme": "day", "columns": ["name"]}')
    assert PreferencesFile(path).load().theme == "day"


def test_it_is_kept_with_other_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert PreferencesFile.usual().path == Path("/state/tunnelconsole/console.json")
