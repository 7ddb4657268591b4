"""The register of tokens: who holds one may use the servers of this node, each within rights of its own.

It is the truth while the engine runs; the store gets what has changed. Whoever proves a token is given a
:class:`~tunnelconsole.engine.tokens.grants.Grant`, which is asked again for every channel and every name that is
claimed. What is taken from a token is taken from those who are in with it: revoked, disabled, expired or used up,
their sessions end at once, or at the next tick of the meters, a second later at the most.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from tunnelconsole.engine.audit import AuditTrail, by_program
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.events import Crashed
from tunnelconsole.engine.identities import ANONYMOUS, OTHERS
from tunnelconsole.engine.tokens.events import TokenChanged, TokenOver, TokensUnreadable
from tunnelconsole.engine.tokens.grants import USE_NOTED, Grant, Token
from tunnelconsole.engine.tokens.keyring import Held, Keyring
from tunnelconsole.engine.tokens.rights import System, TokenRights, decode_rights, encode_rights
from tunnelconsole.engine.tokens.table import StoredSecret, StoredToken, TokenChanges
from tunnelconsole.engine.wire.errors import NotAllowed
from tunnelconsole.engine.wire.token_proof import Proof, is_secret
from tunnelconsole.errors import RequestRefused

MAX_TOKENS: Final = 10_000
"""Tokens at once: a second's work to read at the start, and more than anybody has looked through."""

MAX_SECRETS: Final = 4
"""Secrets that one token has at once: more rotations within one overlap are a mistake."""

DEFAULT_OVERLAP: Final = 24 * 3600.0
"""Seconds that an old secret stays good beside the new one: a day to bring it to where it is used."""

MAX_OVERLAP: Final = 365 * 86400.0
"""Seconds of it at the most: a year, after which nobody knows any more who has the old one."""

SCOPE: Final = ("kinds", "hosts", "ports", "chids", "rooms", "destinations", "clients", "one_time")
"""Rights by which somebody was let in: who loses some of them comes again, and is judged again."""

NOT_READABLE: Final = "the tokens cannot be read at the moment; try again later"
"""Is said to who proves one meanwhile: a server that does not know must not say that a token is wrong."""

RESERVED_NAMES: Final = (ANONYMOUS, OTHERS)
"""What those are called in tables and metrics who have proved nothing, and those for whom there is no room."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


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
        self.keyring = Keyring(state_dir, self._clock, bus)
        """The secrets of the tokens."""
        self._tokens: dict[str, Token] = {}
        self._in_use: set[Token] = set()
        """Tokens with which somebody may be in: those that a tick looks at."""
        self._changed: set[str] = set()
        self._removed: set[str] = set()
        self._noted_bytes: dict[str, int] = {}
        self._over: set[str] = set()
        """Tokens of which it has been told that they are over."""
        self.rate_changed: Callable[[Token], None] = lambda _: None
        """Has the open channels of a token keep to the rate that it has now; the engine sets it."""
        self.readable = False
        """Whether the store's tokens are known: until then nobody can prove one, and none can be made."""
        self.noting = True
        """Whether what becomes of tokens is written down, as far as is known; whoever writes sets it."""
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

    # -- who proves one --------------------------------------------------------------------------------------------

    def prove(self, proof: Proof) -> Grant | None:
        """Whom a proof shows; None for nobody, whether the token or its secret is wrong, and after the same time.

        :raises NotAllowed: the tokens that are kept cannot be read, so it is not known.
        """
        if not self.readable:
            raise NotAllowed(NOT_READABLE)
        return self.keyring.prove(proof)

    def bear(self, secret: str) -> Grant | None:
        """Whom a secret shows that was sent as it is; None for nobody, after the same time.

        :raises NotAllowed: it may be one of the tokens that are kept, and they cannot be read.
        """
        if not self.readable and is_secret(secret):
            raise NotAllowed(NOT_READABLE)
        return self.keyring.bear(secret)

    def vouched(self, name: str, proof: bytes) -> Grant | None:
        """What somebody holds who has proved something else that stands for a token; None where there is no such token.

        :param proof: what was proved, such as a key: tells one such session from another.
        """
        token = self._tokens.get(name)
        return None if token is None else Grant(token, proof)

    def refuses(self, grant: Grant, system: System | None, peer: str) -> str:
        """Why a grant is not good now; "" when it is. See :meth:`~tunnelconsole.engine.tokens.grants.Grant.refuses`."""
        if grant.rights.one_time and not self.noting:
            return "a token for one session is not taken while it cannot be written down that it was used"
        return grant.refuses(system, peer)

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
        self.must_be_readable()
        if not _NAME.fullmatch(name):
            raise RequestRefused(
                f"{name[:64]!r} is not a name for a token", "it has 1 to 63 letters, digits, dots, dashes, @ and _"
            )
        if name in RESERVED_NAMES:
            raise RequestRefused(
                f"no token can be called {name}: that is what others are called", "choose another name"
            )
        if len(self._tokens) >= MAX_TOKENS:
            raise RequestRefused(f"there are {MAX_TOKENS} tokens, and no room for more", "revoke some")
        if expires is not None and not self._clock() < expires < math.inf:
            raise RequestRefused(f"token {name} would have expired already", "choose a time that is to come")
        token = Token(name, rights, self._clock(), expires)
        secret, stored = await self.keyring.make(rights)
        if name in self._tokens:
            raise RequestRefused(f"there is a token {name} already", "change or rotate it, or choose another name")
        self._tokens[name] = token
        self._take_up(token, stored, secret)
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
        self.must_be_readable()
        token = self.find(name)
        if not 0 <= overlap <= MAX_OVERLAP:
            raise RequestRefused("an old secret stays good for a year at the most", "rotate with a shorter overlap")
        if len(self.keyring.held_by(token)) >= MAX_SECRETS and overlap > 0:
            raise RequestRefused(f"token {name} has {MAX_SECRETS} secrets already", "wait, or rotate with overlap 0")
        secret, stored = await self.keyring.make(token.rights)
        if self._tokens.get(name) is not token:
            raise RequestRefused(f"token {name} has been revoked meanwhile")
        before = self.keyring.let_go_by(token, self._clock() + overlap)
        self._take_up(token, stored, secret)
        self._changed.add(name)
        if reason := await self._kept():
            if self._tokens.get(name) is token:
                self._changed.add(name)  # another try may be writing it just now
                self.keyring.put_back(stored.id, before)
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
        if isinstance(expires, float) and not math.isfinite(expires):
            raise RequestRefused(f"token {name} cannot expire at {expires}", "choose a time, or None for never")
        done, end = [], ""
        if rights is not None and rights != token.rights:
            if any(getattr(rights, key) != getattr(token.rights, key) for key in SCOPE):
                end = "the rights of its token changed"
            token.set_rights(rights)
            self.rate_changed(token)
            self.keyring.rights_changed()
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
        for held in self.keyring.replaced(now):
            self.keyring.let_go(held)
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
                self.keyring.take_up(Held(Grant(token, secret.id), secret))
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
            secrets=tuple(self.keyring.kept_of(token)),
        )

    # -- how it is done --------------------------------------------------------------------------------------------

    def _take_up(self, token: Token, stored: StoredSecret, secret: str) -> None:
        plain = secret.encode() if stored.sealed is not None else None
        self.keyring.take_up(Held(Grant(token, stored.id), stored, plain))

    def _forget(self, token: Token) -> None:
        token.revoked = True
        del self._tokens[token.name]
        self._noted_bytes.pop(token.name, None)
        self._over.discard(token.name)
        self._in_use.discard(token)
        self.keyring.forget(token)

    def _needs_rotation(self, token: Token) -> str:
        kinds = token.rights.kinds
        if "jump" not in kinds or any(secret.sealed is not None for secret in self.keyring.kept_of(token)):
            return ""
        return "; rotate it before it is used with jump servers, which need a secret that is kept sealed"

    def must_be_readable(self) -> None:
        """Makes sure that it is known which tokens there are.

        :raises RequestRefused: it is not.
        """
        if not self.readable:
            raise RequestRefused("the tokens that are kept cannot be read", "see the events, and mend the state folder")

    async def _kept(self) -> str:
        return await self.keep() if self.keep is not None else ""

    async def _unless_kept(self) -> str:
        reason = await self._kept()
        return f"; that cannot be written yet, and is lost if the engine ends before it can: {reason}" if reason else ""


def _ended(sessions: int) -> str:
    return f", and {sessions} session{'s' if sessions > 1 else ''} of it ended" if sessions else ""
