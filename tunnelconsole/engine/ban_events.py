"""What happens to addresses that are banned."""

from __future__ import annotations

from typing import ClassVar

from tunnelconsole.engine.events import Event, Level
from tunnelconsole.engine.floods import Cause


class AddressBanned(Event, frozen=True, kw_only=True):
    """An address has guessed too often, or an operator keeps it out."""

    type: ClassVar[str] = "address-banned"
    level: ClassVar[Level] = "warning"
    address: str
    failures: int
    """0 where it is banned by hand."""
    seconds: float
    reason: str
    """The last failure's."""

    def text(self) -> str:
        after = f"after {self.failures} failures, the last: {self.reason}" if self.failures else self.reason
        return f"banned {self.address} for {_duration(self.seconds)}, {after}"

    def flooded_by(self) -> Cause:
        return Cause(self.address, "banned")


class AddressUnbanned(Event, frozen=True, kw_only=True):
    """A ban has ended."""

    type: ClassVar[str] = "address-unbanned"
    level: ClassVar[Level] = "info"
    address: str
    turned_away: int
    """Connections that were closed while it was banned."""
    cause: str

    def text(self) -> str:
        return f"the ban of {self.address} has ended: {self.cause}; {self.turned_away} connections were turned away"

    def flooded_by(self) -> Cause:
        return Cause(self.address, self.cause)


class BansRestored(Event, frozen=True, kw_only=True):
    """Bans of before a restart hold on."""

    type: ClassVar[str] = "bans-restored"
    level: ClassVar[Level] = "info"
    count: int

    def text(self) -> str:
        bans = "1 address is" if self.count == 1 else f"{self.count:,} addresses are"
        return f"{bans} still banned from before the restart"


class FailuresForgotten(Event, frozen=True, kw_only=True):
    """So many addresses fail that the failures of one had to be forgotten."""

    type: ClassVar[str] = "failures-forgotten"
    level: ClassVar[Level] = "warning"
    most: int
    """How many are counted."""

    def text(self) -> str:
        return f"the failures of an address are forgotten, because more than {self.most:,} addresses fail"

    def flooded_by(self) -> Cause:
        return Cause("addresses", "failures forgotten")


def _duration(seconds: float) -> str:
    """As the configuration has it, in the largest unit that leaves no rest."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
