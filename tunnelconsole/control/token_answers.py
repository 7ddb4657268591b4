"""What is answered to requests about tokens."""

from __future__ import annotations

import time
from typing import Any

from tunnelconsole.control.messages import Done, Request
from tunnelconsole.control.tokens import (
    ChangeToken,
    CreateToken,
    GetTokens,
    RevokeToken,
    RotateToken,
    SecretRow,
    TokenMade,
    TokenRow,
    Tokens,
)
from tunnelconsole.engine.grants import Token, today
from tunnelconsole.engine.token_rights import decode_rights, encode_rights
from tunnelconsole.engine.tokens import DEFAULT_OVERLAP
from tunnelconsole.engine.tokens import Tokens as Register
from tunnelconsole.errors import RequestRefused


async def answer_about_tokens(register: Register, request: Request) -> Tokens | TokenMade | Done | None:
    """The answer; None where the request is not about tokens.

    :raises RequestRefused: it cannot be done.
    """
    match request:
        case GetTokens(name):
            found = [register.find(name)] if name else sorted(register, key=lambda token: token.name)
            return Tokens([token_row(register, token) for token in found])
        case CreateToken(name, given, expires):
            secret = await register.create(name, _rights(given), expires=expires)
            return TokenMade(name=name, secret=secret, text=f"token {name} created")
        case RotateToken(name, overlap):
            seconds = DEFAULT_OVERLAP if overlap is None else overlap
            secret = await register.rotate(name, overlap=seconds)
            until = f"stays good for {seconds:g} s" if seconds > 0 else "is good for nothing any more"
            return TokenMade(name=name, secret=secret, text=f"token {name} rotated; what it had before {until}")
        case ChangeToken(name, given, expires, disabled):
            rights = _rights(encode_rights(register.find(name).rights) | given) if given else None
            return Done(await register.change(name, rights=rights, expires=expires, disabled=disabled))
        case RevokeToken(name):
            return Done(await register.revoke(name))
        case _:
            return None


def _rights(given: dict[str, Any]) -> Any:
    try:
        return decode_rights({key: value for key, value in given.items() if value is not None})
    except ValueError as error:
        raise RequestRefused(f"a token cannot have these rights: {error}") from error


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
        secrets=[SecretRow(created=secret.created, expires=secret.expires) for secret in register.secrets_of(token)],
    )


def _state(token: Token, now: float) -> str:
    if token.used_up:
        return "used"
    if token.disabled:
        return "disabled"
    if token.expires is not None and now >= token.expires:
        return "expired"
    return "exhausted" if token.bytes_left(now) == 0 else "active"
