"""Events: each has a type of its own, a level and a sentence."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_args

import msgspec
import pytest

import tunnelconsole.engine
from tunnelconsole.engine.events import Crashed, Event

for module in pkgutil.walk_packages(tunnelconsole.engine.__path__, "tunnelconsole.engine."):
    if module.name.rpartition(".")[2].endswith("events"):
        import_module(module.name)


def kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    """Every class of event there is; none of what only some have in common."""
    for kind in base.__subclasses__():
        if not kind.__name__.startswith("_"):
            yield kind
        yield from kinds(kind)


def sample(kind: type[Event]) -> Event:
    """An event of this class, whose every field says something."""
    values: dict[str, Any] = {"str": "something", "float": 1.5, "int": 7, "bool": True}
    fields = msgspec.structs.fields(kind)
    given = {field.name: (get_args(field.type) or [values.get(field.type.__name__)])[0] for field in fields}
    return msgspec.convert(given, kind)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_event_has_a_type_a_level_and_a_sentence(kind: type[Event]) -> None:
    event = sample(kind)
    assert event.level in ("debug", "info", "warning", "error")
    assert event.type == "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)[1:]
    assert event.text().strip() == event.text() != ""
    assert "\n" not in event.text()


def test_no_two_events_have_the_same_type() -> None:
    types = [kind.type for kind in kinds()]
    assert len(set(types)) == len(types)


def test_a_crash_keeps_its_traceback_for_the_log_and_out_of_the_sentence() -> None:
    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault") as caught:
        fail()
    event = Crashed.by(caught.value, "service home", "home")
    assert event.text() == "service home failed unexpectedly: ValueError: a fault"
    assert event.service == "home"
    assert 'raise ValueError("a fault")' in event.trace
