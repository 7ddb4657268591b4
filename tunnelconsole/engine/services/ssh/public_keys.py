"""Public keys as others have written them: one that is damaged is an error of ours, whatever it does to its decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncssh
from cryptography.exceptions import UnsupportedAlgorithm


@contextmanager
def damage_told() -> Iterator[None]:
    """Turns what decoders of keys are known to raise into a ValueError.

    An RSA modulus that begins with a set bit is a negative number, for which cryptography raises OverflowError.

    :raises ValueError: the key cannot be decoded.
    """
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error) or "it is damaged") from error


def read_public_key(line: str) -> asyncssh.SSHKey:
    """The key in a line of a file.

    :raises ValueError: there is none that can be used.
    """
    with damage_told():
        return asyncssh.import_public_key(line)
