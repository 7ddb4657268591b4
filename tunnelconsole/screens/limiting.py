"""Limits as an operator writes them: ``rate 1MB/s, sessions 5, channels none``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunnelconsole.control import figures
from tunnelconsole.control.steering import SetLimits

OF_SERVICE = ("rate", "sessions", "channels")
"""The limits of a service that can be changed while it runs."""

OF_SESSION = ("rate",)
"""The same of a session."""

NONE = "none"
"""Stands for no limit."""


def written(limits: Mapping[str, float], names: Sequence[str]) -> str:
    """Those in force, to be changed."""
    return ", ".join(f"{name} {_value(name, limits.get(name, 0))}" for name in names)


def _value(name: str, value: float) -> str:
    if not value:
        return NONE
    return f"{value:.0f}B/s" if name == "rate" else f"{value:.0f}"


def read_limits(target: str, text: str, names: Sequence[str]) -> SetLimits:
    """What was written, as a request; what is not named stays as it is.

    :raises ValueError: it cannot be read; the text says why.
    """
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = part.partition(" ")
        if name not in names or not value.strip():
            raise ValueError(f"{part!r} is none of {', '.join(names)} with a figure, or {NONE}, behind it")
        given[name] = value.strip()
    if not given:
        raise ValueError("no limit is named")
    counts = {name: value for name, value in given.items() if name != "rate" and value != NONE}
    wrong = [f"{name} {value}" for name, value in counts.items() if not value.isascii() or not value.isdigit()]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no whole number, and not {NONE}")
    rate = given.get("rate", "")
    return SetLimits(
        target=target,
        rate="" if rate == NONE else rate,
        sessions=int(counts["sessions"]) if "sessions" in counts else None,
        channels=int(counts["channels"]) if "channels" in counts else None,
        lifted=[name for name, value in given.items() if value == NONE],
    )


def in_words(limits: Mapping[str, float]) -> str:
    """Limits in force for people: ``1.0 MB/s, 5 sessions``; empty where there are none."""
    words = []
    for name, value in limits.items():
        words.append(figures.rate(value) if name == "rate" else figures.counted(int(value), name.removesuffix("s")))
    return ", ".join(words)
