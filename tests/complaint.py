"""How a command says what went wrong."""

from __future__ import annotations


def is_one_line(text: str) -> bool:
    """Whether this is one sentence of the program's, and nothing else: no traceback, no usage."""
    return text.startswith("tunnelconsole: ") and text.count("\n") == 1 and text.endswith("\n")
