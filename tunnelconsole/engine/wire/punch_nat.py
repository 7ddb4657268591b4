"""What a NAT does, as far as it shows from outside, in words and in what follows for a punch.

The classes are those of RFC 4787 and RFC 5382, section 4; what works between them was measured, see ``docs/natlab.md``.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence

import msgspec

from tunnelconsole.engine.wire.punch import Probed, Reached

#: Ports between two mappings up to which a NAT is taken to count them up: other connections use up some in between.
MAX_STRIDE = 16
#: Ports guessed ahead of a NAT that counts, where the other keeps its port: 10 of 10, with room for strangers'.
WINDOW = 20
#: Ports guessed ahead where both count, each using up one for each guess: measured, 10 of 10.
WINDOW_BOTH = 3
#: Local ports from which the end with random mappings dials, and ports at which the other end guesses: 256 against
#: 1,024 met in 10 tries of 10, 64 against 1,024 in 9, 256 against 256 in 4.
MANY_SOCKETS = 256
MANY_PORTS = 1024


class Mapping(enum.Enum):
    """Which port of the NAT stands for one of ours."""

    #: There is no NAT.
    NONE = "none"
    #: The same one, whomever we dial.
    INDEPENDENT = "independent"
    #: The next one for each that we dial.
    SEQUENTIAL = "sequential"
    #: Any other one for each that we dial.
    RANDOM = "random"
    #: Seen from one place only.
    UNKNOWN = "unknown"


class Filtering(enum.Enum):
    """From whom the NAT, or a firewall, lets a connection in to a port that dials out."""

    #: From everybody.
    OPEN = "open"
    #: From every port of an address that was dialled.
    ADDRESS = "address"
    #: From what was dialled, and nothing else.
    PORT = "port"
    UNKNOWN = "unknown"


class Nat(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's NAT does."""

    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    #: Whether it maps a port to the same number.
    keeps_port: bool = False
    #: Whether it answers strangers with a refusal, in place of silence.
    refuses: bool = False

    @property
    def lets_strangers_in(self) -> bool:
        """Whether a connection from a port that was not dialled comes through, once its address was."""
        return self.filtering in (Filtering.OPEN, Filtering.ADDRESS)

    @property
    def moves(self) -> bool:
        """Whether the other end cannot know its port beforehand."""
        return self.mapping in (Mapping.SEQUENTIAL, Mapping.RANDOM)

    def __str__(self) -> str:
        mapping = {
            Mapping.NONE: "no NAT",
            Mapping.INDEPENDENT: "NAT with one port for all" + (", the same number" if self.keeps_port else ""),
            Mapping.SEQUENTIAL: "NAT with the next port for each destination",
            Mapping.RANDOM: "NAT with a random port for each destination",
            Mapping.UNKNOWN: "NAT of unknown kind",
        }[self.mapping]
        if self.filtering is Filtering.UNKNOWN:
            return mapping
        filtering = {
            Filtering.OPEN: "lets strangers in",
            Filtering.ADDRESS: "lets in whom it has dialled, from any port",
            Filtering.PORT: "refuses strangers" if self.refuses else "drops strangers",
        }[self.filtering]
        return f"{mapping}; {filtering}"

    def prospects(self) -> str:
        """What a punch from behind it comes to, in one sentence for its user."""
        if self.mapping is Mapping.RANDOM and not self.lets_strangers_in:
            return (
                "direct with everybody whose NAT keeps one port for all; with another NAT of random or counted ports "
                "through the relay"
            )
        if self.mapping is Mapping.SEQUENTIAL and not self.lets_strangers_in:
            return "direct with everybody, except those behind a NAT with random ports: with them through the relay"
        if self.mapping is Mapping.UNKNOWN:
            return "not known: the rendezvous has seen this host from one place only (give it an alternate address)"
        return "direct with everybody, as far as the other side's NAT lets connections out and their answers in"


def classify(local: tuple[str, int], mapped: Sequence[tuple[str, int] | None]) -> Nat:
    """Return what stands between us and the rendezvous, as far as it shows without strangers.

    :param local: our own address and port.
    :param mapped: where we were seen from, by the endpoints in the order in which we dialled them; None where one did
        not answer.
    """
    seen = [address for address in mapped if address is not None]
    if not seen:
        return Nat()
    return Nat(mapping=_mapping(local, seen), keeps_port=all(port == local[1] for _, port in seen))


def _mapping(local: tuple[str, int], seen: Sequence[tuple[str, int]]) -> Mapping:
    if all(address == local for address in seen):
        return Mapping.NONE
    if len(seen) == 1:
        return Mapping.UNKNOWN
    if len(set(seen)) == 1:
        return Mapping.INDEPENDENT
    steps = [after[1] - before[1] for before, after in itertools.pairwise(seen)]
    counts = len({host for host, _ in seen}) == 1 and all(0 < step <= MAX_STRIDE for step in steps)
    return Mapping.SEQUENTIAL if counts else Mapping.RANDOM


def filtering_of(probed: Probed | None) -> tuple[Filtering, bool]:
    """Return whom the NAT lets in, and whether it refuses the others instead of keeping silent.

    :param probed: what became of strangers' dials; None when that is not known.
    """
    if probed is None:
        return Filtering.UNKNOWN, False
    refuses = Reached.REFUSED in (probed.other_address, probed.other_port)
    if probed.other_address is Reached.OPEN:
        return Filtering.OPEN, refuses
    if probed.other_port is Reached.OPEN:
        return Filtering.ADDRESS, refuses
    if probed.other_address is Reached.UNTRIED and probed.other_port is Reached.UNTRIED:
        return Filtering.UNKNOWN, refuses
    return Filtering.PORT, refuses


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How one end goes about a race. Both make it of the same two classes, so that they fit together."""

    #: Why there is no race, in words; empty when there is one.
    hopeless: str = ""
    #: Whether the other end's addresses in its own network are tried: each dial may use up a mapping.
    hosts: bool = True
    #: Whether its mapped address is tried as it was seen last.
    mapped: bool = True
    #: Ports behind its last mapped one that are tried, one after the other.
    ahead: int = 0
    #: Random ports of its mapped address that are tried.
    many_ports: int = 0
    #: Local ports from which its mapped address is tried at once, instead of the one that is punched; 0: from that one.
    many_sockets: int = 0


def plan(ours: Nat, theirs: Nat, *, same_network: bool = False) -> Plan:
    """Return how we race.

    :param same_network: the rendezvous sees both at the same address, so the way between us may not need the NAT.
    """
    if ours.moves and theirs.moves and not (ours.lets_strangers_in or theirs.lets_strangers_in):
        if ours.mapping is theirs.mapping is Mapping.SEQUENTIAL:
            return Plan(hosts=same_network, mapped=False, ahead=WINDOW_BOTH)
        if same_network:
            return Plan(mapped=False)
        both = ours.mapping is theirs.mapping
        return Plan(
            hopeless="both NATs pick random ports"
            if both
            else "one NAT picks random ports, and the other's ports change too"
        )
    if theirs.moves and not ours.lets_strangers_in:
        if theirs.mapping is Mapping.SEQUENTIAL:
            return Plan(ahead=WINDOW)
        return Plan(many_ports=MANY_PORTS)
    if ours.mapping is Mapping.RANDOM and not theirs.lets_strangers_in:
        return Plan(hosts=same_network, many_sockets=MANY_SOCKETS)
    return Plan(hosts=same_network or ours.mapping is not Mapping.SEQUENTIAL)
