"""What a client tells the other seat of its room, and which of the addresses in it are dialled.

An offer is JSON, sealed by :class:`~tunnelconsole.engine.wire.punch_room.RoomKey`. Whoever has the room's secret may
still be hostile: it must not be able to make us connect to somebody else. So an address counts only where the
rendezvous has seen the other seat, or in a network that is ours too.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from tunnelconsole.engine.wire.errors import ProtocolError
from tunnelconsole.engine.wire.hostport import format_host_port, parse_host_port
from tunnelconsole.engine.wire.punch import MAX_SEEN, AddressText, Number
from tunnelconsole.engine.wire.punch_nat import Nat

#: Addresses in one offer: a host has few networks, and each costs the other end its share of :data:`SYN_BUDGET`.
MAX_CANDIDATES = 16
#: Global IPv6 addresses taken from one offer: nobody vouches for them, and a host needs no more.
MAX_IPV6 = 2
#: The lowest port that is dialled: what listens below belongs to the system, and no NAT maps to it.
LOWEST_PORT = 1024
#: SYN segments that one attempt may send, the kernel's repetitions among them: many ports, and some tries.
SYN_BUDGET = 1300

#: The highest number of a race; 4 bytes of a hello leave room to count on from there.
MAX_ROUND = 2**31 - 1

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Networks behind NATs (RFC 1918, RFC 6598, RFC 4193). Not ``is_private``, which takes in what documents and labs use.
LOCAL_NETWORKS: tuple[Network, ...] = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


#: Networks behind which a translator reaches IPv4 (RFC 6052, RFC 8215).
NAT64_NETWORKS: tuple[Network, ...] = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48")))


class Kind(enum.Enum):
    """Where a candidate comes from."""

    #: An address of the host itself.
    HOST = "host"
    #: The address at which the rendezvous saw it.
    MAPPED = "mapped"
    #: A port that its NAT may take next.
    PREDICTED = "predicted"


class Mode(enum.Enum):
    """Who opens streams."""

    #: It does: it has a local listener.
    OPENS = "opens"
    #: The other end does: it has a target.
    ACCEPTS = "accepts"
    #: There is one stream, whoever opens it.
    EITHER = "either"


class Candidate(msgspec.Struct, frozen=True):
    """An address at which an end may be reached."""

    kind: Kind
    #: ``host:port`` with a numeric host.
    address: AddressText

    @classmethod
    def of(cls, kind: Kind, host: str, port: int) -> Candidate:
        """Return the candidate with this host and port."""
        return cls(kind, format_host_port(host, port))

    @property
    def host_port(self) -> tuple[str, int]:
        """Its host and port.

        :raises ValueError: the text is no address.
        """
        return parse_host_port(self.address)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What one end brings to a race."""

    #: Fresh for each offer, 16 bytes in hex.
    nonce: Number
    #: The link that it has with the other end and wants to go on with; empty: none.
    link: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""
    mode: Mode
    nat: Nat = Nat()
    #: No more than :data:`MAX_CANDIDATES` are looked at; a few more are no reason to hear nothing at all.
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=4 * MAX_CANDIDATES)] = ()
    #: Which race of this pair's it is for, from 1 on; 0: none, it only introduces itself.
    round: Annotated[int, Meta(ge=0, le=MAX_ROUND)] = 0
    #: Whether it has no way to the other end, so that both must bring a connection to be relayed.
    relay: bool = False


_DECODER = msgspec.json.Decoder(Offer)
_ENCODER = msgspec.json.Encoder()


def encode_offer(offer: Offer) -> bytes:
    """Return the text to seal."""
    return _ENCODER.encode(offer)


def parse_offer(text: bytes) -> Offer:
    """Return what was sealed.

    :raises ProtocolError: it is no offer.
    """
    try:
        return _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProtocolError("what the other seat sealed is no offer; does it run another version?") from None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What we know of ourselves and of the other seat, without asking it."""

    #: Hosts from which the rendezvous has seen the other seat, and us.
    seen_theirs: Collection[str]
    seen_ours: Collection[str]
    #: Networks that this host is on.
    networks: Collection[Network]
    #: Our own candidates, ``host:port``.
    ours: Collection[str]
    #: Addresses of the rendezvous.
    rendezvous: Collection[str]

    @property
    def same_network(self) -> bool:
        """Whether the rendezvous sees both from one address."""
        return not set(self.seen_theirs).isdisjoint(self.seen_ours)


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate, and why it is not dialled; empty when it is."""

    candidate: Candidate
    rejected: str


def judge(candidates: Iterable[Candidate], around: Surroundings) -> list[Judged]:
    """Return which of the other end's candidates may be dialled, each once."""
    judged: list[Judged] = []
    known: set[str] = set()
    accepted = unvouched = 0
    for candidate in candidates:
        try:
            host, port = candidate.host_port
            ip: IPAddress = ipaddress.ip_address(host)
        except ValueError:
            judged.append(Judged(candidate, "it is no numeric address and port"))
            continue
        address = format_host_port(str(ip), port)
        if address in known:
            continue
        known.add(address)
        reason = _forbidden(ip, port, address, around) or _foreign(ip, around)
        if not reason and ip.version == 6 and not _vouched_for(ip, around):
            unvouched += 1
            reason = "" if unvouched <= MAX_IPV6 else f"more than {MAX_IPV6} IPv6 addresses"
        if not reason:
            accepted += 1
            reason = "" if accepted <= MAX_CANDIDATES else f"more than {MAX_CANDIDATES} addresses"
        judged.append(Judged(Candidate(_kind(candidate.kind, ip, around), address), reason))
    return judged


def _kind(kind: Kind, ip: IPAddress, around: Surroundings) -> Kind:
    """What a candidate is: ports are guessed around a mapped one, so only where the rendezvous has seen its owner."""
    return kind if kind is Kind.HOST or _seen(ip, around) else Kind.HOST


def _forbidden(ip: IPAddress, port: int, address: str, around: Surroundings) -> str:
    """Why nobody may be sent there; empty when one may."""
    if port < LOWEST_PORT:
        return f"a port below {LOWEST_PORT} belongs to a system service"
    if address in around.ours:
        return "it is our own"
    if ip.is_loopback:
        return "" if str(ip) in around.seen_theirs and str(ip) in around.seen_ours else "it is loopback"
    if ip.is_unspecified or ip.is_multicast or str(ip) == "255.255.255.255":
        return "it is no host's address"
    if ip.is_link_local:
        return "it is link-local"
    if str(ip) in around.rendezvous and str(ip) not in around.seen_theirs:
        return "it is the rendezvous"
    return "it hides an IPv4 address" if isinstance(ip, ipaddress.IPv6Address) and _hides_ipv4(ip) else ""


def _hides_ipv4(ip: ipaddress.IPv6Address) -> bool:
    return bool(ip.ipv4_mapped or ip.sixtofour or ip.teredo) or any(ip in network for network in NAT64_NETWORKS)


def _foreign(ip: IPAddress, around: Surroundings) -> str:
    """Why it may belong to somebody else; empty when it does not."""
    if _vouched_for(ip, around):
        return ""
    if _is_local(ip):
        return "" if around.same_network else "it is in a private network that is not ours"
    return "" if ip.version == 6 else "the rendezvous has not seen the other side there"


def _vouched_for(ip: IPAddress, around: Surroundings) -> bool:
    return _seen(ip, around) or (_is_local(ip) and any(ip in network for network in around.networks))


def _seen(ip: IPAddress, around: Surroundings) -> bool:
    return str(ip) in list(around.seen_theirs)[:MAX_SEEN]


def _is_local(ip: IPAddress) -> bool:
    return any(ip in network for network in LOCAL_NETWORKS)
