"""One request: what was asked and answered, with heads and bodies."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from tunnelconsole.control import figures
from tunnelconsole.control.messages import Exchange, Status
from tunnelconsole.screens.keys import Screen
from tunnelconsole.screens.messages_shown import message_lines
from tunnelconsole.screens.pane import Pane, Scene, Value, fact_lines, waiting
from tunnelconsole.screens.spans import Line, Span, rule
from tunnelconsole.screens.tunnels import asked, facts
from tunnelconsole.screens.widgets.lines import Lines

GONE = "▲ of an engine that runs no more"


class RequestPane(Pane):
    """All that is kept of one request; whoever opens it brings it with :meth:`bring`, or says why not."""

    DEFAULT_CSS = """
    RequestPane VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }
    """

    screen_name: ClassVar[Screen] = "request"

    def __init__(self) -> None:
        super().__init__()
        self.exchange: Exchange | None = None
        self.key = ""
        """The id of what is to be shown."""
        self._engine = 0
        self._trouble = ("", "")
        self._hexed = False
        self._scene: Scene | None = None
        self._messages: list[Line] = []
        self._messages_of: tuple[Exchange, int, bool] | None = None
        self._text = Lines()
        self._body = VerticalScroll(self._text, can_focus=False)

    def compose(self) -> ComposeResult:
        yield self._body

    def topics(self, status: Status | None) -> list[str]:
        return ["services", "exchanges", "events"]

    def begin(self, key: str) -> None:
        """Another request is to be shown."""
        self.key = key
        self.exchange = None
        self._trouble = ("", "")
        self._hexed = False
        self._body.scroll_to(y=0, animate=False, immediate=True)

    def bring(self, exchange: Exchange, engine: int) -> None:
        """This is it.

        :param engine: the process id of the engine that it comes from; 0 where that is not known yet.
        """
        self.exchange, self._engine = exchange, engine
        self._again()

    def is_gone(self, status: Status | None) -> bool:
        """Whether another engine runs now than the one that the request comes from, which may have another of its id.

        :param status: of the engine that runs.
        """
        return self.exchange is not None and status is not None and self._engine not in (0, status.pid)

    def fail(self, message: str, hint: str) -> None:
        """It cannot be shown; what is shown already stays."""
        self._trouble = (message, hint)
        self._again()

    def toggle_bytes(self) -> None:
        """Shows bodies byte by byte, or as text again."""
        self._hexed = not self._hexed
        self._again()

    def show(self, scene: Scene) -> None:
        self._scene = scene
        width = max(20, self.size.width - 1)
        if self.exchange is None:
            self._text.show(self._nothing(scene))
        else:
            self._text.show([*self._head(self.exchange, scene, width), *self._two_messages(self.exchange, width)])

    def on_resize(self) -> None:
        self._again()

    def _again(self) -> None:
        if self._scene is not None:
            self.show(self._scene)

    def _nothing(self, scene: Scene) -> list[Line]:
        message, hint = self._trouble
        if not message:
            return waiting(scene, f"request {self.key}")
        return [
            (),
            (Span(f" {message[:1].upper()}{message[1:]}.", "strong"),),
            (Span(f" {hint[:1].upper()}{hint[1:]}." if hint else "", "dim"),),
            (Span(" Esc", "key"), Span(" goes back", "dim")),
        ]

    def _head(self, exchange: Exchange, scene: Scene, width: int) -> list[Line]:
        row = scene.picture.exchange(exchange.row.id)
        is_gone = self.is_gone(scene.picture.status)
        if row is None or row.seconds is not None or is_gone:
            row = exchange.row
        title = (Span("Request", "title"), Span(f" {exchange.row.id}", "strong"))
        return [
            rule(title, (Span(GONE, "warning"),) if is_gone else _secrets(exchange), width),
            *fact_lines([asked(row, exchange.url)], width),
            *fact_lines(facts(row, scene), width),
        ]

    def _two_messages(self, exchange: Exchange, width: int) -> list[Line]:
        """The heads and bodies, which are made once: they may be long."""
        made_of = (exchange, width, self._hexed)
        if self._messages_of != made_of:
            row = exchange.row
            lines = message_lines("Asked", exchange.request, row.request_bytes, width, hexed=self._hexed)
            if exchange.response is not None:
                lines += message_lines("Answered", exchange.response, row.response_bytes, width, hexed=self._hexed)
            elif row.seconds is None:
                lines += [rule((Span("Answered", "title"),), (), width), (Span(" Not yet.", "dim"),)]
            else:
                lines += [rule((Span("Answered", "title"),), (), width), _own_answer(exchange)]
            self._messages, self._messages_of = lines, made_of
        return self._messages

    def value(self) -> Value | None:
        return None if self.exchange is None else Value("url", self.exchange.url)

    def move(self, by: int) -> None:
        self._body.scroll_relative(y=by, animate=False, immediate=True)

    def turn(self, pages: int) -> None:
        self.move(pages * max(1, self.size.height - 1))

    def to_end(self, *, last: bool) -> None:
        self._body.scroll_to(y=self._body.max_scroll_y if last else 0, animate=False, immediate=True)


def _secrets(exchange: Exchange) -> Line:
    if exchange.revealed:
        return (Span("▲ secrets are shown  ", "warning"), Span("v", "key"), Span(" hides them", "faint"))
    if not exchange.hidden:
        return ()
    hidden = f"{figures.counted(exchange.hidden, 'secret')} hidden  "
    return (Span(hidden, "notice"), Span("v", "key"), Span(" shows what is", "faint"))


def _own_answer(exchange: Exchange) -> Line:
    row = exchange.row
    if not row.status:
        return (Span(" Not at all.", "dim"),)
    return (Span(f" {row.status}", "strong"), Span(", by the tunnel itself and not by the service.", "dim"))
