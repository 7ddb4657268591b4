"""One token: its rights line by line, its secrets, and who is in with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from tunnelconsole.control import figures, token_words
from tunnelconsole.control.messages import SessionRow, Status
from tunnelconsole.control.tokens import SecretRow, TokenRow
from tunnelconsole.screens import measures, tokens
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.pane import Fact, Pane, Scene, Value, fact_lines, waiting
from tunnelconsole.screens.spans import Line, Span, fit, rule
from tunnelconsole.screens.widgets.lines import Lines

SESSIONS_LISTED = 20
"""Sessions of a token in its page; the screen of sessions has all."""

LABELS = {"destinations": "leads to", "clients": "used from", "bytes_per_day": "bytes a day", "one_time": "one use"}
"""The rights whose key is not their name."""

SERVICE, PEER, FIGURE = 16, 24, 10
"""Cells of the columns of the sessions."""


def label(key: str) -> str:
    """What a right is called."""
    return LABELS.get(key, key)


class TokenPane(Pane):
    """All that is known of one token."""

    DEFAULT_CSS = """
    TokenPane VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
    """

    screen_name: ClassVar[Screen] = "token"

    def __init__(self) -> None:
        super().__init__()
        self.row: TokenRow | None = None
        """As it is shown."""
        self._scene: Scene | None = None
        self._text = Lines()
        self._body = VerticalScroll(self._text, can_focus=False)

    def compose(self) -> ComposeResult:
        yield self._body

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "sessions", "tokens", "events"]

    def begin(self) -> None:
        """Another token is to be shown."""
        self.row = None
        self._body.scroll_to(y=0, animate=False, immediate=True)

    def show(self, scene: Scene) -> None:
        self._scene = scene
        name, width = scene.place.token, max(20, self.size.width - 1)
        self.row = scene.picture.token(name)
        if self.row is not None:
            self._text.show(page(self.row, sessions_of(name, scene.picture.sessions or ()), scene, width))
        elif scene.picture.tokens is None:
            self._text.show(waiting(scene, f"token {name}"))
        else:
            self._text.show([
                (),
                (Span(f" There is no token {name}.", "strong"),),
                (Span(" It may have been revoked; the events and the audit trail tell.", "dim"),),
                (Span(" Esc", "key"), Span(" goes back", "dim")),
            ])  # fmt: skip

    def on_resize(self) -> None:
        if self._scene is not None:
            self.show(self._scene)

    def value(self) -> Value | None:
        return None if self.row is None else Value("name", self.row.name)

    def move(self, by: int) -> None:
        self._body.scroll_relative(y=by, animate=False, immediate=True)

    def turn(self, pages: int) -> None:
        self.move(pages * max(1, self.size.height - 1))

    def to_end(self, *, last: bool) -> None:
        self._body.scroll_to(y=self._body.max_scroll_y if last else 0, animate=False, immediate=True)


def sessions_of(name: str, rows: Sequence[SessionRow]) -> list[SessionRow]:
    """Who is in with a token, the oldest first."""
    return sorted((row for row in rows if row.token == name), key=lambda row: (row.since, row.id))


def page(row: TokenRow, sessions: Sequence[SessionRow], scene: Scene, width: int) -> list[Line]:
    """All of a token in lines of ``width`` cells."""
    known = [fact for fact in tokens.facts(row, scene) if fact.name not in ("rights", "secrets")]
    return [
        rule((Span("Token", "title"), Span(f" {row.name}", "strong")), (), width),
        *fact_lines(known, width),
        *_sessions(sessions, row.sessions, scene, width),
        rule((Span("Rights", "title"),), (Span("e", "key"), Span(" changes them", "faint")), width),
        *fact_lines([Fact(label(key), (_right(key, row),)) for key in token_words.ANY], width),
        rule((Span("Secrets", "title"), Span(f"  {len(row.secrets)}", "dim")),
             (Span("r", "key"), Span(" makes another", "faint")), width),
        *(_secret(number, secret, scene) for number, secret in enumerate(row.secrets, 1)),
    ]  # fmt: skip


def _right(key: str, row: TokenRow) -> Span:
    value = row.rights.get(key)
    return Span(token_words.right_words(key, value), "strong" if value else "faint")


def _secret(number: int, secret: SecretRow, scene: Scene) -> Line:
    if secret.expires is None:
        good = Span("good for as long as the token is", "ok")
    else:
        good = Span(f"replaced, and good {token_words.expiry_words(secret.expires, scene.now)}".replace(
            "good in", "good for another"), "notice")  # fmt: skip
    return (Span(f" {number:>2}  made ", "dim"), *measures.ago(secret.created, scene), Span("  "), good)


def _sessions(sessions: Sequence[SessionRow], count: int, scene: Scene, width: int) -> list[Line]:
    """Who is in with it."""
    opens = (Span("Enter", "key"), Span(" shows them among the sessions", "faint")) if count else ()
    lines = [rule((Span("Who is in with it", "title"), Span(f"  {figures.count(count)}", "dim")), opens, width)]
    if not count:
        lines.append((Span(" Nobody.", "dim"),))
    elif not sessions:
        lines.append((Span(" Reading sessions…", "dim"),))
    else:
        lines.append(
            (
                Span(f" {fit('SERVICE', SERVICE)} {fit('PEER', PEER)}", "head"),
                *_figures("AGE", "CHAN", "IN", "OUT", "head", width),
            )
        )
    lines += [_session(row, scene.now, width) for row in sessions[:SESSIONS_LISTED]]
    if len(sessions) > SESSIONS_LISTED:
        lines.append((Span(f" and {figures.count(len(sessions) - SESSIONS_LISTED)} more", "dim"),))
    return lines


def _session(row: SessionRow, now: float, width: int) -> Line:
    moved = (figures.size(row.bytes_in), figures.size(row.bytes_out))
    return (
        Span(" " + fit(row.service, SERVICE) + " "),
        Span(fit(row.peer, PEER), "strong"),
        *_figures(figures.duration(now - row.since), figures.count(row.channels), *moved, "dim", width),
    )


def _figures(since: str, channels: str, inward: str, outward: str, role: str, width: int) -> Line:
    room = width - SERVICE - PEER - 2
    shown = [since, channels, inward, outward][: max(1, room // FIGURE)]
    return tuple(Span(fit(text, FIGURE, right=True), role) for text in shown)
