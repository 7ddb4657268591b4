"""The columns and facts that services, sessions and channels share: what they move, and since when."""

from __future__ import annotations

from typing import Any, Protocol

from tunnelconsole.control import figures
from tunnelconsole.screens import cells
from tunnelconsole.screens.columns import Column
from tunnelconsole.screens.pane import Fact, Scene
from tunnelconsole.screens.spans import Line, Span


class Measured(Protocol):
    """A row with meters; see :mod:`tunnelconsole.control.messages` for what they count."""

    @property
    def since(self) -> float: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def rate_in(self) -> float: ...
    @property
    def rate_out(self) -> float: ...


def _figure(key: str, title: str, width: int, rank: int, cell: Any, sort: Any) -> Column[Any]:
    return Column(key, title, cell, sort, width, rank=rank, right=True, falling=True)


def rates(rank: int) -> tuple[Column[Any], Column[Any]]:
    """What moves now, both ways."""
    return (
        _figure("rate_in", "IN/S", 8, rank, lambda row, _: cells.rate(row.rate_in, "in"), lambda row: row.rate_in),
        _figure("rate_out", "OUT/S", 8, rank, lambda row, _: cells.rate(row.rate_out, "out"), lambda row: row.rate_out),
    )


def totals(rank: int) -> tuple[Column[Any], Column[Any]]:
    """What has moved so far, both ways."""
    return (
        _figure("bytes_in", "BYTES IN", 9, rank, lambda row, _: cells.size(row.bytes_in), lambda row: row.bytes_in),
        _figure(
            "bytes_out", "BYTES OUT", 10, rank, lambda row, _: cells.size(row.bytes_out), lambda row: row.bytes_out
        ),
    )


def count(key: str, title: str, rank: int) -> Column[Any]:
    """How many there are of something that a row has a number of."""
    return _figure(key, title, 5, rank, lambda row, _: cells.number(getattr(row, key)), lambda row: getattr(row, key))


def age(rank: int) -> Column[Any]:
    """How long it has been so; rising, so the youngest first."""
    return Column(
        "since", "AGE", lambda row, now: cells.age(row.since, now), lambda row: -row.since, 6, rank=rank, right=True
    )


def moved(row: Measured) -> Fact:
    """What has moved so far."""
    return Fact("moved", cells.both_ways(figures.size(row.bytes_in), figures.size(row.bytes_out)))


def moving(row: Measured) -> Fact:
    """What moves now."""
    return Fact("now", cells.flow(row.rate_in, row.rate_out))


def since(row: Measured, scene: Scene) -> Fact:
    """Since when, and how long that is."""
    return Fact("since", ago(row.since, scene))


def ago(time: float, scene: Scene) -> Line:
    """A moment, and how long ago it was."""
    return (
        Span(figures.moment(time, scene.now, scene.zone)),
        Span(f", {figures.duration(scene.now - time)} ago", "dim"),
    )
