"""The clients of the channel servers: who is connected, who sends to whom, what moves, and what is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from tunnelconsole.control import figures
from tunnelconsole.control.messages import ChidRow, ServiceRow, Status
from tunnelconsole.screens import cells, measures, sending
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import ABOUT, Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.sending import Losses, Receiver, Web, natural
from tunnelconsole.screens.spans import Line, Span, width_of
from tunnelconsole.screens.widgets.lines import Lines
from tunnelconsole.screens.widgets.matrix import Heads, Matrix, legend

LIST_BELOW = 60
"""Cells of width below which there is no room for a matrix: the table then has to whom each sends in words."""

TABLE_LEAST = 30
"""Cells the table needs beside a matrix: a sign, the chid and both rates."""

TABLE_GOOD = 60
"""Cells in which the table also shows to whom, from how many, and what is lost."""

NAMES_LISTED = 24
"""Chids named in the details; more are counted."""

SIGNS = {
    "losing": ("✖", "error"),
    "slow": ("▲", "warning"),
    "held up": ("‖", "warning"),
    "lost": ("▲", "warning"),
    "moving": ("●", "strong"),
    "idle": ("○", "text"),
    "listening": ("◌", "dim"),
}
"""Sign and role of each way a client can be, the worst first."""

MEANINGS = {
    "losing": "bytes from it or for it are being lost",
    "slow": "it does not take what is sent to it, and holds up who sends it",
    "held up": "it is not read, because a receiver of it does not take what there is",
    "lost": "bytes from it or for it were lost earlier",
    "moving": "it sends or is sent something",
    "idle": "nothing moves",
    "listening": "it has closed its sending side, and only listens",
}
"""What each sign means."""


TROUBLES = {"losing": "losing bytes", "slow": "too slow", "held up": "held up", "lost": "with losses"}
"""What the title says of how many are so."""

TITLE = 24
"""Cells of the title's beginning, besides a service and a filter; what stands at its end gives way to them."""


class Share(NamedTuple):
    """How the width is shared out."""

    matrix: int
    """Cells for the matrix; 0: there is none."""
    cell: int
    """Cells of one of its columns."""


def share(width: int, columns: int) -> Share:
    """Shares out ``width`` cells between the table and a matrix of so many columns.

    Columns come with a blank between them where the table has a good width all the same. All of them are shown as long
    as the table has what it needs at the least; else the matrix scrolls.
    """
    if width < LIST_BELOW or not columns:
        return Share(0, 1)
    if 2 * columns < width - TABLE_GOOD:
        return Share(2 * columns + 1, 2)
    if columns <= width - TABLE_LEAST:
        return Share(min(columns + 1, width - TABLE_LEAST), 1)
    return Share(max(width - TABLE_GOOD, width // 2), 1)


def head_lines(names: int, height: int, rows: int) -> int:
    """Lines for the heads of a matrix: as many as the longest name has characters, or as can be spared."""
    least = 4 if height < 10 else 6 if height < 28 else 9
    return max(1, min(names, max(least, height - rows)))


class ChidsPane(TablePane[ChidRow]):
    """Who is connected to the channel servers, or to one of them, and the matrix of who sends to whom."""

    DEFAULT_CSS = """
    ChidsPane > .web { height: 1fr; }
    ChidsPane .senders { width: 1fr; }
    """

    screen_name: ClassVar[Screen] = "chids"
    title = "Chids"
    noun = ("chid", "chids")
    first_order = Order("chid", falling=False)

    def __init__(self) -> None:
        self._listed = False
        super().__init__()
        self.matrix_wanted = True
        self._web = Web()
        self._losses = Losses()
        self._receivers: list[Receiver] = []
        self._aim: Receiver | None = None
        self._legend = Lines(classes="legend")
        self._matrix = Matrix(self._table)

    def compose(self) -> ComposeResult:
        yield self._head
        with Horizontal(classes="web"):
            with Vertical(classes="senders"):
                yield self._legend
                yield self._table
            yield self._matrix
        yield self._details

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "chids", "events"]

    def columns(self) -> Sequence[Column[ChidRow]]:
        to, rate, lost = (1, 2, 3) if self._listed else (3, 1, 2)  # what is left out first; a matrix has whom already
        return (
            Column("chid", "CHID", self._chid, lambda row: (row.service, natural(row.chid)), 8, 30,
                   steady=False),
            Column("receivers", "SENDS TO", self._sends_to, lambda row: (not row.receivers, sending.destination(row)),
                   18 if self._listed else 12, 60, rank=to, stretch=True),
            Column("senders", "FROM", lambda row, _: cells.number(row.senders), lambda row: row.senders, 5, rank=4,
                   right=True, falling=True),
            *measures.rates(rank=rate),
            Column("waiting", "WAITING", self._waiting, lambda row: row.waiting, 8, rank=4, right=True, falling=True,
                   steady=False),
            Column("lost", "LOST", self._lost, sending.lost, 8, rank=lost, right=True, falling=True,
                   steady=False),
            Column("service", "SERVICE", lambda row, _: Span(row.service), lambda row: row.service, 8, 24, rank=5),
            Column("identity", "IDENTITY", lambda row, _: Span(row.identity), lambda row: row.identity, 10, 20, rank=6),
            Column("peer", "PEER", lambda row, _: Span(row.peer), lambda row: row.peer, 16, 46, rank=6),
            *measures.totals(rank=8),
            measures.age(rank=7),
            Column("session", "SESSION", lambda row, _: Span(row.session, "faint"), lambda row: row.session, 8, 20,
                   rank=9),
        )  # fmt: skip

    def _chid(self, row: ChidRow, now: float) -> Span:
        sign, role = SIGNS[self.condition(row, now)]
        return Span(f"{sign} {row.chid}", role)

    def _sends_to(self, row: ChidRow, _now: float) -> Span:
        return Span(f"→ {sending.destination(row)}", "dim" if row.ended or not row.receivers else "text")

    def _waiting(self, row: ChidRow, _now: float) -> Span:
        slow = sending.receiver(row) in self._web.slow
        return Span(figures.size(row.waiting), "warning") if slow else cells.size(row.waiting)

    def _lost(self, row: ChidRow, now: float) -> Span:
        size = sending.lost(row)
        if not size:
            return cells.NOTHING
        return Span(figures.size(size), "error" if self._losses.fresh(row, now) else "warning")

    def condition(self, row: ChidRow, now: float) -> str:
        """How it is with a client: the first of :data:`SIGNS` that is so."""
        if self._losses.fresh(row, now):
            return "losing"
        if sending.receiver(row) in self._web.slow:
            return "slow"
        if sending.held_up(row):
            return "held up"
        if sending.lost(row):
            return "lost"
        if row.ended:
            return "listening"
        return "moving" if max(row.rate_in, row.rate_out) >= sending.STEPS[0] else "idle"

    def identity(self, row: ChidRow) -> str:
        return row.session

    def haystack(self, row: ChidRow) -> str:
        to = " ".join(row.receivers) or "all"
        return f"{row.chid} {row.service} {row.peer} {row.identity} {row.session} {to}"

    def rows_of(self, scene: Scene) -> Sequence[ChidRow] | None:
        rows, service = scene.picture.chids, scene.place.service
        return rows if rows is None or not service else [row for row in rows if row.service == service]

    def show(self, scene: Scene) -> None:
        rows = self.rows_of(scene)
        self._web = Web(rows or ())
        if rows is not None:
            self._losses.follow(rows, scene.picture.time)
        super().show(scene)
        self._show_matrix()

    def on_line_table_moved(self) -> None:
        super().on_line_table_moved()
        self._show_matrix()

    def entered(self, pinned: Hashable | None = None) -> None:
        super().entered(pinned)
        self._aim = None

    # the matrix

    def show_row(self, row: ChidRow | None, scene: Scene) -> None:
        """Finds the receivers of the rows that are shown; who is none of them any more is not aimed at."""
        self._receivers = self._web.columns(self._table.rows)
        if self._aim not in self._receivers:
            self._aim = None

    def _show_matrix(self) -> None:
        """Shows the matrix beside the rows that are shown, where there is room for it."""
        receivers = self._receivers if self.matrix_wanted else []
        width, cell = share(self.size.width, len(receivers))
        self._matrix.display = bool(width)
        if self._listed != (not width):
            self._listed = not width
            self._table.recast(self.columns())
        if not width:
            self._legend.show(())
            return
        height = self.size.height - 1 - len(self._details.lines)
        lines = head_lines(max(len(receiver.chid) for receiver in receivers), height, len(self._table.rows))
        row = self._table.selected
        lit = self._aim or (sending.receiver(row) if row is not None else None)
        if self._matrix.styles.width is None or self._matrix.styles.width.value != width:
            self._matrix.styles.width = width
        self._legend.show(legend(lines - 1))
        self._matrix.show(Heads(tuple(receivers), self._web, lit, lines, cell))

    def toggle_matrix(self) -> bool:
        """Shows or hides the matrix; False where there is no room for one anyway."""
        if self.size.width < LIST_BELOW:
            return False
        self.matrix_wanted = not self.matrix_wanted
        self._again()
        return True

    def aim(self, by: int) -> None:
        """Aims at the next receiver in the matrix; before the first, at none."""
        receivers = self._receivers
        if not self._matrix.display:
            return
        at = receivers.index(self._aim) if self._aim in receivers else (self._matrix.left - 1 if by > 0 else 0)
        self._aim_at(receivers[min(at + by, len(receivers) - 1)] if at + by >= 0 else None)

    def on_matrix_aimed(self, message: Matrix.Aimed) -> None:
        """A column was clicked; the same again lets go of it."""
        self._aim_at(message.receiver)

    def _aim_at(self, receiver: Receiver | None) -> None:
        self._aim = receiver
        self._again()
        if receiver is not None:
            self._matrix.reveal(receiver)

    # what is said

    def empty(self, scene: Scene) -> list[Line]:
        return _nobody(scene)

    def facts(self, row: ChidRow, scene: Scene) -> list[Fact]:
        to, web = sending.receiver(row), self._web
        senders = sending.names((one.chid for one in web.senders(to)), row.senders, NAMES_LISTED)
        absent = sending.names(web.absent(row), web.count_absent(row), NAMES_LISTED)
        everybody = f"all {figures.count(web.others(row))} others"
        return [
            Fact("too slow", (Span(MEANINGS["slow"], "warning"),) if to in web.slow else ()),
            Fact("aimed at", self._pair(row) if self._aim is not None else ()),
            Fact("sends to", (Span(everybody if not row.receivers and not row.ended
                                   else sending.destination(row, NAMES_LISTED), "strong"),)),
            Fact("not there", (Span(absent, "warning"),)),
            Fact("gets from", (Span(senders or "nobody", "text" if senders else "faint"),)),
            Fact("held up by", (Span(row.waits_for, "warning"),)),
            Fact("lost", _what_was_lost(row, "error" if self._losses.fresh(row, scene.now) else "warning")),
            Fact("now", cells.flow(row.rate_in, row.rate_out)),
            Fact("waiting", (Span(figures.size(row.waiting) if row.waiting else ""),)),
            Fact("identity", (Span(row.identity), Span(f"  from {row.peer}", "dim"))),
            Fact("service", (Span(row.service), Span(f"  session {row.session}, {row.path}", "dim"))),
            measures.moved(row),
            measures.since(row, scene),
        ]  # fmt: skip

    def _pair(self, row: ChidRow) -> Line:
        """What is between the selected sender and the receiver that is aimed at."""
        to = self._aim
        if to is None or to.chid == row.chid:
            return (Span(to.chid if to is not None else "", "strong"), Span("  itself", "dim"))
        if row.more_receivers and not row.ended and row.service == to.service and to.chid not in row.receivers:
            words = f"  may get from {row.chid}, which sends to more than can all be named"
            return (Span(to.chid, "strong"), Span(words, "dim"))
        if not sending.sends(row, to) or (not row.receivers and not self._web.present(to)):
            return (Span(to.chid, "strong"), Span(f"  gets nothing from {row.chid}", "dim"))
        if not self._web.present(to):
            return (Span(to.chid, "strong"), Span(f"  is not there for what {row.chid} sends", "warning"))
        if row.waits_for == to.chid and sending.held_up(row):
            return (Span(to.chid, "strong"), Span(f"  holds up {row.chid}", "warning"))
        return (Span(to.chid, "strong"), Span(f"  gets from {row.chid} ", "dim"), Span(figures.rate(row.rate_in), "in"))

    def value_of(self, row: ChidRow) -> Value:
        return Value("chid", row.chid)

    def remark(self, scene: Scene, rows: Sequence[ChidRow]) -> Line:
        found = Counter(self.condition(row, scene.now) for row in rows)
        flow = cells.flow(sum(row.rate_in for row in rows), sum(row.rate_out for row in rows))
        parts: list[Line] = [
            (Span(f"{SIGNS[name][0]} {figures.count(found[name])} {words}", SIGNS[name][1]),)
            for name, words in TROUBLES.items()
            if found[name]
        ]
        place = scene.place
        said: Line = ()
        room = self.size.width - TITLE - width_of((Span(place.service), Span(place.filter.text)))
        for part in (*parts, flow):
            longer = (*said, Span("  "), *part) if said else part
            if width_of(longer) <= room:
                said = longer
        return said


def _what_was_lost(row: ChidRow, role: str) -> Line:
    told = [f"{figures.size(row.dropped)} for it"] if row.dropped else []
    told += [f"{figures.size(row.undelivered)} from it, whose receivers were not there"] if row.undelivered else []
    return (Span(" and ".join(told), role),)


def _nobody(scene: Scene) -> list[Line]:
    """Why nobody is there, and what to do."""
    service = scene.place.service
    servers = [row for row in scene.picture.services or () if row.kind in ABOUT["chids"]]
    found = [row for row in servers if service in ("", row.name)]
    if not found:
        what = f"{service} is no channel server." if service else "There is no channel server."
        return [
            (),
            (Span(what, "strong"),),
            (Span('A service of kind = "channel-server" passes on what its clients send, by chid.', "dim"),),
            (Span("2", "key"), Span(" shows the services there are", "dim")),
        ]
    up = next((row for row in found if row.address), None)
    where = f" to {service}" if service else ""
    return [
        (),
        (Span(f"Nobody is connected{where}.", "strong"),),
        _how_to_join(up) if up is not None else _not_running(found[0]),
        (Span("2", "key"), Span(" shows the services, and starts them", "dim")),
    ]


def _how_to_join(row: ServiceRow) -> Line:
    if row.notes.get("mode") == "broadcast":
        return (Span("Who connects to ", "dim"), Span(row.address), Span(" shows here.", "dim"))
    return (Span("Join with: ", "dim"), Span(f"tunnelconsole channel CHID --server {row.address}"))


def _not_running(row: ServiceRow) -> Line:
    return (Span(f"{row.name} is {row.state}, and cannot be reached.", "dim"),)
