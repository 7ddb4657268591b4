"""What a program that embeds the tunnel server may decide, and be told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tunnelconsole.engine.wire.http.head import Fields

NOT_JUDGED: Final = "this could not be decided, so the answer is no"
"""What is answered when a callback fails."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a tunnel, or of a visitor.

    :param host: the public hostname, in lower case and without a port.
    :param peer: who asks, ``host:port``.
    :param target: a path with its query.
    :param fields: of its head, as they came.
    """

    host: str
    peer: str
    method: str
    target: str
    fields: Fields

    def __getitem__(self, name: str) -> str:
        """The value of a field; those of a repeated one joined by commas.

        :raises KeyError: there is none.
        """
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def get(self, name: str, default: str = "") -> str:
        """As ``request[name]``, or ``default``."""
        try:
            return self[name]
        except KeyError:
            return default


Verdict = str | None | Awaitable[str | None]
"""None or "" to let it be; a reason to refuse it."""

Judge = Callable[[Request], Verdict]


@dataclass(slots=True)
class Hooks:
    """Callbacks of the program that embeds a tunnel server; each may be None."""

    authenticate: Judge | None = None
    """Asked when somebody wants a tunnel."""
    access: Judge | None = None
    """Asked on each visit."""
    on_connection: Callable[[str, str], None] | None = None
    """Told the public URL and the client's ``host:port`` of each tunnel that is there now."""
    on_disconnection: Callable[[str, str, str], None] | None = None
    """Told the same of each that is gone, and why."""
