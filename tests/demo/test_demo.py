"""The demonstration: life on every screen, and nothing left when it ends."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from installed import Program, document
from tunnelconsole import demo
from waiting import until_true as until_true_within

STARTED_FOR_US = """
from tunnelconsole.demo import running
with running() as control:
    print(control, flush=True)
    input()
"""


T = TypeVar("T")


class Shown:
    """A demonstration that runs, seen as a console sees it."""

    def __init__(self, program: Program, control: Path) -> None:
        self._program = program
        self.control = control

    def rows(self, *command: str) -> Any:
        return document(self.control, *command)

    def steer(self, *command: str) -> None:
        self._program.run(*command, "--socket", str(self.control)).ok()

    def service(self, name: str) -> Any:
        return next(row for row in self.rows("services") if row["name"] == name)


A_WHILE = 90.0
"""Seconds: the rarest of the demonstration's visitors comes every twenty, and what they want is drawn by lot."""


def until_true(condition: Callable[[], T]) -> T:
    """Looks again and again until ``condition`` gives something true, and gives that."""
    return until_true_within(condition, A_WHILE)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def shown(program: Program) -> Iterator[Shown]:
    with demo.running() as control:
        yield Shown(program, control)


def test_every_system_runs_as_server_and_as_client(shown: Shown) -> None:
    services = shown.rows("services")
    systems = ("jump", "relay", "channel", "tunnel", "punch")
    assert {row["kind"] for row in services} == {
        *(f"{system}-{end}" for system in systems for end in ("server", "client")),
        "ssh-server",
    }
    until_true(lambda: all(row["state"] in ("listening", "connected") for row in shown.rows("services")))


def test_real_traffic_goes_through_every_service(shown: Shown) -> None:
    until_true(lambda: all(row["bytes_in"] and row["bytes_out"] for row in shown.rows("services")))


def test_bytes_travel_in_every_way_there_is(shown: Shown) -> None:
    ways = {"splice", "tcp", "tls", "yamux", "sealed", "ssh"}
    until_true(lambda: {row["path"] for row in shown.rows("channels")} == ways)


def test_channels_move_and_others_stand_still(shown: Shown) -> None:
    def both() -> bool:
        rates = [row["rate_out"] for row in shown.rows("channels")]
        return any(rates) and not all(rates)

    until_true(both)


def test_a_hole_punch_succeeds_and_another_pair_stays_on_the_relay(shown: Shown) -> None:
    until_true(lambda: {row["state"] for row in shown.rows("attempts", "--service", "room-desk")} >= {"direct"})
    until_true(lambda: shown.service("room-hall")["notes"]["path"] == "direct")
    until_true(lambda: shown.service("attic")["notes"]["path"] == "relay")


def test_requests_of_many_kinds_come_through_the_tunnel(shown: Shown) -> None:
    def kinds() -> bool:
        rows = shown.rows("requests", "--service", "web")
        return {200, 404} <= {row["status"] for row in rows} and {"GET", "POST"} <= {row["method"] for row in rows}

    until_true(kinds)
    until_true(lambda: {row["host"] for row in shown.rows("requests")} == {"shop.localhost", "garden.localhost"})


def test_secrets_of_requests_are_hidden_and_a_request_can_be_sent_again(shown: Shown) -> None:
    def secretive() -> Any:
        rows = shown.rows("requests", "--service", "web-shop")
        return [row for row in rows if row["target"].endswith("token=[hidden]") and row["seconds"] is not None]

    shown.steer("replay", until_true(secretive)[-1]["id"])
    assert any(row["replay_of"] for row in shown.rows("requests", "--service", "web-shop"))


def test_clients_are_told_apart_by_name(shown: Shown) -> None:
    until_true(lambda: {"alice", "bob", "heidi"} <= {row["identity"] for row in shown.rows("sessions")})


def test_tokens_are_in_use_about_to_expire_and_disabled(shown: Shown) -> None:
    def in_use() -> Any:
        tokens = {row["name"]: row for row in shown.rows("token", "list")}
        return tokens if tokens["cameras"]["sessions"] == 2 and tokens["cameras"]["bytes_today"] else None

    tokens = until_true(in_use)
    assert tokens["cameras"]["rights"]["bytes_per_day"] == 20 << 30
    assert tokens["sensors"]["expires"] is not None
    assert tokens["contractor"]["state"] == "disabled"


def test_the_events_show_a_warning(shown: Shown) -> None:
    def warned() -> bool:
        return any(
            row["level"] == "warning" and "not allowed" in row["text"] for row in shown.rows("events", "-n", "500")
        )

    until_true(warned)


def test_nothing_listens_beyond_loopback(shown: Shown) -> None:
    services = shown.rows("services")
    assert not any(row["exposed"] for row in services)
    ours = re.compile(r"127\.0\.0\.1:\d+|http://shop\.localhost:\d+")
    inside = [row["notes"].get("chid", "") for row in services]  # a punch client with a target has no address at all
    assert all(ours.fullmatch(row["address"]) or row["address"] in inside for row in services)


def test_visitors_come_back_when_they_were_cut_off(shown: Shown) -> None:
    before = {row["id"] for row in shown.rows("sessions", "--service", "shell")}
    shown.steer("restart", "shell")

    def others_came() -> bool:
        now = {row["id"] for row in shown.rows("sessions", "--service", "shell")}
        return len(now) >= len(before) and now.isdisjoint(before)

    until_true(others_came)


def test_a_second_demonstration_does_not_disturb_the_first(program: Program, shown: Shown) -> None:
    with demo.running() as control:
        second = Shown(program, control)
        until_true(lambda: all(row["bytes_out"] for row in second.rows("services")))
        mine, yours = ({row["address"] for row in each.rows("services")} for each in (shown, second))
        assert mine & yours <= {"desk", ""}  # the former is a chid, and each has a hub of its own
    assert all(row["state"] in ("listening", "connected") for row in shown.rows("services"))


def test_nothing_is_left_when_it_ends() -> None:
    us = psutil.Process()
    others = set(us.children())
    with demo.running() as control:
        assert control.exists()
        children = set(us.children()) - others
        assert len(children) == 2
    assert not control.parent.exists()
    assert not any(child.is_running() for child in children)


def test_nothing_is_left_when_the_one_who_started_it_is_killed(program: Program) -> None:
    command = [sys.executable, "-c", STARTED_FOR_US]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        control = Path(starter.stdout.readline().strip())
        until_true(lambda: Shown(program, control).rows("status")["channels"])
        children = psutil.Process(starter.pid).children()
        assert len(children) == 2
        starter.kill()
    until_true(lambda: not any(child.is_running() for child in children))
    until_true(lambda: not control.parent.exists())


def test_the_secrets_are_new_each_time_and_nobody_else_can_read_them(shown: Shown) -> None:
    config = shown.control.parent / "config.toml"
    assert config.stat().st_mode & 0o077 == 0
    assert shown.control.parent.stat().st_mode & 0o077 == 0
    with demo.running() as control:
        other = (control.parent / "config.toml").read_text()
    secrets = [{line for line in text.splitlines() if line.startswith("alice")} for text in (config.read_text(), other)]
    assert secrets[0]
    assert secrets[0].isdisjoint(secrets[1])
