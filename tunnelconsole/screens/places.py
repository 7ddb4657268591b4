"""Where the operator is, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tunnelconsole.screens.filtering import Filter
from tunnelconsole.screens.keys import Screen

DEEPEST = 50
"""Places remembered to go back to; nobody finds the way back through more."""


@dataclass(frozen=True)
class Place:
    """A screen, narrowed to one service or session where something was drilled into."""

    screen: Screen
    service: str = ""
    session: str = ""
    request: str = ""
    """The one that is shown, on the screen of one request."""
    attempt: str = ""
    """The one that is shown, on the screen of one hole punch."""
    token: str = ""
    """The one that is shown, on the screen of one token; on that of sessions, whose alone are."""
    filter: Filter = field(default_factory=Filter)

    @property
    def narrowed(self) -> bool:
        """True when it shows only what belongs to one service, session or token."""
        return bool(self.service or self.session or self.token)


class Trail:
    """The place that is shown, and those it was reached from."""

    def __init__(self, start: Place) -> None:
        self._places = [start]

    @property
    def here(self) -> Place:
        """The place that is shown."""
        return self._places[-1]

    @property
    def depth(self) -> int:
        """How many places one can go back."""
        return len(self._places) - 1

    def go(self, place: Place) -> None:
        """Shows another place; the present one is where Esc leads back to."""
        if place != self.here:
            self._places.append(place)
            del self._places[:-DEEPEST]

    def filter(self, text: str) -> None:
        """Narrows the present place to rows that match."""
        self._places[-1] = replace(self.here, filter=Filter(text))

    def back(self) -> bool:
        """Clears the filter, or else goes back a place; False when there is nothing to go back to."""
        if self.here.filter.text:
            self.filter("")
            return True
        if self.depth:
            self._places.pop()
            return True
        return False
