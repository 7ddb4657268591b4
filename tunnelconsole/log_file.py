"""The log of an engine in the background: one file and some older ones, none of which grows without end.

Whoever starts the engine opens the file as its standard output and error, and names it in :data:`VARIABLE`. The engine
then moves it aside when it has become large, and goes on in a new one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunnelconsole.engine.private_files import FILE_MODE, open_private, private_folder

VARIABLE = "TUNNELCONSOLE_LOG_FILE"
"""The environment variable that names the file to the engine."""

LIMIT = 8 * 1024 * 1024
"""Bytes from which on the file is moved aside: some 50,000 lines, and quickly looked through."""

OLD_KEPT = 3
"""Files kept that were moved aside, named ``.1`` for the newest and so on; with the present one 32 MiB."""


def open_log(path: Path) -> int:
    """A descriptor that appends to the log; the file is made with mode 0600, its folder with 0700.

    :raises NotPrivate: others could change what is in the folder.
    :raises OSError: it cannot be written, or is no file.
    """
    private_folder(path.parent)
    return open_private(path, os.O_WRONLY | os.O_APPEND)


class Rotation:
    """Moves the log aside when it has become large.

    :param path: of the log.
    :param descriptors: what is written through; those that lead to the file lead to its successor afterwards.
    """

    def __init__(self, path: Path, descriptors: Sequence[int]) -> None:
        self._path = path
        self._descriptors = descriptors
        self._limit = LIMIT

    def rotate_if_large(self) -> None:
        """Puts a new file in the place of one that has reached the limit, unless somebody else has moved it.

        :raises OSError: the new one cannot be made; the old one is written on, and this tried again later.
        """
        writing = os.fstat(self._descriptors[0])
        if writing.st_size < self._limit or not self._is_ours(writing):
            return
        self._limit = writing.st_size + LIMIT
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        successor = os.open(
            fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
        )
        try:
            for number in range(OLD_KEPT, 0, -1):
                newer = self._old(number - 1)
                if newer.exists():
                    newer.replace(self._old(number))
            fresh.replace(self._path)
            for descriptor in self._descriptors:
                if os.path.samestat(os.fstat(descriptor), writing):
                    os.dup2(successor, descriptor)
        finally:
            os.close(successor)
        self._limit = LIMIT

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _is_ours(self, writing: os.stat_result) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), writing)
        except FileNotFoundError:
            return False
