"""What somebody who logs in has proven: first a key, and then what else is asked of its identity, in this order.

What was offered proves nothing, and what was proven is void as soon as another key or user name comes in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncssh

from tunnelconsole.engine.refusals import RefusalKind
from tunnelconsole.engine.services.ssh.events import WrongAnswer
from tunnelconsole.engine.services.ssh.keys import Entry
from tunnelconsole.engine.services.ssh.second_factor import USED

if TYPE_CHECKING:
    from tunnelconsole.engine.services.ssh.connection import Door

MOST_OFFERS = 20
"""Keys that a client may offer before it is turned away: an agent has a handful, and OpenSSH takes 6."""

MOST_WRONG_HERE = 3
"""Wrong answers in one connection: as often as OpenSSH's client asks by itself (NumberOfPasswordPrompts)."""

WAIT_FOR_THE_NEXT = "That code was used already: wait for the next one."
"""Told to who logs in twice within half a minute."""

Challenge = bool | tuple[str, str, str, list[tuple[str, bool]]]
"""A question as asyncssh takes it: name, instruction, language, and prompts with whether to show answers; or False."""


class Proof:
    """That of one connection."""

    def __init__(self, door: Door, peer: str) -> None:
        self.why = "it left before it had logged in"
        """Why it has not logged in, if it leaves now."""
        self.kind: RefusalKind = "left"
        """The same as one of a few words; once a guess was wrong, that is it."""
        self.proven: Entry | None = None
        """The key whose owner this is."""
        self._door = door
        self._peer = peer
        self._offered: Entry | None = None
        """The key that was offered last and may come in; it may be anybody's."""
        self._answered = False
        """Whether the owner of the proven key has given the second factor too."""
        self._offers = 0
        self._wrong = 0
        self._hint = ""
        """What whoever is asked again should know."""

    @property
    def wanted(self) -> str:
        """The second factor of the owner of the proven key; "" where none is asked for."""
        return "" if self.proven is None or self.proven.key_only else self._door.factors.kind(self.proven.identity)

    @property
    def whole(self) -> Entry | None:
        """The key whose owner has proven all that is asked of them; None as long as nobody has."""
        return None if self.wanted and not self._answered else self.proven

    @property
    def missing(self) -> str:
        """What is not proven, in a sentence."""
        return f"{self.proven.identity} gave no {self.wanted}" if self.proven and self.wanted else "no key was proven"

    def turned_away(self, kind: RefusalKind) -> None:
        """Notes the word for why it has not logged in: a guesser does not become another by how it leaves."""
        if self.kind != "credentials":
            self.kind = kind

    def offer(self, key: bytes) -> bool:
        """Whether this key may come in, from here and now; nobody has proven it yet.

        :raises asyncssh.DisconnectError: too many were offered.
        """
        self._offered = None
        self._offers += 1
        if self._offers > MOST_OFFERS:
            self.why = f"it offered more than {MOST_OFFERS} keys"
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many keys were offered")
        entry = self._door.keys.find(key)
        if entry is None:
            self.why = "none of its keys is in authorized_keys"
            self.turned_away("credentials")
        elif refused := self._door.judge(entry, self._peer):
            self.why = refused
            self.turned_away("not_allowed")
        else:
            self._offered = entry
        return self._offered is not None

    def prove(self) -> None:
        """Notes that the key that was offered last is proven: its signature was verified."""
        self.forget()
        self.proven = self._offered
        if self.wanted:
            self.why = self.missing

    def forget(self) -> None:
        """Makes void what was proven; wrong answers count on."""
        self.proven = None
        self._answered = False

    def ask(self) -> Challenge:
        """What to ask the owner of the proven key; False for nothing.

        :raises asyncssh.DisconnectError: too many answers were wrong.
        """
        if self.proven is None or not self.wanted:
            return False
        if locked := self._door.factors.locked(self.proven.identity):
            raise self._no_more(locked)
        return "", self._hint, "", [(f"{self.wanted.capitalize()}: ", False)]

    def answer(self, given: Sequence[str]) -> bool:
        """Whether this lets the owner of the proven key in.

        :raises asyncssh.DisconnectError: too many answers were wrong.
        """
        if self.proven is None or not self.ask():
            return False
        identity = self.proven.identity
        answer = given[0] if len(given) == 1 else ""  # one question was asked; no or two answers are a wrong one
        if reason := self._door.factors.judge(identity, answer):
            bus, service = self._door.server.node.bus, self._door.server.name
            bus.publish(WrongAnswer(service=service, peer=self._peer, identity=identity, reason=reason))
            self.why = f"{identity} gave {reason}"
            self.turned_away("credentials")
            self._hint = WAIT_FOR_THE_NEXT if reason == USED else ""
            self._wrong += 1
            if self._wrong >= MOST_WRONG_HERE:
                raise self._no_more(f"{identity} gave {self._wrong} wrong answers in one connection")
            return False
        entry = self._door.keys.find(self.proven.key)  # again: the file may have changed while somebody typed
        if entry is None or entry.identity != identity or self._door.judge(entry, self._peer):
            self.forget()
            self.why = f"the key of {identity} opens nothing any more"
            self.turned_away("not_allowed")
            return False
        self.proven, self._answered = entry, True
        return True

    def _no_more(self, reason: str) -> asyncssh.DisconnectError:
        self.why = reason
        self.turned_away("credentials")
        return asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, reason)
