"""A line one types into, which does the work of each key before the next one is looked at."""

from __future__ import annotations

from collections.abc import Callable, Container

from textual import events
from textual.binding import Binding
from textual.widgets import Input

EDITING: dict[str, str] = {binding.key: binding.action for binding in Binding.make_bindings(Input.BINDINGS)}
"""What the keys of a line do that are not text."""


class Entry(Input):
    """The input, with keys beyond it that belong to whoever made it.

    A key that is not text does its work here and now. As a binding it would go up to the app first, and what was typed
    behind it, or came in one read over a slow line, would be in the line before that.

    :param pressed: told of a key of its maker's own.
    :param takes_keys: whether the line is still the one that is typed into.
    :param own_keys: its maker's, as Textual names them.
    :param longest: characters one may type.
    """

    def __init__(
        self,
        pressed: Callable[[str], None],
        takes_keys: Callable[[], bool],
        own_keys: Container[str],
        longest: int,
        *,
        value: str = "",
        placeholder: str = "",
        id: str | None = None,  # noqa: A002 - Textual's own name
    ) -> None:
        super().__init__(value, placeholder, compact=True, max_length=longest, select_on_focus=False, id=id)
        self._pressed = pressed
        self._takes_keys = takes_keys
        self._own_keys = own_keys

    async def on_key(self, event: events.Key) -> None:
        """Takes a key, or hands it back where it was typed behind what left the line."""
        if not self._takes_keys():
            self.app.post_message(events.Key(event.key, event.character))
        elif event.key in self._own_keys:
            self._pressed(event.key)
        elif event.key in EDITING:
            await self.app.run_action(EDITING[event.key], self)
        else:
            return
        event.stop()
        event.prevent_default()
