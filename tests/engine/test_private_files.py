"""What the engine keeps is nobody else's: neither the folder, nor what a file's name leads to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from left_behind import nothing_left_behind
from loopback import hears, told
from tunnelconsole.background import BackgroundEngine
from tunnelconsole.control.unix_socket import UnixSocket
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import StoreFailed
from tunnelconsole.engine.private_files import open_private, private_folder, safe_folder
from tunnelconsole.errors import ListenFailed, NotPrivate

__all__ = ["nothing_left_behind"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

STRANGER = 54321


def world_writable(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def group_writable(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o770)
    return folder


def world_writable_and_sticky(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def a_strangers(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    os.chown(folder, STRANGER, STRANGER)
    return folder


def behind_a_strangers_link(folder: Path) -> Path:
    real = folder.with_name("elsewhere")
    real.mkdir(mode=0o700)
    folder.symlink_to(real)
    os.chown(folder, STRANGER, STRANGER, follow_symlinks=False)
    return real


UNSAFE = [
    world_writable,
    group_writable,
    pytest.param(a_strangers, marks=as_root),
    pytest.param(behind_a_strangers_link, marks=as_root),
]


@pytest.mark.parametrize("spoil", [*UNSAFE, world_writable_and_sticky])
async def test_an_engine_does_not_start_where_others_could_change_its_state(
    tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    folder = spoil(tmp_path / "state")
    with pytest.raises(NotPrivate, match=f"the folder {tmp_path / 'state'}"):
        await Engine(state_dir=tmp_path / "state").start()
    assert list(folder.iterdir()) == []


def test_what_is_wrong_and_how_to_mend_it_is_said(tmp_path: Path) -> None:
    folder = world_writable(tmp_path / "state")
    with pytest.raises(NotPrivate) as caught:
        private_folder(folder)
    assert str(caught.value) == (
        f"others can write the folder {folder} (mode 0777), and so lead what is kept there astray; "
        f"close it with: chmod go-w {folder}; or name another folder"
    )
    folder.chmod(0o755)
    private_folder(folder)


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "state")
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700


def test_a_link_of_ones_own_may_lead_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    private_folder(tmp_path / "state")


@pytest.mark.parametrize("name", ["state.sqlite3", "state.sqlite3.lock"])
async def test_a_link_in_the_place_of_a_state_file_is_not_followed(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / name).symlink_to(precious)
    async with Engine(state_dir=tmp_path / "state") as engine:
        await hears(engine, StoreFailed, "it is a symbolic link, which is not followed")
        assert len(told(engine, StoreFailed)) == 1
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("spoil", UNSAFE)
def test_the_log_of_a_background_engine_is_not_made_where_others_could_change_it(
    tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    folder = spoil(tmp_path / "state")
    with pytest.raises(NotPrivate):
        BackgroundEngine(["/bin/true"], tmp_path / "state" / "engine.log")
    assert list(folder.iterdir()) == []


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "engine.log").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        BackgroundEngine(["/bin/true"], tmp_path / "engine.log")
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("spoil", UNSAFE)
def test_a_control_socket_is_not_made_where_others_could_replace_it(
    tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    folder = spoil(tmp_path / "run")
    with pytest.raises(NotPrivate, match=f"the folder {tmp_path / 'run'}"):
        UnixSocket(tmp_path / "run" / "control.sock")
    assert list(folder.iterdir()) == []


def test_a_control_socket_may_be_made_where_everybody_keeps_what_is_theirs(tmp_path: Path) -> None:
    UnixSocket(world_writable_and_sticky(tmp_path / "tmp") / "control.sock").close()


def test_a_link_in_the_place_of_the_control_sockets_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "control.sock.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ListenFailed, match="symbolic link"):
        UnixSocket(tmp_path / "control.sock")
    assert not (tmp_path / "precious").exists()


def test_a_folder_of_the_systems_is_safe_for_a_socket() -> None:
    safe_folder(Path("/tmp"))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="in the way, and no file"):
        open_private(tmp_path / "pipe", os.O_RDWR)
