"""The key by which clients know this server: Ed25519, and nobody else's to read."""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh

from tunnelconsole.engine.private_files import OTHERS_ANYTHING, file_exposed, open_private, private_folder
from tunnelconsole.errors import ListenFailed

ALGORITHM = "ssh-ed25519"
"""The one kind of host key: short, fast, and with nothing to choose wrongly."""

LARGEST = 64 * 1024
"""Bytes that are read of a key's file: one has four hundred."""


def load_host_key(given: Path | None, own: Path) -> asyncssh.SSHKey:
    """The host key.

    :param given: its file, where the settings name one.
    :param own: where one is otherwise, made there when it is missing.
    :raises ListenFailed: it cannot be read or made, is of another kind, is another user's, or others can read it.
    :raises NotPrivate: others could put another in its place.
    """
    path = given or own
    try:
        if given is None:
            private_folder(own.parent)
            if not own.exists():
                _make(own)
        key = asyncssh.import_private_key(_read(path))
    except OSError as error:
        raise ListenFailed(f"the host key {path} cannot be used: {error.strerror or error}", _MEND) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise ListenFailed(f"the host key {path} cannot be used: {error}", _MEND) from error
    if key.get_algorithm() != ALGORITHM:
        raise ListenFailed(f"the host key {path} is of kind {key.get_algorithm()}, not {ALGORITHM}", _MEND)
    return key


_MEND = "make one with: ssh-keygen -t ed25519 -N '' -f FILE; or leave host_key out"


def _make(path: Path) -> None:
    """Makes a key, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(open_private(fresh, os.O_WRONLY | os.O_EXCL), "wb") as file:
        file.write(asyncssh.generate_private_key(ALGORITHM).export_private_key())
    fresh.replace(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        what, mend = file_exposed(path, os.fstat(file.fileno()), OTHERS_ANYTHING, f"the host key {path}")
        if what:
            raise ListenFailed(
                f"{what}, so somebody else may pretend to be this server",
                f"make a new one; or, if nobody has read it, run: {mend}",
            )
        return file.read(LARGEST)
