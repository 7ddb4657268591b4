"""The configuration file: TOML in, typed settings out, every mistake named with its key path.

A configuration looks like this; each kind of service declares its own keys in its room under
:mod:`tunnelconsole.engine.services`::

    version = 1

    [engine]
    log_format = "json"

    [service.home]
    kind = "jump-server"
    listen = "127.0.0.1:9527"
    secret_file = "home.secret"
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from tunnelconsole.config.reader import Reader, key_path
from tunnelconsole.engine.settings import DEFAULT_DRAIN, ListenAddress, TLSSettings
from tunnelconsole.engine.units import Duration
from tunnelconsole.errors import ConfigError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.service import ServiceSettings

VERSION = 1
"""The version of the file's format that this program reads."""

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Bytes in the path of a unix socket at most: ``sun_path`` without its closing zero (unix(7): 108; macOS: 104)."""

KIND_CUTOFF = 0.85
"""How alike, from 0 to 1, two kinds are when one is a slip of the pen: ``channel-server`` is not ``relay-server``."""

_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104 looked for, not listened on


def default_path() -> Path:
    """Where the configuration is when no other file is named: ``$XDG_CONFIG_HOME/tunnelconsole/config.toml``."""
    return _base_folder("XDG_CONFIG_HOME", "~/.config") / "tunnelconsole" / "config.toml"


def default_state_dir() -> Path:
    """Where the state is kept by default: ``$XDG_STATE_HOME/tunnelconsole``."""
    return _base_folder("XDG_STATE_HOME", "~/.local/state") / "tunnelconsole"


def default_control(state_dir: Path) -> Path:
    """Where the control socket is by default: ``$XDG_RUNTIME_DIR/tunnelconsole``, or else the state folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return (Path(runtime) / "tunnelconsole" if Path(runtime).is_absolute() else state_dir) / "control.sock"


def _base_folder(variable: str, otherwise: str) -> Path:
    """A folder of the XDG base directory specification, which says that relative ones are to be ignored."""
    given = Path(os.environ.get(variable, ""))
    if given.is_absolute():
        return given
    try:
        return Path(otherwise).expanduser()
    except RuntimeError:
        raise ConfigError([f"{variable}: is not set, and this user has no home folder to use instead"]) from None


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The ``[engine]`` table."""

    state_dir: Path = msgspec.field(default_factory=default_state_dir)
    """The folder for what must survive a restart."""
    control: Path = Path()
    """The control socket; left out, it is where :func:`default_control` says."""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged; ``debug`` shows every session and channel."""
    drain: Duration = Duration(DEFAULT_DRAIN)
    """Seconds channels may take to finish when the engine stops or a service's settings change."""

    def __post_init__(self) -> None:
        if self.control == Path():
            msgspec.structs.force_setattr(self, "control", default_control(self.state_dir))


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration without mistakes."""

    path: Path | None = None
    """The file it was read from; None when there is none, which is a configuration without services."""
    engine: EngineSettings = msgspec.field(default_factory=EngineSettings)
    services: dict[str, ServiceSettings] = msgspec.field(default_factory=dict)
    """Settings by service name, in the file's order."""


def load(path: Path | None) -> Config:
    """Reads a configuration.

    :param path: the file; None for the one at :func:`default_path`, which need not exist.
    :raises ConfigError: it cannot be read, or something in it is wrong; every mistake is in ``problems``.
    """
    file = _find(path)
    reader = _reader(file)
    document = {} if file is None else _parse(file)
    if file is not None:
        _check_version(reader, document)
    engine = _engine(reader, document)
    services = _services(reader, document)
    if reader.problems or engine is None:
        raise ConfigError(reader.problems)
    return Config(path=file, engine=engine, services=services)


def control_path(path: Path | None) -> Path:
    """Where the control socket is, for a command that needs nothing else.

    Only the ``[engine]`` table is read, so that a mistake in a service locks nobody out of a running engine.

    :param path: as for :func:`load`.
    :raises ConfigError: the file cannot be read, is not TOML, or its ``[engine]`` table is wrong.
    """
    file = _find(path)
    reader = _reader(file)
    engine = _engine(reader, {} if file is None else _parse(file))
    if engine is None:
        raise ConfigError(reader.problems)
    return engine.control


def _find(path: Path | None) -> Path | None:
    if path is not None:
        return path.absolute()
    default = default_path()
    return default if default.exists() else None


def _reader(file: Path | None) -> Reader:
    return Reader(file.parent if file is not None else Path.cwd(), os.environ)


def _parse(file: Path) -> dict[str, object]:
    try:
        text = file.read_bytes().decode()
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not text in UTF-8, from byte {error.start} on"]) from None
    except tomllib.TOMLDecodeError as error:
        sentence, _, place = str(error).removesuffix(")").rpartition(" (at ")
        raise ConfigError([f"{file}: {place}: {sentence}" if sentence else f"{file}: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{file}: tables or lists are nested too deeply"]) from None


def _check_version(reader: Reader, document: Mapping[str, object]) -> None:
    version = document.get("version")
    if version is None:
        reader.wrong("version", f"missing; begin the file with: version = {VERSION}")
    elif type(version) is not int or version != VERSION:
        # What else the file says may mean something else there, so nothing else is reported.
        raise ConfigError([f"version: expected {VERSION}, the only one this program reads"])
    for key in document:
        if key not in ("version", "engine", "service"):
            reader.unknown("", key, ("version", "engine", "service"))


def _engine(reader: Reader, document: Mapping[str, object]) -> EngineSettings | None:
    table = reader.table(document.get("engine", {}), "engine")
    engine = None if table is None else reader.settings(EngineSettings, table, "engine")
    if engine is None:
        return None
    length = len(os.fsencode(engine.control))
    if length > MAX_SOCKET_PATH:
        reader.wrong(
            "engine.control",
            f"{engine.control} is {length} bytes long; the path of a socket may have {MAX_SOCKET_PATH} at most",
        )
        return None
    return engine


def _services(reader: Reader, document: Mapping[str, object]) -> dict[str, ServiceSettings]:
    tables = reader.table(document.get("service", {}), "service") or {}
    services: dict[str, ServiceSettings] = {}
    for name, given in tables.items():
        path = key_path("service", name)
        if not _SERVICE_NAME.fullmatch(name):
            reader.wrong(path, "a service's name is made of 1 to 63 letters, digits, dots, dashes and underscores")
            continue
        table = reader.table(given, path)
        settings = None if table is None else _service(reader, table, path)
        if settings is not None:
            services[name] = settings
    _check_listeners(reader, services)
    return services


def _service(reader: Reader, table: dict[str, object], path: str) -> ServiceSettings | None:
    from tunnelconsole.engine.services.kinds import KINDS  # noqa: PLC0415 - the engine, which control_path() can spare

    kind = _kind(reader, table, path, KINDS)
    if kind is None:
        return None
    # TLS is read apart from the rest, so that its files are looked at even when another key is wrong.
    tls = None if "tls" not in table else _tls(reader, kind, table["tls"], f"{path}.tls")
    rest = {key: given for key, given in table.items() if key not in ("kind", "tls")}
    settings = reader.settings(KINDS[kind][0], rest, path, also=["kind"])
    if settings is None:
        return None
    for key, sentence in settings.problems():
        reader.wrong(f"{path}.{key}", sentence)
    return msgspec.structs.replace(settings, tls=tls)


def _kind(reader: Reader, table: dict[str, object], path: str, known: Collection[str]) -> str | None:
    path = f"{path}.kind"
    kinds = f"the kinds are {', '.join(known)}"
    if "kind" not in table:
        reader.wrong(path, f"missing; {kinds}")
        return None
    kind = reader.text(table["kind"], path)
    if kind is None or kind in known:
        return kind
    nearest = difflib.get_close_matches(kind, known, 1, KIND_CUTOFF)
    advice = f'did you mean "{nearest[0]}"?' if nearest else kinds
    reader.wrong(path, f'there is no kind "{kind}"; {advice}')
    return None


def _tls(reader: Reader, kind: str, given: object, path: str) -> TLSSettings | None:
    table = reader.table(given, path)
    tls = None if table is None else reader.settings(TLSSettings, table, path)
    if tls is None:
        return None
    server = kind.endswith("-server")
    if server and tls.certificate and not tls.key:
        reader.wrong(f"{path}.key", "missing; a certificate needs its private key")
    if server and tls.key and not tls.certificate:
        reader.wrong(f"{path}.certificate", "missing; a private key needs its certificate")
    of_server, of_client = ("certificate", "key"), ("ca", "fingerprint")
    for key in of_client if server else of_server:
        if getattr(tls, key):
            reader.wrong(f"{path}.{key}", f"is for {'clients' if server else 'servers'}; leave it out here")
    for key in of_server if server else ("ca",):
        file = getattr(tls, key)
        sentence = _unreadable(Path(file)) if file else ""
        if sentence:
            reader.wrong(f"{path}.{key}", sentence)
    return tls


def _unreadable(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return f"{file} is not a regular file"
    except OSError as error:
        return f"cannot read {file}: {error.strerror or error}"
    return "" if os.access(file, os.R_OK) else f"cannot read {file}: Permission denied"


def _check_listeners(reader: Reader, services: Mapping[str, ServiceSettings]) -> None:
    """Notes each enabled service that listens where one before it does."""
    taken: list[tuple[ListenAddress, str]] = []
    for name, settings in services.items():
        for field in msgspec.structs.fields(settings) if settings.enabled else ():
            address = getattr(settings, field.name)
            if not isinstance(address, ListenAddress) or address.port == 0:
                continue
            for other, owner in taken:
                if _overlap(address, other):
                    path = f"{key_path('service', name)}.{field.encode_name}"
                    reader.wrong(path, f"{address} is taken by service {owner}")
            taken.append((address, name))


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    hosts = {"127.0.0.1" if address.host == "localhost" else address.host for address in (one, other)}
    return one.port == other.port and (len(hosts) == 1 or not hosts.isdisjoint(_ANY_HOST))
