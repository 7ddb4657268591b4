"""Tokens at work: what one has moved, who is in with it, and whether it is good for more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tunnelconsole.engine.rates import Allowance, RateSettings
from tunnelconsole.engine.tokens.rights import System, TokenRights
from tunnelconsole.engine.transport.pacing import Pace

if TYPE_CHECKING:
    from tunnelconsole.engine.sessions import Session

USE_NOTED: Final = 60.0
"""Seconds between two notes of a token's last use in the store: people ask for the day, not for the second."""


WITHDRAWN: Final = "the secret of the token was replaced"
"""Why a secret proves nothing any more."""


def today(now: float) -> str:
    """The day in UTC of a Unix time, ``2026-12-01``: what a day's bytes are counted by."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


class Token:
    """A credential as it stands.

    :param name: the identity of whoever proves it.
    """

    __slots__ = (
        "allowance",
        "channels",
        "created",
        "day",
        "day_bytes",
        "disabled",
        "expires",
        "last_used",
        "name",
        "pace",
        "revoked",
        "rights",
        "sessions",
        "withdrawn",
    )

    def __init__(self, name: str, rights: TokenRights, created: float, expires: float | None = None) -> None:
        self.name = name
        self.created = created
        self.expires = expires
        """Unix seconds from which on it is good for nothing; None: never."""
        self.disabled = False
        """Whether it is good for nothing until somebody says otherwise; so is one for a single use that was used."""
        self.revoked = False
        """Whether it was taken away for good: who has proved it before, and is not in yet, shall not come in."""
        self.withdrawn: set[bytes] = set()
        """Ids of its secrets that prove nothing any more, for the same reason."""
        self.last_used: float | None = None
        self.day = ""
        self.day_bytes = 0
        """Bytes moved on that day."""
        self.sessions: dict[Session, Grant] = {}
        """Who is in with it, and by what."""
        self.channels = 0
        """Channels open in these sessions."""
        self.pace: Pace | None = None
        self.set_rights(rights)

    def set_rights(self, rights: TokenRights) -> None:
        """Gives it other rights; a rate holds at once for the channels there are."""
        self.rights = rights
        if self.pace is None or rights.rate is None:
            self.pace = Pace(rights.rate) if rights.rate else None
        else:
            self.pace.set_rate(rights.rate)
        self.allowance = Allowance(RateSettings(requests=rights.requests)) if rights.requests else None

    @property
    def used_up(self) -> bool:
        """Whether it was good for one session, and has been used."""
        return self.rights.one_time and self.disabled and self.last_used is not None

    def is_over(self, now: float) -> str:
        """Why it lets nobody in at ``now`` (Unix seconds), in words for its holder; "" while it does."""
        if self.used_up:
            return "the token was for one use, and has been used"
        return self.ends(now)

    def ends(self, now: float) -> str:
        """Why nobody may stay in with it at ``now`` (Unix seconds), in words for its holder; "" while they may.

        Who is in by the one use that it was for may stay, as long as nothing else is against it.
        """
        if self.revoked:
            return "the token was revoked"
        if self.disabled and not self.used_up:
            return "the token is disabled"
        if self.expires is not None and now >= self.expires:
            return "the token has expired"
        if self.bytes_left(now) == 0:
            return f"the token's {self.rights.bytes_per_day} bytes of today are used up"
        return ""

    def bytes_left(self, now: float) -> int | None:
        """Bytes that it may still move today; None for as many as it likes."""
        most = self.rights.bytes_per_day
        if not most:
            return None
        return max(0, most - self.day_bytes) if self.day == today(now) else int(most)

    def count(self, size: int, now: float) -> None:
        """Counts bytes that have been moved."""
        day = today(now)
        if day != self.day:
            self.day, self.day_bytes = day, 0
        self.day_bytes += size


class Grant:
    """What somebody has proved who comes with a token: the token, and which of its secrets.

    Two that are equal prove the same.
    """

    __slots__ = ("secret_id", "token")

    def __init__(self, token: Token, secret_id: bytes) -> None:
        self.token = token
        self.secret_id = secret_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grant) and (self.token, self.secret_id) == (other.token, other.secret_id)

    def __hash__(self) -> int:
        return hash((id(self.token), self.secret_id))

    @property
    def identity(self) -> str:
        """The token's name."""
        return self.token.name

    @property
    def rights(self) -> TokenRights:
        """What the token may do now."""
        return self.token.rights

    def refuses(self, system: System | None, peer: str, now: float | None = None) -> str:
        """Why it does not open this system to ``peer``, in words for its holder; "" when it does.

        :param system: None for whichever it may open.
        :param peer: numeric ``host:port``.
        :param now: Unix seconds; None for the clock's.
        """
        rights = self.rights
        if self.secret_id in self.token.withdrawn:
            return WITHDRAWN
        if over := self.token.is_over(time.time() if now is None else now):
            return over
        if system is not None and rights.kinds and system not in rights.kinds:
            return f"the token is not for {system}"
        if not rights.grants_client(peer):
            return "the token may not be used from this address"
        return ""

    def no_room(self, *, new_session: bool, new_channel: bool) -> str:
        """Why there can be no further session or channel with it now; "" when there can."""
        token, rights = self.token, self.rights
        if new_session and rights.sessions and len(token.sessions) >= rights.sessions:
            return f"the token's limit of {rights.sessions} sessions is reached"
        if new_channel and rights.channels and token.channels >= rights.channels:
            return f"the token's limit of {rights.channels} channels is reached"
        if self.secret_id in token.withdrawn:
            return WITHDRAWN
        return token.is_over(time.time()) if new_session else token.ends(time.time())
