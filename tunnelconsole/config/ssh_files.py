"""The files that an SSH server needs: what is wrong with them, told before a service goes down."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunnelconsole.config.reader import Reader, key_path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_ssh_files(reader: Reader, values: Mapping[str, Any], path: str) -> None:
    """Looks at the files of ``authorized_keys`` and ``host_key``, where they are named.

    :param values: those of the service's keys that could be read.
    """
    for name, forbidden, mend in (("authorized_keys", _OTHERS_WRITE, "go-w"), ("host_key", _OTHERS, "600")):
        if values.get(name) and (sentence := _wrong(Path(values[name]), forbidden, mend)):
            reader.wrong(key_path(path, name), sentence)


def _wrong(file: Path, forbidden: int, mend: str) -> str:
    try:
        status = file.stat()
    except OSError as error:
        return f"cannot read {file}: {error.strerror or error}"
    if not stat.S_ISREG(status.st_mode):
        return f"{file} is not a regular file"
    if not os.access(file, os.R_OK):
        return f"cannot read {file}: Permission denied"
    if status.st_mode & forbidden:
        what = "write" if forbidden == _OTHERS_WRITE else "read"
        return f"others can {what} {file} (mode {stat.S_IMODE(status.st_mode):04o}); run: chmod {mend} {file}"
    return ""
