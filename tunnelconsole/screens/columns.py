"""The columns of a table: what each shows, what it sorts by, and which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from tunnelconsole.screens.filtering import Filter
from tunnelconsole.screens.spans import Span

Row = TypeVar("Row")

GAP = 2
"""Blank cells between two columns."""

LUXURY = 5
"""Rank from which a column is nice to have, but not at the cost of others being cut off."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    :param key: its name for sorting and in commands.
    :param title: its heading, in capitals.
    :param cell: what it shows of a row at a moment (Unix time).
    :param sort: what rows are ordered by.
    :param narrow: cells it takes at the least.
    :param wide: cells it takes at the most, when its content asks for them; 0: the same as ``narrow``.
    :param rank: columns of a high rank are left out first where the screen is narrow; rank 0 never is.
    :param right: figures stand at the right.
    :param falling: the first press of its key sorts the largest, or newest, first.
    :param stretch: takes what the others leave over.
    :param steady: shows nothing but what its row says, and how long ago in whole seconds: for a row that is as it was
        it is looked up once a second, so that these may be behind by less than one.
    """

    key: str
    title: str
    cell: Callable[[Row, float], Span]
    sort: Callable[[Row], Any]
    narrow: int
    wide: int = 0
    rank: int = 0
    right: bool = False
    falling: bool = False
    stretch: bool = False
    steady: bool = True


class Placed(NamedTuple):
    """A column with its place on the line."""

    at: int
    """Cells from the left edge."""
    width: int
    column: int
    """Which of the table's columns it is."""


def place(columns: Sequence[Column[Row]], natural: Sequence[int], width: int) -> tuple[Placed, ...]:
    """Which columns fit into ``width`` cells, and where.

    :param natural: the widest content of each column seen so far.
    """
    chosen = _chosen(columns, natural, width)
    if not chosen:
        return ()
    widths = {index: columns[index].narrow for index in chosen}
    spare = width - sum(widths.values()) - GAP * (len(chosen) - 1)
    for index in sorted(chosen, key=lambda index: columns[index].rank):
        column = columns[index]
        wanted = min(max(column.wide, column.narrow), max(natural[index], column.narrow)) - widths[index]
        taken = max(0, min(wanted, spare))
        widths[index] += taken
        spare -= taken
    stretched = next((index for index in chosen if columns[index].stretch), None)
    if stretched is not None:
        widths[stretched] += max(0, spare)
    elif spare < 0:
        widths[chosen[0]] = max(1, widths[chosen[0]] + spare)
    placed, at = [], 0
    for index in chosen:
        placed.append(Placed(at, widths[index], index))
        at += widths[index] + GAP
    return tuple(placed)


def _chosen(columns: Sequence[Column[Row]], natural: Sequence[int], width: int) -> list[int]:
    """The columns that fit, taken by rank; in the order of the table.

    Up to rank :data:`LUXURY` they have to fit at their narrowest; beyond, a column comes only where those before it
    have the width they ask for.
    """
    kept: list[int] = []
    narrowest = asked = -GAP
    for index in sorted(range(len(columns)), key=lambda index: columns[index].rank):
        column = columns[index]
        before = asked if column.rank >= LUXURY else narrowest
        if column.rank and before + GAP + column.narrow > width:
            break
        narrowest += GAP + column.narrow
        asked += GAP + max(column.narrow, min(column.wide, natural[index]))
        kept.append(index)
    return sorted(kept)


@dataclass(frozen=True)
class Order:
    """How a table is sorted."""

    column: str
    falling: bool

    def pressed(self, column: Column[Any]) -> Order:
        """The order after the key of ``column``: by it, or the other way round where it is so already."""
        if column.key == self.column:
            return Order(self.column, not self.falling)
        return Order(column.key, column.falling)


def arrange(
    rows: Iterable[Row],
    columns: Sequence[Column[Row]],
    order: Order,
    narrowing: Filter,
    haystack: Callable[[Row], str],
    identity: Callable[[Row], Any],
) -> list[Row]:
    """The rows to show, in order; rows that are equal in it keep theirs by identity, so that nothing flutters."""
    shown = [row for row in rows if narrowing.accepts(haystack(row).lower())] if narrowing else list(rows)
    shown.sort(key=identity)
    column = next((column for column in columns if column.key == order.column), None)
    if column is not None:
        shown.sort(key=column.sort, reverse=order.falling)
    return shown
