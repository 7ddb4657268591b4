"""Turns TOML tables into typed settings, and names every mistake on the way by its key path.

What a setting may be is read off its type: ``bool``, ``int``, ``float``, ``str``, ``Literal``, a file's path, a
:class:`~tunnelconsole.engine.settings.Secret`, a type with a ``parse`` method such as ``Duration`` (with ``resolve``
where it may be a path), a table of settings, a list (``tuple[X, ...]``) or a table (``dict[str, X]``) of any of these,
or one of them ``| None``.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Mapping
from datetime import date, datetime, time
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from tunnelconsole.config.secret_file import read_secret_file
from tunnelconsole.engine.rules import broken
from tunnelconsole.engine.settings import FilePath, Secret
from tunnelconsole.errors import ConfigError

FILE_TWIN = "_file"
"""What a secret's key ends with when its value is the file that holds the secret."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TYPES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
    date: "a date",
    datetime: "a date and time",
    time: "a time of day",
}

T = TypeVar("T", bound=msgspec.Struct)


class _Wrong:
    """Stands where a value would, once its mistake has been noted."""


WRONG: Final = _Wrong()

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Reader:
    """Reads tables one after another and keeps what is wrong with them in ``problems``.

    :param folder: where relative paths start.
    :param environment: the variables that ``${NAME}`` may take.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self.problems: list[str] = []
        self.holds_secrets = False
        """Whether a table that was read held a secret itself, rather than naming a file or a variable that does."""

    def wrong(self, path: str, sentence: str) -> _Wrong:
        """Notes a mistake at a key path."""
        self.problems.append(f"{path}: {sentence}")
        return WRONG

    def unknown(self, path: str, key: str, known: Collection[str]) -> str:
        """Notes a key that nobody knows; returns the key that was probably meant, or ""."""
        nearest = difflib.get_close_matches(key, known, 1) or [name for name in known if name.startswith(key)]
        if nearest:
            self.wrong(key_path(path, key), f'unknown key; did you mean "{nearest[0]}"?')
            return nearest[0]
        self.wrong(key_path(path, key), f"unknown key; there are {', '.join(sorted(known))}")
        return ""

    def table(self, given: object, path: str) -> dict[str, object] | None:
        """``given`` when it is a table; else a mistake is noted."""
        if isinstance(given, dict):
            return given
        self.wrong(path, _expected("a table", given))
        return None

    def text(self, given: object, path: str) -> str | None:
        """``given`` with its variables replaced when it is a text; else a mistake is noted."""
        if not isinstance(given, str):
            self.wrong(path, _expected("a text", given))
            return None
        return self._expand(given, path)

    def settings(self, wanted: type[T], table: Mapping[str, object], path: str, also: Collection[str] = ()) -> T | None:
        """The table as settings of type ``wanted``; None when anything in it is wrong.

        :param also: keys of the table that somebody else reads.
        """
        before = len(self.problems)
        values = self.values(wanted, table, path, also)
        return wanted(**values) if len(self.problems) == before else None

    def values(
        self,
        wanted: type[msgspec.Struct],
        table: Mapping[str, object],
        path: str,
        also: Collection[str] = (),
        beside: Mapping[str, object] = NOTHING,
    ) -> dict[str, Any]:
        """The values of settings of type ``wanted``, by key, defaults included; what is wrong or missing is left out.

        :param also: keys of the table that somebody else reads.
        :param beside: what somebody else has read for keys of ``wanted``, :data:`WRONG` where that could not be; rules
            see it like the rest.
        """
        fields = {field.encode_name: field for field in msgspec.structs.fields(wanted)}
        twins = {f"{key}{FILE_TWIN}": key for key, field in fields.items() if _plain(field.type) is Secret}
        known = [*fields, *twins, *also]
        meant = {self.unknown(path, key, known).removesuffix(FILE_TWIN) for key in table if key not in known}
        values: dict[str, Any] = {}
        for key, field in fields.items():
            twin = f"{key}{FILE_TWIN}" if f"{key}{FILE_TWIN}" in twins else ""
            if key in beside:
                values[field.name] = beside[key]
            elif twin in table:
                values[field.name] = self._from_file(table, key, path)
            elif key in table:
                values[field.name] = self._value(field.type, table[key], key_path(path, key))
            elif key in meant:
                continue
            elif field.required:
                self.wrong(key_path(path, key), f"missing; give {key} or {twin}" if twin else "missing")
            else:
                values[field.name] = self._default(field)
        right = {key: value for key, value in values.items() if value is not WRONG}
        for key, sentence in broken(getattr(wanted, "rules", ()), right):
            self.wrong(f"{path}.{key}", sentence)
            right.pop(key, None)
        return right

    def _default(self, field: FieldInfo) -> Any:
        if field.default_factory is msgspec.NODEFAULT:
            return field.default
        try:
            return field.default_factory()
        except ConfigError as error:
            self.problems += error.problems
            return WRONG

    def _value(self, wanted: Any, given: object, path: str) -> Any:
        """``given`` as a value of type ``wanted``, or WRONG."""
        wanted = _plain(wanted)
        origin = get_origin(wanted)
        if origin is tuple:
            return self._list(get_args(wanted)[0], given, path)
        if origin is dict:
            return self._dict(get_args(wanted)[1], given, path)
        if origin is Literal:
            return self._choice(get_args(wanted), given, path)
        if hasattr(wanted, "parse"):
            return self._parsed(wanted, given, path)
        if issubclass(wanted, msgspec.Struct):
            table = self.table(given, path)
            inner = None if table is None else self.settings(wanted, table, path)
            return WRONG if inner is None else inner
        if issubclass(wanted, bool | int | float):
            return self._number(wanted, given, path)
        text = self.text(given, path)
        if text is None:
            return WRONG
        if wanted is Secret and _holds_text(given):
            self.holds_secrets = True
        if wanted in (FilePath, Path):
            return self._path(wanted, text, path)
        return wanted(text)

    def _number(self, wanted: type, given: object, path: str) -> Any:
        if wanted is float and type(given) is int:
            given = float(given)
        if type(given) is not wanted:
            return self.wrong(path, _expected(_TYPES[wanted], given))
        if isinstance(given, int | float) and not (math.isfinite(given) and given >= 0):
            return self.wrong(path, f"expected {_TYPES[wanted]}, 0 or more")
        return given

    def _choice(self, choices: tuple[str, ...], given: object, path: str) -> Any:
        text = self.text(given, path)
        if text is None or text in choices:
            return WRONG if text is None else text
        return self.wrong(path, f"expected {' or '.join(map(_quoted, choices))}, found {_quoted(text)}")

    def _parsed(self, wanted: Any, given: object, path: str) -> Any:
        if type(given) in (int, float):
            return self.wrong(path, f"expected a text, found a number; {_as_text(wanted, given)}")
        text = self.text(given, path)
        if text is None:
            return WRONG
        try:
            value = wanted.parse(text)
            return value.resolve(self._folder) if hasattr(value, "resolve") else value
        except (RuntimeError, ValueError) as error:
            return self.wrong(path, str(error))

    def _path(self, wanted: type, text: str, path: str) -> Any:
        if not text:
            return None if wanted is FilePath else self.wrong(path, "expected a path, found an empty text")
        try:
            return wanted(FilePath(text).resolve(self._folder))
        except (RuntimeError, ValueError) as error:
            return self.wrong(path, f"{_quoted(text)} is not a path: {error}")

    def _list(self, wanted: Any, given: object, path: str) -> Any:
        if not isinstance(given, list):
            return self.wrong(path, _expected("a list", given))
        items = [self._value(wanted, item, f"{path}[{place}]") for place, item in enumerate(given)]
        return WRONG if WRONG in items else tuple(items)

    def _dict(self, wanted: Any, given: object, path: str) -> Any:
        table = self.table(given, path)
        if table is None:
            return WRONG
        values: dict[str, Any] = {}
        for key in table:
            name = key.removesuffix(FILE_TWIN) if wanted is Secret else key
            if not (name and name.isprintable()):
                values[name] = self.wrong(key_path(path, key), "a name is made of printable characters")
            elif key != name:
                values[name] = self._from_file(table, name, path)
            elif not (wanted is Secret and f"{key}{FILE_TWIN}" in table):
                values[name] = self._value(wanted, table[key], key_path(path, key))
        return WRONG if WRONG in values.values() else values

    def _from_file(self, table: Mapping[str, object], key: str, path: str) -> Any:
        """A secret that its twin key names the file of."""
        twin = key_path(path, f"{key}{FILE_TWIN}")
        if key in table:
            return self.wrong(twin, f"{key} is given too; leave one of them out")
        text = self.text(table[f"{key}{FILE_TWIN}"], twin)
        file = WRONG if text is None else self._path(Path, text, twin)
        if not isinstance(file, Path):
            return WRONG
        try:
            return Secret(read_secret_file(file))
        except ValueError as error:
            return self.wrong(twin, str(error))

    def _expand(self, text: str, path: str) -> str | None:
        """``text`` with each ``${NAME}`` replaced; ``$${`` stands for a plain ``${``."""
        missing: list[str] = []

        def replace(found: re.Match[str]) -> str:
            escaped, name = found.groups()
            if escaped:
                return found[0][1:]
            if not _VARIABLE_NAME.fullmatch(name):
                missing.append(f"{_quoted(found[0])} does not name an environment variable; for a plain ${{ write $${{")
            elif name not in self._environment:
                missing.append(f"the environment variable {name} is not set")
            return self._environment.get(name, "")

        expanded = _VARIABLE.sub(replace, text)
        for sentence in missing:
            self.wrong(path, sentence)
        return None if missing else expanded


def key_path(path: str, key: str) -> str:
    """``path.key``, the key in quotes where TOML needs them."""
    written = key if _BARE_KEY.fullmatch(key) else _quoted(key)
    return f"{path}.{written}" if path else written


def _plain(wanted: Any) -> Any:
    """``X`` for ``X | None``; anything else as it is."""
    if get_origin(wanted) in (Union, UnionType):
        return next(part for part in get_args(wanted) if part is not NoneType)
    return wanted


def _expected(what: str, given: object) -> str:
    found = _TYPES.get(type(given), "something else")
    return f"expected {what}, found {'a number' if found == 'a whole number' else found}"


def _as_text(wanted: Any, given: object) -> str:
    """What to write in place of a bare number."""
    try:
        wanted.parse(str(given))
    except ValueError as error:
        return str(error)
    return "write it in quotes"


def _holds_text(given: object) -> bool:
    """Whether a text has anything in it but variables."""
    return isinstance(given, str) and _VARIABLE.sub(lambda found: found[1], given) != ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
