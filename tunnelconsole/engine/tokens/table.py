"""The tables of tokens in the store; see :mod:`tunnelconsole.engine.schema`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec


class StoredSecret(msgspec.Struct, frozen=True):
    """One secret of a token, as it is kept; see :mod:`tunnelconsole.engine.wire.token_proof`."""

    id: bytes
    verifier: bytes
    sealed: bytes | None
    """The secret itself, encrypted, where a protocol needs it; see :mod:`tunnelconsole.engine.tokens.seal`."""
    created: float
    expires: float | None
    """Unix seconds from which on it proves nothing, because another has taken its place; None: while the token is."""


class StoredToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, as it is kept."""

    name: str
    rights: str
    """JSON of :func:`tunnelconsole.engine.tokens.rights.encode_rights`."""
    created: float
    expires: float | None
    disabled: bool
    last_used: float | None
    day: str
    day_bytes: int
    secrets: tuple[StoredSecret, ...]


class TokenChanges(msgspec.Struct, frozen=True):
    """What is to be written."""

    written: Sequence[StoredToken]
    removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)


def read_tokens(database: sqlite3.Connection) -> list[StoredToken]:
    """Every token, by name.

    :raises sqlite3.Error: they cannot be read.
    """
    secrets: dict[str, list[StoredSecret]] = {}
    rows = database.execute("SELECT token, id, verifier, sealed, created, expires FROM token_secrets ORDER BY created")
    for token, *fields in rows:
        secrets.setdefault(token, []).append(StoredSecret(*fields))
    rows = database.execute(
        "SELECT name, rights, created, expires, disabled, last_used, day, day_bytes FROM tokens ORDER BY name"
    )
    return [
        StoredToken(
            name=name,
            rights=rights,
            created=created,
            expires=expires,
            disabled=bool(disabled),
            last_used=last_used,
            day=day,
            day_bytes=day_bytes,
            secrets=tuple(secrets.get(name, ())),
        )
        for name, rights, created, expires, disabled, last_used, day, day_bytes in rows
    ]


def write_tokens(database: sqlite3.Connection, changes: TokenChanges) -> None:
    """Writes what has changed, within the transaction that is open.

    :raises sqlite3.Error: it cannot be written.
    """
    gone = [(name,) for name in (*changes.removed, *(token.name for token in changes.written))]
    database.executemany("DELETE FROM token_secrets WHERE token = ?", gone)
    database.executemany("DELETE FROM tokens WHERE name = ?", [(name,) for name in changes.removed])
    database.executemany(
        "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                token.name,
                token.rights,
                token.created,
                token.expires,
                token.disabled,
                token.last_used,
                token.day,
                token.day_bytes,
            )
            for token in changes.written
        ],
    )
    database.executemany(
        "INSERT INTO token_secrets VALUES (?, ?, ?, ?, ?, ?)",
        [
            (secret.id, token.name, secret.verifier, secret.sealed, secret.created, secret.expires)
            for token in changes.written
            for secret in token.secrets
        ],
    )
