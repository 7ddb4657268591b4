"""What the service manager is told, as sd_notify(3) has it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnelconsole.daemon.readiness import STOP_MARGIN, Readiness


class Manager:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def told(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A path short enough for a socket."""
    return str(tmp_path_factory.mktemp("n") / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    yield made
    made.socket.close()


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def readiness(address: str, failures: list[str]) -> Readiness:
    return Readiness(failures.append, {"NOTIFY_SOCKET": address})


def test_ready_comes_with_a_status(manager: Manager, readiness: Readiness) -> None:
    readiness.ready("2 services, 0 failed")
    assert manager.told() == ["READY=1", "STATUS=2 services, 0 failed"]


def test_reloading_comes_with_its_time(manager: Manager, readiness: Readiness) -> None:
    readiness.reloading()
    told = manager.told()
    assert told[0] == "RELOADING=1"
    key, _, microseconds = told[1].partition("=")
    assert key == "MONOTONIC_USEC"
    assert microseconds.isdecimal()


def test_stopping_asks_for_the_time_that_draining_takes(manager: Manager, readiness: Readiness) -> None:
    readiness.stopping(30)
    told = manager.told()
    assert told[0] == "STOPPING=1"
    assert f"EXTEND_TIMEOUT_USEC={(30 + STOP_MARGIN) * 1_000_000}" in told


def test_a_sign_of_life_is_one_line(manager: Manager, readiness: Readiness) -> None:
    readiness.alive()
    assert manager.told() == ["WATCHDOG=1"]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_reached(failures: list[str]) -> None:
    name = f"tunnelconsole-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    Readiness(failures.append, {"NOTIFY_SOCKET": f"@{name}"}).alive()
    assert manager.told() == ["WATCHDOG=1"]
    manager.socket.close()


def test_without_a_manager_nothing_is_told(failures: list[str]) -> None:
    readiness = Readiness(failures.append, {})
    readiness.ready("")
    assert failures == []
    assert readiness.alive_interval == 0


def test_a_manager_that_has_gone_is_reported_and_stops_nothing(readiness: Readiness, failures: list[str]) -> None:
    readiness.ready("")
    assert failures == ["the service manager could not be told READY=1: No such file or directory"]


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_life_is_told_twice_in_the_managers_patience(
    environment: dict[str, str], interval: float, failures: list[str]
) -> None:
    assert Readiness(failures.append, environment).alive_interval == interval


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    told: list[str] = []
    Readiness(told.append).alive()
    assert len(told) == 1
