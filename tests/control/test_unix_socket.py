"""The control socket's place: one engine, one user."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import psutil
import pytest

from tunnelconsole.control.unix_socket import UnixSocket, peer_uid
from tunnelconsole.errors import ListenFailed


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path short enough for a socket."""
    return tmp_path_factory.mktemp("s") / "run" / "control.sock"


def dead_socket(place: Path) -> None:
    """What an engine leaves behind that was killed."""
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place))
        sock.listen()


def test_socket_and_folder_are_for_their_user_only(place: Path) -> None:
    listening = UnixSocket(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    listening.close()


def test_the_peers_user_is_known(place: Path) -> None:
    listening = UnixSocket(place)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        listening.socket.setblocking(True)
        accepted, _ = listening.socket.accept()
        with accepted:
            assert peer_uid(accepted) == os.geteuid()
    listening.close()


def test_a_second_engine_is_told_of_the_first(place: Path) -> None:
    first = UnixSocket(place)
    with pytest.raises(ListenFailed, match=f"an engine runs already at {place}"):
        UnixSocket(place)
    first.close()
    UnixSocket(place).close()


def test_the_socket_of_a_dead_engine_is_replaced(place: Path) -> None:
    dead_socket(place)
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    listening = UnixSocket(place)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    listening.close()


def test_a_living_socket_of_another_program_is_left_alone(place: Path) -> None:
    place.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        with pytest.raises(ListenFailed, match="runs already"):
            UnixSocket(place)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))


def test_a_file_in_the_way_is_left_alone(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("precious")
    with pytest.raises(ListenFailed, match="not a socket"):
        UnixSocket(place)
    assert place.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(place: Path) -> None:
    place.parent.write_text("a file where a folder should be")
    with pytest.raises(ListenFailed, match=f"control socket {place} cannot be made"):
        UnixSocket(place)


def test_closing_removes_the_socket_and_can_be_done_twice(place: Path) -> None:
    listening = UnixSocket(place)
    listening.close()
    listening.close()
    assert not place.exists()


def test_closing_leaves_what_another_has_put_in_its_place(place: Path) -> None:
    listening = UnixSocket(place)
    place.unlink()
    dead_socket(place)
    listening.close()
    assert place.exists()


def test_a_refused_engine_keeps_no_descriptor(place: Path) -> None:
    first = UnixSocket(place)
    before = psutil.Process().num_fds()
    for _ in range(5):
        with pytest.raises(ListenFailed):
            UnixSocket(place)
    assert psutil.Process().num_fds() == before
    first.close()
