"""Secrets kept in files of their own: read strictly, so that one that lies open is noticed before it is used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_SECRET = 64 * 1024
"""Bytes in a secret file at most: the longest secret a peer sends is far below; more is another file by mistake."""


def read_secret_file(path: Path) -> str:
    """The secret in ``path``, without the line's end that editors leave.

    :raises ValueError: the file is missing, not a regular file, open to everyone, too long, empty or not UTF-8; the
        text says which, and never shows what is in it.
    """
    try:
        data = _read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_SECRET:
        raise ValueError(f"{path} is longer than {MAX_SECRET // 1024} KiB, which no secret is")
    try:
        secret = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None
    if not secret:
        raise ValueError(f"{path} is empty")
    return secret


def _read(path: Path) -> bytes:
    # Non-blocking, because opening a pipe nobody writes to would wait for ever; on a file it changes nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is not a regular file")
        if mode & stat.S_IRWXO:
            raise ValueError(f"{path} is open to everyone on this machine; run: chmod 600 {path}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_SECRET + 1)
    finally:
        os.close(descriptor)
