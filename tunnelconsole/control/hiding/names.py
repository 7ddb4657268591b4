"""Which names are those of secrets, in whatever way they are written, and what is hidden by its look alone."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Protocol

HIDDEN: Final = "[hidden]"
"""Stands in place of a secret."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN = re.compile(r"[^a-z0-9]+")

_SECRET = re.compile(
    r"token|secret|passw(or)?d|passphrase|passcode|credential|signature|authorization|assertion|bearer|csrf|xsrf"
    r"|(api|access|private)-?key|(access|account|app|auth|client|encryption|host|license|master|shared|subscription)key$"
    r"|sess(ion)?-?id|^saml(request|response)$|auth-?code|code-verifier"
    r"|(activation|authorization|backup|device|login|recovery|reset|security|sms|user|verification)-?codes?$"
    r"|(^|-)(auth|cookies?|cvc|cvv|jwt|mfa|otp|pass|pin|pwd|sid|sig|totp)(-|$)|(^|-)keys?$|^(code|session)$"
)
"""Names of fields, parameters, members and elements whose values are secrets; in lower case, words apart by ``-``."""

_HARMLESS = re.compile(r"(^|-)(idempotency|surrogate|cache|public|foreign|sort)-keys?$|^token-type$")
"""Names that look like those of secrets, and say nothing."""

_STATUS = re.compile(r"-?[0-9]{1,3}")
"""What stands for ``code`` where that is the number of an error and nobody's one-time code."""


class Hider(Protocol):
    """Who counts what is hidden, and looks into what stands within something else."""

    def hide(self, value: str) -> str:
        """What is shown in place of a secret; nothing where it is empty."""

    def inner(self, text: str) -> str:
        """A value of its own: JSON, a URL, a token by its look, or none of these, which is shown."""

    def plain(self, text: str, *, quoted: bool = False) -> str:
        """Text of no particular form; ``quoted`` where only what stands in quotes is a value, as in a program."""


@lru_cache(maxsize=1024)  # one body brings the same few names again and again
def words_of(name: str) -> str:
    """A name as it is compared: ``apiKey``, ``API_KEY`` and ``user[api-key]`` are all ``...api-key``."""
    return _BETWEEN.sub("-", _HUMP.sub("-", name).lower()).strip("-")


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Whether what has this name is a secret."""
    words = words_of(name)
    return _SECRET.search(words) is not None and _HARMLESS.search(words) is None


def names_secret(name: str, value: str) -> bool:
    """Whether this value of this name is a secret; the number of an error is none."""
    return is_secret(name) and not (words_of(name) == "code" and _STATUS.fullmatch(value))
