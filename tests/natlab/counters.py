"""What the hosts of a lab count and lose: nftables in their own namespaces, which no program in them notices."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import system_tools
from natlab.namespaces import Batch, Namespace
from tunnelconsole.engine.wire.hostport import format_host_port

SET_SIZE = 65_536
"""Destinations that a counter tells apart: fifty times the SYNs that an attempt may send."""

RENDEZVOUS_NETWORK = "192.0.2.0/24"
RENDEZVOUS_NETWORK6 = "2001:db8::/64"

_SET = "set {name} {{ type {kind} . inet_service; size " + str(SET_SIZE) + "; flags dynamic; }}\n"
_ADDRESSES = {"": "ipv4_addr", "6": "ipv6_addr"}
_FAMILIES = {"": "ip", "6": "ip6"}


def count_syns(mark: int) -> str:
    """Rules of a client: every SYN that it sends is counted by where it goes, and its packets carry a DSCP mark."""
    sets = "".join(_SET.format(name=f"syns{v}", kind=kind) for v, kind in _ADDRESSES.items())
    counted = "".join(
        f"tcp flags & (syn | ack) == syn update @syns{v} {{ {family} daddr . tcp dport counter }}\n"
        for v, family in _FAMILIES.items()
    )
    marked = f"ip dscp set {mark}\nip6 dscp set {mark}\n"
    return f"table inet counted {{\n{sets}chain sent {{ type filter hook output priority -300;\n{counted}{marked}}}\n}}"


def count_bytes() -> str:
    """Rules of the rendezvous's host: bytes of TCP are counted by the other end, each way, heads included."""
    sets = "".join(
        _SET.format(name=f"{way}{v}", kind=kind) for way in ("received", "sent") for v, kind in _ADDRESSES.items()
    )
    received, sent = (
        "".join(
            f"update @{way}{v} {{ {family} {end}addr . tcp {end}port counter }}\n" for v, family in _FAMILIES.items()
        )
        for way, end in (("received", "s"), ("sent", "d"))
    )
    return (
        f"table inet counted {{\n{sets}"
        f"chain received {{ type filter hook input priority -300;\n{received}}}\n"
        f"chain sent {{ type filter hook output priority -300;\n{sent}}}\n}}"
    )


def read(namespace: Namespace, what: str, unit: str) -> Counter[str]:
    """A counter of a namespace, by ``host:port``.

    :param what: ``syns``, ``received`` or ``sent``.
    :param unit: ``packets`` or ``bytes``.
    """
    command = [system_tools.path_of("nft"), "--json", "--numeric", "list", "table", "inet", "counted"]
    listed = subprocess.run(namespace.command(command), capture_output=True, check=True).stdout
    counted: Counter[str] = Counter()
    for element in _elements(json.loads(listed), {f"{what}{v}" for v in _FAMILIES}):
        host, port = element["val"]["concat"]
        counted[format_host_port(host, port)] += element["counter"][unit]
    return counted


def forget(namespace: Namespace, *what: str) -> None:
    """Begins a count again."""
    with Batch() as batch:
        batch.nft("\n".join(f"flush set inet counted {name}{v}" for name in what for v in _FAMILIES), namespace)


def _elements(document: dict[str, Any], names: set[str]) -> Iterator[dict[str, Any]]:
    for entry in document["nftables"]:
        if entry.get("set", {}).get("name") in names:
            for element in entry["set"].get("elem", []):
                yield element["elem"]


class Losses:
    """What a client's network loses, as if on the way; one kind of loss at a time.

    :param namespace: the client's.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._losing = False

    def everything(self) -> None:
        """The link is cut; nobody is told."""
        self._lose(['iifname "eth0" drop'], ['oifname "eth0" drop'])

    def all_but_rendezvous(self, *, reset: bool = False) -> None:
        """Every TCP connection but those with the rendezvous's host.

        :param reset: both ends of such a connection are told; else nobody is.
        """
        networks = {"ip": RENDEZVOUS_NETWORK, "ip6": RENDEZVOUS_NETWORK6}
        self._lose_tcp([f"{family} {{end}}addr != {network}" for family, network in networks.items()], reset=reset)

    def flow(self, host: str, port: int, *, reset: bool = False) -> None:
        """The TCP connections with one other end.

        :param reset: as in :meth:`all_but_rendezvous`.
        """
        family = "ip6" if ":" in host else "ip"
        self._lose_tcp([f"{family} {{end}}addr {host} tcp {{end}}port {port}"], reset=reset)

    def nothing(self) -> None:
        """All is well again."""
        if self._losing:
            with Batch() as batch:
                batch.nft("delete table inet losses", self._namespace)
            self._losing = False

    def _lose_tcp(self, matches: list[str], *, reset: bool) -> None:
        fate = "reject with tcp reset" if reset else "drop"
        came, went = (
            [f'{interface} "eth0" meta l4proto tcp {match.format(end=end)} {fate}' for match in matches]
            for interface, end in (("iifname", "s"), ("oifname", "d"))
        )
        self._lose(came, went)

    def _lose(self, came: list[str], went: list[str]) -> None:
        self.nothing()
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority -200;\n" + "".join(f"{line}\n" for line in lines) + "}\n"
            for hook, lines in (("input", came), ("output", went))
        )
        with Batch() as batch:
            batch.nft(f"table inet losses {{\n{chains}}}", self._namespace)
        self._losing = True
