"""What must hold of the tables of second factors, ``one_time_codes`` and ``passwords``, of an SSH server.

Apart from :mod:`tunnelconsole.engine.services.ssh.second_factor`, which needs ``cryptography``: reading a
configuration does not.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.settings import Secret

LEAST_SECRET = 16
"""Bytes of the secret that one-time codes are made of, at the least: 128 bits (RFC 4226, section 4, R6)."""

LONGEST_ANSWER = 1024
"""Bytes of an answer, and so of a password: far more than anybody types, and looked at in no time."""

_MAKE_ONE = "make one with: head -c 20 /dev/urandom | base32"

_SEPARATORS = str.maketrans("", "", " -=")
"""What stands between the letters where a secret is shown to be typed, and the padding at its end."""


def read_base32(secret: str) -> bytes:
    """The bytes of the secret of one-time codes: base32 (RFC 4648), in groups or not, with padding or without.

    :raises ValueError: it is not that, or too short; the text says so, and does not show it.
    """
    letters = secret.translate(_SEPARATORS)
    try:
        key = base64.b32decode(letters + "=" * (-len(letters) % 8), casefold=True)
    except ValueError:
        raise ValueError(f"it is not base32 (the letters A to Z and the digits 2 to 7); {_MAKE_ONE}") from None
    if len(key) < LEAST_SECRET:
        raise ValueError(f"it has {8 * len(key)} bits, and {8 * LEAST_SECRET} are the least; {_MAKE_ONE}")
    return key


def _usable_codes(codes: Mapping[str, Secret]) -> list[Problem]:
    found: list[Problem] = []
    keys: list[bytes] = []
    for name, secret in codes.items():
        try:
            keys.append(read_base32(secret))
        except ValueError as error:
            found.append((f"one_time_codes.{name}", str(error)))
    if len(set(keys)) < len(keys):
        found.append(("one_time_codes", "two identities have the same secret, so each could give the other's code"))
    return found


def _usable_passwords(passwords: Mapping[str, Secret]) -> list[Problem]:
    found = [
        (f"passwords.{name}", "an empty password protects nothing") for name, given in passwords.items() if not given
    ]
    for name, given in passwords.items():
        if len(given.encode(errors="surrogatepass")) > LONGEST_ANSWER:
            found.append((f"passwords.{name}", f"it is too long; at most {LONGEST_ANSWER} bytes can be given"))
    return found


def _one_factor_each(codes: Mapping[str, Secret], passwords: Mapping[str, Secret]) -> list[Problem]:
    return [
        (f"passwords.{name}", f"{name} is in one_time_codes too; leave one of the two out")
        for name in passwords
        if name in codes
    ]


SECOND_FACTOR_RULES = (
    Rule(("one_time_codes",), _usable_codes),
    Rule(("passwords",), _usable_passwords),
    Rule(("one_time_codes", "passwords"), _one_factor_each),
)
"""The rules of both tables."""
