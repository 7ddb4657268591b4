"""Whom to meet, and who is told of it: what can be said of a pair without the ciphers that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunnelconsole.engine.settings import HostPort, Secret, TLSSettings
from tunnelconsole.engine.wire.punch import MAX_ROOM

if TYPE_CHECKING:
    from tunnelconsole.engine.services.punch.carrier import Carrier
    from tunnelconsole.engine.wire.punch_offer import Mode, Offer


def wrong_with_room(room: str) -> str:
    """What is wrong with the name of a room; empty where it can be one."""
    if 1 <= len(room) <= MAX_ROOM and room.isprintable():
        return ""
    return f"must have 1 to {MAX_ROOM} characters, all of them printable"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Whom to meet, and where."""

    server: HostPort
    room: str
    secret: Secret
    mode: Mode
    connect: HostPort | None = None
    tls: TLSSettings | None = None
    direct: bool = True
    """False stays on the relay."""
    timeout: float = 10.0
    """Seconds for the rendezvous to be reached."""
    token: Secret | None = None
    """What we prove to the rendezvous; None: nothing."""


class PairingUser:
    """Whoever uses the link; the base of those who care about some news only."""

    def linked(self, carrier: Carrier, offer: Offer, seen: str, *, leads: bool) -> None:
        """There is a new link.

        :param offer: what the other end has said of itself.
        :param seen: the host from which the rendezvous sees it; empty when it has not said.
        :param leads: whether this end leads the link.
        """

    def moved(self, kind: str) -> None:
        """The link's path is of this kind now; empty: it has none."""

    def unlinked(self, reason: str) -> None:
        """The link is over."""

    def seated(self) -> None:
        """We have a seat in the room."""

    def warned(self, reason: str) -> None:
        """Something that people should know."""
