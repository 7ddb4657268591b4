"""How a topology is built: the addresses of both sides, and the commands for each namespace."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable

from natlab import nat_rules
from natlab.nat_rules import Kind, Nat, Place
from natlab.topologies import Nearness, Topology

RENDEZVOUS = ("192.0.2.10", "192.0.2.11", "2001:db8::10")
"""Addresses of ``srv``: two of IPv4, so that it can tell how mappings and filters depend on the address."""

PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")

FIRST_INDEX = 100
"""Of network devices. No two in a lab have the same: where both ends of a link have, the kernel takes it for something
that can wait, and brings it up as much as a second later."""

DELAYED_TABLE = 100
"""The routing table of packets that have not been delayed yet."""


class Side:
    """One side's addresses.

    :param letter: ``a`` or ``b``.
    """

    def __init__(self, letter: str, nat: Nat, cgn: Nat | None, *, overlapping: bool) -> None:
        first = letter == "a"
        self.letter = letter
        self.nat = nat
        self.cgn = cgn
        self.public = ipaddress.IPv4Network("198.51.100.0/24" if first else "203.0.113.0/24")
        self.wan, public_lan = self.public.subnets()
        self.carrier = ipaddress.IPv4Network("100.64.1.0/24" if first else "100.64.2.0/24")
        private = ipaddress.IPv4Network("10.1.0.0/24" if first or overlapping else "10.2.0.0/24")
        self.lan = public_lan if nat.kind is Kind.PUBLIC else private
        self.lan6 = ipaddress.IPv6Network(f"2001:db8:{letter}::/64")
        self.wan6 = ipaddress.IPv6Network(f"2001:db8:{letter}ff::/64")
        # In overlapping LANs a stranger has the address of the other side's client.
        numbers = (3, 2) if overlapping and not first else (2, 3)
        self.hosts = dict(zip((letter, f"{letter}2"), numbers, strict=True))


class Network:
    """What it takes to build a topology: roles, then links, then what runs in each namespace.

    :param links: commands with the roles' names in braces.
    :param commands: lines of ``ip`` for each role.
    :param rules: of nftables, for each NAT box.
    :param detour: lines of ``ip``, for both versions, that send what the core forwards through the delay line, once
        that is there.
    """

    def __init__(self, topology: Topology, sides: Iterable[Side]) -> None:
        self.roles = ["core", "srv"]
        self.links: list[str] = []
        self.commands: dict[str, list[str]] = defaultdict(list)
        self.rules: dict[str, str] = {}
        self.detour = [f"route add default dev dl0 table {DELAYED_TABLE}"]
        self._topology = topology
        self._role("core")
        self._role("srv")
        self.commands["core"] += [f"route add blackhole {network}" for network in PRIVATE_NETWORKS]
        self._core_link("srv0", "srv", "eth0")
        self._addresses("core", "srv0", "192.0.2.1/24", "2001:db8::1/64")
        self._addresses("srv", "eth0", *(f"{one}/{64 if ':' in one else 24}" for one in RENDEZVOUS))
        self._gateway("srv", "eth0", "192.0.2.1", "2001:db8::1")
        for side in sides:
            self._side(side)

    def _side(self, side: Side) -> None:
        """A NAT box with its LAN, behind a carrier-grade NAT or at the core."""
        box = f"n{side.letter}"
        self._role(box)
        if self._topology.nearness is Nearness.ONE_CGN and side.letter == "b":
            place = self._behind_carrier(side, "ca", ipaddress.IPv4Network("100.64.1.0/24"), 3)
        elif side.cgn is not None:
            carrier = f"c{side.letter}"
            self._role(carrier)
            self._bridge(carrier, f"{side.carrier[1]}/24")
            outside = self._at_core(side, carrier)
            self.rules[carrier] = nat_rules.rules(side.cgn, Place(outside, str(side.carrier), str(side.carrier[2])))
            place = self._behind_carrier(side, carrier, side.carrier, 2)
        else:
            place = self._at_core(side, box)
        first = str(side.lan[next(iter(side.hosts.values()))])
        self.rules[box] = nat_rules.rules(side.nat, Place(place, str(side.lan), first))
        self._lan(side, box)

    def _at_core(self, side: Side, box: str) -> str:
        """Links a box to the core, and gives its address there."""
        gateway, address = side.wan[1], side.wan[2]
        gateway6, address6 = side.wan6[1], side.wan6[2]
        self._core_link(f"{side.letter}0", box, "wan")
        self._addresses("core", f"{side.letter}0", f"{gateway}/{side.wan.prefixlen}", f"{gateway6}/64")
        self._addresses(box, "wan", f"{address}/{side.wan.prefixlen}", f"{address6}/64")
        self._gateway(box, "wan", str(gateway), str(gateway6))
        self.commands["core"].append(f"route add {side.lan6} via {address6} dev {side.letter}0 onlink")
        if side.nat.kind is Kind.PUBLIC:
            self.commands["core"].append(f"route add {side.lan} via {address} dev {side.letter}0 onlink")
        return str(address)

    def _behind_carrier(self, side: Side, carrier: str, network: ipaddress.IPv4Network, number: int) -> str:
        """Links a NAT box to a carrier-grade one, and gives its address there."""
        box = f"n{side.letter}"
        self._port(carrier, box, box, "wan")
        self._addresses(box, "wan", f"{network[number]}/24")
        self._gateway(box, "wan", str(network[1]))
        return str(network[number])

    def _lan(self, side: Side, box: str) -> None:
        self._bridge(box, f"{side.lan[1]}/{side.lan.prefixlen}", f"{side.lan6[1]}/64")
        for name, number in side.hosts.items():
            self._role(name)
            self._port(box, f"{name}0", name, "eth0", isolated=self._topology.isolated)
            self._addresses(name, "eth0", f"{side.lan[number]}/{side.lan.prefixlen}")
            self._gateway(name, "eth0", str(side.lan[1]))
            if self._topology.ipv6:
                self._addresses(name, "eth0", f"{side.lan6[number]}/64")
                self._gateway(name, "eth0", str(side.lan6[1]))

    def _role(self, role: str) -> None:
        if role not in self.roles:
            self.roles.append(role)
        self.commands[role].append("link set lo up")

    def _core_link(self, at_core: str, role: str, there: str) -> None:
        self._link("core", at_core, role, there)
        self.commands["core"].append(f"link set {at_core} up")
        self.detour.append(f"rule add iif {at_core} lookup {DELAYED_TABLE}")

    def _link(self, role: str, device: str, other: str, device_there: str) -> None:
        one, two = f"{{{role}}}", f"{{{other}}}"
        index = FIRST_INDEX + 2 * len(self.links)
        self.links.append(
            f"link add {device} index {index} netns {one} type veth"
            f" peer name {device_there} index {index + 1} netns {two}"
        )
        self.commands[other].append(f"link set {device_there} up")

    def _bridge(self, role: str, *addresses: str) -> None:
        self.commands[role] += ["link add br0 type bridge", "link set br0 up"]
        self._addresses(role, "br0", *addresses)

    def _port(self, role: str, device: str, other: str, device_there: str, *, isolated: bool = False) -> None:
        """A link to a port of a bridge."""
        self._link(role, device, other, device_there)
        self.commands[role] += [f"link set {device} master br0", f"link set {device} up"]
        if isolated:
            self.commands[role].append(f"link set {device} type bridge_slave isolated on")

    def _addresses(self, role: str, device: str, *addresses: str) -> None:
        for address in addresses:
            at_once = " nodad" if ":" in address else ""
            self.commands[role].append(f"addr add {address} dev {device}{at_once}")

    def _gateway(self, role: str, device: str, *gateways: str) -> None:
        for gateway in gateways:
            self.commands[role].append(f"route add default via {gateway} dev {device} onlink")
