"""The filter of a table: words that a row must have, or must not have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Filter:
    """What the operator typed after ``/``.

    Every word has to be somewhere in the row, in any case. With ``!`` in front it is the other way round: rows that
    have all of the words are hidden. Examples::

        home 443        rows with both
        !example.com    rows without
    """

    text: str = ""

    @property
    def inverse(self) -> bool:
        """True when it hides what it finds."""
        return self.text.startswith("!")

    @property
    def words(self) -> list[str]:
        """What is looked for, in lower case."""
        return self.text.removeprefix("!").lower().split()

    def __bool__(self) -> bool:
        """True when it hides anything: a lone ``!`` or blank does not."""
        return bool(self.words)

    def accepts(self, haystack: str) -> bool:
        """True when a row of this text is to be shown.

        :param haystack: the row's text in lower case.
        """
        words = self.words
        return not words or all(word in haystack for word in words) != self.inverse
