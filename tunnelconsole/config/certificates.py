"""The files of certificates that a configuration names: whether they can be used, told before a service goes down."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tunnelconsole.config.reader import Reader, key_path
from tunnelconsole.engine.settings import Secret


def check_certificates(reader: Reader, values: Mapping[str, Any], path: str) -> None:
    """Reads the certificates of a service, its ``tls`` table apart, as the service itself will.

    :param values: those of the service's keys that could be read.
    """
    check_pair(reader, values, path)
    for host, table in values.get("certificates", {}).items():
        check_pair(reader, msgspec.structs.asdict(table), key_path(key_path(path, "certificates"), host))


def check_pair(reader: Reader, values: Mapping[str, Any], path: str) -> None:
    """Reads the files of ``certificate`` and ``key``, where they are named; a ``key`` that is a secret is no file."""
    from tunnelconsole.engine.transport.tls import server_context  # noqa: PLC0415 - which control_path() can spare

    named = {name: values[name] for name in ("certificate", "key") if values.get(name)}
    files = {name: Path(value) for name, value in named.items() if not isinstance(value, Secret)}
    before = len(reader.problems)
    for name, file in files.items():
        if sentence := _unreadable(file):
            reader.wrong(key_path(path, name), sentence)
    if len(reader.problems) > before or len(files) < len(("certificate", "key")):
        return
    try:
        server_context(files["certificate"], files["key"])
    except (OSError, ValueError) as error:
        sentence = f"{files['certificate']} with key {files['key']} cannot be used: {_reason(error)}"
        reader.wrong(key_path(path, "certificate"), f"{sentence}; both must be PEM files that belong together")


def check_ca(reader: Reader, values: Mapping[str, Any], path: str) -> None:
    """Reads the file of ``ca``, where it is named."""
    from tunnelconsole.engine.transport.tls import client_context  # noqa: PLC0415 - as above

    if not values.get("ca"):
        return
    file = Path(values["ca"])
    sentence = _unreadable(file)
    try:
        if not sentence:
            client_context(file, "")
    except (OSError, ValueError) as error:
        sentence = f"{file} cannot be used: {_reason(error)}; it must be a PEM file of certificates"
    if sentence:
        reader.wrong(key_path(path, "ca"), sentence)


def check_clients(reader: Reader, values: Mapping[str, Any], path: str) -> None:
    """Reads the file of ``client_ca``, and the names and keys of ``client_keys``, where these are given."""
    from tunnelconsole.engine.transport.client_trust import wrong_with_name  # noqa: PLC0415 - as above
    from tunnelconsole.engine.transport.tls import client_context  # noqa: PLC0415 - as above

    if values.get("client_ca"):
        file = Path(values["client_ca"])
        sentence = _unreadable(file)
        try:
            if not sentence:
                client_context(file, "")
        except (OSError, ValueError) as error:
            sentence = f"{file} cannot be used: {_reason(error)}; it must be a PEM file of certificates"
        if sentence:
            reader.wrong(key_path(path, "client_ca"), sentence)
    keys = values.get("client_keys")
    if keys is None:
        return
    where = key_path(path, "client_keys")
    if not keys:
        reader.wrong(where, "is empty, so nobody could come by it; name keys, or leave it out")
    for name in keys:
        if wrong := wrong_with_name(name):
            reader.wrong(key_path(where, name), f"the identity {wrong}")
    if len(set(keys.values())) < len(keys):
        reader.wrong(where, "two identities have the same key, so nobody could tell them apart")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM file"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _unreadable(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return f"{file} is not a regular file"
    except OSError as error:
        return f"cannot read {file}: {error.strerror or error}"
    return "" if os.access(file, os.R_OK) else f"cannot read {file}: Permission denied"
