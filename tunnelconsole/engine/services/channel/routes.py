"""Who sends to whom: by name, or to all, and for which senders it matters when somebody comes or goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnelconsole.engine.services.channel.party import Party

FEW = 3
"""Parties up to which a change may make something one to one, or no longer: two, and one who has just come or gone.
Beyond it nobody is looked at, so that a crowd costs nothing."""


class Routes:
    """The parties that can be reached, by chid, and those that send, by whom they name.

    What changes something here returns the senders that may have become one to one with a receiver, or no longer are.
    """

    def __init__(self) -> None:
        self.present: dict[str, Party] = {}
        """Who can be sent to."""
        self._version = 0
        self._everybody: tuple[Party, ...] | None = None
        self._senders: dict[Party, None] = {}
        self._naming: dict[str, dict[Party, None]] = {}
        self._to_all: dict[Party, None] = {}

    def targets(self, sender: Party) -> tuple[Party, ...]:
        """The receivers of ``sender`` that are there; with them, ``absent`` of the sender is brought up to date.

        The sender itself may be among them, and is to be left out: all who send to all share one tuple.
        """
        if sender.version != self._version:
            sender.version = self._version
            present, named = self.present, sender.receivers
            if named:
                sender.targets = tuple(present[chid] for chid in named if chid in present)
            else:
                self._everybody = sender.targets = self._everybody or tuple(present.values())
            sender.absent = tuple(chid for chid in named if chid not in present and chid != sender.chid)
        return sender.targets

    def senders_to(self, receiver: Party) -> Iterator[Party]:
        """Who sends to ``receiver``."""
        for senders in (self._naming.get(receiver.chid, {}), self._to_all):
            yield from (sender for sender in senders if sender is not receiver)

    def count_senders(self, receiver: Party) -> int:
        """How many send to ``receiver``."""
        naming = self._naming.get(receiver.chid, {})
        return len(naming) - (receiver in naming) + len(self._to_all) - (receiver in self._to_all)

    def sole_receiver(self, sender: Party) -> Party | None:
        """The receiver of ``sender`` when it is its only one, is there, and has no other sender."""
        many = len(sender.receivers) if sender.receivers else len(self.present)
        if sender not in self._senders or many > FEW:
            return None
        others = [party for party in self.targets(sender) if party is not sender]
        if len(others) != 1 or sender.absent or self.count_senders(others[0]) != 1:
            return None
        return others[0]

    def add_receiver(self, party: Party) -> dict[Party, None]:
        """From now on ``party`` can be sent to."""
        self.present[party.chid] = party
        return self._presence_changed(party.chid)

    def remove_receiver(self, party: Party) -> dict[Party, None]:
        """From now on ``party`` cannot be sent to; safe to call twice."""
        if self.present.get(party.chid) is not party:
            return {}
        del self.present[party.chid]
        return self._presence_changed(party.chid)

    def add_sender(self, party: Party) -> dict[Party, None]:
        """From now on ``party`` sends to its ``receivers``."""
        self._senders[party] = None
        if party.receivers:
            for chid in party.receivers:
                self._naming.setdefault(chid, {})[party] = None
        else:
            self._to_all[party] = None
        return self._sending_changed(party)

    def remove_sender(self, party: Party) -> dict[Party, None]:
        """From now on ``party`` sends to nobody; safe to call twice. Its ``receivers`` may then be changed."""
        if party not in self._senders:
            return {}
        del self._senders[party]
        if not party.receivers:
            del self._to_all[party]
        for chid in party.receivers:
            naming = self._naming[chid]
            del naming[party]
            if not naming:
                del self._naming[chid]
        return self._sending_changed(party) | {party: None}

    def _presence_changed(self, chid: str) -> dict[Party, None]:
        self._version += 1
        self._everybody = None
        affected = dict(self._naming.get(chid, {}))
        return affected | self._to_all if len(self.present) <= FEW else affected

    def _sending_changed(self, party: Party) -> dict[Party, None]:
        self._version += 1
        if not party.receivers:
            return dict(self._senders) if len(self._to_all) <= FEW else {party: None}
        affected = {party: None}
        for chid in party.receivers:
            affected |= self._few(self._naming.get(chid, {}))
        return affected | self._few(self._to_all)

    def _few(self, senders: Iterable[Party]) -> dict[Party, None]:
        found = dict.fromkeys(senders)
        return found if len(found) <= FEW else {}
