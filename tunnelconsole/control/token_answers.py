"""What is answered to requests about tokens."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from tunnelconsole.control import figures
from tunnelconsole.control.messages import Done, Request
from tunnelconsole.control.token_words import NEVER, WRONG_EXPIRY, WRONG_OVERLAP, WRONG_RIGHTS
from tunnelconsole.control.tokens import (
    ChangeToken,
    CreateToken,
    RevokeToken,
    RotateToken,
    SecretRow,
    TokenMade,
    TokenRow,
)
from tunnelconsole.engine.tokens.grants import Token, today
from tunnelconsole.engine.tokens.register import DEFAULT_OVERLAP
from tunnelconsole.engine.tokens.register import Tokens as Register
from tunnelconsole.engine.tokens.rights import decode_rights, encode_rights
from tunnelconsole.engine.units import Duration
from tunnelconsole.errors import RequestRefused

LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""Unix seconds of the last day that can be written as a date."""


def tokens_asked_for(register: Register, name: str) -> list[Token]:
    """The token of this name, or all of them, by name.

    :raises RequestRefused: there is none of this name, or it is not known which there are.
    """
    register.must_be_readable()
    return [register.find(name)] if name else sorted(register, key=lambda token: token.name)


async def carry_out_on_tokens(register: Register, request: Request) -> TokenMade | Done | None:
    """What was done; None where the request changes no token.

    :raises RequestRefused: it cannot be done.
    """
    match request:
        case CreateToken(name, given, expires):
            secret = await register.create(name, _rights(given), expires=read_expiry(expires, time.time()))
            return TokenMade(name=name, secret=secret, text=f"token {name} created")
        case RotateToken(name, overlap):
            seconds = read_overlap(overlap)
            secret = await register.rotate(name, overlap=seconds)
            before = f"stays good for {figures.duration(seconds)}" if seconds > 0 else "is good for nothing any more"
            return TokenMade(name=name, secret=secret, text=f"token {name} rotated; what it had before {before}")
        case ChangeToken(name, given, expires, disabled):
            rights = _rights(encode_rights(register.find(name).rights) | given) if given else None
            until = msgspec.UNSET if expires is msgspec.UNSET else read_expiry(expires, time.time())
            return Done(await register.change(name, rights=rights, expires=until, disabled=disabled))
        case RevokeToken(name):
            return Done(await register.revoke(name))
        case _:
            return None


def _rights(given: dict[str, Any]) -> Any:
    try:
        return decode_rights({key: value for key, value in given.items() if value is not None})
    except ValueError as error:
        raise RequestRefused(f"{WRONG_RIGHTS}{error}") from error


def read_expiry(given: float | str | None, now: float) -> float | None:
    """When a token is to expire, in Unix seconds; None for never.

    :param given: as in :class:`~tunnelconsole.control.tokens.CreateToken`.
    :raises RequestRefused: it is no time, or none that a calendar has.
    """
    if isinstance(given, str):
        given = _written_expiry(given.strip(), now)
    if given is not None and not 0 <= given <= LATEST:
        raise RequestRefused(f"{WRONG_EXPIRY}no clock shows it", f'write "{NEVER}" for a token that does not expire')
    return given


def _written_expiry(text: str, now: float) -> float | None:
    if text.lower() in ("", NEVER):
        return None
    try:
        return now + Duration.parse(text)
    except ValueError:
        pass  # a date, then
    try:
        time = datetime.fromisoformat(text.removesuffix("UTC").rstrip())
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise RequestRefused(
            f'{WRONG_EXPIRY}"{text[:64]}" is no time',
            f'write "90d" from now on, "2026-12-31 18:00" in UTC, or "{NEVER}"',
        ) from None


def read_overlap(given: float | str | None) -> float:
    """For how many seconds an old secret stays good.

    :raises RequestRefused: it is no duration.
    """
    if given is None:
        return DEFAULT_OVERLAP
    try:
        return Duration.parse(given) if isinstance(given, str) else given
    except ValueError as error:
        raise RequestRefused(f"{WRONG_OVERLAP}{error}") from None


def token_row(register: Register, token: Token) -> TokenRow:
    """A token as it stands."""
    now = time.time()
    return TokenRow(
        name=token.name,
        state=_state(token, now),
        created=token.created,
        expires=token.expires,
        last_used=token.last_used,
        sessions=len(token.sessions),
        channels=token.channels,
        bytes_today=token.day_bytes if token.day == today(now) else 0,
        rights=encode_rights(token.rights),
        secrets=[SecretRow(created=kept.created, expires=kept.expires) for kept in register.keyring.kept_of(token)],
    )


def _state(token: Token, now: float) -> str:
    if token.used_up:
        return "used"
    if token.disabled:
        return "disabled"
    if token.expires is not None and now >= token.expires:
        return "expired"
    return "exhausted" if token.bytes_left(now) == 0 else "active"
