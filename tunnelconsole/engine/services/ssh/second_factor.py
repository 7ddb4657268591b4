"""What is asked for after a key was proven: a one-time code (RFC 6238) or a password, and how often it may be wrong.

No socket and no task here. Only who has proven somebody's key is asked, so nobody else can use up that identity's
tries. What is known of tries and of codes already used lasts as long as the service runs.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

from tunnelconsole.engine.rules import broken
from tunnelconsole.engine.services.ssh.factor_rules import LONGEST_ANSWER, SECOND_FACTOR_RULES, read_base32

DIGITS = 6
"""Digits of a one-time code: what every authenticator app shows."""

STEP = 30
"""Seconds for which a one-time code stands (RFC 6238, section 5.2, and every authenticator app)."""

DRIFT = 1
"""Steps that a clock may be off, either way: what RFC 6238 recommends for the time that typing takes."""

MOST_WRONG = 5
"""Wrong answers for an identity within :data:`WINDOW`: a guess hits one of three codes in a million, so that who has
stolen a key has even odds only after most of a year of guesses, and an event tells of each."""

WINDOW = 600.0
"""Seconds for which a wrong answer counts: somebody who mistypes waits no longer than for a cup of coffee."""

CODE, PASSWORD = "one-time code", "password"
"""What an identity may have to give."""


USED = f"a {CODE} that was used already, or is older than one that was"
"""What is wrong with a code that was right: it is no guess."""


class SecondFactors:
    """Those of all identities of one server.

    :param codes: the secrets of one-time codes, in base32, by identity.
    :param passwords: by identity; nobody is in both.
    :param clock: Unix time.
    :param steady: seconds that never go back.
    :raises ValueError: a table cannot be used as it is; the text holds no secret.
    """

    def __init__(
        self,
        codes: Mapping[str, str],
        passwords: Mapping[str, str],
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        for key, sentence in broken(SECOND_FACTOR_RULES, {"one_time_codes": codes, "passwords": passwords}):
            raise ValueError(f"{key}: {sentence}")
        # SHA-1 is what authenticator apps have; its collisions are no way to a code (RFC 6194, section 3.2).
        self._codes = {identity: HOTP(read_base32(secret), DIGITS, SHA1()) for identity, secret in codes.items()}  # noqa: S303
        self._passwords = {identity: _digest(password) for identity, password in passwords.items()}
        self._clock = clock
        self._steady = steady
        self._used: dict[str, int] = {}
        """The step of the last code that each identity came in with."""
        self._wrong: dict[str, deque[float]] = {}
        """When each identity's last answers were wrong."""

    def __bool__(self) -> bool:
        """Whether there are any, so that who has none stays out."""
        return bool(self._codes or self._passwords)

    def named(self) -> dict[str, str]:
        """Who has one, and which setting says so."""
        return dict.fromkeys(self._codes, "one_time_codes") | dict.fromkeys(self._passwords, "passwords")

    def kind(self, identity: str) -> str:
        """What an identity has to give, :data:`CODE` or :data:`PASSWORD`; "" when it has neither."""
        if identity in self._codes:
            return CODE
        return PASSWORD if identity in self._passwords else ""

    def locked(self, identity: str) -> str:
        """Why an identity may not answer now; "" when it may."""
        wrong = self._recent(identity)
        if len(wrong) < MOST_WRONG:
            return ""
        wait = math.ceil(wrong[0] + WINDOW - self._steady())
        return (
            f"{identity} gave {len(wrong)} wrong answers within {WINDOW / 60:g} minutes, and is asked again in {wait} s"
        )

    def judge(self, identity: str, answer: str) -> str:
        """Why an answer does not let an identity in; "" when it does. One that is wrong counts, :data:`USED` does not.

        An identity that is locked gets nowhere with any answer, and that answer counts for nothing.
        """
        if locked := self.locked(identity):
            return locked
        if len(answer.encode(errors="surrogatepass")) > LONGEST_ANSWER:
            reason = f"an answer of more than {LONGEST_ANSWER} bytes"
        elif identity in self._codes:
            reason = self._judge_code(identity, answer)
        else:
            known = self._passwords.get(identity, b"")
            reason = "" if hmac.compare_digest(known, _digest(answer)) else f"a wrong {PASSWORD}"
        if reason and reason != USED:
            self._wrong.setdefault(identity, deque()).append(self._steady())
        elif not reason:
            self._wrong.pop(identity, None)
        return reason

    def _judge_code(self, identity: str, answer: str) -> str:
        given = "".join(answer.split()).encode(errors="surrogatepass")  # apps show them in two groups
        now = int(self._clock()) // STEP
        found = -1
        for step in range(max(0, now - DRIFT), now + DRIFT + 1):  # all of them, so that the time it takes tells nothing
            if hmac.compare_digest(self._codes[identity].generate(step), given):
                found = step  # the latest, where two are alike: it is good for nothing any more
        if found < 0:
            return f"a wrong {CODE}"
        if found <= self._used.get(identity, -1):
            return USED
        self._used[identity] = found
        return ""

    def _recent(self, identity: str) -> deque[float]:
        """When the answers were wrong that still count."""
        wrong = self._wrong.get(identity, deque())
        while wrong and wrong[0] + WINDOW <= self._steady():
            wrong.popleft()
        return wrong


def _digest(text: str) -> bytes:
    """What texts are compared by, of one length for all; however a keyboard composes its letters, they are the same."""
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode(errors="surrogatepass")).digest()
