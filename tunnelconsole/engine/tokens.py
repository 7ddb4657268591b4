"""The register of tokens: who holds one may use the servers of this node, each within rights of its own.

It is the truth while the engine runs; the store gets what has changed. Whoever proves a token is given a
:class:`~tunnelconsole.engine.grants.Grant`, which is asked again for every channel and every name that is claimed.
What is taken from a token is taken from those who are in with it: revoked, disabled, expired or used up, their sessions
end at once, or at the next tick of the meters, a second later at the most.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tunnelconsole.engine.audit import AuditTrail, by_program
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.events import Crashed
from tunnelconsole.engine.grants import USE_NOTED, Grant, Token
from tunnelconsole.engine.token_events import TokenChanged, TokenOver, TokensUnreadable
from tunnelconsole.engine.token_rights import TokenRights, decode_rights, encode_rights
from tunnelconsole.engine.token_seal import SealBroken, TokenSeal
from tunnelconsole.engine.token_table import StoredSecret, StoredToken, TokenChanges
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

MAX_TOKENS: Final = 10_000
"""Tokens at once: a second's work to read at the start, and more than anybody has looked through."""

MAX_JUMP_SECRETS: Final = 1_000
"""Secrets that jump servers can be used with: each newcomer's answer is tried with each, a microsecond apiece."""

MAX_SECRETS: Final = 4
"""Secrets that one token has at once: more rotations within one overlap are a mistake."""

DEFAULT_OVERLAP: Final = 24 * 3600.0
"""Seconds that an old secret stays good beside the new one: a day to bring it to where it is used."""

SCOPE: Final = ("kinds", "hosts", "ports", "chids", "rooms", "destinations", "clients", "one_time")
"""Rights by which somebody was let in: who loses some of them comes again, and is judged again."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class _Held(msgspec.Struct):
    """One secret of a token, as the register has it."""

    grant: Grant
    stored: StoredSecret
    plain: bytes | None = None
    """The secret itself, where it is sealed and was opened, or was made in this run."""


class Tokens:
    """All tokens of the node.

    :param state_dir: the folder of the key for sealed secrets.
    :param clock: returns Unix seconds.
    :param audit: where it is written down who changes them; one of their own unless given.
    """

    def __init__(
        self, bus: Bus, state_dir: Path, clock: Callable[[], float] = time.time, audit: AuditTrail | None = None
    ) -> None:
        self.audit = audit or AuditTrail(bus)
        self._bus = bus
        self._clock = clock
        self._seal = TokenSeal(state_dir)
        self._tokens: dict[str, Token] = {}
        self._held: dict[bytes, _Held] = {}
        """Every secret there is, by its id."""
        self._held_by: dict[str, list[_Held]] = {}
        """Those of each token, the oldest first."""
        self._in_use: set[Token] = set()
        """Tokens with which somebody may be in: those that a tick looks at."""
        self._replaced: set[bytes] = set()
        """Secrets that stop being good at some time, by their ids."""
        self._changed: set[str] = set()
        self._removed: set[str] = set()
        self._noted_bytes: dict[str, int] = {}
        self._over: set[str] = set()
        """Tokens of which it has been told that they are over."""
        self.rate_changed: Callable[[Token], None] = lambda _: None
        """Has the open channels of a token keep to the rate that it has now; the engine sets it."""
        self._jump: dict[Hashable, bytes] | None = None
        self._opens_sealed = False  # True once a jump server was started, which needs them
        self.readable = False
        """Whether the store's tokens are known: until then nobody can prove one, and none can be made."""
        self.due: Callable[[], None] = lambda: None
        """Called when something is to be written soon that nobody waits for; whoever writes sets it."""
        self.keep: Callable[[], Awaitable[str]] | None = None
        """Has what changed written now; returns why it cannot be, "" when it was. None where nothing is kept."""

    def __iter__(self) -> Iterator[Token]:
        return iter(list(self._tokens.values()))

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, name: str) -> Token:
        """The token of that name.

        :raises RequestRefused: there is none.
        """
        token = self._tokens.get(name)
        if token is None:
            raise RequestRefused(f"there is no token {name[:64]}", "`tunnelconsole token list` shows them")
        return token

    def secrets_of(self, token: Token) -> list[StoredSecret]:
        """Its secrets, the oldest first."""
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

    def vouched(self, name: str, proof: bytes) -> Grant | None:
        """What somebody holds who has proved something else that stands for a token; None where there is no such token.

        :param proof: what was proved, such as a key: tells one such session from another.
        """
        token = self._tokens.get(name)
        return None if token is None else Grant(token, proof)

    def _is_current(self, held: _Held) -> bool:
        return held.stored.expires is None or self._clock() < held.stored.expires

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

    async def open_sealed(self) -> None:
        """Opens the secrets that jump servers need, in a thread, and those to come; loads the ciphers if need be."""
        self._opens_sealed = True
        await self.open_loaded()

    async def open_loaded(self) -> None:
        """The same for what :meth:`load` has brought, where a jump server was started before that."""
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

    def used(self, grant: Grant) -> None:
        """Somebody is in with it; one for a single use is good for nothing from now on."""
        token, now = grant.token, self._clock()
        self._in_use.add(token)
        self._over.discard(token.name)  # it may be over again before a tick has seen that it was not
        if token.last_used is None or now - token.last_used >= USE_NOTED:
            self._changed.add(token.name)
        token.last_used = now
        if token.rights.one_time:
            token.disabled = True
            self._changed.add(token.name)
            self.due()

    # -- what is done to them --------------------------------------------------------------------------------------

    @by_program("create-token", says=False)
    async def create(self, name: str, rights: TokenRights | None = None, *, expires: float | None = None) -> str:
        """Makes a token; returns its secret, which is not kept as it is, and is never shown again.

        :param name: the identity of whoever will prove it: letters, digits, and ``.``, ``_``, ``@``, ``-`` between.
        :param expires: Unix seconds.
        :raises RequestRefused: there is such a token, the name cannot be, or it cannot be kept.
        """
        rights = rights or TokenRights()
        self._must_be_readable()
        if not _NAME.fullmatch(name):
            raise RequestRefused(
                f"{name[:64]!r} is not a name for a token", "it has 1 to 63 letters, digits, dots, dashes, @ and _"
            )
        if len(self._tokens) >= MAX_TOKENS:
            raise RequestRefused(f"there are {MAX_TOKENS} tokens, and no room for more", "revoke some")
        if expires is not None and expires <= self._clock():
            raise RequestRefused(f"token {name} would have expired already", "choose a time that is to come")
        token = Token(name, rights, self._clock(), expires)
        secret, stored = await self._make_secret(rights)
        if name in self._tokens:
            raise RequestRefused(f"there is a token {name} already", "change or rotate it, or choose another name")
        self._tokens[name] = token
        self._hold(token, stored, secret)
        self._changed.add(name)
        if reason := await self._kept():
            self._forget(token)
            self._changed.discard(name)
            self._removed.add(name)  # another try may be writing it just now
            raise RequestRefused(
                f"token {name} cannot be kept, so it was not made: {reason}", "mend that and repeat it"
            )
        self._bus.publish(TokenChanged(token=name, what="created"))
        return secret

    @by_program("rotate-token", says=False)
    async def rotate(self, name: str, *, overlap: float = DEFAULT_OVERLAP) -> str:
        """Gives a token another secret; returns it. Those before stay good for ``overlap`` seconds.

        When that is over, who is in by one of them is out.

        :raises RequestRefused: there is no such token, it has too many secrets, or the new one cannot be kept.
        """
        self._must_be_readable()
        token = self.find(name)
        if len(self._held_by.get(name, ())) >= MAX_SECRETS and overlap > 0:
            raise RequestRefused(f"token {name} has {MAX_SECRETS} secrets already", "wait, or rotate with overlap 0")
        secret, stored = await self._make_secret(token.rights)
        if self._tokens.get(name) is not token:
            raise RequestRefused(f"token {name} has been revoked meanwhile")
        older = list(self._held_by.get(name, ()))
        before = [held.stored for held in older]
        end = self._clock() + max(0.0, overlap)
        for held in older:
            expires = end if held.stored.expires is None else min(end, held.stored.expires)
            held.stored = msgspec.structs.replace(held.stored, expires=expires)
            self._replaced.add(held.stored.id)
        self._hold(token, stored, secret)
        self._changed.add(name)
        if reason := await self._kept():
            self._take_back(token, stored.id, list(zip(older, before, strict=True)))
            raise RequestRefused(f"the new secret of token {name} cannot be kept: {reason}", "the old one stays good")
        self._bus.publish(TokenChanged(token=name, what="rotated"))
        self._drop_old_secrets(self._clock())
        return secret

    @by_program("change-token")
    async def change(
        self,
        name: str,
        *,
        rights: TokenRights | None = None,
        expires: float | msgspec.UnsetType | None = msgspec.UNSET,
        disabled: bool | None = None,
    ) -> str:
        """Changes a token at once; returns what was done, in one sentence. What is left out stays.

        Limits change for who is in; who loses or gains a right is out, and may come again.

        :param expires: Unix seconds, or None for never.
        :raises RequestRefused: there is no such token.
        """
        token = self.find(name)
        done, end = [], ""
        if rights is not None and rights != token.rights:
            if any(getattr(rights, key) != getattr(token.rights, key) for key in SCOPE):
                end = "the rights of its token changed"
            token.set_rights(rights)
            self.rate_changed(token)
            self._jump = None
            done.append("changed")
        if expires is not msgspec.UNSET and expires != token.expires:
            token.expires = expires
            done.append("given another expiry")
        if disabled is not None and disabled != token.disabled:
            token.disabled = disabled
            done.append("disabled" if disabled else "enabled")
        if not done:
            return f"token {name} is as it was"
        self._over.discard(name)
        self._changed.add(name)
        if over := token.ends(self._clock()):
            end = over
        ended = self._end_sessions(token, end) if end else 0
        self._bus.publish(TokenChanged(token=name, what=" and ".join(done)))
        said = f"token {name} {' and '.join(done)}{_ended(ended)}{self._needs_rotation(token)}"
        return said + await self._unless_kept()

    @by_program("revoke-token")
    async def revoke(self, name: str) -> str:
        """Takes a token away for good, and ends its sessions at once; returns what was done, in one sentence.

        :raises RequestRefused: there is no such token.
        """
        token = self.find(name)
        self._forget(token)
        self._changed.discard(name)
        self._removed.add(name)
        ended = self._end_sessions(token, "its token was revoked")
        self._bus.publish(TokenChanged(token=name, what="revoked"))
        return f"token {name} revoked{_ended(ended)}" + await self._unless_kept()

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Ends who is in with a token that is over; to be called once a second."""
        now = self._clock()
        for token in list(self._in_use):
            if not token.sessions:
                self._in_use.discard(token)
            if token.day_bytes != self._noted_bytes.get(token.name, 0):
                self._noted_bytes[token.name] = token.day_bytes
                self._changed.add(token.name)
            over = token.ends(now)
            if not over:
                self._over.discard(token.name)
            elif token.name not in self._over:
                self._over.add(token.name)
                ended = self._end_sessions(token, over)
                if token.used_up or not token.disabled:
                    self._bus.publish(TokenOver(token=token.name, reason=over, sessions=ended))
        self._drop_old_secrets(now)

    def _drop_old_secrets(self, now: float) -> None:
        for named in list(self._replaced):
            held = self._held[named]
            if held.stored.expires is None:
                self._replaced.discard(named)
            elif held.stored.expires <= now:
                self._let_go(held)
                token = held.grant.token
                self._changed.add(token.name)
                self._end_sessions(token, "the secret by which it came in was replaced", held.stored.id)

    def _end_sessions(self, token: Token, reason: str, by: bytes | None = None) -> int:
        found = [session for session, grant in token.sessions.items() if by in (None, grant.secret_id)]
        for session in found:
            try:
                session.end(reason)
            except Exception as error:  # noqa: BLE001 - all the others have to end too
                self._bus.publish(Crashed.by(error, f"ending session {session.id}", session.service))
        return len(found)

    # -- the store -------------------------------------------------------------------------------------------------

    def load(self, stored: Iterable[StoredToken]) -> None:
        """Takes over what the store has; to be called once."""
        for kept in stored:
            try:
                rights = decode_rights(msgspec.json.decode(kept.rights))
            except (ValueError, msgspec.MsgspecError) as error:
                reason = f"token {kept.name} cannot be used: its rights cannot be read: {error}"
                self._bus.publish(TokensUnreadable(reason=reason))
                continue
            token = self._tokens[kept.name] = Token(kept.name, rights, kept.created, kept.expires)
            token.disabled, token.last_used = kept.disabled, kept.last_used
            token.day, token.day_bytes = kept.day, kept.day_bytes
            self._noted_bytes[kept.name] = kept.day_bytes
            for secret in kept.secrets:
                self._take_up(_Held(Grant(token, secret.id), secret))
        self._jump = None
        self.readable = True

    def all_changed(self, found: Iterable[str]) -> None:
        """The store may have another file, with tokens of these names: it is to have all of ours, and no others."""
        self._changed.update(self._tokens)
        self._removed.update(name for name in found if name not in self._tokens)

    def take_changes(self) -> TokenChanges:
        """What has changed since the last call."""
        written = [self._stored(self._tokens[name]) for name in sorted(self._changed) if name in self._tokens]
        changes = TokenChanges(written, sorted(self._removed))
        self._changed.clear()
        self._removed.clear()
        return changes

    def put_back(self, changes: TokenChanges) -> None:
        """What was taken could not be written."""
        self._changed.update(token.name for token in changes.written)
        self._removed.update(changes.removed)  # also of names that are taken again: what is written comes after

    def _stored(self, token: Token) -> StoredToken:
        return StoredToken(
            name=token.name,
            rights=msgspec.json.encode(encode_rights(token.rights)).decode(),
            created=token.created,
            expires=token.expires,
            disabled=token.disabled,
            last_used=token.last_used,
            day=token.day,
            day_bytes=token.day_bytes,
            secrets=tuple(self.secrets_of(token)),
        )

    # -- how it is done --------------------------------------------------------------------------------------------

    async def _make_secret(self, rights: TokenRights) -> tuple[str, StoredSecret]:
        secret = make_secret(secrets.token_bytes)
        named = secret_id(secret)
        sealed = None
        if not rights.kinds or "jump" in rights.kinds:
            if len(self.jump_secrets) >= MAX_JUMP_SECRETS:
                raise RequestRefused(
                    f"there are {MAX_JUMP_SECRETS} secrets for jump servers, and no room for more",
                    "name the kinds that it is for, without jump",
                )
            try:
                sealed = await asyncio.to_thread(self._seal.seal, secret, named)  # the first time loads the ciphers
            except (OSError, NotPrivate) as error:
                raise RequestRefused(f"the secret cannot be sealed for jump servers: {error}") from error
        return secret, StoredSecret(named, make_verifier(secret), sealed, self._clock(), None)

    def _hold(self, token: Token, stored: StoredSecret, secret: str) -> None:
        plain = secret.encode() if stored.sealed is not None else None
        self._take_up(_Held(Grant(token, stored.id), stored, plain))

    def _take_up(self, held: _Held) -> None:
        held.grant.token.withdrawn.discard(held.stored.id)
        self._held[held.stored.id] = held
        self._held_by.setdefault(held.grant.identity, []).append(held)
        if held.stored.expires is not None:
            self._replaced.add(held.stored.id)
        self._jump = None

    def _let_go(self, held: _Held) -> None:
        del self._held[held.stored.id]
        held.grant.token.withdrawn.add(held.stored.id)
        self._held_by[held.grant.identity].remove(held)
        self._replaced.discard(held.stored.id)
        self._jump = None

    def _take_back(self, token: Token, new: bytes, older: list[tuple[_Held, StoredSecret]]) -> None:
        """A rotation could not be kept: the older secrets are as they were, also those that a tick has dropped."""
        if self._tokens.get(token.name) is not token:
            return
        self._changed.add(token.name)  # another try may be writing it just now
        if new in self._held:  # else another rotation has dropped it
            self._let_go(self._held[new])
        for held, was in older:
            held.stored = was
            if was.id not in self._held:
                self._take_up(held)

    def _forget(self, token: Token) -> None:
        token.revoked = True
        del self._tokens[token.name]
        self._noted_bytes.pop(token.name, None)
        self._over.discard(token.name)
        self._in_use.discard(token)
        for held in self._held_by.pop(token.name, []):
            del self._held[held.stored.id]
            self._replaced.discard(held.stored.id)
        self._jump = None

    def _needs_rotation(self, token: Token) -> str:
        kinds = token.rights.kinds
        if "jump" not in kinds or any(secret.sealed is not None for secret in self.secrets_of(token)):
            return ""
        return "; rotate it before it is used with jump servers, which need a secret that is kept sealed"

    def _must_be_readable(self) -> None:
        if not self.readable:
            raise RequestRefused("the tokens that are kept cannot be read", "see the events, and mend the state folder")

    async def _kept(self) -> str:
        return await self.keep() if self.keep is not None else ""

    async def _unless_kept(self) -> str:
        reason = await self._kept()
        return f"; that cannot be written yet, and is lost if the engine ends before it can: {reason}" if reason else ""


def _ended(sessions: int) -> str:
    return f", and {sessions} session{'s' if sessions > 1 else ''} of it ended" if sessions else ""
