"""Who sends to whom at the channel servers: in order, as words, and as the marks of a matrix."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from tunnelconsole.control.messages import ChidRow
from tunnelconsole.screens.spans import Span, clean

ALL = "*"
"""What an operator writes for all others; the commands take the same."""

NAMES_TOLD = 8
"""Chids named in a sentence; more are counted."""

STEPS = (0.5, 100_000.0, 10_000_000.0)
"""Bytes per second from which a mark is the next one: something moves, somebody would notice, a line is well filled."""

ROLES = ("faint", "dim", "in", "strong")
"""How bright each mark is."""

NAMED = "·▂▅█"
"""Marks of who sends to receivers that it names, from idle to fast: heights, so that no colour is needed."""

TO_ALL = "╌░▒▓"
"""Marks of who sends to all others: shades, which make one band of a row."""

_TO_NAMED, _TO_ALL = (tuple(map(Span, marks, ROLES)) for marks in (NAMED, TO_ALL))

ITSELF = Span("╲", "line")
"""Where a sender would be its own receiver, which never is."""

HELD_UP = Span("▲", "warning")
"""It is not read any more, because this receiver does not take what there is."""

NOT_THERE = Span("?", "warning")
"""It sends to a chid that nobody has."""

UNTOLD = Span("≈", "faint")
"""Whether it sends to this one is not known: it sends to more than can all be named."""

NOBODY = Span(" ")

FRESH_LOSS = 60.0
"""Seconds for which lost bytes are news: long enough to be seen by who looks away for a moment."""


class Receiver(NamedTuple):
    """A chid at a channel server, whether somebody has it or not."""

    service: str
    chid: str


def receiver(row: ChidRow) -> Receiver:
    """A client, as one that others send to."""
    return Receiver(row.service, row.chid)


@lru_cache(maxsize=8192)
def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """What texts are ordered by as people do it: ``ch2`` before ``ch10``."""
    pieces = re.split(r"([0-9]+)", text)
    return tuple((0, int(piece), "") if at % 2 else (1, 0, piece) for at, piece in enumerate(pieces) if piece)


def _by_chid(one: Receiver) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    return one.service, natural(one.chid)


def sends(row: ChidRow, to: Receiver) -> bool:
    """Whether what ``row`` sends is for ``to``, as far as its receivers are named."""
    if row.ended or row.service != to.service or row.chid == to.chid:
        return False
    return not row.receivers or to.chid in row.receivers


def held_up(row: ChidRow) -> bool:
    """Whether it stands still because of a receiver; one that is slowed down only still moves something."""
    return bool(row.waits_for) and row.rate_in < STEPS[0]


def mark(row: ChidRow, named: Collection[str], to: Receiver, *, present: bool) -> Span:
    """What the matrix shows of a sender and a receiver.

    :param named: the receivers of ``row``, where looking one up is quick.
    :param present: whether somebody has the receiver's chid.
    """
    if row.service != to.service:
        return NOBODY
    if row.chid == to.chid:
        return ITSELF
    if row.ended:
        return NOBODY
    if named and to.chid not in named and to.chid != row.waits_for:
        return UNTOLD if row.more_receivers else NOBODY
    if not present:
        return NOT_THERE if named else NOBODY
    if row.waits_for == to.chid and held_up(row):
        return HELD_UP
    return (_TO_NAMED if named else _TO_ALL)[bisect_right(STEPS, row.rate_in)]


class Web:
    """Everybody who is at a channel server, and who sends to whom."""

    def __init__(self, rows: Sequence[ChidRow] = ()) -> None:
        self.rows = rows
        self._there = {receiver(row): row for row in rows}
        self.slow = {Receiver(row.service, row.waits_for) for row in rows if row.waits_for}
        """The receivers that somebody waits for."""

    def row(self, to: Receiver) -> ChidRow | None:
        """Who has this chid."""
        return self._there.get(to)

    def present(self, to: Receiver) -> bool:
        """Whether somebody has this chid."""
        return to in self._there

    def others(self, row: ChidRow) -> int:
        """How many others are at its server."""
        return sum(other.service == row.service for other in self.rows) - 1

    def senders(self, to: Receiver) -> Iterator[ChidRow]:
        """Who sends to this chid."""
        return (row for row in self.rows if sends(row, to))

    def targets(self, row: ChidRow) -> list[str]:
        """The chids it sends to that somebody has, in order."""
        return sorted((other.chid for other in self.rows if sends(row, receiver(other))), key=natural)

    def absent(self, row: ChidRow) -> list[str]:
        """The chids it sends to that nobody has, as far as they are named."""
        if row.ended:
            return []
        return [name for name in row.receivers if name != row.chid and not self.present(Receiver(row.service, name))]

    def count_absent(self, row: ChidRow) -> int:
        """How many chids it sends to that nobody has.

        Who is there is named first. So where one who is named is not, none of those who are only counted is either.
        """
        absent = len(self.absent(row))
        return absent + row.more_receivers if absent else 0

    def columns(self, shown: Sequence[ChidRow]) -> list[Receiver]:
        """The receivers that a matrix of these senders has, in order: those there are, then those that are not there.

        Where not all senders are shown, these are the senders themselves and whom they name.
        """
        found = set(self._there) if len(shown) == len(self.rows) else {receiver(row) for row in shown}
        named: dict[str, set[str]] = {}
        for row in shown:
            if not row.ended:
                named.setdefault(row.service, set()).update(row.receivers)
        found |= {Receiver(service, chid) for service, chids in named.items() for chid in chids}
        return sorted(found, key=lambda one: (one not in self._there, _by_chid(one)))


def names(chids: Iterable[str], total: int, most: int = NAMES_TOLD) -> str:
    """Some chids in words: ``a, b and 3 more``.

    :param total: how many there are; only the first of ``chids`` are looked at.
    """
    told = list(islice(chids, most))
    more = total - len(told)
    return ", ".join(told) + (f" and {more:,} more" if more > 0 else "")


def named(chids: Sequence[str], most: int = NAMES_TOLD) -> str:
    """These chids in words."""
    return names(chids, len(chids), most)


def destination(row: ChidRow, most: int = NAMES_TOLD) -> str:
    """To whom it sends, in words."""
    if row.ended:
        return "nobody any more"
    return names(row.receivers, len(row.receivers) + row.more_receivers, most) if row.receivers else "all others"


def written(receivers: Sequence[str]) -> str:
    """A list of receivers as an operator writes it."""
    return ", ".join(receivers) if receivers else ALL


def read_receivers(text: str, known: Collection[str]) -> list[str]:
    """The receivers that an operator has written, each once; none for all.

    They stand apart by commas or blanks. A chid may have a comma in it: one that is known is taken as it is.

    :raises ValueError: nobody is named, or all and some.
    """
    found: list[str] = []
    for word in text.split():
        whole = word if word in known else word.removesuffix(",")
        found += [whole] if whole in known else [piece for piece in word.split(",") if piece]
    if not found:
        raise ValueError(f"nobody is named; {ALL} stands for all others")
    receivers = list(dict.fromkeys(found))
    if ALL in receivers and len(receivers) > 1:
        raise ValueError(f"{ALL} stands for all others, so nobody can be named beside it")
    return [] if ALL in receivers else receivers


def complete_receivers(text: str, known: Iterable[str]) -> list[str]:
    """What a list could become when its last chid is written to its end, each as a whole line."""
    before, begun = re.fullmatch(r"(.*[\s,])?(.*)", text, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    taken = set(re.split(r"[\s,]+", before))
    return [before + chid for chid in known if chid.startswith(begun) and chid not in taken]


def heads(chids: Sequence[str], height: int) -> list[str]:
    """Each chid in at most ``height`` characters, to be written downwards: its beginning and its end."""
    return [_short(clean(chid), height) for chid in chids]


def _short(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    if room < 3:
        return text[-room:] if room > 0 else ""
    last = room // 2
    return f"{text[: room - 1 - last]}…{text[-last:]}"


class Losses:
    """Notices when clients lose bytes, which the rows only add up."""

    def __init__(self) -> None:
        self._seen = 0.0
        self._lost: dict[str, int] = {}
        self._fresh: dict[str, float] = {}

    def follow(self, rows: Sequence[ChidRow], time: float) -> None:
        """Takes in the rows as of ``time`` (Unix seconds); of who was there before, what is first seen is no news."""
        if time <= self._seen:
            return
        before, seen = self._lost, self._seen or time
        self._lost, self._seen = {row.session: lost(row) for row in rows}, time

        def had_lost(row: ChidRow) -> int:
            return before.get(row.session, 0 if row.since > seen else lost(row))

        grown = [row.session for row in rows if lost(row) > had_lost(row)]
        kept = {key: when for key, when in self._fresh.items() if key in self._lost}
        self._fresh = kept | dict.fromkeys(grown, time)

    def fresh(self, row: ChidRow, now: float) -> bool:
        """Whether it has lost some just now."""
        return now - self._fresh.get(row.session, float("-inf")) < FRESH_LOSS


def lost(row: ChidRow) -> int:
    """Bytes from it or for it that did not arrive."""
    return row.dropped + row.undelivered
