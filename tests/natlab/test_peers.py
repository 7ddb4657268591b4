"""The installed program in the lab: the rendezvous sees clients from outside, and two clients meet there."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from natlab.lab import Host, Lab
from natlab.peers import RENDEZVOUS_PORT, Meeting, Rendezvous
from natlab.plain_sockets import ANSWER_TIME
from natlab.topologies import Topology, named
from waiting import until_true

pytestmark = [pytest.mark.e2e, pytest.mark.natlab]

LATE = 1.0
"""Seconds: far beyond what a busy machine needs to tell the other one."""

DATA = bytes(200_000)

Build = Callable[[Topology], Lab]


class Seat:
    """A client that knows no more than lines."""

    def __init__(self, host: Host, room: str) -> None:
        self.sock = host.namespace.socket()
        self.sock.settimeout(ANSWER_TIME)
        self.sock.connect(("192.0.2.10", RENDEZVOUS_PORT))
        self._lines = self.sock.makefile("rb")
        self.say(op="join", version=1, room=room, tag="0" * 32, seat=secrets.token_hex(16))

    def say(self, **fields: object) -> None:
        self.sock.sendall(json.dumps(fields).encode() + b"\n")

    def hears(self, op: str) -> dict[str, Any]:
        """The next line of this kind; pings on the way are answered."""
        while True:
            line: dict[str, Any] = json.loads(self._lines.readline())
            if line["op"] == "ping":
                self.say(op="pong", id=line["id"])
            if line["op"] == op:
                return line

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


@pytest.mark.parametrize("name", ["masquerade x masquerade, drop", "one LAN"])
def test_the_rendezvous_sees_clients_from_outside_and_a_go_can_come_late(
    natlab: Build, tmp_path: Path, name: str
) -> None:
    lab = natlab(named(name))
    with Rendezvous(lab, tmp_path), ExitStack() as left:
        early, late = (Seat(host, "room") for host in lab.clients)
        left.callback(early.close)
        left.callback(late.close)
        assert early.hears("joined")["address"] == f"198.51.100.2:{early.sock.getsockname()[1]}"
        late.hears("joined")
        lab.late(lab.clients[1], LATE)
        for seat in (early, late):
            seat.hears("peer")
            seat.say(op="ready", step="one")
        early.hears("go")
        began = time.monotonic()
        assert late.hears("go")["step"] == "one"
        assert time.monotonic() - began >= LATE / 2


@pytest.mark.parametrize(("name", "path"), [("masquerade x masquerade, drop", "direct"), ("random x random", "relay")])
def test_what_two_clients_exchange_goes_the_way_that_they_say(
    natlab: Build, tmp_path: Path, name: str, path: str
) -> None:
    lab = natlab(named(name))
    with Rendezvous(lab, tmp_path), Meeting(lab, tmp_path) as meeting:
        for client in meeting.both:
            until_true(client.ended)
        meeting.settles(path)
        lab.forget_rendezvous_bytes()
        assert meeting.echoes(DATA) == DATA, meeting.said
        assert (lab.rendezvous_bytes().total() > len(DATA)) == (path == "relay")
        assert bool(meeting.first.host.punching_syns()) == (path == "direct")
