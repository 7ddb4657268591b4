"""Rules: what must hold of settings beyond the type of each key. A settings class lists its own as ``rules``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from tunnelconsole.engine.settings import check_own_host
from tunnelconsole.engine.wire.hostport import MAX_HOST

Problem = tuple[str, str]
"""A key, and a sentence that says what is wrong with it."""


class Rule(NamedTuple):
    """One rule.

    :param keys: what it is about; it is asked only where each of them could be read.
    :param find: takes their values, in this order, and returns what is wrong.
    """

    keys: tuple[str, ...]
    find: Callable[..., Iterable[Problem]]


def broken(rules: Iterable[Rule], values: Mapping[str, object]) -> list[Problem]:
    """What is wrong by these rules; those whose keys are not all among ``values`` are left out."""
    return [
        problem
        for rule in rules
        if all(key in values for key in rule.keys)
        for problem in rule.find(*(values[key] for key in rule.keys))
    ]


def above_zero(key: str, why: str) -> Rule:
    """A rule for a key that may not be 0.

    :param why: what would happen if it were.
    """

    def find(value: float) -> list[Problem]:
        return [] if value > 0 else [(key, f"must be above 0: {why}")]

    return Rule((key,), find)


def own_host(key: str, longest: int = MAX_HOST) -> Rule:
    """A rule for a key that names this machine; see :func:`tunnelconsole.engine.settings.check_own_host`.

    :param longest: bytes that it may have.
    """

    def find(host: str) -> list[Problem]:
        try:
            check_own_host(host)
        except ValueError as error:
            return [(key, str(error))]
        length = len(host.encode())
        return [(key, f"the host has {length} bytes; at most {longest} are possible")] if length > longest else []

    return Rule((key,), find)
