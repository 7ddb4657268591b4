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
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from tunnelconsole.config.certificates import check_ca, check_certificates, check_clients, check_pair
from tunnelconsole.config.leading import check_leading
from tunnelconsole.config.listening import beyond_loopback, check_listening
from tunnelconsole.config.reader import WRONG, Reader, key_path
from tunnelconsole.config.ssh_files import check_ssh_files
from tunnelconsole.engine.rules import Problem, Rule
from tunnelconsole.engine.settings import DEFAULT_DRAIN, ListenAddress, TLSSettings
from tunnelconsole.engine.units import Duration
from tunnelconsole.errors import ConfigError

if TYPE_CHECKING:
    from tunnelconsole.engine.services.service import ServiceSettings

VERSION = 1
"""The version of the file's format that this program reads."""

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Bytes in the path of a unix socket at most: ``sun_path`` without its closing zero (unix(7): 108; macOS: 104)."""

BYTE_ORDER_MARK = "\ufeff"
"""What some editors put before everything else in a file."""

KIND_CUTOFF = 0.85
"""How alike, from 0 to 1, two kinds are when one is a slip of the pen: ``channel-server`` is not ``relay-server``."""

_LIMITS_OF_SERVERS = frozenset(
    f"{what}_per_{whom}" for what in ("sessions", "channels", "rate") for whom in ("address", "identity")
) | {"handshakes"}
"""Limits that a client cannot have."""

_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = (
    "a service's name is made of 1 to 63 letters, digits, dots, dashes and underscores, "
    "and begins with a letter or a digit"
)


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


def _fits_a_socket(state_dir: Path, control: Path) -> list[Problem]:
    path = default_control(state_dir) if control == Path() else control
    length = len(os.fsencode(path))
    if length <= MAX_SOCKET_PATH:
        return []
    limit = f"the path of a socket may have {MAX_SOCKET_PATH} at most"
    return [("control", f"{path} is {length} bytes long; {limit}")]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The ``[engine]`` table."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule(("state_dir", "control"), _fits_a_socket),)

    state_dir: Path = msgspec.field(default_factory=default_state_dir)
    """The folder for what must survive a restart."""
    control: Path = Path()
    """The control socket; left out, it is where :func:`default_control` says."""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged; ``debug`` shows every session and channel."""
    drain: Duration = Duration(DEFAULT_DRAIN)
    """Seconds channels may take to finish when the engine stops or a service's settings change."""
    metrics: ListenAddress | None = None
    """Where metrics are served over HTTP, for Prometheus; nowhere when unset."""

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
    warnings: tuple[str, ...] = ()
    """What the user should know of, although nothing is wrong."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be said about a configuration."""

    config: Config | None
    """None when it has mistakes."""
    problems: list[str]
    """Every mistake, with its key path."""
    warnings: list[str]
    """What the user should know of besides."""


def load(path: Path | None) -> Config:
    """Reads a configuration.

    :param path: the file; None for the one at :func:`default_path`, which need not exist.
    :raises ConfigError: it cannot be read, or something in it is wrong; every mistake is in ``problems``.
    """
    report = examine(path)
    if report.config is None:
        raise ConfigError(report.problems)
    return report.config


def examine(path: Path | None) -> Report:
    """Reads a configuration and tells all that is wrong with it, and what should be known besides.

    :param path: as for :func:`load`.
    """
    try:
        file = _find(path)
        reader = _reader(file)
        document, lies_open = ({}, False) if file is None else _parse(file)
    except ConfigError as error:
        return Report(config=None, problems=error.problems, warnings=[])
    if file is not None:
        _check_version(reader, document)
    engine = _engine(reader, document)
    services = _services(reader, document, engine)
    warnings = []
    if engine is not None and engine.metrics is not None and beyond_loopback(engine.metrics):
        warnings.append(
            f"engine.metrics: {engine.metrics} is beyond loopback: whoever reaches it reads, without a password, which "
            "services and identities there are and what they move"
        )
    if file is None:
        warnings.append(f"there is no configuration at {default_path()}: write one there, or name another with -c FILE")
    elif lies_open and reader.holds_secrets:
        warnings.append(f"{file}: holds secrets, and others on this machine can read it; run: chmod 600 {file}")
    config = None
    if engine is not None and not reader.problems:
        config = Config(path=file, engine=engine, services=services, warnings=tuple(warnings))
    return Report(config=config, problems=reader.problems, warnings=warnings)


def control_path(path: Path | None) -> Path:
    """Where the control socket is, for a command that needs nothing else.

    Only the ``[engine]`` table is read, so that a mistake in a service locks nobody out of a running engine.

    :param path: as for :func:`load`.
    :raises ConfigError: the file cannot be read, is not TOML, or its ``[engine]`` table is wrong.
    """
    file = _find(path)
    reader = _reader(file)
    engine = _engine(reader, {} if file is None else _parse(file)[0])
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


def _parse(file: Path) -> tuple[dict[str, object], bool]:
    """What a file says, and whether others than its owner can read it."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = opened.read().decode().removeprefix(BYTE_ORDER_MARK)
        return tomllib.loads(text), stat.S_ISREG(mode) and bool(mode & (stat.S_IRGRP | stat.S_IROTH))
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
        reader.wrong("version", f"expected {VERSION}, the only one this program reads")
    for key in document:
        if key not in ("version", "engine", "service"):
            reader.unknown("", key, ("version", "engine", "service"))


def _engine(reader: Reader, document: Mapping[str, object]) -> EngineSettings | None:
    table = reader.table(document.get("engine", {}), "engine")
    return None if table is None else reader.settings(EngineSettings, table, "engine")


def _services(
    reader: Reader, document: Mapping[str, object], engine: EngineSettings | None
) -> dict[str, ServiceSettings]:
    tables = reader.table(document.get("service", {}), "service") or {}
    services: dict[str, ServiceSettings] = {}
    readable: dict[str, dict[str, Any]] = {}
    kinds: dict[str, str] = {}
    for name, given in tables.items():
        path = key_path("service", name)
        if not _SERVICE_NAME.fullmatch(name):
            reader.wrong(path, _NAME_RULE)
        table = reader.table(given, path)
        if table is not None:
            readable[path], settings = _service(reader, table, path)
            kinds[path] = str(table.get("kind", ""))
            if settings is not None:
                services[name] = settings
    check_listening(reader, readable, None if engine is None else engine.metrics)
    check_leading(reader, readable, kinds)
    return services


def _service(reader: Reader, table: dict[str, object], path: str) -> tuple[dict[str, Any], ServiceSettings | None]:
    """The values of a service that could be read, and its settings when nothing in them is wrong."""
    from tunnelconsole.engine.services.kinds import KINDS  # noqa: PLC0415 - the engine, which control_path() can spare
    from tunnelconsole.engine.services.service import ServiceSettings  # noqa: PLC0415 - as above

    before = len(reader.problems)
    kind = _kind(reader, table, path, KINDS)
    # TLS is read apart from the rest, because what it may say is another thing for servers than for clients.
    tls = None if "tls" not in table else _tls(reader, kind, table["tls"], f"{path}.tls") or WRONG
    rest = {key: given for key, given in table.items() if key not in ("kind", "tls")}
    if kind is None:  # what every service has is all that is known of it
        common = {field.encode_name for field in msgspec.structs.fields(ServiceSettings)}
        return reader.values(ServiceSettings, {key: rest[key] for key in rest if key in common}, path), None
    values = reader.values(KINDS[kind][0], rest, path, also=["kind"], beside={"tls": tls})
    _check_limits(reader, kind, values, path)
    check_certificates(reader, values, path)
    check_ssh_files(reader, values, path)
    wrong = len(reader.problems) > before
    return values, None if wrong else KINDS[kind][0](**values)


def _check_limits(reader: Reader, kind: str, values: Mapping[str, Any], path: str) -> None:
    """What is limited for each address or identity is limited where these come to: at a server."""
    limits = values.get("limits")
    if limits is None or limits is WRONG or kind.endswith("-server"):
        return
    usual = type(limits)()
    for key in msgspec.structs.asdict(limits):
        if key in _LIMITS_OF_SERVERS and getattr(limits, key) != getattr(usual, key):
            reader.wrong(f"{path}.limits.{key}", "is for servers; leave it out here")


def _kind(reader: Reader, table: dict[str, object], path: str, known: Collection[str]) -> str | None:
    """The kind that a table names, or that was surely meant; None when nobody knows."""
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
    return nearest[0] if nearest else None


def _tls(reader: Reader, kind: str | None, given: object, path: str) -> TLSSettings | None:
    table = reader.table(given, path)
    if table is None:
        return None
    before = len(reader.problems)
    files = reader.values(TLSSettings, table, path)
    complete = len(reader.problems) == before
    server = kind is not None and kind.endswith("-server")
    for key, other, sentence in (
        ("certificate", "key", "a certificate needs its private key"),
        ("key", "certificate", "a private key needs its certificate"),
    ):
        if files.get(key) and other in files and not files[other]:
            reader.wrong(f"{path}.{other}", f"missing; {sentence}")
    of_server, of_client = ("client_ca", "client_keys"), ("ca", "fingerprint")
    for key in () if kind is None else of_client if server else of_server:
        if files.get(key) is not None:
            reader.wrong(f"{path}.{key}", f"is for {'clients' if server else 'servers'}; leave it out here")
    if kind is not None:
        check_pair(reader, files, path)
        (check_clients if server else check_ca)(reader, files, path)
    return TLSSettings(**files) if complete else None
