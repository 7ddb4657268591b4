"""docs/guide.md is true: it names every setting, command and key there is, no other, and the defaults of the code."""

from __future__ import annotations

import errno
import json
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tunnelconsole
from tunnelconsole import config
from tunnelconsole.cli import cli
from tunnelconsole.control.messages import PROTOCOL
from tunnelconsole.engine.access import Destination
from tunnelconsole.engine.limits import LimitSettings
from tunnelconsole.engine.services.kinds import KINDS
from tunnelconsole.engine.services.listening import ListeningSettings
from tunnelconsole.engine.services.service import ServiceSettings
from tunnelconsole.engine.settings import PortRange, SSHSettings, TLSSettings
from tunnelconsole.engine.transport.client_trust import ClientTrust
from tunnelconsole.engine.transport.tls import plain_fingerprint, server_context
from tunnelconsole.engine.units import Duration, Size
from tunnelconsole.screens.keys import KEYS

GUIDE = (Path(__file__).parent.parent / "docs" / "guide.md").read_text()

SOURCE = "\n".join(path.read_text() for path in Path(tunnelconsole.__file__).parent.rglob("*.py"))

NESTED: dict[str, type[msgspec.Struct]] = {"tls": TLSSettings, "limits": LimitSettings}
"""Tables within a service's, whose keys are written with a dot."""

KEYS_APART = {"move", "sort"}
"""Groups of keys that the guide tells in a sentence: arrows are arrows, and a column shows the letter that sorts it."""

Row = list[str]


def section(title: str) -> str:
    """What stands below a heading, up to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#{{1,3}} |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, f"the guide has no heading {title!r}"
    return found[2]


def rows(title: str) -> list[Row]:
    """The table below a heading, cell by cell, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def documented(title: str) -> dict[str, str]:
    """The keys of a table of settings, and what it says of their defaults."""
    return {key: row[2] for row in rows(title) for key in re.findall(r"`([^`]+)`", row[0])}


def declared(settings: type[msgspec.Struct]) -> dict[str, Any]:
    """The keys of a table as the code declares them, and their defaults."""
    return {field.encode_name: field.default for field in msgspec.structs.fields(settings)}


def own_keys(settings: type[msgspec.Struct]) -> dict[str, Any]:
    """What a kind declares beyond what every service has, and every server."""
    common = declared(ServiceSettings).keys() | servers_keys()
    return {key: default for key, default in declared(settings).items() if key not in common}


def servers_keys() -> dict[str, Any]:
    """What every server has besides; where it listens is said of each kind in its own words."""
    others = {*declared(ServiceSettings), "listen"}
    return {key: default for key, default in declared(ListeningSettings).items() if key not in others}


def common_keys() -> dict[str, Any]:
    """What every service has, the keys of nested tables with a dot."""
    plain = {key: default for key, default in declared(ServiceSettings).items() if key not in NESTED}
    nested = {f"{name}.{key}": value for name, table in NESTED.items() for key, value in declared(table).items()}
    return {"kind": msgspec.NODEFAULT, **plain, **nested}


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Every service", common_keys()
    yield "Every server", servers_keys()
    for kind, (settings, _) in KINDS.items():
        yield kind, own_keys(settings)


def says(cell: str, default: object) -> bool:
    """Whether a cell tells a default; where there is none, or an empty one, words may say what that means."""
    if default is msgspec.NODEFAULT:
        return cell == ""
    if not default and not isinstance(default, bool | int | float):
        return True
    shown: object = cell
    if isinstance(default, bool):
        shown = {"true": True, "false": False}.get(cell)
    elif isinstance(default, Duration):
        shown = Duration.parse(cell)
    elif isinstance(default, PortRange):
        shown = PortRange.parse(cell)
    elif isinstance(default, Size):
        shown = Size.parse(cell)
    elif isinstance(default, tuple):
        return cell == f"`{json.dumps(default)}`"
    elif isinstance(default, int):
        shown = int(cell)
    return shown == default


@pytest.mark.parametrize(("title", "keys"), tables(), ids=[title for title, _ in tables()])
def test_every_setting_is_named_and_no_other(title: str, keys: dict[str, Any]) -> None:
    assert set(documented(title)) == set(keys)


@pytest.mark.parametrize(("title", "keys"), tables(), ids=[title for title, _ in tables()])
def test_the_defaults_are_the_codes(title: str, keys: dict[str, Any]) -> None:
    wrong = {key: (cell, keys[key]) for key, cell in documented(title).items() if not says(cell, keys[key])}
    assert not wrong


def test_what_proves_us_to_an_ssh_host_is_named_and_no_other() -> None:
    named = {key.strip("`").removeprefix("ssh.") for key, *_ in rows("Through an SSH server")}
    assert named == set(declared(SSHSettings))


def test_every_kind_is_named() -> None:
    (kinds,) = [row[1] for row in rows("Every service") if row[0] == "`kind`"]
    assert set(re.findall(r"`([a-z-]+)`", kinds)) == set(KINDS)


def test_in_and_out_are_told_of_every_kind() -> None:
    assert {row[0] for row in rows("In and out")} == set(KINDS)


def test_every_destination_it_shows_is_one() -> None:
    (cell,) = [row[1] for row in rows("jump-server") if row[0] == "`allow`"]
    patterns = re.findall(r"`([^`]+)`", cell)
    assert patterns
    for pattern in patterns:
        Destination(pattern)


@pytest.mark.parametrize(("name", "is_one"), [("a" * 63, True), ("a" * 64, False), ("-a", False), ("0._-", True)])
def test_a_name_is_what_it_says(name: str, is_one: bool, tmp_path: Path) -> None:
    said = " ".join(section("Every service").split())
    assert "1 to 63 letters, digits, dots, dashes and underscores and begins with a letter or a digit" in said
    file = tmp_path / "config.toml"
    file.write_text(f'version = 1\n[service."{name}"]\nkind = "relay-server"\nlisten = "127.0.0.1:0"\n')
    assert (not config.examine(file).problems) == is_one


def test_the_engines_table_is_whole_and_its_defaults_are_the_codes(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", section("The configuration file"), re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    shown, plain = config.load(tmp_path / "config.toml").engine, config.EngineSettings()
    table = set(re.findall(r"^(\w+) = ", example, re.MULTILINE)) - {"version"}
    assert table == set(declared(config.EngineSettings))
    for key in ("log_format", "log_level", "drain"):
        assert getattr(shown, key) == getattr(plain, key)


def test_every_command_is_named_and_no_other() -> None:
    cells = " ".join(row[0] for row in rows("The commands"))
    named = {words.split()[0] for words in re.findall(r"`([^`]+)`", cells)} - {"tunnelconsole"}
    assert named == set(cli.commands)


def test_the_version_of_the_control_protocol_is_the_codes() -> None:
    told = (Path(__file__).parent.parent / "docs" / "protocols.md").read_text()
    assert f'"protocol":{PROTOCOL}}}' in told


def test_every_option_of_the_program_itself_is_named() -> None:
    every_commands = {option for parameter in cli.commands["status"].params for option in parameter.opts}
    for parameter in cli.params:
        if every_commands.isdisjoint(parameter.opts) and parameter.name != "version":
            assert any(f"`tunnelconsole {option}`" in GUIDE for option in parameter.opts), parameter.opts


def test_every_key_is_named_and_no_other() -> None:
    named = {key for row in rows("The console") for key in re.split(r",? ", row[0])}
    wanted = {part for key in KEYS if key.group not in KEYS_APART for part in key.shown.split()}
    assert named - {"any", "capital", "letter"} == wanted


@pytest.mark.parametrize("seen", [row[0] for row in rows("When something does not work")])
def test_what_one_may_see_is_what_the_program_says(seen: str) -> None:
    reasons = {os.strerror(number) for number in errno.errorcode}
    pieces = re.findall(r"`([^`]+)`", seen)
    assert pieces
    for piece in (part.strip(" :") for whole in pieces for part in whole.split("...")):
        assert piece in SOURCE or piece in reasons, piece


def test_the_commands_for_client_certificates_make_what_a_server_takes(tmp_path: Path) -> None:
    authority, listed = re.findall(r"```bash\n(.*?)```", section("Client certificates"), re.DOTALL)
    run = partial(subprocess.run, shell=True, cwd=tmp_path, check=True, capture_output=True, text=True)
    run(authority)
    said = run(listed).stdout
    trust = ClientTrust(tmp_path / "clients.pem", {"the desk": plain_fingerprint(said.split("= ")[1].strip())})
    trust.demand(server_context(tmp_path / "desk.pem", tmp_path / "desk.key"))
    names = [
        trust.identify(ssl.PEM_cert_to_DER_cert((tmp_path / file).read_text())) for file in ("laptop.pem", "desk.pem")
    ]
    assert names == ["laptop", "the desk"]
    run("openssl verify -purpose sslclient -CAfile clients.pem laptop.pem")
