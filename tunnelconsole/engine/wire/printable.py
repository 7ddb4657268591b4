"""What somebody else wrote, fit to be shown on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a ``?`` for each character that is not to be seen: controls, bidirectional marks, odd spaces.

    A terminal would do what control characters say, and show other text than there is for the marks.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)
