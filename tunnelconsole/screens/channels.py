"""The channels: which streams are open, where they lead, and how fast they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control.messages import ChannelRow, Status
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span

SESSIONS_FOLLOWED = 1000
"""Sessions up to which they are watched too, to say of one whether it has ended; more would double the traffic."""


def columns() -> tuple[Column[ChannelRow], ...]:
    """The columns of a table of channels, from the left."""
    return (
        Column("label", "LEADS TO", lambda row, _: Span(row.label or row.id, "strong"), lambda row: row.label, 18, 60),
        Column("peer", "PEER", lambda row, _: Span(row.peer), lambda row: row.peer, 20, 46, rank=3),
        Column("service", "SERVICE", lambda row, _: Span(row.service), lambda row: row.service, 8, 24, rank=2),
        Column("identity", "IDENTITY", lambda row, _: Span(row.identity), lambda row: row.identity, 10, 30, rank=9),
        *measures.rates(rank=1),
        *measures.totals(rank=6),
        measures.age(rank=5),
        Column("path", "PATH", lambda row, _: Span(row.path, "dim"), lambda row: row.path, 6, rank=7),
        Column("id", "ID", lambda row, _: Span(row.id, "faint"), lambda row: row.id, 8, 20, rank=8),
    )  # fmt: skip


class ChannelsPane(TablePane[ChannelRow]):
    """Open streams: all, of one service, or of one session."""

    screen_name: ClassVar[Screen] = "channels"
    title = "Channels"
    noun = ("channel", "channels")
    first_order = Order("rate_in", falling=True)

    def topics(self, status: Status | None) -> list[str]:
        few = status is not None and status.sessions <= SESSIONS_FOLLOWED
        return ["services", "channels", "events", *(["sessions"] if few else [])]

    def columns(self) -> Sequence[Column[ChannelRow]]:
        return columns()

    def identity(self, row: ChannelRow) -> str:
        return row.id

    def haystack(self, row: ChannelRow) -> str:
        return f"{row.label} {row.service} {row.session} {row.peer} {row.identity} {row.path} {row.id}"

    def rows_of(self, scene: Scene) -> Sequence[ChannelRow] | None:
        rows, place = scene.picture.channels, scene.place
        if rows is None or not place.narrowed:
            return rows
        return [
            row
            for row in rows
            if place.session in ("", row.session) and (place.session or row.service == place.service)
        ]

    def empty(self, scene: Scene) -> list[Line]:
        place = scene.place
        if place.narrowed:
            owner = f"Session {place.session}" if place.session else place.service
            gone = place.session and scene.picture.sessions is not None and scene.picture.session(place.session) is None
            why = "It has ended." if gone else "One shows here as soon as it opens one."
            return [
                (),
                (Span(f"{owner} has no channel open.", "strong"),),
                (Span(why, "dim"),),
                (Span("Esc", "key"), Span(" goes back", "dim")),
            ]
        return [
            (),
            (Span("No channel is open.", "strong"),),
            (Span("One shows here for every stream that goes through a service, while it lasts.", "dim"),),
            (Span("3", "key"), Span(" shows who is attached", "dim")),
        ]

    def facts(self, row: ChannelRow, scene: Scene) -> list[Fact]:
        return [
            Fact("leads to", (Span(row.label, "strong"),)),
            Fact("peer", (Span(row.peer),)),
            Fact("service", (Span(row.service), Span(f"  session {row.session}", "dim"))),
            measures.since(row, scene),
            measures.moving(row),
            measures.moved(row),
            Fact("path", (Span(row.path), Span(PATHS.get(row.path, ""), "dim"))),
            Fact("id", (Span(row.id, "dim"),)),
        ]  # fmt: skip

    def value_of(self, row: ChannelRow) -> Value:
        return Value("label", row.label) if row.label else Value("id", row.id)

    def remark(self, scene: Scene, rows: Sequence[ChannelRow]) -> Line:
        return cells.flow(sum(row.rate_in for row in rows), sum(row.rate_out for row in rows))


PATHS = {
    "splice": "  through the kernel, without a copy",
    "tls": "  encrypted, through buffers",
    "yamux": "  multiplexed, through buffers",
    "sealed": "  encrypted from end to end, through buffers",
    "ssh": "  encrypted, to a process of its own",
}
"""What each way of moving bytes means."""
