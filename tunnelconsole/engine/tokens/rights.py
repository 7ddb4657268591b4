"""What a token may do: where, as what, to whom, and how much."""

from __future__ import annotations

import fnmatch
import functools
import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from tunnelconsole.engine.access import Clients, Destinations
from tunnelconsole.engine.hosts import HostPattern
from tunnelconsole.engine.rules import Problem, Rule, broken
from tunnelconsole.engine.settings import DestinationPattern, NetworkPattern, PortRange
from tunnelconsole.engine.units import Duration, Rate, Size

System = Literal["jump", "channel", "punch", "relay", "tunnel"]
"""The systems whose servers take tokens; those of ssh take keys."""

SYSTEMS: Final[tuple[System, ...]] = ("jump", "channel", "punch", "relay", "tunnel")

MAX_PATTERNS: Final = 256
"""Patterns of one sort that a token may have: each is looked at for each name that is claimed."""


def _not_too_many(*patterns: Sequence[object]) -> list[Problem]:
    keys = ("hosts", "ports", "chids", "rooms", "destinations", "clients")
    return [
        (key, f"at most {MAX_PATTERNS} are possible")
        for key, given in zip(keys, patterns, strict=True)
        if len(given) > MAX_PATTERNS
    ]


def _plain_names(chids: Sequence[str], rooms: Sequence[str]) -> list[Problem]:
    return [
        (key, f"{name[:64]!r} is no name and no pattern of names; write each by itself")
        for key, given in (("chids", chids), ("rooms", rooms))
        for name in given
        if not name or "," in name or not name.isprintable()
    ]


def _no_negative(**counts: float) -> list[Problem]:
    return [(key, "must be 0 or more") for key, count in counts.items() if not 0 <= count < math.inf]


def _counts(sessions: int, channels: int, requests: float) -> list[Problem]:
    return _no_negative(sessions=sessions, channels=channels, requests=requests)


class TokenRights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rights of a token. What is empty or 0 limits nothing."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(("hosts", "ports", "chids", "rooms", "destinations", "clients"), _not_too_many),
        Rule(("chids", "rooms"), _plain_names),
        Rule(("sessions", "channels", "requests"), _counts),
    )

    kinds: tuple[System, ...] = ()
    """The systems it may use."""
    hosts: tuple[HostPattern, ...] = ()
    """Public hostnames that it may have at a tunnel server, ``*`` for any letters."""
    ports: tuple[PortRange, ...] = ()
    """Public ports that it may have at a relay server."""
    chids: tuple[str, ...] = ()
    """Chids that it may have, and send to, at a channel server, ``*`` for any letters."""
    rooms: tuple[str, ...] = ()
    """Rooms that it may enter at a punch server, ``*`` for any letters."""
    destinations: tuple[DestinationPattern, ...] = ()
    """Where it may be led by a jump server, as far as that leads there at all."""
    clients: tuple[NetworkPattern, ...] = ()
    """Networks from which it may be used."""
    rate: Rate | None = None
    """Bytes per second of all its channels, both ways together."""
    sessions: int = 0
    """Sessions at once."""
    channels: int = 0
    """Channels at once."""
    requests: float = 0.0
    """Requests per second of the visitors of its tunnels."""
    bytes_per_day: Size = Size(0)
    """Bytes from midnight to midnight in UTC, both ways together; then its sessions end."""
    one_time: bool = False
    """Whether it is good for one session, and then for nothing any more."""

    def problems(self) -> list[Problem]:
        """What is wrong with them beyond the types."""
        return broken(self.rules, msgspec.structs.asdict(self))

    def grants_host(self, host: str) -> bool:
        """Whether it may have this hostname, in lower case and without a port."""
        return not self.hosts or any(pattern.names(host) for pattern in self.hosts)

    def grants_port(self, port: int) -> bool:
        """Whether it may have this public port."""
        return not self.ports or any(ports.first <= port <= ports.last for ports in self.ports)

    def grants_chid(self, chid: str) -> bool:
        """Whether it may have, or send to, this chid."""
        return _matches(chid, self.chids)

    def grants_room(self, room: str) -> bool:
        """Whether it may enter this room."""
        return _matches(room, self.rooms)

    def grants_destination(self, host: str, address: str, port: int) -> bool:
        """Whether it may be led there; see :meth:`~tunnelconsole.engine.access.Destinations.permit`."""
        return not self.destinations or _destinations(self.destinations).permit(host, address, port)

    def grants_client(self, peer: str) -> bool:
        """Whether it may be used from ``peer``, a numeric ``host:port``."""
        return not self.clients or _clients(self.clients).permit(peer)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@functools.lru_cache(maxsize=256)
def _destinations(patterns: tuple[str, ...]) -> Destinations:
    return Destinations(patterns, ())


@functools.lru_cache(maxsize=256)
def _clients(patterns: tuple[str, ...]) -> Clients:
    return Clients(patterns, ())


def encode_rights(rights: TokenRights) -> dict[str, Any]:
    """The rights as they are kept and travel: plain JSON, without what limits nothing."""
    plain: dict[str, Any] = {}
    for key, value in msgspec.structs.asdict(rights).items():
        if not value:
            continue
        if key == "ports":
            plain[key] = [f"{ports.first}-{ports.last}" for ports in value]
        elif isinstance(value, tuple):
            plain[key] = [str(entry) for entry in value]
        elif isinstance(value, bool):
            plain[key] = value
        else:
            plain[key] = float(value) if isinstance(value, float) else int(value)
    return plain


def decode_rights(plain: dict[str, Any]) -> TokenRights:
    """The rights of what :func:`encode_rights` made, or of what somebody has written like it.

    Durations, sizes and rates may be numbers, or text as in the configuration.

    :raises ValueError: something in it is wrong; the text begins with the key: ``rate: "fast" is not a rate``.
    """
    given = dict(plain)
    if isinstance(given.get("ports"), list | tuple):
        given["ports"] = [_ports(entry) for entry in given["ports"]]
    try:
        rights = msgspec.convert(given, TokenRights, dec_hook=_decode, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(_with_its_key(str(error).replace("`", ""))) from error
    found = rights.problems()
    if found:
        key, sentence = found[0]
        raise ValueError(f"{key}: {sentence}")
    return rights


_AT_ITS_KEY = re.compile(r"(?P<what>.*) - at \$\.(?P<key>\w+)(\[\d+\])?", re.DOTALL)

_PLAINLY = (
    (re.compile(r"Invalid enum value (.*)"), rf"\1 is not a system that takes tokens: {', '.join(SYSTEMS)}"),
    (re.compile(r"Expected int, got .*"), "a whole number is expected"),
    (re.compile(r"Expected float, got .*"), "a number is expected"),
)
"""What a person is told in place of what msgspec says."""


def _with_its_key(error: str) -> str:
    """What msgspec says of a value, with the key before it."""
    found = _AT_ITS_KEY.fullmatch(error)
    if found is None:
        return error
    what = found["what"]
    for said, plainly in _PLAINLY:
        what = said.sub(plainly, what)
    return f"{found['key']}: {what}"


def _ports(given: object) -> PortRange:
    try:
        ports = PortRange.parse(str(given))
    except ValueError:
        raise ValueError(f'ports: "{given}" is not a range of ports; write one as "7001-7020" or "9000"') from None
    if not ports.first:
        raise ValueError(f'ports: "{given}" is not a range of ports; leave ports out for any')
    return ports


def _decode(wanted: type, given: object) -> object:
    if isinstance(given, str) and wanted in (HostPattern, DestinationPattern, NetworkPattern, Rate, Size, Duration):
        return wanted.parse(given)
    if wanted is Rate and isinstance(given, int | float) and given > 0:
        return Rate(given)
    if wanted is Size and isinstance(given, int) and given >= 0:
        return Size(given)
    raise ValueError(f"{given!r} is not a {wanted.__name__}")
