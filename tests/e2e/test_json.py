"""The documents that programs read: what they hold at least, of which types, and what the values may be."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from echo import EchoServer, connect, echoed
from installed import Daemon, Program
from ports import split, steady_port
from waiting import until_true

pytestmark = pytest.mark.e2e

FLOORS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "services": {
        "name": str,
        "kind": str,
        "state": str,
        "address": str,
        "sessions": int,
        "bytes_in": int,
        "bytes_out": int,
        "error": (str, type(None)),
    },
    "sessions": {
        "id": str,
        "service": str,
        "kind": str,
        "peer": str,
        "identity": str,
        "since": float,
        "channels": int,
        "bytes_in": int,
        "bytes_out": int,
    },
    "channels": {
        "id": str,
        "session": str,
        "service": str,
        "label": str,
        "since": float,
        "bytes_in": int,
        "bytes_out": int,
        "rate_in": (int, float),
        "rate_out": (int, float),
    },
    "events": {"id": int, "time": float, "level": str, "type": str, "service": str, "session": str, "text": str},
}
"""The keys that the rows of each list have at least, with their types."""

STATUS: dict[str, type | tuple[type, ...]] = {
    "version": str,
    "pid": int,
    "uptime": float,
    "services": int,
    "sessions": int,
    "channels": int,
    "bytes_in": int,
    "bytes_out": int,
    "memory": int,
    "cpu": (int, float),
}

STATES = {"starting", "listening", "connecting", "connected", "draining", "backoff", "stopped", "failed"}

LEVELS = {"debug", "info", "warning", "error"}

SERVICES = """
[service.home]
kind = "jump-server"
listen = "127.0.0.1:{home}"
allow = ["127.0.0.1:*"]
secrets = {{ alice = "superBigSecret" }}

[service.via-home]
kind = "jump-client"
server = "127.0.0.1:{home}"
secret = "superBigSecret"
listen = "127.0.0.1:0"

[service.edge]
kind = "relay-server"
listen = "127.0.0.1:{edge}"
public_host = "127.0.0.1"

[service.exposed]
kind = "relay-client"
server = "127.0.0.1:{edge}"
target = "{target}"

[service.off]
kind = "relay-server"
listen = "127.0.0.1:0"
enabled = false

[service.astray]
kind = "relay-client"
server = "127.0.0.1:1"
target = "{target}"

[service.sealed]
kind = "relay-server"
listen = "127.0.0.1:{sealed}"
tls = {{}}

[service.deceived]
kind = "relay-client"
server = "127.0.0.1:{sealed}"
target = "{target}"
tls = {{ fingerprint = "{fingerprint}" }}
"""

HELLO = b"hello to the far end"


class Busy:
    """A daemon with services in every state that lasts, somebody who visits, and the documents about all that."""

    def __init__(self, program: Program, echo: EchoServer) -> None:
        ports = {name: steady_port() for name in ("home", "edge", "sealed")}
        self.echo = echo
        self.began = time.time()
        self.daemon: Daemon = program.daemon(SERVICES.format(target=echo.address, fingerprint="00" * 32, **ports))

    def documents(self) -> dict[str, Any]:
        """Every document, taken while somebody is at the far end of the relay and has sent and received a little."""
        with connect(self.daemon.address("exposed")) as visitor:
            assert echoed(visitor, HELLO) == HELLO
            until_true(lambda: any(row["bytes_in"] for row in self.daemon.json("channels")))
            return {question: self.daemon.json(question) for question in ("status", *FLOORS)}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    program = Program(tmp_path_factory.mktemp("e"))
    echo = EchoServer()
    try:
        yield Busy(program, echo)
    finally:
        program.close()
        echo.close()


@pytest.fixture(scope="module")
def documents(busy: Busy) -> dict[str, Any]:
    return busy.documents()


def row_of(documents: dict[str, Any], service: str) -> dict[str, Any]:
    return next(row for row in documents["services"] if row["name"] == service)


@pytest.mark.parametrize("question", FLOORS)
def test_every_row_has_its_keys_in_their_types(documents: dict[str, Any], question: str) -> None:
    assert documents[question]
    for row in documents[question]:
        for key, kind in FLOORS[question].items():
            assert isinstance(row[key], kind), (key, row)
            assert not isinstance(row[key], bool), (key, row)


def test_the_status_has_its_keys_in_their_types(documents: dict[str, Any]) -> None:
    for key, kind in STATUS.items():
        assert isinstance(documents["status"][key], kind), key


def test_every_state_that_lasts_is_one_of_the_seven(documents: dict[str, Any]) -> None:
    states = {row["name"]: row["state"] for row in documents["services"]}
    assert set(states.values()) <= STATES
    assert states == {
        "home": "listening",
        "via-home": "listening",
        "edge": "listening",
        "exposed": "connected",
        "off": "stopped",
        "astray": "backoff",
        "sealed": "listening",
        "deceived": "failed",
    }


def test_what_is_wrong_has_an_error_and_the_rest_has_none(documents: dict[str, Any]) -> None:
    for row in documents["services"]:
        assert bool(row["error"]) == (row["state"] in ("backoff", "failed")), row


def test_an_address_is_where_the_service_can_be_reached(documents: dict[str, Any]) -> None:
    addresses = {row["name"]: row["address"] for row in documents["services"]}
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", addresses[name]) for name in ("home", "via-home", "edge", "exposed"))
    assert all(addresses[name] == "" for name in ("off", "astray", "deceived"))


def test_levels_and_times_of_events_are_what_they_should_be(busy: Busy, documents: dict[str, Any]) -> None:
    assert {row["level"] for row in documents["events"]} <= LEVELS
    assert all(busy.began - 1 <= row["time"] <= time.time() for row in documents["events"])
    numbers = [row["id"] for row in documents["events"]]
    assert numbers == sorted(set(numbers))


def test_a_visitor_is_counted_to_the_byte_from_the_remote_partys_side(documents: dict[str, Any]) -> None:
    channels = {row["service"]: row for row in documents["channels"]}
    assert (channels["edge"]["bytes_in"], channels["edge"]["bytes_out"]) == (len(HELLO), len(HELLO))
    assert (channels["exposed"]["bytes_in"], channels["exposed"]["bytes_out"]) == (len(HELLO), len(HELLO))
    sessions = {row["id"]: row for row in documents["sessions"]}
    for channel in channels.values():
        assert sessions[channel["session"]]["service"] == channel["service"]
        assert sessions[channel["session"]]["channels"] == 1


def test_the_status_sums_up_the_lists(documents: dict[str, Any]) -> None:
    status = documents["status"]
    assert status["services"] == len(documents["services"])
    assert status["sessions"] == len(documents["sessions"])
    assert status["channels"] == len(documents["channels"])
    assert status["faults"] == 2
    assert 0 < status["memory"] < 2**30


def test_a_jump_through_socks_names_its_target_and_who_asked(busy: Busy) -> None:
    host, port = split(busy.echo.address)
    with connect(busy.daemon.address("via-home")) as visitor:
        visitor.sendall(b"\x05\x01\x00")
        assert visitor.recv(2) == b"\x05\x00"
        visitor.sendall(b"\x05\x01\x00\x01" + bytes(map(int, host.split("."))) + port.to_bytes(2, "big"))
        assert visitor.recv(10)[1] == 0
        channels = {row["service"]: row for row in busy.daemon.json("channels")}
        assert channels["home"]["label"] == channels["via-home"]["label"] == busy.echo.address
        (session,) = busy.daemon.json("sessions", "--service", "home")
        assert session["identity"] == "alice"
        assert session["since"] == pytest.approx(time.time(), abs=60)


def test_steering_prints_a_document_too(busy: Busy) -> None:
    for command in (["start", "off"], ["stop", "off"], ["reload"]):
        assert isinstance(busy.daemon.json(*command)["text"], str)


def test_check_prints_a_document_in_both_cases(busy: Busy) -> None:
    program = busy.daemon.program
    good = program.run("check", "-c", str(busy.daemon.config), "--json")
    assert json.loads(good.ok()) == {"ok": True, "services": 8, "problems": [], "warnings": []}
    bad = program.run("check", "-c", str(program.write("bad.toml", "version = 1\nx = 1\n")), "--json")
    assert bad.code == 1
    assert json.loads(bad.out)["problems"][0].startswith("x: unknown key")
