"""What other settings mean for the services that run: which are added, removed, replaced, or take them in place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import msgspec

from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.supervised import Supervised


@dataclass(frozen=True)
class Plan:
    """What a reload does, by the names of the services."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    replaced: tuple[str, ...]
    """They take nothing new, and what they carry may finish, while their successors run already."""
    in_place: tuple[str, ...]
    """They go on with the new settings, and so does what they carry."""
    kept: tuple[str, ...]

    @property
    def summary(self) -> str:
        """It in a few words."""
        changed = len(self.replaced) + len(self.in_place)
        done = f"{len(self.added)} added, {changed} changed, {len(self.removed)} removed, {len(self.kept)} untouched"
        return f"{done}; in place: {', '.join(self.in_place)}" if self.in_place else done


def plan(running: Mapping[str, Supervised], wanted: Mapping[str, ServiceSettings]) -> Plan:
    """What has to be done so that these settings are in force."""
    replaced, in_place, kept = [], [], []
    for name, settings in wanted.items():
        if name not in running:
            continue
        if running[name].service.settings == settings:
            kept.append(name)
        elif can_take(running[name], settings):
            in_place.append(name)
        else:
            replaced.append(name)
    return Plan(
        added=tuple(name for name in wanted if name not in running),
        removed=tuple(name for name in running if name not in wanted),
        replaced=tuple(replaced),
        in_place=tuple(in_place),
        kept=tuple(kept),
    )


def can_take(supervised: Supervised, settings: ServiceSettings) -> bool:
    """Whether a service can go on with other settings: it does its work, and looks at what is changed as it goes."""
    if supervised.state not in ("listening", "connected"):
        return False  # there is nothing to be spared, and a new start is what a mended configuration is for
    service = supervised.service
    return type(settings) is type(service.settings) and all(
        key in service.live_keys or _entry_of_live_table(key, service.live_keys)
        for key in changed_keys(service.settings, settings)
    )


def _entry_of_live_table(key: str, live_keys: Collection[str]) -> bool:
    """Whether a key is an entry of a table, such as ``tls.client_keys.desk``, the entries of which may come and go."""
    return any(key.startswith(f"{table}.") for table in live_keys)


def changed_keys(before: msgspec.Struct, after: msgspec.Struct) -> list[str]:
    """The paths of the settings that differ, such as ``limits.rate`` or ``secrets.alice``; never their values."""
    if type(before) is not type(after):
        return ["kind"]
    return list(_differing(before, after))


def _differing(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    for field in msgspec.structs.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        inner: list[str] = []
        if _is_table(old) and type(old) is type(new):
            inner = list(_differing(old, new))
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = [str(key) for key in {**old, **new} if old.get(key) != new.get(key)]
        yield from [f"{field.encode_name}.{key}" for key in inner] or [field.encode_name]


def _is_table(value: object) -> TypeGuard[msgspec.Struct]:
    """Whether a configuration has a table for it; an address, say, is one value, whatever it is made of."""
    return isinstance(value, msgspec.Struct) and value.__struct_config__.forbid_unknown_fields
