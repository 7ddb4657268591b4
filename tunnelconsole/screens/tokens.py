"""The tokens: what each is good for and until when, who is in with it, and what it has moved today."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from tunnelconsole.control import figures, token_words
from tunnelconsole.control.messages import Status
from tunnelconsole.control.tokens import TokenRow
from tunnelconsole.screens import cells, measures
from tunnelconsole.screens.columns import Column, Order
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Fact, Scene, TablePane, Value
from tunnelconsole.screens.spans import Line, Span

STATES = {
    "exhausted": ("▲", "warning"),
    "expired": ("✖", "error"),
    "disabled": ("○", "off"),
    "used": ("○", "off"),
    "active": ("●", "ok"),
}
"""Sign and role of each state, in the order of :data:`tunnelconsole.control.token_words.STATES`."""

SOON = 3 * figures.DAY
"""Seconds before its end from which a token is about to expire: a weekend."""

NEARLY = 0.9
"""Share of a day's bytes from which they are nearly used up."""

BAR = 10
"""Cells of the bar of a day's bytes."""

NEVER_ENDS = 1e11
"""Unix seconds beyond which no calendar has a date (year 5138 and later)."""


def state(row: TokenRow) -> Span:
    """A token's state."""
    sign, role = STATES.get(row.state, ("?", "dim"))
    return Span(f"{sign} {row.state}", role)


def expiry(row: TokenRow, now: float) -> Span:
    """When it expires, in words; a sign where that is soon."""
    words = token_words.expiry_words(row.expires, now)
    if row.expires is None:
        return Span(words, "dim")
    left = row.expires - now
    return Span(f"▲ {words}", "warning") if 0 < left < SOON else Span(words, "dim" if left <= 0 else "text")


def last_use(row: TokenRow, now: float) -> Span:
    """When somebody last came in with it."""
    return Span(token_words.last_use_words(row, now), "in" if row.sessions else "dim")


def today(row: TokenRow) -> Span:
    """What it has moved today, and of how much."""
    if not row.bytes_today and not row.rights.get("bytes_per_day"):
        return cells.NOTHING
    return Span(token_words.today_words(row), _today_role(row))


def quota(row: TokenRow) -> Span:
    """The share of its bytes of today that it has moved, as a bar and in percent; empty where it has no quota."""
    share = token_words.share_of_today(row)
    if share is None:
        return Span("")
    full = round(share * BAR)
    return Span(f"{'█' * full}{'░' * (BAR - full)} {figures.percent(100 * share)}", _today_role(row))


def _today_role(row: TokenRow) -> str:
    share = token_words.share_of_today(row)
    return "text" if share is None or share < NEARLY else "warning"


class TokensPane(TablePane[TokenRow]):
    """All tokens of the engine."""

    screen_name: ClassVar[Screen] = "tokens"
    title = "Tokens"
    noun = ("token", "tokens")
    first_order = Order("name", falling=False)

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "tokens", "events"]

    def columns(self) -> Sequence[Column[TokenRow]]:
        return (
            Column("name", "NAME", lambda row, _: Span(row.name, "strong"), lambda row: row.name, 10, 30),
            Column("state", "STATE", lambda row, _: state(row), badness, 11),
            Column("expires", "EXPIRES", expiry, lambda row: (row.expires is None, row.expires or 0.0), 11, rank=1),
            Column("last_used", "LAST USE", last_use, lambda row: (row.sessions > 0, row.last_used or 0.0), 10,
                   rank=3, falling=True),
            measures.count("sessions", "SESS", rank=3),
            measures.count("channels", "CHAN", rank=4),
            Column("bytes_today", "TODAY", lambda row, _: today(row), lambda row: row.bytes_today, 18, rank=2,
                   falling=True),
            Column("quota", "OF ITS DAY", lambda row, _: quota(row), _share, BAR + 5, rank=6, falling=True),
            Column("rights", "RIGHTS", _rights, lambda row: token_words.rights_words(row.rights), 14, rank=5,
                   stretch=True),
        )  # fmt: skip

    def identity(self, row: TokenRow) -> str:
        return row.name

    def haystack(self, row: TokenRow) -> str:
        return f"{row.name} {row.state} {token_words.rights_words(row.rights)}"

    def rows_of(self, scene: Scene) -> Sequence[TokenRow] | None:
        return scene.picture.tokens

    def empty(self, scene: Scene) -> list[Line]:
        events = (row for row in reversed(scene.picture.events) if row.type == "tokens-unreadable")
        if (unread := next(events, None)) is not None:
            return [
                (),
                (Span("No token can be used.", "strong"),),
                (Span(unread.text, "warning"),),
                (Span("5", "key"), Span(" shows the events", "dim")),
            ]
        return [
            (),
            (Span("There is no token.", "strong"),),
            (Span("A token is a credential for a client of this engine's servers,", "dim"),),
            (Span("with rights, limits and an end of its own.", "dim"),),
            (Span("c", "key"), Span(" makes one", "dim")),
        ]

    def facts(self, row: TokenRow, scene: Scene) -> list[Fact]:
        return facts(row, scene)

    def value_of(self, row: TokenRow) -> Value:
        return Value("name", row.name)

    def remark(self, scene: Scene, rows: Sequence[TokenRow]) -> Line:
        found = Counter(row.state for row in rows)
        found["in use"] = sum(1 for row in rows if row.sessions)
        roles = {name: role for name, (_, role) in STATES.items() if name != "active"} | {"in use": "ok"}
        told = [(f"{figures.count(found[name])} {name}", role) for name, role in roles.items() if found[name]]
        return tuple(Span(words if at == 0 else f"  {words}", role) for at, (words, role) in enumerate(told))


def facts(row: TokenRow, scene: Scene) -> list[Fact]:
    """What is known of a token, without its rights one by one."""
    now = scene.now
    last: Line = (Span("never", "dim"),) if row.last_used is None else measures.ago(row.last_used, scene)
    meaning = token_words.STATES.get(row.state, "")
    return [
        Fact("state", (state(row), Span(f"  {meaning}" if row.state != "active" else "", "dim"))),
        Fact("expires", (expiry(row, now), Span(_date(row.expires, scene), "dim"))),
        Fact("last use", (Span("now, ", "in"), *last) if row.sessions else last),
        Fact("in now", (Span(figures.counted(row.sessions, "session")),
                        Span(f", {figures.counted(row.channels, 'channel')}", "dim"))),
        Fact("today", (today(row), Span("  "), quota(row))),
        Fact("secrets", _secrets(row, now)),
        Fact("created", measures.ago(row.created, scene)),
        Fact("rights", (Span(token_words.rights_words(row.rights)),)),
    ]  # fmt: skip


def badness(row: TokenRow) -> int:
    """Orders tokens by state, the worst first."""
    return list(STATES).index(row.state) if row.state in STATES else len(STATES)


def _date(time: float | None, scene: Scene) -> str:
    return "" if time is None or not 0 <= time <= NEVER_ENDS else f"  {figures.date_and_time(time, scene.zone)}"


def _secrets(row: TokenRow, now: float) -> Line:
    ending = [secret.expires for secret in row.secrets if secret.expires is not None]
    if not ending:
        return (Span(figures.count(len(row.secrets))),)
    older = "the older one ends" if len(ending) == 1 else f"the older {len(ending)} end"
    words = f"  {older} in {figures.duration(max(ending) - now)}"
    return (Span(figures.count(len(row.secrets))), Span(words, "notice"))


def _share(row: TokenRow) -> float:
    return -1.0 if (share := token_words.share_of_today(row)) is None else share


def _rights(row: TokenRow, _now: float) -> Span:
    return Span(token_words.rights_words(row.rights), "text" if row.rights else "dim")
