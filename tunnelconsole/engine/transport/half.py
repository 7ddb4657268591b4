"""One direction of a pump: what every way of moving bytes has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol


class HalfOwner(Protocol):
    """The pump, as its directions see it."""

    def half_ended(self) -> None:
        """A direction delivered its last byte."""

    def half_broken(self, half: Half, error: OSError, *, sending: bool) -> None:
        """A direction broke, while sending or while receiving."""


class Half(ABC):
    """One direction.

    ``total`` counts the bytes read from the source; ``over`` is True once nothing more will be moved. ``source_broken``
    is set from outside when sending to the source has shown that it was reset: what it sent before is still delivered,
    but its end is not passed on as an orderly one.
    """

    __slots__ = ("over", "owner", "source_broken", "total")

    def __init__(self, owner: HalfOwner) -> None:
        self.owner = owner
        self.total = 0
        self.over = False
        self.source_broken = False

    @abstractmethod
    def start(self, early: bytes) -> None:
        """Begins; ``early`` is delivered before anything that is read."""

    @abstractmethod
    def take_back(self) -> bytes:
        """Stops at once, as :meth:`cut`, and returns what was read and not delivered, in its order."""

    @abstractmethod
    def cut(self) -> None:
        """Stops at once and forgets what was not delivered; safe to call twice."""
