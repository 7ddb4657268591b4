"""The files that SSH needs, at a server and at a client: what is wrong with them, told before a service goes down."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tunnelconsole.config.reader import Reader, key_path
from tunnelconsole.engine.private_files import OTHERS_ANYTHING, OTHERS_WRITE, file_exposed

_FILES = {
    "authorized_keys": OTHERS_WRITE,
    "host_key": OTHERS_ANYTHING,
    "identity": OTHERS_ANYTHING,
    "known_hosts": OTHERS_WRITE,
}
"""What others may not do with a file, by the key that names it."""

_MAY_BE_FOREIGN = ("known_hosts",)
"""Files that may be another user's: what a team knows of its hosts may be kept by one of it."""

_MAY_BE_MISSING = ("known_hosts",)
"""Files that OpenSSH's own programs make when there is something to put into them."""


def wrong_with(name: str, file: str) -> str:
    """What is wrong with the file that a key of this name has; empty where it can be used."""
    path = Path(file)
    if name in _MAY_BE_MISSING and not path.exists():
        return ""
    return _wrong(path, _FILES[name], foreign=name in _MAY_BE_FOREIGN)


def check_ssh_files(reader: Reader, values: Mapping[str, Any], path: str) -> None:
    """Looks at the files of ``authorized_keys`` and ``host_key``, and of the ``ssh`` table, where they are named.

    :param values: those of the service's keys that could be read.
    """
    _check(reader, values, path, ("authorized_keys", "host_key"))
    if values.get("ssh") is not None:
        table = msgspec.structs.asdict(values["ssh"])
        _check(reader, table, key_path(path, "ssh"), ("identity", "known_hosts"))


def _check(reader: Reader, values: Mapping[str, Any], path: str, names: Iterable[str]) -> None:
    for name in names:
        if values.get(name) and (sentence := wrong_with(name, values[name])):
            reader.wrong(key_path(path, name), sentence)


def _wrong(file: Path, forbidden: int, *, foreign: bool) -> str:
    try:
        status = file.stat()
    except OSError as error:
        return f"cannot read {file}: {error.strerror or error}"
    if not stat.S_ISREG(status.st_mode):
        return f"{file} is not a regular file"
    what, mend = file_exposed(file, status, forbidden, foreign=foreign)
    if what:
        return f"{what}; run: {mend}"
    if not os.access(file, os.R_OK):
        return f"cannot read {file}: Permission denied"
    return ""
