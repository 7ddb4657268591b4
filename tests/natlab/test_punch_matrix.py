"""Every topology at every skew: how two clients end up connected, how soon, with how many SYNs, and that bytes pass.

That a plain dial reaches nobody in them whom it must not is in test_topologies.
"""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from natlab.lab import Host, Lab
from natlab.nat_rules import Kind
from natlab.peers import Attempt, Meeting, Rendezvous
from natlab.report import RACE, Recorder, Try
from natlab.topologies import LONGEST_MS, TOPOLOGIES, Topology, Way

pytestmark = [pytest.mark.e2e, pytest.mark.natlab]

SYN_BUDGET = 1300
"""SYNs that an attempt may send: a race of many ports against many, and no attack."""

SKEWS = {"0": 0.0, "5 ms": 0.005, "50 ms": 0.05, "1.5 s": 1.5}
"""How much later one client starts: not at all, under the one-way delay, over it, and long after."""

TRIES_OF_SKEWS = 3
"""The most tries of a skew; the skew at random, whose median counts, is tried as often as was asked for."""

DATA = os.urandom(1024) * 256

OVERHEAD = 16 * 1024
"""Bytes that may pass the rendezvous while :data:`DATA` goes another way: pings, and words about the room."""

MOVING = {Kind.RANDOM, Kind.SEQUENTIAL}
"""NATs whose ports have to be guessed, so that more ports are dialled than were offered."""

Build = Callable[[Topology], Lab]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All cells, when more than one try was asked for; else each topology with one skew, each skew in its turn."""
    tries = metafunc.config.getoption("--natlab-tries")
    cells = [
        (topology, skew, tries if skew == RACE else min(tries, TRIES_OF_SKEWS))
        for number, topology in enumerate(TOPOLOGIES)
        for turn, skew in enumerate([RACE, *SKEWS])
        if tries > 1 or turn == number % (len(SKEWS) + 1)
    ]
    metafunc.parametrize(
        ("topology", "skew", "tries"), cells, ids=[f"{topology.name}, {skew}" for topology, skew, _ in cells]
    )


def test_it_is_punched(
    natlab: Build, record: Recorder, tmp_path: Path, topology: Topology, skew: str, tries: int
) -> None:
    lab = natlab(topology)
    results = []
    with Rendezvous(lab, tmp_path):
        for number in range(tries):
            late = SKEWS.get(skew, random.uniform(0, 0.1))
            lab.late(lab.clients[1], late)
            for host in lab.clients:
                host.forget_syns()
            with Meeting(lab, tmp_path / str(number)) as meeting:
                made, wrong = look_at(lab, meeting, late, skew)
            record(made)
            results.append(wrong)
    assert not any(results), "\n".join(filter(None, results))


def look_at(lab: Lab, meeting: Meeting, late: float, skew: str) -> tuple[Try, str]:
    """What became of one try, and what of it is not as it should be."""
    topology = lab.topology
    one, other = lab.clients
    attempts = meeting.first_attempts()
    way = attempts[0].state
    ms = max(attempt.race_ms for attempt in attempts)
    syns = [host.punching_syns() for host in (one, other)]
    wrong = [
        *wrong_way(topology, attempts),
        *(
            complaint
            for host, attempt, sent in zip((one, other), attempts, syns, strict=True)
            for complaint in wrong_syns(topology, host, attempt, sent)
        ),
        *([f"took {ms:.0f} ms"] if ms - late * 1000 > LONGEST_MS else []),
    ]
    if way in {"direct", "relay"}:
        meeting.settles(way)
        wrong += wrong_bytes(lab, meeting, direct=way == "direct")
    words = f"{topology.name}, {skew}: {'; '.join(wrong)}\n{meeting.said}" if wrong else ""
    made = Try(topology.name, skew, way, ms, max(sent.total() for sent in syns), not wrong)
    return made, words


def wrong_way(topology: Topology, attempts: tuple[Attempt, Attempt]) -> list[str]:
    """How it was reached, by both sides' word."""
    wanted = "direct" if topology.expected.way.is_direct else "relay"
    if topology.expected.way is Way.EITHER and attempts[0].state == "direct":
        wanted = "direct"
    wrong = [
        f"{attempt.state} ({attempt.method}) instead of {wanted}" for attempt in attempts if attempt.state != wanted
    ]
    if wanted == "direct" and not all(attempt.document["peer"] for attempt in attempts):
        wrong.append("no address that was reached")
    return wrong


def wrong_syns(topology: Topology, host: Host, attempt: Attempt, sent: dict[str, int]) -> list[str]:
    """SYNs as the host's own kernel counts them: too many, or to somebody who is no candidate."""
    wrong = []
    if sum(sent.values()) > SYN_BUDGET:
        wrong.append(f"{host.name} sent {sum(sent.values())} SYNs")
    guesses = any(nat.kind in MOVING for nat in (topology.a, topology.b, topology.cgn_a, topology.cgn_b) if nat)
    allowed = {host_of(address) for address in attempt.dialled} if guesses else attempt.dialled
    strangers = {address for address in sent if (host_of(address) if guesses else address) not in allowed}
    if strangers:
        wrong.append(f"{host.name} dialled {', '.join(sorted(strangers))}, no candidate")
    return wrong


def wrong_bytes(lab: Lab, meeting: Meeting, *, direct: bool) -> list[str]:
    """Bytes go both ways; over the rendezvous only where they are relayed."""
    lab.forget_rendezvous_bytes()
    wrong = [] if meeting.echoes(DATA) == DATA else ["bytes were lost or changed"]
    relayed = lab.rendezvous_bytes().total()
    if direct and relayed > OVERHEAD:
        wrong.append(f"{relayed} bytes went over the rendezvous")
    if not direct and relayed < 2 * len(DATA):
        wrong.append(f"only {relayed} bytes went over the rendezvous")
    return wrong


def host_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
