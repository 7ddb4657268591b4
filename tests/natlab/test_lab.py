"""The lab itself: it is there, it counts and loses what it is told to, and nothing of it is left."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natlab import namespaces
from natlab.answering import Answering
from natlab.lab import Host, Lab
from natlab.namespaces import LabError
from natlab.network import RENDEZVOUS
from natlab.plain_sockets import ANSWER_TIME, Fate, dial
from natlab.topologies import Topology, named
from waiting import until_true

pytestmark = pytest.mark.natlab

TESTS = Path(__file__).parent.parent

PLAIN = named("masquerade x masquerade, drop")
NEIGHBOURS = named("one LAN")
OVERLAPPING = named("overlapping LANs")
IPV6 = named("IPv6 beside random x random, drop")

GO_LINE = b'{"op":"go"}\n'

Build = Callable[[Topology], Lab]

KILLED_WITH_A_LAB = f"""
from natlab.lab import Lab
from natlab.topologies import named
with Lab(named({PLAIN.name!r})) as lab:
    left = lab.hosts["a"].namespace.popen(["sleep", "1000"])
    print(left.pid, lab._delay_line.pid, flush=True)
    input()
"""


@pytest.mark.parametrize("end", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_is_left_when_a_test_breaks_off(end: type[BaseException]) -> None:
    made: list[str] = []

    def breaks_off() -> None:
        with Lab(PLAIN) as lab:
            made.extend(one.name for one in lab.namespaces.values())
            raise end

    with pytest.raises(end):
        breaks_off()
    assert made
    assert set(made).isdisjoint(namespaces.names())


def test_nothing_is_left_when_it_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(PLAIN)
    made: list[str] = []

    def fails() -> None:
        made.extend(one.name for one in lab.namespaces.values())
        raise LabError("in the middle")

    monkeypatch.setattr(lab, "_make_hosts", fails)
    with pytest.raises(LabError, match="in the middle"), lab:
        pass
    assert made
    assert set(made).isdisjoint(namespaces.names())


def test_a_command_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(LabError, match="no-such-device"), namespaces.Batch() as batch:
        batch.ip(["link set no-such-device up"])


def test_programs_that_run_in_it_end_with_it() -> None:
    with Lab(PLAIN) as lab:
        program = lab.hosts["a"].namespace.popen(["sleep", "1000"])
    assert program.wait() == -signal.SIGKILL


def test_what_a_killed_process_left_is_removed_when_the_next_lab_is_built(natlab: Build) -> None:
    search = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED_WITH_A_LAB],
        env=os.environ | {"PYTHONPATH": search},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        started = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(started) == 2
        owner.kill()
    natlab(NEIGHBOURS)
    until_true(lambda: not namespaces.owned_by(owner.pid))  # another test's lab may be the next one
    until_true(lambda: all(namespaces._started(pid) is None for pid in started))


def test_labs_of_a_living_process_are_no_leftovers(natlab: Build) -> None:
    lab = natlab(NEIGHBOURS)
    namespaces.remove_leftovers()
    assert {one.name for one in lab.namespaces.values()} <= set(namespaces.names())


def test_two_labs_at_a_time_know_nothing_of_each_other(natlab: Build) -> None:
    first, second = natlab(PLAIN), natlab(PLAIN)
    answering = Answering(first.srv, 7900)
    try:
        assert dial(first.hosts["a"].namespace, ("192.0.2.10", 7900), within=ANSWER_TIME) is Fate.CONNECTED
        assert dial(second.hosts["a"].namespace, ("192.0.2.10", 7900)) is Fate.REFUSED
    finally:
        answering.close()


@pytest.fixture
def lab(natlab: Build) -> Lab:
    return natlab(PLAIN)


@pytest.fixture
def rendezvous(lab: Lab) -> Iterator[Answering]:
    answering = Answering(lab.srv, 7900)
    yield answering
    answering.close()


def connected(host: Host, to: tuple[str, int]) -> socket.socket:
    sock = host.namespace.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
    sock.settimeout(ANSWER_TIME)
    sock.connect(to)
    return sock


def says(sock: socket.socket, data: bytes) -> bytes:
    """What comes back for ``data``."""
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        got += sock.recv(65536) or pytest.fail("the connection ended")
    return got


@pytest.mark.parametrize("address", RENDEZVOUS)
def test_the_rendezvous_is_reached_at_each_address(natlab: Build, address: str) -> None:
    lab = natlab(IPV6)
    answering = Answering(lab.srv, 7900)
    try:
        for host in lab.clients:
            with connected(host, (address, 7900)) as sock:
                assert says(sock, b"hello") == b"hello"
    finally:
        answering.close()


def test_a_packet_is_on_its_way_for_the_delay(lab: Lab, rendezvous: Answering) -> None:
    with connected(lab.hosts["a"], ("192.0.2.10", rendezvous.port)) as sock:
        began = time.monotonic()
        says(sock, b"x")
        assert time.monotonic() - began >= 2 * lab.delay


def test_syns_are_counted_by_destination(lab: Lab, rendezvous: Answering) -> None:
    host = lab.hosts["a"]
    with connected(host, ("192.0.2.10", rendezvous.port)):
        dial(host.namespace, ("203.0.113.2", 4711))
        dial(host.namespace, ("203.0.113.2", 4711))
        dial(host.namespace, ("127.0.0.1", 4712))
    assert host.syns() == {"192.0.2.10:7900": 1, "203.0.113.2:4711": 2, "127.0.0.1:4712": 1}
    assert host.punching_syns() == {"203.0.113.2:4711": 2}
    assert not lab.hosts["b"].syns()
    host.forget_syns()
    assert not host.syns()


def test_retransmitted_syns_are_counted_too(lab: Lab) -> None:
    host = lab.hosts["a"]
    dial(host.namespace, ("203.0.113.2", 4711), within=1.5)  # the kernel's first retransmission comes after 1 s
    assert host.syns() == {"203.0.113.2:4711": 2}


def test_syns_of_ipv6_are_counted(natlab: Build) -> None:
    lab = natlab(IPV6)
    one, other = lab.clients
    assert other.address6 is not None
    dial(one.namespace, (other.address6, 4711))
    assert one.punching_syns() == {f"[{other.address6}]:4711": 1}


def test_bytes_at_the_rendezvous_are_counted_by_connection(lab: Lab, rendezvous: Answering) -> None:
    with connected(lab.hosts["a"], ("192.0.2.10", rendezvous.port)) as talks:
        with connected(lab.hosts["b"], ("192.0.2.10", rendezvous.port)):
            says(talks, bytes(100_000))
            counted = lab.rendezvous_bytes()
        assert {address.rpartition(":")[0] for address in counted} == {"198.51.100.2", "203.0.113.2"}
        assert max(counted.values()) > 200_000
        assert min(counted.values()) < 1000
        lab.forget_rendezvous_bytes()
        says(talks, bytes(100))
    assert 200 < lab.rendezvous_bytes().total() < 2000


def test_a_cut_link_carries_nothing_until_it_is_mended(lab: Lab, rendezvous: Answering) -> None:
    host = lab.hosts["a"]
    host.loses.everything()
    assert dial(host.namespace, ("192.0.2.10", rendezvous.port)) is Fate.SILENT
    host.loses.nothing()
    assert dial(host.namespace, ("192.0.2.10", rendezvous.port), within=ANSWER_TIME) is Fate.CONNECTED


def test_a_connection_to_a_neighbour_can_be_lost_while_the_rendezvous_is_reached(natlab: Build) -> None:
    lab = natlab(NEIGHBOURS)
    one, other = lab.clients
    answering, rendezvous = Answering(other.namespace), Answering(lab.srv)
    try:
        with connected(one, (other.address, answering.port)) as direct:
            one.loses.all_but_rendezvous()
            direct.sendall(b"lost")
            direct.settimeout(0.3)
            with pytest.raises(TimeoutError):
                direct.recv(10)
            with connected(one, ("192.0.2.10", rendezvous.port)) as relayed:
                assert says(relayed, b"hello") == b"hello"
            one.loses.nothing()
            direct.settimeout(ANSWER_TIME)
            assert direct.recv(10) == b"lost"
    finally:
        answering.close()
        rendezvous.close()


def test_a_connection_can_be_reset(natlab: Build) -> None:
    lab = natlab(NEIGHBOURS)
    one, other = lab.clients
    answering = Answering(other.namespace)
    try:
        with connected(one, (other.address, answering.port)) as direct:
            one.loses.all_but_rendezvous(reset=True)
            with pytest.raises(ConnectionResetError):
                says(direct, b"lost")
    finally:
        answering.close()


def test_one_flow_can_be_lost_and_no_other(natlab: Build) -> None:
    lab = natlab(NEIGHBOURS)
    one, other = lab.clients
    lost, kept = Answering(other.namespace), Answering(other.namespace)
    try:
        one.loses.flow(other.address, lost.port)
        assert dial(one.namespace, (other.address, lost.port)) is Fate.SILENT
        assert dial(one.namespace, (other.address, kept.port), within=ANSWER_TIME) is Fate.CONNECTED
    finally:
        lost.close()
        kept.close()


@pytest.mark.parametrize("topology", [PLAIN, NEIGHBOURS], ids=lambda topology: topology.name)
def test_a_go_reaches_one_client_later_than_the_other(natlab: Build, topology: Topology) -> None:
    lab = natlab(topology)
    early, late = lab.clients
    lab.late(late, 1.0)
    answering = Answering(lab.srv, 7900)  # it sends back what comes, a go included
    try:
        with connected(early, ("192.0.2.10", 7900)) as first, connected(late, ("192.0.2.10", 7900)) as second:
            began = time.monotonic()
            second.sendall(GO_LINE)
            first.sendall(GO_LINE)
            assert select.select([first, second], [], [], ANSWER_TIME)[0] == [first]
            assert second.recv(100) == GO_LINE
            assert time.monotonic() - began >= 1.0
    finally:
        answering.close()


def test_in_overlapping_lans_a_stranger_answers_on_every_port(natlab: Build) -> None:
    lab = natlab(OVERLAPPING)
    for one, other in (lab.clients, lab.clients[::-1]):
        with connected(one, (other.address, 4711)) as sock:
            assert says(sock, b"are you the other one?") == b"are you the other one?"
    assert [stranger.peers for stranger in lab.strangers] == [[host.address] for host in lab.clients]
