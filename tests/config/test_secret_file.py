"""A secret file is read strictly, and what is in it never shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnelconsole.config.secret_file import MAX_SECRET, read_secret_file


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "home.secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"hush", b"hush\n", b"hush\r\n"])
def test_the_end_of_the_line_is_no_part_of_the_secret(tmp_path: Path, content: bytes) -> None:
    assert read_secret_file(secret_file(tmp_path, content)) == "hush"


def test_spaces_are_part_of_the_secret(tmp_path: Path) -> None:
    assert read_secret_file(secret_file(tmp_path, b" hush hush \n")) == " hush hush "


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644])
def test_a_file_open_to_everyone_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, b"hush", mode)
    with pytest.raises(ValueError, match=f"chmod 600 {path}") as caught:
        read_secret_file(path)
    assert "hush" not in str(caught.value)


def test_a_file_of_the_owners_group_is_fine(tmp_path: Path) -> None:
    assert read_secret_file(secret_file(tmp_path, b"hush", 0o640)) == "hush"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot read {tmp_path / 'none'}: No such file"):
        read_secret_file(tmp_path / "none")


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        read_secret_file(tmp_path)


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ValueError, match="not a regular file"):
        read_secret_file(tmp_path / "pipe")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="is empty"):
        read_secret_file(secret_file(tmp_path, content))


def test_the_longest_secret_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    assert len(read_secret_file(secret_file(tmp_path, b"x" * MAX_SECRET))) == MAX_SECRET
    with pytest.raises(ValueError, match="longer than 64 KiB"):
        read_secret_file(secret_file(tmp_path, b"x" * (MAX_SECRET + 1)))


def test_bytes_that_are_no_text_are_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not text in UTF-8") as caught:
        read_secret_file(secret_file(tmp_path, b"hush\xff"))
    assert caught.value.__suppress_context__
    assert "hush" not in str(caught.value)
