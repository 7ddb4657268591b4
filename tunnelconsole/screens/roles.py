"""What a console may not do: steer, for whom may only look, and save files on a machine that is not the operator's."""

from __future__ import annotations

from tunnelconsole.control.messages import Role
from tunnelconsole.screens.keys import KEYS

STEERING = frozenset(row.action for row in KEYS if row.group == "steer") | {"secrets"}
"""Actions that change something in the engine, or show what is kept from others; commands add ``_named``."""

SAVING = frozenset({"har"})
"""Actions that write a file."""


def refusal(action: str, role: Role, *, files: bool) -> tuple[str, str]:
    """Why a console does not do this, and a hint; empty where it does.

    :param action: of the app, as a key or a command names it.
    :param files: whether this console may save any.
    """
    name = action.partition("(")[0].removesuffix("_named")
    if role == "view" and name in STEERING:
        return "This console may only look: your role is view", "nothing was changed; a key with the role operate can"
    if not files and name in SAVING:
        return "This console saves no files: they would be on the engine's machine", "c copies a request instead"
    return "", ""
