"""Files that are nobody else's: in a folder that nobody else can write, and never behind a symbolic link.

Who can write a folder can put a link where a file is about to be made, and have this program write, or lock, or read a
key, somewhere else with its own rights.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path

from tunnelconsole.errors import NotPrivate

FOLDER_MODE = 0o700
"""Permissions of a folder that is made here."""

FILE_MODE = 0o600
"""Permissions of a file that is made here."""

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""What others may not do with a file that says whom or what we trust."""

OTHERS_ANYTHING = stat.S_IRWXG | stat.S_IRWXO
"""What others may not do with a private key: not even read it."""


def file_exposed(
    path: Path, status: os.stat_result, forbidden: int, name: str = "", *, foreign: bool = False
) -> tuple[str, str]:
    """What others can do with a file and may not, and what mends it; twice "" where there is nothing.

    :param forbidden: :data:`OTHERS_WRITE` or :data:`OTHERS_ANYTHING`.
    :param name: of the file in the sentence; its path by default.
    :param foreign: whether it may be another user's; root's it may always be.
    """
    name = name or str(path)
    quoted = shlex.quote(str(path))
    if not foreign and status.st_uid not in (0, os.geteuid()):
        return (
            f"{name} belongs to user {status.st_uid}, and this runs as user {os.geteuid()}",
            f"chown {os.geteuid()} {quoted}",
        )
    if status.st_mode & forbidden:
        verb, mode = ("write", "go-w") if forbidden == OTHERS_WRITE else ("read", "600")
        return f"others can {verb} {name} (mode {_mode(status)})", f"chmod {mode} {quoted}"
    return "", ""


def private_folder(folder: Path) -> None:
    """Makes the folder, with mode 0700, where it is missing.

    :raises NotPrivate: it is another user's, or others can write it.
    :raises OSError: it cannot be made, or is no folder.
    """
    found = _made(folder)
    if found.st_uid != os.geteuid():
        raise NotPrivate(
            f"the folder {folder} belongs to user {found.st_uid}, and this runs as user {os.geteuid()}",
            f"make it yours with: chown {os.geteuid()} {folder}; or name another folder",
        )
    if found.st_mode & OTHERS_WRITE:
        raise NotPrivate(
            f"others can write the folder {folder} (mode {_mode(found)}), and so lead what is kept there astray",
            f"close it with: chmod go-w {folder}; or name another folder",
        )


def safe_folder(folder: Path) -> None:
    """Makes the folder, with mode 0700, where it is missing; in one like ``/run`` or ``/tmp`` what is ours is safe too.

    :raises NotPrivate: others can replace what is ours in it.
    :raises OSError: it cannot be made, or is no folder.
    """
    found = _made(folder)
    if found.st_uid not in (0, os.geteuid()):
        raise NotPrivate(
            f"the folder {folder} belongs to user {found.st_uid}, who can replace what is in it",
            "choose one that is yours, or the system's",
        )
    if found.st_mode & OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        raise NotPrivate(
            f"others can write the folder {folder} (mode {_mode(found)}), and replace what is in it",
            f"close it with: chmod go-w {folder}; or choose another folder",
        )


def _made(folder: Path) -> os.stat_result:
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    link = folder.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise NotPrivate(f"the folder {folder} is a symbolic link of user {link.st_uid}", "name the folder itself")
    return folder.stat()


def open_private(path: Path, flags: int) -> int:
    """The descriptor of a file, made with mode 0600 where it is missing.

    :param flags: as of :func:`os.open`; ``O_CREAT``, ``O_NOFOLLOW`` and ``O_CLOEXEC`` are added.
    :raises OSError: it cannot be opened, is a symbolic link, or is no file.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise OSError(error.errno, "it is a symbolic link, which is not followed", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EEXIST, "it is in the way, and no file", str(path))
    return descriptor


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"
