"""docs/fail2ban: in both formats of the log the filter finds the addresses of those who are refused, and no other."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from system_tools import path_of
from tunnelconsole.daemon.logs import Log, LogFormat
from tunnelconsole.engine.bus import Record
from tunnelconsole.engine.events import Event, PeerRefused, Repeated, TargetFailed
from tunnelconsole.engine.refusals import REFUSAL_KINDS, RefusalKind

FOLDER = Path(__file__).parent.parent / "docs" / "fail2ban"
FILTER = FOLDER / "filter.d" / "tunnelconsole.conf"
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)

ADDRESS = r"(?P<address>[0-9A-Fa-f:.]+)"
"""What stands for <ADDR>, in short: whatever is made of the letters of an address."""

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"

FORGED = 'x" kind=credentials address=198.51.100.66 text="\n2025-11-20T03:12:45.678Z warning peer-refused service=home '
FORGED += (
    'kind=credentials address=198.51.100.66 text="", "kind": "credentials", "address": "198.51.100.66", "text": ""'
)
"""What a stranger says who wants another to be banned."""


def lines(event: Event, log_format: LogFormat, folder: Path) -> list[str]:
    """The lines of the log that an event makes."""
    path = folder / "made.log"
    with path.open("wb") as file:
        log = Log(os.dup(file.fileno()), log_format, "debug")
        log.record(Record(1, 1_700_000_000.25, event))
        log.close()
    return path.read_text().splitlines()


def settings() -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read(FILTER)
    return dict(parser["Definition"])


def found(line: str, mode: str = "normal") -> str:
    """The address that the filter takes from a line, as fail2ban would; "" for none."""
    told = settings()
    for pattern in told["datepattern"].splitlines():
        date = pattern.strip().replace("%%Y-%%m-%%dT%%H:%%M:%%S\\.%%f%%z", TIME)
        if match := re.match(date, line):
            rest = line[match.end() :]
            break
    else:
        return ""
    for pattern in told["failregex"].splitlines():
        expression = pattern.replace("<_kinds>", told[f"_kinds_{mode}"]).replace("<ADDR>", ADDRESS)
        if expression and (match := re.search(expression, rest)):
            return match["address"]
    return ""


def refused(kind: RefusalKind, peer: str = "192.0.2.7:40112", reason: str = "wrong secret") -> PeerRefused:
    return PeerRefused(service="home", peer=peer, reason=reason, kind=kind)


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize(
    ("peer", "address"), [("192.0.2.7:40112", "192.0.2.7"), ("[2001:db8::7]:40112", "2001:db8::7")]
)
def test_who_guesses_is_found(log_format: LogFormat, peer: str, address: str, tmp_path: Path) -> None:
    (line,) = lines(refused("credentials", peer), log_format, tmp_path)
    assert found(line) == address


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("kind", REFUSAL_KINDS)
def test_guesses_and_who_is_banned_count_and_in_the_other_mode_more(
    log_format: LogFormat, kind: RefusalKind, tmp_path: Path
) -> None:
    (line,) = lines(refused(kind), log_format, tmp_path)
    assert bool(found(line)) is (kind in ("credentials", "banned"))
    more = ("credentials", "banned", "address", "rate", "tls", "protocol")
    assert bool(found(line, "aggressive")) is (kind in more)


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize(
    "event",
    [
        refused("credentials", reason=FORGED),
        refused("protocol", reason=FORGED),
        refused("protocol", peer=FORGED, reason=FORGED),
        PeerRefused(peer="stream 7", reason=FORGED, kind="credentials"),
        TargetFailed(service="home", peer="192.0.2.7:1", target=FORGED, reason=FORGED),
        Repeated(service="home", of="peer-refused", who="192.0.2.7", reason=FORGED, count=9, seconds=10.0),
    ],
    ids=lambda event: f"{event.type}",
)
def test_nobody_can_have_another_address_found(log_format: LogFormat, event: Event, tmp_path: Path) -> None:
    assert {found(line, "aggressive") for line in lines(event, log_format, tmp_path)} <= {"", "192.0.2.7"}


@pytest.mark.parametrize("log_format", FORMATS)
@given(said=st.text())
def test_whatever_a_stranger_says_the_address_is_the_peers(
    log_format: LogFormat, said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (line,) = lines(refused("credentials", reason=said), log_format, folder)
    assert found(line) == "192.0.2.7"


@pytest.mark.system("fail2ban-regex")
@pytest.mark.parametrize("log_format", FORMATS)
def test_fail2ban_itself_finds_them(log_format: LogFormat, tmp_path: Path) -> None:
    told = [
        refused("credentials", f"192.0.2.{number}:4", FORGED if number % 2 else "wrong secret") for number in range(3)
    ]
    told += [refused("banned", "[2001:db8::7]:4"), refused("protocol", "203.0.113.9:4", FORGED)]
    log = tmp_path / "engine.log"
    log.write_text("".join(f"{line}\n" for event in told for line in lines(event, log_format, tmp_path)))
    command = [path_of("fail2ban-regex"), "-o", "<ip>", str(log), str(FILTER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == ["192.0.2.0", "192.0.2.1", "192.0.2.2", "2001:db8::7"]
    aggressive = [*command[:-1], f"{FILTER}[mode=aggressive]"]
    done = subprocess.run(aggressive, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split()[-1] == "203.0.113.9"


def test_the_jail_uses_the_filter_and_no_more_refusals_than_are_told_at_once() -> None:
    parser = configparser.RawConfigParser()
    parser.read(FOLDER / "jail.d" / "tunnelconsole.conf")
    jail = parser["tunnelconsole"]
    assert jail["filter"].startswith("tunnelconsole[")
    assert int(jail["maxretry"]) <= 5


def test_the_line_that_the_guide_shows_is_found() -> None:
    guide = (FOLDER.parent / "guide.md").read_text()
    (line,) = re.findall(r"^\S+ warning peer-refused .*$", guide, re.MULTILINE)
    assert found(line) == "192.0.2.7"
