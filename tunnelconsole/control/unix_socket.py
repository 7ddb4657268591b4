"""The control socket's place in the file system: one engine at a time, and for nobody but its user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from tunnelconsole.engine.private_files import FILE_MODE, open_private, safe_folder
from tunnelconsole.errors import ListenFailed

BACKLOG = 64
"""Consoles and commands the kernel holds until they are accepted."""

ANSWER_PATIENCE = 1.0
"""Seconds a connection to a socket found in our place may take: a living engine's backlog takes it at once."""

_LOCAL_PEERCRED = 0x001
_LOCAL_PEERPID = 0x002
_XUCRED = struct.Struct("=II")
"""The head of macOS's ``struct xucred`` (sys/ucred.h): its version, and the effective uid."""


class UnixSocket:
    """A listening unix socket that is removed when it is closed.

    The file beside it whose name ends in ``.lock`` is held locked meanwhile, so that of two engines started at once
    one gets the socket and the other is told. It stays behind: removing a lock file is a race of its own.

    :param path: where; the folder is made with mode 0700 if it is missing, the socket has mode 0600.
    :raises ListenFailed: an engine, or something else, is there already, or the place cannot be written.
    :raises NotPrivate: others could put something else in its place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            safe_folder(path.parent)
            self._lock = open_private(Path(f"{path}.lock"), os.O_RDWR)
        except OSError as error:
            raise _failed(path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._clear()
            self.socket = self._bind()
        except BlockingIOError as error:
            os.close(self._lock)
            raise _taken(path) from error
        except OSError as error:
            os.close(self._lock)
            raise _failed(path, error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def _clear(self) -> None:
        """Removes the socket of an engine that died; anything else found there is left alone."""
        try:
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise ListenFailed(f"{self.path} is in the way: it is not a socket", "move it, or choose another path")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(ANSWER_PATIENCE)
            try:
                probe.connect(str(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
            else:
                raise _taken(self.path)

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(str(self.path))
            self.path.chmod(FILE_MODE)  # before listening, so that nobody can connect in between
            self._identity = _identity(self.path)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Stops listening and removes the socket's file, unless another has taken its place; safe to call twice."""
        self.socket.close()
        if self._lock < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()
        os.close(self._lock)
        self._lock = -1


def peer_uid(sock: socket.socket) -> int | None:
    """The user at the other end of a unix socket; None where the system does not tell."""
    uid: int | None = None
    if sys.platform == "linux":
        uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    elif sys.platform == "darwin":
        uid = _XUCRED.unpack_from(sock.getsockopt(0, _LOCAL_PEERCRED, 76))[1]
    return uid


def peer_pid(sock: socket.socket) -> int | None:
    """The process that has connected to a unix socket; None where the system does not tell."""
    pid: int | None = None
    if sys.platform == "linux":
        pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    elif sys.platform == "darwin":
        pid = struct.unpack("i", sock.getsockopt(0, _LOCAL_PEERPID, 4))[0]
    return pid or None  # 0: it is in a container of its own, and its numbers mean nothing here


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _taken(path: Path) -> ListenFailed:
    return ListenFailed(
        f"an engine runs already at {path}", "attach to it with: tunnelconsole; or choose another --socket"
    )


def _failed(path: Path, error: OSError) -> ListenFailed:
    return ListenFailed(
        f"the control socket {path} cannot be made: {error.strerror or error}", "choose another with engine.control"
    )
