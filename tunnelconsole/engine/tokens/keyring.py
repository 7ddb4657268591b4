"""The secrets of all tokens: which proof shows which token, until when, and what is kept of each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.tokens.events import TokensUnreadable
from tunnelconsole.engine.tokens.grants import Grant, Token
from tunnelconsole.engine.tokens.rights import TokenRights
from tunnelconsole.engine.tokens.seal import SealBroken, TokenSeal
from tunnelconsole.engine.tokens.table import StoredSecret
from tunnelconsole.engine.wire.token_proof import (
    NOBODYS,
    Proof,
    is_key,
    make_secret,
    make_verifier,
    secret_id,
    secret_key,
)
from tunnelconsole.errors import NotPrivate, RequestRefused

MAX_JUMP_SECRETS: Final = 1_000
"""Secrets that jump servers can be used with: each newcomer's answer is tried with each, a microsecond apiece."""


class Held(msgspec.Struct):
    """One secret of a token."""

    grant: Grant
    stored: StoredSecret
    plain: bytes | None = None
    """The secret itself, where it is sealed and was opened, or was made in this run."""


class Keyring:
    """All secrets, by what proves them.

    :param state_dir: the folder of the key for sealed secrets.
    :param clock: returns Unix seconds.
    """

    def __init__(self, state_dir: Path, clock: Callable[[], float], bus: Bus) -> None:
        self._seal = TokenSeal(state_dir)
        self._clock = clock
        self._bus = bus
        self._held: dict[bytes, Held] = {}
        """Every secret there is, by its id."""
        self._held_by: dict[str, list[Held]] = {}
        """Those of each token, the oldest first."""
        self._replaced: set[bytes] = set()
        """Secrets that stop being good at some time, by their ids."""
        self._jump: dict[Hashable, bytes] | None = None
        self._opens_sealed = False  # True once a jump server was started, which needs them

    def __contains__(self, named: bytes) -> bool:
        """Whether there is a secret of this id."""
        return named in self._held

    def held_by(self, token: Token) -> list[Held]:
        """The secrets of a token, the oldest first."""
        return list(self._held_by.get(token.name, ()))

    def kept_of(self, token: Token) -> list[StoredSecret]:
        """What is kept of each of them."""
        return [held.stored for held in self._held_by.get(token.name, ())]

    # -- who proves one --------------------------------------------------------------------------------------------

    def prove(self, proof: Proof) -> Grant | None:
        """Whom a proof shows; None for nobody, whether the token or its secret is wrong, and after the same time."""
        held = self._held.get(proof.id)
        holds = proof.holds(held.stored.verifier if held is not None else NOBODYS)
        return held.grant if held is not None and holds and self._is_current(held) else None

    def bear(self, secret: str) -> Grant | None:
        """Whom a secret shows that was sent as it is; None for nobody, after the same time."""
        held = self._held.get(secret_id(secret))
        holds = is_key(held.stored.verifier if held is not None else NOBODYS, secret_key(secret))
        return held.grant if held is not None and holds and self._is_current(held) else None

    def _is_current(self, held: Held) -> bool:
        return held.stored.expires is None or self._clock() < held.stored.expires

    # -- what there is ---------------------------------------------------------------------------------------------

    async def make(self, rights: TokenRights) -> tuple[str, StoredSecret]:
        """Draws a secret for a token with these rights, and what is to be kept of it; it proves nothing yet.

        :raises RequestRefused: it has to be sealed for jump servers, and cannot be.
        """
        secret = make_secret(secrets.token_bytes)
        named = secret_id(secret)
        sealed = None
        if not rights.kinds or "jump" in rights.kinds:
            if sum(held.stored.sealed is not None for held in self._held.values()) >= MAX_JUMP_SECRETS:
                raise RequestRefused(
                    f"there are {MAX_JUMP_SECRETS} secrets for jump servers, and no room for more",
                    "name the kinds that it is for, without jump",
                )
            try:
                sealed = await asyncio.to_thread(self._seal.seal, secret, named)  # the first time loads the ciphers
            except (OSError, NotPrivate) as error:
                raise RequestRefused(f"the secret cannot be sealed for jump servers: {error}") from error
        return secret, StoredSecret(named, make_verifier(secret), sealed, self._clock(), None)

    def take_up(self, held: Held) -> None:
        """From now on this secret proves its token."""
        held.grant.token.withdrawn.discard(held.stored.id)
        self._held[held.stored.id] = held
        self._held_by.setdefault(held.grant.identity, []).append(held)
        if held.stored.expires is not None:
            self._replaced.add(held.stored.id)
        self._jump = None

    def let_go(self, held: Held) -> None:
        """From now on this secret proves nothing."""
        del self._held[held.stored.id]
        held.grant.token.withdrawn.add(held.stored.id)
        self._held_by[held.grant.identity].remove(held)
        self._replaced.discard(held.stored.id)
        self._jump = None

    def let_go_by(self, token: Token, end: float) -> list[tuple[Held, StoredSecret]]:
        """Lets the secrets of a token prove it until ``end``, in Unix seconds, at the latest.

        :returns: each with what was kept of it before; see :meth:`put_back`.
        """
        before = []
        for held in self.held_by(token):
            before.append((held, held.stored))
            expires = end if held.stored.expires is None else min(end, held.stored.expires)
            held.stored = msgspec.structs.replace(held.stored, expires=expires)
            self._replaced.add(held.stored.id)
        return before

    def put_back(self, new: bytes, before: list[tuple[Held, StoredSecret]]) -> None:
        """A new secret is none after all: the older ones are as they were, also those that have been let go."""
        if new in self._held:  # else another rotation has let it go
            self.let_go(self._held[new])
        for held, was in before:
            held.stored = was
            if was.id not in self._held:
                self.take_up(held)

    def replaced(self, now: float) -> list[Held]:
        """The secrets that have been good long enough, for :meth:`let_go`."""
        ending = [self._held[named] for named in self._replaced]
        self._replaced = {held.stored.id for held in ending if held.stored.expires is not None}
        return [held for held in ending if held.stored.expires is not None and held.stored.expires <= now]

    def forget(self, token: Token) -> None:
        """A token is no more, and its secrets neither."""
        for held in self._held_by.pop(token.name, []):
            del self._held[held.stored.id]
            self._replaced.discard(held.stored.id)
        self._jump = None

    # -- what jump servers need ------------------------------------------------------------------------------------

    @property
    def jump_secrets(self) -> Mapping[Hashable, bytes]:
        """The secrets that jump servers take, by grant; earlier ones once :meth:`open_sealed` was called."""
        if self._jump is None:
            self._jump = {}
            for held in self._held.values():
                kinds = held.grant.rights.kinds
                if held.plain is not None and (not kinds or "jump" in kinds) and self._is_current(held):
                    self._jump[held.grant] = held.plain
        return self._jump

    def rights_changed(self) -> None:
        """Tokens may have gained or lost the right to jump servers."""
        self._jump = None

    async def open_sealed(self) -> None:
        """Opens the secrets that jump servers need, in a thread, and those to come; loads the ciphers if need be."""
        self._opens_sealed = True
        await self.open_loaded()

    async def open_loaded(self) -> None:
        """The same for what the store has brought, where a jump server was started before that."""
        shut = [held for held in self._held.values() if held.plain is None and held.stored.sealed is not None]
        if not self._opens_sealed or not shut:
            return
        found = await asyncio.to_thread(self._unseal, [held.stored for held in shut])
        for held, opened in zip(shut, found, strict=True):
            if isinstance(opened, bytes):
                held.plain = opened
            else:
                reason = f"token {held.grant.identity} cannot be used with jump servers: {opened}; rotate it"
                self._bus.publish(TokensUnreadable(reason=reason))
        self._jump = None

    def _unseal(self, stored: list[StoredSecret]) -> list[bytes | Exception]:
        """The secrets themselves, or why they do not open; runs in a thread."""
        opened: list[bytes | Exception] = []
        for secret in stored:
            try:
                opened.append(self._seal.open(secret.sealed or b"", secret.id).encode())
            except (SealBroken, OSError, NotPrivate) as error:
                opened.append(error)
        return opened
