"""Tokens, as they travel over the control socket; see :mod:`tunnelconsole.control.messages`."""

from __future__ import annotations

from typing import Any

import msgspec


class SecretRow(msgspec.Struct, frozen=True, kw_only=True):
    """One secret of a token, without the secret."""

    created: float
    expires: float | None
    """When it stops being good, because another has taken its place; None while the token is."""


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it stands."""

    name: str
    state: str
    """``active``, ``disabled``, ``expired``, ``used`` (one for a single use) or ``exhausted`` (its bytes of today)."""
    created: float
    expires: float | None
    """Unix seconds; None: never."""
    last_used: float | None
    """When somebody last came in with it; None: never."""
    sessions: int
    channels: int
    bytes_today: int
    """Since midnight in UTC."""
    rights: dict[str, Any]
    """What limits it, by key: ``kinds``, ``hosts``, ``ports``, ``chids``, ``rooms``, ``destinations``, ``clients``,
    ``rate``, ``sessions``, ``channels``, ``requests``, ``bytes_per_day``, ``one_time``."""
    secrets: list[SecretRow]
    """The oldest first; several while a rotation is under way."""


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """Tokens, by name."""

    rows: list[TokenRow]


class TokenMade(msgspec.Struct, frozen=True, kw_only=True, tag="token-made"):
    """A token has a new secret, which is told now and never again."""

    name: str
    secret: str
    text: str
    """What was done, in one sentence, without the secret."""


class GetTokens(msgspec.Struct, frozen=True, tag="get-tokens"):
    """Answered with :class:`Tokens`; the one of this name when one is given."""

    name: str = ""


class CreateToken(msgspec.Struct, frozen=True, tag="create-token"):
    """Makes a token; answered with :class:`TokenMade`."""

    name: str
    rights: dict[str, Any]
    """As in :class:`TokenRow`; rates, sizes and durations may be text, as in the configuration."""
    expires: float | str | None = None
    """Unix seconds; None: never; or written: ``90d`` from now on, ``2026-12-31 18:00`` in UTC, ``never``."""


class ChangeToken(msgspec.Struct, frozen=True, tag="change-token"):
    """Changes a token, and ends those sessions that it does not allow any more."""

    name: str
    rights: dict[str, Any] = {}
    """What is given is changed; None takes a limit away."""
    expires: float | str | msgspec.UnsetType | None = msgspec.UNSET
    """As in :class:`CreateToken`; left out: as it is."""
    disabled: bool | None = None


class RotateToken(msgspec.Struct, frozen=True, tag="rotate-token"):
    """Gives a token another secret; answered with :class:`TokenMade`."""

    name: str
    overlap: float | str | None = None
    """Seconds for which the old one stays good, or a duration such as ``24h``; None: a day."""


class RevokeToken(msgspec.Struct, frozen=True, tag="revoke-token"):
    """Takes a token away for good, and ends its sessions."""

    name: str
