"""The NAT lab: two clients, the boxes before them, and a rendezvous, in network namespaces that only this lab has.

    srv ── core ── [ca: carrier-grade NAT] ── na: NAT ── a, a2
              └─── [cb: carrier-grade NAT] ── nb: NAT ── b, b2

The core delays what it forwards, and swallows private addresses as providers do. With one carrier-grade NAT for both,
nb stands behind ca as well; with one LAN, side b is not built.
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import system_tools
from natlab import counters, namespaces
from natlab.answering import Answering
from natlab.counters import Losses
from natlab.namespaces import Batch, LabError, Namespace
from natlab.network import Network, Side
from natlab.topologies import Nearness, Topology
from waiting import until_true

OWD = 0.01
"""Seconds that a packet is on its way between two links of the core (one-way delay)."""

ALL_PORTS = "1-65535"
STRANGER_PORT = 9
"""Where a stranger answers; all other ports lead there."""

START_TIME = 30.0
"""Seconds that the delay line has until it answers: it needs a fiftieth of one."""

NETWORK_SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
}
"""Every host forwards, and uses an IPv6 address at once."""

DELAY_LINE = Path(__file__).parent / "delay_line.py"


class Host:
    """A host of the lab.

    :param address: its own IPv4 address.
    :param mark: the DSCP mark of its packets, by which the delay line knows it.
    """

    def __init__(self, name: str, namespace: Namespace, address: str, address6: str | None, mark: int) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self.address6 = address6
        self.mark = mark
        self.loses = Losses(namespace)

    def syns(self) -> Counter[str]:
        """SYNs sent, retransmissions included, by ``host:port``."""
        return counters.read(self.namespace, "syns", "packets")

    def punching_syns(self) -> Counter[str]:
        """SYNs sent to other hosts than its own and the rendezvous's."""
        return Counter({to: count for to, count in self.syns().items() if not _is_home_or_rendezvous(to)})

    def forget_syns(self) -> None:
        """Begins to count again."""
        counters.forget(self.namespace, "syns")


class Lab:
    """A topology as a network that exists; a context manager that removes it however the block is left.

    :param delay: one-way, in seconds.
    :raises LabError: it cannot be built; nothing of it is left then.
    """

    def __init__(self, topology: Topology, delay: float = OWD) -> None:
        self.topology = topology
        self.delay = delay
        self.hosts: dict[str, Host] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.strangers: list[Answering] = []
        self._sides = [Side("a", topology.a, topology.cgn_a, overlapping=topology.overlapping)]
        if topology.nearness is not Nearness.ONE_LAN:
            self._sides.append(Side("b", topology.b, topology.cgn_b, overlapping=topology.overlapping))
        self._delay_line: subprocess.Popen[bytes] | None = None

    @property
    def clients(self) -> tuple[Host, Host]:
        """The two between whom a connection is wanted."""
        first, second = self.topology.clients
        return self.hosts[first], self.hosts[second]

    @property
    def srv(self) -> Namespace:
        """The rendezvous's host."""
        return self.namespaces["srv"]

    def late(self, host: Host, seconds: float) -> None:
        """From now on each ``go`` of the rendezvous reaches a client so much later, unknown to all."""
        self._tell_delay_line(f"late {host.mark} {seconds}\n")

    def rendezvous_bytes(self) -> Counter[str]:
        """Bytes of TCP that the rendezvous's host has received and sent, heads included, by the other end."""
        return counters.read(self.srv, "received", "bytes") + counters.read(self.srv, "sent", "bytes")

    def forget_rendezvous_bytes(self) -> None:
        """Begins to count again."""
        counters.forget(self.srv, "received", "sent")

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes all of it, with the processes that run in it."""
        for stranger in self.strangers:
            stranger.close()
        self.strangers.clear()
        namespaces.remove(self.namespaces.values())
        self.namespaces.clear()
        if self._delay_line is not None:
            self._delay_line.wait()
            for stream in (self._delay_line.stdin, self._delay_line.stdout):
                if stream is not None:
                    stream.close()
            self._delay_line = None

    def _build(self) -> None:
        network = Network(self.topology, self._sides)
        self.namespaces = namespaces.create(network.roles)
        self._start_delay_line()
        for namespace in self.namespaces.values():
            namespace.configure(NETWORK_SETTINGS)
        self._make_hosts()
        with Batch() as batch:
            for command in network.links:
                batch.ip([command.format(**{role: one.name for role, one in self.namespaces.items()})])
        with Batch() as batch:
            for role, commands in network.commands.items():
                batch.ip(commands, self.namespaces[role])
            for role, rules in network.rules.items():
                batch.nft(rules, self.namespaces[role])
            for host in self.hosts.values():
                batch.nft(counters.count_syns(host.mark), host.namespace)
            batch.nft(counters.count_bytes(), self.srv)
        until_true(lambda: not self._links_to_come())
        self._await_delay_line("ready")
        with Batch() as batch:
            for version in (4, 6):
                batch.ip(network.detour, self.namespaces["core"], version=version)
        self._let_strangers_answer()

    def _make_hosts(self) -> None:
        for side in self._sides:
            for name, number in side.hosts.items():
                address6 = str(side.lan6[number]) if self.topology.ipv6 else None
                mark = len(self.hosts) + 1
                self.hosts[name] = Host(name, self.namespaces[name], str(side.lan[number]), address6, mark)

    def _links_to_come(self) -> list[str]:
        """Devices that do not carry packets yet. The kernel brings them up later, and loses what comes too early: then
        the first dial would take the second that ARP waits before it asks again.
        """
        command = [system_tools.path_of("ip"), "-json", "-details", "link", "show", "type"]
        asked = [
            (role, subprocess.Popen([*command[:1], "-netns", one.name, *command[1:], "veth"], stdout=subprocess.PIPE))
            for role, one in self.namespaces.items()
        ]
        to_come = []
        for role, process in asked:
            answer, _ = process.communicate()
            for device in json.loads(answer):
                port = device["linkinfo"].get("info_slave_data", {"state": "forwarding"})
                if device["operstate"] != "UP" or port["state"] != "forwarding":
                    to_come.append(f"{device['ifname']} in {role}")
        return to_come

    def _let_strangers_answer(self) -> None:
        for name in self.topology.strangers:
            redirect = f"tcp dport {ALL_PORTS} redirect to :{STRANGER_PORT};"
            with Batch() as batch:
                batch.nft(
                    f"table ip stranger {{ chain asked {{ type nat hook prerouting priority -100; {redirect} }}; }}",
                    self.namespaces[name],
                )
            self.strangers.append(Answering(self.namespaces[name], STRANGER_PORT))

    def _start_delay_line(self) -> None:
        command = [sys.executable, "-I", "-S", str(DELAY_LINE), "dl0", f"{self.delay * 1000:g}"]
        self._delay_line = self.namespaces["core"].popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _tell_delay_line(self, command: str) -> None:
        if self._delay_line is None or self._delay_line.stdin is None:
            raise LabError("the lab is not built")
        self._delay_line.stdin.write(command.encode())
        self._delay_line.stdin.flush()
        self._await_delay_line("ok")

    def _await_delay_line(self, word: str) -> None:
        if self._delay_line is None or self._delay_line.stdout is None:
            raise LabError("the lab is not built")
        with selectors.DefaultSelector() as selector:
            selector.register(self._delay_line.stdout, selectors.EVENT_READ)
            answered = selector.select(START_TIME)
        said = os.read(self._delay_line.stdout.fileno(), 100) if answered else b"nothing"
        if said != f"{word}\n".encode():
            raise LabError(f"the delay line should have said {word!r} and said {said!r}")


def _is_home_or_rendezvous(address: str) -> bool:
    host = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    networks = (counters.RENDEZVOUS_NETWORK, counters.RENDEZVOUS_NETWORK6)
    return host.is_loopback or any(host in ipaddress.ip_network(network) for network in networks)
